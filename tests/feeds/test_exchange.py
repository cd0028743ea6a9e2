"""The ccxt client: aimed where it should be, described rightly, silent about secrets, alive after bad messages."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
import ccxt
import ccxt.pro
import pytest
from aiohttp import WSMsgType, web
from exchange_process import exchange_thread
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import FeedError, OfflineError, RateLimitError, UnknownSymbolError
from feeds.exchange import (
    ExchangeConfig,
    Window,
    connect,
    disconnect,
    feed_error,
    hang_up,
    instrument,
    market,
    retry_after_s,
    scrub,
    urgent,
    watch_dials,
)

LOCAL = ExchangeConfig(url="http://127.0.0.1:9")
SECRET = "zY9/abc+def=secret"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> ExchangeConfig:
    monkeypatch.setenv("TEST_KEY", "the-key-itself")
    monkeypatch.setenv("TEST_SECRET", f" {SECRET}\n")
    return ExchangeConfig(url="http://127.0.0.1:9", key_env="TEST_KEY", secret_env="TEST_SECRET")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"exchange": "binanec"}, "did you mean binance"),
        ({"exchange": ""}, "exchange must be one that ccxt.pro"),
        ({"url": "http://example.com:80"}, "url must be like"),
        ({"url": "https://127.0.0.1:80"}, "url must be like"),
        ({"url": "http://127.0.0.1"}, "url must be like"),
        ({"url": "http://127.0.0.1:99999"}, "url must be like"),
        ({"url": "http://user:word@127.0.0.1:80"}, "url must be like"),
        ({"url": "http://127.0.0.1:80/api"}, "url must be like"),
        ({"url": "http://127.0.0.1:80", "exchange": "kraken"}, "speaks Binance's protocol"),
        ({"url": "http://127.0.0.1:80", "sandbox": True}, "exclude each other"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ExchangeConfig(**wrong)


@pytest.mark.parametrize("field", ["key_env", "secret_env", "password_env"])
@pytest.mark.parametrize(
    "pasted", ["vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju", "A" * 64, "a-b", SECRET]
)
def test_a_key_pasted_where_its_variable_belongs_is_refused_and_not_repeated(field: str, pasted: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must name an environment variable") as refusal:
        ExchangeConfig(**{field: pasted})

    assert pasted not in str(refusal.value)


def test_of_a_local_exchange_no_address_leaves_this_machine() -> None:
    exchange = connect(LOCAL)

    def leaves(addresses: Any) -> list[str]:
        return (
            [leaf for value in addresses.values() for leaf in leaves(value)]
            if isinstance(addresses, dict)
            else [addresses]
        )

    addresses = leaves(exchange.urls["api"])
    assert len(addresses) > 20
    assert {address.split("//")[1].split("/")[0] for address in addresses} == {"127.0.0.1:9"}
    assert exchange.urls["api"]["public"] == "http://127.0.0.1:9/api/v3"
    assert exchange.urls["api"]["ws"]["spot"] == "ws://127.0.0.1:9/stream/ws"
    assert exchange.urls["api"]["ws"]["ws-api"]["spot"] == "ws://127.0.0.1:9/ws-api/v3"
    assert not {"test", "demo", "apiBackup"} & set(exchange.urls)


def test_the_client_keeps_bursts_and_asks_for_spot_alone() -> None:
    options = connect(LOCAL).options

    assert (options["tradesLimit"], options["defaultType"], options["fetchCurrencies"]) == (200_000, "spot", False)


def test_a_sandbox_is_the_exchanges_own_and_its_absence_is_told() -> None:
    exchange = connect(ExchangeConfig(sandbox=True))

    assert exchange.urls["api"]["public"] == "https://testnet.binance.vision/api/v3"
    with pytest.raises(FeedError, match="kraken has no sandbox"):
        connect(ExchangeConfig(exchange="kraken", sandbox=True))


def test_keys_come_from_the_environment_and_only_where_they_are_wanted(keys: ExchangeConfig) -> None:
    public, private = connect(keys), connect(keys, private=True)

    assert not public.apiKey
    assert not public.secret
    assert (private.apiKey, private.secret) == ("the-key-itself", SECRET)
    assert SECRET not in repr(keys)


def test_a_key_that_is_not_there_is_asked_for_by_its_variable() -> None:
    with pytest.raises(FeedError, match="want key_env and secret_env"):
        connect(LOCAL, private=True)
    config = ExchangeConfig(key_env="NO_SUCH_KEY_HERE", secret_env="NO_SUCH_SECRET_HERE")
    with pytest.raises(FeedError, match="the environment variable NO_SUCH_KEY_HERE is not set"):
        connect(config, private=True)


def test_no_secret_is_left_in_what_is_told(keys: ExchangeConfig) -> None:
    text = (
        f"binance POST http://127.0.0.1:9/api/v3/order?symbol=A&signature=0123abcdef&apiKey=the-key-itself {SECRET}\n"
        f' zY9%2Fabc%2Bdef%3Dsecret zY9/abc%2Bdef%3Dsecret {{"secret": "x-y-z", "code":-1022}}'
    )

    told = scrub(text, keys)

    for part in ("the-key-itself", SECRET, "abcdef", "%2Babc", "def%3D", "x-y-z"):
        assert part not in told
    assert "\n" not in told
    assert "-1022" in told


@given(st.text(max_size=400))
def test_what_is_told_is_one_short_line(text: str) -> None:
    told = scrub(text, LOCAL)

    assert len(told) <= 240
    assert len(told.splitlines()) <= 1


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (ccxt.DDoSProtection("429 too many"), RateLimitError, "asked too often"),
        (ccxt.RateLimitExceeded("-1003"), RateLimitError, "asked too often"),
        (ccxt.BadSymbol("X/Y"), UnknownSymbolError, "no such market"),
        (ccxt.NetworkError("closed"), OfflineError, "could not be reached: closed"),
        (ccxt.RequestTimeout(""), OfflineError, "RequestTimeout"),
        (ccxt.ExchangeNotAvailable("503"), OfflineError, "could not be reached"),
        (ccxt.OperationFailed("-1001"), OfflineError, "could not be reached"),
        (ConnectionRefusedError(111, "refused"), OfflineError, "refused"),
        (TimeoutError(), OfflineError, "TimeoutError"),
        (ccxt.InvalidNonce("-1021"), FeedError, "this machine's clock"),
        (ccxt.AuthenticationError("-1022"), FeedError, "refuses the key"),
        (ccxt.BadRequest("-1100"), FeedError, "answers: -1100"),
    ],
)
def test_what_ccxt_raises_is_told_as_what_it_is(raised: Exception, kind: type[FeedError], said: str) -> None:
    error = feed_error(raised, LOCAL)

    assert type(error) is kind
    assert said in str(error)
    assert str(error).startswith("local exchange")


def test_why_an_exchange_is_not_reached_is_told() -> None:
    raised = ccxt.ExchangeNotAvailable("binance GET http://127.0.0.1:9/api/v3/exchangeInfo")
    raised.__cause__ = OSError(111, "Connection refused")
    wanted = "could not be reached: GET http://127.0.0.1:9/api/v3/exchangeInfo (Connection refused)"
    assert str(feed_error(raised, LOCAL)) == f"local exchange {wanted}"


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (None, 0.0),
        ({}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": "nan"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "1e9"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
    ],
)
def test_what_an_exchange_asks_to_wait_is_read(headers: dict[str, str] | None, wanted: float) -> None:
    exchange = connect(LOCAL)
    exchange.last_response_headers = headers

    assert retry_after_s(exchange) == wanted


def binance_market(**changes: Any) -> dict[str, Any]:
    raw = {
        "symbol": "ETHUSDT",
        "status": "TRADING",
        "baseAsset": "ETH",
        "quoteAsset": "USDT",
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000", "stepSize": "0.00010000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
        ],
        "permissions": ["SPOT"],
    }
    return raw | changes


def client_at(url: str, **changes: Any) -> Any:
    """A client that knows one market without having asked."""
    exchange = connect(ExchangeConfig(url=url))
    exchange.options |= {"crossMarginPairsData": [], "isolatedMarginPairsData": []}
    exchange.set_markets([exchange.parse_market(binance_market(**changes))])
    return exchange


def test_a_market_of_binance_is_an_instrument() -> None:
    exchange = client_at(LOCAL.url)

    described = instrument(exchange, market(exchange, "ETH/USDT"))

    assert (described.symbol, described.tick, described.lot, described.currency) == (
        "ETH/USDT",
        "0.01",
        "0.0001",
        "USDT",
    )
    assert (described.base_unit, described.currency_unit, described.min_notional) == ("0.00000001", "0.00000001", "5")
    assert (described.maker_bps, described.taker_bps, described.fees_in) == (10.0, 10.0, "received")


def test_markets_of_other_exchanges_are_instruments() -> None:
    # As ccxt's own parsers make them of what the documents of these exchanges show; nothing was asked online.
    kraken = connect(ExchangeConfig(exchange="kraken"))
    market_of_kraken = kraken.safe_market_structure(
        {
            "symbol": "BTC/USD",
            "id": "XXBTZUSD",
            "base": "BTC",
            "quote": "USD",
            "type": "spot",
            "spot": True,
            "maker": 0.0025,
            "taker": 0.004,
            "precision": {"amount": 1e-8, "price": 0.1},
            "limits": {"amount": {"min": 0.0001}, "cost": {"min": 0.5}},
        }
    )

    described = instrument(kraken, market_of_kraken)

    assert (described.tick, described.lot, described.min_notional) == ("0.1", "0.00000001", "0.5")
    assert (described.maker_bps, described.taker_bps, described.fees_in) == (25.0, 40.0, "quote")


def test_places_and_digits_of_decimals_are_told_apart() -> None:
    exchange = connect(LOCAL)
    made = exchange.safe_market_structure(
        {"symbol": "A/B", "base": "A", "quote": "B", "spot": True, "precision": {"amount": 3, "price": 2}}
    )

    exchange.precisionMode = ccxt.DECIMAL_PLACES
    assert (instrument(exchange, made).tick, instrument(exchange, made).lot) == ("0.01", "0.001")
    exchange.precisionMode = ccxt.SIGNIFICANT_DIGITS
    with pytest.raises(FeedError, match="does not say its tick"):
        instrument(exchange, made)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"precision": {"price": 0.01}}, "does not say its lot"), ({"inverse": True}, "want a spot or linear market")],
)
def test_a_market_that_cannot_be_traded_here_is_refused(change: dict[str, Any], said: str) -> None:
    exchange = client_at(LOCAL.url)

    with pytest.raises(FeedError, match=said):
        instrument(exchange, market(exchange, "ETH/USDT") | change)


def test_a_market_that_is_unknown_or_halted_is_told() -> None:
    exchange = client_at(LOCAL.url, status="BREAK")

    with pytest.raises(UnknownSymbolError, match=r"ETH/USTD: binance has no such market; did you mean ETH/USDT\?"):
        market(exchange, "ETH/USTD")
    with pytest.raises(UnknownSymbolError, match="does not trade it now"):
        market(exchange, "ETH/USDT")


def test_the_real_client_works_against_the_local_exchange_and_closes_without_a_trace() -> None:
    async def use(url: str) -> tuple[list[str], set[str], int]:
        exchange = connect(ExchangeConfig(url=url))
        try:
            await exchange.load_markets()
            dialled = watch_dials()
            await asyncio.wait_for(exchange.watch_trades("BTC/USDT"), 20.0)
        finally:
            await disconnect(exchange)
        return list(exchange.markets), dialled, len(exchange.clients)

    with exchange_thread() as running:
        symbols, dialled, open_clients = asyncio.run(use(running.url))

        assert symbols == ["BTC/USDT"]
        assert dialled == {f"ws{running.url.removeprefix('http')}/stream/ws/0"}
    assert open_clients == 0


def against(answer: Callable[[web.WebSocketResponse, int], Coroutine[Any, Any, None]], use: Any) -> Any:
    """Run `use(url)` against a bare server that calls answer(socket, connection number) after each subscription."""

    async def run() -> Any:
        connections = 0

        async def serve(request: web.Request) -> web.WebSocketResponse:
            nonlocal connections
            connections += 1
            number = connections
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_json({"result": None, "id": json.loads(message.data)["id"]})
                    await answer(socket, number)
            return socket

        app = web.Application()
        app.add_routes([web.get("/stream/ws/{n}", serve)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            return await asyncio.wait_for(use(f"http://127.0.0.1:{runner.addresses[0][1]}"), 20.0)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def told_trade(trade_id: int) -> str:
    fields = {"e": "aggTrade", "s": "ETHUSDT", "a": trade_id, "p": "1.5", "q": "2", "T": 1_704_205_800_000, "m": False}
    return json.dumps(fields)


def test_messages_that_cannot_be_read_are_dropped_alone_and_told() -> None:
    bad = ['{"e":"aggTrade","s":', '{"e":"aggTrade","a":1}', '{"e":"trade","s":"ETHUSDT","k":', "[]", "nonsense"]

    async def answer(socket: web.WebSocketResponse, number: int) -> None:
        for text in [*bad, told_trade(7)]:
            await socket.send_str(text)

    async def use(url: str) -> tuple[list[Any], list[tuple[str, str]], int]:
        exchange = client_at(url)
        told: list[tuple[str, str]] = []
        exchange.on_bad = lambda address, detail: told.append((address, detail))
        try:
            trades = await exchange.watch_trades("ETH/USDT", params={"name": "aggTrade"})
        finally:
            await disconnect(exchange)
        return trades, told, exchange.bad_messages

    trades, told, count = against(answer, use)

    assert [trade["id"] for trade in trades] == ["7"]
    assert count == len(told) >= 3  # of the rest ccxt makes nothing, without failing
    assert all(address.endswith("/stream/ws/0") and detail for address, detail in told)


def test_a_socket_that_was_hung_up_ends_its_watch_and_the_next_one_dials_again() -> None:
    async def answer(socket: web.WebSocketResponse, number: int) -> None:
        if number == 2:
            await socket.send_str(told_trade(8))

    async def use(url: str) -> tuple[str, list[Any], bool]:
        exchange = client_at(url)
        try:
            waiting = asyncio.ensure_future(exchange.watch_trades("ETH/USDT", params={"name": "aggTrade"}))
            address = f"ws{url.removeprefix('http')}/stream/ws/0"
            while not (exchange.clients or {}).get(address) or not exchange.clients[address].isConnected:
                await asyncio.sleep(0.01)
            first = exchange.clients[address]
            await hang_up(exchange, address, "ws://127.0.0.1:1/never-dialled")
            with pytest.raises(ccxt.NetworkError, match="hung up") as raised:
                await waiting
            trades = await exchange.watch_trades("ETH/USDT", params={"name": "aggTrade"})
            return str(raised.value), trades, first.closed()
        finally:
            await disconnect(exchange)

    _, trades, closed = against(answer, use)

    assert [trade["id"] for trade in trades] == ["8"]
    assert closed


def test_closing_does_not_wait_for_a_peer_that_has_died() -> None:
    async def answer(socket: web.WebSocketResponse, number: int) -> None:
        await asyncio.Event().wait()  # it reads nothing more: a closing handshake is never answered

    async def use(url: str) -> float:
        exchange = client_at(url)
        waiting = asyncio.ensure_future(exchange.watch_trades("ETH/USDT", params={"name": "aggTrade"}))
        address = f"ws{url.removeprefix('http')}/stream/ws/0"
        while not (exchange.clients or {}).get(address) or not exchange.clients[address].isConnected:
            await asyncio.sleep(0.01)
        start = asyncio.get_running_loop().time()
        await disconnect(exchange)
        took_s = asyncio.get_running_loop().time() - start
        with pytest.raises(ccxt.NetworkError):
            await waiting
        return took_s

    assert against(answer, use) < 8.0  # aiohttp alone would wait 10 s


def test_an_exchange_that_is_not_there_is_offline() -> None:
    async def ask() -> None:
        exchange = connect(LOCAL)
        try:
            await exchange.load_markets()
        finally:
            await disconnect(exchange)

    with pytest.raises((ccxt.BaseError, aiohttp.ClientError)) as raised:
        asyncio.run(ask())
    assert isinstance(feed_error(raised.value, LOCAL), OfflineError)


def test_urgent_requests_pass_those_that_wait_for_room_and_have_room_of_their_own() -> None:
    async def use() -> tuple[list[str], list[str]]:
        window, went = Window(10.0, 0.5, kept=2.0), []

        async def go(name: str, *, urgent: bool = False) -> None:
            await window(1.0, urgent=urgent)
            went.append(name)

        polls = [asyncio.create_task(go("poll")) for _ in range(9)]
        await asyncio.sleep(0)  # eight have gone, and the ninth waits
        orders = [asyncio.create_task(go("order", urgent=True)) for _ in range(3)]
        await asyncio.sleep(0)  # two have gone: all that a window may cost
        early = list(went)
        await asyncio.gather(*polls, *orders)
        return early, went

    early, went = asyncio.run(use())
    assert early == ["poll"] * 8 + ["order"] * 2
    assert sorted(went[10:]) == ["order", "poll"]


def test_where_requests_go_one_by_one_an_urgent_one_waits_behind_one_at_most() -> None:
    async def use() -> list[str]:
        exchange, went = connect(ExchangeConfig(exchange="kucoin")), []

        async def go(name: str) -> None:
            await exchange.throttle(10.0)  # 100 ms
            went.append(name)

        polls = [asyncio.create_task(go("poll")) for _ in range(5)]
        await asyncio.sleep(0)
        with urgent():
            await go("order")
        early = list(went)
        await asyncio.gather(*polls)
        await exchange.close()
        return early

    assert asyncio.run(use()) in (["order"], ["poll", "order"], ["poll", "poll", "order"])


def test_nothing_is_kept_from_a_client_that_sends_no_orders(keys: ExchangeConfig) -> None:
    async def room(*, private: bool) -> int:
        window, count = connect(keys, private=private).window, 0
        most = window._cost_max
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    await window(most / 10.0)
                    count += 1
        return count

    assert asyncio.run(room(private=False)) == 10
    assert asyncio.run(room(private=True)) == 9


def test_a_socket_that_does_not_end_well_leaves_no_session_open() -> None:
    class Broken:
        connecting = False
        error = None

        def reject(self, error: Exception) -> None: ...

        async def close(self) -> None:
            raise RuntimeError("no end")

    async def run() -> None:
        exchange = connect(LOCAL)
        exchange.open()  # the session that a first request would open
        session = exchange.session
        exchange.clients = {"ws://127.0.0.1:9": Broken()}
        with pytest.raises(RuntimeError, match="no end"):
            await disconnect(exchange)
        assert session.closed

    asyncio.run(run())
