"""A venue as simple as it can be, for tests of reconciliation: exact balances, orders, trades, and what it tells."""

from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from brokers.reconcile import VenueOrder, VenueTrade, VenueView
from feeds.instruments import Instrument

BTC = Instrument(
    symbol="BTC/USDT",
    tick="0.01",
    lot="0.00001",
    currency="USDT",
    currency_unit="0.00000001",
    fees_in="received",
    base_unit="0.00000001",
)
BASES = {"BTC/USDT": "BTC"}
_FEE, _UNIT, _LOT = Decimal("0.001"), Decimal("0.00000001"), Decimal("0.00001")


@dataclass
class ModelVenue:
    """One market, BTC/USDT. A buyer pays its fee in BTC, a seller in USDT."""

    balances: dict[str, Decimal] = field(default_factory=lambda: {"BTC": Decimal(0), "USDT": Decimal(10_000)})
    orders: list[VenueOrder] = field(default_factory=list)
    trades: list[VenueTrade] = field(default_factory=list)

    def take(self, client_id: str, side: str, quantity: Decimal, price: Decimal, **changed: object) -> VenueOrder:
        """An order arrives. No client id is taken twice."""
        assert client_id not in {order.client_id for order in self.orders}, f"{client_id} came twice"
        order = VenueOrder(
            client_id=client_id,
            venue_id=str(len(self.orders) + 1),
            symbol="BTC/USDT",
            side=side,
            order_type="LIMIT",
            quantity=quantity,
            filled=Decimal(),
            state="ACCEPTED",
            limit_price=price,
            time_ns=len(self.orders) + 1,
        )
        self.orders.append(replace(order, **changed))  # type: ignore[arg-type]
        return self.orders[-1]

    def fill(self, venue_id: str, quantity: Decimal) -> VenueTrade | None:
        """Fill a working order, as far as it is open and paid for."""
        order = self.order(venue_id)
        quantity = min(quantity, order.quantity - order.filled)
        if order.side == "SELL":
            quantity = min(quantity, self.balances["BTC"].quantize(_LOT, ROUND_DOWN))
        elif quantity * order.limit_price > self.balances["USDT"]:
            return None
        if not order.working or not quantity:
            return None
        buys, worth = order.side == "BUY", quantity * order.limit_price
        fee = ((quantity if buys else worth) * _FEE).quantize(_UNIT, ROUND_HALF_UP)
        trade = VenueTrade(
            symbol=order.symbol,
            trade_id=str(len(self.trades) + 1),
            venue_id=venue_id,
            side=order.side,
            quantity=quantity,
            price=order.limit_price,
            time_ns=len(self.trades) + 1,
            fee=Decimal() if buys else fee,
            base_fee=fee if buys else Decimal(),
        )
        self.trades.append(trade)
        self.balances["BTC"] += quantity - fee if buys else -quantity
        self.balances["USDT"] += -worth if buys else worth - fee
        filled = order.filled + quantity
        self._change(order, filled=filled, state="FILLED" if filled == order.quantity else "PARTLY_FILLED")
        return trade

    def end(self, venue_id: str, state: str) -> None:
        order = self.order(venue_id)
        if order.working:
            self._change(order, state=state)

    def order(self, venue_id: str) -> VenueOrder:
        return self.orders[int(venue_id) - 1]

    def view(self, **changed: object) -> VenueView:
        view = VenueView(
            orders=tuple(self.orders),
            trades=tuple(self.trades),
            balances=dict(self.balances),
            bases=BASES,
            late=True,
        )
        return replace(view, **changed)  # type: ignore[arg-type]

    def _change(self, order: VenueOrder, **changed: object) -> None:
        self.orders[int(order.venue_id) - 1] = replace(order, **changed)  # type: ignore[arg-type]
