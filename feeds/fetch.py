"""One HTTP GET, bounded in time and size: an answer, or one clear error.

An address may hold a token: no message here names one, or where it redirects to.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from feeds.errors import FeedError, OfflineError
from feeds.polling import AskedToWaitError

ANSWER_BYTES_MAX = 4 << 20  # a daily series of 80 years has 0.5 MB
_PART_BYTES = 1 << 16
_REDIRECTS_MAX = 5
_WAIT_MAX_S = 86_400.0  # of what a server asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]  # their names in any case
    body: bytes  # empty unless the status is 200


async def fetch(
    http: aiohttp.ClientSession,
    url: str,
    who: str,
    timeout_s: float,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    bytes_max: int = ANSWER_BYTES_MAX,
) -> Answer:
    """Ask once.

    Args:
        who: begins each message, such as "GDP: FRED".
        timeout_s: for the whole answer.
        bytes_max: of its body, unpacked.

    Raises:
        AskedToWaitError: the server was asked too often, or is busy and says for how long.
        OfflineError: it could not be reached, or did not answer in time.
        FeedError: its answer cannot be read, or has more than `bytes_max` bytes.
    """
    total = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with http.get(
            url, params=params, headers=headers, timeout=total, max_redirects=_REDIRECTS_MAX
        ) as response:
            after = response.headers.get("Retry-After", "")
            if response.status == 429 or (response.status == 503 and after):
                raise AskedToWaitError(f"{who} refuses for now (HTTP {response.status})", _wait_s(after))
            body = await _body(response, who, bytes_max) if response.status == 200 else b""
            return Answer(status=response.status, headers=response.headers, body=body)
    except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise OfflineError(f"{who} could not be reached ({reason})") from error
    except aiohttp.ClientError as error:
        raise FeedError(f"{who} does not answer as HTTP wants it ({type(error).__name__})") from error


async def _body(response: aiohttp.ClientResponse, who: str, bytes_max: int) -> bytes:
    """All of it, unpacked part by part: a small answer may unpack to a huge one."""
    body = bytearray()
    async for part in response.content.iter_chunked(_PART_BYTES):
        body += part
        if len(body) > bytes_max:
            raise FeedError(f"{who} must answer with at most {bytes_max} bytes, has more")
    return bytes(body)


def _wait_s(text: str) -> float:
    """Retry-After: seconds, or a date; 0.0 where it is neither."""
    try:
        wait_s = float(text) if not text.endswith("GMT") else _seconds_until(parsedate_to_datetime(text))
    except (ValueError, TypeError):
        return 0.0
    return min(max(0.0, wait_s), _WAIT_MAX_S) if math.isfinite(wait_s) else 0.0


def _seconds_until(when: datetime) -> float:
    return (when - datetime.now(UTC)).total_seconds()
