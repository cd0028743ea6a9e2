"""Whose request it is: HMAC SHA-256 over what was sent, and a timestamp that is fresh.

Source: Binance spot API, "SIGNED endpoint security" and "WebSocket API, request security".
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from brokers.local_exchange.accounts import Account, Accounts
from brokers.local_exchange.errors import ApiError, missing
from brokers.local_exchange.rules import whole

_SIGNATURE = re.compile(r"(?:^|&)signature=[^&]*")
_KEY = re.compile(r"[!-~]{1,128}")
_WINDOW_MS, _WINDOW_MAX_MS = 5_000, 60_000
_AHEAD_MS = 1_000  # by which a client's clock may be ahead


def of_rest(accounts: Accounts, now_ms: int, key: str, query: str, body: str) -> tuple[Account, dict[str, str]]:
    """The account that signed a REST request, and the request's parameters.

    Args:
        key: the header X-MBX-APIKEY, "" where there is none.
        query, body: as they were sent, percent encoding and all. Both are signed, one after the other.

    Raises:
        ApiError: -2014 or -2015 for the key, -1102 for what is missing, -1022 for the signature, -1021 for the time.
    """
    account, secret = _owner(accounts, key)
    params = dict(parse_qsl(body, keep_blank_values=True)) | dict(parse_qsl(query, keep_blank_values=True))
    signed = _SIGNATURE.sub("", query).removeprefix("&") + _SIGNATURE.sub("", body).removeprefix("&")
    _check(params, signed, secret, now_ms)
    return account, params


def of_websocket(accounts: Accounts, now_ms: int, params: Mapping[str, object]) -> tuple[Account, dict[str, str]]:
    """The account that signed a request of the websocket API, and its parameters as REST would have them.

    They are signed sorted by name, unencoded, with the key among them.

    Raises:
        ApiError: as `of_rest`.
    """
    texts = {name: _text(value) for name, value in params.items()}
    account, secret = _owner(accounts, texts.get("apiKey", ""))
    signed = "&".join(f"{name}={texts[name]}" for name in sorted(texts) if name != "signature")
    _check(texts, signed, secret, now_ms)
    return account, texts


def _owner(accounts: Accounts, key: str) -> tuple[Account, str]:
    if not _KEY.fullmatch(key):
        raise ApiError(-2014, "API-key format invalid.", 401)
    owner = accounts.of(key)
    if owner is None:
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
    return owner


def _check(params: Mapping[str, str], signed: str, secret: str, now_ms: int) -> None:
    if not params.get("signature"):
        raise missing("signature")
    sent_ms = whole(params, "timestamp")
    if sent_ms is None:
        raise missing("timestamp")
    window_ms = whole(params, "recvWindow", _WINDOW_MS)
    assert window_ms is not None
    if window_ms > _WINDOW_MAX_MS:
        raise ApiError(-1131, f"recvWindow must be less than {_WINDOW_MAX_MS}")
    wanted = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted.encode(), params["signature"].encode()):
        raise ApiError(-1022, "Signature for this request is not valid.")
    if sent_ms >= now_ms + _AHEAD_MS:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - sent_ms > window_ms:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")


def _text(value: object) -> str:
    """A JSON value as it is signed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
