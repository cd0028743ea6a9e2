"""What the gate counts of an order and of a symbol: held, and on its way. Plain Python; nodes/exposure.py asks it."""

from fractions import Fraction

from brokers.events import OrderRequest, OrderState, OrderType
from brokers.orders import WorkingOrder
from brokers.units import Steps
from feeds.events import Side
from feeds.instruments import Instrument

# Bound once: looking a member up on its class costs more than comparing it.
_BUY = Side.BUY
_PENDING = OrderState.PENDING
_MARKET, _LIMIT, _STOP = OrderType.MARKET, OrderType.LIMIT, OrderType.STOP
_STOP_LIMIT, _TOUCHED = OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED


NONE: list["Sent"] = []  # never written to
_STEPS_MAX = 2.0**63  # ticks or lots; what is beyond is no price and no quantity


class Sent(WorkingOrder):
    """An order that passed the gate. Its state is what the venue said last; that its cancel is on the way stands
    beside it, because the venue may refuse the cancel and the order independently."""

    __slots__ = (
        "awake", "cancelling", "children", "claim", "family", "group", "linked", "market", "named", "parent",
        "quantity", "reduce_only", "replaces", "request", "returned", "sign", "symbol", "ticks",
    )  # fmt: skip

    def __init__(self, order: OrderRequest, quantity: float, sign: int, lots: int, ticks: int, market: bool) -> None:
        # Every order makes one of these, so the fields of WorkingOrder are set here.
        self.order_id = order.order_id
        self.lots = self.open_lots = self.awake = lots  # awake: lots that may fill now; of a child, its parent's fills
        self.state = _PENDING
        self.symbol = order.symbol
        self.quantity = quantity
        self.group = order.group
        self.parent = self.named = order.parent  # whose child it is at the gate, and at the venue
        self.replaces = order.replaces
        self.linked = self.replaces != "" or self.parent != ""
        self.request = order
        self.market = market
        self.reduce_only = order.reduce_only
        self.sign = sign
        self.ticks = ticks  # what a lot is counted at
        self.cancelling = False
        self.claim: Claim | None = None
        self.children = self.family = NONE  # its own, and of a child its parent's; most orders have none
        self.returned = 0  # lots that children which have ended took back

    @property
    def counted(self) -> int:
        """Lots that may still change the position."""
        return max(0, min(self.lots, self.awake) - self.lots + self.open_lots)


class Claim:
    """Orders that can only fill instead of each other, and what they count for together."""

    __slots__ = ("buys", "buys_value", "firm_buys", "firm_sells", "key", "orders", "sells", "sells_value")

    def __init__(self, key: str) -> None:
        self.key = key
        self.orders: list[Sent] = []
        self.buys = self.buys_value = self.sells = self.sells_value = self.firm_buys = self.firm_sells = 0

    def recount(self) -> None:
        self.buys = self.buys_value = self.sells = self.sells_value = self.firm_buys = self.firm_sells = 0
        for order in self.orders:
            lots = order.counted
            firm = 0 if order.cancelling or order.parent else lots
            if order.sign > 0:
                self.buys = max(self.buys, lots)
                self.buys_value = max(self.buys_value, lots * order.ticks)
                self.firm_buys = max(self.firm_buys, firm)
            else:
                self.sells = max(self.sells, lots)
                self.sells_value = max(self.sells_value, lots * order.ticks)
                self.firm_sells = max(self.firm_sells, firm)


class Holding:
    """One symbol: what is held, and the worst of what is in flight. Lots and ticks, both whole numbers."""

    __slots__ = (
        "_base", "_base_per_lot", "_held_base", "buys", "buys_value", "closing_buys", "closing_sells", "firm_buys",
        "firm_sells", "held", "instrument", "lot", "lots", "market_buys", "market_sells", "price_max", "quantity_max",
        "sells", "sells_value", "tick_lot", "ticks", "ticks_per_unit",
    )  # fmt: skip

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.lots = Steps(instrument.lot, f"lot of {instrument.symbol}")
        self.ticks = Steps(instrument.tick, f"tick of {instrument.symbol}")
        self._base = Steps(instrument.base_unit or instrument.lot, f"base unit of {instrument.symbol}")
        self._base_per_lot = int(self.lots.step / self._base.step)
        self._held_base = 0
        self.lot = float(self.lots.step)
        self.ticks_per_unit = float(1 / self.ticks.step)
        self.tick_lot = float(self.lots.step * self.ticks.step)
        self.held = 0  # whole lots, towards zero
        self.buys = self.buys_value = self.sells = self.sells_value = 0  # lots, and lots × ticks
        self.firm_buys = self.firm_sells = 0  # lots of what is meant to fill: not protective, not being cancelled
        self.market_buys = self.market_sells = 0  # those of them that wait for no price and stand alone
        self.closing_buys = self.closing_sells = 0  # lots of reduce-only orders, which are not among the above
        self.price_max = _STEPS_MAX * float(self.ticks.step)
        self.quantity_max = _STEPS_MAX * self.lot

    def move(self, lots: int, base_fee: float) -> None:
        """Book signed lots; a fee in the base currency is taken out of what is held."""
        self._held_base += lots * self._base_per_lot
        if base_fee:
            self._held_base -= self._base.exact(base_fee)
        if self._base_per_lot == 1:
            self.held = self._held_base
        else:
            self._settle()

    def begin(self, units: int) -> None:
        """What is held at the start, in smallest quantities."""
        self._held_base = units
        self._settle()

    def split(self, ratio: Fraction) -> None:
        """New units for old; a part of a unit is paid out, as in the ledger."""
        self._held_base = int(self._held_base * ratio)
        self._settle()

    def _settle(self) -> None:
        held = abs(self._held_base) // self._base_per_lot
        self.held = held if self._held_base > 0 else -held

    def add(self, sent: Sent, lots: int) -> None:
        """Count lots of an order that stands alone as in flight, or, negative, as no longer so."""
        firm = 0 if sent.cancelling else lots
        if sent.sign > 0:
            self.buys += lots
            self.buys_value += lots * sent.ticks
            self.firm_buys += firm
            if sent.market:
                self.market_buys += firm
        else:
            self.sells += lots
            self.sells_value += lots * sent.ticks
            self.firm_sells += firm
            if sent.market:
                self.market_sells += firm

    def close(self, sent: Sent, lots: int) -> None:
        """`add` for a reduce-only order."""
        if sent.sign > 0:
            self.closing_buys += lots
        else:
            self.closing_sells += lots
        if not sent.cancelling:
            self.firm(sent, lots)

    def firm(self, sent: Sent, lots: int) -> None:
        market = sent.market and not sent.reduce_only
        if sent.sign > 0:
            self.firm_buys += lots
            self.market_buys += lots if market else 0
        else:
            self.firm_sells += lots
            self.market_sells += lots if market else 0

    @property
    def idle(self) -> bool:
        return not (self.held or self.buys or self.sells)

    def worst(self, unit: float, last: float) -> tuple[float, float]:
        """The signed worth of the position if every buy fills and no sale, and the other way round.

        What covers costs nothing; what opens is counted at the average price of its side.

        Args:
            unit: what one unit is worth in the currency of the account.
            last: the last price, quote currency.
        """
        held, worth = self.held, self.lot * unit
        rate = self.tick_lot * unit / last  # of a tick on a lot
        high, low = held + self.buys, held - self.sells
        if self.closing_buys and held < 0:
            high += min(self.closing_buys, -held)
        if self.closing_sells and held > 0:
            low -= min(self.closing_sells, held)
        if high > 0 and self.buys:
            most = max(held, 0) * worth + min(self.buys, high) * (self.buys_value / self.buys) * rate
        else:
            most = high * worth
        if low < 0 and self.sells:
            least = min(held, 0) * worth + max(-self.sells, low) * (self.sells_value / self.sells) * rate
        else:
            least = low * worth
        return most, least


def own_price(order: OrderRequest, last: float) -> float:
    """The price that an order's worth is counted at; `last` is the last price, quote currency."""
    kind = order.order_type
    if kind is _MARKET:
        return last
    buys = order.side is _BUY
    if kind is _LIMIT:
        return order.limit_price if buys else max(order.limit_price, last)
    if kind is _STOP:
        return max(order.stop_price, last) if buys else order.stop_price
    if kind is _STOP_LIMIT:
        return order.limit_price if buys else max(order.limit_price, order.stop_price)
    if kind is _TOUCHED:
        return order.stop_price if buys else max(order.stop_price, last)
    return last  # a trailing stop
