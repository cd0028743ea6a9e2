"""Limits on what could be lost: concentration, value at risk and expected shortfall. Off is infinity."""

import math
from array import array
from datetime import timedelta

import csp
import numpy as np
import numpy.typing as npt
from csp import ts

from feeds.streams import SETTLE
from nodes.events import RiskAction, RiskActionKind

Array = npt.NDArray[np.float64]

_REDUCE = RiskActionKind.REDUCE_POSITIONS
_SLOW_CHECK = timedelta(milliseconds=100)
_WORSE = 1.05
_TAIL = 0.05  # the worst twentieth
_NORMAL_QUANTILE = 1.6448536269514722  # of a standard normal variable at 95 %
_DECAY = 0.94  # of the weight of a squared return from step to step; RiskMetrics, for daily returns
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


class ReturnHistory:
    """The last returns of several symbols, a row an observation, and the largest of each in size."""

    __slots__ = ("_largest", "_largest_at", "_last", "_rows", "_window", "_written")

    def __init__(self, symbols: list[str], window: int) -> None:
        self._rows = [array("d", bytes(8 * window)) for _ in symbols]  # a ring a symbol, (window,)
        self._last = [math.nan] * len(symbols)
        self._largest = [0.0] * len(symbols)  # |return| in the window
        self._largest_at = [0] * len(symbols)  # when it was written
        self._window = window
        self._written = -1  # returns; the first prices make none

    def add(self, prices: list[float]) -> None:
        """Take the latest price of each symbol, NaN where there is none yet."""
        at = self._written
        self._written = at + 1
        if at < 0:
            self._last = prices
            return
        last, slot = self._last, at % self._window
        for i, row in enumerate(self._rows):
            moved = prices[i] / last[i] - 1.0
            if moved != moved:  # a symbol without two prices yet did not move
                moved = 0.0
            row[slot] = moved
            size = abs(moved)
            if size >= self._largest[i]:
                self._largest[i], self._largest_at[i] = size, at
            elif at - self._largest_at[i] >= self._window:  # the largest has just left
                sizes = np.abs(np.frombuffer(row))
                newest_first = np.roll(sizes[::-1], slot + 1)
                age = int(newest_first.argmax())
                self._largest[i], self._largest_at[i] = float(newest_first[age]), at - age
        self._last = prices

    def most(self, values: list[float]) -> float:
        """What positions worth `values` cannot have lost more than in any step of the window."""
        return sum(abs(value) * largest for value, largest in zip(values, self._largest, strict=True))

    def profits(self, values: list[float]) -> Array | None:
        """What each step would have brought on positions worth `values`, (n,), in the order of the memory; None before
        20 steps."""
        count = min(self._written, self._window)
        if count < _RETURNS_MIN:
            return None
        profits = np.zeros(count)
        for row, value in zip(self._rows, values, strict=True):
            if value:
                profits += np.frombuffer(row, count=count) * value
        return profits

    def in_time(self, profits: Array) -> Array:
        """What `profits` gave, the oldest first."""
        oldest = self._written % self._window if self._written > self._window else 0
        return np.concatenate((profits[oldest:], profits[:oldest]))


@csp.node
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
    """Concentration, value at risk and expected shortfall, at most every 100 ms.

    A price is looked at in its own cycle, or a microsecond later where there are several symbols, whose prices come in
    separate cycles; one that comes within 100 ms of the last look waits for their end.

    Args:
        equity: account value, its currency; passive.
        prices: what a unit is worth by symbol, currency of the account.
        values: signed position value by symbol, currency of the account; passive.
        window: steps of history.
        concentration_max: the largest |position|, of equity.
        var_max: 95 % historical value at risk of one step, of equity.
        var_ewma_max: 95 % RiskMetrics value at risk of one step, of equity.
        es_max: 95 % expected shortfall of one step, of equity.

    Ticks:
        REDUCE_POSITIONS when a limit is passed, the one that is passed by the largest factor, and again each time its
        value has grown by a twentieth since.
    """
    with csp.alarms():
        a_check = csp.alarm(bool)
    with csp.state():
        s_symbols = list(prices.keys())
        s_history = ReturnHistory(s_symbols, window)
        s_alone = len(s_symbols) == 1
        # No tail is further out than the largest loss in the window, times the quantile for the normal one.
        s_least = min(var_max, var_ewma_max / _NORMAL_QUANTILE, es_max)
        s_next = csp.now()  # no look before
        s_armed = False
        s_acted = dict[str, float]()  # the value last acted on, by code; none inside the limit
    with csp.start():
        csp.make_passive(equity)
        csp.make_passive(values)

    if csp.ticked(a_check) or (s_alone and not s_armed and csp.now() >= s_next):
        s_armed = False
        s_next = csp.now() + _SLOW_CHECK
        if s_least < math.inf:
            s_history.add([prices[s] if csp.valid(prices[s]) else math.nan for s in s_symbols])
        held = [values[s] if csp.valid(values[s]) else 0.0 for s in s_symbols]
        worth = equity if csp.valid(equity) else 0.0
        if worth > 0.0 and (max(map(abs, held)) > concentration_max * worth or s_history.most(held) > s_least * worth):
            found = []  # (value, limit, code)
            if concentration_max < math.inf:
                found.append((max(map(abs, held)) / worth, concentration_max, "concentration"))
            profits = s_history.profits(held) if s_least < math.inf else None
            if profits is not None:
                if var_max < math.inf:
                    found.append((value_at_risk(profits) / worth, var_max, "value_at_risk"))
                if var_ewma_max < math.inf:
                    at_risk = ewma_value_at_risk(s_history.in_time(profits))
                    found.append((at_risk / worth, var_ewma_max, "ewma_value_at_risk"))
                if es_max < math.inf:
                    found.append((expected_shortfall(profits) / worth, es_max, "expected_shortfall"))
            worst, code, value, limit = 1.0, "", 0.0, 0.0
            for each, most, name in found:
                if each <= most:
                    s_acted.pop(name, None)
                elif each / most > worst:
                    worst, code, value, limit = each / most, name, each, most
            if code and value > s_acted.get(code, 0.0) * _WORSE:
                s_acted[code] = value
                csp.output(RiskAction(kind=_REDUCE, code=code, value=value, limit=limit))
        elif s_acted:
            s_acted.clear()
    elif not s_armed:
        s_armed = True
        csp.schedule_alarm(a_check, max(SETTLE, s_next - csp.now()), True)
