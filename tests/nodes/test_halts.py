"""An emergency stop reaches the journal in its own cycle."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
from support import SECOND, T0, at, run, ticks

from brokers.journal import Journal, JournalError
from nodes.events import RiskAction, RiskActionKind
from nodes.halts import keep_halt


def action(kind: str, value: float = 0.4) -> RiskAction:
    return RiskAction(kind=RiskActionKind[kind], code="drawdown", value=value, limit=0.35)


def test_a_stop_is_kept_with_its_figures_and_no_other_action_is(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    actions = [(1.0, action("REDUCE_POSITIONS")), (2.0, action("EMERGENCY_STOP")), (3.0, action("EMERGENCY_STOP", 0.5))]

    run(lambda: keep_halt(at(*actions), ticks(100.0, 90.0, 60.0, 50.0), path))

    with Journal(path) as journal:
        (halt,) = journal.history()
    assert (halt.code, halt.engine_time, halt.value, halt.limit, halt.equity) == (
        "drawdown",
        T0 + 2 * SECOND,
        0.4,
        0.35,
        60.0,
    )
    assert halt.message == "drawdown is 0.4000, the limit 0.3500"


@csp.node
def look(action: csp.ts[RiskAction], path: str) -> csp.ts[bool]:
    """Whether another reader finds a halt, a microsecond after the action."""
    with csp.alarms():
        a_look = csp.alarm(bool)
    if csp.ticked(action):
        csp.schedule_alarm(a_look, timedelta(microseconds=1), True)
    if csp.ticked(a_look):
        with Journal(path) as journal:
            return journal.open_halt() is not None


def test_it_is_on_disk_before_the_next_cycle(tmp_path: Path) -> None:
    path = str(tmp_path / "j")

    def graph() -> Any:
        stop = at((1.0, action("EMERGENCY_STOP")))
        keep_halt(stop, csp.null_ts(float), path)
        return look(stop, path)

    assert run(graph) == [(T0 + SECOND + timedelta(microseconds=1), True)]


def test_a_journal_that_cannot_be_used_stops_the_run_before_it_trades(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("no journal at all")
    with pytest.raises(JournalError, match="cannot be used"):
        run(lambda: keep_halt(at((1.0, action("EMERGENCY_STOP"))), csp.null_ts(float), str(tmp_path / "j")))


def test_a_run_without_a_stop_leaves_nothing_open(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    run(lambda: keep_halt(csp.null_ts(RiskAction), ticks(1.0), path))
    with Journal(path, create=False) as journal:
        assert journal.open_halt() is None
        assert journal.reset("Ada", datetime(2024, 1, 1)) is None
