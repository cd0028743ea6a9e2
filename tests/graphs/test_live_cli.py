"""How a person stops a live run."""

import io
import re
import signal
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from brokers.opening import Note, Opening
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


def test_once_it_was_asked_no_further_signal_ends_the_process_in_another_way() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        stopper = Stopper()
        with stopper.listening():
            pass
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt), stopper.listening():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # while it says "interrupted", and while the interpreter ends
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_what_the_start_found_counts_among_the_alerts(capsys: pytest.CaptureFixture[str]) -> None:
    config = LiveConfig()
    notes = (
        Note(code="balance_differs", symbol="", message="less than there should be", level="CRITICAL"),
        Note(code="order_adopted", symbol="A", message="works on"),
    )
    opening = Opening(cash="0", notes=notes)
    plan = LivePlan(
        config=config, trading=trading_of(config, ()), run_id="r", start=datetime(2026, 1, 1), opening=opening
    )
    _report(plan, LiveOutcome(alerts=Counter(INFO=2)), None, ours=True)
    assert re.search(r"Alerts +│ 1 CRITICAL, 3 INFO ", capsys.readouterr().out)


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
