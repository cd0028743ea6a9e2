"""Random markets and random orders on them: scripts that any matching engine can play."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from feeds.instruments import Instrument

T0 = datetime(2024, 1, 2, 14, 30)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Script:
    market: str  # "bars", "trades", "quotes" or "depth"
    instrument: Instrument
    model: dict[str, Any]  # of FillModel
    latency: timedelta
    lower: int  # ticks by which all prices are lower than written in the steps
    quoted: bool  # the engine is told beforehand that there will be quotes or depth
    steps: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Call:
    """One call of an engine's method: "submit", "cancel", "expire" or a market event; or "cancelling", a cancel that is
    on its way and of which the engine knows nothing yet."""

    time: datetime
    name: str
    args: tuple[Any, ...]

    def to(self, engine: Any, order_type: type) -> list[Any]:
        """Make it; an order is made anew for each engine, which writes on it."""
        if self.name == "cancelling":
            return []
        if self.name == "submit":
            return engine.submit(order_type(**self.args[0]), self.time)
        if self.name in ("cancel", "expire"):
            return getattr(engine, self.name)(*self.args, self.time)
        return getattr(engine, self.name)(*self.args)


# Markets. Prices are in half ticks: every other one lies between two ticks.

rarely = st.integers(0, 15).map(lambda n: n == 15)
near = st.integers(95, 105)
halves = st.one_of(near.map(lambda n: 2 * n), near.map(lambda n: 2 * n), st.integers(190, 210))
sizes = st.sampled_from([3.0, 0.0, 0.5, 1.0, 2.5, 4.0, 7.0, 10.0, 29.0, 100.0])
volumes = st.sampled_from([10.0, 0.0, 3.0, 29.0, 30.0, 50.0, 100.0, 1000.0])
levels = st.lists(st.tuples(st.integers(-4, 0), sizes), min_size=1, max_size=3)
gaps = st.sampled_from([1, 1, 0])  # seconds

bars = st.tuples(st.just("bar"), st.lists(halves, min_size=4, max_size=4), volumes, gaps, rarely)
trades = st.tuples(st.just("trade"), halves, sizes, gaps)
spreads = st.sampled_from([2, 0, 1, 2, 4, -2])
quotes = st.tuples(st.just("quote"), halves, spreads, sizes, sizes, gaps, st.integers(0, 11))
depths = st.tuples(st.just("depth"), halves, levels, levels, st.booleans(), gaps)
NOTHING = st.just([("nothing",)])
EVENTS = {
    "bars": st.one_of(bars),
    "trades": st.one_of(trades),
    "quotes": st.one_of(quotes, quotes, trades),
    "depth": st.one_of(depths, depths, trades),
}

# Orders. A reference to another order counts back from the last one sent.

back = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 50])
signs = st.sampled_from([1, -1])
delays = st.sampled_from([0, 2, 5])  # seconds more than the latency that a cancel may take
lots = st.sampled_from([1, 2, 3, 5, 8, 12, 20])
kinds = st.sampled_from(["market", "limit", "limit", "limit", "stop", "stop_limit", "touch", "trail", "trail_bps"])
forces = st.sampled_from(["gtc", "gtc", "gtc", "gtd", "ioc", "fok"])


@st.composite
def orders(draw: Any, child: bool = False) -> dict[str, Any]:
    kind = draw(kinds.filter(lambda name: name != "market")) if child else draw(kinds)
    terms: dict[str, Any] = {"sign": draw(signs), "lots": draw(lots)}
    if kind in ("limit", "stop_limit"):
        terms["limit"] = draw(near)
    if kind in ("stop", "stop_limit", "touch"):
        terms["stop"] = draw(near)
        terms["touch"] = kind == "touch"
    if kind == "trail":
        terms["trail"] = draw(st.integers(1, 4))
    if kind == "trail_bps":
        terms["trail_bps"] = draw(st.sampled_from([50.0, 100.0, 110.0, 290.0]))
    force = draw(forces)
    terms["immediate"], terms["whole"] = force in ("ioc", "fok"), force == "fok"
    if force == "gtd":
        terms["expires"] = draw(st.integers(1, 6))  # seconds after its arrival
    if kind == "limit" and not terms["immediate"]:
        terms["post_only"] = draw(rarely)
    terms["reduce_only"] = draw(st.integers(0, 3 if child else 7)) == 3
    return terms


@st.composite
def brackets(draw: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An entry, and a stop and a target on the two sides of it."""
    sign, price = draw(signs), draw(near)
    entry = draw(st.sampled_from([{"stop": price}, {"limit": price}, {"stop": price, "limit": price + sign}, {}]))
    plain = {"sign": -sign, "lots": draw(lots), "immediate": False, "whole": False, "reduce_only": draw(st.booleans())}
    stop = draw(st.sampled_from([{"stop": price - 2 * sign}, {"trail": 2}, {"stop": price, "limit": price - sign}]))
    target = {"limit": price + sign * draw(st.integers(0, 3))}
    kept = {"lots": draw(st.sampled_from([plain["lots"], 5]))}
    return plain | entry | {"sign": sign, "reduce_only": False}, [plain | stop | kept, plain | target]


@st.composite
def messages(draw: Any) -> tuple[Any, ...]:
    """What a strategy sends in one breath: orders as (terms, {link: how many orders back}), or a cancel."""
    whats = ["order", "order", "order", "bracket", "bracket", "pair", "link", "replace", "cancel"]
    what, wait = draw(st.sampled_from(whats)), draw(gaps)
    if what == "cancel":
        return ("cancel", draw(back), wait, draw(delays))
    first = draw(orders())
    if what == "order":
        group = draw(st.sampled_from(["", "", "", "g", "h"]))
        return ("send", [(first | {"group": group}, {})], wait, draw(rarely))
    if what == "pair":
        return ("send", [(first | {"group": "+"}, {}), (draw(orders()) | {"group": "+"}, {})], wait, False)
    if what == "link":
        return ("send", [(draw(orders(child=draw(st.integers(0, 9)) > 0)), {"parent": draw(back)})], wait, False)
    if what == "replace":
        return ("send", [(first, {"replaces": draw(back)})], wait, False)
    if draw(st.booleans()):
        first, exits = draw(brackets())
    else:
        exits = draw(st.lists(orders(child=True), min_size=1, max_size=2))
    children = [(exit_ | {"group": "+"}, {"parent": place}) for place, exit_ in enumerate(exits)]
    return ("send", [(first, {}), *children], wait, False)


@st.composite
def queues(draw: Any, market: str) -> list[tuple[Any, ...]]:
    """A limit order joins the best price, and trades at that price eat what is shown before it."""
    sign, price = draw(signs), draw(near)
    order = {"sign": sign, "lots": 12, "limit": price, "immediate": False, "whole": False, "reduce_only": False}

    def show(shown: float) -> tuple[Any, ...]:
        bid_lots, ask_lots = (shown, 4.0) if sign > 0 else (4.0, shown)
        if market == "quotes":
            return ("quote", 2 * price - (sign < 0) * 2, 2, bid_lots, ask_lots, 1, 0)
        away = -1 if sign < 0 else 0
        return ("depth", 2 * price, [(away, bid_lots)], [(-1 - away, ask_lots)], draw(st.booleans()), 1)

    def trade() -> tuple[Any, ...]:
        return ("trade", 2 * price, draw(st.sampled_from([2.5, 4.0, 7.0])), draw(gaps))

    sent = ("send", [(order, {})], 1, False)
    return [sent, show(2.5), show(draw(sizes)), trade(), show(draw(sizes)), trade(), trade()]


@st.composite
def episodes(draw: Any, market: str) -> list[tuple[Any, ...]]:
    """What is rare among independent steps: an order that has filled in part is replaced, cancelled or closed; a whole
    bracket meets its market; an order waits in its queue."""
    event = EVENTS[market]
    what = draw(st.sampled_from(["replace", "cancel", "close", "bracket", "bracket", "queue", "queue"]))
    if what == "bracket":
        first, exits = draw(brackets())
        children = [(exit_ | {"group": "+"}, {"parent": place}) for place, exit_ in enumerate(exits)]
        return [("send", [(first, {}), *children], 0, False), draw(event), draw(event)]
    if what == "queue" and market in ("quotes", "depth"):
        return draw(queues(market))
    entry = draw(orders()) | {"lots": draw(st.sampled_from([5, 12, 20])), "immediate": False, "whole": False}
    start = [("send", [(entry, {})], 1, False), draw(event)]
    if what == "replace":
        return [*start, ("send", [(draw(orders()) | {"sign": entry["sign"]}, {"replaces": 0})], 0, False)]
    if what == "cancel":
        return [*start, ("cancel", 0, 0, draw(delays)), draw(event), draw(event)]
    close = draw(orders()) | {"sign": -entry["sign"], "lots": 20, "reduce_only": True}
    return [*start, ("send", [(close, {})], 0, False), draw(event)]


@st.composite
def scripts(draw: Any, market: str) -> Script:
    event, message = EVENTS[market].map(lambda step: [step]), messages().map(lambda step: [step])
    instrument = Instrument(
        symbol="A",
        tick=draw(st.sampled_from(["1", "0.25", "0.01"])),
        lot=draw(st.sampled_from(["1", "0.001"])),
        multiplier=draw(st.sampled_from(["1", "50"])),
        maker_bps=draw(st.sampled_from([0.0, -0.5, 2.0])),
        taker_bps=draw(st.sampled_from([0.0, 5.0, 7.5])),
        fee_per_unit=draw(st.sampled_from(["0", "0.35"])),
        fee_min=draw(st.sampled_from(["0", "1"])),
        fees_in=draw(st.sampled_from(["quote", "quote", "received"])),
        base_unit=draw(st.sampled_from(["", "0.00001"])),
    )
    model = {
        "slippage_bps": draw(st.sampled_from([0.0, 1.0, 110.0])),
        "impact_bps": draw(st.sampled_from([0.0, 300.0])),
        "spread_bps": draw(st.sampled_from([0.0, 10.0, 150.0])),
        "participation_max": draw(st.sampled_from([None, None, 0.1, 0.29, 0.5, 1.0])),
        "queue": market in ("quotes", "depth") and draw(st.sampled_from([True, True, False])),
    }
    latency = draw(st.sampled_from([1, 1, 1_000, 2_500]))
    quoted = market in ("quotes", "depth") and draw(st.booleans())
    lower = draw(st.sampled_from([0, 0, 94]))  # to prices of a tick, where nothing is cheaper
    # A step that does nothing comes first: what cannot be left out of a list can become that.
    kinds = st.one_of(NOTHING, message, event, message, event, event, episodes(market))
    steps = [step for part in draw(st.lists(kinds, min_size=20, max_size=36)) for step in part]
    return Script(market, instrument, model, timedelta(milliseconds=latency), lower, quoted, steps)


def timeline(script: Script) -> list[Call]:
    """The script as calls in the order of time; at one time orders end first, then the market moves, then messages
    arrive, as they do at the simulated venue."""
    return _Clock(script).calls()


class _Clock:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.tick = Fraction(script.instrument.tick)
        self.now = self.close = T0
        self.timed: list[tuple[datetime, int, Call]] = []
        self.sent: list[str] = []
        self.groups = 0

    def calls(self) -> list[Call]:
        for step in self.script.steps:
            getattr(self, f"on_{step[0]}")(*step[1:])
        return [call for _, _, call in sorted(self.timed, key=lambda timed: timed[:2])]

    def add(self, rank: int, name: str, *args: Any, time: datetime | None = None) -> None:
        time = time or self.now
        self.timed.append((time, rank, Call(time, name, args)))
        if rank == 1:
            self.timed.append((time, 0, Call(time, "expire", ())))

    def price(self, half_ticks: int) -> float:
        return float((half_ticks - 2 * self.script.lower) * self.tick / 2)

    def on_nothing(self) -> None:
        pass

    def on_bar(self, prices: list[int], volume: float, gap: int, odd: bool) -> None:
        opened = self.close + gap * SECOND
        self.close = self.now = max(self.now, opened + 2 * SECOND)
        open_, close = self.price(prices[0]), self.price(prices[1])
        span = prices[2:] if odd else prices  # some sources give an open or a close outside the range
        high, low = self.price(max(span)), self.price(min(span))
        self.add(1, "on_bar", open_, high, low, close, volume, opened, self.close)

    def on_trade(self, price: int, size: float, gap: int) -> None:
        self.now += gap * SECOND
        self.add(1, "on_trade", self.price(price), size, self.now)

    def on_quote(self, bid: int, spread: int, bid_lots: float, ask_lots: float, gap: int, hidden: int) -> None:
        self.now += gap * SECOND
        shown_bid = 0.0 if hidden == 10 else self.price(bid)
        shown_ask = float("nan") if hidden == 11 else self.price(bid + spread)
        self.add(1, "on_quote", shown_bid, shown_ask, bid_lots, ask_lots, self.now)

    def on_depth(self, middle: int, bids: Any, asks: Any, snapshot: bool, gap: int) -> None:
        self.now += gap * SECOND
        sides = [
            np.array([(self.price(middle + 2 * sign * away), size) for away, size in side], float).reshape(-1, 2)
            for side, sign in ((bids, 1), (asks, -1))
        ]
        self.add(1, "on_depth", *sides, snapshot, self.now)

    def on_cancel(self, back: int, wait: int, delay: int) -> None:
        self.now += wait * SECOND
        self.add(2, "cancelling", self.name(back))
        self.add(2, "cancel", self.name(back), time=self.now + self.script.latency + delay * SECOND)

    def on_send(self, sent: list[tuple[dict[str, Any], dict[str, int]]], wait: int, again: bool) -> None:
        self.now += wait * SECOND
        arrives = self.now + self.script.latency
        self.groups += 1
        for terms, links in sent:
            order = terms | {"sent": self.now, "decision": 100.0}
            order |= {link: self.name(back) for link, back in links.items()}
            for name in ("limit", "stop"):
                if name in order:
                    order[name] = max(1, order[name] - self.script.lower)
            if order.get("group") == "+":
                order["group"] = f"group {self.groups}"
            if "expires" in order:
                order["expires"] = arrives + order["expires"] * SECOND
                self.add(0, "expire", time=order["expires"])
            order["order_id"] = self.name(0) if again else f"order {len(self.sent) + 1}"
            self.sent.append(order["order_id"])
            self.add(2, "submit", order, time=arrives)

    def name(self, back: int) -> str:
        return self.sent[-1 - back] if back < len(self.sent) else "nobody"
