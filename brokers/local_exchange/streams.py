"""Market streams over websockets, as Binance's: /stream/ws and /stream/ws/N, subscribed to by name.

Streams of a symbol: trade, aggTrade and bookTicker as it happens; kline_INTERVAL three times a second and once when a
bar is over; depth and depth5, depth10, depth20, with @100ms or without (a second); ticker and miniTicker once a second.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from brokers.local_exchange import messages
from brokers.local_exchange.channels import Channel, Pulse, changes, channel
from brokers.local_exchange.market import Depth, Market, Quote, Traded

if TYPE_CHECKING:
    from brokers.local_exchange.server import LocalExchange

PULSE_S = 0.1
PING_S = 20.0
PONG_S = 60.0  # without a pong a socket is closed
QUEUE_MAX = 200_000  # messages that a slow client may owe
STREAMS_MAX = 1024  # of a socket


class Socket:
    """One websocket of a client: a queue of its own, so that a slow one holds up nobody else.

    Args:
        kind: "market" or "user".
    """

    def __init__(self, exchange: "LocalExchange", kind: str) -> None:
        self.kind = kind
        self.stalled = False
        self.names: dict[str, None] = {}  # streams
        self._exchange = exchange
        self._ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[str | None] = deque()  # None: a ping
        self._wake = asyncio.Event()
        self._ponged_s = 0.0
        self._pinged_s = 0.0

    async def run(self, request: web.Request, on_text: Callable[[str], None]) -> web.WebSocketResponse:
        """Serve until the client or a fault ends it."""
        await self._ws.prepare(request)
        self._transport = request.transport
        self._ponged_s = self._pinged_s = asyncio.get_running_loop().time()
        self._exchange.sockets[self] = None
        writer = asyncio.create_task(self._write())
        try:
            await self._listen(on_text)
        except ConnectionError:
            pass  # it has gone while it was answered
        finally:
            del self._exchange.sockets[self]
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return self._ws

    def send(self, text: str) -> None:
        """Queue one message; a client that is too slow is cut off."""
        if self.stalled:
            return
        self._queue.append(text)
        self._wake.set()
        if len(self._queue) > QUEUE_MAX:
            self.abort()

    def abort(self) -> None:
        """Cut TCP."""
        self._queue.clear()
        if self._transport is not None:
            self._transport.abort()

    async def close(self, code: int) -> None:
        """Send a close frame and end."""
        await self._ws.close(code=code)

    def stall(self) -> None:
        """Fall silent; what is queued is lost."""
        self.stalled = True
        self._queue.clear()

    def resume(self) -> None:
        """Speak again, from now on."""
        self.stalled = False

    def ping(self, now_s: float) -> None:
        """Queue a ping when it is time; a client that does not answer is cut off."""
        if self.stalled or now_s - self._pinged_s < PING_S:
            return
        self._pinged_s = now_s
        if now_s - self._ponged_s > PONG_S:
            self.abort()
            return
        self._queue.append(None)
        self._wake.set()

    async def _listen(self, on_text: Callable[[str], None]) -> None:
        while True:
            message = await self._ws.receive()
            if message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            if self.stalled:
                continue  # not even a goodbye is answered
            if message.type is WSMsgType.CLOSE:
                await self._ws.close()
                return
            if message.type is WSMsgType.PING:
                await self._ws.pong(message.data)
            elif message.type is WSMsgType.PONG:
                self._ponged_s = asyncio.get_running_loop().time()
            elif message.type is WSMsgType.TEXT:
                on_text(message.data)

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    text = self._queue.popleft()
                    await (self._ws.ping() if text is None else self._ws.send_str(text))
                self._wake.clear()
                await self._wake.wait()
        except ConnectionError:
            self.abort()


class Streams:
    """Who listens to what, and what they are told."""

    def __init__(self, exchange: "LocalExchange") -> None:
        self._exchange = exchange
        self._channels: dict[str, Channel] = {}  # by the name of the stream; only those with listeners
        self._quotes: dict[str, Quote] = {}  # id -> the one told last
        self._books = {market.id: market.depth() for market in exchange.markets.values()}
        self._names = {
            market.id: tuple(f"{market.id.lower()}@{name}" for name in ("trade", "aggTrade", "bookTicker"))
            for market in exchange.markets.values()
        }
        self._pulses = 0

    def book(self, market: Market) -> Depth:
        """The book at the last pulse: what the streams of its changes have told."""
        return self._books[market.id]

    def on_trade(self, market: Market, trade: Traded, quote: Quote) -> None:
        """Tell a trade, and the quote after it where it is another one."""
        channels = self._channels
        trades, aggregates, quotes = self._names[market.id]
        for told, broken in self._exchange.faults.tellings(trade):
            now_ms = self._exchange.clock.now_ms()
            if trades in channels:
                channels[trades].tell(broken(messages.trade(market, told, now_ms)))
            if aggregates in channels:
                channels[aggregates].tell(broken(messages.aggregate(market, told, now_ms)))
        before = self._quotes.get(market.id)
        if before is None or quote[:4] != before[:4]:
            self._quotes[market.id] = quote
            if quotes in channels:
                channels[quotes].tell(messages.book_ticker(market, quote))

    def pulse(self) -> None:
        """What is told a few times a second."""
        self._pulses += 1
        clock = self._exchange.clock
        wall_ms, now_ms = clock.wall_ms(), clock.now_ms()
        pulses = {}
        for market in self._exchange.markets.values():
            before = self._books[market.id]
            book = market.depth() if market.emitted != before.version else before
            self._books[market.id] = book
            pulses[market.id] = Pulse(self._pulses, wall_ms, now_ms, book, *changes(before, book))
        for told in self._channels.values():
            told.pulse(pulses[told.market.id])

    def drop(self, socket: Socket) -> None:
        """Forget a socket that has ended."""
        for name in list(socket.names):
            self._leave(socket, name)

    def on_text(self, socket: Socket, text: str) -> None:
        """A client's request: SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS."""
        request_id = None
        try:
            request = json.loads(text)
            request_id = request.get("id")
            result = self._answer(socket, request)
        except (ValueError, AttributeError, TypeError) as exc:
            message = (
                str(exc) if isinstance(exc, InvalidRequestError) else "Invalid JSON: expected a request with a method"
            )
            socket.send(json.dumps({"error": {"code": 2, "msg": message}, "id": request_id}))
            return
        socket.send(json.dumps({"result": result, "id": request_id}))

    def _answer(self, socket: Socket, request: dict[str, Any]) -> list[str] | None:
        method, names = request.get("method"), request.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return list(socket.names)
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            raise InvalidRequestError(f"Invalid request: unknown method {method}")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidRequestError("Invalid request: params must be an array of streams")
        if method == "SUBSCRIBE" and len(socket.names) + len(names) > STREAMS_MAX:
            raise InvalidRequestError(f"Invalid request: more than {STREAMS_MAX} streams")
        if method == "UNSUBSCRIBE":
            for name in names:
                self._leave(socket, name)
            return None
        opened = {name: self._channels.get(name) or self._open(name) for name in names}  # all of them, or none
        for name, joined in opened.items():
            self._channels[name] = joined
            joined.listeners[socket] = None
            socket.names[name] = None
        return None

    def _open(self, name: str) -> Channel:
        symbol, _, stream = name.partition("@")
        market = self._exchange.markets.get(symbol.upper())
        if market is None or symbol != symbol.lower():
            raise InvalidRequestError(f"Invalid request: invalid stream {name}")
        try:
            return channel(market, stream, self.book(market))
        except ValueError as exc:
            raise InvalidRequestError(str(exc)) from None

    def _leave(self, socket: Socket, name: str) -> None:
        if socket.names.pop(name, self) is self:
            return
        left = self._channels[name].listeners
        del left[socket]
        if not left:
            del self._channels[name]


class InvalidRequestError(ValueError):
    """A request that cannot be served; the message is for the client."""


def routes(exchange: "LocalExchange") -> list[web.RouteDef]:
    """/stream/ws and /stream/ws/N."""

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = Socket(exchange, "market")
        try:
            return await socket.run(request, lambda text: exchange.streams.on_text(socket, text))
        finally:
            exchange.streams.drop(socket)

    return [web.get("/stream/ws", serve), web.get("/stream/ws/{number}", serve)]
