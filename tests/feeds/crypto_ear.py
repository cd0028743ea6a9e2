"""A crypto feed listened to by a test: against the local exchange, until conditions hold, never for a time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from exchange_process import Running

from brokers.local_exchange.config import ExchangeConfig as LocalConfig
from brokers.local_exchange.config import Listing
from brokers.local_exchange.market import AGGREGATE_OFFSET
from feeds.crypto import CryptoConfig, CryptoFeed
from feeds.events import Trade
from feeds.exchange import ExchangeConfig

SYMBOL = "BTC/USDT"
DEADLINE_S = 40.0  # of a condition, on a machine that is busy elsewhere


class Ear:
    """What a feed has pushed, and a way to wait for more."""

    def __init__(self) -> None:
        self.heard: dict[str, list[Any]] = {name: [] for name in ("trades", "quotes", "depth", "bars", "status")}
        self._news = asyncio.Event()

    def push(self, output: str, value: Any) -> None:
        self.heard[output].append(value)
        self._news.set()

    @property
    def trades(self) -> list[Trade]:
        return self.heard["trades"]

    def ids(self, symbol: str = SYMBOL) -> list[int]:
        return [trade.trade_id for trade in self.trades if trade.symbol == symbol]

    def states(self, kind: str = "trades") -> list[str]:
        """Each change of state; that something was dropped is none."""
        states = [status.state.name for status in self.heard["status"] if status.feed.endswith(f" {kind}")]
        states = [state for state in states if state != "DROPPED"]
        return [state for i, state in enumerate(states) if i == 0 or states[i - 1] != state]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; what the exchange knows counts too."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    self._news.clear()
                    try:
                        await asyncio.wait_for(self._news.wait(), 0.05)
                    except TimeoutError:
                        continue
        except TimeoutError:
            told = [(status.feed, status.state.name, status.detail) for status in self.heard["status"]]
            raise AssertionError(f"never {what}; heard {len(self.trades)} trades, and {told}") from None

    async def caught_up(self, running: Running, symbol: str = SYMBOL) -> None:
        """Wait until every trade that has happened by now was heard, and all is well."""
        last = newest_id(running, symbol)
        await self.until(lambda: bool(self.ids(symbol)) and self.ids(symbol)[-1] >= last, f"heard of trade {last}")
        await self.until(lambda: self.states()[-1:] in (["CONNECTED"], ["RECOVERED"]), "well again")


Script = Callable[[Ear], Awaitable[None]]


async def heard(
    config: CryptoConfig, script: Script, since: Mapping[str, datetime] | None = None, ear: Ear | None = None
) -> Ear:
    """Run a feed while `script(ear)` runs; raises what either of them raises."""
    ear = ear or Ear()
    feed = asyncio.create_task(CryptoFeed(config, since).run(ear.push))
    acting = asyncio.ensure_future(script(ear))
    await asyncio.wait([feed, acting], return_when=asyncio.FIRST_COMPLETED)
    ended_by_itself = feed.done()
    for task in (feed, acting):
        task.cancel()
    of_feed, of_script = await asyncio.gather(feed, acting, return_exceptions=True)
    if ended_by_itself:
        assert isinstance(of_feed, BaseException), "the feed ended by itself"
        raise of_feed
    if isinstance(of_script, BaseException):
        raise of_script
    return ear


def listen(config: CryptoConfig, script: Script, since: Mapping[str, datetime] | None = None) -> Ear:
    """`heard`, on a loop of its own."""
    return asyncio.run(heard(config, script, since))


def local(url: str, **changes: Any) -> CryptoConfig:
    """A config that notices silence soon."""
    settings = {"symbols": (SYMBOL,), "stale_after_s": 1.0, "backoff_max_s": 1.0}
    return CryptoConfig(at=ExchangeConfig(url=url), **(settings | changes))


def market_of(*symbols: str, **changes: Any) -> LocalConfig:
    """An exchange with these symbols at 100 trades a second."""
    settings = {"trades_per_s": 100.0, "history_s": 60.0, "loop": True, "rows": 20_000} | changes
    return LocalConfig(listings=tuple(Listing(symbol=symbol, **settings) for symbol in symbols or (SYMBOL,)))


def newest_id(running: Running, symbol: str = SYMBOL) -> int:
    """The id of the latest trade that has happened, as the stream of aggregate trades counts."""
    market = running.exchange.markets[symbol.replace("/", "")]
    return int(running.call(lambda: market.emitted)) + AGGREGATE_OFFSET


def assert_each_once_in_order(ids: list[int]) -> None:
    assert ids == list(range(ids[0], ids[0] + len(ids)))
