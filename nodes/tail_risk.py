"""Limits on what could be lost: concentration, value at risk and expected shortfall. Off is infinity."""

import math
import operator
from collections import deque
from collections.abc import Sequence
from functools import reduce

import csp
import numpy as np
import numpy.typing as npt
from csp import ts

from feeds.streams import SETTLE
from nodes.events import RiskAction, RiskActionKind

Array = npt.NDArray[np.float64]

_REDUCE = RiskActionKind.REDUCE_POSITIONS
_WORSE = 1.05
_TAIL = 0.05  # the worst twentieth
_NORMAL_QUANTILE = 1.6448536269514722  # of a standard normal variable at 95 %
_DECAY = 0.94  # of the weight of a squared return from step to step; RiskMetrics, for daily returns
_HAIR = 1.0 + 1e-12
_RETURNS_MIN = 20  # 5 % of fewer is no tail


def value_at_risk(profits: Array) -> float:
    """The loss that is exceeded in 5 % of `profits`, (n,) in any order; at least 0.

    Source: historical simulation, Jorion, "Value at Risk", 3rd ed. 2007, ch. 10; the quantile is that of np.quantile.
    """
    rank = _TAIL * (len(profits) - 1)
    below = int(rank)
    # A tenth of the cost of np.quantile on 500 numbers.
    low, high = np.partition(profits, (below, below + 1))[below : below + 2].tolist()
    return max(0.0, -(low + (high - low) * (rank - below)))


def expected_shortfall(profits: Array) -> float:
    """The mean loss in the worst 5 % of `profits`, (n,) in any order; at least 0.

    Where 5 % of n is no whole number, the last of them counts by the part that is left.

    Source: Acerbi & Tasche, "On the coherence of expected shortfall", Journal of Banking & Finance 26(7), 2002, eq. 4.
    """
    tail = _TAIL * len(profits)
    whole = int(tail + 1e-9)
    worst = np.partition(profits, whole)
    return max(0.0, -(float(worst[:whole].sum()) + (tail - whole) * float(worst[whole])) / tail)


def ewma_value_at_risk(profits: Array) -> float:
    """The 95 % value at risk of normal returns of mean 0, whose variance forgets exponentially.

    Args:
        profits: (n,), the oldest first: what each step would have brought on the positions held now. Weighing their
            squares is the same as weighing the covariances of the returns: p = R v, so v' (sum w r r') v = sum w p².

    Source: J.P. Morgan/Reuters, "RiskMetrics Technical Document", 4th ed. 1996, sections 5.2 and 6.3; decay 0.94.
    """
    weights = _DECAY ** np.arange(len(profits) - 1, -1, -1)  # (n,)
    return _NORMAL_QUANTILE * math.sqrt(float(weights @ (profits * profits)) / float(weights.sum()))


def profits_of(prices: Sequence[Array], held: Sequence[float]) -> Array | None:
    """What each step would have brought on positions worth `held`, (n,), the oldest first; None before 20 steps.

    Args:
        prices: (n + 1,) a symbol, NaN before it had one.
    """
    steps = len(prices[0]) - 1
    if steps < _RETURNS_MIN:
        return None
    profits = np.zeros(steps)
    for series, value in zip(prices, held, strict=True):
        if value:
            profits += np.nan_to_num(series[1:] / series[:-1] - 1.0) * value  # without two prices it did not move
    return profits


@csp.node
def largest_return(price: ts[float], window: int) -> ts[float]:
    """The size of the largest return of the last `window` steps of a price, NaN where there is none yet.

    Ticks:
        When it changes.
    """
    with csp.state():
        s_returns = deque[float](maxlen=window)
        s_largest = 0.0
        s_leaves = 0  # the step at which it is out of the window
        s_steps = 0
        s_last = math.nan

    change = price / s_last - 1.0
    s_last = price
    if -s_largest < change < s_largest and s_steps < s_leaves:  # nearly every step
        s_returns.append(change)
        s_steps += 1
    else:
        told = s_largest
        size = abs(change) if change == change else 0.0  # NaN: without two prices it did not move
        s_returns.append(size)
        if size >= s_largest:
            s_largest, s_leaves = size, s_steps + window
        elif s_steps >= s_leaves:
            sizes = list(map(abs, reversed(s_returns)))
            s_largest = max(sizes)
            s_leaves = s_steps + window - sizes.index(s_largest)
        s_steps += 1
        if s_largest != told:
            return s_largest


@csp.node
def settled(prices: dict[str, ts[float]]) -> ts[bool]:
    """Tick a microsecond after the first price of an instant: by then all of them are in."""
    with csp.alarms():
        a_settled = csp.alarm(bool)
    with csp.state():
        s_armed = False

    if csp.ticked(a_settled):
        s_armed = False
        return True
    if not s_armed:
        s_armed = True
        csp.schedule_alarm(a_settled, SETTLE, True)


@csp.node
def _tails(
    step: ts[float],
    possible: ts[bool],
    equity: ts[float],
    prices: dict[str, ts[float]],
    values: dict[str, ts[float]],
    window: int,
    concentration_max: float,
    var_max: float,
    var_ewma_max: float,
    es_max: float,
) -> ts[RiskAction]:
    """The exact figures, asked for only where a limit can have been passed."""
    with csp.state():
        s_acted = dict[str, float]()  # the value last acted on, by code; none inside the limit
    with csp.start():
        csp.make_passive(equity)
        csp.make_passive(prices)
        csp.make_passive(values)
        csp.set_buffering_policy(prices, tick_count=window + 1)

    if not possible:
        s_acted.clear()
    elif csp.ticked(step) and equity > 0.0:
        held = [values[symbol] for symbol in values.keys()]  # noqa: SIM118 - a basket, not a dict
        found = []  # (value, limit, code)
        if concentration_max < math.inf:
            found.append((max(map(abs, held)) / equity, concentration_max, "concentration"))
        profits = profits_of([csp.values_at(prices[symbol], None, 0) for symbol in values.keys()], held)  # noqa: SIM118
        if profits is not None:
            if var_max < math.inf:
                found.append((value_at_risk(profits) / equity, var_max, "value_at_risk"))
            if var_ewma_max < math.inf:
                found.append((ewma_value_at_risk(profits) / equity, var_ewma_max, "ewma_value_at_risk"))
            if es_max < math.inf:
                found.append((expected_shortfall(profits) / equity, es_max, "expected_shortfall"))
        worst, code, value, limit = 1.0, "", 0.0, 0.0
        for each, most, name in found:
            if each <= most:
                s_acted.pop(name, None)
            elif each / most > worst:
                worst, code, value, limit = each / most, name, each, most
        if code and value > s_acted.get(code, 0.0) * _WORSE:
            s_acted[code] = value
            return RiskAction(kind=_REDUCE, code=code, value=value, limit=limit)


def tail_limits(
    equity: ts[float],
    prices: dict[str, ts[float]],
    values: dict[str, ts[float]],
    window: int,
    concentration_max: float,
    var_max: float,
    var_ewma_max: float,
    es_max: float,
) -> ts[RiskAction]:
    """Concentration, value at risk and expected shortfall, with each price.

    A step is a price where there is one symbol. Where there are several, whose prices come in separate cycles, it is an
    instant with prices, looked at a microsecond later. Nothing is computed exactly while it cannot matter: no tail is
    further out than the largest loss of the window, times the quantile for the normal one.

    Args:
        equity: account value, its currency.
        prices: what a unit is worth by symbol, currency of the account.
        values: signed position value by symbol, currency of the account; from the start on, 0.0 where nothing is held.
        window: steps of history.
        concentration_max: the largest |position|, of equity.
        var_max: 95 % historical value at risk of one step, of equity.
        var_ewma_max: 95 % RiskMetrics value at risk of one step, of equity.
        es_max: 95 % expected shortfall of one step, of equity.

    Ticks:
        REDUCE_POSITIONS when a limit is passed, the one that is passed by the largest factor, and again each time its
        value has grown by a twentieth since. Nothing while equity is not positive.
    """
    steps: dict[str, ts[float]] = prices
    if len(prices) > 1:
        pulse = settled(prices)
        steps = {symbol: csp.sample(pulse, csp.default(price, math.nan)) for symbol, price in prices.items()}
    sizes = {symbol: csp.abs(value) for symbol, value in values.items()}
    # What equity must at least be for no limit to be passed, a hair above: rounding must not hide a breach.
    enough = []
    least = min(var_max, var_ewma_max / _NORMAL_QUANTILE, es_max)
    if concentration_max < math.inf:
        enough.append(reduce(csp.max, sizes.values()) * (_HAIR / concentration_max))
    if least < math.inf:
        lost = [
            sizes[symbol] * (csp.default(largest_return(price, window), 0.0) * (_HAIR / least))
            for symbol, price in steps.items()
        ]
        enough.append(reduce(operator.add, lost))
    possible = reduce(csp.max, enough) > equity
    step = csp.filter(possible, next(iter(steps.values())))
    return _tails(
        step,
        csp.drop_dups(possible),
        equity,
        steps,
        values,
        window,
        concentration_max,
        var_max,
        var_ewma_max,
        es_max,
    )
