"""The command that prints a journal."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from brokers.journal import Journal, KeptFill, KeptOrder
from brokers.show import main

ROOT = Path(__file__).parents[2]
SECOND = 1_700_000_000 * 10**9  # 2023-11-14 22:13:20 UTC


def an_order(number: int, **changed: object) -> KeptOrder:
    values = {
        "client_id": f"tt-r1-{number}",
        "order_id": f"r1-{number}",
        "symbol": "BTC/USDT",
        "side": "BUY",
        "order_type": "LIMIT",
        "quantity": "0.5",
        "limit_price": "100.25",
        "sent_ns": SECOND,
    }
    return KeptOrder(**{**values, **changed})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Journal(tmp_path / "j") as journal:
        journal.begin_run("r1", "paper")
        journal.order_sent(an_order(1))
        journal.order_sent(an_order(2, order_type="STOP", limit_price="0", stop_price="120"))
        journal.order_changed("tt-r1-2", "REJECTED", changed_ns=SECOND, code="filter")
        journal.fill(
            KeptFill(
                symbol="BTC/USDT",
                trade_id="77",
                order_id="r1-1",
                client_id="tt-r1-1",
                side="BUY",
                quantity="0.2",
                price="100.25",
                base_fee="0.0002",
                time_ns=SECOND + 10**9,
            )
        )
        journal.set_baseline("BTC", "1.5")
        journal.save_risk(12_345.6, "2023-11-14", 12_000.0)
    return tmp_path / "j"


def test_it_prints_what_the_journal_holds_while_a_run_has_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(path) as running:
        running.begin_run("r2", "paper")
        assert main([str(path)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "runs: 2"
    assert lines[0].startswith("  r1  paper  ")
    assert lines[1].endswith("not ended: it runs, or was killed")
    assert lines[2:] == [
        "halts: none open, 0 in all",
        "orders that have not ended: 1",
        "  2023-11-14 22:13:20  r1-1  BUY 0.5 BTC/USDT LIMIT limit 100.25 GTC  PARTLY_FILLED, filled 0.2",
        "of the newest orders, ended:",
        "  2023-11-14 22:13:20  r1-2  BUY 0.5 BTC/USDT STOP stop 120 GTC  REJECTED (filter), filled 0",
        "fills: 1",
        "  2023-11-14 22:13:21  r1-1  BUY 0.2 BTC/USDT at 100.25, fee 0.0002 of what was bought, trade 77",
        "positions: 0.1998 BTC/USDT",
        "held beside them, not traded with: 1.5 BTC",
        "equity peak 12,345.60; the day 2023-11-14 began with 12,000.00",
    ]


def test_an_open_halt_is_shown_with_what_ends_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(path) as journal:
        journal.halt("drawdown", "drawdown is 0.4", datetime(2024, 1, 2), value=0.4, limit=0.3, equity=1.0)
    assert main([str(path), "--newest", "1"]) == 0
    out = capsys.readouterr().out
    assert f"HALTED since 2024-01-02 00:00:00: drawdown is 0.4\n  to re-arm it: python -m brokers.reset {path}\n" in out


def test_an_empty_journal_has_nothing_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(tmp_path / "j").close()
    assert main([str(tmp_path / "j")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "runs: none",
        "halts: none open, 0 in all",
        "orders that have not ended: none",
        "fills: none",
        "positions: none",
        "held beside them, not traded with: none",
    ]


def test_no_journal_ends_with_2_and_none_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "brokers.show", str(tmp_path / "j")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"show: journal {tmp_path / 'j'} does not exist\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "9999999999999"])
def test_a_count_that_cannot_be_is_refused(path: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(path), f"--newest={count}"])
    assert stopped.value.code == 2
    assert "want a whole number from 1" in capsys.readouterr().err
