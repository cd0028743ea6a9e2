"""The websocket API at /ws-api/v3: signed requests, and the events of the accounts that a socket has subscribed to.

Source: Binance spot API, "WebSocket API" and "User data streams".
"""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from brokers.local_exchange import signing
from brokers.local_exchange.accounts import Account
from brokers.local_exchange.errors import ApiError, illegal, missing
from brokers.local_exchange.orders import Json
from brokers.local_exchange.streams import Socket
from brokers.local_exchange.trading import OPERATIONS, PLACING

if TYPE_CHECKING:
    from brokers.local_exchange.server import LocalExchange


def routes(exchange: "LocalExchange") -> list[web.RouteDef]:
    """GET /ws-api/v3."""

    async def connect(request: web.Request) -> web.WebSocketResponse:
        session = Session(exchange)
        try:
            return await session.socket.run(request, session.take)
        finally:
            session.end()

    return [web.get("/ws-api/v3", connect)]


class Session:
    """One socket of a client, and what it has subscribed to."""

    def __init__(self, exchange: "LocalExchange") -> None:
        self.socket = Socket(exchange, "user")
        self._exchange = exchange
        self._subscribed: dict[int, Account] = {}
        self._next_id = 0

    def end(self) -> None:
        """The socket has gone."""
        for subscription_id in list(self._subscribed):
            self._unsubscribe(subscription_id)

    def take(self, text: str) -> None:
        """One request of the client."""
        request_id: object = None
        try:
            request = json.loads(text)
            request_id = request["id"]
            method, params = str(request["method"]), dict(request.get("params") or {})
        except (ValueError, KeyError, TypeError, AttributeError):
            self._refuse(request_id, ApiError(-1135, "Invalid JSON Request"))
            return
        try:
            result = self._result(method, params)
        except ApiError as exc:
            self._refuse(request_id, exc)
            return
        answer = {"id": request_id, "status": 200, "result": result, "rateLimits": []}
        if params.get("returnRateLimits") is False:
            del answer["rateLimits"]
        if method not in PLACING:
            self._send(answer)
            return
        delay_s = self._exchange.faults.ack_delay_s()
        if self._exchange.faults.loses_ack():
            self.socket.abort()
        elif delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._send, answer)
        else:
            self._send(answer)

    def _result(self, method: str, params: Mapping[str, Any]) -> object:
        self._exchange.pump()  # what is due has happened before it is asked about
        now_ms = self._exchange.clock.now_ms()
        match method:
            case "ping":
                return {}
            case "time":
                return {"serverTime": now_ms}
            case "session.subscriptions":
                return [{"subscriptionId": subscription_id} for subscription_id in self._subscribed]
            case "userDataStream.subscribe.signature":
                account, _ = signing.of_websocket(self._exchange.accounts, now_ms, params)
                return {"subscriptionId": self._subscribe(account)}
            case "userDataStream.unsubscribe":
                self._end_subscriptions(params.get("subscriptionId"), now_ms)
                return {}
            case _ if method in OPERATIONS:
                account, texts = signing.of_websocket(self._exchange.accounts, now_ms, params)
                return OPERATIONS[method](self._exchange, account, texts)
        raise ApiError(-1020, "This operation is not supported.")

    def _subscribe(self, account: Account) -> int:
        subscription_id, self._next_id = self._next_id, self._next_id + 1
        self._subscribed[subscription_id] = account

        def tell(event: Json) -> None:
            told = self._exchange.faults.disturbed("user", (self, {"subscriptionId": subscription_id, "event": event}))
            for session, message in told:
                session._send(message)

        account.listeners[self, subscription_id] = tell
        return subscription_id

    def _end_subscriptions(self, which: object, now_ms: int) -> None:
        """End one subscription, or all."""
        if which is not None and not isinstance(which, int):
            raise illegal("subscriptionId", "^[0-9]{1,20}$")
        if which is not None and which not in self._subscribed:
            raise missing("subscriptionId")
        for subscription_id in list(self._subscribed) if which is None else [which]:
            self._unsubscribe(subscription_id)
            self._send(
                {"subscriptionId": subscription_id, "event": {"e": "eventStreamTerminated", "E": now_ms}},
            )

    def _unsubscribe(self, subscription_id: int) -> None:
        del self._subscribed.pop(subscription_id).listeners[self, subscription_id]

    def _refuse(self, request_id: object, exc: ApiError) -> None:
        self._send({"id": request_id, "status": exc.status, "error": exc.body()})

    def _send(self, message: Json) -> None:
        self.socket.send(json.dumps(message, separators=(",", ":")))
