"""An advisor behind the seam of `nodes.infer`: headlines in, answers out, each asked once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

from models.advisor.advice import Advice as Said
from models.advisor.advice import Advisor, Headline
from models.advisor.replay import key_of
from nodes.advise import SOURCE, Answer, HeadlineRequest
from nodes.events import AdviceAction

_REMEMBERED = 4_096  # answers


class AdvisorModel:
    """Answers are remembered by text, symbol, model and question: what was answered is not asked again.

    Backtests on several threads of a process may share one: it answers them in turn.

    Args:
        make: makes the backend, with its weights; called by `load`, or when it is first asked.
    """

    name = SOURCE

    def __init__(self, make: Callable[[], Advisor]) -> None:
        self._make = make
        self._advisor: Advisor | None = None
        self._turn = Lock()
        self._known: OrderedDict[str, Said] = OrderedDict()

    def load(self) -> Advisor:
        """The backend.

        Raises:
            AdvisorError: it cannot be used.
        """
        self._advisor = self._advisor or self._make()
        return self._advisor

    def close(self) -> None:
        """Let go of connections, where there are any. What needs none can be asked again."""
        if self._advisor is not None:
            self._advisor.close()

    def merge(self, waiting: HeadlineRequest, newer: HeadlineRequest) -> HeadlineRequest:
        """Each headline has a key of its own: the newer one."""
        return newer

    def predict(self, requests: Sequence[HeadlineRequest]) -> list[Answer]:
        """What the backend says of each.

        Raises:
            AdvisorError: the backend is broken.
            Exception: whatever a model raises.
        """
        with self._turn:
            return self._answers(requests)

    def _answers(self, requests: Sequence[HeadlineRequest]) -> list[Answer]:
        advisor = self.load()
        headlines = [Headline(text=r.text, symbol=r.symbol, published=r.published, source=r.source) for r in requests]
        keys = [key_of(headline, advisor.model_id, advisor.prompt_id) for headline in headlines]
        asked = {key: h for key, h in zip(keys, headlines, strict=True) if key not in self._known}
        said = dict(zip(asked, advisor.advise(list(asked.values())), strict=True)) if asked else {}
        answers = []
        for request, key in zip(requests, keys, strict=True):
            found = said[key] if key in said else self._known[key]
            if found.confidence > 0.0:  # what could not be answered may be another time
                self._known[key] = found
                self._known.move_to_end(key)
            answers.append(_answer(request, found, key))
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return answers


def _answer(request: HeadlineRequest, said: Said, key: str) -> Answer:
    return Answer(
        symbol=request.key,
        asof=request.asof,
        action=AdviceAction[said.action],
        score=said.score,
        confidence=said.confidence,
        reason=said.reason,
        backend=said.backend,
        model_id=said.model_id,
        prompt_id=said.prompt_id,
        input_hash=key,
    )
