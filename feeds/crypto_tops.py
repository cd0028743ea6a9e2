"""The best bid and ask of one symbol, and the top of its order book: always the latest, since an old one is no news."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from feeds.clock import utc_now
from feeds.crypto_link import Link, Subscription
from feeds.crypto_parse import BadItemError, depth, quote
from feeds.errors import FeedError
from feeds.events import Depth, Event, Quote

_ASKED_LEVELS = 20  # every exchange serves so many


class Tops:
    """What quotes and depth share: the latest is sent; after silence the exchange is asked whether it still holds."""

    kind: str  # of the stream, and the name of its output

    def __init__(self, link: Link, symbol: str) -> None:
        self.link, self.symbol = link, symbol
        self.health = link.health(self.kind, symbol)
        self._subscription = Subscription(link, self.watch)
        self._quiet = False
        self.sent: Any = None  # the event sent last

    async def run(self) -> None:
        """Work until cancelled."""
        await self._subscription.run(self)

    def urls(self) -> Collection[str]:
        """The sockets that it listens to."""
        return self._subscription.urls

    async def watch(self) -> None:
        """One call of ccxt's."""
        raise NotImplementedError

    def latest(self) -> Any:
        """What ccxt holds, where it has changed since the last call; None where it has not."""
        raise NotImplementedError

    def parse(self, raw: Mapping[str, Any]) -> Event:
        """The event.

        Raises:
            BadItemError: it cannot be.
        """
        raise NotImplementedError

    def repeats(self, event: Any) -> bool:
        """Whether an event says what the last one said, and need not be sent."""
        raise NotImplementedError

    def data(self) -> bool:
        """Send what has arrived; True if it was new."""
        raw = self.latest()
        if raw is None:
            return False
        try:
            event = self.parse(raw)
        except BadItemError as error:
            self.health.bad(str(error))
            return False
        if self.sent is None or not self.repeats(event):
            self.sent = event
            self.link.push(self.kind, event)
        self._quiet = False
        self.health.well("connected")
        self.health.lag((event.received - event.event_time).total_seconds())
        return True

    def lost(self, error: FeedError) -> None:
        """The connection is lost."""
        self.health.stale(str(error))

    async def silent(self, connected: bool) -> bool:
        """Nothing new for a while: ask whether the book is still the one that was shown."""
        silent_s = self.link.config.stale_after_s
        fetch = self.link.exchange.fetch_order_book
        try:
            event = self.shown(await self.link.ask(lambda: fetch(self.symbol, self.asked_levels())))
        except (FeedError, BadItemError) as error:
            self.health.stale(f"silent for {silent_s:g} s, and {error}", silent_s)
            return True
        if self.sent is None or not self.agree(event, self.sent):
            if self.sent is not None:
                self.health.stale(f"silent for {silent_s:g} s while the book has changed", silent_s)
            self.sent = event  # where nothing changes nothing else will come
            self.link.push(self.kind, event)
            return True
        if connected:
            self.health.well("connected; the market is quiet")
        first, self._quiet = not self._quiet, connected
        return first  # its socket may be dead as well: one new one for each silence

    def asked_levels(self) -> int | None:
        """How much of the book to ask for; None: what the exchange gives."""
        return _ASKED_LEVELS

    def shown(self, book: Mapping[str, Any]) -> Event:
        """The event that a book shows.

        Raises:
            BadItemError: it cannot be.
        """
        raise NotImplementedError

    def agree(self, event: Any, other: Any) -> bool:
        """Whether two events show the same prices."""
        raise NotImplementedError


class Quotes(Tops):
    """Best bid and ask."""

    kind = "quotes"

    def __init__(self, link: Link, symbol: str) -> None:
        super().__init__(link, symbol)
        self._by_ticker = not link.exchange.has.get("watchBidsAsks")
        self._seen: Any = None

    async def watch(self) -> None:
        """One call of ccxt's."""
        exchange = self.link.exchange
        await (exchange.watch_ticker(self.symbol) if self._by_ticker else exchange.watch_bids_asks([self.symbol]))

    def latest(self) -> Any:
        """What ccxt holds, where it has changed since the last call; None where it has not."""
        exchange = self.link.exchange
        raw = (exchange.tickers if self._by_ticker else exchange.bidsasks).get(self.symbol)
        if raw is self._seen:
            return None
        self._seen = raw
        return raw

    def parse(self, raw: Mapping[str, Any]) -> Quote:
        """The event."""
        return quote(raw, self.symbol, utc_now())

    def repeats(self, event: Any) -> bool:
        """Never: a quote that is sent again says that it still holds."""
        return False

    def shown(self, book: Mapping[str, Any]) -> Quote:
        """The event that a book shows."""
        received = utc_now()
        top = depth(book, 1, self.symbol, received)
        if not len(top.bids) or not len(top.asks):
            raise BadItemError("want a bid and an ask, was a book without one of them")
        (bid, bid_size), (ask, ask_size) = top.bids[0].tolist(), top.asks[0].tolist()
        raw = {"bid": bid, "ask": ask, "bidVolume": bid_size, "askVolume": ask_size}
        return quote(raw, self.symbol, received)

    def agree(self, event: Any, other: Any) -> bool:
        """Whether two events show the same prices."""
        return (event.bid, event.ask) == (other.bid, other.ask)


class Depths(Tops):
    """The top of the order book."""

    kind = "depth"

    def __init__(self, link: Link, symbol: str) -> None:
        super().__init__(link, symbol)
        self._seen: Any = None

    async def watch(self) -> None:
        """One call of ccxt's."""
        await self.link.exchange.watch_order_book(self.symbol)

    def latest(self) -> Any:
        """What ccxt holds, where it has changed since the last call; None where it has not."""
        book = self.link.exchange.orderbooks.get(self.symbol)
        if not book or not (book["bids"] or book["asks"]):
            return None
        state = (id(book), book.get("nonce"), book.get("timestamp"))
        if state == self._seen:
            return None
        self._seen = state
        return book

    def parse(self, raw: Mapping[str, Any]) -> Depth:
        """The event."""
        return depth(raw, self.link.config.depth_levels, self.symbol, utc_now())

    def repeats(self, event: Any) -> bool:
        """Whether an event says what the last one said, and need not be sent."""
        return np.array_equal(event.bids, self.sent.bids) and np.array_equal(event.asks, self.sent.asks)

    def asked_levels(self) -> int | None:
        """How much of the book to ask for; None: what the exchange gives."""
        return _ASKED_LEVELS if self.link.config.depth_levels <= _ASKED_LEVELS else None

    def shown(self, book: Mapping[str, Any]) -> Depth:
        """The event that a book shows."""
        return self.parse(book)

    def agree(self, event: Any, other: Any) -> bool:
        """Whether two events show the same prices, as far as both reach."""
        sides = ((event.bids, other.bids), (event.asks, other.asks))
        return all(np.array_equal(*(side[: min(len(one), len(two)), 0] for side in (one, two))) for one, two in sides)
