"""What the report and the manifest of a run say of its price models: what they had seen, and how well they foretold."""

import json
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from price_checkpoint import make_checkpoint
from tokenizer_bars import HOUR_NS, MONDAY_NS, walk

from configs.load import load
from feeds.instruments import Instrument
from feeds.recording import write_manifest
from graphs.backtest import Outcome, plan
from graphs.cli import backtest_main
from graphs.config import BacktestConfig
from graphs.live import LivePlan
from graphs.live_config import LiveConfig
from graphs.live_plan import trading_of
from graphs.live_run import manifest, other_versions
from graphs.seen import in_sample, price_model
from models.checkpoint import read_manifest
from nodes.forecast import ForecastConfig

BARS = 400
WARM = 32  # bars before the first token
FILES = ("report.json", "report.html", "equity.png")

_CONFIG = """
name = "seen"
bar = "1h"
{feed}
[forecast]
checkpoints = ["{checkpoint}"]
[signals]
use = ["technical"]
[signals.technical]
enabled = ["ema_cross"]
[risk]
drawdown_max = 0.9
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one")


def config_of(folder: Path, checkpoint: Path, *, trades: bool = False, bar_s: int = 3_600) -> Path:
    """A random walk, as bars or as four trades an hour that make the same closes, and a config over it."""
    bars = walk(BARS)
    opened = MONDAY_NS + bar_s * 10**9 * np.arange(BARS)
    path = folder / f"{'trades' if trades else 'bars'}.parquet"
    if trades:
        quarters = np.array([0, HOUR_NS // 3, HOUR_NS // 2, HOUR_NS - 1])
        price = np.stack([bars.open, bars.high, bars.low, bars.close], axis=1).ravel()
        times = (opened[:, None] + quarters).ravel()
        made = {"time": pa.array(times, pa.timestamp("ns")), "price": price, "size": np.ones(len(price))}
        words = 'kind = "trades"'
    else:
        made = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
        made = {"open_time": pa.array(opened, pa.timestamp("ns"))} | made
        words = f'bar = "{ {3_600: "1h", 1_800: "30m"}[bar_s] }"'
    pq.write_table(pa.table(made), path)
    feed = f'[[feeds]]\npath = "{path}"\nsymbol = "X"\ntime_zone = "UTC"\n{words}\n'
    config = folder / "config.toml"
    config.write_text(_CONFIG.format(feed=feed, checkpoint=checkpoint))
    return config


def backtest(config: Path, out: Path, *flags: str) -> dict[str, Any]:
    """report.json of a run."""
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(out), *flags]) == 0
    document: dict[str, Any] = json.loads((out / "report.json").read_text())
    return document


def test_a_run_after_the_training_says_so_and_judges_every_forecast(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = backtest(config_of(tmp_path, checkpoint), tmp_path / "out")

    told = document["price_model"]
    digest = read_manifest(checkpoint).digest
    training = {"start": "2017-01-01T00:00:00Z", "end": "2017-06-30T00:00:00Z", "embargo_end": "2017-07-01T00:00:00Z"}
    assert told["checkpoints"] == [{"name": str(checkpoint), "digest": digest, "training": training}]
    assert told["ewma_halflife_bars"] == 32.0
    assert told["all"]["bars"] == BARS - WARM - 1  # the last bar's forecast is of none
    assert told["all"]["verdict"] in ("no edge", "worse")  # random weights
    assert document["in_sample"] == []
    said = "trained on 1 January 2017 to 30 June 2017, with an embargo to 1 July 2017; this run begins after it."
    assert said in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert said in page
    assert f"digest {digest}" in page
    assert "<h2>Forecasts</h2>" in page
    assert "<h2>Realised against target volatility</h2>" in page
    assert "in sample)" not in page
    kept = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert kept["checkpoints"] == {str(checkpoint): digest}
    assert kept["packages"]["torch"] == version("torch")


def test_what_was_trained_on_is_marked_and_shaded_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = make_checkpoint(tmp_path / "seen", start=datetime(2023, 1, 1), end=datetime(2024, 1, 3))

    document = backtest(config_of(tmp_path, seen), tmp_path / "out", "--allow-in-sample")

    assert document["in_sample"] == [{"start": "2024-01-01T01:00:00Z", "end": "2024-01-04T00:00:00Z"}]
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("seen (in sample)")
    assert "IN SAMPLE. The part from 1 January 2024 to 4 January 2024 is what a price model was trained on" in text
    assert "from 1 January 2024, 01:00 to 4 January 2024, 00:00 this run is in sample." in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<p class="banner" role="status"><strong>In sample.</strong>' in page
    for title in ("Return and risk", "Trading", "Forecasts", "Realised against target volatility"):
        assert f"{title} (in sample)" in page
    payload = json.loads(page.split('id="payload">')[1].split("</script>")[0])
    (shade,) = [shape for shape in payload["figures"]["equity"]["layout"]["shapes"] if shape["type"] == "rect"]
    assert (shade["x0"], shade["x1"]) == ("2024-01-01 01:00:00", "2024-01-04 00:00:00")


def test_without_the_model_the_volatility_target_is_still_compared(checkpoint: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint)

    on = backtest(config, tmp_path / "on")
    off = backtest(config, tmp_path / "off", "--forecast.no-enabled")

    assert off["price_model"] is None
    assert off["facts"]["Price model"] == "off"
    assert "Price model" not in on["facts"]
    for document, by in ((on, "forecast"), (off, "realised")):
        (strategy,) = document["volatility_target"]["strategies"]
        assert strategy == {"strategy": "main", "target": 0.2, "allocation": 1.0, "by": by}
        assert document["volatility_target"]["in_market"]["value"] > 0.0
    assert on["volatility_target"]["realised"] != off["volatility_target"]["realised"]
    assert json.loads((tmp_path / "off" / "manifest.json").read_text())["checkpoints"] == {}


def test_another_sizing_has_no_target(checkpoint: Path, tmp_path: Path) -> None:
    document = backtest(config_of(tmp_path, checkpoint), tmp_path / "out", "--sizing.mode", "fraction")

    assert document["volatility_target"] is None


def test_a_model_of_other_bars_is_not_said_to_have_spoken(checkpoint: Path, tmp_path: Path) -> None:
    document = backtest(config_of(tmp_path, checkpoint, bar_s=1_800), tmp_path / "out")

    assert document["price_model"] is None
    told = f"not used: no symbol has bars of 1h, on which {checkpoint} was trained"
    assert document["facts"]["Price model"] == told


def test_bars_built_from_trades_are_judged_as_the_same_bars_from_a_file(checkpoint: Path, tmp_path: Path) -> None:
    folders = {}
    for kind in (False, True):
        (tmp_path / str(kind)).mkdir()
        folders[kind] = config_of(tmp_path / str(kind), checkpoint, trades=kind)
    closes = {}
    for kind, path in folders.items():
        planned = plan(load(BacktestConfig, path))
        model = price_model(planned, Outcome(reached=planned.end), tmp_path)
        assert model is not None
        closes[kind] = model.closes["X"]
    assert [len(times) for times, _ in closes.values()] == [BARS, BARS]
    for of_trades, of_file in zip(closes[True], closes[False], strict=True):
        np.testing.assert_array_equal(of_trades, of_file)
    document = backtest(folders[True], tmp_path / "out")
    assert document["price_model"]["all"]["bars"] == BARS - WARM - 1


def test_the_same_run_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint)
    for name in "ab":
        backtest(config, tmp_path / name)

    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_parts_in_sample_are_joined_and_end_with_the_run() -> None:
    day = [datetime(2024, 1, 1) + timedelta(days=n) for n in range(10)]
    parts: Any = SimpleNamespace(in_sample=((day[4], day[6]), (day[0], day[2]), (day[1], day[3]), (day[8], day[9])))

    assert in_sample(parts, Outcome(reached=day[5])) == ((day[0], day[3]), (day[4], day[5]))


def test_a_recording_names_its_checkpoints_and_a_replay_tells_where_they_differ(
    checkpoint: Path, tmp_path: Path
) -> None:
    gone = make_checkpoint(tmp_path / "gone", seed=1)
    config = LiveConfig(forecast=ForecastConfig(checkpoints=(str(checkpoint), str(gone))))
    trading = trading_of(config, (Instrument(symbol="X"),))
    kept = manifest(LivePlan(config=config, trading=trading, run_id="r", start=datetime(2024, 1, 1)))
    digest = read_manifest(checkpoint).digest
    assert kept["checkpoints"] == {str(checkpoint): digest, str(gone): read_manifest(gone).digest}
    assert kept["packages"]["torch"] == version("torch")
    write_manifest(tmp_path, kept)
    assert other_versions(tmp_path) == ""

    (gone / "manifest.json").unlink()
    write_manifest(tmp_path, kept | {"checkpoints": kept["checkpoints"] | {str(checkpoint): "0" * 64}})

    assert other_versions(tmp_path) == (
        f"checkpoint {checkpoint} {'0' * 64}, now {digest}, checkpoint {gone} {kept['checkpoints'][str(gone)]},"
        " now cannot be read"
    )
    write_manifest(tmp_path, {name: value for name, value in kept.items() if name != "checkpoints"})
    assert other_versions(tmp_path) == ""
