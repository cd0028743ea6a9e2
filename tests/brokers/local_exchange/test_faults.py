"""Each fault, as the unmodified ccxt.pro client or a bare client sees it. History is whole whatever is done."""

import asyncio
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import ccxt
import pytest
from exchange_process import Running, exchange_process, exchange_thread
from exchange_watch import Bare, bare, get, listeners, market_of, run, subscribed, trades_until, until
from trading_desk import trader

from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.market import AGGREGATE_OFFSET
from brokers.local_exchange.tape import tape

PAIR, TRADES, AGGREGATES = "BTC/USDT", "btcusdt@trade", "btcusdt@aggTrade"
# One trade has happened; the next is an hour away, unless a burst brings it.
LISTING = Listing(trades_per_s=1 / 3600, history_s=1.0)
CONFIG = ExchangeConfig(listings=(LISTING,), balances=("USDT=100000", "BTC=2"), weight_per_minute=1_000_000)


@contextmanager
def exchange(count: int = 20_000) -> Iterator[Running]:
    prices = [60_000.0 + (i * 7919 % 23) / 100 for i in range(count)]
    market = tape(LISTING, [float(i) for i in range(count)], prices, [0.01] * count)
    with exchange_thread(CONFIG, tapes={PAIR: market}) as running:
        yield running


async def told(ws: Bare, count: int) -> list[int]:
    """The ids of the next trades on a socket."""
    return [(await ws.next(lambda m: m.get("e") == "trade"))["t"] for _ in range(count)]


async def history(running: Running, first: int = 1) -> list[int]:
    """The ids that REST tells."""
    ids: list[int] = []
    while True:
        start = AGGREGATE_OFFSET + (ids[-1] + 1 if ids else first)
        status, rows, _ = await get(running, "/api/v3/aggTrades", symbol="BTCUSDT", fromId=start, limit=1000)
        assert status == 200
        if not rows:
            return ids
        ids += [row["f"] for row in rows]


def ids(trades: list[dict[str, Any]]) -> list[int]:
    return [int(trade["id"]) - AGGREGATE_OFFSET for trade in trades]


@pytest.mark.parametrize("fault", ["abort", "close"])
def test_a_cut_connection_loses_what_rest_still_has(fault: str) -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            watching = asyncio.create_task(trades_until(client, PAIR, 4 + AGGREGATE_OFFSET))
            await subscribed(running, AGGREGATES)
            running.faults.burst(3)
            before = ids(await watching)
            pending = asyncio.create_task(client.watch_trades(PAIR, params={"name": "aggTrade"}))
            await asyncio.sleep(0)  # so that it waits when the connection goes
            assert getattr(running.faults, fault)("market") == 1
            with pytest.raises(ccxt.NetworkError, match="closing code"):
                await pending
            await until(lambda: listeners(running, AGGREGATES) == 0)
            running.faults.burst(5)  # nobody hears of these
            watching = asyncio.create_task(trades_until(client, PAIR, 11 + AGGREGATE_OFFSET))
            await subscribed(running, AGGREGATES)
            running.faults.burst(2)
            after = ids(await watching)
            gap = await client.fetch_trades(PAIR, params={"fromId": AGGREGATE_OFFSET + 5, "limit": 5})
        assert (before, ids(gap), after) == ([2, 3, 4], [5, 6, 7, 8, 9], [10, 11])

    with exchange() as running:
        run(work(running))


def test_a_close_frame_says_goodbye_and_an_abort_does_not() -> None:
    async def work(running: Running) -> None:
        async with bare(running, TRADES) as ws:
            running.faults.close("market")
            message = await ws.ws.receive(20.0)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        async with bare(running, TRADES) as ws:
            running.faults.abort("market")
            message = await ws.ws.receive(20.0)
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert ws.ws.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE

    with exchange() as running:
        run(work(running))


def test_a_stalled_socket_lives_and_says_nothing_for_good() -> None:
    async def work(running: Running) -> None:
        async with bare(running, TRADES) as dead:
            running.faults.burst(2)
            assert await told(dead, 2) == [2, 3]
            assert running.faults.stall() == 1
            running.faults.burst(5)
            await dead.ws.ping()
            await dead.ws.send_str(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 5}))
            async with bare(running, TRADES) as alive:  # another socket is another matter
                running.faults.burst(1)
                assert await told(alive, 1) == [9]
            with pytest.raises(TimeoutError):
                await dead.ws.receive(0.3)
            assert not dead.ws.closed
            assert await history(running) == list(range(1, 10))
            assert (await get(running, "/control/state"))[1]["faults"]["stalled"] == 1

    with exchange() as running:
        run(work(running))


def test_a_stalled_socket_may_resume_without_what_it_missed() -> None:
    async def work(running: Running) -> None:
        async with bare(running, TRADES) as ws:
            running.faults.stall(0.2, resume=True)
            running.faults.burst(4)
            await until(lambda: running.exchange.faults.state()["stalled"] == 0)
            running.faults.burst(2)
            assert await told(ws, 2) == [6, 7]

    with exchange() as running:
        run(work(running))


def test_an_outage_cuts_sockets_answers_503_and_ends() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client, bare(running, TRADES) as ws:
            running.faults.outage(1.5)
            with pytest.raises(ccxt.ExchangeNotAvailable):
                await client.fetch_trades(PAIR)
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                async with bare(running):
                    pytest.fail("a socket was opened")
            assert (await ws.ws.receive(20.0)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            running.faults.burst(7)
            assert (await get(running, "/control/state"))[1]["faults"]["outage"] is True
            await until(lambda: not running.call(lambda: running.exchange.faults.out))
            assert ids(await client.fetch_trades(PAIR)) == list(range(1, 9))
            async with bare(running, TRADES) as again:
                running.faults.burst(1)
                assert await told(again, 1) == [9]

    with exchange() as running:
        run(work(running))


def test_in_an_outage_connections_may_be_refused() -> None:
    async def work(running: Running) -> None:
        running.faults.outage(1.0, refuse=True)

        async def refused() -> bool:
            try:
                await get(running, "/api/v3/ping")
            except aiohttp.ClientConnectorError:
                return True
            return False

        async with asyncio.timeout(20.0):
            while not await refused():
                await asyncio.sleep(0.01)
            while await refused():
                await asyncio.sleep(0.01)
        await until(lambda: not running.call(lambda: running.exchange.faults.out))
        assert (await get(running, "/api/v3/ping"))[0] == 200

    with exchange() as running:
        run(work(running))


def test_a_burst_reaches_a_client_that_makes_room_for_it() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            client.options["tradesLimit"] = 200_000
            watching = asyncio.create_task(trades_until(client, PAIR, 10_001 + AGGREGATE_OFFSET))
            await subscribed(running, AGGREGATES)
            assert running.faults.burst(10_000) == 10_000
            assert ids(await watching) == list(range(2, 10_002))

    with exchange() as running:
        run(work(running))


def test_after_a_burst_the_tape_goes_on_at_its_pace() -> None:
    listing = Listing(trades_per_s=20.0, history_s=1.0, rows=500)

    async def work(running: Running) -> None:
        async with bare(running, TRADES) as ws:
            (first,) = await told(ws, 1)
            running.faults.burst(100, PAIR)
            assert await told(ws, 110) == list(range(first + 1, first + 111))
        times = [trade.time_ms for trade in market_of(running, PAIR).trades(first, 111)]
        assert times == sorted(times)
        assert sum(b == a for a, b in pairwise(times)) >= 99  # those of the burst share their time

    with exchange_thread(ExchangeConfig(listings=(listing,))) as running:
        run(work(running))


def test_trades_are_told_twice_or_out_of_order() -> None:
    async def work(running: Running) -> None:
        async with bare(running, TRADES, AGGREGATES) as ws:
            running.faults.duplicate(2)
            running.faults.burst(3)
            assert await told(ws, 5) == [2, 2, 3, 3, 4]
            running.faults.out_of_order(2)
            running.faults.burst(5)
            assert await told(ws, 5) == [6, 5, 8, 7, 9]
            assert await history(running) == list(range(1, 10))

    with exchange() as running:
        run(work(running))


def test_malformed_trades_are_no_trades_and_lost() -> None:
    async def work(running: Running) -> None:
        async with bare(running, TRADES) as ws:
            running.faults.malformed(8)
            running.faults.burst(9)
            texts = [await ws.text() for _ in range(9)]
            assert json.loads(texts[8])["t"] == 10
            for text in texts[:8]:
                assert not _is_trade(text), text
            assert len({re.sub(r"[0-9]+", "", text) for text in texts[:8]}) == 8  # each in another way
            assert await history(running) == list(range(1, 11))

    with exchange() as running:
        run(work(running))


def _is_trade(text: str) -> bool:
    try:
        message = json.loads(text)
        return message["t"] > 0 < float(message["p"]) and float(message["q"]) > 0 < message["T"]
    except (ValueError, KeyError, TypeError):
        return False


def test_rest_answers_errors_by_count_by_time_and_by_path() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            running.faults.http(429, count=2, retry_after=7)
            for _ in range(2):
                with pytest.raises(ccxt.DDoSProtection):
                    await client.fetch_trades(PAIR)
                assert client.last_response_headers["Retry-After"] == "7"
            assert await client.fetch_trades(PAIR)
            running.faults.http(503, seconds=0.5, path="/api/v3/klines")
            assert await client.fetch_trades(PAIR)
            with pytest.raises(ccxt.ExchangeNotAvailable):
                await client.fetch_ohlcv(PAIR)
            async with asyncio.timeout(20.0):
                while (await get(running, "/api/v3/klines", symbol="BTCUSDT", interval="1m"))[0] == 503:
                    await asyncio.sleep(0.02)
            assert await client.fetch_ohlcv(PAIR)

    with exchange() as running:
        run(work(running))


def test_a_wrong_clock_shows_in_times_told_and_in_no_trade() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client, bare(running, TRADES) as ws:
            right = await client.fetch_time()
            running.faults.skew(-3_600_000)
            wrong = await client.fetch_time()
            assert -3_600_000 <= wrong - right < -3_500_000
            running.faults.burst(1)
            trade = await ws.next(lambda m: m.get("e") == "trade")
            assert -3_600_100 < trade["E"] - trade["T"] < -3_500_000
            assert trade["T"] >= right
            with pytest.raises(ccxt.InvalidNonce):
                await client.fetch_balance()
            running.faults.clear()
            assert await client.fetch_balance()

    with exchange() as running:
        run(work(running))


def test_orders_are_answered_late_not_at_all_or_refused() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            loop = asyncio.get_running_loop()
            running.faults.slow_ack(500)
            asked = loop.time()
            assert (await client.create_order(PAIR, "market", "buy", 0.01))["status"] == "closed"
            assert loop.time() - asked >= 0.5
            running.faults.lost_ack()
            with pytest.raises(ccxt.NetworkError):
                await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "lost"})
            assert [order["clientOrderId"] for order in await client.fetch_open_orders(PAIR)] == ["lost"]
            running.faults.reject_next()
            with pytest.raises(ccxt.ExchangeError):
                await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "no"})
            await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "yes"})
            names = [order["clientOrderId"] for order in await client.fetch_open_orders(PAIR)]
            assert names == ["lost", "yes"]

    with exchange() as running:
        run(work(running))


def test_a_fault_of_users_leaves_the_market_alone() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client, bare(running, TRADES) as ws:
            watching = asyncio.create_task(client.watch_orders(PAIR))
            await until(lambda: running.call(lambda: running.exchange.accounts.all[0].listeners))
            assert running.faults.abort("user") == 1
            with pytest.raises(ccxt.NetworkError):
                await watching
            running.faults.burst(1)
            assert await told(ws, 1) == [2]

    with exchange() as running:
        run(work(running))


async def _command(url: str, body: object) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/control/faults", json=body) as answer:
        return answer.status, await answer.json()


def test_faults_are_commanded_over_http_of_another_process() -> None:
    async def work(url: str) -> None:
        assert await _command(url, {"fault": "burst", "count": 50}) == (200, {"fault": "burst", "result": 50})
        assert await _command(url, {"fault": "skew", "ms": 5}) == (200, {"fault": "skew", "result": None})
        assert await _command(url, {"fault": "outage", "seconds": 60}) == (200, {"fault": "outage", "result": None})
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/control/state") as answer:
                state = await answer.json()
            async with session.get(f"{url}/api/v3/ping") as answer:
                assert answer.status == 503
        assert state["markets"]["ESUSD"]["trades"] == 51
        assert (state["faults"]["outage"], state["faults"]["skew_ms"]) == (True, 5)
        assert list(state["accounts"]) == ["account 1"]

    flags = ("--listing.trades-per-s", "0.001", "--listing.history-s", "1", "--listing.rows", "1000")
    with exchange_process(*flags) as url:
        run(work(url))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"fault": "earthquake"}, "fault must be one of"),
        ({"fault": "disturbed"}, "fault must be one of"),
        ({}, "fault"),
        ([1], "JSON object"),
        ({"fault": "burst"}, "count"),
        ({"fault": "burst", "count": 0}, "from 1"),
        ({"fault": "burst", "count": True}, "from 1"),
        ({"fault": "burst", "count": 1, "symbol": "DOGE/USDT"}, "BTCUSDT"),
        ({"fault": "abort", "kind": "some"}, "kind"),
        ({"fault": "duplicate", "count": 1, "kind": "all"}, "kind"),
        ({"fault": "stall", "seconds": 0}, "seconds"),
        ({"fault": "outage", "seconds": -1}, "seconds"),
        ({"fault": "outage", "seconds": "long"}, "str"),
        ({"fault": "http", "status": 200, "count": 1}, "status"),
        ({"fault": "http", "status": 503}, "count or seconds"),
        ({"fault": "slow_ack", "ms": -1}, "ms"),
        ({"fault": "skew", "ms": "NaN"}, "NaN"),
        ({"fault": "skew", "minutes": 1}, "minutes"),
    ],
)
def test_an_impossible_fault_is_refused(body: object, wanted: str) -> None:
    async def work() -> None:
        with exchange(count=2) as running:
            status, answer = await _command(running.url, body)
            assert status == 400
            assert wanted in answer["error"]
            assert (await get(running, "/control/state"))[1]["faults"]["counts"] == {}

    run(work())


@pytest.mark.parametrize("seed", range(4))
def test_history_is_whole_and_ids_are_true_after_any_sequence_of_faults(seed: int) -> None:
    chosen = random.Random(seed)
    commands = [
        ("abort", {}),
        ("close", {"kind": "market"}),
        ("stall", {"seconds": 0.05, "resume": True}),
        ("stall", {}),
        ("outage", {"seconds": 0.05}),
        ("duplicate", {"count": 3}),
        ("out_of_order", {"count": 3}),
        ("malformed", {"count": 3}),
        ("http", {"status": 503, "count": 2, "path": "/api/v3/klines"}),
        ("skew", {"ms": 1000}),
    ]

    async def work(running: Running) -> None:
        heard: set[int] = set()

        async def listen() -> None:
            while True:
                try:
                    async with bare(running, TRADES) as ws:
                        while True:
                            text = await asyncio.wait_for(ws.text(), 0.3)
                            heard.add(json.loads(text)["t"]) if _is_trade(text) else None
                except (aiohttp.ClientError, AssertionError, TimeoutError):
                    await asyncio.sleep(0.01)

        listening = asyncio.create_task(listen())
        due = 1
        for _ in range(12):
            fault, arguments = chosen.choice(commands)
            getattr(running.faults, fault)(**arguments)
            due += running.faults.burst(chosen.randint(1, 40))
            await asyncio.sleep(chosen.random() * 0.1)
        running.faults.clear()
        while due not in heard:  # the stream comes back
            due += running.faults.burst(1)
            await asyncio.sleep(0.02)
        listening.cancel()
        assert await history(running) == list(range(1, due + 1))
        assert heard <= set(range(2, due + 1))

    with exchange() as running:
        run(work(running))
