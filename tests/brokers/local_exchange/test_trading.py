"""Orders over REST, as the unmodified ccxt.pro client and a bare HTTP client see them."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import ccxt
import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread
from trading_desk import CONFIG, LISTING, SYMBOL, signed, trader, trades

from brokers.local_exchange.config import ExchangeConfig

PAIR = "BTC/USDT"
DEADLINE_S = 20.0


@contextmanager
def exchange(*prices: float, config: ExchangeConfig = CONFIG) -> Iterator[Running]:
    """An exchange whose first trade has happened; the others come by `burst`."""
    with exchange_thread(config, tapes={PAIR: trades(*prices)}) as running:
        yield running


def run(running: Running, work: Callable[[Any], Coroutine[Any, Any, None]], **keys: str) -> None:
    """Run `work` with a client of the exchange."""

    async def connected() -> None:
        async with trader(running.url, **keys) as client:
            await work(client)

    asyncio.run(asyncio.wait_for(connected(), DEADLINE_S))


def truth(running: Running) -> Any:
    """The account as the exchange knows it."""
    return running.call(lambda: running.exchange.accounts.state())["account 1"]


def test_balance_and_each_order_type_through_the_real_client() -> None:
    async def work(client: Any) -> None:
        balance = await client.fetch_balance()
        assert (balance["BTC"]["free"], balance["USDT"]["free"]) == (2.0, 100_000.0)
        bought = await client.create_order(PAIR, "market", "buy", 0.01)
        assert (bought["status"], bought["filled"], bought["fee"]["currency"]) == ("closed", 0.01, "BTC")
        assert bought["fee"]["cost"] == 0.00001
        resting = await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0)
        maker = await client.create_order(PAIR, "limit", "sell", 0.01, 70_000.0, {"postOnly": True})
        stop = await client.create_order(PAIR, "market", "sell", 0.01, None, {"stopLossPrice": 55_000.0})
        stop_limit = await client.create_order(PAIR, "limit", "sell", 0.01, 54_000.0, {"stopLossPrice": 55_000.0})
        profit = await client.create_order(PAIR, "market", "sell", 0.01, None, {"takeProfitPrice": 65_000.0})
        profit_limit = await client.create_order(PAIR, "limit", "sell", 0.01, 65_000.0, {"takeProfitPrice": 65_000.0})
        orders = [resting, maker, stop, stop_limit, profit, profit_limit]
        assert [order["info"]["type"] for order in orders if "type" in order["info"]]
        working = await client.fetch_open_orders(PAIR)
        assert [order["id"] for order in working] == [order["id"] for order in orders]
        assert [order["info"]["type"] for order in working] == [
            "LIMIT",
            "LIMIT_MAKER",
            "STOP_LOSS",
            "STOP_LOSS_LIMIT",
            "TAKE_PROFIT",
            "TAKE_PROFIT_LIMIT",
        ]
        assert [order["triggerPrice"] for order in working] == [None, None, 55_000.0, 55_000.0, 65_000.0, 65_000.0]
        balance = await client.fetch_balance()
        assert (balance["BTC"]["used"], balance["USDT"]["used"]) == (0.05, 500.0)

    with exchange(60_000.0) as running:
        run(running, work)


def test_market_buy_for_an_amount_of_the_quote_currency() -> None:
    async def work(client: Any) -> None:
        order = await client.create_market_buy_order_with_cost(PAIR, 3000.0)
        assert order["status"] == "closed"
        assert 2999.0 < order["cost"] <= 3000.0

    with exchange(60_000.0) as running:
        run(running, work)


def test_order_is_found_by_either_id_whatever_has_become_of_it() -> None:
    async def work(client: Any) -> None:
        placed = await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "mine:1"})
        assert placed["clientOrderId"] == "mine:1"
        by_client = await client.fetch_order(None, PAIR, {"origClientOrderId": "mine:1"})
        assert (by_client["id"], by_client["status"]) == (placed["id"], "open")
        cancelled = await client.cancel_order(None, PAIR, {"origClientOrderId": "mine:1"})
        assert (cancelled["status"], cancelled["info"]["origClientOrderId"]) == ("canceled", "mine:1")
        assert (await client.fetch_order(placed["id"], PAIR))["status"] == "canceled"
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order(placed["id"], PAIR)
        with pytest.raises(ccxt.OrderNotFound):
            await client.fetch_order("77", PAIR)

    with exchange(60_000.0) as running:
        run(running, work)


def test_resting_order_fills_when_the_market_comes_to_it() -> None:
    with exchange(60_000.0, 59_000.0) as running:

        async def work(client: Any) -> None:
            placed = await client.create_order(PAIR, "limit", "buy", 0.01, 59_500.0)
            assert placed["status"] == "open"
            running.faults.burst(1)
            order = await client.fetch_order(placed["id"], PAIR)
            assert (order["status"], order["average"]) == ("closed", 59_500.0)
            (trade,) = await client.fetch_my_trades(PAIR)
            assert (trade["order"], trade["takerOrMaker"], trade["price"]) == (placed["id"], "maker", 59_500.0)
            assert trade["fee"] == {"cost": 0.000005, "currency": "BTC"}

        run(running, work)


def test_my_trades_page_by_id_without_loss_or_repetition() -> None:
    async def work(client: Any) -> None:
        for _ in range(7):
            await client.create_order(PAIR, "market", "buy", 0.0001)
        pages, last = [], 0
        while page := await client.fetch_my_trades(PAIR, limit=3, params={"fromId": last + 1}):
            pages.append([int(trade["id"]) for trade in page])
            last = pages[-1][-1]
        assert pages == [[1, 2, 3], [4, 5, 6], [7]]
        latest = await client.fetch_my_trades(PAIR, limit=2)
        assert [trade["id"] for trade in latest] == ["6", "7"]
        of_order = await client.fetch_my_trades(PAIR, params={"orderId": "5"})
        assert [trade["order"] for trade in of_order] == ["5"]
        since = await client.fetch_my_trades(PAIR, since=latest[0]["timestamp"])
        assert {trade["id"] for trade in since} >= {"6", "7"}
        with pytest.raises(ccxt.BadRequest, match="-1128"):
            await client.fetch_my_trades(PAIR, since=1, params={"fromId": 1})

    with exchange(60_000.0) as running:
        run(running, work)


def test_all_orders_and_cancel_all() -> None:
    async def work(client: Any) -> None:
        placed = [await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0 + i) for i in range(4)]
        await client.cancel_order(placed[0]["id"], PAIR)
        assert [order["status"] for order in await client.fetch_orders(PAIR)] == ["canceled", "open", "open", "open"]
        assert [order["id"] for order in await client.fetch_orders(PAIR, limit=2)] == ["3", "4"]
        from_two = await client.fetch_orders(PAIR, limit=2, params={"orderId": 2})
        assert [order["id"] for order in from_two] == ["2", "3"]
        cancelled = await client.cancel_all_orders(PAIR)
        assert [order["id"] for order in cancelled] == ["2", "3", "4"]
        assert await client.fetch_open_orders(PAIR) == []
        assert (await client.fetch_balance())["USDT"]["used"] == 0.0

    with exchange(60_000.0) as running:
        run(running, work)


def test_edited_order_is_cancelled_and_replaced() -> None:
    async def work(client: Any) -> None:
        old = await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0)
        new = await client.edit_order(old["id"], PAIR, "limit", "buy", 0.02, 51_000.0)
        assert (await client.fetch_order(old["id"], PAIR))["status"] == "canceled"
        (working,) = await client.fetch_open_orders(PAIR)
        assert (working["id"], working["amount"], working["price"]) == (new["id"], 0.02, 51_000.0)

    with exchange(60_000.0) as running:
        run(running, work)


@pytest.mark.parametrize(
    ("kind", "message", "order"),
    [
        (ccxt.InsufficientFunds, "insufficient balance", ("limit", "buy", 1.9, 60_000.0, {})),
        (ccxt.InvalidOrder, "LOT_SIZE", ("limit", "buy", 10_000_001.0, 60_000.0, {})),
        (ccxt.InvalidOrder, "PRICE_FILTER", ("limit", "buy", 0.1, 99_999_999.0, {})),
        (ccxt.BadRequest, "NOTIONAL", ("limit", "buy", 0.00002, 60_000.0, {})),
        (ccxt.BadRequest, "-1100", ("limit", "buy", 0.1, 60_000.0, {"newClientOrderId": "not allowed"})),
        (ccxt.OrderImmediatelyFillable, "immediately match", ("limit", "buy", 0.1, 61_000.0, {"postOnly": True})),
        (
            ccxt.OrderImmediatelyFillable,
            "trigger immediately",
            ("market", "sell", 0.1, None, {"stopLossPrice": 60_001.0}),
        ),
    ],
)
def test_refusal_is_what_ccxt_makes_of_binances(kind: type[Exception], message: str, order: tuple[Any, ...]) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(ccxt.ExchangeError, match=message) as refusal:
            await client.create_order(PAIR, *order)
        assert refusal.type is kind

    with exchange(60_000.0) as running:
        run(running, work)
        assert truth(running)["orders"] == []


def test_test_order_is_checked_and_never_placed() -> None:
    async def work(client: Any) -> None:
        await client.create_order(PAIR, "limit", "buy", 0.1, 50_000.0, {"test": True})
        with pytest.raises(ccxt.InsufficientFunds):
            await client.create_order(PAIR, "limit", "buy", 1.9, 60_000.0, {"test": True})

    with exchange(60_000.0) as running:
        run(running, work)
        assert truth(running)["orders"] == []
        assert truth(running)["client_ids"] == {}


def test_too_many_orders_are_refused_with_a_time_to_wait() -> None:
    config = ExchangeConfig(listings=(LISTING,), orders_per_10s=3)

    async def work(client: Any) -> None:
        async def place(count: int) -> None:
            for _ in range(count):
                await client.create_order(PAIR, "limit", "buy", 0.001, 50_000.0)

        await place(3)
        with pytest.raises(ccxt.DDoSProtection, match='"code": -1015'):
            await place(4)  # where another ten seconds begin meanwhile, three more pass
        assert 1 <= int(client.last_response_headers["Retry-After"]) <= 10

    with exchange(60_000.0, config=config) as running:
        run(running, work)


def test_lost_acknowledgement_leaves_an_order_that_was_taken() -> None:
    with exchange(60_000.0) as running:

        async def work(client: Any) -> None:
            running.faults.lost_ack(1)
            with pytest.raises(ccxt.NetworkError):
                await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "lost"})
            order = await client.fetch_order(None, PAIR, {"origClientOrderId": "lost"})
            assert order["status"] == "open"
            with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
                await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "lost"})

        run(running, work)
        seen = running.call(lambda: running.exchange.accounts.client_ids_seen)
        assert seen == {"lost": 2}


def test_slow_acknowledgement_is_of_an_order_that_was_taken_at_once() -> None:
    with exchange(60_000.0) as running:

        async def work(client: Any) -> None:
            running.faults.slow_ack(700.0, 1)
            began = time.monotonic()
            placing = asyncio.create_task(client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0))
            while not truth(running)["orders"]:
                await asyncio.sleep(0.01)
            assert not placing.done()
            assert (await placing)["status"] == "open"
            assert time.monotonic() - began >= 0.7

        run(running, work)


def test_rejection_on_command() -> None:
    with exchange(60_000.0) as running:

        async def work(client: Any) -> None:
            running.faults.reject_next(1)
            with pytest.raises(ccxt.ExchangeError, match="-1013"):
                await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0)
            assert (await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0))["status"] == "open"

        run(running, work)


def test_clock_that_is_wrong_refuses_every_order() -> None:
    with exchange(60_000.0) as running:

        async def work(client: Any) -> None:
            for skew_ms in (60_000, -60_000):
                running.faults.skew(skew_ms)
                with pytest.raises(ccxt.InvalidNonce, match="-1021"):
                    await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0)

        run(running, work)


def test_keys_are_held_against_the_account() -> None:
    async def refused(client: Any) -> None:
        with pytest.raises(ccxt.AuthenticationError):
            await client.fetch_balance()

    with exchange(60_000.0) as running:
        run(running, refused, secret="another")
        run(running, refused, key="another")


def test_each_key_has_an_account_of_its_own() -> None:
    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}, keys={KEY: SECRET, "b": "second"}) as running:

        async def work(client: Any) -> None:
            await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0)

        async def look(client: Any) -> None:
            assert await client.fetch_open_orders(PAIR) == []
            assert (await client.fetch_balance())["USDT"]["used"] == 0.0

        run(running, work)
        run(running, look, key="b", secret="second")


Request = tuple[str, str, str, str]  # method, path, query, body


def ask(running: Running, *requests: Request, key: str | None = KEY) -> list[tuple[int, Any]]:
    """The status and the JSON that each request is answered with, sent as it is."""

    async def send() -> list[tuple[int, Any]]:
        headers = {} if key is None else {"X-MBX-APIKEY": key}
        answers = []
        async with aiohttp.ClientSession(headers=headers) as session:
            for method, path, query, body in requests:
                url = aiohttp.client.URL(f"{running.url}{path}?{query}", encoded=True)
                async with session.request(method, url, data=body or None) as response:
                    answers.append((response.status, json.loads(await response.text())))
        return answers

    return asyncio.run(asyncio.wait_for(send(), DEADLINE_S))


def test_signature_covers_query_and_body_as_they_were_sent() -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.1"}
    whole = signed(order | {"price": "50000", "newClientOrderId": "a:b/c"})
    with exchange(60_000.0) as running:
        split = signed({"price": "50000"} | {"symbol": SYMBOL})  # for a query and a body of nothing
        answers = ask(
            running,
            ("POST", "/api/v3/order", whole, ""),
            ("POST", "/api/v3/order", whole.replace("50000", "40000"), ""),
            ("POST", "/api/v3/order", whole.replace("%2F", "/"), ""),  # the same request, signed as another text
            ("GET", "/api/v3/openOrders", split, ""),
        )
    statuses = [(status, answer.get("code") if isinstance(answer, dict) else None) for status, answer in answers]
    assert statuses == [(200, None), (400, -1022), (400, -1022), (200, None)]
    assert answers[0][1]["clientOrderId"] == "a:b/c"


def test_request_that_is_not_signed_in_time_is_refused() -> None:
    now_ms = time.time_ns() // 1_000_000
    path = "/api/v3/account"
    with exchange(60_000.0) as running:
        answers = ask(
            running,
            ("GET", path, signed({}), ""),
            ("GET", path, signed({}, at_ms=now_ms - 6_000), ""),
            ("GET", path, signed({"recvWindow": 60_000}, at_ms=now_ms - 6_000), ""),
            ("GET", path, signed({"recvWindow": 60_001}), ""),
            ("GET", path, signed({}, at_ms=now_ms + 60_000), ""),
            ("GET", path, "timestamp=1", ""),
            ("GET", path, "signature=00", ""),
            ("GET", path, signed({}, secret="another"), ""),
        )
        (unknown,) = ask(running, ("GET", path, signed({}), ""), key="unknown")
        (none,) = ask(running, ("GET", path, signed({}), ""), key=None)
    codes = [answer.get("code") for _, answer in answers]
    assert codes == [None, -1021, None, -1131, -1021, -1102, -1102, -1022]
    assert (unknown[0], unknown[1]["code"]) == (401, -2015)
    assert (none[0], none[1]["code"]) == (401, -2014)


def test_replacement_that_fails_says_which_half_was_done() -> None:
    base = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "50000"}
    first = signed(base | {"quantity": "0.1"})
    gone = {"cancelOrderId": 99, "quantity": "0.1"}
    dear = {"cancelOrderId": 1, "quantity": "10"}
    path = "/api/v3/order/cancelReplace"
    with exchange(60_000.0) as running:
        answers = ask(
            running,
            ("POST", "/api/v3/order", first, ""),
            ("POST", path, signed(base | gone | {"cancelReplaceMode": "STOP_ON_FAILURE"}), ""),
            ("POST", path, signed(base | dear | {"cancelReplaceMode": "STOP_ON_FAILURE"}), ""),
            ("POST", path, signed(base | gone | {"cancelReplaceMode": "ALLOW_FAILURE"}), ""),
            ("POST", path, signed(base | gone | {"quantity": "10", "cancelReplaceMode": "ALLOW_FAILURE"}), ""),
        )
        open_orders = [order for order in truth(running)["orders"] if order["status"] == "NEW"]
    told = [
        (status, answer["code"], answer["data"]["cancelResult"], answer["data"]["newOrderResult"])
        for status, answer in answers[1:]
    ]
    assert told == [
        (400, -2022, "FAILURE", "NOT_ATTEMPTED"),
        (409, -2021, "SUCCESS", "FAILURE"),
        (409, -2021, "FAILURE", "SUCCESS"),
        (400, -2022, "FAILURE", "FAILURE"),
    ]
    assert [order["origQty"] for order in open_orders] == ["0.10000000"]


def test_cancel_is_held_to_the_state_that_it_was_meant_for() -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": 50000, "quantity": "0.1"}
    meant = {"symbol": SYMBOL, "orderId": 1, "cancelRestrictions": "ONLY_PARTIALLY_FILLED"}
    with exchange(60_000.0) as running:
        _, partly, new = ask(
            running,
            ("POST", "/api/v3/order", signed(order), ""),
            ("DELETE", "/api/v3/order", signed(meant), ""),
            ("DELETE", "/api/v3/order", signed(meant | {"cancelRestrictions": "ONLY_NEW"}), ""),
        )
    assert (partly[0], partly[1]["msg"]) == (400, "Order was not canceled due to cancel restrictions.")
    assert (new[0], new[1]["status"]) == (200, "CANCELED")


@pytest.mark.parametrize(
    ("code", "method", "path", "params"),
    [
        (-1121, "GET", "openOrders", {"symbol": "NOPE"}),
        (-1102, "GET", "myTrades", {}),
        (-1102, "GET", "order", {"symbol": SYMBOL}),
        (-1102, "DELETE", "order", {"symbol": SYMBOL}),
        (-2013, "GET", "order", {"symbol": SYMBOL, "orderId": 5}),
        (-2011, "DELETE", "order", {"symbol": SYMBOL, "origClientOrderId": "never"}),
        (-2011, "DELETE", "openOrders", {"symbol": SYMBOL}),
        (-1100, "GET", "order", {"symbol": SYMBOL, "orderId": "-1"}),
        (-1100, "GET", "myTrades", {"symbol": SYMBOL, "limit": 1001}),
        (-1100, "GET", "allOrders", {"symbol": SYMBOL, "limit": 0}),
        (-1127, "GET", "myTrades", {"symbol": SYMBOL, "startTime": 0, "endTime": 86_400_001}),
        (-1145, "DELETE", "order", {"symbol": SYMBOL, "orderId": 1, "cancelRestrictions": "ALL"}),
    ],
)
def test_question_that_cannot_be_answered(code: int, method: str, path: str, params: dict[str, object]) -> None:
    with exchange(60_000.0) as running:
        order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": 50000}
        requests = [(method, f"/api/v3/{path}", signed(params), "")]
        if code == -1145:
            requests.insert(0, ("POST", "/api/v3/order", signed(order | {"quantity": "0.1"}), ""))
        status, answer = ask(running, *requests)[-1]
    assert (status, answer["code"]) == (400, code)


def test_order_limits_and_counts_are_told() -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": 50000, "quantity": "0.1"}
    with exchange(60_000.0) as running:
        *_, (status, limits) = ask(
            running, ("POST", "/api/v3/order", signed(order), ""), ("GET", "/api/v3/rateLimit/order", signed({}), "")
        )
    assert status == 200
    assert [(limit["interval"], limit["limit"]) for limit in limits] == [("SECOND", 100), ("DAY", 200_000)]
    assert limits[1]["count"] == 1
