"""The trades of one symbol: each once, in order, none missing. What sockets lose is fetched by REST, and only that.

ccxt does none of this: it neither tells a lost connection reliably nor fills a gap (its issue 26945).

Source: ccxt 4.5.90, `pro/binance.py` and `async_support/base/ws/cache.py`.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog

from feeds.clock import utc_now
from feeds.crypto_link import Link, Subscription
from feeds.crypto_order import Counted
from feeds.crypto_parse import BadItemError, counted_id, milliseconds, moment, trade
from feeds.errors import FeedError
from feeds.events import Trade

PAGE = 1000  # trades a request, the most that Binance gives
HOLD_MAX = 200_000  # trades held back for a gap: a burst, or minutes of a busy market

_HOUR_MS = 3_600_000  # the most that Binance searches by time at once
_OVERTAKEN_S = 0.05  # for a message that another one overtook; longer is a gap
_REPLIES = 10  # without a missing trade, after which the exchange has none: a minute and more of waiting
# Aggregate trades, whose ids count up by one in the stream and in requests alike. Single trades have other ids.
_COUNTED: Mapping[str, Mapping[str, str]] = {"binance": {"name": "aggTrade"}, "binanceus": {"name": "aggTrade"}}
_AGGREGATES = {"fetchTradesMethod": "publicGetAggTrades"}

_log = structlog.get_logger()


def counted(exchange_id: str) -> bool:
    """Whether the exchange's trade ids count up by one, and it serves trades by id."""
    return exchange_id in _COUNTED


class Trades:
    """A subscription to the trades of one symbol, and a task beside it that fetches what is missing.

    Args:
        since: fetch the trades from then on before the first live one; None: begin with the first live one.
    """

    def __init__(self, link: Link, symbol: str, since: datetime | None) -> None:
        self.link, self.symbol = link, symbol
        self.health = link.health("trades", symbol)
        self.since_ms = None if since is None else milliseconds(since)
        self.wanted = asyncio.Event()  # something is to be fetched
        self.fetched = 0  # trades, since all was well
        self.live = False  # the socket has delivered since it was opened
        self.last_time: datetime | None = None  # of the newest trade that left
        self.subscription = Subscription(link, self._watch, each=True)
        self._stream = _COUNTED.get(link.exchange.id, {})
        self._request = _AGGREGATES if counted(link.exchange.id) else {}

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.subscription.run(self))
            tasks.create_task(self._fetch_forever())

    def urls(self) -> Collection[str]:
        """The sockets that it listens to."""
        return self.subscription.urls

    def data(self) -> bool:
        """Take the live trades that have arrived; True if one was new."""
        cache = self.link.exchange.trades.get(self.symbol)
        if not cache:
            return False
        raws = list(cache)
        cache.clear()  # ccxt would keep 200,000 of them, a few hundred megabytes
        self.live = True
        return self.take_live(raws)

    def lost(self, error: FeedError) -> None:
        """The connection is lost."""
        self.live = False
        self.health.stale(str(error))

    async def silent(self, connected: bool) -> bool:
        """Nothing new for a while; the exchange knows whether there was anything."""
        raise NotImplementedError

    def take_live(self, raws: list[Any]) -> bool:
        """Let what may leave of these leave; True if one was new."""
        raise NotImplementedError

    async def fetch(self) -> None:
        """Fetch all that is known to be missing."""
        raise NotImplementedError

    def whole(self) -> bool:
        """Whether nothing is known to be missing."""
        raise NotImplementedError

    def told(self) -> str:
        """What was done to be whole again, in words."""
        return f"{self.fetched} trades fetched" if self.fetched else "connected"

    def check(self) -> None:
        """Tell that all is well, if it is."""
        if self.live and not self.wanted.is_set() and self.whole() and not self.health.sound:
            self.well(self.told())

    def well(self, detail: str) -> None:
        """All is well."""
        self.health.well(detail, self.fetched)
        self.fetched = 0

    def send(self, trades: Iterable[Trade]) -> None:
        """Let trades leave."""
        push = self.link.push
        for item in trades:
            push("trades", item)
            self.last_time = item.event_time

    async def ask(self, since_ms: int | None = None, limit: int = PAGE, **params: int) -> list[Any]:
        """One request for trades, oldest first; `params` are the exchange's own."""
        fetch, symbol = self.link.exchange.fetch_trades, self.symbol
        return await self.link.ask(lambda: fetch(symbol, since_ms, limit, {**self._request, **params}))

    async def _watch(self) -> None:
        await self.link.exchange.watch_trades(self.symbol, params=dict(self._stream))

    async def _fetch_forever(self) -> None:
        backoff = self.link.backoff()
        while True:
            await self.wanted.wait()
            try:
                await self.fetch()
            except FeedError as error:
                if self.health.state is None:
                    self.health.stale(str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()
                self.wanted.clear()
                self.check()


class CountedTrades(Trades):
    """Trades whose ids count up by one, which shows every gap: exactly that is fetched, while later ones are held."""

    def __init__(self, link: Link, symbol: str, since: datetime | None) -> None:
        super().__init__(link, symbol, since)
        self._order: Counted[Trade] = Counted(HOLD_MAX)
        self._told_lost = 0
        self._replies = 0  # in a row that brought nothing of what is missing
        self._repeated = 0  # duplicates, when the last new trade came
        self._quiet = False  # the market was, at the last silence
        if since is not None:
            self.wanted.set()

    async def run(self) -> None:
        """Work until cancelled."""
        order = self._order
        try:
            await super().run()
        finally:
            counts = {"duplicates": order.duplicates, "overtaken": order.late, "lost": order.lost}
            if any(counts.values()):
                _log.info("trades_end", symbol=self.symbol, **counts)

    def take_live(self, raws: list[Any]) -> bool:
        """Let what may leave of these leave; True if one was new."""
        order, received = self._order, utc_now()
        items = self._read(raws, received)
        if items and order.next_id is None and self.since_ms is None:
            order.start(min(trade_id for trade_id, _ in items))
        held = order.held
        out = order.offer(items)
        self.send(out)
        if order.held:
            self.wanted.set()
        elif out:
            self.check()
            self.health.lag((received - out[-1].event_time).total_seconds())
        if not out and order.held == held:
            return False
        self._quiet, self._repeated = False, order.duplicates
        return True

    async def fetch(self) -> None:
        """Find where to begin, where that is not known; then fill every gap."""
        order = self._order
        if order.next_id is None:
            await self._place()
        else:
            await asyncio.sleep(_OVERTAKEN_S)
        while (gap := order.missing()) is not None:
            await self._fill(*gap)

    def whole(self) -> bool:
        """Whether nothing is known to be missing."""
        return self._order.next_id is not None and not self._order.held

    def told(self) -> str:
        """What was done to be whole again, in words."""
        lost, self._told_lost = self._order.lost - self._told_lost, self._order.lost
        return super().told() + (f", {lost} lost: the exchange does not have them" if lost else "")

    async def silent(self, connected: bool) -> bool:
        """Nothing new for a while; the exchange knows whether there was anything."""
        silent_s = self.link.config.stale_after_s
        if self.wanted.is_set():  # it is being asked already
            self.live = False
            return True
        try:
            news = await self._news()
            anew = not news and await self._counts_anew()
        except FeedError as error:
            self.health.stale(f"silent for {silent_s:g} s, and {error}", silent_s)
            return True
        if news:
            self.live = False
            self.health.stale(f"silent for {silent_s:g} s while there were trades", silent_s)
            self._take(news)
            return True
        if connected and self.whole() and not anew:
            self.well("connected; the market is quiet")
        # A socket may have died while the market was quiet: a new one at the first silence is enough.
        first, self._quiet = not self._quiet, connected and not anew
        return first

    async def _place(self) -> None:
        """Begin with the first trade since the start, and fetch all that there are by now."""
        order, since_ms = self._order, self.since_ms
        if since_ms is None:
            return
        page = await self._first_since(since_ms)
        ids = _ids(page)
        if ids:
            first_id = min(ids)
        else:
            latest = await self.ask(limit=1)
            if not _ids(latest):  # it has none at all: the first one that comes live asks again
                return
            if _time_ms(latest[-1]) >= since_ms:
                raise FeedError(f"{self.symbol}: the exchange does not serve its latest trades by time yet")
            first_id = max(_ids(latest)) + 1
        self.since_ms = None
        self.send(order.start(first_id))
        self._take(page)
        while len(page) == PAGE and ids:
            page = await self.ask(fromId=max(ids) + 1)
            ids = _ids(page)
            self._take(page)

    async def _first_since(self, since_ms: int) -> list[Any]:
        """A page that begins with the first trade since then; empty where there is none."""
        start_ms, until_ms = since_ms, since_ms + _HOUR_MS
        while True:
            page = await self.ask(start_ms, until=until_ms)
            ids = _ids(page)
            if ids and len(page) == PAGE:
                # Binance may answer with the last page of the window in place of the first.
                before = await self.ask(limit=1, fromId=max(min(ids) - 1, 0))
                earlier_ms = _time_ms(before[0]) if min(_ids(before), default=min(ids)) < min(ids) else 0
                if start_ms <= earlier_ms < until_ms:
                    until_ms = earlier_ms
                    continue
            if ids or until_ms >= milliseconds(utc_now()):
                return page
            start_ms, until_ms = until_ms, until_ms + _HOUR_MS

    async def _fill(self, first: int, last: int) -> None:
        """Fetch what is missing of [first, last], a page at most."""
        order = self._order
        self.health.gap(f"{last - first + 1} trades are missing from id {first} on", last - first + 1)
        self._take(await self.ask(limit=min(PAGE, last - first + 1), fromId=first))
        if order.next_id != first:
            self._replies = 0
            return
        self._replies += 1
        if self._replies < _REPLIES:
            raise FeedError(f"{self.symbol}: the exchange does not serve trade {first} yet")
        self._replies = 0
        self.send(order.give_up(last + 1))

    async def _news(self) -> list[Any]:
        """What the exchange has beyond the last trade that left; learns where to begin, where that is not known."""
        order = self._order
        if order.next_id is not None:
            return await self.ask(fromId=order.next_id)
        if self.since_ms is not None:
            await self._place()
            return []
        ids = _ids(await self.ask(limit=1))
        if ids and order.next_id is None:
            self.send(order.start(max(ids) + 1))
        return []

    async def _counts_anew(self) -> bool:
        """Whether what came as duplicates is new: ids that went back while time went on, as after a restart."""
        order, since = self._order, self.last_time
        if order.duplicates == self._repeated or order.next_id is None or since is None:
            return False
        self._repeated = order.duplicates
        latest = await self.ask(limit=1)
        ids = _ids(latest)
        if not ids or max(ids) >= order.next_id - 1 or _time_ms(latest[-1]) <= milliseconds(since):
            return False
        self.health.gap(f"trade ids went back to {max(ids)}: the exchange counts anew", 0)
        order.restart()
        self.since_ms = milliseconds(since) + 1
        self.wanted.set()
        return True

    def _take(self, raws: list[Any]) -> None:
        """Take a page of a request, which tells of every id up to its last."""
        order = self._order
        items = self._read(raws, utc_now())
        repeated = order.duplicates
        self.send(order.fill(items))
        self.fetched += len(items) - (order.duplicates - repeated)
        ids = _ids(raws)
        if ids:
            self.send(order.give_up(max(ids) + 1))

    def _read(self, raws: list[Any], received: datetime) -> list[tuple[int, Trade]]:
        items = []
        for raw in raws:
            try:
                trade_id, item = counted_id(raw), trade(raw, self.symbol, received)
            except BadItemError as error:
                self.health.bad(str(error))
                continue
            item.trade_id = trade_id
            items.append((trade_id, item))
        return items


def _ids(raws: Iterable[Any]) -> list[int]:
    ids = []
    for raw in raws:
        try:
            ids.append(counted_id(raw))
        except BadItemError:  # `_read` tells of it
            continue
    return ids


def _time_ms(raw: Any) -> int:
    """The time of a trade; 0 where it has none."""
    try:
        return milliseconds(moment(raw.get("timestamp")))
    except BadItemError:
        return 0
