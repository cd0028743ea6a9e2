"""Each indicator against its formula in numpy or pandas, on real bars and on random walks."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, run, ticks, values

from nodes.indicators import atr, bollinger, donchian, ema, momentum, rsi, sma

SAMPLE = Path(__file__).parents[2] / "feeds" / "sample" / "btc_usd_1h_2017-2019.parquet"
Frame = pd.DataFrame  # columns high, low, close


def walk(seed: int, n: int = 3000) -> Frame:
    """A random walk whose steps are sometimes nothing at all."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(n) < 0.2, 0.0, rng.normal(0.0, 0.01, n))
    close = 100.0 * np.exp(np.cumsum(steps))
    spread = rng.exponential(0.005, n)
    return pd.DataFrame({"high": close * (1.0 + spread), "low": close * (1.0 - spread), "close": close})


FRAMES = {"btc": pd.read_parquet(SAMPLE), "walk 1": walk(1), "walk 2": walk(2)}
LENGTHS = (2, 3, 14, 50)


def on(frame: Frame, indicator: Any) -> pd.Series:
    """What `indicator(high, low, close)` ticks, NaN where it does not; a bar a second."""
    stamps = np.datetime64(T0, "ns") + np.arange(len(frame)) * np.timedelta64(1, "s")
    edges = [(stamps, frame[name].to_numpy(float)) for name in ("high", "low", "close")]

    def build() -> None:
        csp.add_graph_output(0, indicator(*(csp.curve(float, edge) for edge in edges)))

    result = csp.run(build, starttime=T0, endtime=timedelta(days=3650), output_numpy=True)
    when, value = result[0]
    out = np.full(len(frame), np.nan)
    out[((np.asarray(when, "datetime64[ns]") - stamps[0]) // np.timedelta64(1, "s")).astype(int)] = value
    assert np.isfinite(value).all()
    return pd.Series(out)


def wilder(x: pd.Series, bars: int) -> pd.Series:
    """Wilder's average by pandas: its seed is a mean, put in the place of the value that ends it."""
    x = x.copy()
    first = int(x.first_valid_index() or 0)
    seeded = x.iloc[first + bars - 1 :].copy()
    seeded.iloc[0] = x.iloc[first : first + bars].mean()
    return seeded.ewm(alpha=1.0 / bars, adjust=False).mean().reindex(x.index)


def by_definition(name: str, frame: Frame, bars: int) -> pd.Series:
    high, low, close = frame.high, frame.low, frame.close
    if name == "sma":
        return close.rolling(bars).mean()
    if name == "ema":
        return close.ewm(span=bars, adjust=False, min_periods=bars).mean()
    if name == "momentum":
        return close.pct_change(bars)
    if name == "bollinger":
        windows = np.lib.stride_tricks.sliding_window_view(close.to_numpy(), bars)  # (N - bars + 1, bars)
        level = np.where(np.ptp(windows, axis=1) == 0.0, 1.0, windows.std(axis=1))
        scores = np.where(np.ptp(windows, axis=1) == 0.0, 0.0, (windows[:, -1] - windows.mean(axis=1)) / level)
        return pd.Series(scores, index=close.index[bars - 1 :]).reindex(close.index)
    if name == "rsi":
        change = close.diff()
        gain = wilder(change.clip(lower=0.0), bars)
        loss = wilder(-change.clip(upper=0.0), bars)
        return (100.0 - 100.0 / (1.0 + gain / loss)).where(gain + loss > 0.0, 50.0).where(gain.notna())
    if name == "atr":
        ranges = pd.concat([high - low, (high - close.shift()).abs(), (low - close.shift()).abs()], axis=1)
        return wilder(ranges.max(axis=1).where(close.shift().notna()), bars)
    if name == "upper":
        return high.rolling(bars).max().shift()
    return low.rolling(bars).min().shift()


INDICATORS: dict[str, Any] = {
    "sma": lambda high, low, close, bars: sma(close, bars),
    "ema": lambda high, low, close, bars: ema(close, bars),
    "rsi": lambda high, low, close, bars: rsi(close, bars),
    "bollinger": lambda high, low, close, bars: bollinger(close, bars),
    "momentum": lambda high, low, close, bars: momentum(close, bars),
    "atr": atr,
    "upper": lambda high, low, close, bars: donchian(high, low, bars).upper,
    "lower": lambda high, low, close, bars: donchian(high, low, bars).lower,
}
FIRST_TICK = dict.fromkeys(INDICATORS, 1) | {"sma": 0, "ema": 0, "bollinger": 0}  # bars after the `bars`-th


@pytest.mark.parametrize("bars", LENGTHS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("name", INDICATORS)
def test_indicator_equals_its_formula(name: str, frame: Frame, bars: int) -> None:
    got = on(frame, lambda high, low, close: INDICATORS[name](high, low, close, bars))

    want = by_definition(name, frame, bars)
    assert got.first_valid_index() == bars - 1 + FIRST_TICK[name]
    assert got.iloc[bars:].notna().all()
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", INDICATORS)
def test_indicator_of_a_prefix_is_the_prefix_of_the_indicator(name: str) -> None:
    frame = FRAMES["walk 1"]
    whole = on(frame, lambda high, low, close: INDICATORS[name](high, low, close, 14))

    for cut in (14, 15, 16, 777, 2999):
        part = on(frame.iloc[:cut], lambda high, low, close: INDICATORS[name](high, low, close, 14))
        pd.testing.assert_series_equal(part, whole.iloc[:cut], check_exact=True)


def test_sma_ticks_from_the_first_full_window_on() -> None:
    got = run(lambda: sma(ticks(1.0, 2.0, 6.0, -2.0, 5.0, 0.0, 4.0), 3))

    assert got == [(T0 + i * SECOND, mean) for i, mean in enumerate((3.0, 2.0, 3.0, 1.0, 3.0), start=2)]


def test_sma_of_one_bar_is_the_value() -> None:
    assert values(run(lambda: sma(ticks(3.0, 1.0, 2.0), 1))) == [3.0, 1.0, 2.0]


def test_ema_starts_at_the_first_value() -> None:
    got = run(lambda: ema(ticks(1.0, 2.0, 4.0, 4.0), 3))  # alpha 1/2: 1, 1.5, 2.75, 3.375

    assert got == [(T0 + 2 * SECOND, 2.75), (T0 + 3 * SECOND, 3.375)]


def test_rsi_smooths_as_wilder_does() -> None:
    # Changes +2 -1 | +3 -4: averages (1, 1/2), then (2, 1/4), then (1, 17/8).
    got = run(lambda: rsi(ticks(10.0, 12.0, 11.0, 14.0, 10.0), 2))

    assert [when for when, _ in got] == [T0 + i * SECOND for i in (2, 3, 4)]
    assert values(got) == pytest.approx([100.0 / 1.5, 200.0 / 2.25, 100.0 / 3.125])


def test_rsi_knows_only_gains_only_losses_and_neither() -> None:
    assert values(run(lambda: rsi(ticks(1.0, 2.0, 3.0), 2))) == [100.0]
    assert values(run(lambda: rsi(ticks(3.0, 2.0, 1.0), 2))) == [0.0]
    assert values(run(lambda: rsi(ticks(3.0, 3.0, 3.0), 2))) == [50.0]


def test_bollinger_counts_population_deviations() -> None:
    got = values(run(lambda: bollinger(ticks(1.0, 1.0, 1.0, 5.0), 4)))

    assert got == pytest.approx([3.0 / math.sqrt(3.0)])


def test_bollinger_of_equal_values_is_zero_whatever_came_before() -> None:
    got = values(run(lambda: bollinger(ticks(97.3, 104.1, *[0.1] * 5), 3)))

    assert got[-3:] == [0.0, 0.0, 0.0]


def test_atr_counts_gaps() -> None:
    # Ranges of bars 2 to 4: 3 (gap up to 13), 2 (inside), 4 (gap down to 8); the first bar has none.
    high, low, close = ticks(11.0, 13.0, 13.0, 10.0), ticks(9.0, 11.0, 11.0, 8.0), ticks(10.0, 12.0, 12.0, 9.0)

    got = run(lambda: atr(high, low, close, 2))

    assert got == [(T0 + 2 * SECOND, 2.5), (T0 + 3 * SECOND, 3.25)]


def test_momentum_is_the_return_over_so_many_bars() -> None:
    assert run(lambda: momentum(ticks(4.0, 5.0, 6.0, 5.0), 2)) == [(T0 + 2 * SECOND, 0.5), (T0 + 3 * SECOND, 0.0)]


def test_donchian_leaves_this_bar_out() -> None:
    channel = run(
        lambda: {
            "upper": donchian(ticks(3.0, 5.0, 9.0, 4.0), ticks(1.0, 2.0, 0.5, 3.0), 2).upper,
            "lower": donchian(ticks(3.0, 5.0, 9.0, 4.0), ticks(1.0, 2.0, 0.5, 3.0), 2).lower,
        }
    )

    assert channel["upper"] == [(T0 + 2 * SECOND, 5.0), (T0 + 3 * SECOND, 9.0)]
    assert channel["lower"] == [(T0 + 2 * SECOND, 1.0), (T0 + 3 * SECOND, 0.5)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_sma_is_the_mean_of_the_window(xs: list[float], bars: int) -> None:
    got = values(run(lambda: sma(ticks(*xs), bars)))

    want = [math.fsum(xs[i - bars : i]) / bars for i in range(bars, len(xs) + 1)]
    assert got == pytest.approx(want, rel=1e-12, abs=1e-9)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_indicators_stay_in_their_range(xs: list[float], bars: int) -> None:
    out = run(
        lambda: {"rsi": rsi(ticks(*xs), bars), "z": bollinger(ticks(*xs), bars), "atr": atr(*[ticks(*xs)] * 3, bars)}
    )

    assert all(0.0 <= value <= 100.0 for value in values(out["rsi"]))
    assert all(abs(value) <= math.sqrt(bars - 1) * (1.0 + 1e-9) for value in values(out["z"]))
    assert all(0.0 <= value <= (max(xs) - min(xs)) * (1.0 + 1e-9) for value in values(out["atr"]))


@pytest.mark.parametrize("name", ["sma", "bollinger"])
def test_sliding_windows_do_not_drift_and_forget_outliers(name: str) -> None:
    # An outlier of 1e15 now and then: csp.stats.mean is 6e-5 off for ever after the first, csp.stats.stddev worse.
    rng = np.random.default_rng(5)
    close = 100.0 + np.cumsum(rng.normal(0.0, 1e-3, 100_000))
    close[::7919] = 1e15
    frame = pd.DataFrame({"high": close, "low": close, "close": close})

    got = on(frame, lambda high, low, close: INDICATORS[name](high, low, close, 20)).to_numpy()

    clean = np.array([(close[i - 19 : i + 1] < 1e15).all() for i in range(19, len(close))])
    windows = np.lib.stride_tricks.sliding_window_view(close, 20)  # (N - 19, 20)
    mean = windows.mean(axis=1)
    want = mean if name == "sma" else (windows[:, -1] - mean) / windows.std(axis=1)
    assert clean.sum() > 99_000
    np.testing.assert_allclose(got[19:][clean], want[clean], rtol=1e-14 if name == "sma" else 1e-7, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("name", INDICATORS)
def test_indicator_refuses_what_is_not_finite(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=r"wants .*was .*at 2024-01-02 14:30:01"):
        run(lambda: INDICATORS[name](ticks(2.0, bad), ticks(2.0, bad), ticks(2.0, bad), 3))


@pytest.mark.parametrize("name", INDICATORS)
def test_indicator_refuses_an_empty_window(name: str) -> None:
    with pytest.raises(ValueError, match=r"bars of \w+ must be at least [12], was 0"):
        run(lambda: INDICATORS[name](ticks(1.0), ticks(1.0), ticks(1.0), 0))


def test_momentum_refuses_a_price_that_no_return_can_be_taken_of() -> None:
    with pytest.raises(ValueError, match=r"momentum wants positive values below 1e\+100, was 0\.0"):
        run(lambda: momentum(ticks(1.0, 0.0), 1))


def test_atr_refuses_a_high_below_the_low() -> None:
    with pytest.raises(ValueError, match=r"low <= high, .*was high 1\.0, low 2\.0"):
        run(lambda: atr(ticks(1.0), ticks(2.0), ticks(1.5), 2))
