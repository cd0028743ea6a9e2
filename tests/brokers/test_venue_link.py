"""The user stream of one account through ccxt: it is heard again, whatever became of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread
from support import T0

from brokers.events import OrderRequest, OrderType
from brokers.venue_errors import Trouble
from brokers.venue_link import Link, VenueError
from brokers.venue_messages import Snapshot
from brokers.venue_terms import Terms
from feeds.events import Side
from feeds.exchange import ExchangeConfig, Window
from tests.brokers.venue_account import BTC, DEADLINE_S, KEY_ENV, LOCAL, SECRET_ENV, market

WINDOW_MS = 300
FAR: dict[str, Any] = {  # below the market: it rests
    "symbol": BTC.symbol, "side": Side.BUY, "order_type": OrderType.LIMIT, "quantity": 0.001, "limit_price": 50_000.0,
}  # fmt: skip
TROUBLES: dict[str, Callable[[Any], Any]] = {
    "refused": lambda faults: faults.reject_next(1),
    "busy": lambda faults: faults.http(503, count=1, path="/api/v3/order"),
    "too often": lambda faults: faults.http(429, count=1, retry_after=7, path="/api/v3/order"),
    "late": lambda faults: faults.slow_ack(3_000.0, 1),
    "lost": lambda faults: faults.lost_ack(1),
    "clock": lambda faults: faults.skew(60_000),
}
EXPECTED = {
    "refused": ("rejected", True),
    "busy": ("no_answer", False),
    "too often": ("rate_limit", True),
    "late": ("no_answer", False),
    "lost": ("no_answer", False),
    "clock": ("clock", True),
}


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


def _refused(failures: list[str]) -> int:
    return sum("503" in failure for failure in failures)


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
    async def scenario(running: Running) -> None:
        link, failures = Link(ExchangeConfig(url=running.url, key_env=KEY_ENV, secret_env=SECRET_ENV), WINDOW_MS), []
        tasks = []
        try:
            await link.open([BTC])
            tasks = [asyncio.create_task(_hear(link, failures, name)) for name in ("watch_orders", "watch_trades")]
            await _until_it_listens(running)
            await asyncio.to_thread(running.faults.outage, 60.0)
            ends_s = asyncio.get_running_loop().time() + 5 * WINDOW_MS / 1000.0
            async with asyncio.timeout(DEADLINE_S):  # it is refused, and goes on
                while _refused(failures) <= 2 or asyncio.get_running_loop().time() < ends_s:
                    await asyncio.sleep(0.02)
            assert not await asyncio.to_thread(_listens, running)
            await asyncio.to_thread(running.faults.clear)
            await _until_it_listens(running)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await link.close()

    with exchange_thread(LOCAL, tapes=market()) as running:
        asyncio.run(scenario(running))


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


def test_an_order_and_its_cancel_do_not_wait_for_polls_that_wait_for_room() -> None:
    async def scenario(running: Running) -> tuple[int, int]:
        link, polls = Link(ExchangeConfig(url=running.url, key_env=KEY_ENV, secret_env=SECRET_ENV), 5_000), []
        try:
            await link.open([BTC])
            drafted = link.drafters[BTC.symbol].terms(OrderRequest(order_id="a", **FAR), T0, 0)
            assert isinstance(drafted, Terms)
            link._exchange.window = Window(100.0, 60.0, kept=50.0)
            polls = [asyncio.create_task(link.open_orders(BTC.symbol)) for _ in range(60)]
            await asyncio.wait(polls, timeout=0.5)
            waiting = sum(not poll.done() for poll in polls)
            async with asyncio.timeout(DEADLINE_S):
                (placed,) = await link.place(drafted)
                assert isinstance(placed, Snapshot)
                await link.cancel(placed.venue_id, BTC.symbol)
            return waiting, sum(not poll.done() for poll in polls)
        finally:
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)
            await link.close()

    with exchange_thread(LOCAL, tapes=market()) as running:
        waiting, after = asyncio.run(scenario(running))
    assert waiting == after > 0


@pytest.mark.parametrize("fault", TROUBLES)
def test_what_a_plain_order_meets_is_told_as_ccxt_tells_it(fault: str) -> None:
    # The short way of a plain order has the sending, and so its failures, from aiohttp and not from ccxt.
    async def failure(running: Running, *, quick: bool) -> Trouble:
        at = ExchangeConfig(url=running.url, key_env=KEY_ENV, secret_env=SECRET_ENV, timeout_s=1.0)
        link = Link(at, 5_000)
        try:
            await link.open([BTC])
            if not quick:
                link._quick.takes = lambda terms: False  # type: ignore[method-assign]
            order = OrderRequest(order_id=f"{fault}-{quick}", **FAR)
            drafted = link.drafters[BTC.symbol].terms(order, T0, 0)
            assert isinstance(drafted, Terms)
            await asyncio.to_thread(TROUBLES[fault], running.faults)
            with pytest.raises(VenueError) as raised:
                await link.place(drafted)
            what = raised.value.trouble
            return what._replace(reason=what.reason.replace(running.url, "").replace(running.url.rsplit(":")[-1], ""))
        finally:
            await link.close()

    told = []
    for quick in (True, False):
        with exchange_thread(LOCAL, tapes=market()) as running:
            told.append(asyncio.run(failure(running, quick=quick)))
    ours, theirs = told
    assert ours == theirs
    assert (ours.code, ours.certain) == EXPECTED[fault]
