"""Market streams over websockets, as the unmodified ccxt.pro client and a bare websocket see them."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from exchange_process import Running, exchange_thread
from exchange_watch import Bare, bare, listeners, market_of, run, subscribed, trades_until, until
from trading_desk import trader

from brokers.local_exchange import streams
from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.market import AGGREGATE_OFFSET, Market
from brokers.local_exchange.tape import Tape, tape

PAIR, STREAM = "BTC/USDT", "btcusdt"
# One trade has happened; the next is an hour away, unless a burst brings it.
STILL = Listing(trades_per_s=1 / 3600, history_s=1.0)


def wandering(count: int, listing: Listing = STILL) -> Tape:
    """Prices that move by a few ticks, up and down."""
    prices = [60_000.0 + (i * 7919 % 23) / 100 for i in range(count)]
    return tape(listing, [float(i) for i in range(count)], prices, [0.001 * (1 + i % 9) for i in range(count)])


@contextmanager
def exchange(count: int = 2000, listing: Listing = STILL) -> Iterator[Running]:
    with exchange_thread(ExchangeConfig(listings=(listing,)), tapes={PAIR: wandering(count, listing)}) as running:
        yield running


@pytest.mark.parametrize(("name", "offset"), [("trade", 0), ("aggTrade", AGGREGATE_OFFSET)])
def test_every_trade_is_told_once_in_order_in_either_id_space(name: str, offset: int) -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            watching = asyncio.create_task(trades_until(client, PAIR, 501 + offset, name))
            await subscribed(running, f"{STREAM}@{name}")
            for _ in range(5):
                running.faults.burst(100)
            seen = await watching
            wanted = running.call(lambda: market_of(running, PAIR).trades(2, 500))
        assert [int(trade["id"]) - offset for trade in seen] == list(range(2, 502))
        for trade, told in zip(seen, wanted, strict=True):
            assert (trade["price"], trade["amount"]) == (told.price / 1e8, told.size / 1e8)
            assert trade["side"] == ("sell" if told.buyer_maker else "buy")
            assert (trade["timestamp"], trade["symbol"]) == (told.time_ms, PAIR)

    with exchange() as running:
        run(work(running))


def test_trades_come_by_themselves_at_their_pace() -> None:
    listing = Listing(trades_per_s=200.0, history_s=1.0)

    async def work(running: Running) -> None:
        async with bare(running, f"{STREAM}@trade") as ws:
            told = [await ws.next(lambda m: m.get("e") == "trade") for _ in range(60)]
        first = told[0]["t"]
        assert first > 200
        assert [message["t"] for message in told] == list(range(first, first + 60))
        assert [message["T"] - told[0]["T"] for message in told] == [5 * i for i in range(60)]
        assert all(message["E"] >= message["T"] for message in told)

    with exchange(5000, listing) as running:
        run(work(running))


def test_streams_and_rest_tell_the_same_bars() -> None:
    listing = Listing(trades_per_s=100.0, history_s=2.0)

    async def work(running: Running) -> None:
        async with trader(running.url) as client, bare(running, f"{STREAM}@kline_1s") as ws:
            over: list[dict[str, Any]] = []
            updates = 0
            while len(over) < 3:
                bar = (await ws.next(lambda m: m.get("e") == "kline"))["k"]
                updates += not bar["x"]
                if bar["x"]:
                    over.append(bar)
            assert updates >= 3
            assert [bar["t"] - over[0]["t"] for bar in over] == [0, 1000, 2000]
            rest = await client.fetch_ohlcv(PAIR, "1s", over[0]["t"], 3)
            assert rest == [[b["t"], *(float(b[k]) for k in "ohlcv")] for b in over]
            assert [bar["n"] for bar in over] == [100, 100, 100]
            assert (await client.watch_ohlcv(PAIR, "1s"))[-1][0] > over[-1]["t"]

    with exchange(5000, listing) as running:
        run(work(running))


def test_a_quiet_second_is_a_bar_at_the_last_price() -> None:
    async def work(running: Running) -> None:
        async with bare(running, f"{STREAM}@kline_1s") as ws:
            bar = (await ws.next(lambda m: m.get("e") == "kline" and m["k"]["x"]))["k"]
        assert (bar["o"], bar["h"], bar["l"], bar["c"], bar["v"]) == (*["60000.00000000"] * 4, "0.00000000")
        assert bar["n"] == 0

    with exchange() as running:
        run(work(running))


def test_the_best_bid_and_ask_are_told_when_they_change() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client, bare(running, f"{STREAM}@bookTicker") as ws:
            watching = asyncio.create_task(client.watch_bids_asks([PAIR]))
            await subscribed(running, f"{STREAM}@bookTicker", 2)
            told = []
            for _ in range(20):
                running.faults.burst(1)
                quote = running.call(lambda: market_of(running, PAIR).quote())
                message = await ws.next(lambda m: "u" in m)
                assert (message["b"], message["a"]) == (f"{quote.bid / 1e8:.8f}", f"{quote.ask / 1e8:.8f}")
                told.append((message["b"], message["B"], message["a"], message["A"]))
            best = (await watching)[PAIR]
        assert (f"{best['bid']:.8f}", f"{best['ask']:.8f}") == (told[0][0], told[0][2])
        assert all(now != before for before, now in pairwise(told))

    with exchange() as running:
        run(work(running))


def test_the_clients_book_is_the_exchanges_book_at_every_update() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            book = await client.watch_order_book(PAIR)
            versions = [book["nonce"]]
            while len(versions) < 8:
                running.faults.burst(37)
                book = await client.watch_order_book(PAIR)
                versions.append(book["nonce"])
                true = Market(STILL, wandering(2000), seed=0, now_ms=0)
                true.emitted = book["nonce"]
                assert [(round(p * 1e8), round(s * 1e8)) for p, s in book["bids"]] == list(true.depth().bids)
                assert [(round(p * 1e8), round(s * 1e8)) for p, s in book["asks"]] == list(true.depth().asks)
            assert versions == sorted(set(versions))

    with exchange() as running:
        run(work(running))


def test_changes_of_a_second_add_up_to_those_of_its_tenths() -> None:
    async def work(running: Running) -> None:
        async with bare(running, f"{STREAM}@depth@100ms") as fast, bare(running, f"{STREAM}@depth") as slow:
            told = await _changes(running, fast, 200)
            assert len(told) == 4
            assert _added_up(await _changes(running, slow, 200)) == _added_up(told)

    with exchange() as running:
        run(work(running))


async def _changes(running: Running, ws: Bare, last: int) -> list[dict[str, Any]]:
    """Updates of the book up to so many trades, of which 50 happen with each update."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["u"] < last:
        if (traded := running.call(lambda: market_of(running, PAIR).emitted)) < last:
            running.faults.burst(min(50, last - traded))
        told.append(await ws.next(lambda m: m.get("e") == "depthUpdate"))
        assert told[-1]["U"] == (told[-2]["u"] + 1 if len(told) > 1 else 2)
    return told


def _added_up(told: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{price: size for update in told for price, size in update[side]} for side in "ba"]


def test_the_first_levels_are_told_whole() -> None:
    async def work(running: Running) -> None:
        async with bare(running, f"{STREAM}@depth5@100ms") as ws:
            running.faults.burst(9)
            book = await ws.next(lambda m: m.get("lastUpdateId") == 10)
            depth = running.call(lambda: market_of(running, PAIR).depth(5))
        assert book["bids"] == [[f"{price / 1e8:.8f}", f"{size / 1e8:.8f}"] for price, size in depth.bids]
        assert book["asks"] == [[f"{price / 1e8:.8f}", f"{size / 1e8:.8f}"] for price, size in depth.asks]

    with exchange() as running:
        run(work(running))


def test_the_day_is_told_once_a_second() -> None:
    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            small = await client.watch_ticker(PAIR)
            full = await client.watch_ticker(PAIR, {"name": "ticker"})
            quote = running.call(lambda: market_of(running, PAIR).quote())
        assert (small["last"], small["bid"]) == (60_000.0, None)
        assert (full["last"], full["bid"], full["ask"]) == (60_000.0, quote.bid / 1e8, quote.ask / 1e8)

    with exchange() as running:
        run(work(running))


def test_subscriptions_are_listed_and_ended() -> None:
    async def work(running: Running) -> None:
        async with bare(running, f"{STREAM}@trade", f"{STREAM}@depth") as ws:
            assert (await ws.ask("SUBSCRIBE", f"{STREAM}@aggTrade", f"{STREAM}@trade"))["result"] is None
            names = [f"{STREAM}@{name}" for name in ("trade", "depth", "aggTrade")]
            assert (await ws.ask("LIST_SUBSCRIPTIONS"))["result"] == names
            assert (await ws.ask("UNSUBSCRIBE", names[0], names[1], "btcusdt@never"))["result"] is None
            assert (await ws.ask("LIST_SUBSCRIPTIONS"))["result"] == names[2:]
            running.faults.burst(3)
            told = [await ws.next() for _ in range(3)]
            assert [(message["e"], message["f"]) for message in told] == [("aggTrade", i) for i in (2, 3, 4)]

    with exchange() as running:
        run(work(running))


@pytest.mark.parametrize(
    "request_",
    [
        '{"method":"SUBSCRIBE","params":["dogeusdt@trade"],"id":9}',
        '{"method":"SUBSCRIBE","params":["BTCUSDT@trade"],"id":9}',
        '{"method":"SUBSCRIBE","params":["btcusdt@trades"],"id":9}',
        '{"method":"SUBSCRIBE","params":["btcusdt@kline_7m"],"id":9}',
        '{"method":"SUBSCRIBE","params":["btcusdt@depth@1ms"],"id":9}',
        '{"method":"SUBSCRIBE","params":["btcusdt@trade@100ms"],"id":9}',
        '{"method":"SUBSCRIBE","params":["btcusdt@trade","nonsense"],"id":9}',
        '{"method":"SUBSCRIBE","params":"btcusdt@trade","id":9}',
        '{"method":"SUBSCRIBE","params":[1],"id":9}',
        '{"method":"ORDER","params":[],"id":9}',
        '{"id":9}',
    ],
)
def test_a_wrong_request_is_refused_whole_and_the_socket_lives(request_: str) -> None:
    async def work(running: Running) -> None:
        async with bare(running) as ws:
            await ws.ws.send_str(request_)
            answer = await ws.next()
            assert (answer["error"]["code"], answer["id"]) == (2, 9)
            await ws.ws.send_str("no JSON")
            assert (await ws.next())["error"]["code"] == 2
            await ws.ws.send_str("[1]")
            assert (await ws.next())["error"]["code"] == 2
            assert (await ws.ask("LIST_SUBSCRIPTIONS"))["result"] == []

    with exchange() as running:
        run(work(running))


def test_pings_are_sent_and_answered_and_who_does_not_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.3)
    monkeypatch.setattr(streams, "PONG_S", 3.0)

    async def work(running: Running) -> None:
        url = f"{running.url}/stream/ws/7"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            await ws.ping(b"hello")
            reading = asyncio.create_task(ws.receive())  # aiohttp answers pings while it reads
            async with session.ws_connect(url, autoping=False) as deaf:
                kinds = [message.type async for message in deaf]  # until it is cut off
                assert kinds.count(aiohttp.WSMsgType.PING) >= 2
            await until(lambda: running.call(lambda: len(running.exchange.sockets)) == 1)
            assert not reading.done()
            reading.cancel()

    with exchange() as running:
        run(work(running))


def test_a_client_that_does_not_read_holds_up_nobody_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "QUEUE_MAX", 5000)
    count = 60_000

    async def work(running: Running) -> None:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            slow.sendall(_handshake() + _masked(json.dumps({"method": "SUBSCRIBE", "params": [f"{STREAM}@trade"]})))
            await subscribed(running, f"{STREAM}@trade")
            async with bare(running, f"{STREAM}@trade") as ws:
                last = 1
                while listeners(running, f"{STREAM}@trade") == 2:
                    due = last + running.faults.burst(2000)
                    assert due > last, "the client that does not read was never cut off"
                    while last < due:
                        message = await ws.next(lambda m: m.get("e") == "trade")
                        last += 1
                        assert message["t"] == last

    with exchange(count + 1) as running:
        run(work(running))


def _handshake() -> bytes:
    lines = (
        "GET /stream/ws HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join([*lines, "", ""]).encode()


def _masked(text: str) -> bytes:
    """A text frame of less than 126 bytes, masked with zeros."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode()
