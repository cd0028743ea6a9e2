"""Walk-forward: several test periods one after the other, each with a tokenizer and a model of its own.

Figures of one period are an anecdote. Here every fold is trained on what was known before its test and on nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.load import plain
from models.checkpoint import CheckpointError, read_manifest
from tokenizer.bars import BarSeries
from trainer.config import TrainConfig
from trainer.data import digest
from trainer.fingpt import Result, language_of_bars, train_model
from trainer.splits import Split, folds
from trainer.world import World

FOLDS = "folds.json"

_KEYS = ("bits", "accuracy", "top_5")


def walk_forward(
    config: TrainConfig, bars: Mapping[str, BarSeries], out: Path, world: World, *, resume: bool, quiet: bool
) -> list[str]:
    """Train `config.folds` folds into `out`/fold-1 and so on; lines for a person. Figures are in `out`/folds.json.

    A fold that is done is not trained again with `resume`.

    Raises:
        ConfigError, CheckpointError, DataError, TrainingError: as `trainer.fingpt`.
    """
    laid = {f"fold-{number}": split for number, split in enumerate(folds(bars, config.split, config.folds), 1)}
    settings = hashlib.sha256((json.dumps(plain(config), default=str) + digest(bars)).encode()).hexdigest()
    rows = _done(out, settings) if resume else {}
    world.wait()  # nobody may write before everybody has read: all must train the same folds
    for name, split in laid.items():
        if name in rows:
            continue
        named = replace(config, name=f"{config.name} {name}")
        folder = out / name
        language = language_of_bars(named, bars, split, folder, world, resume=resume, quiet=quiet)
        result = train_model(named, language, folder, world, resume=resume, quiet=quiet)
        if result is not None:
            rows[name] = {"settings": settings, **_row(name, split, result)}
            _write(out / FOLDS, [rows[one] for one in laid if one in rows])
    found = [rows[name] for name in laid if name in rows]
    return [*(f"{row['fold']}: {row['line']}" for row in found), *_summary(found)]


def _row(name: str, split: Split, result: Result) -> dict[str, Any]:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "fold": name,
        "checkpoint": result.digest,
        "parts": {key: None if part is None else [when.isoformat() for when in part] for key, part in parts.items()},
        "metrics": {key: result.metrics[f"test_{key}"] for key in _KEYS if f"test_{key}" in result.metrics},
        "line": f"trained to {split.window[1]:%Y-%m-%d %H:%M}; {result.lines[-1]}",
    }


def _done(out: Path, settings: str) -> dict[str, dict[str, Any]]:
    """The folds that an earlier run of the same settings and bars finished, by name."""
    try:
        rows = json.loads((out / FOLDS).read_text())
        return {
            row["fold"]: row
            for row in rows
            if row["settings"] == settings and read_manifest(out / row["fold"]).digest == row["checkpoint"]
        }
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return {}  # nothing is lost but time


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    judged = [row["metrics"]["bits"] for row in rows if "bits" in row["metrics"]]
    if not judged:
        return []
    gains = [bits["gain_over_bigram"] for bits in judged]
    better = sum(bits.get("verdict") == "better" for bits in judged)
    saved = f"{min(gains):.4f} to {max(gains):.4f} bits a token, mean {sum(gains) / len(gains):.4f}"
    return [f"{len(judged)} folds: saved over the bigram {saved}; better than it with 95 % in {better}"]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n")
    partial.replace(path)
