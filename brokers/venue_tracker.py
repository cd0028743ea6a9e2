"""What is known of our orders at a venue, from messages that come late, twice, out of order or not at all.

A venue speaks on four channels: the answer to a request, the user stream, and polls of orders and of trades. The
tracker takes what any of them says, in any order, and makes one story of it: updates that the state machine of
`brokers.orders` allows, and each execution once, by the venue's trade id. It invents nothing and forgets nothing:

- lots are counted by executions alone; what an order says of them only tells how many are still to be heard of;
- so an order ends no sooner than with its last execution, whichever was heard first;
- an execution whose order is not known yet waits until an order of that venue id is heard of.
"""

from collections import OrderedDict
from collections.abc import Container
from datetime import UTC, datetime
from typing import NamedTuple

from brokers.events import Fill, Liquidity, OrderRequest, OrderState, OrderUpdate, TimeInForce
from brokers.orders import ENDED, WorkingOrder
from brokers.venue_messages import Execution, Market, Snapshot
from brokers.venue_terms import Terms
from feeds.events import Side

_BUY = Side.BUY
_MAKER, _TAKER = Liquidity.MAKER, Liquidity.TAKER
_PENDING, _ACCEPTED, _PARTLY_FILLED = OrderState.PENDING, OrderState.ACCEPTED, OrderState.PARTLY_FILLED
_CANCEL_PENDING, _CANCELLED = OrderState.CANCEL_PENDING, OrderState.CANCELLED
_REJECTED, _EXPIRED = OrderState.REJECTED, OrderState.EXPIRED
_IMMEDIATE = (TimeInForce.IOC, TimeInForce.FOK)

_REMEMBERED = 10_000  # orders that have ended, and executions of orders that are not known

_Key = tuple[str, str]  # symbol and the venue's order id: some venues count orders by symbol


class Tracked:
    """One order of ours at the venue. Lots are counted in `working`."""

    __slots__ = (
        "client_id", "end", "filled", "given_up", "immediate", "market", "order_id", "reduce_only", "sent_lots", "side",
        "strategy", "trades", "venue_id", "working",
    )  # fmt: skip

    def __init__(self, order_id: str, client: str, market: Market, side: Side, lots: int, sent_lots: int) -> None:
        self.order_id, self.client_id, self.market, self.side = order_id, client, market, side
        self.sent_lots = sent_lots  # fewer than asked for where a reduce-only order was cut
        self.working = WorkingOrder(order_id, lots, _PENDING)
        self.venue_id = ""
        self.filled = 0  # lots that the venue speaks of
        self.trades: set[str] = set()  # ids of what was booked
        self.end = ""  # how the venue says that it ended; its executions may still be on their way
        self.reduce_only = self.immediate = False
        self.given_up = False  # told as rejected without a word from the venue's books
        self.strategy = ""

    @property
    def symbol(self) -> str:
        return self.market.instrument.symbol

    @property
    def booked(self) -> int:
        """Lots of which the executions are known."""
        return self.working.lots - self.working.open_lots

    @property
    def known(self) -> bool:
        """Whether the venue has spoken of it."""
        return self.venue_id != "" or self.working.state is not _PENDING

    @property
    def short(self) -> bool:
        """Whether executions of it are missing."""
        return not self.working.ended and self.booked < min(self.filled, self.sent_lots)


class Change(NamedTuple):
    """A new state of an order."""

    order: Tracked
    update: OrderUpdate


class Booked(NamedTuple):
    """An execution, told for the first time."""

    order: Tracked
    execution: Execution
    fill: Fill


class Tracker:
    """All orders of a run. What there is to tell is appended to `news`, for the caller to take."""

    __slots__ = ("_by_client", "_by_venue", "_ended", "_held", "_open", "_waiting", "ghosts", "news", "orders")

    def __init__(self, held: dict[str, int]) -> None:
        """`held`: what the account holds at the start, by symbol, in smallest quantities."""
        self.orders: dict[str, Tracked] = {}  # by order id; with those that ended lately
        self._open: dict[str, Tracked] = {}  # those that have not ended
        self._by_client: dict[str, Tracked] = {}
        self._by_venue: dict[_Key, Tracked] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._waiting: OrderedDict[_Key, list[Execution]] = OrderedDict()  # of orders that are not known yet
        self._held = dict(held)
        self.news: list[Change | Booked] = []
        self.ghosts: list[Tracked] = []  # given up as never sent, and yet at work at the venue

    def send(self, request: OrderRequest, terms: Terms, market: Market) -> Tracked:
        """An order goes out.

        Raises:
            ValueError: its id was used before.
        """
        order = Tracked(request.order_id, terms.client_id, market, request.side, terms.lots_asked, terms.lots)
        order.reduce_only = request.reduce_only
        order.immediate = request.time_in_force in _IMMEDIATE
        order.strategy = request.strategy
        self._add(order)
        return order

    def adopt(self, order: Tracked, venue_id: str, open_lots: int, trades: set[str]) -> None:
        """Go on with an order of an earlier run.

        Args:
            venue_id: "" where the venue has not been heard of it.
            open_lots: what is open of it.
            trades: ids of its executions that are in the books.
        """
        if open_lots < order.working.lots:
            order.working.state = _PARTLY_FILLED
        elif venue_id:
            order.working.state = _ACCEPTED
        order.working.open_lots = open_lots
        order.filled = order.booked
        order.trades |= trades
        self._add(order)
        if venue_id:
            self._name(order, venue_id)

    def snapshot(self, said: Snapshot) -> Tracked | None:
        """Take what the venue says of an order; return it, or None where it is not one of ours."""
        order = self._by_client.get(said.client_id) or self._by_venue.get((said.symbol, said.venue_id))
        if order is None:
            if said.client_id:
                self._waiting.pop((said.symbol, said.venue_id), None)  # a person's
            return None
        working = order.working
        if said.filled is not None:
            order.filled = max(order.filled, said.filled)
        elif said.state == "closed":
            order.filled = order.sent_lots
        if order.given_up and (said.state == "open" or order.filled):
            order.given_up = False  # told once
            self.ghosts.append(order)
        if said.state != "open":
            order.end = order.end or said.state
        elif working.state is _PENDING:
            self._to(order, _ACCEPTED)
        if said.venue_id:
            self._name(order, said.venue_id)
        self._settle(order)
        return order

    def execution(self, said: Execution) -> bool:
        """Take a trade; return whether it was booked: it may be known, or have to wait for its order."""
        key = said.symbol, said.venue_id
        order = self._by_venue.get(key)
        if order is not None:
            return self._book(order, said)
        waiting = self._waiting.setdefault(key, [])
        if all(other.trade_id != said.trade_id for other in waiting):
            waiting.append(said)
            if len(self._waiting) > _REMEMBERED:
                self._waiting.popitem(last=False)
        return False

    def refused(self, order: Tracked, code: str, reason: str) -> bool:
        """The venue did not take an order, or never got it; False where it has spoken of it all the same."""
        if order.known or order.working.state is not _PENDING:
            return False
        order.given_up = True
        self._to(order, _REJECTED, code, reason)
        return True

    def cancelling(self, order: Tracked) -> None:
        """Its cancel goes out."""
        if order.working.state in (_ACCEPTED, _PARTLY_FILLED, _PENDING):
            self._to(order, _CANCEL_PENDING, "cancel_sent", "its cancel is on the way")

    def uncancelled(self, order: Tracked, code: str, reason: str) -> None:
        """The venue refused its cancel, so it works on."""
        if order.working.state is _CANCEL_PENDING:
            self._to(order, _ACCEPTED, code, reason)

    def reducible(self, symbol: str, side: Side, market: Market) -> int:
        """Lots by which an order of this side can bring the position nearer to zero, beside what is on its way to."""
        held = self._held.get(symbol, 0)
        towards = -held if side is _BUY else held
        if towards <= 0:
            return 0
        coming = 0
        for order in self.working(symbol):
            if order.reduce_only and order.side is side:
                coming += order.sent_lots - order.booked
        return max(0, towards // market.contract.units_per_lot - coming)

    def sellable(self, symbol: str, market: Market, leaving: Container[str]) -> int:
        """Lots that can be sold of what is ours: held, or being bought, and not for sale already.

        Args:
            leaving: ids of orders whose cancel waits; like those whose cancel is on the way they count no more.
        """
        lots = self._held.get(symbol, 0) // market.contract.units_per_lot
        for order in self.working(symbol):
            if order.working.state is not _CANCEL_PENDING and order.order_id not in leaving:
                left = order.sent_lots - order.booked
                lots += left if order.side is _BUY else -left
        return max(0, lots)

    def working(self, symbol: str = "") -> list[Tracked]:
        """Orders that have not ended, the oldest first."""
        return [order for order in self._open.values() if not symbol or order.symbol == symbol]

    @property
    def short(self) -> list[Tracked]:
        """Orders of which the venue has told more executions than it has shown."""
        return [order for order in self.working() if order.short]

    def _add(self, order: Tracked) -> None:
        if order.order_id in self.orders or order.client_id in self._by_client:
            raise ValueError(f"want an order id that was not used before, was {order.order_id!r}")
        self.orders[order.order_id] = self._open[order.order_id] = self._by_client[order.client_id] = order

    def _name(self, order: Tracked, venue_id: str) -> None:
        """Learn what the venue calls an order, and book what was waiting for that."""
        if order.venue_id:
            return
        order.venue_id = venue_id
        key = order.symbol, venue_id
        self._by_venue[key] = order
        for execution in self._waiting.pop(key, ()):
            self._book(order, execution)

    def _book(self, order: Tracked, said: Execution) -> bool:
        if said.trade_id in order.trades:
            return False
        order.trades.add(said.trade_id)
        contract, sign = order.market.contract, 1 if said.side is _BUY else -1
        base_units = contract.units.nearest(said.base_fee)
        held = self._held.get(said.symbol, 0)
        self._held[said.symbol] = held + sign * said.lots * contract.units_per_lot - base_units
        self.news.append(Booked(order, said, _fill(order, said)))
        working = order.working
        if working.open_lots and working.state not in ENDED:  # else the fill is told, and no state can follow
            working.filled(min(said.lots, working.open_lots))
            self._tell(order, "", "")
            self._settle(order)
        return True

    def _settle(self, order: Tracked) -> None:
        """End an order that the venue says has ended, once all of its executions are booked."""
        working = order.working
        if working.ended:
            return
        if order.end == "rejected" and working.state is _PENDING:
            self._to(order, _REJECTED, "rejected", "the venue rejected it")
            return
        cut = order.sent_lots < working.lots
        if cut and order.booked >= order.sent_lots:
            self._to(order, _CANCELLED, "reduce_only", "there is no position left to reduce")
        elif order.end and order.booked >= order.filled:
            asked = working.state is _CANCEL_PENDING
            if order.end == "expired" or (order.immediate and not asked):
                self._to(order, _EXPIRED, "time_in_force", "the venue took it off at the end of its time in force")
            elif asked:
                self._to(order, _CANCELLED)
            else:
                self._to(order, _CANCELLED, "by_venue", f"it is {order.end} at the venue, and was not cancelled here")

    def _to(self, order: Tracked, state: OrderState, code: str = "", reason: str = "") -> None:
        order.working.to(state)
        self._tell(order, code, reason)

    def _tell(self, order: Tracked, code: str, reason: str) -> None:
        working = order.working
        lots = 0 if working.state is _REJECTED else working.open_lots
        update = OrderUpdate(
            order_id=order.order_id,
            symbol=order.symbol,
            state=working.state,
            remaining=order.market.contract.lots.value(lots),
            code=code,
            reason=reason,
        )
        self.news.append(Change(order, update))
        if working.ended:
            self._bury(order)

    def _bury(self, order: Tracked) -> None:
        """Keep an order that has ended for a while: what comes twice, or late, must be known for what it is."""
        del self._open[order.order_id]
        self._ended[order.order_id] = None
        if len(self._ended) > _REMEMBERED:
            oldest = self.orders.pop(self._ended.popitem(last=False)[0])
            del self._by_client[oldest.client_id]
            self._by_venue.pop((oldest.symbol, oldest.venue_id), None)


def _fill(order: Tracked, said: Execution) -> Fill:
    contract = order.market.contract
    price = contract.ticks.value(said.ticks)
    return Fill(
        market_time=datetime.fromtimestamp(said.time_ms / 1_000.0, UTC).replace(tzinfo=None),
        symbol=said.symbol,
        side=said.side,
        quantity=contract.lots.value(said.lots),
        price=price,
        fee=said.fee,
        order_id=order.order_id,
        liquidity=_MAKER if said.maker else _TAKER,
        base_fee=said.base_fee,
        market_price=price,
    )
