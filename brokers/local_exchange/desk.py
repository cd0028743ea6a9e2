"""The orders of one account in one symbol, and the market that they meet: `brokers.matching` behind Binance's words.

The market is a replay, which no order moves. Who takes gets the depth as it is shown, level by level; what has been
taken is gone until the market moves. A resting limit fills at its price once the market trades or is quoted beyond it.
A stop waits for the last price, and is an order of the book from then on.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Protocol

from brokers.costs import FillModel
from brokers.local_exchange.market import Market
from brokers.local_exchange.orders import AccountOrder
from brokers.local_exchange.rules import Terms, Ticket
from brokers.matching import Book, Order, Report

_EPOCH = datetime(1970, 1, 1)
_NOWHERE = 1 << 62  # atoms that no market reaches


class Bookkeeper(Protocol):
    """Who is told what the market makes of an order. Amounts in atoms of 1e-8."""

    def triggered(self, order: AccountOrder, cost: int, now_ms: int) -> bool:
        """A stop was set off, and would cost `cost` as a market order; False: it cannot be paid, and must not go on."""

    def filled(self, order: AccountOrder, price: int, quantity: int, fee: int, maker: bool, now_ms: int) -> None:
        """One execution; the fee is in the asset received."""

    def expired(self, order: AccountOrder, now_ms: int) -> None:
        """The market did not have the rest of it at once."""


class Desk:
    """See the module. The account asks first whether it can pay; what it then enters is matched."""

    __slots__ = (
        "_asks",
        "_bids",
        "_book",
        "_bookkeeper",
        "_buy_reach",
        "_market",
        "_orders",
        "_sell_reach",
        "_stale",
        "_stops",
        "_taken",
        "_terms",
    )

    def __init__(self, terms: Terms, market: Market, bookkeeper: Bookkeeper) -> None:
        self._terms, self._market, self._bookkeeper = terms, market, bookkeeper
        self._book = Book(terms.instrument, FillModel(slippage_bps=0.0), bars=False, quoted=True)
        self._orders: dict[str, AccountOrder] = {}  # in the book, by their ids there
        self._stops: dict[int, AccountOrder] = {}  # that wait, by order id
        self._bids: list[tuple[int, int]] = []  # as shown last: (ticks, lots), the best first
        self._asks: list[tuple[int, int]] = []
        self._taken = {True: 0, False: 0}  # lots since then, of the asks (by buyers: True) and of the bids
        self._stale = True  # the market has moved since then
        self._buy_reach, self._sell_reach = 0, _NOWHERE  # atoms, of the best resting limits

    # --- what the account asks

    def refresh(self, now_ms: int) -> None:
        """Have resting orders meet the depth, where it has moved since they last did."""
        if not self._stale:
            return
        self._stale = False
        depth = self._market.depth()
        self._bids, self._asks = self._counted(depth.bids), self._counted(depth.asks)
        self._taken = {True: 0, False: 0}
        shown = [[(self._price(ticks), float(lots)) for ticks, lots in side] for side in (self._bids, self._asks)]
        self._tell(self._book.on_depth(shown[0], shown[1], True, _time(now_ms)), now_ms, of_depth=True)
        self._reach()

    def cost(self, buys: bool, quantity: int) -> int:
        """What the depth wants for `quantity`, as far as it has it; atoms of the quote currency."""
        lots, cost = quantity // self._terms.lot, 0
        for ticks, left in self._left(buys):
            part = min(lots, left)
            cost += part * ticks
            lots -= part
            if not lots:
                break
        return self._worth(cost)

    def quantity_for(self, buys: bool, worth: int) -> int:
        """The most whole lots that the depth has for `worth` of the quote currency; atoms of the base currency."""
        lots = 0
        for ticks, left in self._left(buys):
            each = self._worth(ticks)
            part = min(left, worth // each)
            lots += part
            worth -= part * each
            if part < left:
                break
        return lots * self._terms.lot

    def crosses(self, ticket: Ticket) -> bool:
        """Whether a limit order would take of what is shown."""
        limit = ticket.price // self._terms.tick
        if ticket.buys:
            return bool(self._asks) and self._asks[0][0] <= limit
        return bool(self._bids) and self._bids[0][0] >= limit

    def triggers_now(self, ticket: Ticket) -> bool:
        """Whether the last price has set a stop off already."""
        way = ticket.triggered_by
        return way != 0 and way * (self.last_price - ticket.stop) >= 0

    @property
    def last_price(self) -> int:
        """Of the last trade; before the first, where the market is quoted."""
        market = self._market
        return market.trade(market.emitted).price if market.emitted else market.quote().bid

    # --- orders in and out

    def enter(self, order: AccountOrder, now_ms: int) -> None:
        """Match a new order; what is left of it rests, or waits for its stop."""
        if order.ticket.stop and order.working_ms < 0:
            self._stops[order.order_id] = order
            return
        terms, asked = self._terms, order.ticket
        key = str(order.order_id)
        self._orders[key] = order
        takes_all = asked.price == 0  # there is no price at which the rest of a market order could wait
        reports = self._book.submit(
            Order(
                order_id=key,
                sign=1 if asked.buys else -1,
                lots=order.quantity // terms.lot,
                sent=_time(now_ms),
                limit=None if takes_all else asked.price // terms.tick,
                immediate=takes_all or asked.force != "GTC",
                whole=asked.force == "FOK",
            ),
            _time(now_ms),
        )
        reports += self._book.on_depth((), (), False, _time(now_ms))
        self._tell(reports, now_ms, of_depth=True)
        self._reach()

    def remove(self, order: AccountOrder, now_ms: int) -> None:
        """Take a working order out. The account has settled it."""
        if self._stops.pop(order.order_id, None) is None:
            del self._orders[str(order.order_id)]
            self._book.cancel(str(order.order_id), _time(now_ms))
            self._reach()

    # --- what the market does

    def on_trade(self, price: int, size: int, now_ms: int) -> None:
        """One trade of the market, atoms."""
        self._stale = True
        if self._stops:
            self._set_off(price, now_ms)
        if price < self._buy_reach or price > self._sell_reach:
            ticks, lots = price // self._terms.tick, size // self._terms.lot
            reports = self._book.on_trade(self._price(ticks), float(lots), _time(now_ms))
            self._tell(reports, now_ms, of_depth=False)
            self._reach()

    def on_quote(self, bid: int, ask: int, now_ms: int) -> None:
        """The best bid and ask have moved; atoms."""
        self._stale = True
        if ask <= self._buy_reach or bid >= self._sell_reach:
            self.refresh(now_ms)

    # --- inside

    def _set_off(self, last: int, now_ms: int) -> None:
        for order in list(self._stops.values()):
            if order.ticket.triggered_by * (last - order.ticket.stop) < 0:
                continue
            del self._stops[order.order_id]
            self.refresh(now_ms)
            order.working_ms = order.updated_ms = now_ms
            if self._bookkeeper.triggered(order, self.cost(order.buys, order.quantity), now_ms):
                self.enter(order, now_ms)

    def _tell(self, reports: list[Report], now_ms: int, *, of_depth: bool) -> None:
        """Pass on what the book has reported."""
        for report in reports:
            order = self._orders.get(report.order.order_id)
            if order is None:
                continue
            execution = report.execution
            if execution is not None:
                if of_depth:
                    self._taken[order.buys] += execution.lots
                quote_fee, base_fee = self._book.fee(report.order, execution)
                fee = base_fee if order.buys else quote_fee // self._terms.contract.fee_unit
                price, quantity = execution.ticks * self._terms.tick, execution.lots * self._terms.lot
                if not report.lots:
                    del self._orders[report.order.order_id]
                self._bookkeeper.filled(order, price, quantity, fee, execution.maker, now_ms)
            elif report.what == "expired":
                del self._orders[report.order.order_id]
                self._bookkeeper.expired(order, now_ms)

    def _reach(self) -> None:
        """Note how far the market has to come for any resting order."""
        self._buy_reach, self._sell_reach = 0, _NOWHERE
        for order in self._book.orders.values():
            assert order.limit is not None  # nothing else rests
            limit = order.limit * self._terms.tick
            if order.sign > 0:
                self._buy_reach = max(self._buy_reach, limit)
            else:
                self._sell_reach = min(self._sell_reach, limit)

    def _left(self, buys: bool) -> Iterator[tuple[int, int]]:
        """What is left of the depth: orders take it from the best level on, so what is gone is the first of it."""
        gone = self._taken[buys]
        for ticks, lots in self._asks if buys else self._bids:
            if gone < lots:
                yield ticks, lots - gone
            gone = max(0, gone - lots)

    def _counted(self, levels: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        tick, lot = self._terms.tick, self._terms.lot
        return [(price // tick, size // lot) for price, size in levels if size >= lot]

    def _price(self, ticks: int) -> float:
        return self._terms.contract.ticks.value(ticks)

    def _worth(self, tick_lots: int) -> int:
        """Of one lot at one tick times `tick_lots`, atoms of the quote currency."""
        return tick_lots * self._terms.tick_lot


def _time(now_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=now_ms)
