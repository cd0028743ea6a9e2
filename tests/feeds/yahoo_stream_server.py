"""Yahoo's stream of prices on 127.0.0.1: a websocket that speaks base64 of PricingData, and fails on command."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from yfinance.pricing_pb2 import PricingData

DEADLINE_S = 30.0


def pricing_text(symbol: str, price: float, **fields: Any) -> str:
    """One message as Yahoo sends it; time in ms, by default now, and market_hours 1, the regular session."""
    values: dict[str, Any] = {"time": round(datetime.now(UTC).timestamp() * 1e3), "market_hours": 1, **fields}
    body = PricingData(id=symbol, price=price, **values).SerializeToString()
    return json.dumps({"type": "pricing", "message": base64.b64encode(body).decode()})


class YahooStream:
    """Use as a context manager. It runs on a thread of its own, and its methods may be called from any other.

    `subscriptions` holds the symbols of each message that asked for them, oldest first; `dials` counts connections.
    While `stalled`, sockets stay open and nothing is sent: what is lost is lost, as with the real one.
    """

    def __init__(self) -> None:
        self.subscriptions: list[list[str]] = []
        self.dials = 0
        self.stalled = False
        self.snapshots: dict[str, str] = {}  # sent at each subscription
        self._sockets: dict[ServerConnection, set[str]] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._server: Server | None = None

    def __enter__(self) -> "YahooStream":
        self._thread.start()
        self.port = self._do(self._open(0))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/?version=2"

    def send(self, symbol: str, price: float, **fields: Any) -> None:
        """One price to everyone who asked for the symbol."""
        self.send_text(pricing_text(symbol, price, **fields), symbol)

    def send_text(self, text: str | bytes, symbol: str | None = None) -> None:
        """Any message; to those who asked for `symbol`, or to all."""
        self._do(self._send(text, symbol))

    def close(self) -> None:
        """A clean end of every connection, code 1001; it does not wait for the clients' answers."""
        work = self._each(lambda socket: socket.close(1001, "going away"))
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def abort(self) -> None:
        """TCP is cut, without a close frame."""
        self._loop.call_soon_threadsafe(lambda: [socket.transport.abort() for socket in self._sockets])

    def down(self) -> None:
        """Nobody listens on the port any more."""
        self._do(self._close())

    def up(self) -> None:
        """Listen again, on the same port."""
        self._do(self._open(self.port))

    def freeze(self) -> None:
        """Nothing is read any more from the sockets that are open: no ping is answered, and no close frame."""
        self._loop.call_soon_threadsafe(lambda: [socket.transport.pause_reading() for socket in self._sockets])

    def subscribers(self) -> int:
        with self._changed:
            return sum(bool(symbols) for symbols in self._sockets.values())

    def wait_for_subscribers(self, count: int) -> None:
        with self._changed:
            enough = self._changed.wait_for(lambda: self.subscribers() >= count, DEADLINE_S)
        assert enough, f"want {count} subscribers within {DEADLINE_S} s, were {self.subscribers()}"

    async def _open(self, port: int) -> int:
        self._server = await serve(self._client, "127.0.0.1", port)
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def _close(self) -> None:
        if self._server is not None:
            for socket in list(self._sockets):
                socket.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _client(self, socket: ServerConnection) -> None:
        with self._changed:
            self._sockets[socket] = set()
            self.dials += 1
            self._changed.notify_all()
        try:
            async for text in socket:
                symbols = json.loads(text)["subscribe"]
                with self._changed:
                    self.subscriptions.append(symbols)
                    self._sockets[socket].update(symbols)
                    self._changed.notify_all()
                for symbol in symbols:
                    if symbol in self.snapshots and not self.stalled:
                        await socket.send(self.snapshots[symbol])
        except ConnectionClosed:
            pass
        finally:
            with self._changed:
                del self._sockets[socket]
                self._changed.notify_all()

    async def _send(self, text: str | bytes, symbol: str | None) -> None:
        if not self.stalled:
            await self._each(lambda socket: socket.send(text), symbol)

    async def _each(
        self, act: Callable[[ServerConnection], Coroutine[Any, Any, None]], symbol: str | None = None
    ) -> None:
        for socket, symbols in list(self._sockets.items()):
            if symbol is None or symbol in symbols:
                with suppress(ConnectionClosed):
                    await act(socket)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()
