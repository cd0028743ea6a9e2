"""Buy and hold: the plain alternative that a strategy has to beat."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evaluation.run import Floats, Ints, Market, RunRecord


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """The account of somebody who bought at the start and went away."""

    times: Ints  # (P,) ns
    equity: Floats  # (P,)
    fees: float
    quantities: tuple[float, ...]  # a market each; 0.0 where its share of the cash does not buy one lot


def buy_and_hold(record: RunRecord) -> Hold:
    """Split the cash equally over the markets and buy each at its first price, paying slippage, a whole tick, and fee.

    Money is in the currency of the account: foreign prices are converted at the last rate, throughout.

    A market is bought at its own first time; until then, and where the money does not buy a lot, its share stays cash.
    Nothing is borrowed: a futures contract is bought for its full notional. Splits multiply what is held, dividends are
    kept as cash.
    """
    times = np.unique(np.concatenate([market.times for market in record.markets]))  # (P,)
    budget = record.initial_cash / len(record.markets)
    equity = np.full(times.size, record.initial_cash)  # (P,)
    fees = 0.0
    quantities = []
    for market in record.markets:
        quantity, notional, fee = _purchase(market, budget / market.rate)
        seen = np.searchsorted(market.times, times, side="right")  # (P,) prices known so far
        closes = market.closes.copy()
        closes[-1] = market.last_price
        held = quantity * market.units(times) / market.units(market.times[:1])  # (P,) from the purchase on
        value = held * market.multiplier * closes[np.maximum(seen, 1) - 1] + _dividends(market, quantity, times)  # (P,)
        equity += np.where(seen > 0, value - notional - fee, 0.0) * market.rate
        fees += fee * market.rate
        quantities.append(quantity)
    return Hold(times, equity, fees, tuple(quantities))


def _dividends(market: Market, quantity: float, times: Ints) -> Floats:
    """What the dividends since the purchase had paid before each of `times`, quote currency. (P,)"""
    due = [(time, amount) for time, amount in market.dividends if time >= market.times[0]]
    when = np.array([time for time, _ in due], dtype=np.int64)  # (D,)
    held = quantity * market.units(when) / market.units(market.times[:1])  # (D,)
    paid = np.concatenate([[0.0], np.cumsum(held * [amount for _, amount in due])])  # (D + 1,)
    received: Floats = paid[np.searchsorted(when, times, side="left")]
    return received


def _purchase(market: Market, budget: float) -> tuple[float, float, float]:
    """Quantity, notional and fee of the largest purchase in whole lots that the budget pays for. Quote currency."""
    price = _steps(market.first_price + market.slippage, market.tick, math.ceil) * market.tick
    unit = price * market.multiplier  # quote currency for one unit
    rate = market.taker_bps / 1e4
    lots = _steps(budget / (unit * (1.0 + rate)), market.lot, math.floor)
    quantity = lots * market.lot
    return quantity, quantity * unit, quantity * unit * rate


def _steps(value: float, step: float, rounded: Callable[[float], int]) -> int:
    """How many steps a value has. 0.3 / 0.1 is 2.9999999999999996, and means three whichever way it is rounded."""
    ratio = value / step
    whole = round(ratio)
    return whole if math.isclose(ratio, whole, rel_tol=1e-12) else rounded(ratio)
