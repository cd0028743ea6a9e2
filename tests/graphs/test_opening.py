"""An account that begins with what an earlier run has left, and hears of its feeds."""

import re
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.costs import FillModel
from brokers.events import Answers, CancelRequest, OrderRequest, OrderType
from brokers.opening import Note, Opening, OpeningPosition, plain
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, FeedState, FeedStatus, Side
from feeds.instruments import Instrument
from graphs.account import Account
from graphs.config import AccountConfig
from graphs.edges import AccountStreams, Feeds
from nodes.events import RiskAction
from nodes.risk import RiskConfig
from nodes.wind_down import CANCEL, wind_down

MINUTE = timedelta(minutes=1)
A = Instrument(symbol="A", tick="0.01", lot="0.1", taker_bps=10.0, borrow_bps=1_000.0)
BROKER = PaperConfig(latency_ms=1.0, fills=FillModel(slippage_bps=0.0))
OFF = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None)
BUY, SELL = Side.BUY, Side.SELL


def bar(number: int, opened: float, closed: float) -> Bar:
    """The bar that closes `number` minutes after T0."""
    return Bar(
        symbol="A", event_time=T0 + number * MINUTE, open_time=T0 + (number - 1) * MINUTE, open=opened, close=closed,
        high=max(opened, closed), low=min(opened, closed), volume=1_000.0,
    )  # fmt: skip


def market(prices: Sequence[float], first: int) -> list[tuple[timedelta, Bar]]:
    pairs = pairwise(prices)
    return [((first + n) * MINUTE, bar(first + n, opened, closed)) for n, (opened, closed) in enumerate(pairs)]


def order(key: object, side: Side, quantity: float, **terms: Any) -> OrderRequest:
    terms = {"order_type": OrderType.MARKET} | terms
    return OrderRequest(order_id=str(key), symbol="A", side=side, quantity=quantity, **terms)


def simulate(
    prices: Sequence[float], orders: Sequence[Any] = (), opening: Opening | None = None, first: int = 1, **more: Any
) -> Any:
    """The ticks of an account whose bars close from minute `first` on; orders and the rest at seconds after T0."""

    def graph() -> dict[str, Any]:
        bars = {"A": csp.curve(Bar, market(prices, first))}
        status = at(*more["status"], typ=FeedStatus) if "status" in more else None
        live = at((more["live"], True)) if "live" in more else None
        feeds = Feeds(bars=bars, bar_lengths={"A": MINUTE}, status=status, live=live)
        config = AccountConfig(instruments=(A,), initial_cash=1_000.0, risk=more.get("risk", OFF))

        def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
            return paper_venue(order, cancel, Market(bars=bars), (A,), BROKER, opening)

        account = Account(feeds, config, opening)
        actions: tuple[ts[RiskAction], ...] = ()
        if "stop" in more:
            actions = (wind_down(at((more["stop"], True)), CANCEL),)
        cancel = csp.null_ts(CancelRequest)
        flatten = more.get("flatten_as", "")
        halted = more.get("halted", False)
        sent = at(*orders, typ=OrderRequest)
        done = account.trade(sent, cancel, venue, actions=actions, flatten_as=flatten, halted=halted)
        streams = {name: getattr(done, name) for name in AccountStreams.__dataclass_fields__}
        streams |= {"known equity": account.equity}
        return {name: edge for name, edge in streams.items() if edge is not None}

    return run(graph, seconds=more.get("seconds", 3_600.0))  # before midnight, when what was borrowed is paid for


def left_by(out: Any) -> Opening:
    """What a run has left, as its successor begins with it."""
    position = out["position"][-1][1] if out["position"] else None
    held: tuple[OpeningPosition, ...] = ()
    if position is not None and position.quantity:
        quantity = Decimal(str(position.quantity))
        cost = (quantity * Decimal(str(round(position.average_price, 9)))).quantize(Decimal("0.001"))
        held = (OpeningPosition(symbol="A", quantity=plain(quantity), cost=plain(cost)),)
    cash = Decimal(str(round(out["cash"][-1][1], 6)))
    return Opening(cash=plain(cash), positions=held)


PRICE = st.integers(500, 2_000).map(lambda ticks: ticks / 100)
SENT = st.tuples(st.integers(1, 8), st.sampled_from([BUY, SELL]), st.integers(1, 30))


@settings(max_examples=30, deadline=None)
@given(st.lists(PRICE, min_size=12, max_size=12), st.lists(SENT, max_size=6), st.integers(3, 8))
def test_an_account_that_is_interrupted_ends_as_one_that_is_not(
    prices: list[float], sent: list[tuple[int, Side, int]], cut: int
) -> None:
    # An order of a minute fills at the next open, so none is on its way when a run ends between two of them.
    sent = sorted((each for each in sent if each[0] != cut), key=lambda each: each[0])
    orders = [
        (60.0 * minute + 1.0 + key / 100, order(f"r-{key}", side, lots / 10))
        for key, (minute, side, lots) in enumerate(sent)
    ]
    # Bar k closes at minute k; an order of minute m fills in the bar that opens at m + 1, known at m + 2. The bar that
    # closes at cut + 1 ends the first run, and is the second one's first price.
    whole = simulate(prices, orders)
    first = simulate(prices[: cut + 2], [o for o in orders if o[0] < 60.0 * cut])
    second = simulate(prices[cut:], [o for o in orders if o[0] > 60.0 * cut], left_by(first), first=cut + 1)
    both = [*values(first["fills"]), *values(second["fills"])]
    assert [(f.order_id, f.price, f.fee) for f in both] == [
        (f.order_id, f.price, f.fee) for f in values(whole["fills"])
    ]
    assert second["cash"][-1][1] == pytest.approx(whole["cash"][-1][1], abs=1e-6)
    assert second["equity"][-1][1] == pytest.approx(whole["equity"][-1][1], abs=1e-6)


HELD = Opening(cash="500", positions=(OpeningPosition(symbol="A", quantity="-10", cost="-150"),))
FLAT = [10.0] * 8


def test_what_is_held_counts_at_its_cost_before_it_has_a_price() -> None:
    out = simulate(FLAT, opening=HELD)
    assert out["known equity"][0] == (T0, 350.0)
    assert out["equity"][0] == (T0 + MINUTE, 400.0)
    assert [(when, p.quantity) for when, p in out["position"]] == [(T0, -10.0)]


def test_the_gate_knows_the_cash_from_the_first_cycle_on() -> None:
    risk = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None, cash_only=True)
    orders = [(0.0, order(1, BUY, 60.0)), (0.0, order(2, BUY, 40.0))]  # of 600 and 400
    out = simulate(FLAT, orders, Opening(cash="500"), first=0, risk=risk)
    assert [u.code for u in values(out["updates"]) if u.order_id == "1"] == ["cash"]


def test_without_anything_new_an_account_is_as_it_was() -> None:
    orders = [(70.0, order(1, BUY, 1.0)), (200.0, order(2, SELL, 2.0))]
    plain_ = simulate(FLAT, orders)
    assert simulate(FLAT, orders, Opening(cash="1000"), status=[]) == plain_
    assert plain_["fills"]


def test_notes_and_the_state_of_the_feeds_are_alerts() -> None:
    note = Note(code="adopted", symbol="A", message="one order", value=1.0)
    status = FeedStatus(feed="f", symbol="A", state=FeedState.STALE, detail="silent", value=3.0)
    orders = [(100.0, order(1, BUY, 1.0)), (110.0, order(2, SELL, 1.0, reduce_only=True))]
    out = simulate(FLAT, orders, Opening(cash="1000", notes=(note,)), status=[(90.0, status)])
    assert [(a.source, a.message) for a in values(out["alerts"])] == [
        ("opening", "adopted: one order"),
        ("f", "f A STALE: silent"),
        (
            "risk_filter",
            "order 1 refused (stale_feed): f is STALE for A (silent): only orders that reduce its position pass",
        ),
    ]
    assert values(out["updates"])[0].code == "stale_feed"


def test_history_neither_stops_an_account_nor_charges_it() -> None:
    # Short 10 at 15: history at 60 would have been ruin. It goes past midnight, and nothing is borrowed in it.
    history = [*([60.0] * 700), 10.0, 10.0]
    risk = RiskConfig(drawdown_max=0.1, daily_loss_max=0.1, symbol_loss_max=0.05, gross_exposure_max=None, var_max=None)
    out = simulate(history, opening=HELD, risk=risk, live=60.0 * 700 + 1.0, seconds=60.0 * 720)
    assert out["risk"] == []
    assert out["flows"] == []
    assert out["equity"][0] == (T0 + 700 * MINUTE + SECOND, 400.0)


def test_losses_go_on_from_the_earlier_run() -> None:
    before = Opening(cash="500", positions=HELD.positions, equity_peak=1_000.0)
    out = simulate(FLAT, opening=before, risk=RiskConfig(drawdown_max=0.5, gross_exposure_max=None, var_max=None))
    assert [(when, action.code) for when, action in out["risk"]] == [(T0 + MINUTE, "drawdown")]


def test_a_stop_closes_what_was_held_from_the_start() -> None:
    before = Opening(cash="500", positions=HELD.positions, equity_peak=1_000.0)
    risk = RiskConfig(drawdown_max=0.5, gross_exposure_max=None, var_max=None)
    out = simulate(FLAT, opening=before, risk=risk, flatten_as="r")
    assert [(f.side.name, f.quantity) for f in values(out["fills"])] == [("BUY", 10.0)]
    assert out["position"][-1][1].quantity == 0.0


def test_a_start_that_is_halted_closes_what_is_held() -> None:
    out = simulate(FLAT, opening=HELD, flatten_as="r", halted=True)
    assert [(f.side.name, f.quantity) for f in values(out["fills"])] == [("BUY", 10.0)]
    assert out["position"][-1][1].quantity == 0.0
    assert [a.message for a in values(out["alerts"])] == [
        "trading is HALTED from the start: no person has reset an earlier stop",
        "HALT_SYMBOL A: halted_position is -10.0000, the limit 0.0000",
    ]


def test_to_wind_down_cancels_what_works_and_lets_nothing_pass() -> None:
    resting = order(1, BUY, 1.0, order_type=OrderType.LIMIT, limit_price=5.0)
    out = simulate(FLAT, [(70.0, resting), (200.0, order(2, BUY, 1.0))], stop=190.0)
    assert [(u.order_id, u.state.name, u.code) for u in values(out["updates"])] == [
        ("1", "ACCEPTED", ""),
        ("1", "CANCELLED", ""),
        ("2", "REJECTED", "stopping"),
    ]
    assert [a.source for a in values(out["alerts"])] == ["risk_filter", "risk_filter"]


@pytest.mark.parametrize(
    ("symbol", "quantity", "instruments", "message"),
    [
        ("GONE", "1", (A,), "the account starts with GONE, which is none of A"),
        ("A", "0.05", (A,), "want a multiple of 1/10, the smallest quantity of A, was 0.05"),
        ("A", "1", (A, Instrument(symbol="E", currency="EUR")), "cash of one currency, the account has USD, EUR"),
    ],
)
def test_an_opening_that_cannot_be_is_refused_before_anything_runs(
    symbol: str, quantity: str, instruments: tuple[Instrument, ...], message: str
) -> None:
    opening = Opening(cash="1", positions=(OpeningPosition(symbol=symbol, quantity=quantity, cost="1"),))
    bars = {i.symbol: csp.null_ts(Bar) for i in instruments}
    config = AccountConfig(instruments=instruments, currency="USD")

    @csp.graph
    def wire() -> None:
        Account(Feeds(bars=bars, bar_lengths=dict.fromkeys(bars, MINUTE)), config, opening)

    with pytest.raises(ValueError, match=re.escape(message)):
        csp.build_graph(wire)
