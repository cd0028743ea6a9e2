"""Bars for the tests of the tokenizer: random walks with clustered volatility, and series written by hand."""

from collections.abc import Sequence

import numpy as np

from tokenizer.bars import BarSeries

HOUR_NS = 3_600 * 10**9
MONDAY_NS = 1_704_067_200 * 10**9  # 2024-01-01 00:00 UTC


def walk(count: int, *, seed: int = 0, symbol: str = "WALK", size: float = 2e-3) -> BarSeries:
    """Hourly bars with gaps, wicks, fat tails and volatility that comes in waves."""
    random = np.random.default_rng(seed)
    scale = size * np.exp(0.7 * np.sin(np.arange(count) / 37.0))
    body, gap = scale * random.standard_t(4, count), 0.2 * scale * random.standard_normal(count)
    close = 100.0 * np.exp(np.cumsum(body + gap))
    opened = close * np.exp(-body)
    high = np.maximum(opened, close) * np.exp(0.5 * scale * random.exponential(size=count))
    low = np.minimum(opened, close) * np.exp(-0.5 * scale * random.exponential(size=count))
    time = MONDAY_NS + HOUR_NS * np.arange(1, count + 1)
    volume = np.round(random.lognormal(3.0, 1.0, count), 3)
    return BarSeries(
        symbol=symbol, bar_s=3600.0, close_time=time, open=opened, high=high, low=low, close=close, volume=volume
    )


def closes(prices: Sequence[float], volume: float = 1.0) -> BarSeries:
    """Bars that open at the close before them and have no wicks."""
    close = np.array(prices, np.float64)
    opened = np.concatenate([close[:1], close[:-1]])
    return BarSeries(
        symbol="HAND",
        bar_s=3600.0,
        close_time=MONDAY_NS + HOUR_NS * np.arange(1, len(close) + 1),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=np.full(len(close), volume),
    )


def rows(bars: BarSeries) -> list[tuple[float, float, float, float, float]]:
    """The bars one by one, as a feed gives them."""
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))
