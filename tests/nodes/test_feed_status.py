"""Feeds that cannot be relied upon: told to a person, and kept in mind by the gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderType, OrderUpdate
from feeds.events import FeedState, FeedStatus, Side
from feeds.instruments import Instrument
from nodes.events import AlertLevel, RiskAction
from nodes.feed_status import FeedStates, status_alert
from nodes.gate import risk_filter
from nodes.order_checks import CODES
from nodes.risk import RiskConfig

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "risk.md").read_text()
BUY, SELL = Side.BUY, Side.SELL
ACME = Instrument(symbol="ACME", tick="0.01", lot="1")
ES = Instrument(symbol="ES", tick="0.25", lot="1")
TRADES = "binance trades"


def status(state: str, symbol: str = "ACME", feed: str = TRADES, detail: str = "no message for 12 s") -> FeedStatus:
    return FeedStatus(feed=feed, symbol=symbol, state=FeedState[state], detail=detail, value=12.0)


def order(key: int, side: Side, quantity: float, symbol: str = "ACME") -> OrderRequest:
    kind = OrderType.MARKET
    return OrderRequest(order_id=f"r-{key}", symbol=symbol, side=side, order_type=kind, quantity=quantity)


def gate(orders: Sequence[Any], statuses: Sequence[Any], held: float = 0.0, *, without: bool = False) -> Any:
    """Run the gate of an account that has bought `held` ACME; all else on (second, event) points."""

    def graph() -> Any:
        fills = [
            Fill(
                market_time=T0, symbol="ACME", side=BUY, quantity=held, price=100.0, fee=0.0, order_id="before",
                liquidity=Liquidity.TAKER,
            )
        ]  # fmt: skip
        closes = {"ACME": csp.const(100.0), "ES": csp.const(100.0)}
        out = risk_filter(
            at(*orders, typ=OrderRequest),
            csp.null_ts(CancelRequest),
            at(*((0.0, f) for f in fills if held), typ=Fill),
            csp.null_ts(OrderUpdate),
            csp.null_ts(RiskAction),
            csp.const(10_000.0),
            csp.const(10_000.0),
            closes,
            closes,
            (ACME, ES),
            RiskConfig(gross_exposure_max=None),
            False,
            status=None if without else at(*statuses, typ=FeedStatus),
        )
        return {name: out[name] for name in ("approved", "refused", "alert", "state")}

    return run(graph)


def passed(out: Any) -> list[str]:
    return [o.order_id for o in values(out["approved"])]


def refused(out: Any) -> list[str]:
    return [f"{u.code}: {u.reason}" for u in values(out["refused"])]


def test_example_a_stale_feed_lets_only_reducing_orders_of_its_symbol_pass() -> None:
    orders = [
        (1.0, order(1, BUY, 1.0)),
        (3.0, order(2, BUY, 1.0)),
        (4.0, order(3, SELL, 10.0)),
        (5.0, order(4, BUY, 1.0, "ES")),
        (7.0, order(5, BUY, 1.0)),
    ]
    out = gate(orders, [(2.0, status("STALE")), (6.0, status("RECOVERED"))], held=10.0)
    assert passed(out) == ["r-1", "r-3", "r-4", "r-5"]
    (refusal,) = refused(out)
    assert refusal.partition(":")[0] in CODES
    assert f"\n{refusal}\n" in PAGE, refusal


def test_a_status_in_the_cycle_of_an_order_counts() -> None:
    out = gate(
        [(1.0, order(1, BUY, 1.0)), (2.0, order(2, BUY, 1.0))], [(1.0, status("GAP")), (2.0, status("CONNECTED"))]
    )
    assert passed(out) == ["r-2"]
    assert "GAP" in refused(out)[0]


def test_without_a_status_the_gate_is_as_it_was() -> None:
    orders = [(float(n), order(n, BUY if n % 3 else SELL, float(n))) for n in range(1, 9)]
    assert gate(orders, [], without=True) == gate(orders, [])


def test_in_the_dark_only_what_is_held_can_be_reduced() -> None:
    # A market buy on its way counts as filled, so a sale behind it only reduces; unless it may never have been sent.
    orders = [(1.0, order(1, BUY, 5.0)), (3.0, order(2, SELL, 5.0)), (4.0, order(3, BUY, 5.0))]
    assert passed(gate(orders, [])) == ["r-1", "r-2", "r-3"]
    assert passed(gate(orders, [(2.0, status("GAP", feed="binance orders"))])) == ["r-1"]
    assert passed(gate(orders, [(2.0, status("GAP", feed="binance orders"))], held=5.0)) == ["r-1", "r-2"]


def test_what_is_late_is_told_and_holds_nothing_up() -> None:
    out = gate([(2.0, order(1, BUY, 1.0))], [(1.0, status("LAGGING"))])
    assert passed(out) == ["r-1"]
    for what in ("LAGGING", "DROPPED"):
        assert passed(gate([(2.0, order(1, BUY, 1.0))], [(0.5, status("STALE")), (1.0, status(what))])) == []


def faults(*statuses: FeedStatus) -> dict[str, str]:
    """The state that blocks each of three symbols, "" where none does."""
    states = FeedStates()
    for each in statuses:
        states.heard(each)
    found = {symbol: states.fault(symbol) for symbol in ("ACME", "ES", "XYZ")}
    assert states.unreliable or not any(found.values())
    return {symbol: fault.state.name if fault else "" for symbol, fault in found.items()}


def test_a_feed_that_names_no_symbol_speaks_of_all() -> None:
    everywhere = {"ACME": "STALE", "ES": "STALE", "XYZ": "STALE"}
    assert faults(status("STALE", "")) == everywhere
    assert faults(status("STALE", ""), status("RECOVERED", "ES")) == everywhere | {"ES": ""}
    assert faults(status("GAP", "ES"), status("STALE", "")) == everywhere
    assert faults(status("GAP", "ES"), status("CONNECTED", "")) == dict.fromkeys(everywhere, "")


def test_each_feed_speaks_for_itself() -> None:
    one, other = status("STALE"), status("GAP", feed="binance orders")
    assert faults(one, other)["ACME"] == "STALE"
    assert faults(one, other, status("RECOVERED"))["ACME"] == "GAP"
    assert faults(one, other, status("RECOVERED", feed="binance quotes"))["ACME"] == "STALE"


KINDS = st.tuples(
    st.sampled_from(list(FeedState)), st.sampled_from(["", "ACME", "ES"]), st.sampled_from(["one", "two"])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(KINDS, max_size=30))
def test_what_blocks_a_symbol_is_the_last_word_of_some_feed_on_it(told: list[tuple[FeedState, str, str]]) -> None:
    states = FeedStates()
    for state, symbol, feed in told:
        states.heard(FeedStatus(feed=feed, symbol=symbol, state=state, detail="", value=0.0))
    for symbol in ("ACME", "ES", "XYZ"):
        about = [(feed, state) for state, whom, feed in told if whom in ("", symbol)]
        last = {feed: state for feed, state in about if state not in (FeedState.LAGGING, FeedState.DROPPED)}
        blocked = any(state in (FeedState.STALE, FeedState.GAP) for state in last.values())
        fault = states.fault(symbol)
        assert (fault is not None) is blocked
        assert fault is None or last[fault.feed] is fault.state


@pytest.mark.parametrize(
    ("state", "level"),
    [
        ("CONNECTED", "INFO"),
        ("LAGGING", "WARNING"),
        ("STALE", "ALERT"),
        ("GAP", "ALERT"),
        ("RECOVERED", "INFO"),
        ("DROPPED", "WARNING"),
    ],
)
def test_every_status_is_an_alert(state: str, level: str) -> None:
    ((when, alert),) = run(lambda: status_alert(at((1.0, status(state)))))
    assert (when, alert.level, alert.source, alert.symbol) == (T0 + SECOND, AlertLevel[level], TRADES, "ACME")
    assert (alert.message, alert.value) == (f"binance trades ACME {state}: no message for 12 s", 12.0)


def test_an_alert_names_its_symbol_once() -> None:
    ((_, alert),) = run(lambda: status_alert(at((1.0, status("STALE", detail="ACME: it does not serve trade 7 yet")))))
    assert alert.message == "binance trades ACME STALE: it does not serve trade 7 yet"


def test_an_alert_without_symbol_or_detail_reads_well() -> None:
    ((_, alert),) = run(lambda: status_alert(at((1.0, status("STALE", "", detail="")))))
    assert (alert.message, alert.symbol) == ("binance trades STALE", "")
