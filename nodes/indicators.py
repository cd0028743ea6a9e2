"""The indicators of technical analysis, each a stream of floats.

Inputs tick together, once a bar, and hold finite values of magnitude below 1e100; anything else raises, because most
of these formulas would carry it along for ever. Results depend on the bars so far and on nothing else, and stay as
exact after ten million bars as after ten: where a sum slides, nothing is ever subtracted from it.
"""

import math
from datetime import datetime
from itertools import accumulate

import csp
from csp import ts

from nodes.rolling import RollingMoments

_LARGEST = 1e100  # values below it cannot overflow a sum or a square


def _check_length(name: str, bars: int, least: int = 1) -> None:
    if bars < least:
        raise ValueError(f"bars of {name} must be at least {least}, was {bars}")


def _bad_value(name: str, value: object, when: datetime) -> ValueError:
    return ValueError(f"{name} wants finite values below {_LARGEST:g} in magnitude, was {value} at {when}")


@csp.node
def _finite(x: ts[float], name: str) -> ts[float]:
    """`x` as it is; csp.stats would take NaN for a gap, and keep an infinity for ever."""
    if csp.ticked(x):
        if not -_LARGEST < x < _LARGEST:
            raise _bad_value(name, x, csp.now())
        return x


@csp.node
def _positive(x: ts[float], name: str) -> ts[float]:
    """`x` as it is, where a ratio needs it positive."""
    if csp.ticked(x):
        if not 0.0 < x < _LARGEST:
            raise ValueError(f"{name} wants positive values below {_LARGEST:g}, was {x} at {csp.now()}")
        return x


@csp.node
def sma(x: ts[float], bars: int) -> ts[float]:
    """Simple moving average: the mean of the last `bars` values.

    Ticks:
        From the `bars`-th value on. The rounding is that of adding up the window, whatever has left it: csp.stats.mean
        takes half the time, but one outlier of 1e15 left it 6e-5 off for ever.

    Raises:
        ValueError: `bars` < 1, or a value is not finite.

    Source: two-stack queue, Tangwongsan et al., "General incremental sliding-window aggregation", VLDB 2015, here with
        blocks of `bars` values: the newest of one block plus all of the next one so far.
    """
    with csp.state():
        s_tail = [0.0] + [math.nan] * bars  # s_tail[k]: sum of the newest k values of the last whole block
        s_block = []  # the block in progress
        s_sum = 0.0  # of it
        s_left = bars  # values until it is whole

    with csp.start():
        _check_length("sma", bars)

    if csp.ticked(x):
        if not -_LARGEST < x < _LARGEST:
            raise _bad_value("sma", x, csp.now())
        s_block.append(x)
        s_sum += x
        s_left -= 1
        total = s_sum + s_tail[s_left]
        if s_left == 0:
            s_tail = list(accumulate(reversed(s_block), initial=0.0))
            s_block = []
            s_sum = 0.0
            s_left = bars
        if total == total:  # NaN until the first block is whole
            return total / bars


@csp.graph
def ema(x: ts[float], bars: int) -> ts[float]:
    """Exponential moving average: y += (x - y) * 2 / (bars + 1), starting at the first value.

    Ticks:
        From the `bars`-th value on, when the first one weighs (1 - 2 / (bars + 1))**(bars - 1): 16 % of 10, 14 % of 50.

    Raises:
        ValueError: `bars` < 1, or a value is not finite.

    Source: Roberts, "Control chart tests based on geometric moving averages", Technometrics 1(3), 1959.
    """
    _check_length("ema", bars)
    return csp.stats.ema(_finite(x, "ema"), bars, span=float(bars), adjust=False)


@csp.node
def rsi(x: ts[float], bars: int) -> ts[float]:
    """Relative strength index, 0 to 100: 100 * gain / (gain + loss), of Wilder's averages of the changes.

    The averages start as means of the first `bars` changes; then average += (change - average) / bars.

    Ticks:
        From value `bars` + 1 on. 50 where neither a gain nor a loss is left.

    Raises:
        ValueError: `bars` < 1, or a value is not finite.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978, section VI.
    """
    with csp.state():
        s_last = 0.0
        s_bars = 0  # so far, counted to bars + 1
        s_gain = 0.0  # a sum until the start, the average from then on
        s_loss = 0.0

    with csp.start():
        _check_length("rsi", bars)

    if csp.ticked(x):
        if not -_LARGEST < x < _LARGEST:
            raise _bad_value("rsi", x, csp.now())
        change = x - s_last if s_bars else 0.0
        s_last = x
        gain = change if change > 0.0 else 0.0
        loss = -change if change < 0.0 else 0.0
        if s_bars <= bars:
            s_gain += gain
            s_loss += loss
            if s_bars == bars:
                s_gain /= bars
                s_loss /= bars
            s_bars += 1
        else:
            s_gain += (gain - s_gain) / bars
            s_loss += (loss - s_loss) / bars
        if s_bars > bars:
            both = s_gain + s_loss
            return 100.0 * (s_gain / both) if both > 0.0 else 50.0


@csp.node
def bollinger(x: ts[float], bars: int) -> ts[float]:
    """Distance from the mean of the last `bars` values, in their population standard deviations.

    The band of Bollinger's k deviations is touched where this is -k or k; its size never exceeds sqrt(bars - 1).

    Ticks:
        From the `bars`-th value on. 0 where all values in the window are equal.

    Raises:
        ValueError: `bars` < 2, or a value is not finite.

    Source: Bollinger, "Bollinger on Bollinger Bands", 2001.
    """
    with csp.state():
        s_window = None
        s_population = 0.0  # factor from the sample's deviation

    with csp.start():
        _check_length("bollinger", bars, 2)
        s_window = RollingMoments(bars)
        s_population = math.sqrt((bars - 1) / bars)

    if csp.ticked(x):
        if not -_LARGEST < x < _LARGEST:
            raise _bad_value("bollinger", x, csp.now())
        s_window.push(x)
        if s_window.full:
            deviation = s_window.deviation * s_population
            return (x - s_window.mean) / deviation if deviation > 0.0 else 0.0


@csp.node
def atr(high: ts[float], low: ts[float], close: ts[float], bars: int) -> ts[float]:
    """Average true range, by Wilder's average: how far a bar ranges, gaps included.

    True range = max(high, last close) - min(low, last close); the first bar has none. The average starts as the mean
    of the first `bars` true ranges; then average += (range - average) / bars.

    Ticks:
        From bar `bars` + 1 on.

    Raises:
        ValueError: `bars` < 1, a value is not finite, or `high` is below `low`.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978, section III.
    """
    with csp.state():
        s_close = 0.0
        s_bars = 0  # so far, counted to bars + 1
        s_average = 0.0  # a sum until the start

    with csp.start():
        _check_length("atr", bars)
        csp.make_passive(high)
        csp.make_passive(low)

    if csp.ticked(close):
        if not (-_LARGEST < low <= high < _LARGEST and -_LARGEST < close < _LARGEST):
            raise _bad_value("atr, with low <= high,", f"high {high}, low {low}, close {close}", csp.now())
        true_range = max(high, s_close) - min(low, s_close) if s_bars else 0.0
        s_close = close
        if s_bars <= bars:
            s_average += true_range
            if s_bars == bars:
                s_average /= bars
            s_bars += 1
        else:
            s_average += (true_range - s_average) / bars
        if s_bars > bars:
            return s_average


@csp.graph
def momentum(x: ts[float], bars: int) -> ts[float]:
    """Return over `bars` bars, a fraction: x / (x of `bars` bars ago) - 1.

    Ticks:
        From value `bars` + 1 on.

    Raises:
        ValueError: `bars` < 1, or a value is not positive and finite.

    Source: Jegadeesh & Titman, "Returns to buying winners and selling losers", Journal of Finance 48(1), 1993.
    """
    _check_length("momentum", bars)
    price = _positive(x, "momentum")
    return price / csp.delay(price, bars) - 1.0


@csp.graph
def donchian(high: ts[float], low: ts[float], bars: int) -> csp.Outputs(upper=ts[float], lower=ts[float]):
    """Channel of the `bars` bars before this one: their highest high and lowest low. This bar is not in it.

    Ticks:
        From bar `bars` + 1 on.

    Raises:
        ValueError: `bars` < 1, or a value is not finite.

    Source: Donchian's four-week rule, in Kaufman, "Trading Systems and Methods", 5th ed., 2013.
    """
    _check_length("donchian", bars)
    return csp.output(
        upper=csp.delay(csp.stats.max(_finite(high, "donchian"), bars), 1),
        lower=csp.delay(csp.stats.min(_finite(low, "donchian"), bars), 1),
    )
