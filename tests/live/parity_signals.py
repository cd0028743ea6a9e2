"""A signal that shows every difference between two lives: its score rests on all that came before it, and on what came
together. Half of it comes from outside: guesses of a slow worker, which nobody could compute again.
"""

import asyncio
import os
import random
import time
from datetime import datetime, timedelta
from typing import Any

import csp
from csp import ts

from feeds.events import Bar, Depth, Quote, Trade
from feeds.loop import LoopAdapter, Push
from graphs.edges import Feeds
from nodes.events import Signal

STALL_ENV = "PARITY_STALL_S"  # how long the engine stands still now and then; set in a live run alone
STALL_EVERY = 40  # trades of a symbol
SIGNAL_EVERY = 15
THINKS_S = 0.25  # of a guess; a bar takes a second, and a hundred of history take a moment

_WINDOW = timedelta(microseconds=900)
_MODULUS = 1_000_003


class Guess(csp.Struct, strict=True):
    symbol: str
    asof: datetime
    value: float  # [-1, 1]


class Worker:
    """Thinks long about the latest bar; bars that come meanwhile are passed over."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._asked = asyncio.Event()
        self._dice = random.SystemRandom()

    async def run(self, push: Push) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            bar = self._bar
            assert bar is not None
            await asyncio.sleep(THINKS_S)
            push("guesses", Guess(symbol=bar.symbol, asof=bar.event_time, value=self._dice.uniform(-1.0, 1.0)))

    def take(self, name: str, value: Bar) -> None:
        self._bar = value
        self._asked.set()


def guesses(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """What the worker says: recorded on the way in; a replay has none."""

    def make() -> Any:
        adapter = LoopAdapter("worker", Worker(), {"guesses": Guess})
        adapter.send("bar", bar)
        return adapter.edge("guesses")

    return feeds.inputs.edge(f"guesses-{symbol.replace('/', '-').lower()}", Guess, make)


@csp.node
def _opinion(
    bar: ts[Bar],
    trade: ts[Trade],
    quote: ts[Quote],
    depth: ts[Depth],
    guess: ts[Guess],
    symbol: str,
    long_only: bool,
    stall_s: float,
) -> ts[Signal]:
    with csp.alarms():
        a_window = csp.alarm(bool)
    with csp.state():
        s_bits = 0
        s_trades = 0
        s_open = False

    together = [csp.ticked(bar), csp.ticked(trade), csp.ticked(quote), csp.ticked(depth), csp.ticked(guess)]
    together += [csp.ticked(a_window)]
    s_bits = (31 * s_bits + sum(1 << i for i, ticked in enumerate(together) if ticked)) % _MODULUS
    if csp.ticked(bar):
        s_bits += round(bar.volume * 1e6)
    if csp.ticked(quote):
        s_bits += round(quote.bid_size * 1e6)
    if csp.ticked(depth):
        s_bits += round(depth.bids[-1, 1] * 1e6)
    if csp.ticked(guess):
        s_bits += round(guess.value * 1e6)
    if csp.ticked(a_window):
        s_open = False
    if csp.ticked(trade):
        s_bits += round(trade.price * 100.0)
        s_trades += 1
        if not s_open:
            s_open = True
            csp.schedule_alarm(a_window, _WINDOW, True)
        if stall_s and s_trades % STALL_EVERY == 0:
            time.sleep(stall_s)  # the wall clock runs away from the engine, as in a long collection
        if s_trades % SIGNAL_EVERY == 0:
            score = (s_bits % 1001) / 1000.0
            csp.output(
                Signal(
                    symbol=symbol,
                    source="parity",
                    score=0.3 + 0.7 * score if long_only else 2.0 * score - 1.0,
                    confidence=1.0,
                    horizon_s=60.0,
                    asof=csp.now(),
                )
            )


def parity(bar: ts[Bar], symbol: str, feeds: Feeds) -> ts[Signal]:
    """ES is always bought, more or less of it, so that a run never ends without a position."""
    return _opinion(
        bar,
        feeds.trades[symbol],
        feeds.quotes.get(symbol, csp.null_ts(Quote)),
        feeds.depth.get(symbol, csp.null_ts(Depth)),
        guesses(bar, symbol, feeds),
        symbol,
        symbol.startswith("ES/"),
        float(os.environ.get(STALL_ENV, "0")),
    )
