"""Several symbols and several bar lengths in one run."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeds.synthetic import SyntheticConfig, write
from graphs.cli import backtest_main

START = "2024-01-01T00:00:00+00:00"
CONFIG = """
name = "two"
[[feeds]]
path = "{folder}/aaa.parquet"
[[feeds]]
path = "{folder}/bbb.parquet"
[[feeds]]
path = "{folder}/aaa_slow.parquet"
[[instruments]]
symbol = "AAA"
tick = "0.01"
lot = "0.001"
taker_bps = 5.0
[[instruments]]
symbol = "BBB"
tick = "0.01"
lot = "0.001"
taker_bps = 5.0
[signals]
use = ["technical"]
[risk]
var_max = "none"
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write(SyntheticConfig(seed=1, rows=2_000, symbol="AAA", start=START), folder / "aaa.parquet")
    write(SyntheticConfig(seed=2, rows=2_000, symbol="BBB", start=START), folder / "bbb.parquet")
    write(SyntheticConfig(seed=1, rows=33, symbol="AAA", start=START, bar_s=3600.0), folder / "aaa_slow.parquet")
    path = folder / "two.toml"
    path.write_text(CONFIG.format(folder=folder))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_two_symbols_add_up_to_the_cent(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(out)]) == 0

    cash, held = Decimal(100_000), {"AAA": Decimal(0), "BBB": Decimal(0)}
    for fill in rows(out / "fills.parquet"):
        signed = Decimal(repr(fill["quantity"])) * (1 if fill["side"] == "BUY" else -1)
        cash -= signed * Decimal(repr(fill["price"])) + Decimal(repr(fill["fee"]))
        held[fill["symbol"]] += signed
    assert all(sum(f["symbol"] == s for f in rows(out / "fills.parquet")) > 5 for s in held)
    for symbol, quantity in held.items():
        last = rows(config.parent / f"{symbol.lower()}.parquet")[-1]["close"]
        cash += quantity * Decimal(repr(last))
    report = json.loads((out / "report.json").read_text())
    assert abs(cash - Decimal(repr(report["final_equity"]))) < Decimal("0.005")
    assert report["activity"]["gross_exposure"]["value"] > 0.0


def test_marks_of_one_instant_are_one_row(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(out)]) == 0
    times = pq.read_table(out / "equity.parquet")["time"].cast(pa.int64()).to_pylist()
    assert len(set(times)) == len(times)


def test_one_of_two_symbols_alone(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["--config", str(config), "--symbols", "BBB", "--quiet", "--out", str(out)]
    assert backtest_main(argv) == 0
    assert {fill["symbol"] for fill in rows(out / "fills.parquet")} == {"BBB"}


def test_several_symbols_and_lengths_do_not_look_ahead(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert backtest_main(["--config", str(config), "--check-lookahead"]) == 0
    assert "no look-ahead found" in capfd.readouterr().out
