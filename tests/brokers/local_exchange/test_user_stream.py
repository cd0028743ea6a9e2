"""The websocket API: what happens to an account is told at once, in order, to whoever has signed for it."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread
from trading_desk import CONFIG, SYMBOL, trader, trades

PAIR = "BTC/USDT"
DEADLINE_S = 20.0


def run(work: Callable[[Running, Any], Coroutine[Any, Any, None]], *prices: float) -> None:
    """Run `work` with a client of an exchange whose first trade has happened; the others come by `burst`."""

    async def connected(running: Running) -> None:
        async with trader(running.url) as client:
            await work(running, client)

    with exchange_thread(CONFIG, tapes={PAIR: trades(*prices)}) as running:
        asyncio.run(asyncio.wait_for(connected(running), DEADLINE_S))


async def subscribed(running: Running, client: Any) -> None:
    """Have the client listen to its account before anything happens in it."""
    await client.authenticate({"type": "spot"})
    assert running.call(lambda: sum(socket.kind == "user" for socket in running.exchange.sockets)) == 1


def test_watch_orders_tells_every_state_in_order() -> None:
    async def work(running: Running, client: Any) -> None:
        await subscribed(running, client)
        watching = asyncio.create_task(_until(client.watch_orders, lambda order: order["status"] == "closed"))
        placed = await client.create_order(PAIR, "limit", "buy", 0.01, 59_500.0, {"newClientOrderId": "mine"})
        running.faults.burst(1)
        seen = await watching
        assert {(order["id"], order["clientOrderId"]) for order in seen} == {(placed["id"], "mine")}
        assert [order["status"] for order in seen] == ["open", "closed"]
        assert (seen[-1]["filled"], seen[-1]["average"], seen[-1]["cost"]) == (0.01, 59_500.0, 595.0)

    run(work, 60_000.0, 59_000.0)


def test_watch_orders_tells_a_cancel_under_the_orders_own_id() -> None:
    async def work(running: Running, client: Any) -> None:
        await subscribed(running, client)
        watching = asyncio.create_task(_until(client.watch_orders, lambda order: order["status"] == "canceled"))
        await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0, {"newClientOrderId": "mine"})
        await client.cancel_order(None, PAIR, {"origClientOrderId": "mine"})
        assert (await watching)[-1]["clientOrderId"] == "mine"

    run(work, 60_000.0)


def test_watch_my_trades_tells_each_execution_once() -> None:
    async def work(running: Running, client: Any) -> None:
        await subscribed(running, client)
        watching = asyncio.create_task(_until(client.watch_my_trades, lambda trade: trade["side"] == "sell"))
        await client.create_order(PAIR, "market", "buy", 0.5)
        await client.create_order(PAIR, "market", "sell", 0.001)
        seen = await watching
        asked = await client.fetch_my_trades(PAIR)
        fields = ("id", "order", "price", "amount", "side", "takerOrMaker", "fee", "timestamp")
        assert [[trade[name] for name in fields] for trade in seen] == [
            [trade[name] for name in fields] for trade in asked
        ]
        assert {trade["fee"]["currency"] for trade in seen} == {"BTC", "USDT"}

    run(work, 60_000.0)


def test_watch_balance_agrees_with_the_account() -> None:
    async def work(running: Running, client: Any) -> None:
        await subscribed(running, client)
        watching = asyncio.create_task(client.watch_balance())
        await client.create_order(PAIR, "market", "buy", 0.01)
        told, asked = await watching, await client.fetch_balance()
        assert told["BTC"] == asked["BTC"]
        assert told["USDT"] == asked["USDT"]

    run(work, 60_000.0)


def test_order_and_cancel_over_the_websocket() -> None:
    async def work(running: Running, client: Any) -> None:
        order = await client.create_order_ws(PAIR, "limit", "buy", 0.01, 50_000.0)
        assert order["status"] == "open"
        assert (await client.fetch_order_ws(order["id"], PAIR))["status"] == "open"
        assert [found["id"] for found in await client.fetch_open_orders_ws(PAIR)] == [order["id"]]
        assert (await client.cancel_order_ws(order["id"], PAIR))["status"] == "canceled"
        with pytest.raises(Exception, match="Unknown order sent"):
            await client.cancel_order_ws(order["id"], PAIR)

    run(work, 60_000.0)


def test_stream_that_was_cut_is_subscribed_to_again() -> None:
    async def work(running: Running, client: Any) -> None:
        await subscribed(running, client)
        watching = asyncio.create_task(client.watch_orders())
        await asyncio.sleep(0)
        running.faults.abort("user")
        with pytest.raises(Exception, match="1006"):
            await watching
        await client.create_order(PAIR, "limit", "buy", 0.01, 50_000.0)  # nobody listens
        await subscribed(running, client)
        watching = asyncio.create_task(_until(client.watch_orders, lambda order: order["price"] == 51_000.0))
        await client.create_order(PAIR, "limit", "buy", 0.01, 51_000.0)
        assert [order["price"] for order in await watching] == [51_000.0]
        listeners = running.call(lambda: len(running.exchange.accounts.all[0].listeners))
        assert listeners == 1

    run(work, 60_000.0)


def test_duplicated_and_overtaken_events_are_told_as_commanded() -> None:
    async def work(running: Running) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(_url(running)) as ws:
            await _ask(ws, "userDataStream.subscribe.signature", {})
            running.faults.duplicate(1, "user")
            await _place(ws, "one")
            events = [await _event(ws) for _ in range(3)]
            assert [event.get("c") for event in events] == ["one", "one", None]
            running.faults.out_of_order(1, "user")
            await _place(ws, "two")
            events = [await _event(ws) for _ in range(2)]
            assert [event["e"] for event in events] == ["outboundAccountPosition", "executionReport"]

    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}) as running:
        asyncio.run(asyncio.wait_for(work(running), DEADLINE_S))


def test_acknowledgement_over_the_websocket_is_lost_or_late_on_command() -> None:
    async def work(running: Running) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(_url(running)) as ws:
            await _ask(ws, "userDataStream.subscribe.signature", {})
            running.faults.slow_ack(300.0, 1)
            began = time.monotonic()
            await _place(ws, "late")
            told = [await ws.receive_json() for _ in range(3)]
            assert [message.get("id") for message in told] == [None, None, "late"]  # two events overtake it
            assert time.monotonic() - began >= 0.3
            running.faults.lost_ack(1)
            await _place(ws, "lost")
            async for message in ws:
                assert "id" not in message.json()
            orders = running.call(lambda: running.exchange.accounts.all[0].open_orders())
            assert [order.client_id for order in orders] == ["late", "lost"]

    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}) as running:
        asyncio.run(asyncio.wait_for(work(running), DEADLINE_S))


def test_order_that_fails_to_replace_another_is_told_as_rejected() -> None:
    async def work(running: Running) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(_url(running)) as ws:
            await _ask(ws, "userDataStream.subscribe.signature", {})
            await _place(ws, "old")
            await _place(ws, "dear", quantity="10", cancelOrderId=1, cancelReplaceMode="STOP_ON_FAILURE")
            await _place(ws, "new")
            events = [event for event in [await _event(ws) for _ in range(6)] if event["e"] == "executionReport"]
            assert [(event["i"], event["x"], event["X"], event["r"]) for event in events] == [
                (1, "NEW", "NEW", "NONE"),
                (1, "CANCELED", "CANCELED", "NONE"),
                (2, "REJECTED", "REJECTED", "INSUFFICIENT_BALANCES"),
                (3, "NEW", "NEW", "NONE"),
            ]

    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}) as running:
        asyncio.run(asyncio.wait_for(work(running), DEADLINE_S))


def test_session_answers_as_binance_does() -> None:
    async def work(running: Running) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(_url(running)) as ws:
            assert (await _ask(ws, "ping", {}, sign=False))["result"] == {}
            told = (await _ask(ws, "time", {}, sign=False))["result"]["serverTime"]
            assert abs(told - time.time() * 1000) < 10_000
            first = await _ask(ws, "userDataStream.subscribe.signature", {})
            second = await _ask(ws, "userDataStream.subscribe.signature", {})
            assert (first["result"], second["result"]) == ({"subscriptionId": 0}, {"subscriptionId": 1})
            listed = await _ask(ws, "session.subscriptions", {}, sign=False)
            assert listed["result"] == [{"subscriptionId": 0}, {"subscriptionId": 1}]
            await ws.send_json({"id": 9, "method": "userDataStream.unsubscribe", "params": {"subscriptionId": 0}})
            ended, answered = await ws.receive_json(), await ws.receive_json()
            assert (ended["subscriptionId"], ended["event"]["e"]) == (0, "eventStreamTerminated")
            assert (answered["id"], answered["status"]) == (9, 200)

    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}) as running:
        asyncio.run(asyncio.wait_for(work(running), DEADLINE_S))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-1135, "not json"),
        (-1135, "[1, 2]"),
        (-1135, '{"id": 1}'),
        (-1135, '{"id": 1, "method": "ping", "params": 7}'),
        (-1020, '{"id": 1, "method": "sor.order.place"}'),
        (-2014, '{"id": 1, "method": "account.status", "params": {}}'),
        (-2015, '{"id": 1, "method": "account.status", "params": {"apiKey": "nobody"}}'),
        (-1102, '{"id": 1, "method": "account.status", "params": {"apiKey": "test-key"}}'),
        (-1022, '{"id": 1, "method": "myTrades", "params": {"apiKey": "test-key", "timestamp": 1, "signature": "é"}}'),
    ],
)  # fmt: skip
def test_request_that_makes_no_sense_is_answered_and_harms_nobody(code: int, text: str) -> None:
    async def work(running: Running) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(_url(running)) as ws:
            await ws.send_str(text)
            assert (await ws.receive_json())["error"]["code"] == code
            assert (await _ask(ws, "ping", {}, sign=False))["status"] == 200

    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}) as running:
        asyncio.run(asyncio.wait_for(work(running), DEADLINE_S))


async def _until(watch: Callable[[], Coroutine[Any, Any, list[Any]]], last: Callable[[Any], bool]) -> list[Any]:
    """All that is told up to the one wanted, copied: ccxt changes its orders in place."""
    seen: list[Any] = []
    while not (seen and last(seen[-1])):
        seen += [dict(item) for item in await watch()]
    return seen


def _url(running: Running) -> str:
    return f"{running.url}/ws-api/v3"


async def _ask(ws: Any, method: str, params: dict[str, object], *, sign: bool = True) -> Any:
    """Send one request; return its answer, or the event that came before it."""
    if sign:
        params = params | {"apiKey": KEY, "timestamp": time.time_ns() // 1_000_000}
        text = "&".join(f"{name}={params[name]}" for name in sorted(params))
        params["signature"] = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    await ws.send_json({"id": method, "method": method, "params": params})
    return await ws.receive_json()


async def _place(ws: Any, client_id: str, **more: object) -> None:
    """Send an order without waiting for its answer; or, as `more` has it, one that replaces another."""
    order: dict[str, object] = {
        "symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.1", "price": "50000",
        "newClientOrderId": client_id, "apiKey": KEY, "timestamp": time.time_ns() // 1_000_000, **more,
    }  # fmt: skip
    text = "&".join(f"{name}={order[name]}" for name in sorted(order))
    order["signature"] = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    method = "order.cancelReplace" if "cancelReplaceMode" in more else "order.place"
    await ws.send_str(json.dumps({"id": client_id, "method": method, "params": order}))


async def _event(ws: Any) -> Any:
    """The next event of the account."""
    while True:
        message = await ws.receive_json()
        if "event" in message:
            return message["event"]
