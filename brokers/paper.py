"""A simulated venue. It knows the market only as events come in, and the rules of `brokers.matching`.

Time, the part that backtests get wrong:

- An order reaches the venue `latency_ms` after it was sent, and fills no earlier than the next market event after that.
- On bars that event is the next bar that *opened no earlier than the order was sent*: a market order sent at a bar's
  close fills at the open of the bar that follows, and the graph learns of it at that bar's close. An order sent in the
  middle of a bar waits for the next open, because this bar's open is already the past.
- `Fill.market_time` is when the market traded there (the bar's open, or the trade); engine time is when it was known.
  A limit order that fills inside a bar is stamped with the bar's open too: when, inside the bar, is not known.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import csp
from csp import ts

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.ledger import Contract
from brokers.matching import Execution, FillModel, RestingOrder, capacity, match_bar, match_trade
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument
from feeds.streams import SETTLE, by_symbol, together

# Bound once: looking a member up on its class costs more than comparing it.
_BUY, _SELL, _LIMIT = Side.BUY, Side.SELL, OrderType.LIMIT
_MAKER, _TAKER = Liquidity.MAKER, Liquidity.TAKER
_ACCEPTED, _PARTLY_FILLED, _FILLED = OrderState.ACCEPTED, OrderState.PARTLY_FILLED, OrderState.FILLED


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperConfig:
    """How the simulated venue behaves."""

    latency_ms: float = 50.0  # from the strategy to the venue
    fills: FillModel = field(default_factory=FillModel)

    def __post_init__(self) -> None:
        # Zero would let an order act on the tick that caused it.
        if not 0.001 <= self.latency_ms < 3_600_000.0:
            raise ValueError(f"latency_ms must lie in [0.001, 3600000), was {self.latency_ms}")


class Book:
    """The orders of one symbol that rest at the simulated venue, oldest first."""

    __slots__ = ("_contract", "_lots_per_unit", "_model", "orders")

    def __init__(self, instrument: Instrument, model: FillModel) -> None:
        self._contract = Contract(instrument)
        self._lots_per_unit = float(1 / self._contract.lots.step)
        self._model = model
        self.orders: dict[str, RestingOrder] = {}

    def refusal(self, order: OrderRequest) -> tuple[str, str] | None:
        """Why the venue would not take `order`, as (code, sentence); None when it would."""
        lot, tick = self._contract.instrument.lot, self._contract.instrument.tick
        if not (math.isfinite(order.quantity) and self._contract.lots.down(order.quantity) >= 1):
            return "quantity_below_lot", f"the quantity {order.quantity} is not at least one lot of {lot}"
        limit = order.limit_price
        if order.order_type is _LIMIT and not (math.isfinite(limit) and self._contract.ticks.down(limit) >= 1):
            return "limit_not_positive", f"the limit price {limit} is not at least one tick of {tick}"
        if order.order_id in self.orders:
            return "duplicate_order_id", f"the order id {order.order_id} is already working"
        return None

    def add(self, order: OrderRequest, sent: datetime) -> RestingOrder:
        """Take an order that `refusal` let pass; quantity and limit are rounded as venues do, never in its favour."""
        buys = order.side is _BUY
        limit = None
        if order.order_type is _LIMIT:
            steps = self._contract.ticks
            limit = steps.down(order.limit_price) if buys else steps.up(order.limit_price)
        resting = RestingOrder(order.order_id, 1 if buys else -1, self._contract.lots.down(order.quantity), limit, sent)
        self.orders[order.order_id] = resting
        return resting

    def remaining(self, order: RestingOrder) -> float:
        return self._contract.lots.value(order.lots)

    def on_bar(self, bar: Bar) -> list[tuple[RestingOrder, Execution]]:
        """Match every order that was sent before `bar` opened, or at its open."""
        open_time = bar.open_time
        executions = []
        volume_lots = bar.volume * self._lots_per_unit
        available = capacity(volume_lots, self._model)
        for order in list(self.orders.values()):
            if order.sent - SETTLE > open_time:  # decisions on several symbols take that long to settle
                continue
            execution = match_bar(
                order, bar.open, bar.high, bar.low, volume_lots, available, self._contract, self._model
            )
            order.seen_market = True
            if execution is not None:
                available -= execution.lots
                self._take(order, execution)
                executions.append((order, execution))
        return executions

    def on_trade(self, trade: Trade) -> list[tuple[RestingOrder, Execution]]:
        """Match every resting order against one trade."""
        executions = []
        size_lots = trade.size * self._lots_per_unit
        available = capacity(size_lots, self._model)
        for order in list(self.orders.values()):
            execution = match_trade(order, trade.price, size_lots, available, self._contract, self._model)
            order.seen_market = True
            if execution is not None:
                available -= execution.lots
                self._take(order, execution)
                executions.append((order, execution))
        return executions

    def fill(self, order: RestingOrder, execution: Execution, market_time: datetime) -> Fill:
        contract = self._contract
        return Fill(
            market_time=market_time,
            symbol=contract.instrument.symbol,
            side=_BUY if order.sign > 0 else _SELL,
            quantity=contract.lots.value(execution.lots),
            price=contract.ticks.value(execution.ticks),
            fee=contract.money(contract.fee(execution.lots, execution.ticks, maker=execution.maker)),
            order_id=order.order_id,
            liquidity=_MAKER if execution.maker else _TAKER,
        )

    def _take(self, order: RestingOrder, execution: Execution) -> None:
        order.lots -= execution.lots
        if order.lots == 0:
            del self.orders[order.order_id]


def _update(
    order_id: str, symbol: str, state: OrderState, remaining: float, code: str = "", reason: str = ""
) -> OrderUpdate:
    return OrderUpdate(order_id=order_id, symbol=symbol, state=state, remaining=remaining, code=code, reason=reason)


def _after(book: Book, symbol: str, order: RestingOrder) -> OrderUpdate:
    state = _PARTLY_FILLED if order.lots else _FILLED
    return _update(order.order_id, symbol, state, book.remaining(order))


@csp.node
def _venue(
    order: ts[OrderRequest],
    cancel: ts[CancelRequest],
    bar: ts[Bar],
    trade: ts[Trade],
    instrument: Instrument,
    config: PaperConfig,
) -> csp.Outputs(update=ts[list[OrderUpdate]], fill=ts[list[Fill]]):
    """One symbol at the venue. The market inputs are passive while nothing rests."""
    with csp.alarms():
        a_order = csp.alarm(object)  # (OrderRequest, sent)
        a_cancel = csp.alarm(CancelRequest)
    with csp.state():
        s_book = Book(instrument, config.fills)
        s_symbol = instrument.symbol
        s_latency = timedelta(milliseconds=config.latency_ms)
        s_awake = False
    with csp.start():
        csp.make_passive(bar)
        csp.make_passive(trade)

    if csp.ticked(order):
        csp.schedule_alarm(a_order, s_latency, (order, csp.now()))
    if csp.ticked(cancel):
        csp.schedule_alarm(a_cancel, s_latency, cancel)

    updates = []
    if s_awake:
        # The market first: what arrives in this same cycle has not seen this event.
        fills = []
        if csp.ticked(bar):
            for resting, execution in s_book.on_bar(bar):
                fills.append(s_book.fill(resting, execution, bar.open_time))
                updates.append(_after(s_book, s_symbol, resting))
        if csp.ticked(trade):
            for resting, execution in s_book.on_trade(trade):
                fills.append(s_book.fill(resting, execution, trade.event_time))
                updates.append(_after(s_book, s_symbol, resting))
        if fills:
            csp.output(fill=fills)
    if csp.ticked(a_order):
        request, sent = a_order
        refusal = s_book.refusal(request)
        if refusal is None:
            resting = s_book.add(request, sent)
            updates.append(_update(request.order_id, s_symbol, _ACCEPTED, s_book.remaining(resting)))
        else:
            updates.append(_update(request.order_id, s_symbol, OrderState.REJECTED, 0.0, *refusal))
    if csp.ticked(a_cancel):
        cancelled = s_book.orders.pop(a_cancel.order_id, None)
        if cancelled is not None:  # else it was filled on the way: the fill has told
            updates.append(_update(a_cancel.order_id, s_symbol, OrderState.CANCELLED, s_book.remaining(cancelled)))
    if updates:
        csp.output(update=updates)

    if s_awake != bool(s_book.orders):
        s_awake = not s_awake
        if s_awake:
            csp.make_active(bar)
            csp.make_active(trade)
        else:
            csp.make_passive(bar)
            csp.make_passive(trade)


@csp.graph
def paper_venue(
    order: ts[OrderRequest],
    cancel: ts[CancelRequest],
    bars: dict[str, ts[Bar]],
    trades: dict[str, ts[Trade]],
    instruments: tuple[Instrument, ...],
    config: PaperConfig,
) -> csp.Outputs(update=ts[OrderUpdate], fill=ts[Fill]):
    """Execute orders for every instrument against its trades where there are any, else its bars.

    Args:
        order, cancel: as the risk gate let them pass.
        bars, trades: market streams by symbol; a symbol with trades does not look at its bars.
        instruments: tuple of Instrument; each needs bars or trades.

    Ticks:
        `update` on every change of state, `fill` on every execution, in the order in which they happened.

    Raises:
        ValueError: an instrument without a market stream.
    """
    symbols = [instrument.symbol for instrument in instruments]
    orders = by_symbol(order, symbols)
    cancels = by_symbol(cancel, symbols)
    updates, fills = [], []
    for instrument in instruments:
        symbol = instrument.symbol
        if symbol not in bars and symbol not in trades:
            raise ValueError(f"{symbol} has neither bars nor trades to fill against")
        bar = csp.null_ts(Bar) if symbol in trades else bars[symbol]
        trade = trades[symbol] if symbol in trades else csp.null_ts(Trade)
        venue = _venue(orders[symbol], cancels[symbol], bar, trade, instrument, config)
        updates.append(csp.unroll(venue.update))
        fills.append(csp.unroll(venue.fill))
    return csp.output(update=together(updates), fill=together(fills))
