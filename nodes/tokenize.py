"""Bars to tokens: the alphabet that the price model reads."""

from datetime import datetime, timedelta

import csp
import numpy as np
from csp import ts

from feeds.events import Bar
from nodes.events import NodeError, TokenFrame
from nodes.guard import error_text
from tokenizer.bars import next_closes
from tokenizer.codec import NO_TOKEN, Codec

_HALF = 0.5  # of a bar: a close may be so early or late and still be the one that was due


@csp.node
def tokenize(
    bar: ts[Bar], symbol: str, codecs: tuple[Codec, ...], length: timedelta, calendar: str, missing_max: int
) -> csp.Outputs(frame=ts[TokenFrame], error=ts[NodeError]):
    """The tokens of each bar, from this bar and those before it.

    Args:
        bar: of one symbol.
        codecs: fitted, at least one; all measure returns by the same scale. They are shared, and never changed.
        length: of a bar.
        calendar: when bars are due: a name of pandas_market_calendars, or "24/7".
        missing_max: missing bars are counted up to one more.

    Ticks:
        frame: with every bar after the warm-up of all codecs.
        error: in its place, where the bar cannot have happened; the next one follows the last that could.
    """
    with csp.state():
        s_streams = [codec.stream() for codec in codecs]
        s_closed: datetime | None = None  # event time of the last bar
        s_seconds = length.total_seconds()

    if csp.ticked(bar):
        closed = bar.event_time
        try:
            tokens = [stream.push(bar.open, bar.high, bar.low, bar.close, bar.volume) for stream in s_streams]
        except ValueError as exc:
            csp.output(error=NodeError(node="tokenize", symbol=symbol, error=error_text(exc)))
        else:
            missing = 0
            if s_closed is not None and closed - s_closed > length:
                before, now = (int(np.datetime64(t, "ns").astype(np.int64)) for t in (s_closed, closed))
                due = next_closes(before, s_seconds, calendar, missing_max + 1)
                missing = int(np.searchsorted(due, now - round(_HALF * s_seconds * 1e9)))
            s_closed = closed
            if NO_TOKEN not in tokens:
                csp.output(
                    frame=TokenFrame(
                        symbol=symbol,
                        asof=csp.now(),
                        tokens=tokens,
                        hour=closed.weekday() * 24 + closed.hour,
                        scale=s_streams[0].scale,
                        missing=missing,
                    )
                )
