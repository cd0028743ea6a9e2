"""The advisor that lets a language model write, and looks for words in what it wrote. A baseline, kept by its name.

Its answer is found in whole words, a negation turns a rising one, and words for both directions cancel. It is slow,
and a small model's text seldom has an opinion; see `head`, `gpt` and `score`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from models.advisor.advice import Advice, AdvisorError, Headline, hold, judged
from models.advisor.lexicon import counts
from models.advisor.reader import TOKENS_MAX, engine_of, open_model
from models.advisor.text import clean
from models.sampling import Sampling
from models.text import TextError

QUESTION = (
    "Say in one sentence whether the following financial headline is bullish or bearish for the stock. Headline: {text}"
)
TOKENS = 40  # that are written
_GREEDY = Sampling(top_k=1)


class Generate:
    """Writes, greedily, and counts words.

    Args:
        model: a GGUF file or a folder of safetensors with a chat template.

    Raises:
        AdvisorError: the model cannot be used.
    """

    backend = "generate"
    prompt_id = "generate-" + hashlib.sha256(f"{QUESTION}|{TOKENS}".encode()).hexdigest()[:12]

    def __init__(self, model: str | Path, *, dtype: str = "fp32", threads: int = 1) -> None:
        self._model = open_model(model, dtype)
        self._engine = engine_of(self._model, threads)
        self.model_id = f"{self._model.digest[:12]}-{dtype}"

    def write(self, text: str) -> str:
        """What the model writes of a headline, up to TOKENS tokens.

        Args:
            text: cleaned.

        Raises:
            AdvisorError: the model has no chat template, or no room.
        """
        shown = self._model.plain.decode(self._model.plain.encode(text)[:TOKENS_MAX])
        try:
            asked = self._model.chat_tokens([{"role": "user", "content": QUESTION.format(text=shown)}])
            tokens = self._engine.sample(asked, TOKENS, sampling=_GREEDY, stop=self._model.stop)
        except (TextError, ValueError) as exc:
            raise AdvisorError(str(exc)) from None
        return self._model.plain.decode(tokens.tolist())

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        answers = []
        for headline in batch:
            text = clean(headline.text).text
            if not text:
                answers.append(hold(self, headline, "there is nothing to read"))
                continue
            falling, rising = counts(self.write(text))
            if falling == rising:
                answers.append(hold(self, headline, "the text that was written takes no side"))
            else:
                answers.append(judged(self, headline, (float(falling), 0.0, float(rising)), 0.5))
        return answers
