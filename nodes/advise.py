"""The advisor in the graph: which headlines it is asked about, what becomes of its answers, and how far they count.

News -> `screen` (what may be read at all) -> `nodes.infer` -> `settle` (one Advice a headline) -> `advice_signal`.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import csp
from csp import ts

from feeds.events import NewsItem
from models.advisor.advice import GUARD, AdvisorError, moment
from models.advisor.backends import BACKENDS
from models.advisor.guard import REASONS, inspect
from models.advisor.similar import fingerprint
from nodes.advice_guards import Budget, Recent
from nodes.events import Advice, AdviceAction, Alert, AlertLevel, NodeError, Signal
from nodes.infer import InferConfig, Request

OFF = "off"
SOURCE = "advisor"

_BUY, _SELL, _HOLD = AdviceAction.BUY_SIGNAL, AdviceAction.SELL_SIGNAL, AdviceAction.HOLD
_ID_MAX = 64  # characters of an item's id that are kept
_TOLD_MAX = 1_024  # kinds of alert that are remembered
_TELL_AGAIN = timedelta(hours=1)
_LATE_MAX = 65_536  # questions given up that are remembered: their answers may still come


def _waits() -> InferConfig:
    return InferConfig(latency_ms=250.0, stale_after_s=10.0, waiting_max=64, batch_max=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisorConfig:
    """Who reads the news, what it is given, and how far its advice may go."""

    backend: str = "auto"  # gpt where its model is installed, else head; or lexicon, score, generate, chat, replay, off
    model: str = ""  # GGUF file or safetensors folder; "": the one that `make setup-llm` installs; of chat its name
    checkpoint: str = ""  # folder of the head; "": the shipped one
    answers: str = ""  # file of recorded answers, of replay
    url: str = ""  # of the server, of chat
    dtype: str = "fp32"  # of the language model: fp32 or bf16
    learnt_until: str = ""  # date to which a foreign model knows the world; head and gpt know it; "": nobody says
    sources: tuple[str, ...] = ()  # whose news is read; empty: anybody's
    stale_after_s: float = 3600.0  # from publication; older news is not read
    ahead_max_s: float = 5.0  # that a publication may lie in the future, for clocks that differ
    duplicate_window_s: float = 86_400.0  # the same news again within it is not read again
    similar_min: float = 0.7  # share of word pairs in common from which two headlines are the same news
    calls_per_hour: int = 600
    calls_per_day: int = 5_000
    confidence: float = 0.3  # of the signal, times the advice's own
    market_wide_factor: float = 0.5  # on the confidence, for news about no one symbol
    horizon_s: float = 2 * 3600.0  # time constant of the decay
    expires_after_s: float = 12 * 3600.0  # then it counts no more
    confirm_bars: int = 2  # closes within which the price must have moved the advised way; 0: it need not
    confirm_move: float = 0.0  # fraction by which it must have moved, at least
    exposure_max: float = 0.25  # of equity: what advice may add to or take off one symbol's target
    exposure_hour_max: float = 0.25  # of equity: by how much that may grow within an hour, a symbol
    infer: InferConfig = field(default_factory=_waits)

    def __post_init__(self) -> None:
        if self.backend not in (*BACKENDS, OFF):
            raise ValueError(f"backend must be one of {', '.join((*BACKENDS, OFF))}, was {self.backend!r}")
        if self.dtype not in ("fp32", "bf16"):
            raise ValueError(f"dtype must be fp32 or bf16, was {self.dtype!r}")
        if self.learnt_until:
            moment(self.learnt_until)
        for name in ("stale_after_s", "duplicate_window_s", "horizon_s", "expires_after_s"):
            if not 0.0 < getattr(self, name) <= 1e9:
                raise ValueError(f"{name} must lie in (0, 1e9], was {getattr(self, name)}")
        if not 0.0 <= self.ahead_max_s <= 86_400.0:
            raise ValueError(f"ahead_max_s must lie in [0, 86400], was {self.ahead_max_s}")
        for name in ("confidence", "market_wide_factor", "similar_min", "confirm_move"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], was {getattr(self, name)}")
        for name in ("calls_per_hour", "calls_per_day"):
            if not 1 <= getattr(self, name) <= 10_000_000:
                raise ValueError(f"{name} must lie in [1, 10000000], was {getattr(self, name)}")
        if not 0 <= self.confirm_bars <= 10_000:
            raise ValueError(f"confirm_bars must lie in [0, 10000], was {self.confirm_bars}")
        for name in ("exposure_max", "exposure_hour_max"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, was {getattr(self, name)}")


class HeadlineRequest(Request):
    """One headline to be read."""

    text: str  # cleaned, untrusted
    symbol: str
    published: datetime
    source: str
    item_id: str


class Answer(csp.Struct, strict=True):
    """What a backend says of one headline, as it is recorded."""

    symbol: str  # the key of the request
    asof: datetime
    action: AdviceAction
    score: float
    confidence: float
    reason: str
    backend: str
    model_id: str
    prompt_id: str
    input_hash: str


def _shown(text: str) -> str:
    """What of an untrusted name is shown to a person: printable ASCII, cut."""
    return "".join(char for char in text if " " <= char <= "~")[:_ID_MAX]


def _one_line(text: str) -> str:
    """What a model says of its failure, which may hold what it was given, without what would move a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _held(item: NewsItem, reason: str, config: AdvisorConfig, now: datetime) -> Advice:
    """HOLD, as the headline was not read."""
    return Advice(
        symbol=item.symbol,
        action=_HOLD,
        score=0.0,
        confidence=0.0,
        reason=reason,
        backend=GUARD,
        model_id="",
        prompt_id="",
        item_id=_shown(item.item_id),
        input_hash="",
        latency_ms=0.0,
        asof=now,
        published=item.event_time,
        expires=now + timedelta(seconds=config.expires_after_s),
    )


@csp.node
def screen(news: ts[NewsItem], symbols: tuple[str, ...], config: AdvisorConfig) -> csp.Outputs(
    request=ts[HeadlineRequest], held=ts[Advice], alert=ts[Alert]
):
    """Which headlines are read. Text from outside is data: it is cleaned, cut, and never decides whom it is about.

    A headline is held back whose source is not allowed, that is older than `stale_after_s` or from the future, that
    speaks to its reader (`models.advisor.guard`), that repeats another one of the window, or that finds the budget of
    the hour or the day used up.

    Args:
        news: of any symbol; what is about others than `symbols`, and not about the market as a whole, is not looked at.

    Ticks:
        `request` or `held` with every headline about `symbols` or about no one symbol. `alert` where one was held back
        by the guard or the budget: WARNING, at most once an hour for one reason and source.
    """
    with csp.state():
        s_known = frozenset(("", *symbols))
        s_recent = Recent(timedelta(seconds=config.duplicate_window_s), config.similar_min)
        s_budget = Budget(config.calls_per_hour, config.calls_per_day)
        s_told: dict[tuple[str, str], datetime] = {}
        s_count = 0

    if csp.ticked(news) and news.symbol in s_known:
        now = csp.now()
        age_s = (now - news.event_time).total_seconds()
        reason = alarming = ""
        if config.sources and news.source not in config.sources:
            reason = "its source is not allowed"
        elif age_s > config.stale_after_s:
            reason = "stale"
        elif age_s < -config.ahead_max_s:
            reason = "from the future"
        elif (verdict := inspect(news.headline)).held:  # which takes a millisecond, and only where it must
            reason = REASONS[verdict.held]
            alarming = "" if verdict.held == "empty" else verdict.held
        elif s_recent.repeats(verdict.text, news.symbol, now):
            reason = "the same news again"
        elif not s_budget.book(now):
            s_recent.forget()
            reason = alarming = "the budget is used up"
        if not reason:
            s_count += 1
            csp.output(
                request=HeadlineRequest(
                    key=f"{s_count}-{fingerprint(verdict.text)[:16]}",
                    asof=now,
                    text=verdict.text,
                    symbol=news.symbol,
                    published=news.event_time,
                    source=news.source,
                    item_id=_shown(news.item_id),
                )
            )
        else:
            csp.output(held=_held(news, reason, config, now))
        if alarming:
            whose = _shown(news.source) or "an unnamed source"
            kind = (alarming, whose)
            if kind not in s_told or now - s_told[kind] >= _TELL_AGAIN:
                s_told.pop(kind, None)
                s_told[kind] = now
                if len(s_told) > _TOLD_MAX:
                    del s_told[next(iter(s_told))]
                csp.output(
                    alert=Alert(
                        level=AlertLevel.WARNING,
                        source=SOURCE,
                        symbol=news.symbol,
                        message=f"{SOURCE} did not read a headline of {whose} ({_shown(news.item_id)}): {reason}",
                        value=0.0,
                    )
                )


def _answered(asked: HeadlineRequest, said: Answer | None, failed: str, config: AdvisorConfig, now: datetime) -> Advice:
    """What was said; HOLD where nothing was."""
    timeout = failed.startswith("TimeoutError")
    return Advice(
        symbol=asked.symbol,
        action=said.action if said else _HOLD,
        score=said.score if said else 0.0,
        confidence=said.confidence if said else 0.0,
        reason=said.reason if said else "timeout" if timeout else "failed",
        backend=said.backend if said else GUARD,
        model_id=said.model_id if said else "",
        prompt_id=said.prompt_id if said else "",
        item_id=asked.item_id,
        input_hash=said.input_hash if said else "",
        latency_ms=(now - asked.asof).total_seconds() * 1e3,
        asof=asked.asof,
        published=asked.published,
        expires=asked.asof + timedelta(seconds=config.expires_after_s),
    )


@csp.node
def _settled(
    request: ts[HeadlineRequest], answer: ts[Answer], error: ts[NodeError], config: AdvisorConfig, strict: bool
) -> csp.Outputs(advice=ts[list[Advice]], error=ts[list[NodeError]]):
    with csp.alarms():
        a_late = csp.alarm(str)
    with csp.state():
        s_asked: dict[str, HeadlineRequest] = {}  # by key
        s_given_up: dict[str, None] = {}
        s_patience = timedelta(seconds=config.infer.stale_after_s + 1.0, milliseconds=config.infer.latency_ms)

    now = csp.now()
    if csp.ticked(request):
        s_asked[request.key] = request
        csp.schedule_alarm(a_late, s_patience, request.key)
    advice: list[Advice] = []
    errors: list[NodeError] = []
    if csp.ticked(answer):
        asked = s_asked.pop(answer.symbol, None)
        if asked is not None:
            advice.append(_answered(asked, answer, "", config, now))
            if answer.confidence == 0.0:  # the backend works, and could not say anything, such as a server out of reach
                text = f"AdvisorError: {answer.reason}"
                errors.append(NodeError(node=SOURCE, symbol=asked.symbol, error=_one_line(text)))
        elif answer.symbol not in s_given_up:
            raise ValueError(f"{SOURCE} has an answer to {answer.symbol} at {now}, which was not asked")
    failures = [(error.symbol, error.error)] if csp.ticked(error) else []
    if csp.ticked(a_late):
        failures.append((a_late, "TimeoutError: no answer came"))
    for key, text in failures:
        asked = s_asked.pop(key, None)
        if asked is None:
            continue
        if strict:
            raise AdvisorError(f"no answer is recorded to the headline {asked.item_id!r} of {asked.published}: {text}")
        s_given_up[key] = None
        if len(s_given_up) > _LATE_MAX:
            del s_given_up[next(iter(s_given_up))]
        advice.append(_answered(asked, None, text, config, now))
        errors.append(NodeError(node=SOURCE, symbol=asked.symbol, error=_one_line(text)))
    if advice:
        csp.output(advice=advice)
    if errors:
        csp.output(error=errors)


@csp.graph
def settle(
    request: ts[HeadlineRequest], answer: ts[Answer], error: ts[NodeError], config: AdvisorConfig, strict: bool
) -> csp.Outputs(advice=ts[Advice], error=ts[NodeError]):
    """One Advice a question: the answer, or HOLD where there was none in time.

    Args:
        error: of the questions, their keys as symbols.
        strict: a question without an answer is an error in what was recorded, and stops the run.

    Ticks:
        `advice` with each answer, and HOLD with each failure and once no answer was there for `infer.stale_after_s` and
        a second more. `error` with each failure and each answer that says nothing, under the symbol of its headline.

    Raises:
        ValueError: an answer to a question that was never asked: the recording is another graph's.
        AdvisorError: a failure, if `strict`.
    """
    done = _settled(request, answer, error, config, strict)
    return csp.output(advice=csp.unroll(done.advice), error=csp.unroll(done.error))


@csp.node
def advice_signal(advice: ts[Advice], close: ts[float], symbol: str, config: AdvisorConfig) -> ts[Signal]:
    """What advice is worth to one symbol: an opinion that fades, once the market has confirmed it.

    Confirmed is advice when one of the next `confirm_bars` closes lies more than `confirm_move` beyond the close that
    was last when it came, the way that it advises. What is not confirmed by then is forgotten. HOLD says nothing, and
    takes nothing back.

    Args:
        advice: about any symbol; what is about `symbol` or about no one symbol counts, the newest alone.
        close: of each bar, positive.

    Ticks:
        Source "advisor", as of the headline: when advice is confirmed, with confidence `confidence` times its own
        (times `market_wide_factor` for news about no one symbol); with confidence 0 when it expires.

    Raises:
        ValueError: a close that is not positive and finite.
    """
    with csp.alarms():
        a_over = csp.alarm(datetime)
    with csp.state():
        s_close = 0.0
        s_base = 0.0
        s_waiting: Advice | None = None
        s_left = 0  # closes within which it may still be confirmed
        s_until: datetime | None = None  # when what was last said expires

    confirmed: Advice | None = None
    if csp.ticked(close):
        if not 0.0 < close < math.inf:
            raise ValueError(f"close of {symbol} must be positive and finite, was {close} at {csp.now()}")
        if s_waiting is not None:
            side = 1.0 if s_waiting.action == _BUY else -1.0
            if not s_base:  # it came before any price
                s_base = close
            elif side * (close / s_base - 1.0) > config.confirm_move:
                confirmed, s_waiting = s_waiting, None
            else:
                s_left -= 1
                if not s_left:
                    s_waiting = None
        s_close = close
    if csp.ticked(advice) and advice.action != _HOLD and (advice.symbol == symbol or advice.symbol == ""):
        s_base, s_left, s_waiting = s_close, config.confirm_bars, advice
        if not config.confirm_bars:
            confirmed, s_waiting = advice, None
    if confirmed is not None and confirmed.expires > csp.now():
        s_until = confirmed.expires
        csp.schedule_alarm(a_over, s_until, s_until)
        csp.output(
            Signal(
                symbol=symbol,
                source=SOURCE,
                score=confirmed.score,
                confidence=config.confidence
                * confirmed.confidence
                * (1.0 if confirmed.symbol else config.market_wide_factor),
                horizon_s=config.horizon_s,
                asof=confirmed.asof,
            )
        )
    elif csp.ticked(a_over) and a_over == s_until:
        s_until = None
        csp.output(
            Signal(symbol=symbol, source=SOURCE, score=0.0, confidence=0.0, horizon_s=config.horizon_s, asof=csp.now())
        )
