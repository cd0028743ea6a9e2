"""What comes in from outside: trades, quotes, bars, news, macro points and the state of the feeds themselves.

All times are naive UTC, as csp wants them. `event_time` is the source's own clock; engine time is csp's.
"""

from datetime import datetime

import csp
from csp.typing import NumpyNDArray

NOT_RECEIVED = datetime(1970, 1, 1)  # of what came from history


class Side(csp.Enum):
    BUY = 1
    SELL = 2


class Event(csp.Struct):
    """Header of everything that is demultiplexed by symbol."""

    symbol: str
    event_time: datetime
    received: datetime = NOT_RECEIVED  # wall clock when a live feed read it


class Trade(Event):
    """One print. `side` is the aggressor's, left unset where the source does not tell."""

    price: float  # quote currency
    size: float  # base units or contracts
    side: Side
    trade_id: int = 0  # the source's own, 0 where it has none


class Quote(Event):
    """Best bid and ask."""

    bid: float
    ask: float
    bid_size: float
    ask_size: float


class Depth(Event):
    """A change of the order book: the new size of each price level named, 0.0 where the level is gone."""

    bids: NumpyNDArray[float]  # (n, 2) price and size
    asks: NumpyNDArray[float]  # (n, 2)
    snapshot: bool  # True: the whole book, what is not named is gone


class Bar(Event):
    """One bar, known at its close: `event_time` is the close, `open_time` the start of the interval."""

    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float  # base units; 0.0 where the source has none


class NewsItem(Event):
    """One headline. `event_time` is when it was published; `symbol` is "" for news about no one symbol."""

    item_id: str
    headline: str
    body: str
    source: str


class MacroPoint(csp.Struct):
    """One value of a macro series, at the time it could be known (point in time)."""

    series: str
    event_time: datetime  # the end of the period it speaks of
    value: float


class Session(csp.Enum):
    """Which part of an exchange's day it is."""

    CLOSED = 1
    PRE_MARKET = 2
    MARKET_HOURS = 3
    AFTER_HOURS = 4


class FeedState(csp.Enum):
    """What is known of a live feed. After STALE and GAP no new risk may rest on it, until RECOVERED or CONNECTED."""

    CONNECTED = 1  # the first time it delivers
    LAGGING = 2  # what comes is late; told once an episode, which RECOVERED ends
    STALE = 3  # it has gone silent, or its connection is lost
    GAP = 4  # something is known to be missing, and is being fetched
    RECOVERED = 5  # fresh and whole again
    DROPPED = 6  # something impossible came and was kept out; what was said before still holds


class FeedStatus(csp.Struct, strict=True):
    """How a live feed itself is doing. It ticks on change alone."""

    feed: str  # source and kind, such as "binance trades"
    symbol: str  # "" for all symbols of the feed
    state: FeedState
    detail: str  # a sentence for a person, without a secret
    value: float  # seconds of silence or lag; items missing, fetched (RECOVERED) or bad (DROPPED); 0.0: no figure
