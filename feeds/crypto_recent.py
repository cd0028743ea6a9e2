"""The trades of one symbol where ids are no counts: each once and in order.

What a new connection missed is fetched by time. A trade that the exchange does not send over a connection that lives
is not noticed, which ids that count would show. How far back an exchange serves trades by time differs, too: where what
came does not reach back to the last trade seen, the status says that some may be missing.
"""

from collections.abc import Hashable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from feeds.clock import utc_now
from feeds.crypto_link import Link
from feeds.crypto_order import Recent
from feeds.crypto_parse import BadItemError, counted_id, key, milliseconds, trade
from feeds.crypto_trades import HOLD_MAX, Trades
from feeds.errors import FeedError
from feeds.events import Trade

_WINDOW = 20_000  # ids remembered
_PAGES = 1000  # requests for one absence


class RecentTrades(Trades):
    """Trades told apart by their ids, and by all that they say where they have none."""

    def __init__(self, link: Link, symbol: str, since: datetime | None) -> None:
        super().__init__(link, symbol, since)
        self._order: Recent[Trade] = Recent(_WINDOW, HOLD_MAX)
        self._sockets: list[Any] | None = None  # that delivered last
        self._doubtful = False  # what was fetched does not reach back to the last trade seen
        self._quiet = False
        # What is older came before the start, or the last trade seen: exchanges greet with their latest trades.
        self._floor = since or utc_now() - timedelta(seconds=link.config.lag_max_s)
        if since is not None:
            self._order.pause()
            self.wanted.set()

    def take_live(self, raws: list[Any]) -> bool:
        """Let what may leave of these leave; True if one was new."""
        order, received, sockets = self._order, utc_now(), self.subscription.sockets()
        if self._sockets is not None and sockets != self._sockets and self.last_time is not None:
            order.pause()
            self._floor = self.last_time
        self._sockets = sockets
        items = self._read(raws, received)
        out = order.offer(items)
        self.send(out)
        if order.paused:
            self.wanted.set()
        elif out:
            self.check()
            self.health.lag((received - out[-1].event_time).total_seconds())
        self._quiet = False
        return bool(out) or (order.paused and bool(items))

    async def fetch(self) -> None:
        """Fetch what came since the last trade, then let what was held follow."""
        order, since_ms = self._order, self._last_ms()
        if since_ms is not None:
            self.health.gap("connected anew: what was missed is being fetched", 0)
            self._doubtful = await self._fetch_since(since_ms)
        if order.held or since_ms is None:  # otherwise the first live trade asks once more
            self.send(order.resume())

    def whole(self) -> bool:
        """Whether nothing is known to be missing."""
        return not self._order.paused

    def told(self) -> str:
        """What was done to be whole again, in words."""
        return super().told() + (", some may be missing: the exchange gives no more" if self._doubtful else "")

    async def silent(self, connected: bool) -> bool:
        """Nothing new for a while; the exchange knows whether there was anything."""
        silent_s = self.link.config.stale_after_s
        if self.wanted.is_set() and self._order.held:  # it is being asked already
            return True
        try:
            news = await self._news()
        except FeedError as error:
            self.health.stale(f"silent for {silent_s:g} s, and {error}", silent_s)
            return True
        if news:
            self.live = False
            self.health.stale(f"silent for {silent_s:g} s while there were trades", silent_s)
            self._take(news)
            return True
        if connected:
            self.well("connected; the market is quiet")
        first, self._quiet = not self._quiet, connected
        return first

    async def _news(self) -> list[Any]:
        since_ms = self._last_ms()
        page = await self.ask(since_ms)
        if since_ms is None:  # nothing is known yet: what comes after these is news
            self.since_ms = max((raw["timestamp"] for raw in page), default=0) + 1
            return []
        return [raw for raw in page if not self._order.knows(key(raw))]

    async def _fetch_since(self, since_ms: int) -> bool:
        """Fetch until the trades held are reached; True where the first page does not reach back far enough."""
        order, known = self._order, self.last_time is not None
        doubtful = False
        for page_number in range(_PAGES):
            page = await self.ask(since_ms)
            if page_number == 0:
                doubtful = known and bool(page) and not any(order.knows(key(raw)) for raw in page)
            reached = any(order.holds(key(raw)) for raw in page)
            new = self._take(page)
            newest_ms = max((raw.get("timestamp") or 0 for raw in page), default=0)
            if not new or reached or newest_ms <= since_ms:
                break
            since_ms = newest_ms
        return doubtful

    def _take(self, raws: list[Any]) -> int:
        """Take a page of a request; return how many of it were new."""
        out = self._order.fill(self._read(raws, utc_now()))
        self.send(out)
        self.fetched += len(out)
        return len(out)

    def _last_ms(self) -> int | None:
        return self.since_ms if self.last_time is None else milliseconds(self.last_time)

    def _read(self, raws: list[Any], received: datetime) -> list[tuple[Hashable, Trade]]:
        items: list[tuple[Hashable, Trade]] = []
        for raw in raws:
            try:
                item = trade(raw, self.symbol, received)
            except BadItemError as error:
                self.health.bad(str(error))
                continue
            with suppress(BadItemError):  # some have letters in theirs
                item.trade_id = counted_id(raw)
            if item.event_time >= self._floor:
                items.append((key(raw), item))
        return items
