"""What an account on paper writes to its journal, and that the next run goes on from it."""

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run

from brokers.events import CashFlow, Fill, Liquidity
from brokers.journal import Journal, JournalError
from brokers.ledger import Contract
from brokers.opening import Opening
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.keep import keep_fills, keep_flows, keep_risk, kept_fill, nanoseconds

A = Instrument(symbol="A", tick="0.05", lot="0.1", currency_unit="0.01")
COIN = Instrument(symbol="COIN", tick="0.01", lot="0.001", base_unit="0.000001", fees_in="received")
MIDNIGHT = datetime(2024, 1, 3)  # T0 is 14:30 on the 2nd
EVENING = (MIDNIGHT - T0).total_seconds()


def fill(order_id: str, quantity: float, price: float = 10.05, symbol: str = "A", **terms: Any) -> Fill:
    terms = {"fee": 0.07, "side": Side.SELL, "liquidity": Liquidity.MAKER} | terms
    return Fill(market_time=T0, symbol=symbol, quantity=quantity, price=price, order_id=order_id, **terms)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A journal in which a run has begun."""
    with Journal(tmp_path / "j") as journal:
        journal.begin_run("r1", "paper")
    return str(tmp_path / "j")


@csp.node
def look(event: ts[object], path: str) -> ts[int]:
    """How many fills another reader finds, a microsecond after the event."""
    with csp.alarms():
        a_look = csp.alarm(bool)
    if csp.ticked(event):
        csp.schedule_alarm(a_look, timedelta(microseconds=1), True)
    if csp.ticked(a_look):
        with Journal(path) as journal:
            return len(journal.fills())


def test_every_fill_is_written_in_its_own_cycle_as_exact_decimals(path: str) -> None:
    def graph() -> Any:
        fills = at((1.0, fill("r1-A-1", 0.3)), (2.0, fill("r1-A-1", 0.7, fee=-0.01)), typ=Fill)
        keep_fills(fills, (A,), path)
        return look(csp.apply(fills, lambda f: f, object), path)

    assert [count for _, count in run(graph)] == [1, 2]
    with Journal(path) as journal:
        one, other = journal.fills()
    assert (one.symbol, one.order_id, one.side, one.quantity, one.price, one.fee, one.liquidity) == (
        "A", "r1-A-1", "SELL", "0.3", "10.05", "0.07", "MAKER",
    )  # fmt: skip
    assert (other.quantity, other.fee) == ("0.7", "-0.01")
    assert one.trade_id != other.trade_id
    assert one.time_ns == 1_704_205_800 * 10**9


def test_a_second_run_writes_beside_the_first(path: str) -> None:
    run(lambda: keep_fills(at((1.0, fill("r1-A-1", 1.0))), (A,), path))
    with Journal(path) as journal:
        journal.begin_run("r2", "paper")
        run(lambda: keep_fills(at((1.0, fill("r2-A-1", 1.0, side=Side.BUY))), (A,), path))
        assert [(f.order_id, f.run) for f in journal.fills()] == [("r1-A-1", 1), ("r2-A-1", 2)]
        assert journal.positions() == {"A": 0}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(-(10**6), 10**6), st.integers(0, 10**9))
def test_a_kept_fill_has_just_the_steps_of_the_fill(lots: int, ticks: int, cents: int, units: int) -> None:
    contract = Contract(COIN)
    told = fill(
        "1", contract.lots.value(lots), contract.ticks.value(ticks), "COIN", fee=cents / 100,
        base_fee=contract.units.value(units), side=Side.BUY,
    )  # fmt: skip
    kept = kept_fill(told, contract, "t")
    assert [contract.held(kept.quantity), contract.held(kept.base_fee)] == [lots * 1_000, units]
    assert (float(kept.price), float(kept.fee)) == (told.price, told.fee)


def test_a_fill_off_its_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"want a multiple of the tick of A 1/20, was 10\.03"):
        kept_fill(fill("1", 1.0, price=10.03), Contract(A), "t")


def test_nanoseconds_lose_no_microsecond() -> None:
    assert nanoseconds(datetime(1970, 1, 1, 0, 0, 0, 1)) == 1_000
    assert nanoseconds(datetime(2024, 1, 2, 14, 30, 0, 123_457)) == 1_704_205_800_123_457_000


def test_every_flow_is_written(path: str) -> None:
    flows = at(
        (1.0, CashFlow(symbol="A", amount=-0.3, kind="borrow")), (2.0, CashFlow(symbol="A", amount=1.0, kind="f"))
    )
    run(lambda: keep_flows(flows, (A,), path))
    with Journal(path) as journal:
        assert [(f.symbol, f.amount, f.kind) for f in journal.flows()] == [("A", "-0.3", "borrow"), ("A", "1", "f")]
        assert journal.flows()[0].time_ns == nanoseconds(T0 + SECOND)


def test_a_journal_that_cannot_be_used_stops_the_run_before_it_trades(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("no journal at all")
    name = str(tmp_path / "j")
    for graph in (
        lambda: keep_fills(csp.null_ts(Fill), (A,), name),
        lambda: keep_flows(csp.null_ts(CashFlow), (A,), name),
        lambda: keep_risk(csp.null_ts(float), name, None),
    ):
        with pytest.raises(JournalError, match="cannot be used"):
            run(graph)


def kept(path: str, equity: Any, opening: Opening | None = None, seconds: float = 5 * 86_400.0) -> tuple[Any, ...]:
    run(lambda: keep_risk(at(*equity), path, opening), seconds=seconds)
    with Journal(path) as journal:
        risk = journal.risk()
    return risk.equity_peak, risk.day, risk.day_start


def test_the_peak_and_the_days_start_are_kept(path: str) -> None:
    assert kept(path, [(0.0, 100.0), (1.0, 120.0), (2.0, 90.0)]) == (120.0, "2024-01-02", 100.0)


def test_the_marks_of_midnight_belong_to_the_day_that_ends(path: str) -> None:
    equity = [(0.0, 100.0), (EVENING + 1e-6, 97.0), (EVENING + 60.0, 99.0)]
    assert kept(path, equity) == (100.0, "2024-01-03", 97.0)
    highest = [(0.0, 100.0), (EVENING + 1e-6, 103.0), (EVENING + 60.0, 99.0)]
    assert kept(path, highest) == (103.0, "2024-01-03", 103.0)


def test_what_was_kept_before_goes_on(path: str) -> None:
    before = Opening(cash="0", equity_peak=150.0, day="2024-01-02", day_start=140.0)
    assert kept(path, [(0.0, 100.0), (1.0, 160.0)], before) == (160.0, "2024-01-02", 140.0)
    assert kept(path, [(EVENING + 60.0, 100.0)], before) == (150.0, "2024-01-03", 100.0)


@csp.node
def peaks(clock: ts[int], path: str) -> ts[float]:
    """The peak that another reader finds."""
    if csp.ticked(clock):
        with Journal(path) as journal:
            return journal.risk().equity_peak


def test_they_are_written_a_second_after_a_change_at_most_once_a_second(path: str) -> None:
    def graph() -> Any:
        keep_risk(at(*((0.1 * n, 100.0 + n) for n in range(25))), path, None)
        return peaks(at(*((0.1 * n + 0.05, n) for n in range(40))), path)

    seen = [(round((when - T0).total_seconds(), 2), peak) for when, peak in run(graph)]
    changes = [(when, peak) for (when, peak), (_, last) in zip(seen[1:], seen, strict=False) if peak != last]
    # Changed at 0.0, written at 1.0; changed again at 1.1, written at 2.1; at 2.2, written at 3.2.
    assert changes == [(1.05, 110.0), (2.15, 121.0), (3.25, 124.0)]


def test_the_end_of_the_run_writes_what_is_still_to_be_written(path: str) -> None:
    assert kept(path, [(0.0, 100.0), (1.5, 120.0)], seconds=1.7) == (120.0, "2024-01-02", 100.0)


@csp.node
def halted_and_reset(event: ts[bool], path: str) -> ts[bool]:
    """Risk stops the account, and a person resets that while the run goes on."""
    if csp.ticked(event):
        with Journal(path) as journal:
            journal.halt("drawdown", "too deep", T0, value=0.5, limit=0.3, equity=50.0)
            journal.reset("a person", T0)
        return True


def test_a_run_that_was_stopped_does_not_undo_what_a_reset_did(path: str) -> None:
    # The peak before the stop, written once more at midnight, would stop the next run at its first mark.
    def graph() -> Any:
        keep_risk(at((0.0, 100.0), (2.0, 50.0), (EVENING + 1.0, 51.0)), path, None)
        return halted_and_reset(at((3.0, True)), path)

    assert len(run(graph)) == 1
    with Journal(path) as journal:
        assert journal.risk().equity_peak == 0.0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=10), st.integers(1, 9))
def test_two_runs_on_one_day_keep_what_one_would(equity: list[int], cut: int) -> None:
    points = [(float(n), float(value)) for n, value in enumerate(equity)]
    cut = min(cut, len(points) - 1)
    with TemporaryDirectory() as folder:
        path = f"{folder}/j"
        with Journal(path) as journal:
            journal.begin_run("r1", "paper")
        peak, day, start = kept(path, points[:cut])
        again = kept(path, points[cut:], Opening(cash="0", equity_peak=peak, day=day, day_start=start))
        assert again == (max(equity), "2024-01-02", equity[0])
