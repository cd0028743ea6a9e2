"""An emergency stop ends trading, in the run and after a restart, until a person resets it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from market_files import FIRST_BARS

from graphs.cli import backtest_main

ROOT = Path(__file__).resolve().parents[2]
# The first three months of the default config's data; its drawdown passes 3 % within them.
TIGHT = ["--quiet", *FIRST_BARS, "--end", "2017-10-01", "--risk.drawdown-max", "0.03"]


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def reset(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brokers.reset", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_after_a_stop_nothing_is_ordered_in_the_run_nor_after_a_restart_until_a_person_resets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = str(tmp_path / "account.journal")
    command = [*TIGHT, "--journal", journal]

    assert backtest_main([*command, "--out", str(tmp_path / "first")]) == 3
    told = capsys.readouterr().err
    assert "risk halted trading: drawdown was 0.03" in told
    assert f"python -m brokers.reset {journal}" in told
    (stop,) = [a for a in rows(tmp_path / "first" / "alerts.parquet") if a["message"].startswith("EMERGENCY_STOP")]
    orders = rows(tmp_path / "first" / "orders.parquet")
    assert orders
    late = [order for order in orders if order["time"] > stop["time"]]
    assert late == []  # what closes the position is sent in the instant of the stop
    fills = rows(tmp_path / "first" / "fills.parquet")
    assert sum(f["quantity"] if f["side"] == "BUY" else -f["quantity"] for f in fills) == pytest.approx(0.0, abs=1e-9)

    assert backtest_main([*command, "--out", str(tmp_path / "second")]) == 3
    assert "trading was halted from the start: in an earlier run drawdown was 0.03" in capsys.readouterr().err
    assert rows(tmp_path / "second" / "fills.parquet") == []
    refused = [u for u in rows(tmp_path / "second" / "updates.parquet") if u["state"] == "REJECTED"]
    wanted = rows(tmp_path / "second" / "orders.parquet")
    assert wanted
    assert [u["order_id"] for u in refused] == [o["order_id"] for o in wanted]
    assert {u["code"] for u in refused} == {"halted"}

    done = reset(journal, "--yes", "--by", "Ada", "--note", "limit was too tight")
    assert (done.returncode, done.stderr) == (0, "")
    assert "why     drawdown" in done.stdout
    assert "re-armed by Ada" in done.stdout

    assert backtest_main([*command, "--out", str(tmp_path / "third")]) == 3  # it falls through the limit again
    assert (tmp_path / "third" / "fills.parquet").read_bytes() == (tmp_path / "first" / "fills.parquet").read_bytes()


def test_without_a_journal_a_stop_ends_with_its_run(tmp_path: Path) -> None:
    assert backtest_main([*TIGHT, "--out", str(tmp_path / "first")]) == 3
    assert backtest_main([*TIGHT, "--out", str(tmp_path / "second")]) == 3
    assert rows(tmp_path / "second" / "fills.parquet")


def test_a_daily_loss_stops_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--quiet", *FIRST_BARS, "--end", "2017-10-01", "--risk.daily-loss-max", "0.02"]
    assert backtest_main([*command, "--out", str(tmp_path / "out")]) == 3
    assert "risk halted trading: daily_loss was 0.02" in capsys.readouterr().err


def test_a_frozen_account_keeps_its_position(tmp_path: Path) -> None:
    command = [*TIGHT, "--risk.no-flatten", "--out", str(tmp_path / "out")]
    assert backtest_main(command) == 3
    (stop,) = [a for a in rows(tmp_path / "out" / "alerts.parquet") if a["message"].startswith("EMERGENCY_STOP")]
    fills = rows(tmp_path / "out" / "fills.parquet")
    assert [f for f in fills if f["time"] > stop["time"]] == []
    assert abs(sum(f["quantity"] if f["side"] == "BUY" else -f["quantity"] for f in fills)) > 0.0


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy low, sell high\n" * 100)
    assert backtest_main(["--quiet", "--journal", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "notes.txt cannot be used: file is not a database" in capsys.readouterr().err
    assert path.read_text().startswith("buy low")


def test_a_journal_that_cannot_be_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backtest_main(["--quiet", "--journal", str(tmp_path)]) == 2
    assert f"the journal {tmp_path} is a folder; name a file in it" in capsys.readouterr().err
    assert backtest_main(["--quiet", "--journal", str(tmp_path / "no" / "j")]) == 2
    assert f"the folder {tmp_path / 'no'} of the journal j does not exist" in capsys.readouterr().err


def test_a_run_whose_orders_were_all_refused_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--quiet", *FIRST_BARS, "--end", "2017-08-15", "--risk.order-notional-max", "1"]
    assert backtest_main([*command, "--out", str(tmp_path / "out")]) == 0
    refused = len(rows(tmp_path / "out" / "orders.parquet"))
    assert refused
    assert f"note: {refused} of {refused} orders were refused: order_notional {refused}" in capsys.readouterr().err


def test_what_a_short_position_costs_is_in_the_report(tmp_path: Path) -> None:
    command = ["--quiet", *FIRST_BARS, "--end", "2017-09-01", "--instruments.0.borrow-bps", "300"]
    assert backtest_main([*command, "--out", str(tmp_path / "out")]) == 0
    flows = rows(tmp_path / "out" / "flows.parquet")
    assert flows
    assert all(flow["kind"] == "borrow" and flow["amount"] < 0.0 for flow in flows)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (symbol,) = report["by_symbol"]
    assert symbol["carry"] == pytest.approx(sum(flow["amount"] for flow in flows), abs=1e-9)
    assert symbol["profit"] == pytest.approx(report["final_equity"] - report["initial_cash"], abs=1e-6)


def test_a_background_job_does_not_hear_an_interrupt_that_its_shell_ignores(tmp_path: Path) -> None:
    flags = [*FIRST_BARS, "--end", "2017-10-01", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "run_backtest.py"), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline()  # streams are flowing
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors.decode()
    assert (tmp_path / "out" / "report.json").exists()
