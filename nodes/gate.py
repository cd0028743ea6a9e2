"""The gate between strategy and venue. Every order passes it; nothing goes around."""

import math
from collections import deque
from datetime import datetime, timedelta

import csp
from csp import ts

from brokers.events import NEVER, CancelRequest, CorporateAction, Fill, OrderRequest, OrderState, OrderUpdate
from brokers.opening import Opening
from brokers.units import split_ratio
from feeds.events import FeedState, FeedStatus
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import Alert, AlertLevel, RiskAction, RiskActionKind
from nodes.exposure import Exposure
from nodes.order_checks import CODES, OrderChecks, Refusal
from nodes.risk import RiskConfig, TradingState
from nodes.wind_down import CANCEL

# Bound once: looking a member up on its class costs more than comparing it.
_REJECTED = OrderState.REJECTED
_ACTIVE, _REDUCING, _HALTED = TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED
_STOP, _REDUCE, _HALT_SYMBOL = (
    RiskActionKind.EMERGENCY_STOP,
    RiskActionKind.REDUCE_POSITIONS,
    RiskActionKind.HALT_SYMBOL,
)
_WIND_DOWN = RiskActionKind.WIND_DOWN
_INFO, _WARNING, _ALERT, _CRITICAL = AlertLevel.INFO, AlertLevel.WARNING, AlertLevel.ALERT, AlertLevel.CRITICAL
_UP = (FeedState.CONNECTED, FeedState.RECOVERED)
_PASSING = ("stale_feed", "reducing")  # codes of refusals that end with the state that was their reason
_LINE_DOWN = ("venue_down", "not_sent")  # a venue's own, of orders that did not reach it: its feed tells when they can
_SECOND = timedelta(seconds=1)
_BEFORE_ALL = datetime.min  # noqa: DTZ901 - naive UTC, as all times here


class Cancels:
    """The strategies' own cancels, so many a second: what is too much waits its turn. Each order waits once."""

    __slots__ = ("_most", "_sent", "waiting")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._sent = deque[datetime](maxlen=most or 1)
        self.waiting: dict[str, CancelRequest] = {}

    def take(self, now: datetime) -> list[CancelRequest]:
        """Those that may go out now, the oldest first."""
        ready = []
        while self.waiting and (self._most is None or self.due() <= now):
            ready.append(self.waiting.pop(next(iter(self.waiting))))
            self._sent.append(now)
        return ready

    def due(self) -> datetime:
        """From when on one more may go out."""
        return self._sent[0] + _SECOND if len(self._sent) == self._most else _BEFORE_ALL


class Gate:
    """What the node below knows. It collects alerts, cancels and symbols to ask again until the node takes them."""

    __slots__ = (
        "_config", "_told_at", "_up_at", "_waiting", "again", "alerts", "cancels", "checks", "exposure", "hold",
        "reducing_until", "requests", "state",
    )  # fmt: skip

    def __init__(
        self, instruments: tuple[Instrument, ...], config: RiskConfig, *, halted: bool, opening: Opening | None
    ) -> None:
        self._config = config
        self.exposure = Exposure(instruments, opening)
        self.checks = OrderChecks(self.exposure, instruments, config)
        self.cancels = Cancels(config.cancels_per_second_max)
        self.hold = timedelta(seconds=config.reduce_hold_s)
        self.reducing_until = _BEFORE_ALL
        self.state = _HALTED if halted else _ACTIVE
        self.alerts: list[Alert] = []
        self.requests: list[CancelRequest] = []
        self.again: list[str] = []
        self._waiting: dict[str, str] = {}  # by symbol, the code of a refusal that may end
        self._up_at = _BEFORE_ALL  # when a feed last came back
        self._told_at: dict[str, datetime] = {}  # by symbol, when it last was to be asked for again
        if halted:
            count = self._take_back("")  # what a run that was killed had not cancelled yet
            message = "trading is HALTED from the start: no person has reset an earlier stop"
            self.say(_CRITICAL, "", message + (f"; {count} working orders are being cancelled" if count else ""), 0.0)
        elif opening is not None and not opening.clean:
            self.state = _REDUCING
            self.reducing_until = NEVER
            self.say(
                _CRITICAL, "", "trading is REDUCING for the whole run: what the account holds could not be settled", 0.0
            )

    def say(self, level: AlertLevel, symbol: str, message: str, value: float) -> None:
        self.alerts.append(Alert(level=level, source="risk_filter", symbol=symbol, message=message, value=value))

    def filled(self, fill: Fill) -> None:
        wrong = self.exposure.filled(fill)
        if wrong:
            self.say(_CRITICAL, fill.symbol, wrong, fill.quantity)

    def updated(self, update: OrderUpdate, now: datetime) -> None:
        if update.state is _REJECTED and update.code in CODES:
            return  # the gate's own refusal: where its id was used before, the order that has it goes on
        sent = self.exposure.orders.get(update.order_id)
        wrong = self.exposure.updated(update)
        if wrong:
            self.say(_CRITICAL, update.symbol, wrong, update.remaining)
        if update.state is _REJECTED and update.code in _LINE_DOWN:
            if sent is not None:
                self.checks.unsent(sent)
            self._waiting[update.symbol] = update.code
            if self._up_at == now and self._told_at.get(update.symbol) != now:
                self._ask_again(update.symbol, now)  # the feed's word came in a cycle before, and was told after it

    def heard(self, status: FeedStatus, now: datetime) -> None:
        self.checks.feeds.heard(status)
        if status.state in _UP:
            self._up_at = now
            self._ask_again(status.symbol, now)

    def split(self, action: CorporateAction) -> None:
        holding = self.exposure.holdings.get(action.symbol)
        if holding is not None and action.split != "1":
            holding.split(split_ratio(action.split))

    def act(self, action: RiskAction, now: datetime) -> None:
        """Do what risk asks for."""
        kind, code = action.kind, action.code
        if kind is _HALT_SYMBOL:
            self._halt(action, now)
        elif kind is _STOP and self.state is not _HALTED:
            self.state = _HALTED
            count = self._take_back("")
            passes = "only orders that reduce a position pass" if self._config.flatten else "nothing passes"
            message = f"trading is HALTED by {code}: {count} working orders are being cancelled, {passes}"
            self.say(_CRITICAL, "", message, float(count))
        elif kind is _WIND_DOWN and not self.checks.stopping:
            self._wind_down(cancel=action.code == CANCEL)
        elif kind is _REDUCE and self.state is not _HALTED and self.hold:
            self.reducing_until = max(self.reducing_until, now + self.hold)
            if self.state is _ACTIVE:
                self.state = _REDUCING
                hold_s = self._config.reduce_hold_s
                self.say(_WARNING, "", f"trading is REDUCING for {hold_s:g} s because of {code}", hold_s)

    def resume(self, now: datetime) -> None:
        """The end of REDUCING, unless it was prolonged meanwhile."""
        if self.state is _REDUCING and now >= self.reducing_until:
            self.state = _ACTIVE
            hold_s = self._config.reduce_hold_s
            self.say(_INFO, "", f"trading is ACTIVE again, {hold_s:g} s after the last reduction", hold_s)
            self._ask_again("", now)

    def take_cancel(self, request: CancelRequest, now: datetime) -> None:
        order_id, symbol = request.order_id, request.symbol
        if order_id in self.exposure.orders:
            self.cancels.waiting[order_id] = request
            self.send_cancels(now)
            waiting = len(self.cancels.waiting)
            if waiting:
                most = self._config.cancels_per_second_max
                message = f"cancel of order {order_id} waits (cancel_rate): {waiting} wait, {most} a second may go out"
                self.say(_WARNING, symbol, message, float(waiting))
        elif order_id not in self.checks.seen:
            self.say(_WARNING, symbol, f"cancel of order {order_id}, which was never sent", 0.0)

    def send_cancels(self, now: datetime) -> None:
        """Let those pass whose turn it is; an order that has ended meanwhile needs none."""
        self.requests += [r for r in self.cancels.take(now) if self.exposure.cancel(r.order_id)]

    def refuse(self, order: OrderRequest, refusal: Refusal) -> OrderUpdate:
        code, reason = refusal
        if code in _PASSING:
            self._waiting[order.symbol] = code
        self.say(_WARNING, order.symbol, f"order {order.order_id} refused ({code}): {reason}", order.quantity)
        return OrderUpdate(
            order_id=order.order_id, symbol=order.symbol, state=_REJECTED, remaining=0.0, code=code, reason=reason
        )

    def _ask_again(self, symbol: str, now: datetime) -> None:
        """Let those be asked for again, of a symbol or of all, that were refused for a reason that has ended."""
        if self.checks.stopping:
            return
        for waiting, code in list(self._waiting.items()):
            reduced = code not in _LINE_DOWN and self.state is _REDUCING
            if symbol in ("", waiting) and not reduced and self.checks.feeds.fault(waiting) is None:
                del self._waiting[waiting]
                self._told_at[waiting] = now
                self.again.append(waiting)

    def _halt(self, action: RiskAction, now: datetime) -> None:
        symbol, until = action.symbol, action.until
        halted = self.checks.halted_until
        if symbol not in self.exposure.holdings:
            return
        if self.state is _HALTED or (symbol in halted and now < halted[symbol]):
            halted[symbol] = max(halted.get(symbol, until), until)  # what works now is what closes the position
            return
        halted[symbol] = until
        count = self._take_back(symbol)
        message = f"{symbol} is halted until {until} by {action.code}: {count} working orders are being cancelled"
        self.say(_ALERT, symbol, message, float(count))

    def _wind_down(self, *, cancel: bool) -> None:
        self.checks.stopping = True
        count = self._take_back("") if cancel else len(self.exposure.orders)
        what = "are being cancelled" if cancel else "stay at the venue"
        message = f"the run winds down: {count} working orders {what}, no order is sent any more"
        self.say(_INFO, "", message, float(count))

    def _take_back(self, symbol: str) -> int:
        """Cancel all that works, or all of one symbol; the limit on cancels is not for risk itself."""
        orders = self.exposure.cancel_all(symbol)
        self.requests += [CancelRequest(order_id=sent.order_id, symbol=sent.symbol) for sent in orders]
        return len(orders)


@csp.node
def _gate(
    order: ts[OrderRequest],
    cancel: ts[CancelRequest],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    action: ts[RiskAction],
    equity: ts[float],
    cash: ts[float],
    closes: dict[str, ts[float]],
    unit_values: dict[str, ts[float]],
    corporate: ts[CorporateAction],
    status: ts[FeedStatus],
    instruments: tuple[Instrument, ...],
    config: RiskConfig,
    halted: bool,
    opening: Opening | None,
) -> csp.Outputs(
    approved=ts[OrderRequest],
    refused=ts[OrderUpdate],
    cancel=ts[list[CancelRequest]],
    alert=ts[list[Alert]],
    state=ts[TradingState],
    again=ts[list[str]],
):
    """`risk_filter`, with the alerts of a cycle in a list."""
    with csp.alarms():
        a_start = csp.alarm(bool)
        a_resume = csp.alarm(bool)  # the end of REDUCING
        a_cancel = csp.alarm(bool)  # a cancel that waits may go out
    with csp.state():
        s_gate = Gate(instruments, config, halted=halted, opening=opening)
        s_checks, s_holdings = s_gate.checks, s_gate.exposure.holdings
        s_others = s_checks.marks_all and len(instruments) > 1  # an order is judged by the other symbols too
        s_dated = s_checks.quote_age_max is not None
        s_told = None  # the state that ticked last
        s_cancel_set = False
    with csp.start():
        csp.make_passive(equity)
        csp.make_passive(cash)
        csp.make_passive(closes)
        csp.make_passive(unit_values)
        csp.schedule_alarm(a_start, timedelta(), True)

    if csp.ticked(status):
        s_gate.heard(status, csp.now())
    if csp.ticked(corporate):
        s_gate.split(corporate)
    if csp.ticked(fill):
        s_gate.filled(fill)
    if csp.ticked(update):
        s_gate.updated(update, csp.now())
    if csp.ticked(a_resume):
        s_gate.resume(csp.now())
    if csp.ticked(action):
        s_gate.act(action, csp.now())
        if action.kind is _REDUCE and s_gate.state is _REDUCING:
            csp.schedule_alarm(a_resume, s_gate.hold, True)
    if csp.ticked(cancel):
        s_gate.take_cancel(cancel, csp.now())
    if csp.ticked(a_cancel):
        s_cancel_set = False
        s_gate.send_cancels(csp.now())
    if s_gate.cancels.waiting and not s_cancel_set:
        s_cancel_set = True
        csp.schedule_alarm(a_cancel, s_gate.cancels.due(), True)

    if csp.ticked(order):
        symbol, now, marks = order.symbol, csp.now(), {}
        quoted = now
        if symbol in s_holdings and csp.valid(closes[symbol], unit_values[symbol]):
            marks[symbol] = (closes[symbol], unit_values[symbol])
            if s_dated:
                quoted = csp.time_at(closes[symbol], 0)
        if s_others:
            for key, holding in s_holdings.items():
                if key != symbol and not holding.idle and csp.valid(closes[key], unit_values[key]):
                    marks[key] = (closes[key], unit_values[key])
        worth = equity if csp.valid(equity) else math.nan
        money = cash if csp.valid(cash) else 0.0
        refusal = s_checks.refusal(order, now, s_gate.state, quoted, marks, worth, money)
        if refusal is None:
            csp.output(approved=order)
        else:
            csp.output(refused=s_gate.refuse(order, refusal))

    if s_gate.state is not s_told:
        s_told = s_gate.state
        csp.output(state=s_told)
    if s_gate.requests:
        csp.output(cancel=s_gate.requests)
        s_gate.requests = []
    if s_gate.again:
        csp.output(again=s_gate.again)
        s_gate.again = []
    if s_gate.alerts:
        csp.output(alert=s_gate.alerts)
        s_gate.alerts = []


@csp.graph
def risk_filter(
    order: ts[OrderRequest],
    cancel: ts[CancelRequest],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    action: ts[RiskAction],
    equity: ts[float],
    cash: ts[float],
    closes: dict[str, ts[float]],
    unit_values: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    config: RiskConfig,
    halted: bool,
    corporate: ts[CorporateAction] | None = None,
    status: ts[FeedStatus] | None = None,
    opening: Opening | None = None,
) -> csp.Outputs(
    approved=ts[OrderRequest],
    refused=ts[OrderUpdate],
    cancel=ts[list[CancelRequest]],
    alert=ts[Alert],
    state=ts[TradingState],
    again=ts[list[str]],
):
    """Let an order pass, or refuse it with a stable code and a sentence. docs/concepts/risk.md tells every rule.

    ACTIVE: the limits hold. REDUCING, for `reduce_hold_s` after a REDUCE_POSITIONS: only orders that reduce a position
    pass. HALTED, from an EMERGENCY_STOP on: what works is cancelled, and only reducing orders pass, or none where
    `flatten` is False; only a person ends it. HALT_SYMBOL does the same to one symbol, for a time. HALT_STRATEGY is
    none of its business: the strategy's own target goes to 0. From a WIND_DOWN on no order passes at all, and what
    works is cancelled where its code is "cancel".

    Args:
        order: what the strategies want to send.
        cancel: what they want to take back; of an order that does not work it is dropped, as it was too late.
        fill: executions; positions and what is open of each order are counted by them alone.
        update: what the venue says of each order; this node's own refusals may be among them.
        action: what risk asks for.
        equity: account value, its currency; passive.
        cash: of the account; passive.
        closes: last price by symbol, quote currency; passive.
        unit_values: what a unit is worth by symbol, currency of the account; passive.
        halted: an earlier stop was not reset: HALTED from the first cycle.
        corporate: splits, which change what is held; they count a microsecond later, as in the books.
        status: of live feeds: what rests on one that is STALE or has a GAP may only be reduced.
        opening: what is held and works at the start. Where it is not clean the gate is REDUCING as long as it runs.

    Ticks:
        `approved` or `refused` in the order's own cycle, never both. `cancel` with the strategies' cancels, and with
        what a stop or halt takes back. `alert` with every refusal, every change of state, and whatever venue and gate
        disagree about. `state` at the start and on change. `again` with the symbols of which an order was refused, or
        did not reach the venue, for a reason that has just ended, each once.

    Raises:
        ValueError: a fill of another symbol, or of no whole number of lots; an opening of another symbol, or off its
            steps.
    """
    split = csp.null_ts(CorporateAction) if corporate is None else csp.delay(corporate, SETTLE)
    feeds = csp.null_ts(FeedStatus) if status is None else status
    passed = _gate(
        order, cancel, fill, update, action, equity, cash, closes, unit_values, split, feeds, instruments, config,
        halted, opening,
    )  # fmt: skip
    return csp.output(
        approved=passed.approved,
        refused=passed.refused,
        cancel=passed.cancel,
        alert=csp.unroll(passed.alert),
        state=passed.state,
        again=passed.again,
    )
