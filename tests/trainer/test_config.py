"""A training config says what it wants, and refuses the rest."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from configs.load import ConfigError, build, load, plain
from models.fingpt import FinGPT
from trainer.advisor_config import AdvisorTrainConfig
from trainer.config import LoopConfig, OptimConfig, SplitConfig, TokenizerFit, TrainConfig
from trainer.gpt_config import GPTTrainConfig

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs" / "train").glob("*.toml"))
KINDS: dict[str, Any] = {"advisor": AdvisorTrainConfig, "gpt": GPTTrainConfig}
NAN = float("nan")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_survive_a_round_trip(path: Path) -> None:
    kind = KINDS.get(path.stem.partition("_")[0], TrainConfig)
    config: Any = load(kind, path)
    assert build(kind, plain(config)) == config
    assert config.name == path.stem.replace("_", "-")


def test_the_demo_has_the_parameters_that_are_promised_and_a_fixed_number_of_threads() -> None:
    config = load(TrainConfig, ROOT / "configs" / "train" / "demo.toml")
    bare = build(type(config.model), plain(config.model) | {"hours": False, "symbols": []})
    assert FinGPT(bare).parameter_count() == 819_200
    assert config.loop.threads > 0
    assert not config.loop.compile
    assert config.loop.device == "cpu"
    assert config.split.end == datetime(2018, 12, 20)
    assert config.split.embargo_bars == 256


def test_the_19m_config_has_exactly_19_005_440_parameters_before_conditioning() -> None:
    config = load(TrainConfig, ROOT / "configs" / "train" / "fingpt_19m.toml")
    bare = build(type(config.model), plain(config.model) | {"hours": False, "symbols": []})
    assert FinGPT(bare).parameter_count() == 19_005_440


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (SplitConfig, {"validation_fraction": 0.0}, "validation_fraction"),
        (SplitConfig, {"validation_fraction": NAN}, "validation_fraction"),
        (SplitConfig, {"purge_bars": 0}, "purge_bars"),
        (SplitConfig, {"embargo_bars": -1}, "embargo_bars"),
        (SplitConfig, {"start": datetime(2024, 1, 1, tzinfo=UTC)}, "UTC without an offset"),
        (SplitConfig, {"start": datetime(2024, 1, 2), "end": datetime(2024, 1, 1)}, "end must come after start"),
        (SplitConfig, {"test_start": datetime(2024, 1, 2), "end": datetime(2024, 1, 3)}, "test_start must come after"),
        (OptimConfig, {"optimizer": "sgd"}, "optimizer must be one of"),
        (OptimConfig, {"lr": 0.0}, "lr must be positive"),
        (OptimConfig, {"lr": NAN}, "lr must be positive"),
        (OptimConfig, {"lr_floor": 1.1}, "lr_floor"),
        (OptimConfig, {"beta2": 1.0}, "beta2"),
        (OptimConfig, {"weight_decay": NAN}, "weight_decay"),
        (OptimConfig, {"clip": float("inf")}, "clip"),
        (LoopConfig, {"batch": 10, "accumulate": 4}, "multiple of accumulate"),
        (LoopConfig, {"steps": 0}, "steps"),
        (LoopConfig, {"precision": "fp8"}, "precision"),
        (LoopConfig, {"device": "tpu"}, "device"),
        (LoopConfig, {"patience": -1}, "patience"),
        (TokenizerFit, {"steps": 0}, "steps"),
        (TrainConfig, {"name": "a/b"}, "name"),
        (TrainConfig, {"out": "."}, "out must end with a name"),
        (TrainConfig, {"out": "runs/.."}, "out must end with a name"),
        (TrainConfig, {"folds": 1}, "folds"),
        (TrainConfig, {"trials": 0}, "trials"),
        (TrainConfig, {"split": SplitConfig(embargo_bars=255)}, "at least the context"),
        (TrainConfig, {"loop": LoopConfig(steps=100)}, "more than optim.warmup_steps"),
    ],
)
def test_impossible_values_are_refused_by_name(kind: type[Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**values)


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"loop\.step'; did you mean 'steps'"):
        build(TrainConfig, {"loop": {"step": 3}})
