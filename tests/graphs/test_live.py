"""run_live.py as a person meets it: against an exchange on this machine, through the real client."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from exchange_process import KEY, SECRET, exchange_process
from live_process import CONFIG, Live, replayed, state

from brokers.journal import Journal
from feeds.recording import read_manifest
from graphs.flags import ROOT

MARKET = ("--listing.trades-per-s", "60", "--listing.history-s", "400", "--key-env", "LOCAL_EXCHANGE_KEY")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with exchange_process(*MARKET) as address:
        yield address


@pytest.fixture
def live(tmp_path: Path, url: str) -> Iterator[Callable[..., Live]]:
    """Starts runs on the exchange, with a journal of the test's own."""
    started: list[Live] = []

    def start(*flags: str, at: str = url, env: dict[str, str] | None = None) -> Live:
        places = ["--crypto.0.at.url", at, "--venue.at.url", at, "--journal", str(tmp_path / "account.journal")]
        started.append(Live("--config", CONFIG, *places, *flags, env=env))
        return started[-1]

    yield start
    for run in started:
        run.send(signal.SIGKILL)
        run.code()


def test_a_run_at_a_venue_replays_to_the_byte_and_names_what_was_changed(live: Any, tmp_path: Path) -> None:
    record = tmp_path / "recording"
    run = live("--record", str(record))
    run.wait_for(r"fills: ", times=3)
    run.send(signal.SIGINT)
    assert run.code() == 130
    assert "stopping: taking back what works" in run.text

    code, told = replayed(record)
    assert (code, told.splitlines()[-1].split(":")[0]) == (0, "identical"), told
    assert read_manifest(record)["ended"] == "stop"

    # A price changed by hand, well before the first order: what followed from it is no longer what was recorded.
    _change_last_price_of_history(record)
    code, told = replayed(record)
    assert code == 2
    assert re.search(r"error: .*/inputs/warmup-000001\.arrow is not as it was recorded", told), told
    _made_by_another(record)
    code, told = replayed(record, "--allow-changed")
    assert re.search(r"(?m)^run_backtest\.py: WARNING: recorded with code abc, now \S+, csp 0\.0\.1, now [\d.]+$", told)
    assert code == 1
    assert "NOT IDENTICAL" in told
    assert "differs first at row" in told


def _orders(url: str) -> int:
    """How many orders all accounts of the exchange have had."""
    return sum(len(account["orders"]) for account in state(url)["accounts"].values())


def _made_by_another(record: Path) -> None:
    """Have the manifest tell of another version of the code and of a package."""
    manifest = json.loads((record / "manifest.json").read_text())
    manifest["code"], manifest["packages"]["csp"] = "abc", "0.0.1"
    (record / "manifest.json").write_text(json.dumps(manifest))


def _change_last_price_of_history(record: Path) -> None:
    (path,) = (record / "inputs").glob("warmup-*.arrow")
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    halved = pc.divide(table["close"], 2.0)
    changed = table.set_column(table.schema.get_field_index("close"), table.schema.field("close"), halved)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(changed)


def test_a_second_run_goes_on_with_what_the_first_one_held(live: Any, tmp_path: Path) -> None:
    first = live("--duration", "1000")
    first.wait_for(r"fills: BUY")
    first.send(signal.SIGTERM)
    assert first.code() == 130
    held = re.search(r"Positions\s+│ ES/USD (\S+)", first.text)
    assert held is not None, first.text

    record = tmp_path / "second"
    second = live("--duration", "2", "--record", str(record))
    assert second.code() == 0, second.text
    begun = re.search(
        r"begins with \d+ bars of history of ES/USD; orders go to local exchange; held: ES/USD (\S+)", second.text
    )
    assert begun is not None, second.text
    assert float(begun[1]) == pytest.approx(float(held[1]), rel=1e-4)
    opening = json.loads(read_manifest(record)["opening"])
    assert [p["symbol"] for p in opening["positions"]] == ["ES/USD"]
    assert float(opening["positions"][0]["quantity"]) == pytest.approx(float(held[1]), rel=1e-4)
    assert replayed(record)[0] == 0


def test_a_second_request_stops_at_once_and_the_account_is_free_again(live: Any, tmp_path: Path) -> None:
    run = live()
    run.wait_for(r"CONNECTED")
    run.send(signal.SIGINT)
    run.send(signal.SIGINT)
    assert run.code() == 130
    with Journal(tmp_path / "account.journal") as journal:
        journal.begin_run("after", "local exchange test")  # the lock was let go


def test_a_run_that_may_not_trade_says_so_when_it_begins(live: Any, tmp_path: Path) -> None:
    with Journal(tmp_path / "account.journal") as journal:
        journal.begin_run("before", "local exchange test")
        journal.halt("drawdown", "too deep", datetime(2026, 1, 1), value=0.5, limit=0.3, equity=1.0)
    run = live("--warmup-bars", "10")
    run.wait_for("trading is HALTED from the start: nobody has reset an earlier stop, 2026-01-01 00:00:00: too deep")
    run.send(signal.SIGKILL)


def test_a_dry_run_shows_orders_and_sends_none(live: Any, url: str, tmp_path: Path) -> None:
    before = _orders(url)
    run = live("--dry-run")
    run.wait_for(r"orders: BUY \d+ ES/USD")
    run.send(signal.SIGINT)
    assert run.code() == 130
    assert _orders(url) == before
    assert "orders go to nowhere, this is a dry run" in run.text
    assert re.search(r"Orders\s+│ \d+, refused 0, none sent", run.text)
    assert not (tmp_path / "account.journal").exists()


def test_what_cannot_be_reached_is_told_in_one_line_and_tried_on(live: Any) -> None:
    run = live(at="http://127.0.0.1:9")
    run.wait_for(r"trying again until it works, Ctrl-C stops")
    run.send(signal.SIGINT)
    assert run.code() == 130
    assert "Traceback" not in run.text
    assert len(run.text.splitlines()) <= 3, run.text


def test_impatience_changes_neither_the_exit_code_nor_what_is_said(live: Any) -> None:
    run = live(at="http://127.0.0.1:9")
    run.wait_for(r"trying again until it works, Ctrl-C stops")
    run.send(signal.SIGINT)
    run.wait_for(r"interrupted")
    while not run.ended:
        run.send(signal.SIGINT)
        time.sleep(0.001)  # between two key strokes
    assert run.code() == 130
    assert run.text.splitlines()[-1] == "run_live.py: interrupted"


def test_no_secret_leaves_the_environment(live: Any, tmp_path: Path) -> None:
    record = tmp_path / "recording"
    run = live("--record", str(record))
    run.wait_for(r"fills: ")
    run.send(signal.SIGINT)
    run.code()
    wrong = live(env={"LOCAL_EXCHANGE_SECRET": SECRET + "-wrong"})  # what is refused is told, and not with what
    assert wrong.code() == 2
    for text in (run.text, wrong.text):
        assert SECRET not in text
        assert KEY not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert SECRET.encode() not in held, path
            assert KEY.encode() not in held, path


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--orders", "bank"], "orders must be one of paper, venue, was 'bank'"),
        (["--duration", "0"], "--duration must lie in (0, 1e9) seconds, was 0.0"),
        (["--config", "configs/backtest/es_trades.toml"], "is one of run_backtest.py: python run_backtest.py --config"),
        (["--live-money", "--dry-run"], "--live-money and --dry-run exclude each other"),
        (["--live-money"], "this config sends orders to no venue with real money"),
        (["--crypto.0.symbols", "ES/USB"], "ES/USB: binance has no such market; did you mean ES/USD?"),
        (["--record", str(ROOT / "docs")], "must be new or empty, it holds"),
        (["--venue.at.url", "", "--venue.at.exchange", "okx"], "orders would go to okx with real money"),
        (["--venue.at.url", "", "--live-money"], "not confirmed: nothing was sent"),
        (
            ["--venue.at.url", "", "--venue.at.exchange", "kraken"],
            "by ids of ours: binance, binanceus, gate, kucoin, okx, was 'kraken'; its feeds can be traded on paper",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(live: Any, flags: list[str], message: str) -> None:
    run = live(*flags)
    assert run.code() == 2
    assert message in " ".join(run.text.split()), run.text
    assert "Traceback" not in run.text


def test_an_account_is_of_one_run_at_a_time(live: Any) -> None:
    first = live()
    first.wait_for(r"CONNECTED")
    second = live()
    assert second.code() == 2
    assert "an account has one run at a time" in second.text
    first.send(signal.SIGINT)
    assert first.code() == 130


def test_paper_restarts_with_its_books(live: Any, tmp_path: Path) -> None:
    first = live("--orders", "paper")
    first.wait_for(r"fills: BUY")
    first.send(signal.SIGINT)
    assert first.code() == 130
    with Journal(tmp_path / "account.journal") as journal:
        held = journal.positions()["ES/USD"]
    record = tmp_path / "second"
    second = live("--orders", "paper", "--duration", "1", "--record", str(record))
    assert second.code() == 0, second.text
    opening = json.loads(read_manifest(record)["opening"])
    quantities = {p["symbol"]: float(p["quantity"]) for p in opening["positions"]}
    assert quantities.get("ES/USD", 0.0) == float(held)
