"""Each rule against a second implementation in pandas and plain loops, on real bars and on random walks."""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import SECOND, T0, run, ticks, values

from nodes.events import Signal
from nodes.technical import (
    RULES,
    BollingerConfig,
    DonchianConfig,
    EmaCrossConfig,
    MomentumConfig,
    MovingAverageConfig,
    RsiConfig,
    RuleConfig,
    SmaCrossConfig,
    TechnicalConfig,
    donchian_signal,
    moving_average_signal,
    rsi_signal,
    sma_cross_signal,
    technical_signals,
)

SAMPLE = Path(__file__).parents[2] / "feeds" / "sample" / "btc_usd_1h_2017-2019.parquet"
COLUMNS = ("open", "high", "low", "close", "volume")
Frame = pd.DataFrame
Sides = list[tuple[int, float]]  # (bar, new side)

CONFIG = TechnicalConfig(
    moving_average=MovingAverageConfig(bars=20, band=0.002, volume_min=150.0),
    sma_cross=SmaCrossConfig(fast_bars=10, slow_bars=20, band=0.001),
    ema_cross=EmaCrossConfig(band=0.001),
    momentum=MomentumConfig(return_min=0.01),
    donchian=DonchianConfig(bars=20, atr_bars=30),
)


def walk(seed: int, n: int = 4000) -> Frame:
    """A random walk of closes that sometimes stand still, with spreads and volumes around them."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(np.where(rng.random(n) < 0.2, 0.0, rng.normal(0.0, 0.01, n))))
    spread = rng.exponential(0.005, n)
    high, low = close * (1.0 + spread), close * (1.0 - spread)
    return pd.DataFrame({"open": close, "high": high, "low": low, "close": close, "volume": rng.exponential(300.0, n)})


FRAMES = {"btc": pd.read_parquet(SAMPLE), "walk": walk(1)}


def signals_of(frame: Frame, config: TechnicalConfig, suffix: str = "") -> dict[str, list[Signal]]:
    """What each enabled rule ticks on the bars of `frame`, a bar a second; `asof` is checked against the tick."""
    stamps = np.datetime64(T0, "ns") + np.arange(len(frame)) * np.timedelta64(1, "s")
    edges = [(stamps, frame[name].to_numpy(float)) for name in COLUMNS]

    def build() -> None:
        columns = [csp.curve(float, edge) for edge in edges]
        for name, signal in zip(config.enabled, technical_signals(*columns, "A", config, suffix), strict=True):
            csp.add_graph_output(name, signal)

    result = csp.run(build, starttime=T0, endtime=timedelta(days=3650))
    for points in result.values():
        assert all(when == signal.asof and signal.symbol == "A" for when, signal in points)
    return {name: values(points) for name, points in result.items()}


def sides(signals: Iterable[Signal]) -> Sides:
    return [((signal.asof - T0) // SECOND, signal.score) for signal in signals]


def changes(wanted: Iterable[float | None]) -> Sides:
    """The bars where a side differs from the last one; None says nothing."""
    out: Sides = []
    side = 0.0
    for bar, want in enumerate(wanted):
        if want is not None and want != side:
            side = want
            out.append((bar, side))
    return out


def beyond(value: pd.Series, band: float) -> list[float | None]:
    return [1.0 if x > band else -1.0 if x < -band else None for x in value]


def reverting(value: pd.Series, low: float, middle: float, high: float) -> list[float | None]:
    out: list[float | None] = []
    held = 0.0
    for x in value:
        if x <= low:
            held = 1.0
        elif x >= high:
            held = -1.0
        elif (held == 1.0 and x >= middle) or (held == -1.0 and x <= middle):
            held = 0.0
        out.append(None if math.isnan(x) else held)
    return out


def wilder(x: pd.Series, bars: int) -> pd.Series:
    """Wilder's average of `x`, whose first value is NaN, in a plain loop."""
    xs = x.tolist()
    out = [math.nan] * len(xs)
    average = sum(xs[1 : bars + 1]) / bars
    for i in range(bars, len(xs)):
        average = average if i == bars else (average * (bars - 1) + xs[i]) / bars
        out[i] = average
    return pd.Series(out)


def wanted_sides(name: str, frame: Frame, config: TechnicalConfig) -> Sides:
    close = frame.close
    if name == "moving_average":
        ma = config.moving_average
        thin = frame.volume < ma.volume_min
        return changes(beyond((close / close.rolling(ma.bars).mean() - 1.0).mask(thin), ma.band))
    if name == "sma_cross":
        sma = config.sma_cross
        return changes(
            beyond(close.rolling(sma.fast_bars).mean() / close.rolling(sma.slow_bars).mean() - 1.0, sma.band)
        )
    if name == "ema_cross":
        ema = config.ema_cross
        fast = close.ewm(span=ema.fast_bars, adjust=False).mean()
        slow = close.ewm(span=ema.slow_bars, adjust=False, min_periods=ema.slow_bars).mean()
        return changes(beyond(fast / slow - 1.0, ema.band))
    if name == "rsi":
        gain, loss = (wilder((sign * close.diff()).clip(lower=0.0), config.rsi.bars) for sign in (1.0, -1.0))
        return changes(reverting(100.0 - 100.0 / (1.0 + gain / loss), config.rsi.oversold, 50.0, config.rsi.overbought))
    if name == "bollinger":
        mean, deviation = (getattr(close.rolling(config.bollinger.bars), f)() for f in ("mean", "std"))
        population = deviation * math.sqrt(1.0 - 1.0 / config.bollinger.bars)
        score = ((close - mean) / population).mask(deviation < 1e-9, 0.0)
        return changes(reverting(score, -config.bollinger.entry, 0.0, config.bollinger.entry))
    if name == "momentum":
        return changes(beyond(close.pct_change(config.momentum.bars), config.momentum.return_min))
    upper = frame.high.rolling(config.donchian.bars).max().shift()
    lower = frame.low.rolling(config.donchian.bars).min().shift()
    known = frame.index >= max(config.donchian.bars, config.donchian.atr_bars)
    rows = zip(known, close, upper, lower, strict=True)
    return changes(1.0 if k and c > u else -1.0 if k and c < v else None for k, c, u, v in rows)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_rule_changes_sides_as_its_definition_does(frame: Frame, name: str) -> None:
    signals = signals_of(frame, replace(CONFIG, enabled=(name,)))[name]

    want = wanted_sides(name, frame, CONFIG)
    assert len(want) > 20
    assert sides(signals) == want
    rule: RuleConfig = getattr(CONFIG, name)
    assert {signal.source for signal in signals} == {name}
    assert {signal.horizon_s for signal in signals} == {rule.horizon_s}
    if name != "donchian":
        assert {signal.confidence for signal in signals} == {rule.confidence}


def test_donchian_confidence_grows_with_the_breakout_in_average_true_ranges() -> None:
    frame, config = FRAMES["btc"], CONFIG.donchian
    last = frame.close.shift()
    ranges = pd.concat([frame.high - frame.low, (frame.high - last).abs(), (frame.low - last).abs()], axis=1).max(
        axis=1
    )
    atr = wilder(ranges.where(last.notna()), config.atr_bars)
    upper, lower = frame.high.rolling(20).max().shift(), frame.low.rolling(20).min().shift()

    signals = signals_of(frame, replace(CONFIG, enabled=("donchian",)))["donchian"]

    for (bar, side), signal in zip(sides(signals), signals, strict=True):
        out = frame.close[bar] - upper[bar] if side > 0.0 else lower[bar] - frame.close[bar]
        share = min(out / (config.confident_atr * atr[bar]), 1.0)
        assert signal.confidence == pytest.approx(config.confidence * (0.5 + 0.5 * share), rel=1e-9)
    assert min(s.confidence for s in signals) < 0.3
    assert max(s.confidence for s in signals) == 0.5


@pytest.mark.parametrize("cut", [21, 40, 777, 3999])
def test_signals_of_a_prefix_are_a_prefix_of_the_signals(cut: int) -> None:
    frame = FRAMES["walk"]
    whole = signals_of(frame, CONFIG)

    part = signals_of(frame.iloc[:cut], CONFIG)

    for name in RULES:
        assert part[name] == [signal for signal in whole[name] if signal.asof < T0 + cut * SECOND]


# --- exact ticks ---


def test_moving_average_acts_outside_the_band_and_on_volume_only() -> None:
    # Means of two: 10, 10.5, 11, 10.5, 9. Bar 3 is above the band without the volume; bar 5 is in the band.
    close, volume = ticks(10.0, 10.0, 11.0, 11.0, 10.0, 10.0, 8.0), ticks(9.0, 9.0, 4.0, 9.0, 5.0, 9.0, 9.0)
    config = MovingAverageConfig(bars=2, band=0.04, volume_min=5.0, confidence=0.75, horizon_s=60.0)

    got = run(lambda: moving_average_signal(close, volume, "A", config))

    fields_of_both = {"symbol": "A", "source": "moving_average", "confidence": 0.75, "horizon_s": 60.0}
    sell = T0 + 4 * SECOND
    assert got == [(sell, Signal(score=-1.0, asof=sell, **fields_of_both))]
    loud = run(lambda: moving_average_signal(close, ticks(*[9.0] * 7), "A", config))
    assert sides(values(loud)) == [(2, 1.0), (4, -1.0)]


def test_sma_cross_ticks_on_a_change_of_side_only() -> None:
    # Fast of 1, slow of 2: up, up, equal, down, up.
    config = SmaCrossConfig(fast_bars=1, slow_bars=2)

    got = run(lambda: sma_cross_signal(ticks(1.0, 2.0, 3.0, 3.0, 2.0, 3.0), "A", config))

    assert sides(values(got)) == [(1, 1.0), (4, -1.0), (5, 1.0)]
    assert [when for when, _ in got] == [T0 + i * SECOND for i in (1, 4, 5)]


def test_rsi_enters_at_the_extremes_and_leaves_half_way() -> None:
    # Index from bar 2: 0, 0, 60, 81, 11.5, 3.8, 50.7.
    close = ticks(12.0, 11.0, 10.0, 9.0, 10.5, 12.0, 6.0, 3.0, 7.5)
    got = values(run(lambda: rsi_signal(close, "A", RsiConfig(bars=2))))

    assert sides(got) == [(2, 1.0), (4, 0.0), (5, -1.0), (6, 1.0), (8, 0.0)]


def test_rsi_acts_on_the_very_edge() -> None:
    # A gain of 1 and a loss of 3 are exactly 25; a gain of 3 and a loss of 1 exactly 75.
    config = RsiConfig(bars=2, oversold=25.0, overbought=75.0)

    assert sides(values(run(lambda: rsi_signal(ticks(10.0, 11.0, 8.0), "A", config)))) == [(2, 1.0)]
    assert sides(values(run(lambda: rsi_signal(ticks(10.0, 9.0, 12.0), "A", config)))) == [(2, -1.0)]


def test_donchian_does_not_see_its_own_bar_in_the_channel() -> None:
    high, low = ticks(10.0, 10.0, 12.0, 12.0, 9.0), ticks(9.0, 9.0, 10.0, 11.0, 8.0)
    close = ticks(9.5, 9.5, 12.0, 11.0, 8.5)

    got = run(lambda: donchian_signal(high, low, close, "A", DonchianConfig(bars=2, atr_bars=2)))

    assert sides(values(got)) == [(2, 1.0), (4, -1.0)]


# --- properties ---


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_sma_cross_equals_exact_sums(closes: list[float], fast: int, more: int) -> None:
    slow = fast + more
    config = SmaCrossConfig(fast_bars=fast, slow_bars=slow, band=0.01)
    wanted: list[float | None] = []
    for i in range(len(closes)):
        mean_fast = math.fsum(closes[max(0, i + 1 - fast) : i + 1]) / fast
        mean_slow = math.fsum(closes[max(0, i + 1 - slow) : i + 1]) / slow
        above, below = mean_fast > 1.01 * mean_slow, mean_fast < 0.99 * mean_slow
        assume(abs(abs(mean_fast / mean_slow - 1.0) - 0.01) > 1e-9)  # on the edge of the band, rounding decides
        wanted.append(None if i + 1 < slow else 1.0 if above else -1.0 if below else None)

    got = values(run(lambda: sma_cross_signal(ticks(*closes), "A", config)))

    assert sides(got) == changes(wanted)


@given(st.floats(1e-6, 1e9), st.integers(30, 200))
@settings(max_examples=50, deadline=None)
def test_a_price_that_stands_still_gives_no_signal(price: float, bars: int) -> None:
    # The means of equal numbers differ in their last bits: rounding must not make a cross, not even with no band.
    close, volume = ticks(*[price] * bars), ticks(*[1.0] * bars)

    out = run(lambda: csp.flatten(technical_signals(close, close, close, close, volume, "A", TechnicalConfig())))

    assert out == []


def test_rounding_does_not_cross_after_a_price_that_moved() -> None:
    # 0.1 summed ten and twenty times, in sums that held other prices before.
    closes = [*np.random.default_rng(2).uniform(50.0, 150.0, 500).tolist(), *[0.1] * 2000]
    config = SmaCrossConfig(fast_bars=10, slow_bars=20)

    got = sides(values(run(lambda: sma_cross_signal(ticks(*closes), "A", config))))

    assert max(bar for bar, _ in got) < 520


def test_sma_cross_sums_do_not_drift() -> None:
    # Outliers of 1e9 now and then leave their rounding behind in a sum that only adds and subtracts.
    rng = np.random.default_rng(11)
    n = 100_000
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    close[::1999] = 1e9
    close = np.concatenate([close, np.tile([*[100.0] * 40, *[99.0] * 40], 20)])  # and stands still between steps
    frame = pd.DataFrame(dict.fromkeys(COLUMNS, close))

    got = sides(signals_of(frame, TechnicalConfig(enabled=("sma_cross",)))["sma_cross"])

    fast, slow = (pd.Series(close).rolling(bars).apply(math.fsum, raw=True) / bars for bars in (10, 20))
    assert got == changes(beyond(fast / slow - 1.0, 1e-12))


# --- wiring ---


def test_technical_signals_come_in_the_order_of_enabled_with_the_suffix_in_their_source() -> None:
    config = replace(CONFIG, enabled=("rsi", "sma_cross"))

    out = signals_of(FRAMES["walk"], config, "@1h")

    assert list(out) == ["rsi", "sma_cross"]
    assert {signal.source for signal in out["rsi"]} == {"rsi@1h"}
    assert {signal.source for signal in out["sma_cross"]} == {"sma_cross@1h"}


def test_technical_signals_build_only_what_is_enabled() -> None:
    # The high is impossible; only the rule that reads it minds.
    bars = (ticks(1.0), ticks(-1.0), ticks(1.0), ticks(1.0), ticks(1.0))
    others = TechnicalConfig(enabled=tuple(name for name in RULES if name != "donchian"))

    assert run(lambda: csp.flatten(technical_signals(*bars, "A", others))) == []
    with pytest.raises(ValueError, match="high of A must be positive"):
        run(lambda: csp.flatten(technical_signals(*bars, "A", TechnicalConfig(enabled=("donchian",)))))
    assert technical_signals(*bars, "A", TechnicalConfig(enabled=())) == []


def test_every_rule_has_a_config_and_is_named_once() -> None:
    assert {field.name for field in fields(TechnicalConfig)} == {"enabled", *RULES}
    assert {type(getattr(TechnicalConfig(), name)).__name__ for name in RULES} == {
        name.title().replace("_", "") + "Config" for name in RULES
    }


# --- what no rule takes ---


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300])
@pytest.mark.parametrize("name", RULES)
def test_an_impossible_close_stops_the_engine_and_names_symbol_and_time(name: str, bad: float) -> None:
    close, fine = ticks(10.0, bad), ticks(10.0, 10.0)

    with pytest.raises(ValueError, match=r"close of A must be positive .*at 2024-01-02 14:30:01"):
        run(lambda: technical_signals(fine, fine, fine, close, fine, "A", TechnicalConfig(enabled=(name,)))[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_an_impossible_volume_stops_the_engine_and_names_symbol_and_time(bad: float) -> None:
    with pytest.raises(ValueError, match=r"volume of A must be not negative .*at 2024-01-02 14:30:01"):
        run(lambda: moving_average_signal(ticks(1.0, 1.0), ticks(0.0, bad), "A", MovingAverageConfig()))


def test_a_high_below_the_low_stops_the_engine() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        run(lambda: donchian_signal(ticks(1.0), ticks(2.0), ticks(1.5), "A", DonchianConfig()))


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: SmaCrossConfig(fast_bars=20, slow_bars=20), "fast_bars must be below slow_bars, were 20 and 20"),
    (lambda: SmaCrossConfig(fast_bars=0), r"fast_bars must lie in \[1, 1000000\], was 0"),
    (lambda: SmaCrossConfig(slow_bars=2_000_000), "slow_bars must lie in"),
    (lambda: SmaCrossConfig(band=math.nan), r"band must lie in \[0, 1\), was nan"),
    (lambda: EmaCrossConfig(fast_bars=30), "fast_bars must be below slow_bars"),
    (lambda: EmaCrossConfig(band=1.0), "band must lie in"),
    (lambda: MovingAverageConfig(bars=1), r"bars must lie in \[2, "),
    (lambda: MovingAverageConfig(band=-0.1), "band must lie in"),
    (lambda: MovingAverageConfig(volume_min=math.nan), "volume_min must not be negative"),
    (lambda: RsiConfig(oversold=50.0), "want 0 <= oversold < 50 < overbought <= 100, was 50.0 and 70.0"),
    (lambda: RsiConfig(overbought=math.nan), "oversold < 50 < overbought"),
    (lambda: RsiConfig(bars=1), "bars must lie in"),
    (lambda: BollingerConfig(bars=5, entry=2.0), r"entry must lie in \(0, 2\), no bar of 5 is further out; was 2.0"),
    (lambda: BollingerConfig(entry=math.nan), "entry must lie in"),
    (lambda: MomentumConfig(return_min=-0.01), "return_min must lie in"),
    (lambda: MomentumConfig(bars=0), "bars must lie in"),
    (lambda: DonchianConfig(atr_bars=0), "atr_bars must lie in"),
    (lambda: DonchianConfig(confident_atr=0.0), "confident_atr must be positive and finite, was 0.0"),
    (lambda: TechnicalConfig(enabled=("sma_cros",)), "was 'sma_cros'; did you mean sma_cross?"),
    (lambda: TechnicalConfig(enabled=("astrology",)), "was 'astrology'$"),
    (lambda: TechnicalConfig(enabled=("rsi", "rsi")), "each rule once"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_configs_refuse_impossible_values(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("key", "value"),
    [("confidence", -0.1), ("confidence", 1.1), ("confidence", math.nan), ("horizon_s", 0.0), ("horizon_s", math.inf)],
)
def test_every_rule_config_refuses_an_impossible_confidence_or_horizon(name: str, key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key} must .*was {value}"):
        replace(getattr(CONFIG, name), **{key: value})
