"""What an account holds and what is on its way, in the worst case. Plain Python, O(1) an event; the gate asks it.

In flight is counted so that no mix of fills can surprise: all buys may fill and no sale, or the other way round.

- Orders that can only fill instead of each other count once, with the largest: a group (OCO), and an order with the one
  that replaces it.
- The child of a bracket can sell no more than its parent has bought: it counts for as much as the parent has filled.
- A reduce-only order cannot enlarge a position: it counts for nothing.
- An order is worth its own price where it has one, else the last price when it was sent. One that the market has
  already reached, such as a sale with a limit below the last price, is worth at least the last price.
"""

import math
from fractions import Fraction

from brokers.events import Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.orders import TransitionError, WorkingOrder
from brokers.units import Steps
from feeds.events import Side
from feeds.instruments import Instrument

# Bound once: looking a member up on its class costs more than comparing it.
_BUY = Side.BUY
_PENDING, _ACCEPTED = OrderState.PENDING, OrderState.ACCEPTED
_FILLED, _CANCEL_PENDING = OrderState.FILLED, OrderState.CANCEL_PENDING
_MARKET, _LIMIT, _STOP = OrderType.MARKET, OrderType.LIMIT, OrderType.STOP
_STOP_LIMIT, _TOUCHED = OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED


_NONE: list["Sent"] = []  # never written to


class Sent(WorkingOrder):
    """An order that passed the gate. Its state is what the venue said last; that its cancel is on the way stands
    beside it, because the venue may refuse the cancel and the order independently."""

    __slots__ = (
        "awake", "cancelling", "children", "claim", "family", "group", "parent", "quantity", "reduce_only",
        "replaces", "returned", "sign", "symbol", "ticks",
    )  # fmt: skip

    def __init__(self, order: OrderRequest, quantity: float, sign: int, lots: int, ticks: int) -> None:
        # Every order makes one of these, so the fields of WorkingOrder are set here.
        self.order_id = order.order_id
        self.lots = self.open_lots = self.awake = lots  # awake: lots that may fill now; of a child, its parent's fills
        self.state = _PENDING
        self.symbol = order.symbol
        self.quantity = quantity
        self.group = order.group
        self.parent = order.parent
        self.replaces = order.replaces
        self.reduce_only = order.reduce_only
        self.sign = sign
        self.ticks = ticks  # what a lot is counted at
        self.cancelling = False
        self.claim: Claim | None = None
        self.children = self.family = _NONE  # its own, and of a child its parent's; most orders have none
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
        "_base", "_base_per_lot", "_held_base", "buys", "buys_value", "firm_buys", "firm_sells", "held", "instrument",
        "lot", "lots", "sells", "sells_value", "tick_lot", "ticks", "ticks_per_unit",
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

    def move(self, lots: int, base_fee: float) -> None:
        """Book signed lots; a fee in the base currency is taken out of what is held."""
        self._held_base += lots * self._base_per_lot
        if base_fee:
            self._held_base -= self._base.exact(base_fee)
        if self._base_per_lot == 1:
            self.held = self._held_base
        else:
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
        else:
            self.sells += lots
            self.sells_value += lots * sent.ticks
            self.firm_sells += firm

    def firm(self, sent: Sent, lots: int) -> None:
        if sent.sign > 0:
            self.firm_buys += lots
        else:
            self.firm_sells += lots

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


class Exposure:
    """Positions and orders in flight of an account.

    Lots are counted by fills alone, states by updates alone, whichever comes first. What cannot be is told, as a
    sentence, and counted as said; nothing is dropped in silence.
    """

    __slots__ = ("_claims", "holdings", "orders")

    def __init__(self, instruments: tuple[Instrument, ...]) -> None:
        self.holdings = {i.symbol: Holding(i) for i in instruments}
        self.orders: dict[str, Sent] = {}
        self._claims: dict[str, Claim] = {}

    def prepare(self, order: OrderRequest, last: float) -> Sent | None:
        """The order in lots and ticks; None where it is of less than a lot, or asks for no more than was filled."""
        holding = self.holdings[order.symbol]
        quantity = order.quantity
        lots = holding.lots.down(quantity)
        price = last if order.order_type is _MARKET else own_price(order, last)
        sent = Sent(order, quantity, 1 if order.side is _BUY else -1, lots, round(price * holding.ticks_per_unit))
        if sent.replaces:
            old = self.orders.get(sent.replaces)
            if old is not None:
                sent.lots = sent.open_lots = sent.awake = lots - old.lots + old.open_lots
        if sent.lots < 1:
            return None
        if sent.parent:
            parent = self.orders.get(sent.parent)
            if (
                sent.reduce_only
                or parent is None
                or parent.cancelling
                or parent.sign == sent.sign
                or self._promised(parent, sent) > parent.lots
            ):
                sent.parent = ""  # not known to take back what its parent takes on and no more: an order of its own
            else:
                sent.awake = parent.lots - parent.open_lots
        return sent

    def reduces(self, sent: Sent) -> bool:
        """Whether an order can only bring positions nearer to zero.

        - a reduce-only order;
        - a child, which with its siblings takes back no more than their parent takes on;
        - a replacement that asks for no more than what it replaces, in lots and in worth;
        - any other that brings the position, with what is meant to fill, nearer to zero without crossing it, and that
          cannot make it larger than it could get without it, whatever of all that fills.
        """
        if sent.reduce_only:
            return True
        if sent.parent:
            return True
        if sent.replaces:
            old = self.orders.get(sent.replaces)
            if old is not None and old.sign == sent.sign and not old.cancelling:
                return sent.lots <= old.open_lots and sent.lots * sent.ticks <= old.open_lots * old.ticks
        holding = self.holdings[sent.symbol]
        if sent.sign < 0:
            held, ahead, against = holding.held, holding.firm_sells, holding.firm_buys
        else:
            held, ahead, against = -holding.held, holding.firm_buys, holding.firm_sells
        after = ahead + sent.lots - held  # how far it would cross zero if it filled, and nothing against it
        return after <= against and after <= max(abs(held), held + against)

    def add(self, sent: Sent) -> None:
        """Count an order as in flight; `remove` takes it back."""
        self.orders[sent.order_id] = sent
        if sent.reduce_only:
            return
        old = self.orders.get(sent.replaces) if sent.replaces else None
        if sent.parent:
            parent = self.orders[sent.parent]
            if parent.children is _NONE:
                parent.children = []
            parent.children.append(sent)
            sent.family = parent.children
        if sent.group or sent.parent or old is not None:
            self._join(sent, f"{sent.symbol} {sent.group}" if sent.group else "", old)
            return
        self.holdings[sent.symbol].add(sent, sent.lots)

    def remove(self, order_id: str) -> None:
        """Forget an order: it has ended, or did not pass after all."""
        sent = self.orders.pop(order_id)
        if sent.claim is None and not sent.open_lots:
            return  # it stood alone, and counts no more
        if sent.parent:
            sent.family.remove(sent)
            parent = self.orders.get(sent.parent)
            if parent is not None:
                parent.returned += sent.lots - sent.open_lots
        self._count(sent, 0)

    def filled(self, fill: Fill) -> str:
        """Book an execution; what was impossible about it, or ""."""
        holding = self.holdings.get(fill.symbol)
        if holding is None:
            raise ValueError(f"want a fill of one of {', '.join(self.holdings)}, was of {fill.symbol!r}")
        sign = 1 if fill.side is _BUY else -1
        sent = self.orders.get(fill.order_id)
        quantity = fill.quantity
        if sent is not None and quantity == sent.quantity and sent.open_lots == sent.lots:
            lots = sent.lots  # nearly every order fills as it was sent
        else:
            lots = holding.lots.exact(quantity)
        holding.move(sign * lots, fill.base_fee)
        if sent is None or sent.symbol != fill.symbol or sent.sign != sign:
            return (
                f"{fill.side.name} {fill.quantity} {fill.symbol} filled for order {fill.order_id}, which does not work"
            )
        wrong = ""
        if lots > sent.open_lots:
            left = holding.lots.value(sent.open_lots)
            wrong = f"{fill.quantity} {fill.symbol} filled for order {fill.order_id}, of which {left} were open"
            lots = sent.open_lots
        self._count(sent, sent.open_lots - lots, shared=True)
        for child in sent.children:
            child.awake += lots
            self._recount(child)
        if sent.ended and not sent.open_lots:
            self.remove(sent.order_id)
        return wrong

    def updated(self, update: OrderUpdate) -> str:
        """Take the state that the venue tells; what was impossible about it, or ""."""
        sent = self.orders.get(update.order_id)
        state = update.state
        if sent is None:
            return f"order {update.order_id} of {update.symbol} is {state.name} at the venue, but does not work"
        old = sent.state
        if state is _FILLED and not sent.open_lots and old is not _FILLED:  # nearly every order ends so
            self.remove(sent.order_id)
            return ""
        if state is old and not sent.ended:
            return ""  # triggered, or cut by another of its group: fills tell the rest
        try:
            sent.to(state)
        except TransitionError as exc:
            return str(exc)
        if old is _CANCEL_PENDING and state is _ACCEPTED:
            self._firm(sent, cancelling=False)
            return f"the venue did not cancel order {update.order_id} of {update.symbol}"
        if sent.ended:
            due = 0  # lots whose fills are still on their way
            if state is _FILLED:
                due = sent.open_lots
            elif sent.claim is None and 0.0 < update.remaining < math.inf:
                due = max(0, sent.open_lots - self.holdings[sent.symbol].lots.down(update.remaining))
            if due:
                self._count(sent, due)
            else:
                self.remove(sent.order_id)
        return ""

    def cancel(self, order_id: str) -> bool:
        """Note that a cancel goes out; False where there is nothing to cancel. A second one may: the first may fail."""
        sent = self.orders.get(order_id)
        if sent is None or sent.ended or not sent.open_lots:
            return False
        if not sent.cancelling:
            self._firm(sent, cancelling=True)
        return True

    def cancel_all(self, symbol: str = "") -> list[Sent]:
        """Note that all orders, or those of one symbol, are cancelled; return those that were not already."""
        working = [s for s in self.orders.values() if not s.cancelling and (not symbol or s.symbol == symbol)]
        return [sent for sent in working if self.cancel(sent.order_id)]

    def _promised(self, parent: Sent, sent: Sent) -> int:
        """Lots that the children of an order could take back with `sent` among them; a group counts once."""
        largest: dict[str, int] = {}
        for child in [*parent.children, sent]:
            key = f"group {child.group}" if child.group else f"order {child.order_id}"
            largest[key] = max(largest.get(key, 0), child.lots)
        return parent.returned + sum(largest.values())

    def _join(self, sent: Sent, key: str, old: Sent | None) -> None:
        """Make an order one of a claim."""
        claim = old.claim if old is not None else self._claims.get(key)
        if claim is None:
            claim = Claim(key)
            if key:
                self._claims[key] = claim
            if old is not None and not old.reduce_only:
                open_lots = old.open_lots
                self._count(old, 0)
                old.open_lots, old.claim = open_lots, claim
                claim.orders.append(old)
        sent.claim = claim
        claim.orders.append(sent)
        if old is not None:
            sent.children, sent.returned = old.children, old.returned
        self._recount(sent)

    def _count(self, sent: Sent, open_lots: int, *, shared: bool = False) -> None:
        """Set what is open of an order. `shared`: by a fill, which is taken off the others of its claim too."""
        lots = sent.open_lots - open_lots
        sent.open_lots = open_lots
        if sent.reduce_only or not (lots or sent.claim):
            return
        claim = sent.claim
        if claim is None:
            self.holdings[sent.symbol].add(sent, -lots)
            return
        if shared:
            for other in claim.orders:
                if other is not sent:
                    other.open_lots = max(0, other.open_lots - lots)
        if sent.order_id not in self.orders:
            claim.orders.remove(sent)
            if not claim.orders:
                self._claims.pop(claim.key, None)
        self._recount(sent)

    def _recount(self, sent: Sent) -> None:
        """Count the claim of an order anew."""
        claim, holding = sent.claim, self.holdings[sent.symbol]
        if claim is None:
            return
        before = claim.buys, claim.buys_value, claim.sells, claim.sells_value, claim.firm_buys, claim.firm_sells
        claim.recount()
        holding.buys += claim.buys - before[0]
        holding.buys_value += claim.buys_value - before[1]
        holding.sells += claim.sells - before[2]
        holding.sells_value += claim.sells_value - before[3]
        holding.firm_buys += claim.firm_buys - before[4]
        holding.firm_sells += claim.firm_sells - before[5]

    def _firm(self, sent: Sent, *, cancelling: bool) -> None:
        """An order that is being cancelled is no longer meant to fill, though it still may."""
        sent.cancelling = cancelling
        if sent.claim is not None:
            self._recount(sent)
        elif not sent.reduce_only:
            self.holdings[sent.symbol].firm(sent, -sent.open_lots if cancelling else sent.open_lots)
