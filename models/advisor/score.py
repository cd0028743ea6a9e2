"""The advisor that asks a language model and compares how likely it finds each of three words as the answer.

One reading of the headline, no generation, no parsing: nothing but the three words can come out. The question is read
once and kept in the cache. A small model's opinion is poor however it is asked; this is for models of a billion
parameters and more.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.advisor.advice import LEARNT_UNKNOWN, Advice, AdvisorError, Headline, each, hold, judged
from models.advisor.reader import engine_of, open_model, plain_tokens
from models.engine import Fed

Floats = npt.NDArray[np.float64]

WORDS = (" negative", " neutral", " positive")  # for down, flat and up
QUESTION = (
    "Is the financial news positive, negative or neutral for the price of the stock?\n\n"
    "News: Profit doubled and the dividend was raised.\nAnswer: positive\n\n"
    "News: The company publishes its annual report on Tuesday.\nAnswer: neutral\n\n"
    "News: Sales collapsed and the outlook was cut.\nAnswer: negative\n\n"
    "News:"
)
_END = "\nAnswer:"
_NOTHING = " N/A"  # a headline without content: what is said of it is what the model says anyway
_ASKED = "asked"


class Score:
    """Asks a language model, and subtracts what it would say of no headline at all.

    Args:
        model: a GGUF file or a folder of safetensors.
        threshold: of the probability of a direction.
        temperature: what the calibrated log probabilities are divided by; fitted on labelled headlines by
            `trainer.advisor_fit.temperature`, 1 as they are.
        learnt_until: when the text that the model was made from ends, naive UTC.

    Raises:
        AdvisorError: the model cannot be used.

    Source: contextual calibration: Zhao, Wallace, Feng, Klein & Singh, "Calibrate before use", ICML 2021.
    """

    backend = "score"
    prompt_id = "score-" + hashlib.sha256("|".join((QUESTION, _END, _NOTHING, *WORDS)).encode()).hexdigest()[:12]

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str = "fp32",
        threads: int = 1,
        threshold: float = 0.8,
        temperature: float = 1.0,
        learnt_until: datetime = LEARNT_UNKNOWN,
    ) -> None:
        if not 0.0 < threshold <= 1.0 or not 0.0 < temperature < np.inf:
            raise ValueError(f"want 0 < threshold <= 1 and temperature > 0, was {threshold} and {temperature}")
        self._threshold, self._temperature = threshold, temperature
        self._model = open_model(model, dtype)
        self.learnt_until = learnt_until
        self.model_id = f"{self._model.digest[:12]}-{dtype}"
        self._words = [self._model.plain.encode(word) for word in WORDS]
        self._end = self._model.plain.encode(_END)
        question = self._model.plain.encode(QUESTION)
        self._start = len(question)
        beside = len(question) + len(self._end) + max(map(len, self._words))
        self._engine = engine_of(self._model, threads, beside=beside)
        try:
            self._engine.feed([Fed(symbol=_ASKED, tokens=question)])
        except ValueError as exc:
            raise AdvisorError(str(exc)) from None
        self._anyway = self._log_chances(_NOTHING)

    def log_chances(self, text: str) -> Floats:
        """Calibrated log probabilities of down, flat and up, up to a constant, before the temperature. (3,)

        Args:
            text: cleaned, with something to read.
        """
        return self._log_chances(f" {text}") - self._anyway

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        return each(self, batch, self._judge)

    def close(self) -> None:
        """It holds nothing."""

    def _judge(self, headline: Headline, text: str) -> Advice:
        logits = self.log_chances(text) / self._temperature
        powers = np.exp(logits - logits.max())
        if not np.isfinite(powers).all():
            return hold(self, headline, "the model's answer is no number")
        return judged(self, headline, (powers / powers.sum()).tolist(), self._threshold)

    def _log_chances(self, text: str) -> Floats:
        """(3,) log probabilities of the words behind a text; the context goes back to the question."""
        tokens = [*plain_tokens(self._model, text), *self._end]
        try:
            self._engine.feed([Fed(symbol=_ASKED, tokens=tokens)])
            found = self._engine.score(_ASKED, self._words)
        except ValueError as exc:
            raise AdvisorError(str(exc)) from None
        finally:  # whatever happened: the next headline must not stand behind this one
            self._engine.rewind(_ASKED, self._start)
        return np.asarray(found, np.float64)
