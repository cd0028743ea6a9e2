"""Plain orders to Binance: the same request as ccxt's own."""

import asyncio
import hashlib
import hmac
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import ccxt
import pytest
from exchange_process import KEY, SECRET, exchange_thread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.venue_ids import client_id
from brokers.venue_quick import QuickOrders
from brokers.venue_terms import Terms
from feeds.exchange import ExchangeConfig, connect, disconnect

SYMBOL = "BTC/USDT"
NUMBERS = ("quantity", "price")


@pytest.fixture(scope="module")
def exchange() -> Iterator[Any]:
    """A client of a local exchange that knows its markets, holds its clock still and sends nothing more."""
    with pytest.MonkeyPatch.context() as patch, exchange_thread() as running:
        patch.setenv("QUICK_KEY", KEY)
        patch.setenv("QUICK_SECRET", SECRET)

        async def known() -> Any:
            config = ExchangeConfig(url=running.url, key_env="QUICK_KEY", secret_env="QUICK_SECRET")
            client = connect(config, private=True)
            await client.load_markets()
            await disconnect(client)
            return client

        client = asyncio.run(known())
        client.options["recvWindow"] = 5_000
        client.nonce = lambda: 1_700_000_000_000
        client.enableRateLimit = False
        yield client


def terms(
    *,
    client: str = "tt0123456789abcdef",
    side: str = "buy",
    quantity: str = "0.00100",
    limit: str | None = None,
    force: str = "GTC",
    post_only: bool = False,
    stop: str | None = None,
) -> Terms:
    params: dict[str, Any] = {"clientOrderId": client}
    if limit is not None:
        params |= {"postOnly": True} if post_only else {"timeInForce": force}
    if stop is not None:
        params["stopLossPrice"] = stop
    return Terms(
        client_id=client,
        symbol=SYMBOL,
        kind="market" if limit is None else "limit",
        side=side,
        lots=1,
        lots_asked=1,
        quantity=quantity,
        limit_price=limit,
        stop_price=stop,
        time_in_force=force,
        params=params,
    )


def of_ccxt(exchange: Any, wanted: Terms) -> tuple[str, str, dict[str, str], str]:
    """The request that ccxt's own `create_order` would send."""
    sent: list[Any] = []

    async def fetch(*request: Any) -> dict[str, Any]:
        sent.append(request)
        return {"orderId": 1, "symbol": "BTCUSDT", "status": "NEW", "type": "MARKET", "side": "BUY"}

    exchange.fetch = fetch
    try:
        price, params = wanted.limit_price, dict(wanted.params)
        asyncio.run(exchange.create_order(SYMBOL, wanted.kind, wanted.side, wanted.quantity, price, params))
    finally:
        del exchange.fetch
    ((url, method, headers, body),) = sent
    return url, method, headers, body


def fields(body: str) -> dict[str, Any]:
    """Of a signed body; numbers by their value, the signature apart."""
    pairs = parse_qsl(body, strict_parsing=True)
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: Decimal(text) if name in NUMBERS else text for name, text in pairs if name != "signature"}


def check_same(exchange: Any, wanted: Terms) -> None:
    (address, headers, signed), theirs = QuickOrders(exchange).request(wanted), of_ccxt(exchange, wanted)
    assert (address, "POST", headers) == theirs[:3]
    assert fields(signed) == fields(theirs[3])
    query, _, signature = signed.rpartition("&signature=")
    assert signature == hmac.new(SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "wanted",
    [
        terms(),
        terms(side="sell"),
        terms(limit="59000.10"),
        terms(limit="59000.10", side="sell", force="IOC"),
        terms(limit="59000.10", force="FOK"),
        terms(limit="61000.00", side="sell", post_only=True),
    ],
)
def test_a_plain_order_is_the_request_that_ccxt_would_send(exchange: Any, wanted: Terms) -> None:
    check_same(exchange, wanted)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order_id=st.text(min_size=1, max_size=33),
    lots=st.integers(1, 10**9),
    ticks=st.none() | st.integers(1, 10**9),
    side=st.sampled_from(("buy", "sell")),
    force=st.sampled_from(("GTC", "IOC", "FOK")),
    post_only=st.booleans(),
)
def test_so_is_any_plain_order(
    exchange: Any, order_id: str, lots: int, ticks: int | None, side: str, force: str, post_only: bool
) -> None:
    quantity = f"{Decimal(lots) * Decimal('0.00001'):f}"
    limit = None if ticks is None else f"{Decimal(ticks) * Decimal('0.01'):f}"
    check_same(
        exchange,
        terms(client=client_id(order_id), side=side, quantity=quantity, limit=limit, force=force, post_only=post_only),
    )


def test_what_waits_for_a_price_and_other_exchanges_and_keys_go_by_ccxt(
    exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert QuickOrders(exchange).takes(terms())
    assert not QuickOrders(exchange).takes(terms(stop="58000"))
    monkeypatch.setattr(exchange, "secret", "-----BEGIN PRIVATE KEY-----")
    assert not QuickOrders(exchange).takes(terms())
    monkeypatch.setattr(exchange, "secret", SECRET)
    monkeypatch.setattr(exchange, "id", "kraken")
    assert not QuickOrders(exchange).takes(terms())


def test_a_venue_that_cannot_be_reached_is_told_as_ccxt_tells_it(
    exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exchange.urls["api"], "private", "http://127.0.0.1:1/api/v3")  # where nobody listens
    monkeypatch.setattr(exchange, "asyncio_loop", None)
    monkeypatch.setattr(exchange, "closed_by_user", False)
    wanted = terms()

    async def failures() -> list[BaseException]:
        told = []
        try:
            for ask in (
                lambda: QuickOrders(exchange).place(wanted),
                lambda: exchange.create_order(SYMBOL, "market", "buy", wanted.quantity, None, dict(wanted.params)),
            ):
                with pytest.raises(ccxt.ExchangeNotAvailable) as raised:
                    await ask()
                told.append(raised.value)
        finally:
            await exchange.close()
        return told

    ours, theirs = asyncio.run(failures())
    assert str(ours) == str(theirs)
    assert type(ours) is type(theirs)
    assert isinstance(ours.__cause__, aiohttp.ClientConnectorError)  # by which it is known that nothing was sent
    assert type(ours.__cause__) is type(theirs.__cause__)
