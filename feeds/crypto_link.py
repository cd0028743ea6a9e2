"""What the streams of one exchange share: its client, its config, its requests, and a subscription kept alive."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import ccxt

from feeds.backoff import Backoff
from feeds.errors import FeedError, OfflineError, RateLimitError
from feeds.exchange import ExchangeConfig, feed_error, hang_up, retry_after_s, watch_dials
from feeds.health import Health
from feeds.loop import Push
from feeds.times import bar_length

STREAMS = ("trades", "quotes", "depth", "bars")
_FIRST_RETRY_S = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptoConfig:
    """What to read from an exchange, and when to call it late, silent or lost."""

    at: ExchangeConfig = field(default_factory=ExchangeConfig)
    symbols: tuple[str, ...]  # as ccxt names them, such as "BTC/USDT"
    streams: tuple[str, ...] = ("trades",)  # of trades, quotes, depth, bars
    bar: str = "1m"  # length of the bars
    depth_levels: int = 10  # of each side of the book
    stale_after_s: float = 10.0  # of silence, until the exchange is asked whether there was anything to hear
    lag_max_s: float = 5.0  # from an event to its arrival here
    backoff_max_s: float = 30.0  # between two tries
    seed: int = 0  # of the jitter between tries

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) < len(self.symbols) or not all(s.strip() for s in self.symbols):
            raise ValueError(f"symbols must name at least one market, each once, was {self.symbols}")
        unknown = [stream for stream in self.streams if stream not in STREAMS]
        if not self.streams or unknown or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams must be of {', '.join(STREAMS)}, each once, was {self.streams}")
        bar_length(self.bar)
        if not 1 <= self.depth_levels <= 1000:
            raise ValueError(f"depth_levels must lie in [1, 1000], was {self.depth_levels}")
        for name in ("stale_after_s", "lag_max_s", "backoff_max_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 < value <= 3600.0):
                raise ValueError(f"{name} must lie in (0, 3600], was {value}")


class Link:
    """One exchange as its streams see it.

    Args:
        exchange: a client of `feeds.exchange.connect`.
        push: takes the events and each FeedStatus.
    """

    def __init__(self, exchange: Any, config: CryptoConfig, push: Push) -> None:
        self.exchange, self.config, self.push = exchange, config, push
        self._random = random.Random(config.seed)
        self._not_before = 0.0  # loop time until which the exchange wants no request

    def health(self, kind: str, symbol: str) -> Health:
        """The state of one stream of one symbol, told on the output "status"."""
        config = self.config
        return Health(f"{config.at.name} {kind}", symbol, config.lag_max_s, lambda status: self.push("status", status))

    def backoff(self) -> Backoff:
        """Waits between tries, each with jitter of its own."""
        most_s = self.config.backoff_max_s
        return Backoff(min(_FIRST_RETRY_S, most_s), most_s, self._random)

    async def ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to one request; where the exchange has asked to wait, not before that.

        Raises:
            FeedError: or its case that fits. What ccxt cannot read is one too: an answer can hold anything.
        """
        while (wait_s := self._not_before - asyncio.get_running_loop().time()) > 0.0:
            await asyncio.sleep(wait_s)
        try:
            return await request()
        except Exception as error:
            told = self.told(error)
            if isinstance(told, RateLimitError):
                wait_s = retry_after_s(self.exchange)
                self._not_before = max(self._not_before, asyncio.get_running_loop().time() + wait_s)
            raise told from None

    def told(self, error: Exception) -> FeedError:
        """What ccxt raised, as ours."""
        if isinstance(error, (ccxt.BaseError, OSError)):
            return feed_error(error, self.config.at)
        return FeedError(f"{self.config.at.name} sent what ccxt cannot read ({type(error).__name__})")


class Listener(Protocol):
    """What a subscription tells of."""

    def data(self) -> bool:
        """Take what has arrived; True if anything of it was new."""

    def lost(self, error: FeedError) -> None:
        """The connection is lost or was refused; it will be tried again."""

    async def silent(self, connected: bool) -> bool:
        """Nothing new for `stale_after_s`; True to drop the socket."""


class Subscription:
    """A websocket subscription that is kept: its own watchdog, waits between tries, a fresh socket for a dead one.

    Args:
        watch: one call of a `watch_...` of ccxt; what it brings is left in the client's caches.
        each: the listener takes each message as it is read, and not only what there is when ccxt's watch call returns.
    """

    def __init__(self, link: Link, watch: Callable[[], Awaitable[Any]], *, each: bool = False) -> None:
        self._link, self._watch, self._each = link, watch, each
        self._bug: Exception | None = None  # of the listener, while it took a message
        self._waits: list[Any] = []  # futures of ccxt, for the end of each socket
        self._backoff = link.backoff()
        self.urls: Collection[str] = ()

    def sockets(self) -> list[Any]:
        """The clients of its addresses, as they are now."""
        clients = self._link.exchange.clients or {}
        return [clients[url] for url in self.urls if url in clients]

    async def run(self, listener: Listener) -> None:
        """Watch until cancelled."""
        self.urls = watch_dials((lambda: self._hear(listener)) if self._each else None)
        loop, stale_after_s = asyncio.get_running_loop(), self._link.config.stale_after_s
        self._heard = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(self._heard + stale_after_s):
                    await self._listen(listener)
            except TimeoutError:
                if listener.data():  # it came in this very moment
                    self._heard = loop.time()
                elif loop.time() >= self._heard + stale_after_s:
                    connected = self._connected()
                    if await listener.silent(connected) and connected:
                        await hang_up(self._link.exchange, *self.urls)
                    self._heard = loop.time()
            except FeedError as error:
                listener.data()
                listener.lost(error)
                await hang_up(self._link.exchange, *self.urls)
                await asyncio.sleep(self._backoff.next_s())

    async def _listen(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._watch()
                if self._each:
                    await self._lost()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise OfflineError(f"{self._link.config.at.name}: the connection was closed") from None
            except Exception as error:
                if error is self._bug:
                    raise
                raise self._link.told(error) from None
            if listener.data():
                self._heard = loop.time()
                self._backoff.reset()

    async def _lost(self) -> None:
        """Wait until a socket is lost, which is raised. Each message is taken as it is read: a watch call for each
        would take ccxt as long again as reading it."""
        name = f"{__name__} {id(self)}"  # of a future that no message settles; ccxt fails all of them with the socket
        while self._bug is None and (sockets := self.sockets()):
            self._waits = [socket.future(name) for socket in sockets]
            try:
                done, _ = await asyncio.wait(self._waits, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    future.result()
            finally:
                for future in self._waits:
                    future.cancel()
        if self._bug is not None:
            raise self._bug

    def _hear(self, listener: Listener) -> None:
        """Take a message that has just been read, on ccxt's own stack, where an exception would be lost."""
        try:
            if listener.data():
                self._heard = asyncio.get_running_loop().time()
                self._backoff.reset()
        except Exception as error:
            self._bug = self._bug or error
            for future in self._waits:
                future.reject(error)

    def _connected(self) -> bool:
        sockets = self.sockets()
        return bool(sockets) and all(socket.isConnected and not socket.closed() for socket in sockets)
