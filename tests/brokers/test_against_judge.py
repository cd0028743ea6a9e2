"""The matching engine, the state machine of orders and the ledger, driven together through random markets.

Five things are judged, each on bars, on trades, on quotes with trades and on depth with trades:

- the engine reports what the plainest engine that follows the same rules reports (`tests.brokers.judge`), call by call;
- what it reports breaks none of the terms of an order: limit, quantity, volume, arrival, time in force, flags, group,
  parent; and an order takes only states that may follow one another. This is checked on the engine's own reports, see
  `Audit`;
- money is conserved to the last quantum, and the ledger's profit is that of exact fractions;
- the same script gives the same bytes;
- the updates that the simulated venue makes of the reports tell at all times what is open.

Prices lie within a few ticks of one another, so that touches, gaps and collisions are the rule. The slow tests are the
same ones with more cases.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from brokers import matching
from brokers.costs import FillModel
from brokers.events import NEVER, OrderRequest, OrderState, OrderType, TimeInForce
from brokers.ledger import Ledger
from brokers.orders import ENDED, TransitionError, WorkingOrder
from brokers.paper import Desk
from feeds.events import Side
from feeds.instruments import Instrument
from tests.brokers import judge, judge_terms
from tests.brokers.scripts import Call, Script, scripts, timeline

MARKETS = ("bars", "trades", "quotes", "depth")
SLOWLY = 12  # times as many cases
CASH = 1_000_000.0
SETTLE = timedelta(microseconds=1)
FILLING = (OrderState.ACCEPTED, OrderState.PARTLY_FILLED, OrderState.CANCEL_PENDING)
STATES = {
    "accepted": OrderState.ACCEPTED,
    "cancelled": OrderState.CANCELLED,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}


def hammer(market: str, cases: int, check: Callable[[Script], None]) -> None:
    # To say which parts of a failing script matter takes minutes, and the shrunk script says it too.
    phases = [phase for phase in Phase if phase is not Phase.explain]

    @settings(max_examples=cases, phases=phases, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scripts(market))
    def case(script: Script) -> None:
        check(script)

    case()


def book_of(script: Script) -> matching.Book:
    model = FillModel(**script.model)
    return matching.Book(script.instrument, model, bars=script.market == "bars", quoted=script.quoted)


def judge_of(script: Script) -> judge.Judge:
    model = FillModel(**script.model)
    return judge.Judge(script.instrument, model, bars=script.market == "bars", quoted=script.quoted)


# The engine says what the judge says.


def told(engine: Any, reports: list[Any]) -> list[tuple[Any, ...]]:
    """Reports as plain tuples, with the fee of each fill. Sentences are for people and not compared."""
    lines = []
    for report in reports:
        line = (report.order.order_id, report.what, report.code, report.lots)
        execution = report.execution
        if execution is not None:
            exact = (execution.lots, execution.ticks, execution.maker, report.market_time)
            near = (round(execution.market, 9), round(execution.half_spread, 9))
            line += (*exact, *near, engine.fee(report.order, execution))
        lines.append(line)
    return lines


def standing(engine: Any) -> tuple[Any, ...]:
    return sorted((name, order.lots) for name, order in engine.orders.items()), engine.position, engine.next_expiry


def all_day(script: Script) -> Script:
    """A day of it: enough for an engine to tidy up behind orders that have ended."""
    return replace(script, steps=script.steps * 20)


def reports_are_the_judges(script: Script) -> None:
    book, judging = book_of(script), judge_of(script)
    for call in timeline(script):
        said = told(book, call.to(book, matching.Order))
        want = told(judging, call.to(judging, judge_terms.Order))
        assert said == want, f"{call}\nthe engine said {said}\nthe judge wants {want}"
        assert standing(book) == standing(judging), call
        assert not (book.orders and book.idle), call


@pytest.mark.parametrize("market", MARKETS)
def test_the_engine_reports_what_the_judge_reports(market: str) -> None:
    hammer(market, 50, reports_are_the_judges)


@pytest.mark.parametrize("market", MARKETS)
def test_the_engine_reports_what_the_judge_reports_all_day(market: str) -> None:
    hammer(market, 4, lambda script: reports_are_the_judges(all_day(script)))


@pytest.mark.slow
@pytest.mark.parametrize("market", MARKETS)
def test_the_engine_reports_what_the_judge_reports_in_many_cases(market: str) -> None:
    hammer(market, 50 * SLOWLY, reports_are_the_judges)


# No fill breaks the terms of its order.


@dataclass(eq=False)
class Watched:
    """One order as its sender knows it."""

    terms: dict[str, Any]
    parent: str
    group: str
    working: WorkingOrder
    carried: int = 0  # lots filled by the orders that it replaced
    filled: int = 0  # its own

    @property
    def total(self) -> int:
        return self.carried + self.filled


@dataclass
class Audit:
    """Reads the reports of one engine, call by call, and holds them against the orders as they were sent."""

    script: Script
    watched: dict[str, Watched] = field(default_factory=dict)
    position: int = 0
    shown: dict[int, dict[float, float]] = field(default_factory=lambda: {1: {}, -1: {}})  # by side a taker takes

    def read(self, call: Call, reports: list[Any]) -> None:
        if call.name == "submit":
            self.send(call, reports)
        if call.name == "cancelling" and call.args[0] in self.watched:
            working = self.watched[call.args[0]].working
            if not working.ended and working.state is not OrderState.CANCEL_PENDING:
                working.to(OrderState.CANCEL_PENDING)
        self.look(call)
        before = {name: watched.total for name, watched in self.watched.items()}
        filled: dict[int, int] = defaultdict(int)  # lots in this call by sign
        for report in reports:
            order = self.watched[report.order.order_id]
            if report.code == "duplicate_order_id":
                continue
            if report.what == "filled":
                self.filled(call, order, report, before)
                filled[order.terms["sign"]] += report.execution.lots
            else:
                self.changed(order, report)
        for name, was in before.items():
            order = self.watched[name]
            if order.total > was and order.terms["immediate"]:
                assert order.working.ended, f"{name} is immediate and goes on after {call}"
                if order.terms["whole"]:
                    assert order.working.state is OrderState.FILLED, f"{name} was filled in part by {call}"
        self.volume(call, filled)
        self.groups()

    def send(self, call: Call, reports: list[Any]) -> None:
        terms = call.args[0]
        assert terms["order_id"] in {report.order.order_id for report in reports}, "no answer"
        if terms["order_id"] in self.watched:
            assert [report.code for report in reports] == ["duplicate_order_id"]
            return
        replaced = self.watched.get(terms.get("replaces", ""))
        new = Watched(terms, terms.get("parent", ""), terms.get("group", ""), WorkingOrder(terms["order_id"], 1))
        if replaced is not None:
            new.parent, new.group, new.carried = replaced.parent, replaced.group, replaced.total
        self.watched[terms["order_id"]] = new
        opened = [report.lots for report in reports if report.what == "accepted"]
        # The sender of a replacement asks for `lots` in all; how many of them are open is what the venue says.
        new.working = WorkingOrder(terms["order_id"], opened[0] if opened else terms["lots"], OrderState.PENDING)
        assert new.working.lots <= terms["lots"] - (new.carried if opened else 0)
        if opened and replaced is not None:
            for other in self.watched.values():
                if other.parent == terms["replaces"] and not other.working.ended:
                    other.parent = terms["order_id"]

    def changed(self, order: Watched, report: Any) -> None:
        working = order.working
        assert not working.ended, f"{working.order_id} has ended, and then is {report.what}"
        if report.what == "reduced":
            working.cut(working.open_lots - report.lots)
        elif report.what != "triggered":
            working.to(STATES[report.what])
            assert working.state is STATES[report.what]

    def filled(self, call: Call, order: Watched, report: Any, before: dict[str, int]) -> None:
        terms, execution = order.terms, report.execution
        sign, limit = terms["sign"], terms.get("limit")
        was = order.working.state
        assert was in FILLING
        order.working.filled(execution.lots)  # raises where fewer are open
        order.filled += execution.lots
        partly = was if was is OrderState.CANCEL_PENDING else OrderState.PARTLY_FILLED
        assert order.working.state is (partly if report.lots else OrderState.FILLED)
        assert order.total <= terms["lots"]
        assert report.lots == order.working.open_lots
        assert execution.ticks >= 1
        assert limit is None or (execution.ticks - limit) * sign <= 0, "worse than the limit"
        assert call.name.startswith("on_"), "a fill without a market event"
        assert not (terms.get("post_only") and not execution.maker)
        if call.name == "on_bar":
            opened = call.args[5]
            assert report.market_time == opened >= terms["sent"] - SETTLE, "a bar that opened before it was sent"
        else:
            assert report.market_time == call.time >= terms["sent"] + self.script.latency, "before it arrived"
        assert not execution.maker or self.traded_through(call, sign, limit), "a touch does not fill"
        expires = terms.get("expires")
        assert expires is None or (call.args[5] if call.name == "on_bar" else call.time) < expires
        if terms["reduce_only"]:
            assert 0 < execution.lots <= -self.position * sign, "it does not reduce"
        self.position += sign * execution.lots
        if order.parent:
            awake = self.watched[order.parent].total if call.name == "on_bar" else before[order.parent]
            assert order.total <= awake, "a child that nothing has woken"

    def traded_through(self, call: Call, sign: int, limit: int) -> bool:
        """Whether the market came to a resting order: through its limit, or to it where somebody shows that much."""
        price = limit * Fraction(self.script.instrument.tick)
        if call.name == "on_bar":
            low, high = Fraction(str(min(call.args[:4]))), Fraction(str(max(call.args[:4])))
            return low < price if sign > 0 else high > price
        if call.name == "on_trade":
            beyond = (Fraction(str(call.args[0])) - price) * sign
            return beyond < 0 or (beyond == 0 and self.script.model["queue"])
        return any(
            size > 0.0 and price and (Fraction(str(at)) - price) * sign <= 0 for at, size in self.shown[sign].items()
        )

    def look(self, call: Call) -> None:
        """Remember what quotes and depth show."""
        if call.name == "on_quote":
            bid, ask, bid_lots, ask_lots, _ = call.args
            self.shown = {1: {ask: ask_lots}, -1: {bid: bid_lots}}
        if call.name == "on_depth":
            for sign, side in ((-1, call.args[0]), (1, call.args[1])):
                self.shown[sign] = ({} if call.args[2] else self.shown[sign]) | dict(side.tolist())

    def volume(self, call: Call, filled: dict[int, int]) -> None:
        """No more is filled than the market event has volume for."""
        share = self.script.model["participation_max"]
        part = Fraction(1) if share is None else Fraction(str(share))
        if call.name == "on_bar":
            assert share is None or sum(filled.values()) <= part * Fraction(call.args[4])
        if call.name == "on_trade":
            assert sum(filled.values()) <= part * Fraction(call.args[1])
        if call.name in ("on_quote", "on_depth"):
            for sign, lots in filled.items():
                assert lots <= part * sum(Fraction(size) for price, size in self.shown[sign].items() if price > 0.0)

    def groups(self) -> None:
        """What one of a group fills is taken off the others."""
        members = defaultdict(list)
        for order in self.watched.values():
            if order.group:
                members[order.group].append(order)
        for orders in members.values():
            sent = [order for order in orders if order.working.state is not OrderState.REJECTED]
            filled = sum(order.filled for order in orders)
            assert filled <= max((order.terms["lots"] for order in sent), default=0)


def no_fill_breaks_its_terms(script: Script) -> None:
    book, audit = book_of(script), Audit(script)
    for call in timeline(script):
        audit.read(call, call.to(book, matching.Order))
        working = {name for name, order in audit.watched.items() if not order.working.ended}
        assert working == set(book.orders)
        assert {name: audit.watched[name].working.open_lots for name in working} == {
            name: order.lots for name, order in book.orders.items()
        }
        assert audit.position == book.position
    for order in audit.watched.values():
        if order.working.ended:
            for state in OrderState:
                with pytest.raises(TransitionError):
                    order.working.to(state)
            with pytest.raises(TransitionError):
                order.working.filled(1)


@pytest.mark.parametrize("market", MARKETS)
def test_no_fill_breaks_the_terms_of_its_order(market: str) -> None:
    hammer(market, 40, no_fill_breaks_its_terms)


@pytest.mark.slow
@pytest.mark.parametrize("market", MARKETS)
def test_no_fill_breaks_the_terms_of_its_order_in_many_cases(market: str) -> None:
    hammer(market, 40 * SLOWLY, no_fill_breaks_its_terms)


# Money is conserved.


@dataclass
class Purse:
    """An account in exact fractions: what each unit cost is kept apart, or at the average where that is asked for."""

    instrument: Instrument
    method: str
    cash: Fraction = Fraction(CASH)
    realised: Fraction = Fraction(0)
    parcels: list[tuple[Fraction, Fraction]] = field(default_factory=list)  # (signed quantity, price)

    @property
    def held(self) -> Fraction:
        return sum((quantity for quantity, _ in self.parcels), start=Fraction(0))

    def pay(self, quantity: Fraction, price: Fraction, fee: Fraction, base_fee: Fraction) -> None:
        """Book a fill; `base_fee` is taken out of the quantity, which was paid for all the same."""
        multiplier = Fraction(self.instrument.multiplier)
        self.cash -= quantity * price * multiplier + fee
        quantity -= base_fee
        while quantity and self.held * quantity < 0:
            oldest, cost = self.parcels[0]
            closed = min(abs(oldest), abs(quantity)) * (1 if quantity > 0 else -1)
            self.realised -= closed * (price - cost) * multiplier
            quantity -= closed
            self.parcels[0] = (oldest + closed, cost)
            self.parcels = [parcel for parcel in self.parcels if parcel[0]]
        if quantity:
            self.parcels.append((quantity, price))
        if self.method == "average" and self.parcels:
            cost = sum((units * paid for units, paid in self.parcels), start=Fraction(0)) / self.held
            self.parcels = [(self.held, cost)]


def money_is_conserved(method: str, script: Script) -> None:
    """The ledger's sums agree to the quantum, and cash, position and profit are those of exact fractions; of the
    profit, each division that closes a part of a position may leave a quantum with what is still open."""
    instrument = script.instrument
    book, ledger = book_of(script), Ledger([instrument], CASH, method=method)
    purse, fills = Purse(instrument, method), 0
    quantum = ledger.contracts["A"].quantum
    base_unit = Fraction(instrument.base_unit or instrument.lot)
    for call in timeline(script):
        for report in call.to(book, matching.Order):
            if report.execution is None:
                continue
            lots, ticks = report.order.sign * report.execution.lots, report.execution.ticks
            fee, base_fee = book.fee(report.order, report.execution)
            ledger.book("A", lots, ticks, fee, base_fee)
            price = ticks * Fraction(instrument.tick)
            purse.pay(lots * Fraction(instrument.lot), price, fee * quantum, base_fee * base_unit)
            fills += 1
            position = ledger.positions["A"]
            worth = ledger.equity({"A": ticks})
            earned = position.realised + ledger.unrealised("A", ticks) - position.fees + position.income
            assert worth == ledger.start["USD"] + earned
            assert worth * quantum == purse.cash + purse.held * price * Fraction(instrument.multiplier)
            assert ledger.cash["USD"] * quantum == purse.cash
            assert position.units * base_unit == purse.held
            assert position.units != 0 or position.cost == 0
            assert abs(position.realised * quantum - purse.realised) <= fills * quantum


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("method", ["average", "fifo"])
def test_money_is_conserved_to_the_quantum(method: str, market: str) -> None:
    hammer(market, 15, lambda script: money_is_conserved(method, script))


@pytest.mark.slow
@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("method", ["average", "fifo"])
def test_money_is_conserved_to_the_quantum_in_many_cases(method: str, market: str) -> None:
    hammer(market, 15 * SLOWLY, lambda script: money_is_conserved(method, script))


# A replay repeats.


def a_replay_repeats(script: Script) -> None:
    def run() -> bytes:
        book = book_of(script)
        return repr([call.to(book, matching.Order) for call in timeline(script)]).encode()

    assert run() == run()


@pytest.mark.parametrize("market", MARKETS)
def test_a_replay_gives_the_same_bytes(market: str) -> None:
    hammer(market, 10, a_replay_repeats)


@pytest.mark.slow
@pytest.mark.parametrize("market", MARKETS)
def test_a_replay_gives_the_same_bytes_in_many_cases(market: str) -> None:
    hammer(market, 10 * SLOWLY, a_replay_repeats)


# The venue's desk tells what the engine does.


def request_of(script: Script, terms: dict[str, Any]) -> OrderRequest:
    tick, lot = Fraction(script.instrument.tick), Fraction(script.instrument.lot)
    stop, limit, trails = "stop" in terms, "limit" in terms, "trail" in terms or "trail_bps" in terms
    plain = OrderType.LIMIT if limit else OrderType.MARKET
    stops = OrderType.STOP_LIMIT if limit else OrderType.STOP
    touches = OrderType.MARKET_IF_TOUCHED if terms.get("touch") else stops
    force = TimeInForce.FOK if terms["whole"] else TimeInForce.IOC
    rests = TimeInForce.GTD if "expires" in terms else TimeInForce.GTC
    return OrderRequest(
        order_id=terms["order_id"],
        symbol="A",
        side=Side.BUY if terms["sign"] > 0 else Side.SELL,
        order_type=OrderType.TRAILING_STOP if trails else touches if stop else plain,
        quantity=float(terms["lots"] * lot),
        limit_price=float(terms.get("limit", 0) * tick),
        stop_price=float(terms.get("stop", 0) * tick),
        trail=float(terms.get("trail", 0) * tick),
        trail_bps=terms.get("trail_bps", 0.0),
        time_in_force=force if terms["immediate"] else rests,
        expires=terms.get("expires", NEVER),
        post_only=terms.get("post_only", False),
        reduce_only=terms["reduce_only"],
        **{link: terms.get(link, "") for link in ("group", "parent", "replaces")},
    )


def the_desk_tells_what_is_open(script: Script) -> None:
    bars = script.market == "bars"
    desk = Desk(script.instrument, FillModel(**script.model), bars=bars, quoted=script.quoted)
    plain = book_of(script)
    lot = Fraction(script.instrument.lot)
    open_: dict[str, float] = {}
    for call in timeline(script):
        executions = [report.execution for report in call.to(plain, matching.Order) if report.execution is not None]
        if call.name == "submit":
            terms = call.args[0]
            desk.receive(request_of(script, terms), terms["sent"], call.time, terms["decision"])
        else:
            desk.tell(call.to(desk.book, matching.Order))
        for update in desk.updates:
            if update.code != "duplicate_order_id":
                open_[update.order_id] = 0.0 if update.state in ENDED else update.remaining
        assert {name: left for name, left in open_.items() if left} == {
            name: float(order.lots * lot) for name, order in desk.book.orders.items()
        }
        assert [fill.quantity for fill in desk.fills] == [float(execution.lots * lot) for execution in executions]
        desk.updates, desk.fills = [], []


@pytest.mark.parametrize("market", MARKETS)
def test_the_desk_tells_what_is_open(market: str) -> None:
    hammer(market, 15, the_desk_tells_what_is_open)


@pytest.mark.slow
@pytest.mark.parametrize("market", MARKETS)
def test_the_desk_tells_what_is_open_in_many_cases(market: str) -> None:
    hammer(market, 15 * SLOWLY, the_desk_tells_what_is_open)
