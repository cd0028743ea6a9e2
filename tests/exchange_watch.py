"""Help for tests of the local exchange's market side: wait for a condition, gather trades, speak bare websocket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from exchange_process import Running

from brokers.local_exchange.market import Market

DEADLINE_S = 25.0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, before the deadline."""
    return asyncio.run(asyncio.wait_for(work, DEADLINE_S))


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def listeners(running: Running, stream: str) -> int:
    """How many sockets have subscribed to a stream."""
    return running.call(lambda: sum(stream in socket.names for socket in running.exchange.sockets))


async def subscribed(running: Running, stream: str, count: int = 1) -> None:
    """Wait until so many sockets listen to a stream."""
    await until(lambda: listeners(running, stream) == count)


def market_of(running: Running, symbol: str) -> Market:
    """To be read where nothing trades, or through `running.call`."""
    return running.exchange.markets[symbol.replace("/", "")]


async def trades_until(client: Any, symbol: str, last_id: int, name: str = "aggTrade") -> list[dict[str, Any]]:
    """What `watch_trades` gives, up to and with an id."""
    seen: list[dict[str, Any]] = []
    async with asyncio.timeout(DEADLINE_S):
        while not any(int(trade["id"]) == last_id for trade in seen):
            seen += await client.watch_trades(symbol, params={"name": name})
    return seen


class Bare:
    """A websocket without a client library: what is on the wire."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self._id = 0

    async def ask(self, method: str, *params: str) -> dict[str, Any]:
        """A request's answer; events before it are passed over."""
        self._id += 1
        await self.ws.send_str(json.dumps({"method": method, "params": params, "id": self._id}))
        return await self.next(lambda message: message.get("id") == self._id)

    async def next(self, wanted: Callable[[dict[str, Any]], Any] = lambda message: True) -> dict[str, Any]:
        """The next message that is wanted; no message that is no JSON object is."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                text = await self.text()
                try:
                    message = json.loads(text)
                except ValueError:
                    continue
                if isinstance(message, dict) and wanted(message):
                    return message

    async def text(self) -> str:
        """The next message as it came."""
        message = await self.ws.receive(DEADLINE_S)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return message.data


@asynccontextmanager
async def bare(running: Running, *streams: str) -> AsyncIterator[Bare]:
    """A bare websocket that has subscribed."""
    url, timeout = f"{running.url}/stream/ws", aiohttp.ClientWSTimeout(ws_close=1.0)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, timeout=timeout) as ws:
        socket = Bare(ws)
        if streams:
            assert (await socket.ask("SUBSCRIBE", *streams))["result"] is None
        yield socket


async def get(running: Running, path: str, **query: object) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON or text, and headers of a bare request."""
    wanted = {key: str(value) for key, value in query.items()}
    async with aiohttp.ClientSession() as session, session.get(running.url + path, params=wanted) as answer:
        is_json = answer.content_type == "application/json"
        return answer.status, await answer.json() if is_json else await answer.text(), dict(answer.headers)
