"""What a venue's refusal means: a stable code, its own words without a secret, and whether the order may yet be there.

Codes:

    insufficient_funds  the account has too little for it
    filter              a price, quantity or worth that the venue does not take
    rate_limit          too many requests or orders; `wait_s` says for how long
    duplicate_id        the venue has an order of this client id
    unknown_order       the venue has no such order
    venue_down          it could not be reached, so nothing was sent
    auth                key, signature or permission
    clock               the request was older than its window, or ahead of the venue's clock
    bad_symbol          the venue does not trade it
    no_answer           sent, and what became of it is not known
    rejected            anything else that it refused, in its words
"""

import json
import re
from typing import Any, NamedTuple

import aiohttp
import ccxt

from feeds.exchange import ExchangeConfig, scrub

_QUERY = re.compile(r"\?\S*")  # holds signatures
_FILTER = re.compile(r"filter failure|LOT_SIZE|PRICE_FILTER|NOTIONAL|lot size|price is invalid|precision", re.I)
_BODY = re.compile(r"\{.*\}", re.S)

# The first that fits. What is not here and was answered was refused; what was not answered may be there.
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (ccxt.InsufficientFunds, "insufficient_funds"),
    (ccxt.DuplicateOrderId, "duplicate_id"),
    (ccxt.OrderNotFound, "unknown_order"),
    (ccxt.DDoSProtection, "rate_limit"),
    (ccxt.RateLimitExceeded, "rate_limit"),
    (ccxt.InvalidNonce, "clock"),
    (ccxt.AuthenticationError, "auth"),
    (ccxt.BadSymbol, "bad_symbol"),
)


class Trouble(NamedTuple):
    """What went wrong with one request."""

    code: str
    reason: str
    certain: bool  # the venue did not do what it was asked
    wait_s: float = 0.0  # what it asked to be left alone for


def trouble(error: Exception, config: ExchangeConfig, wait_s: float = 0.0) -> Trouble:
    """Make one thing of the many that a request through ccxt can raise.

    Args:
        config: of the venue; its secrets are kept out of the reason.
        wait_s: what the venue's last answer asked for, if it was asked too often.
    """
    reason = _words(error, config)
    if not isinstance(error, ccxt.BaseError):
        return Trouble("no_answer", reason, certain=False)  # the answer came, and could not be read
    if isinstance(error.__cause__, aiohttp.ClientConnectorError):
        return Trouble("venue_down", reason, certain=True)  # no connection was made, so nothing went out
    if isinstance(error.__cause__, (aiohttp.ClientError, OSError)):  # ccxt calls a cut answer an ExchangeError
        return Trouble("no_answer", reason, certain=False)
    if "duplicate order" in reason.lower():  # ccxt has no class for it at some venues
        return Trouble("duplicate_id", reason, certain=False)
    for kind, code in _CODES:
        if isinstance(error, kind):
            # An id is sent once, so a second one of it means that the first arrived.
            return Trouble(code, reason, code != "duplicate_id", wait_s if code == "rate_limit" else 0.0)
    if isinstance(error, ccxt.ExchangeError):
        return Trouble("filter" if _FILTER.search(reason) else "rejected", reason, certain=True)
    return Trouble("no_answer", reason, certain=False)


def _words(error: BaseException, config: ExchangeConfig) -> str:
    """The venue's message where there is one, else what was asked and what came instead of an answer; one line, without
    queries, secrets and the library's own name for the venue."""
    text = str(error).removeprefix(f"{config.exchange} ") or type(error).__name__
    silent = "no answer in time" if isinstance(error, ccxt.RequestTimeout) else ""
    came = getattr(error.__cause__, "strerror", None) or silent  # the library says where, and not what was wrong
    body = _BODY.search(text)
    if body is not None:
        try:
            answer: Any = json.loads(body.group())
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("msg"), str):
            text, came = answer["msg"], ""
    return scrub(_QUERY.sub("", text) + (f" ({came})" if came else ""), config)
