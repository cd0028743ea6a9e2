"""A live graph in miniature, as a program: recorded in one process, replayed in another.

    python recorded_market.py live RUN SECONDS     # to SIGTERM or for so long; logs every input to stderr
    python recorded_market.py replay RUN OUT

Two push feeds with bursts and one that is slow, warm-up, a venue that answers when it likes, an engine that stalls, a
window on an alarm, a paper broker on a feedback: whatever could come back in another cycle.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
from csp import ts

from brokers.events import Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from feeds import recording
from feeds.clock import utc_now
from feeds.events import Depth, FeedState, FeedStatus, Quote, Side, Trade
from feeds.loop import LoopAdapter
from feeds.record import Inputs, Recorder, RecorderConfig, RecordingInputs, ReplayedInputs
from nodes.events import Alert, AlertLevel

OUTPUTS = ("outputs/orders", "outputs/fills", "outputs/alerts")
_HISTORY = timedelta(minutes=10)
_GRACE = timedelta(milliseconds=150)
_STALL_S = 0.02


class Market:
    """Trades in bursts, quotes, depth, and now and then a status."""

    async def run(self, push: Callable[[str, Any], None]) -> None:
        rng = random.Random(1)
        n = 0
        while True:
            for _ in range(rng.choice([1, 1, 2, 30])):
                n += 1
                price = 100.0 + rng.random()
                push("trades", Trade(symbol="A", event_time=utc_now(), price=price, size=rng.random(), trade_id=n))
            if rng.random() < 0.5:
                push(
                    "quotes",
                    Quote(symbol="A", event_time=utc_now(), bid=100.0 + rng.random(), ask=101.0 + rng.random()),
                )
            if n % 7 == 0:
                push("depth", Depth(symbol="A", bids=np.array([[price, rng.random()]]), snapshot=False))
            await asyncio.sleep(0.004 * rng.random())

    def take(self, name: str, value: Any) -> None:
        raise AssertionError(f"nothing is sent to the market, was {name}")


class Status:
    """A stream that is slow."""

    async def run(self, push: Callable[[str, Any], None]) -> None:
        for n in range(1_000_000):
            state = FeedState.LAGGING if n % 2 else FeedState.RECOVERED
            push("status", FeedStatus(feed="market trades", symbol="", state=state, detail="π", value=n / 3))
            await asyncio.sleep(0.3)

    def take(self, name: str, value: Any) -> None:
        raise AssertionError(f"nothing is sent to the status, was {name}")


class Venue:
    """Answers each order after a while of its own."""

    def __init__(self) -> None:
        self._rng = random.Random(2)

    async def run(self, push: Callable[[str, Any], None]) -> None:
        self._push = push
        await asyncio.Event().wait()

    def take(self, name: str, order: OrderRequest) -> None:
        update = OrderUpdate(
            order_id=order.order_id, symbol="A", state=OrderState.ACCEPTED, remaining=order.quantity, code="", reason=""
        )
        asyncio.get_running_loop().call_later(0.003 * self._rng.random(), self._push, "updates", update)


@csp.node
def strategy(
    history: ts[Trade],
    trade: ts[Trade],
    quote: ts[Quote],
    depth: ts[Depth],
    status: ts[FeedStatus],
    update: ts[OrderUpdate],
    fill: ts[Fill],
    live: ts[bool],
    stall_s: float,
) -> csp.Outputs(order=ts[OrderRequest], alert=ts[Alert]):
    """What it emits depends on every tick before it, and on which of them shared a cycle."""
    with csp.alarms():
        a_window = csp.alarm(bool)
    with csp.state():
        s_bits = 0
        s_sum = 0.0
        s_count = 0
        s_orders = 0
        s_open = False
    with csp.start():
        csp.make_passive(live)

    ticked = [csp.ticked(history), csp.ticked(trade), csp.ticked(quote), csp.ticked(depth), csp.ticked(status)]
    ticked += [csp.ticked(update), csp.ticked(fill), csp.ticked(a_window)]
    s_bits = (s_bits * 31 + sum(1 << i for i, yes in enumerate(ticked) if yes)) % 1_000_003
    if csp.ticked(history):
        s_sum += history.price
    if csp.ticked(depth):
        s_sum += depth.bids[0, 1]
    if csp.ticked(update):
        s_sum += len(update.order_id)
    if csp.ticked(fill):
        s_sum -= fill.quantity
    if csp.ticked(trade):
        s_count += 1
        s_sum += trade.price * trade.size
        if not s_open:
            s_open = True
            csp.schedule_alarm(a_window, timedelta(microseconds=900), True)
        if stall_s and s_count % 100 == 7:
            time.sleep(stall_s)  # the wall clock runs away from the engine, as in a long collection
        if csp.valid(quote) and csp.valid(live) and trade.price > quote.bid + 0.5:
            s_orders += 1
            csp.output(
                order=OrderRequest(
                    order_id=f"o{s_orders}",
                    symbol="A",
                    side=Side.BUY if s_bits % 2 else Side.SELL,
                    order_type=OrderType.LIMIT,
                    quantity=1.0 + s_bits,
                    limit_price=trade.price,
                    expires=csp.now() + timedelta(hours=1),
                )
            )
    if csp.ticked(a_window):
        s_open = False
        if s_bits % 5 == 0:
            csp.output(
                alert=Alert(level=AlertLevel.INFO, source="window", symbol="A", message=f"{s_count}", value=s_sum)
            )


@csp.node
def paper(order: ts[OrderRequest], latency: timedelta) -> ts[Fill]:
    """Fills everything, some time later."""
    with csp.alarms():
        a_fill = csp.alarm(OrderRequest)

    if csp.ticked(order):
        csp.schedule_alarm(a_fill, latency, order)
    if csp.ticked(a_fill):
        return Fill(
            market_time=csp.now(),
            symbol="A",
            side=a_fill.side,
            quantity=a_fill.quantity,
            price=a_fill.limit_price,
            fee=0.1,
            order_id=a_fill.order_id,
            liquidity=Liquidity.TAKER,
        )


@csp.node
def from_here(trade: ts[Trade]) -> ts[bool]:
    """Tick once, on the first trade that is live."""
    with csp.state():
        s_live = False
    if csp.ticked(trade) and not s_live and csp.in_realtime():
        s_live = True
        return True


@csp.node
def stop_after(stop: ts[bool], grace: timedelta) -> ts[bool]:
    with csp.alarms():
        a_over = csp.alarm(bool)
    if csp.ticked(stop):
        csp.schedule_alarm(a_over, grace, True)
    if csp.ticked(a_over):
        return True


@csp.node
def log(trade: ts[Trade], status: ts[FeedStatus], trade_ns: ts[int], status_ns: ts[int]):
    """The truth, for who kills this process: written before anything else is done with a tick."""
    if csp.ticked(trade):
        os.write(2, b"inputs/trades %d\n" % trade_ns)
    if csp.ticked(status):
        os.write(2, b"inputs/status %d\n" % status_ns)


def history() -> Any:
    """Trades of the last minutes, several of one time."""
    start = utc_now() - _HISTORY
    stamps = [start + timedelta(seconds=1 + n // 3) for n in range(600)]
    return csp.curve(Trade, [(t, Trade(symbol="A", event_time=t, price=n / 7, size=1.0)) for n, t in enumerate(stamps)])


def graph(inputs: Inputs, recorder: Recorder, stop: Any, stall_s: float) -> None:
    """The same wiring in both lives."""
    market = LoopAdapter("market", Market(), {"trades": Trade, "quotes": Quote, "depth": Depth})
    venue = LoopAdapter("venue", Venue(), {"updates": OrderUpdate})
    slow = LoopAdapter("status", Status(), {"status": FeedStatus})
    trades = inputs.edge("trades", Trade, lambda: market.edge("trades"))
    status = inputs.edge("status", FeedStatus, lambda: slow.edge("status"))
    asked = inputs.edge("stop", bool, stop)
    fills = csp.feedback(Fill)
    out = strategy(
        inputs.edge("history", Trade, history),
        trades,
        inputs.edge("quotes", Quote, lambda: market.edge("quotes")),
        inputs.edge("depth", Depth, lambda: market.edge("depth")),
        status,
        inputs.edge("updates", OrderUpdate, lambda: venue.edge("updates")),
        fills.out(),
        inputs.edge("live", bool, lambda: from_here(trades)),
        stall_s,
    )
    fill = paper(out.order, timedelta(microseconds=700))
    fills.bind(fill)
    csp.stop_engine(stop_after(asked, _GRACE))
    recorder.record("orders", OrderRequest, out.order, folder="outputs")
    recorder.record("fills", Fill, fill, folder="outputs")
    recorder.record("alerts", Alert, out.alert, folder="outputs")
    if isinstance(inputs, RecordingInputs):
        venue.send("order", out.order)
        log(trades, status, csp.times_ns(trades), csp.times_ns(status))


def live(root: Path, seconds: float) -> None:
    start = utc_now() - _HISTORY - timedelta(seconds=1)
    recorder = Recorder(root, RecorderConfig(flush_s=0.25, rotate_s=1.0))
    stop = csp.GenericPushAdapter(bool)
    signal.signal(signal.SIGTERM, lambda *_: stop.push_tick(True))
    about = {"start": start.isoformat()}
    root.mkdir(parents=True)
    recording.write_manifest(root, about)
    end = utc_now() + timedelta(seconds=seconds)
    csp.run(graph, RecordingInputs(recorder), recorder, stop.out, _STALL_S, starttime=start, endtime=end, realtime=True)
    recording.write_manifest(root, about | {"ended": "stop", "end_ns": recorder.last_ns, "counts": recorder.counts})


def replay(root: Path, out: Path) -> None:
    start = datetime.fromisoformat(recording.read_manifest(root)["start"])
    inputs = ReplayedInputs(root, recording.complete_before(root))

    def no_live_edge() -> Any:
        raise AssertionError("a replay makes no live edge")

    csp.run(graph, inputs, Recorder(out), no_live_edge, 0.0, starttime=start, endtime=timedelta(hours=1))
    if inputs.unused():
        raise AssertionError(f"not asked for: {inputs.unused()}")


if __name__ == "__main__":
    if sys.argv[1] == "live":
        live(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        replay(Path(sys.argv[2]), Path(sys.argv[3]))
