"""The advisor that reads n-grams: a logistic head, pure numpy, well below a millisecond a headline."""

from collections.abc import Sequence
from pathlib import Path

from models.advisor.advice import LEARNT_UNKNOWN, Advice, Headline, each, judged
from models.advisor.weights import load

SHIPPED = Path(__file__).parent.parent.parent / "checkpoints" / "advisor-head"


class Head:
    """A head from a checkpoint of `python -m trainer advisor`.

    Args:
        threshold: of the probability of a direction; None: the checkpoint's.

    Raises:
        AdvisorError: the checkpoint cannot be used.
    """

    backend = "head"
    prompt_id = ""

    def __init__(self, folder: str | Path = SHIPPED, *, threshold: float | None = None) -> None:
        self._weights, self.manifest = load(folder, "head")
        self._threshold = self._weights.config.threshold if threshold is None else threshold
        if not 0.0 < self._threshold <= 1.0:
            raise ValueError(f"threshold must lie in (0, 1], was {threshold}")
        self.learnt_until = self.manifest.training.end or LEARNT_UNKNOWN
        self.model_id = f"head-{self.manifest.digest[:12]}"

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        return each(self, batch, self._judge)

    def close(self) -> None:
        """It holds nothing."""

    def _judge(self, headline: Headline, text: str) -> Advice:
        return judged(self, headline, self._weights.chances(text), self._threshold)
