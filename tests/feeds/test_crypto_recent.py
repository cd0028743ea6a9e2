"""Trades whose ids are no counts: what a new connection missed is fetched by time, each trade once and in order."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from exchange_process import exchange_thread

from feeds.clock import utc_now
from feeds.crypto_link import Link
from feeds.crypto_recent import RecentTrades
from feeds.exchange import connect, disconnect
from tests.feeds.crypto_ear import SYMBOL, Ear, Script, assert_each_once_in_order, local, market_of, newest_id

FAULTS: dict[str, Callable[[Any], Any]] = {
    "abort": lambda faults: faults.abort(),
    "close frame": lambda faults: faults.close(),
    "silent stall": lambda faults: faults.stall(),
    "outage": lambda faults: faults.outage(1.5),
    "duplicates": lambda faults: faults.duplicate(20),
}


async def heard(url: str, script: Script, since_s: float | None) -> Ear:
    """Listen to the local exchange without looking at its counts, while `script(ear)` runs."""
    ear, config = Ear(), local(url)
    exchange = connect(config.at)
    link = Link(exchange, config, ear.push)
    await exchange.load_markets()
    since = None if since_s is None else utc_now() - timedelta(seconds=since_s)
    stream = asyncio.create_task(RecentTrades(link, SYMBOL, since).run())
    try:
        await script(ear)
    finally:
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
        await disconnect(exchange)
    return ear


@pytest.mark.parametrize("name", FAULTS)
def test_after_each_fault_every_trade_has_come_once_and_in_order(name: str) -> None:
    async def script(ear: Ear) -> None:
        await ear.caught_up(running)
        FAULTS[name](running.faults)
        first = newest_id(running)
        await ear.until(lambda: newest_id(running) > first + 30, "more trades")
        await ear.caught_up(running)

    with exchange_thread(market_of()) as running:
        ear = asyncio.run(heard(running.url, script, None))

    assert_each_once_in_order(ear.ids())
    assert ear.states()[0] == "CONNECTED"
    assert (ear.states()[-1] == "RECOVERED") == (name != "duplicates")


def test_trades_since_the_warm_up_come_first() -> None:
    async def script(ear: Ear) -> None:
        await ear.caught_up(running)

    with exchange_thread(market_of()) as running:
        ear = asyncio.run(heard(running.url, script, 20.0))

    assert len(ear.ids()) >= 2000  # more than two pages
    assert_each_once_in_order(ear.ids())


def test_a_quiet_market_is_connected_and_what_a_dead_socket_missed_is_fetched() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: ear.states() == ["CONNECTED"], "connected")
        running.faults.stall()
        running.faults.burst(3)
        await ear.caught_up(running)
        running.faults.burst(2)
        await ear.caught_up(running)

    with exchange_thread(market_of(trades_per_s=0.01, history_s=1000.0)) as running:
        ear = asyncio.run(heard(running.url, script, None))

    assert len(ear.ids()) == 5
    assert_each_once_in_order(ear.ids())
