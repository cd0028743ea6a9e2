"""Market data over REST, as the unmodified ccxt.pro client and a bare HTTP client see it."""

from typing import Any

import aiohttp
import ccxt
import pytest
from exchange_process import Running, exchange_process, exchange_thread
from exchange_watch import get, market_of, run
from hypothesis import given, settings
from hypothesis import strategies as st
from trading_desk import trader

from brokers.local_exchange.amounts import text
from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.market import AGGREGATE_OFFSET
from brokers.local_exchange.tape import tape

PAIR = "BTC/USDT"
# 3000 trades have happened, four a second; the next is half an hour away, unless a burst brings it.
PAST = 3000
LISTING = Listing(history_s=PAST / 4, min_notional="10", quantity_max="500", loop=False)
ETH = Listing(symbol="ETH/USDT", tick="0.1", lot="0.01", trades_per_s=0.0001, history_s=1.0)
CONFIG = ExchangeConfig(listings=(LISTING, ETH))


def tapes() -> dict[str, Any]:
    times = [i / 4 for i in range(PAST)] + [PAST + 1800.0 + i for i in range(50)]
    prices = [60_000.0 + (i * 7919 % 1000) / 100 for i in range(len(times))]
    sizes = [0.001 * (1 + i % 17) for i in range(len(times))]
    eth = tape(ETH, [0.0, 1.0], [3000.0, 3001.0], [1.0, 1.0])
    return {PAIR: tape(LISTING, times, prices, sizes), "ETH/USDT": eth}


@pytest.fixture(scope="module")
def running() -> Any:
    with exchange_thread(CONFIG, tapes=tapes()) as started:
        yield started


def test_markets_have_the_steps_and_bounds_of_their_listings(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            assert sorted(client.markets) == [PAIR, "ETH/USDT"]
            market = client.market(PAIR)
            assert (market["id"], market["spot"], market["active"]) == ("BTCUSDT", True, True)
            assert (market["precision"]["price"], market["precision"]["amount"]) == (0.01, 0.00001)
            limits = market["limits"]
            assert (limits["cost"]["min"], limits["amount"]["min"], limits["amount"]["max"]) == (10.0, 0.00001, 500.0)
            assert limits["market"]["max"] == 1_000_000.0
            assert client.price_to_precision(PAIR, 60_000.126) == "60000.13"
            assert client.amount_to_precision("ETH/USDT", 1.239) == "1.23"

    run(work())


def test_bars_are_those_of_the_market_and_of_its_trades(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            since = market_of(running, PAIR).trade(1).time_ms // 60_000 * 60_000
            bars = await client.fetch_ohlcv(PAIR, "1m", since)
            assert len(bars) >= 12
            assert sum(bar[5] for bar in bars) == pytest.approx(sum(0.001 * (1 + i % 17) for i in range(PAST)))
            for opened, open_, high, low, close, volume in bars:
                inside = await _between(client, opened, opened + 60_000)
                if not inside:
                    assert (volume, open_) == (0.0, close)
                    continue
                assert [open_, close] == [inside[0]["price"], inside[-1]["price"]]
                assert [high, low] == [f(t["price"] for t in inside) for f in (max, min)]
                assert volume == pytest.approx(sum(t["amount"] for t in inside), rel=1e-12)

    run(work())


def _id(trade_id: int) -> int:
    return trade_id + AGGREGATE_OFFSET


async def _between(client: Any, start_ms: int, end_ms: int) -> list[Any]:
    return await client.fetch_trades(PAIR, start_ms, 1000, {"until": end_ms - 1})


def test_trades_have_two_id_spaces(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            aggregates = await client.fetch_trades(PAIR, limit=1000)
            for method in ("publicGetTrades", "publicGetHistoricalTrades"):
                raw = await client.fetch_trades(PAIR, limit=1000, params={"fetchTradesMethod": method})
                assert [int(t["id"]) for t in raw] == list(range(PAST - 999, PAST + 1))
                keys = ("price", "amount", "side", "timestamp")
                assert [[t[k] for k in keys] for t in raw] == [[t[k] for k in keys] for t in aggregates]
            assert [int(t["id"]) for t in aggregates] == [_id(i) for i in range(PAST - 999, PAST + 1)]
            assert [t["info"]["f"] for t in aggregates] == list(range(PAST - 999, PAST + 1))

    run(work())


def test_walking_by_id_gives_every_trade_once(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            seen = [_id(0)]
            while page := await client.fetch_trades(PAIR, limit=700, params={"fromId": seen[-1] + 1}):
                seen += [int(trade["id"]) for trade in page]
            assert seen[1:] == [_id(i) for i in range(1, PAST + 1)]

    run(work())


@settings(max_examples=25, deadline=None)
@given(start=st.integers(-5, PAST + 5), length=st.integers(-2, 400), limit=st.integers(1, 1000), open_=st.booleans())
def test_a_window_of_time_has_the_trades_inside_it(
    running: Running, start: int, length: int, limit: int, open_: bool
) -> None:
    first_ms = market_of(running, PAIR).trade(1).time_ms
    start_ms = first_ms + 250 * start
    query: dict[str, object] = {"symbol": "BTCUSDT", "startTime": start_ms, "limit": limit}
    if not open_:
        query["endTime"] = start_ms + 250 * length

    status, rows, _ = run(get(running, "/api/v3/aggTrades", **query))

    last = PAST if open_ else min(PAST, start + length + 1)
    assert status == 200
    assert [row["f"] for row in rows] == list(range(max(1, start + 1), last + 1))[:limit]


def test_the_book_and_the_quotes_are_those_of_the_market(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            depth = market_of(running, PAIR).depth()
            book = await client.fetch_order_book(PAIR, 20)
            assert book["nonce"] == PAST
            assert book["bids"] == [[price / 1e8, size / 1e8] for price, size in depth.bids]
            assert book["asks"] == [[price / 1e8, size / 1e8] for price, size in depth.asks]
            assert len((await client.fetch_order_book(PAIR, 5))["asks"]) == 5
            best = (await client.fetch_bids_asks([PAIR]))[PAIR]
            assert [best["bid"], best["ask"]] == [book["bids"][0][0], book["asks"][0][0]]
            assert (await get(running, "/api/v3/ticker/bookTicker", symbol="BTCUSDT"))[1]["bidQty"] == text(
                depth.bids[0][1]
            )

    run(work())


def test_the_ticker_tells_the_day(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            ticker = await client.fetch_ticker(PAIR)
            prices = [60_000.0 + (i * 7919 % 1000) / 100 for i in range(PAST)]
            sizes = [0.001 * (1 + i % 17) for i in range(PAST)]
            worth = sum(p * s for p, s in zip(prices, sizes, strict=True))
            assert [ticker["high"], ticker["low"], ticker["last"]] == [max(prices), min(prices), prices[-1]]
            assert ticker["baseVolume"] == pytest.approx(sum(sizes))
            assert ticker["quoteVolume"] == pytest.approx(worth)
            assert ticker["vwap"] == pytest.approx(worth / sum(sizes))
            assert ticker["percentage"] == pytest.approx(100 * (prices[-1] / prices[0] - 1), abs=1e-3)
            assert sorted(await client.fetch_tickers()) == [PAIR, "ETH/USDT"]

    run(work())


def test_a_burst_is_history_at_once() -> None:
    with exchange_thread(CONFIG, tapes=tapes()) as running:
        assert running.faults.burst(10, PAIR) == 10
        rows = run(get(running, "/api/v3/aggTrades", symbol="BTCUSDT", fromId=_id(PAST)))[1]
        bars = run(get(running, "/api/v3/klines", symbol="BTCUSDT", interval="1d"))[1]
    assert [row["f"] for row in rows] == list(range(PAST, PAST + 11))
    assert len({row["T"] for row in rows[1:]}) == 1
    assert sum(bar[8] for bar in bars) == PAST + 10


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("klines", {"interval": "1m"}, -1102),
        ("klines", {"symbol": "BTCUSDT"}, -1102),
        ("klines", {"symbol": "DOGEUSDT", "interval": "1m"}, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": "now"}, -1100),
        ("trades", {"symbol": "BTCUSDT", "limit": "-5"}, -1100),
        ("trades", {"symbol": "BTCUSDT", "limit": "0"}, -1130),
        ("trades", {"symbol": "BTCUSDT", "limit": "٣"}, -1100),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": "1", "startTime": "5"}, -1128),
        ("depth", {"symbol": ""}, -1102),
        ("ticker/24hr", {"symbol": "btcusdt"}, -1121),
    ],
)
def test_a_wrong_question_has_binances_answer(running: Running, path: str, query: dict[str, str], code: int) -> None:
    status, body, _ = run(get(running, f"/api/v3/{path}", **query))
    assert (status, body["code"]) == (400, code)
    assert body["msg"]


def test_an_unknown_symbol_is_a_bad_symbol_to_the_client(running: Running) -> None:
    async def work() -> None:
        async with trader(running.url) as client:
            client.markets["DOGE/USDT"] = client.markets[PAIR] | {"id": "DOGEUSDT", "symbol": "DOGE/USDT"}
            with pytest.raises(ccxt.BadSymbol, match="Invalid symbol"):
                await client.fetch_trades("DOGE/USDT")

    run(work())


def test_too_much_weight_is_429_until_the_minute_is_over() -> None:
    config = ExchangeConfig(listings=(LISTING,), weight_per_minute=100)
    with exchange_thread(config, tapes={PAIR: tapes()[PAIR]}) as running:
        now_ms = running.exchange.clock.wall_ms()
        running.exchange.clock.wall_ms = lambda: now_ms // 60_000 * 60_000 + 15_000  # type: ignore[method-assign]
        used = [run(get(running, "/api/v3/trades", symbol="BTCUSDT")) for _ in range(5)]
        running.exchange.clock.wall_ms = lambda: now_ms // 60_000 * 60_000 + 60_000  # type: ignore[method-assign]
        later = run(get(running, "/api/v3/trades", symbol="BTCUSDT"))
    assert [status for status, _, _ in used] == [200] * 4 + [429]
    assert [headers["X-MBX-USED-WEIGHT-1M"] for _, _, headers in used] == ["25", "50", "75", "100", "125"]
    assert used[4][1]["code"] == -1003
    assert used[4][2]["Retry-After"] == "45"
    assert (later[0], later[2]["X-MBX-USED-WEIGHT-1M"]) == (200, "25")


@pytest.mark.parametrize(("limit", "weight"), [(5, 5), (100, 5), (101, 25), (1000, 50), (5000, 250)])
def test_a_deeper_book_weighs_more(limit: int, weight: int) -> None:
    with exchange_thread(CONFIG, tapes=tapes()) as running:
        _, _, headers = run(get(running, "/api/v3/depth", symbol="BTCUSDT", limit=limit))
    assert headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


def test_the_client_is_told_of_a_rate_limit() -> None:
    config = ExchangeConfig(listings=(LISTING,), weight_per_minute=21)  # exchangeInfo weighs 20

    async def work(running: Running) -> None:
        async with trader(running.url) as client:
            with pytest.raises(ccxt.DDoSProtection, match="-1003"):
                await client.fetch_trades(PAIR)
            assert int(client.last_response_headers["Retry-After"]) in range(1, 61)

    with exchange_thread(config, tapes={PAIR: tapes()[PAIR]}) as running:
        run(work(running))


def test_requests_are_logged(running: Running) -> None:
    before = running.call(lambda: running.exchange.requests.count("/api/v3/aggTrades"))
    run(get(running, "/api/v3/aggTrades", symbol="BTCUSDT", fromId=_id(7), limit=2))
    request = running.call(lambda: running.exchange.requests.log[-1])
    assert (request.method, request.path, request.status) == ("GET", "/api/v3/aggTrades", 200)
    assert request.query == {"symbol": "BTCUSDT", "fromId": str(_id(7)), "limit": "2"}
    assert running.call(lambda: running.exchange.requests.count("/api/v3/aggTrades")) == before + 1


def test_a_page_of_another_host_is_turned_away(running: Running) -> None:
    async def work() -> int:
        fault, headers = {"fault": "abort"}, {"Host": "evil.example"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{running.url}/control/faults", json=fault) as answer,
        ):
            return answer.status

    assert run(work()) == 403


def test_it_runs_as_a_process_of_its_own() -> None:
    flags = ("--listing.trades-per-s", "50", "--listing.history-s", "100", "--listing.rows", "10000")

    async def work(url: str) -> None:
        async with trader(url) as client:
            trades = await client.fetch_trades("ES/USD", limit=10)
            assert int(trades[-1]["id"]) >= AGGREGATE_OFFSET + 5000
            later = await client.watch_trades("ES/USD", params={"name": "aggTrade"})
            assert int(later[0]["id"]) > int(trades[-1]["id"])
            assert await client.fetch_balance()

    with exchange_process(*flags) as url:
        run(work(url))
