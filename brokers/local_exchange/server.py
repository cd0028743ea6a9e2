"""The exchange itself: its markets run, its requests are answered, its sockets are kept.

Every trade, and the quote after it, goes to the accounts, whose orders it may match, then to who listens in this
process, and then to the sockets.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from brokers.local_exchange import faults, public, streams, trading, user_stream
from brokers.local_exchange.accounts import Accounts
from brokers.local_exchange.clock import Clock
from brokers.local_exchange.config import HOST, ExchangeConfig
from brokers.local_exchange.faults import Faults
from brokers.local_exchange.limits import Requests
from brokers.local_exchange.market import Market, Traded
from brokers.local_exchange.streams import PULSE_S, Socket, Streams
from brokers.local_exchange.tape import Tape, read

OnTrade = Callable[[str, Traded], None]
_BATCH = 10_000  # trades before the sockets get their turn


class LocalExchange:
    """One exchange on one event loop: `await start()`, then it runs until `await stop()`.

    Args:
        tapes: trades at hand instead of a listing's own data, by symbol.
        keys: secret by key of its accounts; None: the one pair that the environment holds.

    Raises:
        DataError: a listing's file cannot be used.
        ValueError: a tape of a symbol that is not listed.
    """

    def __init__(
        self, config: ExchangeConfig, *, tapes: Mapping[str, Tape] | None = None, keys: Mapping[str, str] | None = None
    ) -> None:
        tapes = tapes or {}
        listed = [listing.symbol for listing in config.listings]
        for symbol in tapes:
            if symbol not in listed:
                raise ValueError(f"tapes must be of {', '.join(listed)}, was {symbol}")
        self.config = config
        self.keys = _keys_of(config) if keys is None else dict(keys)
        self.clock = Clock()
        self.sockets: dict[Socket, None] = {}
        self.faults = Faults(self)
        self.requests = Requests(self)
        self.markets: dict[str, Market] = {}  # by id
        self._tapes = {item.symbol: tapes.get(item.symbol) or read(item, config.seed) for item in config.listings}
        self._listeners: list[OnTrade] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._woken: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._port = config.port

    @property
    def url(self) -> str:
        """Such as http://127.0.0.1:8080; once it has started."""
        return f"http://{HOST}:{self._port}"

    def on_trade(self, listener: OnTrade) -> None:
        """Call `listener(symbol, trade)` with each trade before a socket hears of it."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Fix the time of the tapes, listen, and let the markets run."""
        now_ms = self.clock.wall_ms()
        for listing in self.config.listings:
            market = Market(listing, self._tapes[listing.symbol], self.config.seed, now_ms)
            self.markets[market.id] = market
            self._woken[market.id] = asyncio.Event()
        self.accounts = Accounts(self.config, self.markets, self.keys)
        self.streams = Streams(self)
        app = web.Application(middlewares=[self.requests.middleware])
        for part in (public, trading, streams, user_stream, faults):
            app.add_routes(part.routes(self))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await self._listen()
        for market in self.markets.values():
            self.spawn(self._run(market))
        self.spawn(self._pulse())

    async def stop(self) -> None:
        """End everything; raises what a market has died of."""
        for socket in list(self.sockets):
            socket.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, until it is done or the exchange stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def pump(self) -> None:
        """Let every trade happen that is due."""
        wall_ms = self.clock.wall_ms()
        for market in self.markets.values():
            self._emit_due(market, wall_ms, _BATCH)

    def burst(self, count: int, symbol: str = "") -> int:
        """Let the next `count` trades of a symbol ("": the first listed) happen now; return how many there were."""
        wanted = symbol.replace("/", "") or self.config.listings[0].id
        market = self.markets.get(wanted)
        if market is None:
            raise ValueError(f"symbol must be one of {', '.join(self.markets)}, was {symbol!r}")
        self.pump()
        count = market.pull(count, self.clock.wall_ms())
        for _ in range(count):
            self._emit(market)
        self._woken[market.id].set()
        return count

    async def deaf(self, seconds: float) -> None:
        """Do not listen for a while."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
            await asyncio.sleep(seconds)
            await self._listen()

    def state(self) -> dict[str, Any]:
        """What is true, for tests to compare with."""
        self.pump()
        return {
            "markets": {market.id: {"trades": market.emitted} for market in self.markets.values()},
            "accounts": self.accounts.state(),
            "faults": self.faults.state(),
            "sockets": {kind: sum(s.kind == kind for s in self.sockets) for kind in ("market", "user")},
            "requests": len(self.requests.log),
        }

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, HOST, self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _run(self, market: Market) -> None:
        """Each trade at its time."""
        woken = self._woken[market.id]
        while True:
            self._emit_due(market, self.clock.wall_ms(), _BATCH)
            woken.clear()
            due_ms = market.next_ms
            wait_s = None if due_ms is None else max(0.0, (due_ms - self.clock.wall_ms()) / 1000.0)
            try:
                await asyncio.wait_for(woken.wait(), wait_s)
            except TimeoutError:
                continue

    async def _pulse(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s = max(due_s + PULSE_S, loop.time())
            await asyncio.sleep(due_s - loop.time())
            self.pump()
            self.streams.pulse()
            for socket in list(self.sockets):
                socket.ping(loop.time())

    def _emit_due(self, market: Market, wall_ms: int, most: int) -> None:
        for _ in range(most):
            due_ms = market.next_ms
            if due_ms is None or due_ms > wall_ms:
                return
            self._emit(market)

    def _emit(self, market: Market) -> None:
        trade, quote = market.emit(), market.quote()
        self.accounts.on_trade(market.id, trade.price, trade.size, trade.time_ms)
        self.accounts.on_quote(market.id, quote.bid, quote.bid_size, quote.ask, quote.ask_size, trade.time_ms)
        for listener in self._listeners:
            listener(market.listing.symbol, trade)
        self.streams.on_trade(market, trade, quote)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)
            return
        # A market that stands still for a bug must be heard of; stop() raises it.
        asyncio.get_running_loop().call_exception_handler(
            {"message": "the local exchange has failed", "exception": task.exception(), "task": task}
        )


def _keys_of(config: ExchangeConfig) -> dict[str, str]:
    key, secret = os.environ.get(config.key_env, ""), os.environ.get(config.secret_env, "")
    return {key: secret} if key and secret else {}
