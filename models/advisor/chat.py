"""The advisor behind an HTTP interface: any server that speaks OpenAI's chat completions (vLLM, Ollama, llama.cpp).

It has a deadline, a budget a day, a budget of tries again, and stops asking a server that fails. The key comes from the
environment, is sent to the configured address alone, and stands in no message.
"""

import asyncio
import json
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from models.advisor.advice import NOTHING, Advice, AdvisorError, Headline, hold, judged, moment
from models.advisor.chat_answer import PROMPT_ID, SYSTEM, AnswerError, body, chances, used_tokens
from models.advisor.chat_limits import Breaker, DayBudget, RetryBudget
from models.advisor.text import clean

_ANSWER_BYTES_MAX = 1 << 20
_BROKEN = (400, 401, 403, 404, 405, 422)  # asking again would not help
_WAIT_FIRST_S, _WAIT_MOST_S = 0.1, 5.0
_PAUSE_MOST_S = 3_600.0  # however long a server asks to be left alone
_CHARS_A_TOKEN = 3  # a cautious guess, before the server says what it counted


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatConfig:
    """Which server, and how much of it."""

    url: str = "http://127.0.0.1:8000/v1"  # what stands in front of /chat/completions
    model: str = ""  # its name there
    key_env: str = "ADVISOR_API_KEY"  # environment variable with the key; not set: none is sent
    threshold: float = 0.8  # of the probability of a direction
    deadline_s: float = 5.0  # of a headline, all tries together
    tries: int = 3
    concurrency: int = 4
    tokens_max: int = 64  # of an answer
    logprobs: bool = True  # ask for them; where none come, what the model says of itself counts
    seed: int = 0
    learnt_until: str = ""  # date at which the model's training data ends, ISO 8601, UTC; "": nobody says
    calls_per_day: int = 1_000
    tokens_per_day: int = 500_000
    retry_share: float = 0.1  # tries again earned by a call
    retries_saved: float = 10.0
    breaker_failures: int = 5  # in a row
    breaker_rest_s: float = 30.0

    def __post_init__(self) -> None:
        if not _sound(self.url):
            raise ValueError("url must be http or https with a host, and without a password or a query")
        if not self.model:
            raise ValueError("model must be named as the server knows it, was ''")
        for name in ("deadline_s", "breaker_rest_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")
        for name in ("tries", "concurrency", "tokens_max", "calls_per_day", "tokens_per_day", "breaker_failures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, was {getattr(self, name)}")
        if not 0.0 < self.threshold <= 1.0 or not 0.0 <= self.retry_share <= 1.0:
            raise ValueError(
                f"want 0 < threshold <= 1, 0 <= retry_share <= 1, was {self.threshold}, {self.retry_share}"
            )
        if not 0.0 <= self.retries_saved < math.inf:
            raise ValueError(f"retries_saved must be 0 or more, was {self.retries_saved}")
        moment(self.learnt_until)


def _sound(url: str) -> bool:
    """Whether it is an address to which a path can be added, and without a secret: it is shown."""
    try:
        parts = urlsplit(url)
        more = parts.username or parts.password or parts.query or parts.fragment or parts.port == 0
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not more
    except ValueError:
        return False


class _AgainError(Exception):
    """A try that failed; another one may not. The message is the reason."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # that the server asked for


class Chat:
    """Asks a server. One thread may use it at a time; close it, or use it in a `with`.

    Args:
        now: seconds since 1970, for the budget of the day.
        steady: seconds of a clock that never steps, for the breaker.
    """

    backend = "chat"
    prompt_id = PROMPT_ID

    def __init__(
        self, config: ChatConfig, *, now: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._now, self._steady = config, now, steady
        self.learnt_until = moment(config.learnt_until)
        self.model_id = f"{config.model}@{urlsplit(config.url).netloc}"
        self._budget = DayBudget(config.calls_per_day, config.tokens_per_day)
        self._retries = RetryBudget(config.retry_share, config.retries_saved)
        self._breaker = Breaker(config.breaker_failures, config.breaker_rest_s)
        self._random = random.Random(config.seed)  # of waits alone
        self._runner = asyncio.Runner()  # of a loop that begins where it is first asked
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._headers()  # a key that cannot be sent is found now

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; twice does no harm."""
        self._closed = True
        if self._session is not None:
            self._runner.run(self._session.close())
            self._session = None
        self._runner.close()

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        """Ask for each headline, several at once. A late, refused or unreadable answer is HOLD with the reason.

        Raises:
            AdvisorError: the server does not know the model, the key or the interface.
        """
        if self._closed:
            raise AdvisorError("the chat advisor is closed")
        return self._runner.run(self._all(batch))

    async def _all(self, batch: Sequence[Headline]) -> list[Advice]:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers())
        room = asyncio.Semaphore(self._config.concurrency)

        async def one(headline: Headline) -> Advice:
            async with room:
                return await self._one(headline)

        tasks = [asyncio.ensure_future(one(headline)) for headline in batch]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, headline: Headline) -> Advice:
        text = clean(headline.text).text
        if not text:
            return hold(self, headline, NOTHING)
        try:
            async with asyncio.timeout(self._config.deadline_s):
                return await self._tries(headline, text)
        except TimeoutError:
            self._breaker.failed(self._steady())
            return hold(self, headline, "timeout")
        except BaseException:  # it says nothing of the server, which may be asked again
            self._breaker.left()
            raise

    async def _tries(self, headline: Headline, text: str) -> Advice:
        config = self._config
        reason = "no answer"
        self._retries.earn()
        for attempt in range(config.tries):
            if not self._breaker.allows(self._steady()):
                return hold(self, headline, "the server is left alone after failures")
            booked = (len(SYSTEM) + len(text)) // _CHARS_A_TOKEN + config.tokens_max
            if not self._budget.book(self._now(), booked):
                self._breaker.left()
                return hold(self, headline, "the budget of the day is used up")
            try:
                answer = await self._ask(headline, text)
            except _AgainError as error:
                self._breaker.failed(self._steady(), error.wait_s)
                reason = str(error)
                limit = min(_WAIT_MOST_S, _WAIT_FIRST_S * 2.0**attempt)
                wait_s = max(error.wait_s, limit * (1.0 - self._random.random()))
                if attempt + 1 == config.tries or wait_s >= config.deadline_s or not self._retries.spend():
                    break
                await asyncio.sleep(wait_s)
                continue
            self._breaker.worked()
            self._budget.settle(booked, used_tokens(answer) or booked)
            return self._judge(headline, answer)
        return hold(self, headline, reason)

    def _judge(self, headline: Headline, answer: Any) -> Advice:
        try:
            found, _ = chances(answer)
        except AnswerError as error:
            return hold(self, headline, f"unusable answer: {error}")
        return judged(self, headline, found, self._config.threshold)

    async def _ask(self, headline: Headline, text: str) -> Any:
        config = self._config
        asked = body(
            headline, text, config.model, tokens_max=config.tokens_max, seed=config.seed, logprobs=config.logprobs
        )
        assert self._session is not None
        try:
            # No redirects: the key is for this address alone.
            url = f"{config.url.rstrip('/')}/chat/completions"
            async with self._session.post(url, json=asked, allow_redirects=False) as response:
                if response.status == 429:
                    raise _AgainError(
                        "too many requests", _retry_after_s(response.headers.get("Retry-After"), self._now())
                    )
                if response.status in _BROKEN:
                    raise AdvisorError(f"want {self.model_id} to answer, was status {response.status}")
                if response.status != 200:
                    wait_s = _retry_after_s(response.headers.get("Retry-After"), self._now())
                    raise _AgainError(f"status {response.status}", wait_s)
                data = b""
                while len(data) <= _ANSWER_BYTES_MAX and (more := await response.content.read(_ANSWER_BYTES_MAX)):
                    data += more
        except aiohttp.ClientError as error:
            raise _AgainError(f"no connection: {type(error).__name__}") from None
        if len(data) > _ANSWER_BYTES_MAX:
            raise _AgainError("the answer is too long")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise _AgainError("the answer is not JSON") from None

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self._config.key_env, "") if self._config.key_env else ""
        if any(not 32 < ord(char) < 127 for char in key):
            raise AdvisorError(f"{self._config.key_env} must be printable and without blanks")
        return {"Authorization": f"Bearer {key}"} if key else {}


def _retry_after_s(value: str | None, now_s: float) -> float:
    """Seconds that a server asks for, as a number or a date; 0 where it asks for nothing."""
    if value is None:
        return 0.0
    if value.strip().isascii() and value.strip().isdigit():
        return min(_PAUSE_MOST_S, float(value))
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return min(_PAUSE_MOST_S, max(0.0, (when - datetime.fromtimestamp(now_s, UTC)).total_seconds()))
