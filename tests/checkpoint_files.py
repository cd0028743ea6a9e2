"""A small checkpoint, and ways to spoil it as someone would who knows the format."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from models import manifest
from models.checkpoint import Training, read_manifest, read_tensors

START, END = datetime(2017, 7, 1, 12), datetime(2018, 12, 20)
TRAINING = Training(
    start=START,
    end=END,
    symbols=("BTC-USD", "EUR/USD"),
    bar_s=3600.0,
    embargo_bars=256,
    data_sha256="ab" * 32,
    licence="Apache-2.0",
    trials=7,
    seed=3,
)
TENSORS = {
    "model.head.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model.step": np.array(3, dtype=np.int64),
    "codec.mean": np.array([0.5, -0.25]),
    "codec.counts": np.zeros((0, 4), dtype=np.int32),
    "codec.mask": np.array([True, False]),
    "codec.half": np.array([1.5], dtype=np.float16),
}
METRICS = {"test_bits": {"value": 5.99, "baselines": {"unigram": 6.62, "bigram": 6.41}, "interval": [0.3, 0.5]}}


def arguments(**changed: Any) -> dict[str, Any]:
    given = {
        "kind": "fingpt",
        "config": {"layers": 4, "hours": True, "symbols": ["BTC-USD"], "dropout": 0.1, "window": None},
        "codec": {"kind": "vqvae", "codes": 128},
        "training": TRAINING,
        "metrics": METRICS,
        "tensors": TENSORS,
        "code": "abc1234",
    }
    return given | changed


def read(folder: Path) -> tuple[manifest.Manifest, dict[str, Any]]:
    found = read_manifest(folder)
    return found, read_tensors(folder, found)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return set(found) == set(wanted) and all(
        found[name].dtype == wanted[name].dtype
        and found[name].shape == wanted[name].shape
        and found[name].tobytes() == wanted[name].tobytes()
        for name in wanted
    )


def forge(folder: Path, change: Callable[[dict[str, Any]], None], weights: bytes | None = None) -> None:
    """Change a checkpoint as someone would who knows the format: all sums are right again."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    if weights is not None:
        (folder / "weights.safetensors").write_bytes(weights)
        content["weights"] = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    change(content)
    del content["digest"]
    spelled = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps(content | {"digest": hashlib.sha256(spelled).hexdigest()}))
