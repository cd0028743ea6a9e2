"""The user stream of one account through ccxt: it is heard again, whatever became of it."""

import asyncio

import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread

from brokers.venue_link import Link, VenueError
from feeds.exchange import ExchangeConfig
from tests.brokers.venue_account import BTC, DEADLINE_S, KEY_ENV, LOCAL, SECRET_ENV, market

WINDOW_MS = 300


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SECRET_ENV, SECRET)


def _listens(running: Running) -> bool:
    """Whether anybody has subscribed to what the account does."""
    return bool(running.call(lambda: bool(running.exchange.accounts.all[0].listeners)))


async def _until_it_listens(running: Running) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(_listens, running):
            await asyncio.sleep(0.02)


async def _hear(link: Link, failures: list[str], name: str) -> None:
    watch = getattr(link, name)
    while True:
        try:
            await watch()
        except VenueError as error:
            failures.append(error.trouble.reason)
            await asyncio.sleep(0.05)


def test_the_stream_is_heard_again_after_an_outage_much_longer_than_the_window() -> None:
    # ccxt waits longer before each dial, up to 30 s, with a subscription that was signed before that: on the first
    # socket that opens again it is refused for its age, and ccxt then waits on that socket for ever.
    async def scenario(running: Running) -> list[str]:
        link, failures = Link(ExchangeConfig(url=running.url, key_env=KEY_ENV, secret_env=SECRET_ENV), WINDOW_MS), []
        tasks = []
        try:
            await link.open([BTC])
            tasks = [asyncio.create_task(_hear(link, failures, name)) for name in ("watch_orders", "watch_trades")]
            await _until_it_listens(running)
            await asyncio.to_thread(running.faults.outage, 5 * WINDOW_MS / 1000.0)
            await _until_it_listens(running)
            return failures
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await link.close()

    with exchange_thread(LOCAL, tapes=market()) as running:
        failures = asyncio.run(scenario(running))
    assert sum("503" in failure for failure in failures) > 2  # it was refused, and went on


def test_a_refused_subscription_is_asked_for_again() -> None:
    async def scenario(running: Running) -> list[str]:
        link, failures = Link(ExchangeConfig(url=running.url, key_env=KEY_ENV, secret_env=SECRET_ENV), WINDOW_MS), []
        tasks = []
        try:
            await link.open([BTC])
            await asyncio.to_thread(running.faults.skew, 60_000)
            tasks = [asyncio.create_task(_hear(link, failures, name)) for name in ("watch_orders", "watch_trades")]
            async with asyncio.timeout(DEADLINE_S):
                while not failures:
                    await asyncio.sleep(0.02)
            await link.set_clock()
            await _until_it_listens(running)
            return failures
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await link.close()

    with exchange_thread(LOCAL, tapes=market()) as running:
        assert asyncio.run(scenario(running))
