"""Readings of a language model for every text and layer that is tried. They are kept: reading takes minutes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.advisor.advice import AdvisorError
from models.advisor.backends import installed_model
from models.advisor.reader import Reader
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_parts import Readings
from trainer.logs import progress


def read_all(config: AdvisorTrainConfig, texts: list[str], layers: Sequence[int], *, quiet: bool) -> Readings:
    """Readings (N, 2 W) of each layer; a text without words is read as a full stop.

    Raises:
        AdvisorError: there is no model, or it cannot be used.
    """
    tried = config.reading
    path = Path(tried.model) if tried.model else installed_model()
    if path is None:
        raise AdvisorError("a head of kind gpt wants a language model: make setup-llm, or name reading.model")
    reader = Reader(path, dtype=tried.dtype)
    told_texts = [text or "." for text in texts]
    order = sorted(range(len(texts)), key=lambda row: len(told_texts[row]))  # of like lengths: little is filled up
    found: dict[int, npt.NDArray[np.float64]] = {}
    with progress("readings", len(layers) * len(texts), quiet=quiet) as told:
        for number, layer in enumerate(layers):
            kept = _kept(config, reader, told_texts, layer)
            if kept.exists():
                found[layer] = np.load(kept, allow_pickle=False).astype(np.float64)
                continue
            rows = None
            for start in range(0, len(order), tried.batch):
                part = order[start : start + tried.batch]
                read = reader.read([told_texts[row] for row in part], layer)
                rows = np.empty((len(texts), read.shape[1]), np.float32) if rows is None else rows
                rows[part] = read
                told(number * len(texts) + start + len(part), f"layer {layer}")
            if rows is None or not np.isfinite(rows).all():
                raise AdvisorError(f"want finite readings of {reader.name} at layer {layer}, was something else")
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(".part.npy")
            np.save(draft, rows, allow_pickle=False)
            draft.replace(kept)
            found[layer] = rows.astype(np.float64)
    return Readings(name=reader.name, digest=reader.digest, layers=found)


def _kept(config: AdvisorTrainConfig, reader: Reader, texts: list[str], layer: int) -> Path:
    """Where readings lie: named by all that they depend on."""
    what = json.dumps([reader.digest, config.reading.dtype, config.reading.batch, layer, texts])
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    return Path(f"{config.folder}-training") / f"readings-{layer}-{name}.npy"
