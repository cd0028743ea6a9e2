"""The main job end to end, on the real sample data."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from market_files import FIRST_BARS

from feeds.synthetic import SyntheticConfig, write
from graphs.cli import backtest_main
from models.checkpoint import read_manifest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "run_backtest.py")]
STREAMS = ("orders", "fills", "alerts", "equity")
QUARTER = ["--quiet", *FIRST_BARS, "--end", "2017-10-01"]


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default config over the first three months of its data."""
    out = tmp_path_factory.mktemp("quarter")
    assert backtest_main([*QUARTER, "--out", str(out)]) == 0
    return out


def test_every_promised_file_is_written(quarter: Path) -> None:
    assert {p.name for p in quarter.iterdir()} == {
        "report.json",
        "report.html",
        "equity.png",
        "ai_signals.parquet",
        "orders.parquet",
        "updates.parquet",
        "fills.parquet",
        "trips.parquet",
        "equity.parquet",
        "alerts.parquet",
        "manifest.json",
    }
    assert pq.read_schema(quarter / "fills.parquet").names == [
        "time", "market_time", "symbol", "side", "quantity", "price", "fee", "order_id", "liquidity",
        "base_fee", "decision_price", "market_price", "half_spread",
    ]  # fmt: skip
    assert pq.read_schema(quarter / "equity.parquet").names == [
        "time", "equity", "cash", "position_value", "gross_exposure",
    ]  # fmt: skip


def test_fills_replayed_by_hand_give_the_final_equity_to_the_cent(quarter: Path) -> None:
    fills = pq.read_table(quarter / "fills.parquet").to_pylist()
    assert len(fills) > 20
    cash, position = Decimal(100_000), Decimal(0)
    for fill in fills:
        sign = 1 if fill["side"] == "BUY" else -1
        quantity, price = Decimal(repr(fill["quantity"])), Decimal(repr(fill["price"]))
        cash -= sign * quantity * price + Decimal(repr(fill["fee"]))
        position += sign * quantity
    bars = pq.read_table(ROOT / "feeds/sample/btc_usd_1h_2017-2019.parquet").to_pylist()
    # The last bar that was known at the end opened an hour before it.
    last = next(bar["close"] for bar in bars if bar["open_time"] == datetime(2017, 9, 30, 23))
    report = json.loads((quarter / "report.json").read_text())
    assert abs(cash + position * Decimal(repr(last)) - Decimal(repr(report["final_equity"]))) < Decimal("0.005")
    assert report["activity"]["fees"]["value"] == pytest.approx(sum(fill["fee"] for fill in fills))


def test_fills_keep_the_rules_of_time(quarter: Path) -> None:
    orders = {o["order_id"]: o["time"] for o in pq.read_table(quarter / "orders.parquet").to_pylist()}
    bars = {b["open_time"]: b for b in pq.read_table(ROOT / "feeds/sample/btc_usd_1h_2017-2019.parquet").to_pylist()}
    for fill in pq.read_table(quarter / "fills.parquet").to_pylist():
        assert orders[fill["order_id"]] <= fill["market_time"] < fill["time"]
        bar = bars[fill["market_time"].replace(tzinfo=None).to_pydatetime()]
        slipped = bar["open"] * (1.0001 if fill["side"] == "BUY" else 0.9999)
        assert fill["price"] == pytest.approx(slipped, abs=0.01)


def test_equity_is_cash_plus_positions_in_every_row(quarter: Path) -> None:
    rows = pq.read_table(quarter / "equity.parquet").to_pylist()
    assert all(abs(r["equity"] - r["cash"] - r["position_value"]) < 1e-6 for r in rows)
    assert rows[0]["equity"] == 100_000.0


def test_the_manifest_tells_what_was_run(quarter: Path) -> None:
    manifest = json.loads((quarter / "manifest.json").read_text())
    data = ROOT / "feeds/sample/btc_usd_1h_2017-2019.parquet"
    assert manifest["data"][0]["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert manifest["config"]["initial_cash"] == 100_000.0
    assert manifest["packages"]["csp"]
    assert manifest["partial"] is False


def test_the_default_run_begins_after_what_its_model_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert backtest_main(["--quiet", "--end", "2019-01-15", "--out", str(out)]) == 0
    asof = pq.read_table(out / "forecasts.parquet")["asof"].to_pylist()
    assert len(asof) > 300
    assert min(asof).replace(tzinfo=None) >= datetime(2019, 1, 1)
    capsys.readouterr()

    assert backtest_main(["--quiet", "--start", "2018-01-01", "--out", str(tmp_path / "seen")]) == 2
    seen = read_manifest(ROOT / "checkpoints" / "demo").training.guard_end
    assert f"would be in sample; start after {seen}; else" in capsys.readouterr().err
    assert not (tmp_path / "seen").exists()


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", "1"), ("b", "2")):
        out = tmp_path / name
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([*COMMAND, *QUARTER, "--out", str(out)], check=True, env=environment, capture_output=True)
        digests.append([hashlib.sha256((out / f"{stream}.parquet").read_bytes()).hexdigest() for stream in STREAMS])
    assert digests[0] == digests[1]


def test_the_streams_are_printed_as_they_tick(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert backtest_main([*FIRST_BARS, "--end", "2017-08-01", "--out", str(tmp_path / "out")]) == 0
    out = capfd.readouterr().out
    for stream in ("final_signals", "orders", "fills", "alerts"):
        assert f" {stream}:" in out
    assert "Buy and hold" in out


def test_ctrl_c_leaves_a_partial_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A year at 100,000 times real time takes 5 minutes: it will not end by itself.
    command = [*COMMAND, "--speed", "100000", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline()  # streams are flowing
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)

    assert run.returncode == 130, errors.decode()
    assert b"the report is marked partial" in errors
    assert b"Traceback" not in errors
    assert json.loads((out / "report.json").read_text())["partial"] is True
    assert json.loads((out / "manifest.json").read_text())["partial"] is True
    assert pq.read_table(out / "equity.parquet").num_rows > 0


def test_a_risk_stop_flattens_and_exits_with_3(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert backtest_main([*QUARTER, "--risk.drawdown-max", "0.01", "--out", str(out)]) == 3
    fills = pq.read_table(out / "fills.parquet").to_pylist()
    assert sum(f["quantity"] if f["side"] == "BUY" else -f["quantity"] for f in fills) == pytest.approx(0.0, abs=1e-9)
    alerts = pq.read_table(out / "alerts.parquet").to_pylist()
    assert [a["source"] for a in alerts if a["level"] == "CRITICAL"] == ["risk_monitor", "risk_filter"]


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ("eur_usd_1h", ["--end", "2017-03-01"]),
        ("googl_1d", []),
        ("es_trades", ["--end", "2013-09-02T04:00:00"]),
    ],
)
def test_the_other_samples_run_unchanged(config: str, window: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert backtest_main(["--config", f"configs/backtest/{config}.toml", "--quiet", *window, "--out", str(out)]) == 0
    assert pq.read_table(out / "fills.parquet").num_rows > 0


SHARED = ROOT.parent / "shared" / "data"


@pytest.mark.skipif(not SHARED.exists(), reason="the developers' market data are not here")
@pytest.mark.parametrize(
    ("config", "data", "symbol"),
    [("stock_1h", "hourly/TSLA_1h.csv.gz", "TSLA"), ("stock_5m", "minute/PEP_5m.csv.gz", "PEP")],
)
def test_local_files_run_with_a_ten_line_config(config: str, data: str, symbol: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["--config", str(ROOT / f"configs/backtest/{config}.toml"), "--data", str(SHARED / data), "--quiet"]
    assert backtest_main([*argv, "--start", "2024-04-01", "--end", "2024-06-01", "--out", str(out)]) in (0, 3)
    assert set(pq.read_table(out / "fills.parquet")["symbol"].to_pylist()) == {symbol}


def test_a_latency_of_a_bar_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "minutes.parquet"
    write(SyntheticConfig(rows=100), data)
    assert backtest_main(["--data", str(data), "--quiet", "--broker.latency-ms", "60000"]) == 2
    assert (
        f"[broker] latency_ms must be below one bar of {data}, which is 1m long, was 60000" in capsys.readouterr().err
    )


def checked(capsys: pytest.CaptureFixture[str], plugin: str) -> tuple[int, str]:
    argv: list[Any] = ["--check-lookahead", *FIRST_BARS, "--end", "2017-09-01", "--signals.plugins", plugin]
    return backtest_main(argv), capsys.readouterr().out


def test_the_check_finds_normalisation_by_whole_series_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = checked(capsys, "leaks:whole_series")
    assert code == 1
    assert "LOOK-AHEAD FOUND: stream signals differs at 2017-07-01" in out


def test_the_check_finds_a_feature_shifted_by_minus_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = checked(capsys, "leaks:shifted")
    assert code == 1
    assert "LOOK-AHEAD FOUND: stream signals differs at 2017-0" in out
    assert "no tick" in out


def test_the_check_passes_what_is_honest(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = checked(capsys, "leaks:honest")
    assert code == 0
    assert "no look-ahead found" in out


def test_a_plugin_brings_in_a_stream_of_its_own(tmp_path: Path) -> None:
    plugin = ["--signals.use", "--signals.plugins", "leaks:brought_in"]
    assert backtest_main(["--quiet", *FIRST_BARS, "--end", "2017-09-01", "--out", str(tmp_path), *plugin]) == 0
    orders = pq.read_table(tmp_path / "orders.parquet").to_pylist()
    assert [order["side"] for order in orders][:1] == ["BUY"]
    assert all(order["time"].replace(tzinfo=None) >= datetime(2017, 8, 1) for order in orders)
