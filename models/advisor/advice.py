"""What an advisor is asked and what it answers: three words, never an order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Literal, Protocol

from models.advisor.text import clean

Action = Literal["BUY_SIGNAL", "SELL_SIGNAL", "HOLD"]

BUY_SIGNAL: Action = "BUY_SIGNAL"
SELL_SIGNAL: Action = "SELL_SIGNAL"
HOLD: Action = "HOLD"
ACTIONS: tuple[Action, ...] = (BUY_SIGNAL, SELL_SIGNAL, HOLD)

GUARD = "guard"  # the backend of what was not read
CLASSES = ("down", "flat", "up")  # the order of every array of probabilities
NOTHING = "there is nothing to read"  # a reason
UNKNOWN = (0.0, 1.0, 0.0)  # what is believed where nothing could be read

LEARNT_NOTHING = datetime.min  # noqa: DTZ901 - csp speaks naive UTC
LEARNT_UNKNOWN = datetime.max  # noqa: DTZ901 - of a model that may have learnt anything

_SUM_SLACK = 1e-6


class AdvisorError(Exception):
    """A backend that cannot be made, or that is broken; the message says what was wanted and what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What a backend is told. The symbol is the feed's, never read out of a text."""

    text: str  # untrusted
    symbol: str = ""  # "" for news about no one symbol
    published: datetime | None = None  # naive UTC; None where nobody asks for it
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One answer. It is an input among others: its weight is set elsewhere, and the risk gate has the last word.

    Attributes:
        score: probability of up less that of down, in [-1, 1].
        confidence: the probability of the most likely class, in [0, 1]; 0 where nothing could be said.
        probabilities: of down, flat and up; they add up to 1.
        reason: a few words for a person, never text of the headline or of a model.
    """

    action: Action
    score: float
    confidence: float
    probabilities: tuple[float, float, float]
    symbol: str
    reason: str
    backend: str
    model_id: str
    prompt_id: str = ""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}, was {self.action!r}")
        if not -1.0 <= self.score <= 1.0:
            raise ValueError(f"score must lie in [-1, 1], was {self.score}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence must lie in [0, 1], was {self.confidence}")
        if len(self.probabilities) != 3 or not all(0.0 <= p <= 1.0 for p in self.probabilities):
            raise ValueError(f"want probabilities of down, flat and up in [0, 1], was {self.probabilities}")
        if not math.isclose(sum(self.probabilities), 1.0, abs_tol=_SUM_SLACK):
            raise ValueError(f"probabilities must add up to 1, were {self.probabilities}")


class Advisor(Protocol):
    """A backend. One thread may call it at a time."""

    @property
    def backend(self) -> str:
        """Its name."""
        ...

    @property
    def model_id(self) -> str:
        """Which weights, lists or recordings answer; it changes with them."""
        ...

    @property
    def prompt_id(self) -> str:
        """Which question they are asked; "" where they are asked none."""
        ...

    @property
    def learnt_until(self) -> datetime:
        """The latest moment, naive UTC, of which it can know anything: what it says of news before that may be memory.

        LEARNT_NOTHING where there are no weights, LEARNT_UNKNOWN where it is not known.
        """
        ...

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        """One answer a headline, in their order. What cannot be answered is HOLD with the reason.

        Raises:
            AdvisorError: the backend itself is broken.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds, such as connections; twice does no harm."""
        ...


def moment(text: str) -> datetime:
    """Until when a model has learnt, as a user says it: a date means its end, "" that nobody knows.

    Raises:
        ValueError: it is neither a date nor a time in ISO 8601, naive UTC.
    """
    if not text:
        return LEARNT_UNKNOWN
    try:
        return datetime.combine(date.fromisoformat(text), time.max)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise ValueError(f"learnt_until must be a date or a time in ISO 8601, naive UTC, was {text!r}")
    return found


def hold(advisor: Advisor, headline: Headline, reason: str) -> Advice:
    """No opinion of a backend, for the reason given: score and confidence are 0."""
    return replace(
        unread(headline, reason),
        backend=advisor.backend,
        model_id=advisor.model_id,
        prompt_id=advisor.prompt_id,
    )


def unread(headline: Headline, reason: str) -> Advice:
    """No opinion, of the guard: nobody was asked."""
    return Advice(
        action=HOLD,
        score=0.0,
        confidence=0.0,
        probabilities=UNKNOWN,
        symbol=headline.symbol,
        reason=reason,
        backend=GUARD,
        model_id="",
    )


def each(advisor: Advisor, batch: Sequence[Headline], answer: Callable[[Headline, str], Advice]) -> list[Advice]:
    """What `answer` makes of each headline and its text, cleaned; HOLD where there is nothing to read."""
    texts = [clean(headline.text).text for headline in batch]
    return [
        answer(headline, text) if text else hold(advisor, headline, NOTHING)
        for headline, text in zip(batch, texts, strict=True)
    ]


def judged(advisor: Advisor, headline: Headline, chances: Sequence[float], threshold: float) -> Advice:
    """The answer that three calibrated probabilities give: HOLD unless one direction reaches the threshold.

    Args:
        chances: (3,) of down, flat and up, not negative, not all zero.
        threshold: in (0, 1]. At 0.5 or less both directions may reach it: the likelier one counts.

    Raises:
        AdvisorError: they are no probabilities.
    """
    total = math.fsum(chances)
    if len(chances) != 3 or not all(p >= 0.0 for p in chances) or not 0.0 < total < math.inf:
        raise AdvisorError(f"want three probabilities, was {tuple(chances)} of {advisor.backend}")
    down, flat, up = (min(1.0, float(p) / total) for p in chances)
    action, reason = HOLD, "no direction is probable enough"
    if max(up, down) >= threshold and up != down:
        action, reason = (BUY_SIGNAL, "up") if up > down else (SELL_SIGNAL, "down")
        reason = f"probability of {reason} at least {threshold:.2f}"
    return Advice(
        action=action,
        score=max(-1.0, min(1.0, up - down)),
        confidence=max(down, flat, up),
        probabilities=(down, flat, up),
        symbol=headline.symbol,
        reason=reason,
        backend=advisor.backend,
        model_id=advisor.model_id,
        prompt_id=advisor.prompt_id,
    )
