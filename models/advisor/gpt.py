"""The advisor with a frozen language model: its reading of a headline and the n-grams, under a logistic head."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.advisor.advice import LEARNT_UNKNOWN, NOTHING, Advice, AdvisorError, Headline, hold, judged
from models.advisor.reader import Reader
from models.advisor.text import clean
from models.advisor.weights import load

_BATCH = 32  # headlines at once; more of them are no faster


class Gpt:
    """Reads with a language model; nothing is generated, so nothing has to be parsed.

    Args:
        model: a GGUF file or a folder of safetensors, the one that the head was fitted on.
        folder: the head, a checkpoint of `python -m trainer advisor` with kind gpt.
        threshold: of the probability of a direction; None: the checkpoint's.

    Raises:
        AdvisorError: one of them cannot be used, or they do not belong together.
    """

    backend = "gpt"
    prompt_id = ""

    def __init__(
        self,
        model: str | Path,
        folder: str | Path,
        *,
        dtype: str = "fp32",
        threads: int = 1,
        threshold: float | None = None,
    ) -> None:
        self._weights, self.manifest = load(folder, "gpt")
        reading = self._weights.config.reading
        if reading is None:
            raise AdvisorError(f"want a head over a language model at {folder}, was one without")
        self._threshold = self._weights.config.threshold if threshold is None else threshold
        if not 0.0 < self._threshold <= 1.0:
            raise ValueError(f"threshold must lie in (0, 1], was {threshold}")
        self._layer = reading.layer
        self._reader = Reader(model, dtype=dtype, threads=threads)
        if self._reader.digest != reading.digest:
            raise AdvisorError(
                f"want the model {reading.model} ({reading.digest[:12]}) that the head at {folder} was fitted on, "
                f"was {self._reader.name} ({self._reader.digest[:12]})"
            )
        self._weights.chances("", self._reader.read(["."], self._layer)[0])  # a layer or width that cannot be: now
        self.learnt_until = self.manifest.training.end or LEARNT_UNKNOWN  # of the language model and of the head
        self.model_id = f"{reading.digest[:12]}-{dtype}-{self.manifest.digest[:12]}"

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        texts = [clean(headline.text).text for headline in batch]
        answers = [hold(self, headline, NOTHING) for headline in batch]
        rows = [row for row, text in enumerate(texts) if text]
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            readings = self._reader.read([texts[row] for row in part], self._layer)
            for row, reading in zip(part, readings, strict=True):
                if np.isfinite(reading).all():
                    chances = self._weights.chances(texts[row], reading)
                    answers[row] = judged(self, batch[row], chances, self._threshold)
                else:
                    answers[row] = hold(self, batch[row], "the model's reading is no number")
        return answers

    def close(self) -> None:
        """It holds nothing."""
