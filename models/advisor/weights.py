"""A logistic head over n-grams, and over a language model's reading where it has one; as a checkpoint and at work.

In the checkpoint `config["advisor"]` says which backend it is made for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.load import ConfigError, build
from models.advisor.advice import AdvisorError
from models.advisor.ngrams import NgramConfig, buckets
from models.checkpoint import CheckpointError, Manifest, read_manifest, read_tensors

Floats = npt.NDArray[np.floating[Any]]
Tensors = dict[str, npt.NDArray[Any]]

KIND = "advisor"

_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which reading of a language model a head was fitted on."""

    model: str  # its name
    digest: str  # of its file
    layer: int  # whose hidden states: after this many layers
    share: float  # of a standardised number, beside n-grams of length one
    prompt: str = ""  # what stands in front of the headline

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise ValueError(f"layer must be at least 1, was {self.layer}")
        if not 0.0 < self.share < 1e3:
            raise ValueError(f"share must lie in (0, 1000), was {self.share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """What is beside the numbers."""

    advisor: str  # "head" or "gpt"
    threshold: float  # of the probability of a direction, below which the answer is HOLD
    ngrams: NgramConfig
    reading: Reading | None = None

    def __post_init__(self) -> None:
        if self.advisor not in ("head", "gpt"):
            raise ValueError(f"advisor must be head or gpt, was {self.advisor!r}")
        if (self.reading is None) != (self.advisor == "head"):
            raise ValueError("want the reading of a language model for advisor gpt, and for it alone")
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"threshold must lie in (0, 1], was {self.threshold}")


class Weights:
    """The numbers of a head. Shapes: ngrams (B, 3), bias (3,), dense (D, 3), mean and scale (D,).

    Raises:
        AdvisorError: a tensor is missing, of another shape, or not finite.
    """

    def __init__(self, config: HeadConfig, tensors: Tensors) -> None:
        self.config = config
        wanted = {"model.ngrams", "model.bias"}
        if config.reading is not None:
            wanted |= {"model.dense", "model.mean", "model.scale"}
        if set(tensors) != wanted:
            raise AdvisorError(f"want the tensors {', '.join(sorted(wanted))}, was {', '.join(sorted(tensors))}")
        self._ngrams = _shaped(tensors, "model.ngrams", (config.ngrams.buckets, 3))
        self._bias = _shaped(tensors, "model.bias", (3,)).astype(np.float64)
        self._reading: tuple[Floats, Floats, Floats] | None = None
        if config.reading is not None:
            width = tensors["model.mean"].size
            dense, mean, scale = (
                _shaped(tensors, name, shape).astype(np.float64)
                for name, shape in (
                    ("model.dense", (width, 3)),
                    ("model.mean", (width,)),
                    ("model.scale", (width,)),
                )
            )
            if not (scale > 0.0).all():
                raise AdvisorError("want model.scale as positive numbers, was another")
            self._reading = dense, mean, scale

    def chances(self, text: str, reading: Floats | None = None) -> tuple[float, float, float]:
        """Probabilities of down, flat and up.

        Args:
            text: cleaned.
            reading: (D,) of the language model; None where the head has none.
        """
        logits = self._bias.copy()  # (3,)
        for places in buckets(text, self.config.ngrams):
            if len(places):
                logits += self._ngrams[places].sum(axis=0, dtype=np.float64) / np.sqrt(len(places))
        if self._reading is not None:
            dense, mean, scale = self._reading
            if reading is None or reading.shape != mean.shape:
                raise AdvisorError(f"want a reading of {mean.shape}, was {None if reading is None else reading.shape}")
            logits += ((reading - mean) / scale) @ dense
        powers = np.exp(logits - logits.max())
        down, flat, up = (powers / powers.sum()).tolist()
        return down, flat, up


def _shaped(tensors: Tensors, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    found = tensors[name]
    if found.shape != shape or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise AdvisorError(f"want {name} as finite numbers of shape {shape}, was {found.dtype} {found.shape}")
    return found


def load(folder: str | Path, advisor: str) -> tuple[Weights, Manifest]:
    """The head of a checkpoint.

    Args:
        advisor: which backend it must be made for: "head" or "gpt".

    Raises:
        AdvisorError: it cannot be used; the message says why.
    """
    try:
        manifest = read_manifest(folder)
        if manifest.config.get("advisor") != advisor:
            raise AdvisorError(f"want a checkpoint for the advisor {advisor} at {folder}, was another one")
        if manifest.weights_bytes > _BYTES_MAX:
            raise AdvisorError(
                f"want weights of at most {_BYTES_MAX:,} bytes at {folder}, was {manifest.weights_bytes:,}"
            )
        config = build(HeadConfig, manifest.config)
        return Weights(config, read_tensors(folder, manifest)), manifest
    except (CheckpointError, ConfigError) as exc:
        raise AdvisorError(str(exc)) from None
