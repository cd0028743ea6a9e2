"""One of the two clients that benchmarks/live.py compares, in a process of its own.

`graph` is the live run as `run_live.py` starts it, orders to the venue; `bare` is a ccxt.pro loop, `watch_trades` and
`create_order`. Both order at the same trades. Both hold the same two stamps of each order, taken at their sockets: the
time at which the kernel got the bytes of the trade (SO_TIMESTAMPNS), and the time at which the request is handed to it.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import struct
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.pro
import csp
import structlog
from csp import ts

import brokers.venue
from brokers.events import OrderRequest
from brokers.journal import Journal
from brokers.venue_config import VenueConfig
from feeds.crypto import CryptoConfig
from feeds.events import Bar, Trade
from feeds.exchange import ExchangeConfig
from graphs.config import MAIN, SignalsConfig
from graphs.edges import Feeds
from graphs.live_config import LiveConfig
from graphs.live_plan import prepare
from graphs.live_run import claim, run
from nodes.events import Signal
from nodes.orders import Flight
from nodes.risk import RiskConfig
from nodes.sizing import SizingConfig

SYMBOL = "BTC/USDT"
QUANTITY = 0.001
CASH = 1_000_000.0
KEY_ENV, SECRET_ENV = "LOCAL_EXCHANGE_KEY", "LOCAL_EXCHANGE_SECRET"

_SO_TIMESTAMPNS = 35  # Linux; the socket module has no name for it
_TIMESPEC = struct.Struct("@qq")
_ORDER = b"POST /api/v3/order"
_TRADE = re.compile(rb'"e":"aggTrade"[^}]*?"a":(\d+)')


@dataclass(slots=True, eq=False)  # compared by identity, so that csp can hash it
class Seen:
    """What went through the sockets, and what the strategy was shown."""

    received: list[tuple[int, int, bytes]] = field(default_factory=list)  # (socket, ns since 1970, bytes)
    sent: list[tuple[int, bytes]] = field(default_factory=list)  # (ns since 1970, bytes)
    trades: list[tuple[int, int]] = field(default_factory=list)  # (id, ns since 1970) as the strategy gets them
    causes: list[int] = field(default_factory=list)  # of each order the id of the trade that asked for it

    def trade(self, trade_id: int) -> None:
        """The strategy gets a trade."""
        if not self.trades:
            print("started", flush=True)
        self.trades.append((trade_id, time.time_ns()))

    def arrivals(self) -> dict[int, int]:
        """When the last byte of each trade's id came, by id."""
        streams: dict[int, list[tuple[int, bytes]]] = {}
        for number, when, data in self.received:
            streams.setdefault(number, []).append((when, data))
        found = {}
        for chunks in streams.values():
            ends = list(accumulate(len(data) for _, data in chunks))
            for match in _TRADE.finditer(b"".join(data for _, data in chunks)):
                found[int(match[1])] = chunks[bisect_left(ends, match.end())][0]
        return found

    def cause(self, every: int) -> None:
        """An order is made: because of the latest trade to order at."""
        self.causes.append(self.trades[-1][0] // every * every)

    def orders(self) -> list[tuple[int, int]]:
        """(ns since 1970, id of the trade that asked for it) of each order's request."""
        sent = [when for when, data in self.sent if data.startswith(_ORDER)]
        if len(sent) > len(self.causes):
            raise SystemExit(f"want one request an order, were {len(sent)} of {len(self.causes)} orders")
        return list(zip(sent, self.causes, strict=False))  # those that a stop refused came last


class Stamped(socket.socket):
    """A socket that notes when its bytes came, by the kernel's word, and when they go."""

    seen: Seen

    def recv(self, size: int, flags: int = 0) -> bytes:
        data, told, _, _ = self.recvmsg(size, 64, flags)
        if told:  # the closing of a connection has no time
            seconds, ns = _TIMESPEC.unpack(told[0][2])
            self.seen.received.append((id(self), seconds * 1_000_000_000 + ns, data))
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        self.seen.sent.append((time.time_ns(), bytes(data)))
        return super().send(data, flags)


def stamp_sockets(seen: Seen) -> None:
    """From now on, every connection of aiohttp, which is what ccxt stands on, is stamped."""

    class Sockets(Stamped):
        pass

    Sockets.seen = seen

    def made(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = Sockets(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        return made

    plain = aiohttp.TCPConnector
    aiohttp.TCPConnector = partial(plain, socket_factory=made)  # type: ignore[misc,assignment] # as ccxt calls it


def _buys(trade_id: int, every: int) -> bool:
    """Which side the order at this trade has: they take turns."""
    return trade_id // every % 2 == 0


# --- the graph --------------------------------------------------------------------------------------------------------


@csp.node
def in_turn(trade: ts[Trade], symbol: str, every: int, seen: object) -> ts[Signal]:
    """Long and flat in turn, at each trade whose id is a multiple of `every`."""
    if csp.ticked(trade):
        trade_id = trade.trade_id
        seen.trade(trade_id)
        if trade_id % every == 0:
            score = 1.0 if _buys(trade_id, every) else -1.0
            return Signal(symbol=symbol, source="in_turn", score=score, confidence=1.0, horizon_s=60.0, asof=csp.now())


class NoStop:
    """Nobody stops the run: it ends by its duration."""

    running = False

    def edge(self) -> Any:
        return csp.null_ts(bool)


def graph_config(url: str, journal: Path) -> LiveConfig:
    at = {"url": url}
    return LiveConfig(
        name="bench",
        bar="1s",
        currency="USDT",
        initial_cash=CASH,
        journal=str(journal),
        orders="venue",
        warmup_bars=300,
        crypto=(CryptoConfig(at=ExchangeConfig(**at), symbols=(SYMBOL,), streams=("trades",)),),
        venue=VenueConfig(at=ExchangeConfig(**at, key_env=KEY_ENV, secret_env=SECRET_ENV)),
        signals=SignalsConfig(use=()),
        sizing=SizingConfig(mode="fixed", quantity=QUANTITY, shorts=False),
        risk=RiskConfig(cash_only=True, orders_per_second_max=1_000, price_collar=0.05, quote_age_max_s=30.0),
    )


def run_graph(arguments: argparse.Namespace, seen: Seen) -> None:
    """The whole live run: feed, signal, fusion, sizing, gate, journal, venue, books."""
    if arguments.journal == "full":
        brokers.venue.Journal = partial(_durable, Journal)  # type: ignore[misc,assignment] # as with real money

    def signal(bar: ts[Bar], symbol: str, feeds: Feeds) -> ts[Signal]:
        return in_turn(feeds.trades[symbol], symbol, arguments.every, seen)

    made = Flight.order

    def noted(flight: Flight, order_id: str, lots: int, *, closes: bool) -> OrderRequest:
        seen.cause(arguments.every)
        return made(flight, order_id, lots, closes=closes)

    Flight.order = noted  # type: ignore[assignment,method-assign]
    ready = prepare(
        graph_config(arguments.url, arguments.out.with_suffix(".journal")),
        duration_s=arguments.seconds,
        dry_run=False,
        live_money=False,
        say=print,
        confirm=lambda sentence: False,
    )
    ready.plan = replace(ready.plan, plugins={MAIN: (signal,)})
    record = arguments.out.with_suffix(".recording") if arguments.record else None
    if record is not None:
        claim(record)
    outcome = run(ready, NoStop(), record=record, show=False)
    ready.close("stop")
    del outcome.refused["stopping"]  # what was wanted while it wound down
    if outcome.refused:
        raise SystemExit(f"orders were refused: {dict(outcome.refused)}")


def _durable(make: Callable[..., Journal], path: Any, **options: Any) -> Journal:
    return make(path, **{**options, "durable": True})


# --- the bare loop ----------------------------------------------------------------------------------------------------


async def run_bare(arguments: argparse.Namespace, seen: Seen) -> None:
    """What one would write first, at its fastest: no limiter, which would make every second order wait 50 ms."""
    rest = arguments.url
    sockets = rest.replace("http", "ws", 1)
    exchange = ccxt.pro.binance(
        {
            "apiKey": os.environ[KEY_ENV],
            "secret": os.environ[SECRET_ENV],
            "enableRateLimit": False,
            "newUpdates": True,
            "urls": {
                "api": {
                    "public": f"{rest}/api/v3",
                    "private": f"{rest}/api/v3",
                    "ws": {"spot": f"{sockets}/stream/ws", "ws-api": {"spot": f"{sockets}/ws-api/v3"}},
                }
            },
            "options": {
                "defaultType": "spot",
                "tradesLimit": 200_000,  # with the default of 1000, ccxt loses a part of the burst
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
                "fetchMargins": False,
            },
        }
    )
    every = arguments.every
    try:
        await exchange.load_markets()
        ends_s = time.monotonic() + arguments.seconds
        while time.monotonic() < ends_s:
            for trade in await exchange.watch_trades(SYMBOL, params={"name": "aggTrade"}):
                trade_id = int(trade["id"])
                seen.trade(trade_id)
                if trade_id % every == 0:
                    seen.cause(every)
                    side = "buy" if _buys(trade_id, every) else "sell"
                    await exchange.create_order(SYMBOL, "market", side, QUANTITY)
    finally:
        await exchange.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("client", choices=("graph", "bare"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--every", type=int, required=True, help="order at trades whose id is a multiple of it")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--journal", choices=("normal", "full"), default="normal")
    parser.add_argument("--record", action="store_true", help="record the run, as --record does")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    seen = Seen()
    stamp_sockets(seen)
    began = time.process_time()
    if arguments.client == "graph":
        run_graph(arguments, seen)
    else:
        asyncio.run(run_bare(arguments, seen))
    told = {
        "arrivals": list(seen.arrivals().items()),
        "seen": seen.trades,
        "orders": seen.orders(),
        "cpu_s": time.process_time() - began,
    }
    arguments.out.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
