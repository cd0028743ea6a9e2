"""A small price model on random walks: a real checkpoint, made in a second or two, good for nothing but tests."""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from tiny_model import tiny
from tokenizer_bars import walk

from models.checkpoint import Training, write
from tokenizer.codec import Codec, TokenizerConfig
from tokenizer.features import FeatureConfig
from tokenizer.fit import fit

CODES = 16


@cache
def small_codec(*, seed: int = 0, **features: Any) -> Codec:
    """Sixteen codes, fitted to 2,000 bars of two random walks."""
    config = TokenizerConfig(codes=CODES, hidden=8, features=FeatureConfig(**features))
    return fit([walk(1_000, seed=1), walk(1_000, seed=2)], config, seed=seed, steps=60, batch=256)


def make_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    bar_s: float = 3_600.0,
    start: datetime | None = datetime(2017, 1, 1),
    end: datetime | None = datetime(2017, 6, 30),
    codec: Codec | None = None,
    **shape: Any,
) -> Path:
    """A checkpoint of a tiny model with random weights, conditioned on the hour."""
    codec = codec or small_codec(seed=seed)
    model = tiny(seed, **{"vocabulary": codec.codes, "hours": True, **shape})
    write(
        folder,
        kind="fingpt",
        config=model.to_manifest(),
        codec=codec.to_manifest(),
        training=Training(
            start=start, end=end, symbols=("WALK",), bar_s=bar_s, embargo_bars=24, licence="none: random walks"
        ),
        metrics={},
        tensors={**model.to_tensors(), **codec.to_tensors()},
    )
    return folder
