"""Price models in the graph: forecasts come with the bars, change what is traded, and fail without stopping it."""

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csp import ts
from price_checkpoint import make_checkpoint
from tokenizer_bars import MONDAY_NS, walk

from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar
from feeds.instruments import Instrument
from feeds.record import ReplayedInputs
from graphs.cli import backtest_main
from graphs.config import SignalsConfig, StrategyConfig, TradingConfig
from graphs.edges import Feeds
from graphs.trading import trading_system
from models.checkpoint import MANIFEST
from nodes.events import Signal
from nodes.forecast import LEVELS, ForecastConfig
from nodes.price_model import PriceModel
from nodes.since import since_live
from nodes.sizing import SizingConfig

BARS = 400
WARM = 32  # bars before the first token
HOUR = timedelta(hours=1)
MONDAY = datetime(2024, 1, 1)

_CONFIG = """
name = "forecast"
{feeds}
[forecast]
checkpoints = [{checkpoints}]
[signals]
use = ["technical", "forecast"]
[signals.technical]
enabled = ["ema_cross"]
[sizing]
change_min = 0.1
[risk]
drawdown_max = 0.9
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one")


def market(folder: Path, symbol: str, *, seed: int = 0, bar_s: int = 3_600) -> str:
    """A random walk as a file, and what a config says of it."""
    bars = walk(BARS, seed=seed)
    opened = MONDAY_NS + bar_s * 10**9 * np.arange(BARS)
    table = pa.table(
        {
            "open_time": pa.array(opened, pa.timestamp("ns")),
            **{name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")},
        }
    )
    path = folder / f"{symbol}.parquet"
    pq.write_table(table, path)
    bar = {3_600: "1h", 1_800: "30m"}[bar_s]
    return f'[[feeds]]\npath = "{path}"\nsymbol = "{symbol}"\ntime_zone = "UTC"\nbar = "{bar}"\n'


def write_config(folder: Path, feeds: Sequence[str], *checkpoints: Path) -> Path:
    path = folder / "config.toml"
    named = ", ".join(f'"{each}"' for each in checkpoints)
    path.write_text(_CONFIG.format(feeds="".join(feeds), checkpoints=named))
    return path


def backtest(config: Path, out: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    """The streams of a run, by file."""
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(out), *flags]) == code
    return {path.stem: pq.read_table(path) for path in out.glob("*.parquet")}


def alerts(streams: dict[str, Any]) -> list[str]:
    table = streams["alerts"]
    return [row["message"] for row in table.to_pylist() if row["source"] == "forecast"]


def test_every_bar_after_the_warm_up_has_a_forecast_of_the_next(checkpoint: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, [market(tmp_path, "X")], checkpoint)

    streams = backtest(config, tmp_path / "out")

    rows = streams["forecasts"].to_pylist()
    assert len(rows) == BARS - WARM
    closes = [MONDAY + (i + 1) * HOUR for i in range(WARM, BARS)]
    assert [row["asof"].replace(tzinfo=None) for row in rows] == closes
    asked = [row["time"].replace(tzinfo=None).to_pydatetime() - close for row, close in zip(rows, closes, strict=True)]
    assert set(asked) == {timedelta(microseconds=1)}  # the latency of the config
    quantiles = np.array([[row[f"q{level * 100:02.0f}"] for level in LEVELS] for row in rows])
    assert (np.diff(quantiles, axis=1) >= 0.0).all()
    assert all(row["volatility"] > 0.0 and 0.0 <= row["probability_up"] <= 1.0 for row in rows)
    assert np.isnan(rows[0]["surprise"])
    assert not np.isnan([row["surprise"] for row in rows[1:]]).any()


def test_orders_differ_with_and_without_the_model(checkpoint: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, [market(tmp_path, "X")], checkpoint)

    on = backtest(config, tmp_path / "on")
    off = backtest(config, tmp_path / "off", "--forecast.no-enabled")

    assert on["orders"].num_rows > 5
    assert not on["orders"].equals(off["orders"])
    assert "forecasts" not in off


def test_two_runs_give_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    feeds = [market(tmp_path, "X"), market(tmp_path, "Y", seed=1)]
    config = write_config(tmp_path, feeds, checkpoint)
    backtest(config, tmp_path / "a")
    backtest(config, tmp_path / "b")
    for name in ("forecasts", "orders", "fills", "equity", "alerts"):
        assert (tmp_path / "a" / f"{name}.parquet").read_bytes() == (tmp_path / "b" / f"{name}.parquet").read_bytes()


def test_symbols_that_close_together_are_forecast_as_each_alone(checkpoint: Path, tmp_path: Path) -> None:
    feeds = [market(tmp_path, "X"), market(tmp_path, "Y", seed=1)]
    both = backtest(write_config(tmp_path, feeds, checkpoint), tmp_path / "both")["forecasts"].to_pylist()
    for symbol, feed in zip("XY", feeds, strict=True):
        alone = backtest(write_config(tmp_path, [feed], checkpoint), tmp_path / symbol)["forecasts"].to_pylist()
        mine = [row for row in both if row["symbol"] == symbol]
        assert [row["asof"] for row in mine] == [row["asof"] for row in alone]
        assert [row["volatility"] for row in mine] == pytest.approx([row["volatility"] for row in alone], rel=1e-5)


def test_the_model_sees_no_future(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, [market(tmp_path, "X")], checkpoint)

    assert backtest_main(["--config", str(config), "--check-lookahead"]) == 0

    assert "no look-ahead found" in capsys.readouterr().out


def test_a_window_that_the_model_has_seen_is_refused_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = make_checkpoint(tmp_path / "seen", start=datetime(2023, 1, 1), end=datetime(2024, 1, 3))
    config = write_config(tmp_path, [market(tmp_path, "X")], seen)

    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 2

    told = capsys.readouterr().err
    assert "was trained from 2023-01-01 00:00:00 to 2024-01-04 00:00:00" in told  # embargo of 24 bars included
    assert "; start after 2024-01-04 00:00:00; else --allow-in-sample" in told
    assert not (tmp_path / "out").exists()
    backtest(config, tmp_path / "later", "--start", "2024-01-04T00:00:01")
    backtest(config, tmp_path / "allowed", "--allow-in-sample")


def test_a_model_of_unknown_training_is_in_sample_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = make_checkpoint(tmp_path / "unknown", start=None, end=None)
    config = write_config(tmp_path, [market(tmp_path, "X")], unknown)

    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 2

    assert "was trained on data of unknown times" in capsys.readouterr().err


def test_bars_of_another_length_run_without_a_forecast_and_one_alert_says_so(checkpoint: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, [market(tmp_path, "X", bar_s=1_800), market(tmp_path, "Y")], checkpoint)

    streams = backtest(config, tmp_path / "out")

    assert {row["symbol"] for row in streams["forecasts"].to_pylist()} == {"Y"}
    assert alerts(streams)[0] == "no forecast for X: bars of 30m, the checkpoint was trained on bars of 1h"
    assert sum(text.startswith("no forecast") for text in alerts(streams)) == 1
    none = write_config(tmp_path, [market(tmp_path, "X", bar_s=1_800)], checkpoint)
    assert "forecasts" not in backtest(none, tmp_path / "none")


def test_a_window_seen_at_another_bar_length_is_no_matter(tmp_path: Path) -> None:
    seen = make_checkpoint(tmp_path / "seen", start=datetime(2023, 1, 1), end=datetime(2025, 1, 3))
    config = write_config(tmp_path, [market(tmp_path, "X", bar_s=1_800)], seen)
    backtest(config, tmp_path / "out")


def test_several_checkpoints_are_one_line_of_the_config(checkpoint: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", seed=1)
    feed = market(tmp_path, "X")
    told = {
        name: backtest(write_config(tmp_path, [feed], *folders), tmp_path / f"out-{name}")["forecasts"]["mean"]
        for name, folders in (("one", [checkpoint]), ("two", [other]), ("both", [checkpoint, other]))
    }
    both = 0.5 * (told["one"].to_numpy() + told["two"].to_numpy())
    assert told["both"].to_numpy() == pytest.approx(both, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("form", "near"), [("onnx", 1e-4), ("onnx-w8", 0.02)])
def test_an_exported_form_forecasts_what_the_eager_one_does(
    checkpoint: Path, tmp_path: Path, form: str, near: float
) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'ticktorch[export]'")
    config = write_config(tmp_path, [market(tmp_path, "X"), market(tmp_path, "Y", seed=1)], checkpoint)

    eager, told = (
        backtest(config, tmp_path / name, "--forecast.form", name)["forecasts"].to_pylist() for name in ("eager", form)
    )

    assert [(row["symbol"], row["asof"]) for row in told] == [(row["symbol"], row["asof"]) for row in eager]
    assert any(one["volatility"] != other["volatility"] for one, other in zip(eager, told, strict=True))
    for name in ("volatility", "entropy", "q05", "q95"):
        found, wanted = (np.array([row[name] for row in rows]) for rows in (told, eager))
        # To rounding in fp32; with 8 bits, as far as the weights are off, of which the worst bar has three times more.
        assert np.abs(found / wanted - 1.0).mean() < near
        assert np.abs(found / wanted - 1.0).max() < 10.0 * near


def test_a_form_whose_package_is_missing_is_a_sentence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [market(tmp_path, "X")], checkpoint)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    flags = ["--config", str(config), "--quiet", "--out", str(tmp_path / "out"), "--forecast.form", "onnx"]

    assert backtest_main(flags) == 2

    told = capsys.readouterr().err
    assert "[forecast] form: an exported form needs the package onnxruntime" in told
    assert told.count("\n") == 1


def test_a_model_that_fails_is_an_alert_and_trading_goes_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, [market(tmp_path, "X")], checkpoint)
    predict = PriceModel.predict

    def broken(self: PriceModel, requests: Any) -> Any:
        if MONDAY + 100 * HOUR < requests[0].asof <= MONDAY + 200 * HOUR:
            raise RuntimeError("out of memory")
        return predict(self, requests)

    monkeypatch.setattr(PriceModel, "predict", broken)
    streams = backtest(config, tmp_path / "out")

    assert streams["forecasts"].num_rows == BARS - WARM - 100
    failed = [row for row in streams["alerts"].to_pylist() if "out of memory" in row["message"]]
    assert failed[0]["message"] == "forecast failed: RuntimeError: out of memory"
    assert {row["level"] for row in failed} == {"WARNING"}
    times = [row["time"].replace(tzinfo=None) for row in streams["orders"].to_pylist()]
    assert any(MONDAY + 101 * HOUR < when < MONDAY + 200 * HOUR for when in times)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "is no checkpoint: it has no manifest.json"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b""), "weights.safetensors"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, message: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    spoil(folder)
    config = write_config(tmp_path, [market(tmp_path, "X")], folder)

    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 2

    told = capsys.readouterr().err
    assert told.startswith("run_backtest.py: error: [forecast] checkpoints: ")
    assert message in told
    assert told.count("\n") == 1


# --- a run that begins with history ---


class Silent(ReplayedInputs):
    """A replay in which no model said anything."""

    def edge(self, name: str, kind: type, make: Any) -> Any:
        return csp.null_ts(kind)


def from_history(forecast: ForecastConfig, *, history: int = 30, length: timedelta = HOUR) -> dict[str, Any]:
    """Streams of a run that goes live in the middle of a bar after `history` bars; an opinion is there before."""
    series = walk(history + 3)
    names = ("open", "high", "low", "close", "volume")
    bars = [
        Bar(
            symbol="X",
            event_time=MONDAY + (i + 1) * length,
            open_time=MONDAY + i * length,
            **{name: float(getattr(series, name)[i]) for name in names},
        )
        for i in range(len(series))
    ]
    trading = TradingConfig(
        instruments=(Instrument(symbol="X", tick="0.01", lot="0.01"),),
        strategies=(
            StrategyConfig(
                name="main",
                signals=SignalsConfig(use=()),
                sizing=SizingConfig(volatility_window=24, confidence_min=0.0),
            ),
        ),
        forecast=forecast,
    )

    def opinion(bar: ts[Bar], symbol: str, feeds: Feeds) -> ts[Signal]:
        when = MONDAY + (history - 1) * length
        said = Signal(symbol=symbol, source="mine", score=1.0, confidence=1.0, horizon_s=1e9, asof=when)
        return csp.curve(Signal, [(when, said)])

    def graph() -> None:
        bar = csp.curve(Bar, [(each.event_time, each) for each in bars])
        live = csp.curve(bool, [(MONDAY + (history + 0.5) * length, True)])
        feeds = Feeds(
            bars={"X": bar},
            bar_lengths={"X": length},
            live=live,
            marks={"X": since_live(bar.close, live)},
            inputs=Silent(Path("nowhere")),
        )

        def venue(order: Any, cancel: Any) -> Any:
            return paper_venue(order, cancel, Market(bars=feeds.bars), trading.instruments, PaperConfig())

        streams = trading_system(feeds, venue, trading, run_id="r", plugins={"main": (opinion,)})
        csp.add_graph_output("targets", streams.targets)
        csp.add_graph_output("alerts", streams.alerts)

    return csp.run(graph, starttime=MONDAY, endtime=bars[-1].event_time)


@pytest.mark.parametrize("volatility_of", ["forecast", "realised"])
def test_the_first_live_position_is_sized_by_the_volatility_of_history(checkpoint: Path, volatility_of: str) -> None:
    forecast = ForecastConfig(enabled=volatility_of == "forecast", checkpoints=(str(checkpoint),))

    (first, *_) = from_history(forecast)["targets"]

    assert first[0] == MONDAY + 30.5 * HOUR + timedelta(microseconds=1)
    assert first[1].quantity > 0.0


def test_bars_of_another_length_are_told_when_the_run_is_live(checkpoint: Path) -> None:
    half = HOUR / 2
    ((told, alert),) = from_history(ForecastConfig(checkpoints=(str(checkpoint),)), length=half)["alerts"]

    assert told == MONDAY + 30.5 * half  # what history says is shown to nobody
    assert alert.message == "no forecast for X: bars of 30m, the checkpoint was trained on bars of 1h"
