"""What the journal and the venue know at the start of a run, as `brokers.reconcile` wants it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from brokers.journal import Journal, KeptFill, KeptFlow, KeptOrder, KeptRisk
from brokers.restore import START_CASH

SETTLED_FILL = "settled_fill"  # fact in the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueOrder:
    """One order as the venue tells of it. Names are those of `brokers.events`; a price of zero is none."""

    client_id: str
    venue_id: str
    symbol: str
    side: str
    order_type: str  # "" where it is none that we have
    quantity: Decimal
    filled: Decimal
    state: str  # ACCEPTED, PARTLY_FILLED, FILLED, CANCELLED, REJECTED or EXPIRED
    limit_price: Decimal = Decimal()
    stop_price: Decimal = Decimal()
    time_in_force: str = "GTC"
    time_ns: int = 0

    @property
    def working(self) -> bool:
        return self.state in ("ACCEPTED", "PARTLY_FILLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueTrade:
    """One execution as the venue tells of it."""

    symbol: str
    trade_id: str
    venue_id: str  # of its order
    side: str
    quantity: Decimal
    price: Decimal
    time_ns: int
    fee: Decimal = Decimal()  # quote currency
    base_fee: Decimal = Decimal()
    liquidity: str = "TAKER"


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueView:
    """What the venue knows at one moment."""

    orders: tuple[VenueOrder, ...]  # all that work, and each unsettled one that it knows
    trades: tuple[VenueTrade, ...]  # at least those of unsettled orders that the journal lacks
    balances: Mapping[str, Decimal]  # free and locked together, by asset
    bases: Mapping[str, str]  # the asset that is traded, by symbol
    late: bool  # nothing that was sent before this start can still arrive
    steady: bool = True  # the balances were the same before and after the rest was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalView:
    """What the journal knows: of orders the unsettled ones, and each that the venue says works."""

    orders: tuple[KeptOrder, ...]
    fills: tuple[KeptFill, ...]
    flows: tuple[KeptFlow, ...]
    baselines: Mapping[str, Decimal]
    start_cash: str  # "": no run has begun to trade
    settled_fill: int  # number of the last fill that was there when the books agreed last
    risk: KeptRisk


def journal_view(journal: Journal, working: Iterable[str]) -> JournalView:
    """Read what `reconcile` wants.

    Args:
        working: client ids of the orders that work at the venue.
    """
    orders = {order.client_id: order for order in journal.unsettled_orders()}
    for client in working:
        order = journal.order(client)
        if order is not None:
            orders.setdefault(client, order)
    return JournalView(
        orders=tuple(orders.values()),
        fills=tuple(journal.fills()),
        flows=tuple(journal.flows()),
        baselines={asset: Decimal(amount) for asset, amount in journal.baselines().items()},
        start_cash=journal.fact(START_CASH),
        settled_fill=int(journal.fact(SETTLED_FILL) or 0),
        risk=journal.risk(),
    )
