"""The advisor that lets a language model write, and looks for words in what it wrote. A baseline, kept by its name.

Its answer is found in whole words, a negation turns a rising one, and words for both directions cancel. It is slow,
and a small model's text seldom has an opinion; see `head`, `gpt` and `score`.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from models.advisor.advice import LEARNT_UNKNOWN, Advice, AdvisorError, Headline, each, hold, judged
from models.advisor.lexicon import counts
from models.advisor.reader import engine_of, open_model, plain_tokens
from models.sampling import Sampling
from models.text import TextError

QUESTION = (
    "Say in one sentence whether the following financial headline is bullish or bearish for the stock. Headline: {text}"
)
TOKENS = 40  # that are written
_AGAIN = 16  # more than it had, that a text may have when it was cut within a letter and is read again
_GREEDY = Sampling(top_k=1)


class Generate:
    """Writes, greedily, and counts words.

    Args:
        model: a GGUF file or a folder of safetensors with a chat template.
        learnt_until: when the text that the model was made from ends, naive UTC.

    Raises:
        AdvisorError: the model cannot be used.
    """

    backend = "generate"
    prompt_id = "generate-" + hashlib.sha256(f"{QUESTION}|{TOKENS}".encode()).hexdigest()[:12]

    def __init__(
        self, model: str | Path, *, dtype: str = "fp32", threads: int = 1, learnt_until: datetime = LEARNT_UNKNOWN
    ) -> None:
        self._model = open_model(model, dtype)
        self._engine = engine_of(self._model, threads, beside=len(self._asked("")) + TOKENS + _AGAIN)
        self.learnt_until = learnt_until
        self.model_id = f"{self._model.digest[:12]}-{dtype}"

    def write(self, text: str) -> str:
        """What the model writes of a headline, up to TOKENS tokens.

        Args:
            text: cleaned.

        Raises:
            AdvisorError: the model has failed.
        """
        shown = self._model.plain.decode(plain_tokens(self._model, text))
        try:
            tokens = self._engine.sample(self._asked(shown), TOKENS, sampling=_GREEDY, stop=self._model.stop)
        except ValueError as exc:
            raise AdvisorError(str(exc)) from None
        return self._model.plain.decode(tokens.tolist())

    def _asked(self, text: str) -> list[int]:
        try:
            return self._model.chat_tokens([{"role": "user", "content": QUESTION.format(text=text)}])
        except TextError as exc:
            raise AdvisorError(str(exc)) from None

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        return each(self, batch, self._judge)

    def close(self) -> None:
        """It holds nothing."""

    def _judge(self, headline: Headline, text: str) -> Advice:
        falling, rising = counts(self.write(text))
        if falling == rising:
            return hold(self, headline, "the text that was written takes no side")
        return judged(self, headline, (float(falling), 0.0, float(rising)), 0.5)
