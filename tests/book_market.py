"""A book and its market in a few words, for the tests of the fill rules."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np

from brokers.costs import FillModel
from brokers.matching import Book, Order, Report
from feeds.instruments import Instrument

T0 = datetime(2024, 1, 2)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
CENTS = Instrument(symbol="A", tick="0.01", lot="1")


class Market:
    """A book and its market: events come one after another, and each answers what happened."""

    def __init__(self, *, bars: bool = False, **model: Any) -> None:
        model.setdefault("slippage_bps", 0.0)
        self.book = Book(CENTS, FillModel(**model), bars)
        self.now = T0

    def send(self, name: str, sign: int, lots: int, **terms: Any) -> list[tuple[Any, ...]]:
        """Submit an order now; prices in quote currency."""
        for price in ("limit", "stop", "trail"):
            if price in terms:
                terms[price] = round(terms[price] * 100.0)
        terms.setdefault("sent", self.now)
        return told(self.book.submit(Order(order_id=name, sign=sign, lots=lots, **terms), self.now))

    def buy(self, lots: int, **terms: Any) -> None:
        assert self.send("1", 1, lots, **terms)[-1][1] == "accepted"

    def sell(self, lots: int, **terms: Any) -> None:
        assert self.send("1", -1, lots, **terms)[-1][1] == "accepted"

    def bar(self, open_: float, high: float, low: float, close: float, volume: float = 1e9) -> list[tuple[Any, ...]]:
        """The bar of the hour that starts now."""
        opened, self.now = self.now, self.now + HOUR
        return told(self.book.on_bar(open_, high, low, close, volume, opened, self.now))

    def trade(self, price: float, size: float = 1e9) -> list[tuple[Any, ...]]:
        self.now += SECOND
        return told(self.book.on_trade(price, size, self.now))

    def quote(self, bid: float, ask: float, bid_lots: float = 1e9, ask_lots: float = 1e9) -> list[tuple[Any, ...]]:
        self.now += SECOND
        return told(self.book.on_quote(bid, ask, bid_lots, ask_lots, self.now))

    def depth(self, bids: Any, asks: Any, snapshot: bool = True) -> list[tuple[Any, ...]]:
        self.now += SECOND
        arrays = [np.array(side, float).reshape(-1, 2) for side in (bids, asks)]
        return told(self.book.on_depth(*arrays, snapshot, self.now))


def on_bars(**model: Any) -> Market:
    return Market(bars=True, **model)


def told(reports: list[Report]) -> list[tuple[Any, ...]]:
    """(order, "filled", lots, price, how), (order, "accepted" or "reduced", lots left), or (order, what, code)."""
    lines: list[tuple[Any, ...]] = []
    for report in reports:
        execution = report.execution
        name = report.order.order_id
        if execution is not None:
            how = "maker" if execution.maker else "taker"
            lines.append((name, "filled", execution.lots, execution.ticks / 100.0, how))
        elif report.what in ("accepted", "reduced"):
            lines.append((name, report.what, report.lots))
        else:
            assert report.what == "triggered" or report.lots == 0
            lines.append((name, report.what, report.code))
    return lines


def fills(lines: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What of `lines` are fills: (order, lots, price, how)."""
    return [(line[0], *line[2:]) for line in lines if line[1] == "filled"]


def bracket(market: Market, low: float, high: float, **entry: Any) -> None:
    """Buy 10, with a stop at `low` and a target at `high`."""
    market.send("entry", 1, 10, **entry)
    market.send("stop", -1, 10, stop=low, parent="entry", group="exit")
    market.send("target", -1, 10, limit=high, parent="entry", group="exit")
