"""The shipped checkpoint is what its config says, and anybody can make it again."""

from datetime import datetime
from pathlib import Path

import pytest
from training_files import as_before  # noqa: F401 - a fixture

from configs.load import load, plain
from models.checkpoint import read_manifest
from models.fingpt import FinGPT
from tokenizer.codec import Codec
from trainer.__main__ import main
from trainer.config import TrainConfig
from trainer.data import digest, load_bars
from trainer.splits import split, within

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "train" / "demo.toml"
DEMO = ROOT / "checkpoints" / "demo"


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return load(TrainConfig, CONFIG)


def test_it_was_made_by_its_config_from_the_sample_data(config: TrainConfig) -> None:
    manifest = read_manifest(DEMO)
    bars = load_bars(config.feeds)
    laid = split(bars, config.split)
    seen = within(bars, laid.window)
    assert manifest.training.data_sha256 == digest(seen)
    assert manifest.training.symbols == ("BTC-USD", "EUR-USD")
    assert manifest.training.licence == config.licence
    assert manifest.training.trials == config.trials
    assert manifest.metrics["validation_bits"]["sample"] == config.sample
    assert plain(FinGPT.load(DEMO).config) == plain(config.model)
    assert plain(Codec.load(DEMO).config) == plain(config.tokenizer)


def test_it_is_small_and_its_window_ends_before_the_default_backtest(config: TrainConfig) -> None:
    manifest = read_manifest(DEMO)
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 4_000_000
    assert config.split.end == datetime(2018, 12, 20)
    assert manifest.training.end is not None
    assert manifest.training.end < datetime(2018, 12, 20)
    assert manifest.overlap(datetime(2018, 12, 30), datetime(2019, 10, 1))
    assert not manifest.overlap(datetime(2019, 1, 1), datetime(2019, 10, 17, 10))


def test_it_beats_the_bigram_out_of_sample_with_an_interval_above_zero() -> None:
    bits = read_manifest(DEMO).metrics["test_bits"]
    assert bits["value"] < bits["baselines"]["bigram"]
    assert bits["value"] < bits["baselines"]["unigram"]
    assert bits["interval_95"][0] > 0.0
    assert bits["verdict"] == "better"
    assert datetime.fromisoformat(bits["first"]).year == 2019


@pytest.mark.slow
def test_training_it_again_gives_the_same_or_bits_within_rounding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--quiet", "--out", str(tmp_path / "made"), "--shipped", str(DEMO)]
    assert main(["fingpt", str(CONFIG), *flags]) == 0
    assert str(DEMO) in capsys.readouterr().out
