"""Signals that cheat, for the look-ahead check to find; and one that does not."""

from datetime import datetime
from typing import Any

import csp
import numpy as np
import pyarrow as pa
from csp import ts

from feeds.events import Bar
from feeds.files import Source, tables
from graphs.edges import Feeds
from nodes.events import Signal


@csp.node
def _looked_up(bar: ts[Bar], symbol: str, scores: dict[datetime, float]) -> ts[Signal]:
    with csp.state():
        s_last = None
    if csp.ticked(bar):
        score = scores.get(bar.event_time)
        if score is not None and score != s_last:
            s_last = score
            return Signal(symbol=symbol, source="leak", score=score, confidence=0.5, horizon_s=3600.0, asof=csp.now())


def _closes(sources: tuple[Source, ...]) -> tuple[list[datetime], np.ndarray]:
    times, closes = [], []
    for table in tables(sources[0]):
        times += [t.as_py().replace(tzinfo=None) for t in table["time"].cast(pa.timestamp("us", "UTC"))]
        closes.append(table["close"].to_numpy())
    return times, np.concatenate(closes)


def whole_series(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """Returns normalised by the mean and deviation of the whole file: the classic leak."""
    times, closes = _closes(feeds.sources)
    returns = np.diff(np.log(closes), prepend=np.log(closes[0]))
    scores = np.clip((returns - returns.mean()) / returns.std() / 4.0, -1.0, 1.0).round(3)
    return _looked_up(bar, symbol, dict(zip(times, scores.tolist(), strict=True)))


def shifted(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """The sign of the next bar's return: a feature shifted by -1."""
    times, closes = _closes(feeds.sources)
    following = np.sign(np.diff(closes))
    return _looked_up(bar, symbol, dict(zip(times[:-1], following.tolist(), strict=True)))


def honest(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """The sign of the last bar's return, from the same file."""
    times, closes = _closes(feeds.sources)
    return _looked_up(bar, symbol, dict(zip(times[1:], np.sign(np.diff(closes)).tolist(), strict=True)))


def brought_in(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """An opinion of its own from outside, through the graph's edge: from 1 August 2017 on."""
    when = datetime(2017, 8, 1)
    told = Signal(symbol=symbol, source="outside", score=1.0, confidence=1.0, horizon_s=1e9, asof=when)
    return feeds.inputs.edge("outside", Signal, lambda: csp.curve(Signal, [(when, told)]))
