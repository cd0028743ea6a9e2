"""How a person stops a live run."""

import io
import signal
import sys
from datetime import datetime
from pathlib import Path

import pytest

from graphs.live import LivePlan
from graphs.live_cli import Stopper, _report, _Stderr
from graphs.live_config import LiveConfig
from graphs.live_outcome import LiveOutcome
from graphs.live_plan import trading_of


def test_a_request_that_the_engine_cannot_hear_yet_is_not_lost() -> None:
    # SIGTERM comes once. Between the call of csp.run and the start of its adapters a tick would be dropped.
    stopper = Stopper()
    stopper.edge()
    stopper.running = True
    with pytest.raises(KeyboardInterrupt):
        stopper._heard(signal.SIGTERM, None)


@pytest.mark.parametrize(
    ("ours", "said"), [(True, "replay: run_backtest.py --replay '/a b'"), (False, "recorded: /a b")]
)
def test_a_replay_is_offered_only_where_it_can_be(ours: bool, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = LiveConfig()
    plan = LivePlan(config=config, trading=trading_of(config, ()), run_id="r", start=datetime(2026, 1, 1))
    _report(plan, LiveOutcome(), Path("/a b"), ours=ours)
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_logs_go_to_stderr_as_it_is_and_a_closed_one_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, read = _Stderr(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", read)
    logs.write("told\n")
    logs.flush()
    assert read.getvalue() == "told\n"

    read.close()

    logs.write("to nobody")
    logs.flush()
