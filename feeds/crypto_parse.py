"""What ccxt hands over, as events: checked, because an exchange or a broken line can send anything. No I/O."""

import math
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from feeds.events import Bar, Depth, Quote, Side, Trade

_EPOCH = datetime(1970, 1, 1)
_FIRST_MS, _END_MS = 946_684_800_000, 7_258_118_400_000  # the years 2000 to 2199
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}


class BadItemError(ValueError):
    """A trade, quote, book or bar that cannot be. The message says what was wanted and what came."""


def trade(raw: Mapping[str, Any], symbol: str, received: datetime) -> Trade:
    """A trade without its id.

    Raises:
        BadItemError: its price, size or time is missing or impossible.
    """
    fields: dict[str, Any] = {
        "symbol": symbol,
        "event_time": moment(raw.get("timestamp")),
        "received": received,
        "price": _positive(raw.get("price"), "price"),
        "size": _positive(raw.get("amount"), "size"),
    }
    side = _SIDES.get(raw.get("side") or "")
    return Trade(**fields) if side is None else Trade(**fields, side=side)


def counted_id(raw: Mapping[str, Any]) -> int:
    """The id of a trade where ids are counts.

    Raises:
        BadItemError: it is none.
    """
    text = raw.get("id")
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadItemError(f"want a count as trade id, was {text!r:.40}")
    return int(text)


def key(raw: Mapping[str, Any]) -> Hashable:
    """What tells a trade apart where ids are no counts: its id, or all that it says where it has none."""
    text = raw.get("id")
    if text:
        return str(text)
    return raw.get("timestamp"), raw.get("side"), raw.get("price"), raw.get("amount")


def quote(raw: Mapping[str, Any], symbol: str, received: datetime) -> Quote:
    """Best bid and ask of a ticker; at `received` where the exchange gives them no time, as Binance does.

    Raises:
        BadItemError: a side is missing or impossible, or they are crossed.
    """
    bid, ask = _positive(raw.get("bid"), "bid"), _positive(raw.get("ask"), "ask")
    if bid > ask:
        raise BadItemError(f"want bid <= ask, was {bid} and {ask}")
    time = raw.get("timestamp")
    return Quote(
        symbol=symbol,
        event_time=received if time is None else moment(time),
        received=received,
        bid=bid,
        ask=ask,
        bid_size=_size(raw.get("bidVolume"), "bid size"),
        ask_size=_size(raw.get("askVolume"), "ask size"),
    )


def depth(raw: Mapping[str, Any], levels: int, symbol: str, received: datetime) -> Depth:
    """The best levels of an order book, as a whole.

    Raises:
        BadItemError: a price or size is impossible, prices are out of order, or the sides are crossed.
    """
    bids, asks = _side(raw.get("bids"), levels, -1.0), _side(raw.get("asks"), levels, 1.0)
    if len(bids) and len(asks) and bids[0, 0] > asks[0, 0]:
        raise BadItemError(f"want bid <= ask, was {bids[0, 0]} and {asks[0, 0]}")
    time = raw.get("timestamp")
    return Depth(
        symbol=symbol,
        event_time=received if time is None else moment(time),
        received=received,
        bids=bids,
        asks=asks,
        snapshot=True,
    )


def bar(row: Sequence[Any], length: timedelta, symbol: str, received: datetime) -> Bar:
    """A row of ccxt's OHLCV, as closed.

    Raises:
        BadItemError: a value is missing or impossible, or high and low do not enclose open and close.
    """
    if len(row) < 6:
        raise BadItemError(f"want time, open, high, low, close and volume, was {len(row)} values")
    opened = moment(row[0])
    prices = [_positive(value, name) for value, name in zip(row[1:5], ("open", "high", "low", "close"), strict=True)]
    first, high, low, last = prices
    if not low <= min(first, last) <= max(first, last) <= high:
        raise BadItemError(f"want low <= open, close <= high, was open {first}, high {high}, low {low}, close {last}")
    return Bar(
        symbol=symbol,
        event_time=opened + length,
        received=received,
        open_time=opened,
        open=first,
        high=high,
        low=low,
        close=last,
        volume=_size(row[5], "volume"),
    )


def moment(ms: Any) -> datetime:
    """Milliseconds since 1970 as naive UTC.

    Raises:
        BadItemError: it is no such count, or not in the years 2000 to 2199.
    """
    if isinstance(ms, bool) or not isinstance(ms, (int, float)) or not _FIRST_MS <= ms < _END_MS:
        raise BadItemError(f"want a time in milliseconds since 1970, was {ms!r:.40}")
    return _EPOCH + timedelta(milliseconds=ms)


def milliseconds(time: datetime) -> int:
    """Naive UTC as whole milliseconds since 1970, cut off."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _positive(value: Any, name: str) -> float:
    number = _number(value, name)
    if number <= 0.0:
        raise BadItemError(f"want a positive {name}, was {number}")
    return number


def _size(value: Any, name: str) -> float:
    number = _number(value, name)
    if number < 0.0:
        raise BadItemError(f"want a {name} from 0, was {number}")
    return number


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadItemError(f"want a number as {name}, was {value!r:.40}")
    return float(value)


def _side(rows: Any, levels: int, rising: float) -> npt.NDArray[np.float64]:
    """One side of a book, (n, 2), n <= levels; `rising` is 1.0 where prices rise from the best on, else -1.0."""
    try:
        out = np.array([[row[0], row[1]] for row in list(rows)[:levels]], dtype=np.float64).reshape(-1, 2)  # (n, 2)
    except (TypeError, ValueError, IndexError):
        raise BadItemError(f"want rows of price and size, was {type(rows).__name__}") from None
    if not np.isfinite(out).all() or (out <= 0.0).any() or (np.diff(out[:, 0]) * rising <= 0.0).any():
        raise BadItemError("want positive prices in order, each once, and positive sizes")
    return out
