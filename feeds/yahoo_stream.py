"""Yahoo's stream of prices: one websocket, dialled again for ever, and each message judged before it is a trade.

A message is the last price of a symbol, and not every trade that was made: several may lie between two messages. Its
size is what the day's volume grew by since the message before, which adds up; 0.0 where that cannot be told. There is
no history of the stream: what it would have sent while the connection was down is lost, and no figure tells how much.

Silence is judged by a second witness. A symbol that has been silent is asked for at Yahoo's chart: where that is shut,
or has no later price either, the market is at rest; where it has one, the stream is STALE.

Source: yfinance 1.7.0, `live.py` and `pricing.proto`. Its own `AsyncWebSocket.listen` is not used: it blocks the loop
after a close, and does not dial again after an abort. Meaning of market_hours and quote_type: observed, not documented.
"""

import asyncio
import base64
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import structlog
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from yfinance.pricing_pb2 import PricingData

from feeds.backoff import Backoff
from feeds.clock import utc_now
from feeds.errors import FeedError
from feeds.events import Trade
from feeds.health import Health
from feeds.loop import Push
from feeds.tasks import all_of, in_thread

_SUBSCRIBE_S = 15.0  # as yfinance: without it Yahoo stops sending
_BACKOFF_S = (0.5, 30.0)
_MESSAGE_BYTES = 1 << 16  # a price has about 200
_AHEAD_MAX_MS = 3_600_000  # by which a message may lie ahead of this machine's clock
_CLOSE_S = 1.0
_REGULAR = 1  # market_hours: 0 before the session, 1 in it, 2 after it
_CRYPTO = 41  # quote_type; its day_volume is that of 24 hours, in dollars
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """What `YahooLiveConfig` says of the stream, checked there."""

    symbols: tuple[str, ...]  # in capitals
    url: str
    stale_after_s: float
    lag_max_s: float
    extended_hours: bool
    timeout_s: float
    seed: int


class _SilenceError(Exception):
    """The socket is open and nothing comes."""


def pricing(text: str | bytes) -> PricingData | None:
    """One message of the stream; None where it is of another type.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        message = json.loads(text)
    except RecursionError as error:
        raise ValueError("want an object, was nested too deeply") from error
    if not isinstance(message, dict) or not isinstance(message.get("message", ""), str):
        raise ValueError("want an object with a text named message")
    if message.get("type") != "pricing":
        return None
    try:
        return PricingData.FromString(base64.b64decode(message["message"], validate=True))
    except (DecodeError, KeyError) as error:
        raise ValueError(f"want base64 of a PricingData ({error})") from error


class Tape:
    """The messages of one symbol as trades: each once, forward in time.

    Args:
        symbol: whose.
        extended_hours: whether prices outside the regular session count.
        old_s: a first message that is older tells what was known before, and is no event.
    """

    def __init__(self, symbol: str, extended_hours: bool, old_s: float) -> None:
        self.symbol, self.last_ms = symbol, 0
        self._extended, self._old_ms = extended_hours, old_s * 1e3
        self._price, self._volume = 0.0, 0
        self._first = True  # of this connection
        self.dropped = {"duplicate": 0, "out of order": 0, "before": 0}

    def reconnected(self) -> None:
        """What the day's volume grew by meanwhile belongs to no one message."""
        self._first = True

    def trade(self, message: PricingData, received: datetime) -> Trade | None:
        """The trade that a message is; None where it adds nothing.

        Raises:
            ValueError: it cannot be: no positive price, no time, or a time in the future.
        """
        price, time_ms = float(message.price), int(message.time)
        now_ms = received.replace(tzinfo=UTC).timestamp() * 1e3
        if not 0.0 < price < math.inf:
            raise ValueError(f"want a positive price, was {price}")
        if not 0 < time_ms <= now_ms + _AHEAD_MAX_MS:
            raise ValueError(f"want a time in ms since 1970 up to {now_ms:.0f}, was {time_ms}")
        volume, first = int(message.day_volume), self._first
        if time_ms < self.last_ms:
            self.dropped["out of order"] += 1
            return None
        if (time_ms, price, volume) == (self.last_ms, self._price, self._volume):
            self.dropped["duplicate"] += 1  # Yahoo sends the last price again at each subscription
            return None
        grown = 0 if first or message.quote_type == _CRYPTO else volume - self._volume
        self.last_ms, self._price, self._volume, self._first = time_ms, price, volume, False
        if first and now_ms - time_ms > self._old_ms:
            self.dropped["before"] += 1
            return None
        if message.market_hours != _REGULAR and not self._extended:
            return None
        return Trade(  # type: ignore[call-arg] # whose side it was, Yahoo does not tell
            symbol=self.symbol,
            event_time=datetime(1970, 1, 1) + timedelta(milliseconds=time_ms),
            received=received,
            price=float(str(np.float32(price))),  # sent as float32: 189.84, not 189.83999633789062
            size=float(grown if grown > 0 else max(0, int(message.last_size))),
        )


class Stream:
    """The service's half that listens.

    Args:
        config: see there.
        present: a blocking call: when Yahoo's chart has its last price of a symbol from, and whether its regular
            session is open; raises FeedError.
        push: of the feed; outputs "trades" and "status".
    """

    def __init__(
        self, config: StreamConfig, present: Callable[[str, datetime], tuple[datetime, bool]], push: Push
    ) -> None:
        self._config, self._present, self._push = config, present, push
        tell = partial(push, "status")
        symbols = config.symbols
        self._health = {symbol: Health("yahoo trades", symbol, config.lag_max_s, tell) for symbol in symbols}
        self._tapes = {symbol: Tape(symbol, config.extended_hours, config.stale_after_s) for symbol in symbols}
        self._heard: dict[str, float] = {}  # loop time of the last message, or of the last look at the chart
        self._backoff = Backoff(*_BACKOFF_S, random.Random(config.seed))
        self._connected = False
        self._unreadable = 0

    async def run(self) -> None:
        """Listen until cancelled."""
        self._heard = dict.fromkeys(self._tapes, asyncio.get_running_loop().time())
        try:
            await all_of(self._listen(), self._watch())
        finally:
            dropped = {symbol: tape.dropped for symbol, tape in self._tapes.items() if any(tape.dropped.values())}
            if dropped:
                _log.info("yahoo_stream_dropped", counts=dropped)

    async def _listen(self) -> None:
        while True:
            try:
                await self._connection()
            except _SilenceError:
                pass  # the socket is replaced; whether anything is missing, the chart tells
            except (WebSocketException, OSError, TimeoutError) as error:
                self._lost(f"{type(error).__name__}: {error}".splitlines()[0])
            finally:
                self._connected = False
            await asyncio.sleep(self._backoff.next_s())

    async def _connection(self) -> None:
        """One socket from its dialling to its end, which is always an exception."""
        config = self._config
        socket = await connect(
            config.url, open_timeout=config.timeout_s, close_timeout=_CLOSE_S, max_size=_MESSAGE_BYTES
        )
        try:
            await self._hear(socket)
        finally:
            try:
                await socket.close()
            finally:
                socket.transport.abort()  # where the feed is stopped in the middle of a farewell that nobody answers

    async def _hear(self, socket: ClientConnection) -> None:
        loop, stale_after_s = asyncio.get_running_loop(), self._config.stale_after_s
        subscribe = json.dumps({"subscribe": list(self._config.symbols)})
        await socket.send(subscribe)
        self._connected = True
        for tape in self._tapes.values():
            tape.reconnected()
        heard = subscribed = loop.time()
        while True:
            text = await _receive(socket, min(heard + stale_after_s, subscribed + _SUBSCRIBE_S))
            if text is not None:
                heard = loop.time()
                self._backoff.reset()
                self._take(text, heard)
            if loop.time() >= heard + stale_after_s:
                raise _SilenceError(f"nothing came for {stale_after_s} s")
            if loop.time() >= subscribed + _SUBSCRIBE_S:
                await socket.send(subscribe)
                subscribed = loop.time()

    def _take(self, text: str | bytes, heard: float) -> None:
        received, tape = utc_now(), None
        try:
            message = pricing(text)
            if message is None:
                return
            tape = self._tapes.get(message.id)
            if tape is None:
                return
            trade = tape.trade(message, received)
        except ValueError as error:
            if tape is not None:
                self._health[tape.symbol].bad(str(error))
                return
            self._unreadable += 1
            if self._unreadable & (self._unreadable - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                _log.warning("yahoo_stream_unreadable", count=self._unreadable, detail=str(error)[:200])
            return
        health = self._health[tape.symbol]
        self._heard[tape.symbol] = heard
        if trade is not None:
            self._push("trades", trade)
        health.well("the stream delivers")
        if trade is not None:
            health.lag((received - trade.event_time).total_seconds())

    def _lost(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        for symbol, health in self._health.items():
            health.stale(f"the stream's connection is lost ({why}), trying again", now - self._heard[symbol])

    async def _watch(self) -> None:
        """Ask the chart about every symbol that has been silent."""
        loop, stale_after_s = asyncio.get_running_loop(), self._config.stale_after_s
        while True:
            await asyncio.sleep(max(0.0, min(self._heard.values()) + stale_after_s - loop.time()))
            for symbol, heard in self._heard.items():
                if loop.time() < heard + stale_after_s:
                    continue
                if self._connected:
                    await self._doubt(symbol, heard)
                self._heard[symbol] = max(loop.time(), self._heard[symbol])

    async def _doubt(self, symbol: str, heard: float) -> None:
        loop, health = asyncio.get_running_loop(), self._health[symbol]
        why = ""
        try:
            quoted, is_open = await in_thread(partial(self._present, symbol, utc_now()))
        except FeedError as error:
            why = f"nothing from the stream, and the chart cannot be asked: {error}"
        else:
            last = datetime(1970, 1, 1) + timedelta(milliseconds=self._tapes[symbol].last_ms)
            # Half: the chart may be a little ahead, and is far ahead where the stream stands still.
            if is_open and quoted > last + timedelta(seconds=self._config.stale_after_s / 2.0):
                why = f"the chart has a price of {quoted}, the stream none since {last}"
        if self._heard[symbol] != heard:  # it spoke meanwhile
            return
        if why:
            health.stale(why, loop.time() - heard)
        elif self._connected:
            health.well("the market is at rest: the chart has nothing later than the stream")


async def _receive(socket: ClientConnection, until: float) -> str | bytes | None:
    """The next message; None where none came up to a loop time."""
    try:
        async with asyncio.timeout_at(until):
            return await socket.recv()
    except TimeoutError:
        return None
