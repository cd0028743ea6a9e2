"""Trades to VWAP and bars.

Every node here takes two bare edges, `price` and `size`, that tick together: Parquet columns as they are, or
`trade.price` and `trade.size` of a `Trade` stream. A trade costs O(1), and nothing is kept but what the window needs.
Rows that share a timestamp arrive one a cycle; a window's end is an alarm of the engine, which runs in nanoseconds
where `csp.now()` shows microseconds.
"""

from datetime import datetime, timedelta
from itertools import accumulate

import csp
from csp import ts

from feeds.events import Bar
from nodes.events import TradeWindow

_EPOCH = datetime(1970, 1, 1)
_ONE_SECOND = timedelta(seconds=1)
_LARGEST = 1e100  # prices and sizes below it cannot overflow a sum of their products
_NEVER_NS = 2**63  # past every engine time


def _bad_trade(of: str, price: float, size: float | None, when: datetime) -> ValueError:
    if size is None:
        return ValueError(f"price and size{of} must tick together, price {price} came alone at {when}")
    wanted = f"a trade{of} wants 0 < price < {_LARGEST:g} and 0 <= size < {_LARGEST:g}"
    return ValueError(f"{wanted}, was price {price}, size {size} at {when}")


@csp.node
def _trailing_vwap(price: ts[float], size: ts[float], time_ns: ts[int], window_ns: int) -> ts[float]:
    """The queue of two stacks: every sum only ever grows, so nothing is subtracted and nothing drifts.

    `s_old_*` hold the older trades, newest first, as running totals: popping the oldest trade uncovers the total of
    the rest. New trades go to `s_new_*`, whose total is kept beside them. When the old ones have all left, the new
    ones take their place, so each trade is summed twice in its life. Entry 0 of `s_old_*` stands for "none left".
    """
    with csp.state():
        s_old_ns = [_NEVER_NS]
        s_old_notional = [0.0]
        s_old_volume = [0.0]
        s_top = 0  # index of the oldest trade in s_old_*
        s_new_ns = []
        s_new_notional = []
        s_new_volume = []
        s_notional = 0.0  # of the new
        s_volume = 0.0
        s_expiry_ns = 0  # when the oldest trade leaves

    with csp.start():
        csp.make_passive(size)
        csp.make_passive(time_ns)

    if csp.ticked(price):
        if not (csp.ticked(size) and 0.0 < price < _LARGEST and 0.0 <= size < _LARGEST):
            raise _bad_trade("", price, size if csp.ticked(size) else None, csp.now())
        notional = price * size
        s_new_ns.append(time_ns)
        s_new_notional.append(notional)
        s_new_volume.append(size)
        s_notional += notional
        s_volume += size
        if time_ns >= s_expiry_ns:
            horizon_ns = time_ns - window_ns
            while s_old_ns[s_top] <= horizon_ns:
                s_top -= 1
            if s_top == 0:
                s_old_ns = [_NEVER_NS, *reversed(s_new_ns)]
                s_old_notional = list(accumulate(reversed(s_new_notional), initial=0.0))
                s_old_volume = list(accumulate(reversed(s_new_volume), initial=0.0))
                s_top = len(s_new_ns)
                while s_old_ns[s_top] <= horizon_ns:
                    s_top -= 1
                s_new_ns = []
                s_new_notional = []
                s_new_volume = []
                s_notional = 0.0
                s_volume = 0.0
            s_expiry_ns = s_old_ns[s_top] + window_ns
        volume = s_volume + s_old_volume[s_top]
        if volume > 0.0:
            return (s_notional + s_old_notional[s_top]) / volume


@csp.graph
def vwap(price: ts[float], size: ts[float], window: timedelta) -> ts[float]:
    """Volume-weighted average price of the trades in (now - window, now], in exact nanoseconds.

    Args:
        price: trade price, quote currency, positive.
        size: trade size, not negative; ticks with `price`.
        window: length of the trailing window.

    Ticks:
        On every trade, unless all sizes in the window are 0: then there is no average and no tick. A trade that
        leaves the window makes no tick by itself. Relative error stays below (trades in window) * 2.3e-16 however
        long the run and whatever has left the window; memory is that of the trades in up to two windows.

    Raises:
        ValueError: `window` is not positive, a price or size is not possible, or `price` ticks without `size`.

    Source: Berkowitz, Logue & Noser, "The total cost of transactions on the NYSE", Journal of Finance 43(1), 1988;
        two-stack queue: Tangwongsan et al., "General incremental sliding-window aggregation", VLDB 2015.
    """
    # csp.stats sums by adding and subtracting: 1e-6 trades after one of 1e9 came out 19 % off, 2 % with precise=True.
    if window <= timedelta(0):
        raise ValueError(f"window must be positive, was {window}")
    window_ns = window // timedelta(microseconds=1) * 1000
    return _trailing_vwap(price, size, csp.times_ns(price), window_ns)


@csp.node
def bar_aggregator(price: ts[float], size: ts[float], symbol: str, period: timedelta) -> ts[Bar]:
    """Trades to bars of one period, aligned to its multiples since 1970-01-01 00:00 UTC.

    Args:
        price: trade price, quote currency, positive.
        size: trade size, base units or contracts, not negative; ticks with `price`.
        period: length of a bar, whole microseconds.

    Ticks:
        Exactly at the end of an interval in which there was a trade: `open_time` is its start, `event_time` its end.
        The interval is [start, end): a trade at `end` opens the next bar, one nanosecond earlier it closes this one.
        The last bar of a run is lost where the run ends inside it; the first has only the trades since the start.

    Raises:
        ValueError: `period` is not positive, a price or size is not possible, or `price` ticks without `size`.
    """
    with csp.alarms():
        a_end = csp.alarm(datetime)

    with csp.state():
        s_open = 0.0  # 0.0: no trade in this interval
        s_high = 0.0
        s_low = 0.0
        s_close = 0.0
        s_volume = 0.0

    with csp.start():
        csp.make_passive(size)
        if period <= timedelta(0):
            raise ValueError(f"period of the bars of {symbol} must be positive, was {period}")

    if csp.ticked(a_end):  # first: a trade that ticks in this cycle is the next bar's
        csp.output(
            Bar(
                symbol=symbol,
                event_time=a_end,
                open_time=a_end - period,
                open=s_open,
                high=s_high,
                low=s_low,
                close=s_close,
                volume=s_volume,
            )
        )
        s_open = 0.0

    if csp.ticked(price):
        if not (csp.ticked(size) and 0.0 < price < _LARGEST and 0.0 <= size < _LARGEST):
            raise _bad_trade(f" of {symbol}", price, size if csp.ticked(size) else None, csp.now())
        if s_open == 0.0:
            # Truncation to microseconds cannot move a trade over a boundary: boundaries are whole microseconds.
            end = csp.now() + (period - (csp.now() - _EPOCH) % period)
            csp.schedule_alarm(a_end, end, end)
            s_open = price
            s_high = price
            s_low = price
            s_volume = size
        else:
            if price > s_high:
                s_high = price
            elif price < s_low:
                s_low = price
            s_volume += size
        s_close = price


@csp.node
def one_second_aggregator(price: ts[float], size: ts[float]) -> ts[TradeWindow]:
    """VWAP, volume, count, high and low of one second of trades; its first trade starts the second.

    Args:
        price: trade price, quote currency, positive.
        size: trade size, not negative; ticks with `price`.

    Ticks:
        Exactly one second after the first trade of a window; a trade at that instant starts the next one. `start` is
        cut to microseconds. Where all sizes are 0, `vwap` is the middle of high and low. The last window of a run is
        lost where the run ends inside it.

    Raises:
        ValueError: a price or size is not possible, or `price` ticks without `size`.
    """
    with csp.alarms():
        a_end = csp.alarm(datetime)

    with csp.state():
        s_count = 0
        s_notional = 0.0
        s_volume = 0.0
        s_high = 0.0
        s_low = 0.0

    with csp.start():
        csp.make_passive(size)

    if csp.ticked(a_end):  # first: a trade that ticks in this cycle is the next window's
        mean = s_notional / s_volume if s_volume > 0.0 else (s_high + s_low) / 2.0
        csp.output(
            TradeWindow(
                start=a_end,
                vwap=min(max(mean, s_low), s_high),  # rounding may put it an ulp outside
                volume=s_volume,
                count=s_count,
                high=s_high,
                low=s_low,
            )
        )
        s_count = 0

    if csp.ticked(price):
        if not (csp.ticked(size) and 0.0 < price < _LARGEST and 0.0 <= size < _LARGEST):
            raise _bad_trade("", price, size if csp.ticked(size) else None, csp.now())
        if s_count == 0:
            csp.schedule_alarm(a_end, _ONE_SECOND, csp.now())
            s_high = price
            s_low = price
            s_notional = 0.0
            s_volume = 0.0
        elif price > s_high:
            s_high = price
        elif price < s_low:
            s_low = price
        s_count += 1
        s_notional += price * size
        s_volume += size
