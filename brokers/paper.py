"""A simulated venue. It knows the market only as events come in, and the rules of `brokers.matching`.

Time, the part that backtests get wrong:

- An order reaches the venue some latency after it was sent, never before one that was sent earlier, and fills no
  earlier than the next market event after that.
- On bars that event is the next bar that *opened no earlier than the order was sent*: a market order sent at a bar's
  close fills at the open of the bar that follows, and the graph learns of it at that bar's close. An order sent in the
  middle of a bar waits for the next open, because this bar's open is already the past.
- `Fill.market_time` is when the market traded there (the bar's open, or the trade); engine time is when it was known.
  A limit order that fills inside a bar is stamped with the bar's open too: when, inside the bar, is not known.
"""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import csp
import numpy as np
from csp import ts

from brokers.costs import FillModel
from brokers.events import (
    Answers,
    CancelRequest,
    CorporateAction,
    Fill,
    Liquidity,
    OrderRequest,
    OrderState,
    OrderUpdate,
)
from brokers.ledger import Contract
from brokers.lifecycle import SPLIT
from brokers.matching import Book, Execution, Order, Report
from brokers.opening import Opening
from brokers.orders import ENDED, WorkingOrder
from brokers.terms import Translator
from brokers.units import split_ratio
from feeds.events import Bar, Depth, Quote, Side, Trade
from feeds.instruments import Instrument
from feeds.streams import SETTLE, by_symbol, together

# Bound once: looking a member up on its class costs more than comparing it.
_BUY, _SELL = Side.BUY, Side.SELL
_MAKER, _TAKER = Liquidity.MAKER, Liquidity.TAKER
_PENDING, _REJECTED = OrderState.PENDING, OrderState.REJECTED
_STATES = {
    "accepted": OrderState.ACCEPTED,
    "cancelled": OrderState.CANCELLED,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperConfig:
    """How the simulated venue behaves."""

    latency_ms: float = 50.0  # from the strategy to the venue
    latency_jitter_ms: float = 0.0  # mean of an exponential delay on top of it, drawn anew for each message
    latency_seed: int = 0  # of the jitter
    fills: FillModel = field(default_factory=FillModel)

    def __post_init__(self) -> None:
        # Zero would let an order act on the tick that caused it.
        if not 0.001 <= self.latency_ms < 3_600_000.0:
            raise ValueError(f"latency_ms must lie in [0.001, 3600000), was {self.latency_ms}")
        if not 0.0 <= self.latency_jitter_ms < 3_600_000.0:
            raise ValueError(f"latency_jitter_ms must lie in [0, 3600000), was {self.latency_jitter_ms}")


class Wire:
    """The way from a strategy to the venue: messages arrive late, and in the order in which they were sent."""

    __slots__ = ("_jitter_s", "_latency", "_random", "_reached")

    def __init__(self, config: PaperConfig, symbol: str) -> None:
        self._latency = timedelta(milliseconds=config.latency_ms)
        self._jitter_s = config.latency_jitter_ms / 1_000.0
        self._random = random.Random(f"{config.latency_seed} {symbol}")
        self._reached = datetime.min  # noqa: DTZ901 - before every message

    def arrival(self, sent: datetime) -> datetime:
        """When what is sent now reaches the venue."""
        arrives = sent + self._latency
        if self._jitter_s:
            arrives += timedelta(seconds=self._random.expovariate(1.0 / self._jitter_s))
            arrives = max(arrives, self._reached)
            self._reached = arrives
        return arrives


class Desk:
    """One symbol at the venue: requests in, updates and fills out."""

    __slots__ = ("_contract", "_orders", "_symbol", "_translator", "book", "fills", "updates")

    def __init__(
        self, instrument: Instrument, model: FillModel, *, bars: bool, quoted: bool, opening: Opening | None = None
    ) -> None:
        self._symbol = instrument.symbol
        self._contract = Contract(instrument)
        self._translator = Translator(instrument, self._contract)
        self._orders: dict[str, WorkingOrder] = {}
        self.book = Book(instrument, model, bars, quoted)
        for held in () if opening is None else opening.positions:
            if held.symbol == self._symbol:
                self.book.position = self._contract.whole_lots(self._contract.held(held.quantity))
        self.fills: list[Fill] = []  # what happened since the caller last took them
        self.updates: list[OrderUpdate] = []

    def receive(self, request: OrderRequest, sent: datetime, now: datetime, decision: float) -> None:
        """Take an order, or refuse it."""
        order = self._translator.order(request, sent, now, decision)
        if not isinstance(order, Order):
            self._update(request.order_id, _REJECTED, 0, *order)
            return
        reports = self.book.submit(order, now)
        if reports[0].code == "duplicate_order_id":  # the order that has this id goes on as it is
            self._update(request.order_id, _REJECTED, 0, reports[0].code, reports[0].reason)
            return
        # As much as was accepted: a replacement has less open than it asked for, where the replaced order was filled.
        lots = next((r.lots for r in reports if r.what == "accepted" and r.order is order), 0)
        self._orders[request.order_id] = WorkingOrder(request.order_id, max(1, lots), _PENDING)  # refused: of no lots
        self.tell(reports)

    def refuse(self, request: OrderRequest, code: str, reason: str) -> None:
        self._update(request.order_id, _REJECTED, 0, code, reason)

    def tell(self, reports: list[Report]) -> None:
        """Turn what the book reports into updates and fills, each checked by the state machine."""
        for order, what, execution, code, reason, market_time, lots in reports:
            order_id = order.order_id
            working = self._orders[order_id]
            if execution is not None:
                assert market_time is not None
                working.filled(execution.lots)
                self.fills.append(self._fill(order, execution, market_time))
            elif what == "reduced":
                working.cut(working.open_lots - lots)
            elif what == "triggered":
                code, reason = "triggered", "the market has reached its trigger"
            else:
                working.to(_STATES[what])
            state = working.state
            if state in ENDED:
                del self._orders[order_id]
            left = 0 if state is _REJECTED else working.open_lots
            self._update(order_id, state, left, code, reason)

    def _update(self, order_id: str, state: OrderState, lots: int, code: str, reason: str) -> None:
        left = self._contract.lots.value(lots)
        self.updates.append(
            OrderUpdate(order_id=order_id, symbol=self._symbol, state=state, remaining=left, code=code, reason=reason)
        )

    def _fill(self, order: Order, execution: Execution, market_time: datetime) -> Fill:
        contract = self._contract
        lots, ticks, maker, market, half_spread = execution
        fee, base_units = self.book.fee(order, execution)
        return Fill(
            market_time=market_time,
            symbol=self._symbol,
            side=_BUY if order.sign > 0 else _SELL,
            quantity=contract.lots.value(lots),
            price=contract.ticks.value(ticks),
            fee=contract.denomination.amount(fee),
            order_id=order.order_id,
            liquidity=_MAKER if maker else _TAKER,
            base_fee=contract.units.value(base_units) if base_units else 0.0,
            decision_price=order.decision,
            market_price=market,
            half_spread=half_spread,
        )


@csp.node
def _venue(
    order: ts[OrderRequest],
    cancel: ts[CancelRequest],
    bar: ts[Bar],
    trade: ts[Trade],
    quote: ts[Quote],
    depth: ts[Depth],
    corporate: ts[CorporateAction],
    instrument: Instrument,
    config: PaperConfig,
    on_bars: bool,
    quoted: bool,
    opening: Opening | None,
) -> csp.Outputs(update=ts[list[OrderUpdate]], fill=ts[list[Fill]]):
    """One symbol at the venue. The market inputs are passive while nothing rests."""
    with csp.alarms():
        # (OrderRequest or CancelRequest, sent, decision price): one alarm, or a cancel could overtake its order
        a_message = csp.alarm(object)
        a_expiry = csp.alarm(bool)
    with csp.state():
        s_desk = Desk(instrument, config.fills, bars=on_bars, quoted=quoted, opening=opening)
        s_book = s_desk.book
        s_wire = Wire(config, instrument.symbol)
        s_lots_per_unit = float(1 / Contract(instrument).lots.step)
        s_per_level = np.array([1.0, s_lots_per_unit])  # of (price, size)
        s_awake = False
        s_expiry: datetime | None = None  # the time that a_expiry is set for
        s_timer: object | None = None  # its handle
        s_split = csp.now()  # what was sent before is of the units before the last split
    with csp.start():
        csp.make_passive(bar)
        csp.make_passive(trade)
        csp.make_passive(quote)

    if csp.ticked(order):
        decision = 0.0
        if on_bars:
            decision = bar.close if csp.valid(bar) else 0.0
        elif csp.valid(trade):
            decision = trade.price
        elif csp.valid(quote):
            decision = 0.5 * (quote.bid + quote.ask)
        else:
            decision = s_book.mid
        csp.schedule_alarm(a_message, s_wire.arrival(csp.now()), (order, csp.now(), decision))
    if csp.ticked(cancel):
        csp.schedule_alarm(a_message, s_wire.arrival(csp.now()), (cancel, csp.now(), 0.0))
    if csp.ticked(corporate) and corporate.symbol == instrument.symbol:
        ratio = split_ratio(corporate.split)
        if ratio != 1:
            s_split = csp.now()
            s_desk.tell(s_book.split(ratio))

    if csp.ticked(a_expiry):  # an order does not take part in what happens at the end of its time
        s_expiry = s_timer = None
        s_desk.tell(s_book.expire(csp.now()))
    if csp.ticked(depth):  # never asleep: the book is made of every change
        bids, asks = depth.bids * s_per_level, depth.asks * s_per_level
        s_desk.tell(s_book.on_depth(bids, asks, depth.snapshot, depth.event_time))
    if s_awake:
        # The market before what arrives in this same cycle: that has not seen this event.
        if csp.ticked(bar):
            volume = bar.volume * s_lots_per_unit
            s_desk.tell(s_book.on_bar(bar.open, bar.high, bar.low, bar.close, volume, bar.open_time, csp.now()))
        if csp.ticked(quote):
            sizes = quote.bid_size * s_lots_per_unit, quote.ask_size * s_lots_per_unit
            s_desk.tell(s_book.on_quote(quote.bid, quote.ask, *sizes, quote.event_time))
        if csp.ticked(trade):
            s_desk.tell(s_book.on_trade(trade.price, trade.size * s_lots_per_unit, trade.event_time))
    if csp.ticked(a_message):
        request, sent, decided = a_message
        # What is shown, which it slept through; unless it is a quote of before a split.
        if not s_awake and csp.valid(quote) and csp.time_at(quote, 0) >= s_split:
            sizes = quote.bid_size * s_lots_per_unit, quote.ask_size * s_lots_per_unit
            s_desk.tell(s_book.on_quote(quote.bid, quote.ask, *sizes, quote.event_time))
        if not isinstance(request, OrderRequest):
            s_desk.tell(s_book.cancel(request.order_id, csp.now()))
        elif sent < s_split:
            s_desk.refuse(request, *SPLIT)
        else:
            s_desk.receive(request, sent, csp.now(), decided)

    if s_desk.updates:
        csp.output(update=s_desk.updates)
        s_desk.updates = []
    if s_desk.fills:
        csp.output(fill=s_desk.fills)
        s_desk.fills = []
    expiry = s_book.next_expiry
    if expiry != s_expiry:  # one alarm at a time, however many orders come and go
        if s_timer is not None:
            csp.cancel_alarm(a_expiry, s_timer)
        s_expiry = expiry
        s_timer = None if expiry is None else csp.schedule_alarm(a_expiry, expiry, True)
    if s_awake == s_book.idle:
        s_awake = not s_awake
        if s_awake:
            csp.make_active(bar)
            csp.make_active(trade)
            csp.make_active(quote)
        else:
            csp.make_passive(bar)
            csp.make_passive(trade)
            csp.make_passive(quote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What there is to fill against, by symbol. A symbol with anything finer does not look at its bars."""

    bars: dict[str, ts[Bar]] = field(default_factory=dict)
    trades: dict[str, ts[Trade]] = field(default_factory=dict)
    quotes: dict[str, ts[Quote]] = field(default_factory=dict)
    depth: dict[str, ts[Depth]] = field(default_factory=dict)
    corporate: ts[CorporateAction] | None = None  # splits, of all symbols, a microsecond before they count


def paper_venue(
    order: ts[OrderRequest],
    cancel: ts[CancelRequest],
    market: Market,
    instruments: tuple[Instrument, ...],
    config: PaperConfig,
    opening: Opening | None = None,
) -> Answers:
    """Execute orders for every instrument.

    Args:
        order, cancel: as the risk gate let them pass.
        market: edges by symbol; each instrument needs at least one.
        opening: what the account holds at the start, which `reduce_only` goes by. Nothing works at the start.

    Ticks:
        `update` on every change of state, `fill` on every execution, in the order in which they happened.

    Raises:
        ValueError: an instrument without a market, or an opening with orders: this venue does not know them.
    """
    if opening is not None and opening.orders:
        working = ", ".join(working.order_id for working in opening.orders)
        raise ValueError(f"no order works at a simulated venue when a run starts, was {working}")
    symbols = [instrument.symbol for instrument in instruments]
    orders = by_symbol(order, symbols)
    cancels = by_symbol(cancel, symbols)
    actions = csp.null_ts(CorporateAction) if market.corporate is None else csp.delay(market.corporate, SETTLE)
    updates, fills = [], []
    for instrument in instruments:
        symbol = instrument.symbol
        finer = any(symbol in edges for edges in (market.trades, market.quotes, market.depth))
        if not finer and symbol not in market.bars:
            raise ValueError(f"{symbol} has neither bars, trades, quotes nor depth to fill against")
        venue = _venue(
            orders[symbol],
            cancels[symbol],
            csp.null_ts(Bar) if finer else market.bars[symbol],
            market.trades.get(symbol, csp.null_ts(Trade)),
            market.quotes.get(symbol, csp.null_ts(Quote)),
            market.depth.get(symbol, csp.null_ts(Depth)),
            actions,
            instrument,
            config,
            not finer,
            symbol in market.quotes or symbol in market.depth,
            opening,
        )
        updates.append(csp.unroll(venue.update))
        fills.append(csp.unroll(venue.fill))
    return Answers(update=together(updates), fill=together(fills))
