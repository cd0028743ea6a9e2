"""Every trade once and in order, whatever the exchange does: ccxt's own client against the local exchange."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.request import urlopen

import pytest
from aiohttp import WSMsgType, web
from exchange_process import Running, exchange_thread

from brokers.local_exchange.market import AGGREGATE_OFFSET
from feeds.clock import utc_now
from feeds.crypto_parse import milliseconds
from feeds.errors import UnknownSymbolError
from feeds.events import FeedState
from tests.feeds.crypto_ear import SYMBOL, Ear, assert_each_once_in_order, heard, listen, local, market_of, newest_id

AGG_TRADES = "/api/v3/aggTrades"

Fault = Callable[[Any], Any]
FAULTS: dict[str, tuple[Fault, list[str]]] = {
    "abort": (lambda faults: faults.abort(), ["STALE", "RECOVERED"]),
    "close frame": (lambda faults: faults.close(), ["STALE", "RECOVERED"]),
    "silent stall": (lambda faults: faults.stall(), ["STALE", "RECOVERED"]),
    "outage": (lambda faults: faults.outage(1.5), ["STALE", "RECOVERED"]),
    "refused connections": (lambda faults: faults.outage(1.5, refuse=True), ["STALE", "RECOVERED"]),
    "burst": (lambda faults: faults.burst(10_000), []),
    "duplicates": (lambda faults: faults.duplicate(20), []),
    "overtaken messages": (lambda faults: faults.out_of_order(20), []),
    "malformed messages": (lambda faults: faults.malformed(16), ["GAP", "RECOVERED"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_after_each_fault_every_trade_has_come_once_and_in_order(name: str) -> None:
    fault, wanted = FAULTS[name]

    async def script(ear: Ear) -> None:
        await ear.caught_up(running)
        fault(running.faults)
        first = newest_id(running)
        await ear.until(lambda: newest_id(running) > first + 30, "more trades")
        await ear.until(lambda: not wanted or {*wanted} <= {*ear.states()}, f"in {wanted}")
        await ear.caught_up(running)

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url), script)

    assert_each_once_in_order(ear.ids())
    assert ear.states()[0] == "CONNECTED"
    if not wanted:
        assert not {"STALE", "LAGGING"} & {*ear.states()}
    times = [trade.event_time for trade in ear.trades]
    assert times == sorted(times)
    assert all(trade.received >= trade.event_time for trade in ear.trades)


def test_exactly_what_is_missing_is_fetched() -> None:
    async def script(ear: Ear) -> None:
        await ear.caught_up(running)
        running.call(running.exchange.requests.log.clear)
        running.faults.malformed(3)
        await ear.until(lambda: ear.states() == ["CONNECTED", "GAP", "RECOVERED"], "recovered")
        await ear.caught_up(running)

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url), script)
        asked = [request.query for request in running.exchange.requests.log if request.path == AGG_TRADES]

    ids = [int(query["fromId"]) + i for query in asked for i in range(int(query["limit"]))]
    assert len(ids) == 3
    assert_each_once_in_order(ids)
    gap = next(status for status in ear.heard["status"] if status.state is FeedState.GAP)
    recovered = ear.heard["status"][-1]
    assert (gap.value, recovered.value) == (3.0, 3.0)
    assert f"from id {ids[0]} on" in gap.detail
    assert_each_once_in_order(ear.ids())


def test_a_gap_longer_than_a_page_is_fetched_in_pages() -> None:
    async def script(ear: Ear) -> None:
        await ear.caught_up(running)
        running.call(running.exchange.requests.log.clear)
        running.call(lambda: (running.exchange.faults.abort(), running.exchange.faults.burst(2500)))
        await ear.caught_up(running)
        await ear.until(lambda: ear.states()[-1] == "RECOVERED", "recovered")

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url), script)
        asked = [request.query for request in running.exchange.requests.log if request.path == AGG_TRADES]

    assert [query["limit"] for query in asked[:2]] == ["1000", "1000"]
    assert sum(int(query["limit"]) for query in asked) == ear.heard["status"][-1].value >= 2500
    assert_each_once_in_order(ear.ids())


@pytest.mark.parametrize("status", [429, 503])
def test_while_requests_are_refused_the_gap_stays_open_and_nothing_later_leaves(status: int) -> None:
    async def script(ear: Ear) -> None:
        await ear.caught_up(running)
        running.faults.http(status, count=2, retry_after=1, path=AGG_TRADES)
        running.faults.malformed(1)
        await ear.until(lambda: "GAP" in ear.states(), "in a gap")
        await ear.caught_up(running)

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url), script)
        log = [request for request in running.exchange.requests.log if request.path == AGG_TRADES]

    assert [request.status for request in log] == [status, status, 200]
    if status == 429:  # it was waited for as long as was asked
        assert log[2].wall_ms - log[1].wall_ms >= 950
        assert log[1].wall_ms - log[0].wall_ms >= 950
    assert ear.states() == ["CONNECTED", "GAP", "RECOVERED"]
    assert_each_once_in_order(ear.ids())


def test_trades_since_the_warm_up_come_before_the_first_live_one() -> None:
    since = utc_now().replace(microsecond=0) - timedelta(seconds=35)

    async def script(ear: Ear) -> None:
        await ear.caught_up(running)

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url), script, {SYMBOL: since})
        market = running.exchange.markets["BTCUSDT"]
        first = running.call(lambda: market.first_id_at(milliseconds(since)))

    assert ear.ids()[0] == first + AGGREGATE_OFFSET
    assert len(ear.ids()) > 3000  # more than three pages
    assert_each_once_in_order(ear.ids())
    assert ear.states() == ["CONNECTED"]


def test_an_exchange_that_cannot_be_reached_at_first_is_tried_until_it_can() -> None:
    with ExitStack() as exchanges:
        url = exchanges.enter_context(exchange_thread(market_of())).url
        exchanges.close()

        async def script(ear: Ear) -> None:
            await ear.until(lambda: ear.states() == ["STALE"], "stale")
            config = replace(market_of(), port=int(url.rpartition(":")[2]))
            await ear.caught_up(exchanges.enter_context(exchange_thread(config)))

        ear = listen(local(url), script)

    assert ear.states() == ["STALE", "RECOVERED"]
    assert "could not be reached" in ear.heard["status"][0].detail
    assert_each_once_in_order(ear.ids())


def test_trades_that_the_exchange_does_not_have_are_given_up_and_told() -> None:
    # Its stream goes from 2 to 5, and so do its answers: 3 and 4 never were.
    connected = asyncio.Event()
    trades = [{"a": i, "p": "1.5", "q": "2", "T": milliseconds(utc_now()), "m": False} for i in (1, 2, 5, 6)]

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_json({"result": None, "id": json.loads(message.data)["id"]})
                for fields in trades:
                    if fields["a"] == 5:
                        await connected.wait()
                    await socket.send_json({"e": "aggTrade", "s": "BTCUSDT", **fields})
        return socket

    async def aggregates(request: web.Request) -> web.Response:
        first, limit = int(request.query["fromId"]), int(request.query["limit"])
        return web.json_response([fields for fields in trades if fields["a"] >= first][:limit])

    async def script(ear: Ear) -> None:
        await ear.until(lambda: ear.states() == ["CONNECTED"], "connected")
        connected.set()
        await ear.until(lambda: ear.states()[-1:] == ["RECOVERED"], "recovered")

    async def described(request: web.Request) -> web.Response:
        return web.json_response(info)

    async def run() -> Ear:
        app = web.Application()
        app.add_routes(
            [
                web.get("/stream/ws/{n}", stream),
                web.get(AGG_TRADES, aggregates),
                web.get("/api/v3/exchangeInfo", described),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return await heard(local(f"http://127.0.0.1:{runner.addresses[0][1]}"), script)
        finally:
            await runner.cleanup()

    with exchange_thread(market_of()) as running, urlopen(f"{running.url}/api/v3/exchangeInfo") as answer:
        info = json.loads(answer.read())
    ear = asyncio.run(run())

    assert ear.ids() == [1, 2, 5, 6]
    assert ear.states() == ["CONNECTED", "GAP", "RECOVERED"]
    assert "2 lost" in ear.heard["status"][-1].detail


def test_late_trades_are_told_once_an_episode() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: len(ear.trades) > 50, "heard of 50 trades")

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url, lag_max_s=1e-6), script)  # every trade is that late

    assert ear.states() == ["CONNECTED", "LAGGING"]


def test_two_symbols_are_whole_each_by_itself() -> None:
    async def script(ear: Ear) -> None:
        for symbol in (SYMBOL, "ETH/USDT"):
            await ear.caught_up(running, symbol)
        running.faults.abort()
        await ear.until(lambda: ear.states().count("RECOVERED") >= 1, "recovered")
        for symbol in (SYMBOL, "ETH/USDT"):
            await ear.caught_up(running, symbol)

    with exchange_thread(market_of(SYMBOL, "ETH/USDT")) as running:
        ear = listen(local(running.url, symbols=(SYMBOL, "ETH/USDT")), script)

    for symbol in (SYMBOL, "ETH/USDT"):
        assert_each_once_in_order(ear.ids(symbol))


def test_a_symbol_that_is_not_traded_ends_the_feed_and_says_so() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: False, "reached")

    said = r"BTC/USTD: binance has no such market; did you mean BTC/USDT\?"
    with exchange_thread(market_of()) as running, pytest.raises(UnknownSymbolError, match=said):
        listen(local(running.url, symbols=("BTC/USTD",)), script)


def test_a_bug_behind_the_feed_ends_it_with_that_bug() -> None:
    class Deaf(Ear):
        def push(self, output: str, value: Any) -> None:
            if output == "trades":
                raise ZeroDivisionError("of the listener")
            super().push(output, value)

    async def script(ear: Ear) -> None:
        await ear.until(lambda: False, "reached")

    with exchange_thread(market_of()) as running, pytest.raises(ZeroDivisionError, match="of the listener"):
        asyncio.run(heard(local(running.url), script, ear=Deaf()))


async def random_faults(ear: Ear, running: Running, seed: int, count: int) -> None:
    """Faults at random, each at once after the one before or when all is well again."""
    draw = random.Random(seed)
    await ear.caught_up(running)
    for _ in range(count):
        fault, _ = FAULTS[draw.choice(list(FAULTS))]
        fault(running.faults)
        if draw.random() < 0.3:
            running.faults.http(draw.choice([429, 503]), count=draw.randint(1, 3), retry_after=1)
        if draw.random() < 0.5:
            await ear.caught_up(running)
    running.faults.clear()
    await ear.caught_up(running)


@pytest.mark.parametrize("seed", [4, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 25))])
def test_after_any_sequence_of_faults_every_trade_has_come_once_and_in_order(seed: int) -> None:
    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url), lambda ear: random_faults(ear, running, seed, 6))

    assert_each_once_in_order(ear.ids())
