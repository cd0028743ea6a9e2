import math
import statistics
from datetime import timedelta
from itertools import pairwise
from typing import Any

import csp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, ticks, values

from feeds.events import Session
from nodes.adaptive import AdaptiveConfig, MarketStateConfig, _band, adaptive_signal, market_state
from nodes.events import Alert, AlertLevel, MarketState, Regime, Signal, Trend, VolumeProfile

SECOND = timedelta(seconds=1)

# Windows short enough to follow by hand.
SHORT = MarketStateConfig(
    volatility_window_bars=2,
    volatility_history_bars=8,
    trend_window_bars=4,
    volume_recent_bars=1,
    volume_window_bars=4,
)
RULE = AdaptiveConfig(window_bars=2, threshold=0.02, volume_floor=0.0, cooldown_bars=0, horizon_s=60.0)

RETURNS = st.lists(st.sampled_from([0.0, 0.001, -0.001, 0.01, -0.02, 0.2]), min_size=1, max_size=40)


def prices(*log_returns: float) -> list[float]:
    closes = [100.0]
    for log_return in log_returns:
        closes.append(closes[-1] * math.exp(log_return))
    return closes


def states(
    closes: list[float], volumes: list[float] | None = None, config: MarketStateConfig = SHORT, calendar: str = "24/7"
) -> Any:
    volume = ticks(*(volumes or [0.0] * len(closes)))
    return run(lambda: market_state(ticks(*closes), volume, "A", config, calendar))


def second(ticked: Any) -> list[int]:
    return [round((when - T0).total_seconds()) for when, _ in ticked]


# ---- market_state


def test_the_first_bar_says_where_the_market_starts() -> None:
    assert states([100.0, 100.0, 100.0]) == [
        (
            T0,
            MarketState(
                symbol="A",
                regime=Regime.NORMAL,
                trend=Trend.FLAT,
                volume=VolumeProfile.NORMAL,
                session=Session.MARKET_HOURS,
                volatility=0.0,
            ),
        )
    ]


def test_the_regime_follows_the_volatility_of_the_window_against_its_history() -> None:
    # Seven quiet returns, then the window is (-0.01, 0.05): deviation 0.0424 against 0.0204 of the history.
    # Then nothing moves: after two bars the window is (0, 0), deviation 0.
    closes = prices(0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.05, -0.0499, 0.0, 0.0)
    wide = MarketStateConfig(volatility_window_bars=2, volatility_history_bars=8, trend_window_bars=99, hysteresis=0.1)

    ticked = states(closes, config=wide)

    assert second(ticked) == [0, 7, 9, 10]
    regimes = [state.regime for state in values(ticked)]
    assert regimes == [Regime.NORMAL, Regime.VOLATILE, Regime.NORMAL, Regime.CALM]
    assert ticked[1][1].volatility == pytest.approx(statistics.stdev([-0.01, 0.05]))


def test_the_trend_is_the_mean_return_in_its_standard_errors() -> None:
    up = [0.01, 0.02, 0.01, 0.02]  # mean 0.015, standard error 0.0029: t = 5.2
    flat = [-0.02, 0.0, 0.0]  # the first window with them is (0.02, 0.01, 0.02, -0.02): t = 0.8
    down = [-0.02, -0.02]  # (-0.02, 0, 0, -0.02): t = -1.7
    config = MarketStateConfig(trend_window_bars=4, trend_t_min=1.5)

    ticked = states(prices(*up, *flat, *down), config=config)

    trends = dict(zip(second(ticked), (state.trend for state in values(ticked)), strict=True))
    assert trends == {0: Trend.FLAT, 4: Trend.UP, 5: Trend.FLAT, 8: Trend.DOWN}


def test_a_steady_climb_without_any_noise_is_a_trend() -> None:
    closes = [2.0**i for i in range(8)]

    assert [state.trend for state in values(states(closes))] == [Trend.FLAT, Trend.UP]


def test_the_volume_profile_compares_the_last_bars_with_the_window() -> None:
    # From the fourth bar: 10/10, 90/30 = 3, 10/30 = 0.33, 40/37.5.
    ticked = states([100.0] * 7, [10.0, 10.0, 10.0, 10.0, 90.0, 10.0, 40.0])

    assert second(ticked) == [0, 4, 5, 6]
    profiles = [state.volume for state in values(ticked)]
    assert profiles == [VolumeProfile.NORMAL, VolumeProfile.HIGH, VolumeProfile.LOW, VolumeProfile.NORMAL]


@pytest.mark.parametrize("volume", [ticks(*[0.0] * 30), at((1000.0, 1.0))])
def test_a_source_without_volume_has_a_normal_profile(volume: Any) -> None:
    ticked = run(lambda: market_state(ticks(*[100.0] * 30), volume, "A", SHORT, "24/7"))

    assert [state.volume for state in values(ticked)] == [VolumeProfile.NORMAL]


def test_a_bar_belongs_to_the_session_in_which_it_traded() -> None:
    # T0 is the opening of New York: the bar that ends there traded before it.
    ticked = states([100.0, 100.0, 100.0], calendar="NYSE")

    assert [(when, state.session) for when, state in ticked] == [
        (T0, Session.PRE_MARKET),
        (T0 + SECOND, Session.MARKET_HOURS),
    ]


def test_a_state_is_left_only_when_the_value_has_come_back_by_the_hysteresis() -> None:
    walk = [1.4, 1.5, 1.4, 1.36, 1.5, 1.35, 1.4, 0.7, 0.75, 0.77, 0.7, 2.0]
    band, bands = 0, []
    for x in walk:
        band = _band(band, x, 0.7, 1.5, 0.1)
        bands.append(band)

    assert bands == [0, 1, 1, 1, 1, 0, 0, -1, -1, 0, -1, 1]


def test_the_trend_band_is_symmetrical() -> None:
    for was, t in ((1, 1.36), (0, 1.4), (1, 1.34), (0, 1.5), (-1, 1.7)):
        assert _band(-was, -t, -1.5, 1.5, 0.1) == -_band(was, t, -1.5, 1.5, 0.1)


def test_a_random_walk_does_not_flap() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    times = np.datetime64(T0, "ns") + np.arange(n) * np.timedelta64(1, "s")
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.001, n)))
    volumes = rng.lognormal(0.0, 1.0, n)

    def system() -> Any:
        bars = csp.curve(float, (times, closes)), csp.curve(float, (times, volumes))
        return market_state(*bars, "A", MarketStateConfig(), "24/7")

    assert 30 < n / len(run(system)) < 60  # bars a change


def oracle(closes: list[float], volumes: list[float], c: MarketStateConfig) -> list[tuple[int, int, int, int]]:
    """(bar, regime, trend, volume) at each change, from whole lists at every bar."""
    regime = trend = volume = 0
    changes: list[tuple[int, int, int, int]] = []
    for i in range(len(closes)):
        returns = [math.log(b / a) for a, b in pairwise(closes[: i + 1])]
        history = returns[-c.volatility_history_bars :]
        if len(history) >= min(2 * c.volatility_window_bars, c.volatility_history_bars):
            usual = statistics.stdev(history)
            ratio = statistics.stdev(returns[-c.volatility_window_bars :]) / usual if usual > 1e-12 else 1.0
            regime = _band(regime, ratio, c.calm_ratio, c.volatile_ratio, c.hysteresis)
        if len(returns) >= c.trend_window_bars:
            recent = returns[-c.trend_window_bars :]
            mean, error = statistics.fmean(recent), statistics.stdev(recent) / math.sqrt(len(recent))
            t = mean / error if error > 1e-12 else math.copysign(math.inf, mean) if abs(mean) > 1e-12 else 0.0
            trend = _band(trend, t, -c.trend_t_min, c.trend_t_min, c.hysteresis)
        seen = volumes[: i + 1]
        if len(seen) >= c.volume_window_bars:
            usual = statistics.fmean(seen[-c.volume_window_bars :])
            ratio = statistics.fmean(seen[-c.volume_recent_bars :]) / usual if usual > 0.0 else 1.0
            volume = _band(volume, ratio, c.volume_low_ratio, c.volume_high_ratio, c.hysteresis)
        if not changes or changes[-1][1:] != (regime, trend, volume):
            changes.append((i, regime, trend, volume))
    return changes


# Thresholds that no ratio of these short windows hits exactly, so that rounding cannot decide a test.
ODD = MarketStateConfig(
    volatility_window_bars=3,
    volatility_history_bars=9,
    calm_ratio=0.7131,
    volatile_ratio=1.3171,
    trend_window_bars=5,
    trend_t_min=1.5173,
    volume_recent_bars=2,
    volume_window_bars=5,
    volume_low_ratio=0.5137,
    volume_high_ratio=1.7193,
    hysteresis=0.1013,
)


@settings(max_examples=60, deadline=None)
@given(RETURNS, st.lists(st.sampled_from([0.0, 1.0, 5.0, 100.0]), min_size=41, max_size=41))
def test_the_state_is_what_the_whole_history_gives(log_returns: list[float], volumes: list[float]) -> None:
    closes = prices(*log_returns)

    ticked = states(closes, volumes[: len(closes)], ODD)

    found = [
        (i, state.regime - 2, state.trend - 2, state.volume - 2)
        for i, state in zip(second(ticked), values(ticked), strict=True)
    ]
    assert found == oracle(closes, volumes[: len(closes)], ODD)


@settings(max_examples=30, deadline=None)
@given(RETURNS, st.integers(1, 40))
def test_the_future_changes_no_state_and_no_signal(log_returns: list[float], cut: int) -> None:
    closes = prices(*log_returns)
    volumes = [1.0 + i % 3 for i in range(len(closes))]

    def system(n: int) -> Any:
        close, volume = ticks(*closes[:n]), ticks(*volumes[:n])
        state = market_state(close, volume, "A", SHORT, "24/7")
        out = adaptive_signal(close, volume, state, "A", RULE)
        return {"state": state, "signal": out.signal, "alert": out.alert}

    whole, prefix = run(lambda: system(len(closes))), run(lambda: system(cut))

    for name, ticked in prefix.items():
        assert ticked == [tick for tick in whole[name] if tick[0] < T0 + cut * SECOND]


@pytest.mark.parametrize("close", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("node", ["state", "signal"])
def test_an_impossible_close_stops_the_engine(node: str, close: float) -> None:
    def system() -> Any:
        bars = ticks(100.0, close), ticks(1.0, 1.0)
        state = market_state(*bars, "A", SHORT, "24/7")
        return state if node == "state" else adaptive_signal(*bars, csp.null_ts(MarketState), "A", RULE).signal

    with pytest.raises(ValueError, match="close of A must be positive and finite"):
        run(system)


@pytest.mark.parametrize("volume", [-1.0, math.nan, math.inf])
def test_an_impossible_volume_stops_the_engine(volume: float) -> None:
    with pytest.raises(ValueError, match="volume of A must be finite and not negative"):
        states([100.0, 100.0], [1.0, volume])


def test_an_unknown_calendar_stops_the_engine_at_its_start() -> None:
    with pytest.raises(ValueError, match="calendar must be '24/7' or a name"):
        states([100.0], calendar="NYSEX")


# ---- adaptive_signal


def state_of(regime: Regime) -> MarketState:
    return MarketState(
        symbol="A",
        regime=regime,
        trend=Trend.FLAT,
        volume=VolumeProfile.NORMAL,
        session=Session.MARKET_HOURS,
        volatility=0.01,
    )


def signals(
    closes: list[float],
    volumes: list[float] | None = None,
    config: AdaptiveConfig = RULE,
    regimes: list[tuple[float, Regime]] | None = None,
) -> Any:
    points = [(when, state_of(regime)) for when, regime in regimes or []]

    def system() -> Any:
        state = at(*points, typ=MarketState)
        out = adaptive_signal(ticks(*closes), ticks(*(volumes or [0.0] * len(closes))), state, "A", config)
        return {"signal": out.signal, "alert": out.alert}

    return run(system)


def scores(ticked: Any) -> list[tuple[int, float]]:
    return [(second([tick])[0], round(tick[1].score, 6)) for tick in ticked]


def test_the_rule_is_long_above_its_average_short_below_and_flat_between() -> None:
    # d = close / mean of two closes - 1: 3/103, 2/108 = within the threshold, -10/100 and -6/94.
    out = signals([100.0, 106.0, 110.0, 90.0, 80.0])

    assert out["signal"] == [
        (
            T0 + SECOND,
            Signal(
                symbol="A",
                source="adaptive",
                score=(106.0 / 103.0 - 1.0) / 0.04,
                confidence=0.5,
                horizon_s=60.0,
                asof=T0 + SECOND,
            ),
        ),
        (T0 + 2 * SECOND, Signal(symbol="A", source="adaptive", score=0.0, confidence=0.5, horizon_s=60.0,
                                 asof=T0 + 2 * SECOND)),
        (T0 + 3 * SECOND, Signal(symbol="A", source="adaptive", score=-1.0, confidence=0.5, horizon_s=60.0,
                                 asof=T0 + 3 * SECOND)),
    ]  # fmt: skip
    assert out["alert"] == []


def test_a_volatile_market_doubles_the_threshold_and_a_calm_one_halves_it() -> None:
    # 106 after 100 is 2.9 % from the average, 103 is 1.5 %.
    assert scores(signals([100.0, 106.0])["signal"]) == [(1, 0.728155)]
    assert scores(signals([100.0, 106.0], regimes=[(0.0, Regime.VOLATILE)])["signal"]) == []
    assert scores(signals([100.0, 103.0])["signal"]) == []
    assert scores(signals([100.0, 103.0], regimes=[(0.0, Regime.CALM)])["signal"]) == [(1, 0.738916)]


def test_every_switch_of_strategy_is_an_alert_and_no_other_state_is() -> None:
    regimes = [
        (0.0, Regime.NORMAL),
        (1.0, Regime.VOLATILE),
        (2.0, Regime.VOLATILE),
        (3.0, Regime.CALM),
        (4.0, Regime.NORMAL),
    ]

    alerts = signals([100.0] * 6, regimes=regimes)["alert"]

    assert second(alerts) == [1, 3, 4]
    assert alerts[0][1] == Alert(
        level=AlertLevel.INFO,
        source="adaptive",
        symbol="A",
        message="A strategy normal -> conservative, threshold 4.00%",
        value=0.04,
    )
    assert [alert.message.split(",")[0] for alert in values(alerts[1:])] == [
        "A strategy conservative -> aggressive",
        "A strategy aggressive -> normal",
    ]


def test_a_state_in_the_tick_of_a_bar_holds_for_that_bar() -> None:
    assert scores(signals([100.0, 106.0], regimes=[(1.0, Regime.VOLATILE)])["signal"]) == []


def test_after_a_signal_the_cooldown_counts_bars() -> None:
    cool = AdaptiveConfig(window_bars=2, threshold=0.02, volume_floor=0.0, cooldown_bars=2, horizon_s=60.0)
    closes = [100.0, 110.0, 100.0, 110.0, 100.0, 110.0]

    assert [when for when, _ in scores(signals(closes)["signal"])] == [1, 2, 3, 4, 5]
    assert [when for when, _ in scores(signals(closes, config=cool)["signal"])] == [1, 4]


def test_a_move_on_thin_volume_opens_nothing_but_may_close() -> None:
    floor = AdaptiveConfig(window_bars=2, threshold=0.02, volume_floor=0.8, cooldown_bars=0)

    # 10 of an average of 55 is thin; 100 of 55 is not.
    assert scores(signals([100.0, 110.0], [100.0, 10.0], floor)["signal"]) == []
    assert scores(signals([100.0, 110.0], [10.0, 100.0], floor)["signal"]) == [(1, 1.0)]
    # Long on volume, then a thin fall: flat, not short. A thin rise keeps the long side.
    assert scores(signals([100.0, 110.0, 100.0], [10.0, 100.0, 10.0], floor)["signal"]) == [(1, 1.0), (2, 0.0)]
    assert scores(signals([100.0, 110.0, 120.0], [10.0, 100.0, 10.0], floor)["signal"]) == [(1, 1.0)]


def test_a_volatile_market_wants_half_as_much_volume_again() -> None:
    floor = AdaptiveConfig(window_bars=2, threshold=0.01, volume_floor=0.8, cooldown_bars=0)
    volumes = [10.0, 12.0]  # 12 of an average of 11: above 0.8 times it, below 1.2 times it

    assert len(signals([100.0, 110.0], volumes, floor)["signal"]) == 1
    assert signals([100.0, 110.0], volumes, floor, [(0.0, Regime.VOLATILE)])["signal"] == []


def test_a_source_without_volume_is_not_held_back_by_the_floor() -> None:
    floor = AdaptiveConfig(window_bars=2, threshold=0.02, volume_floor=2.0, cooldown_bars=0)

    assert scores(signals([100.0, 110.0], [0.0, 0.0], floor)["signal"]) == [(1, 1.0)]


@settings(max_examples=50, deadline=None)
@given(
    RETURNS,
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(list(Regime))), max_size=5, unique_by=lambda p: p[0]),
    st.integers(0, 4),
)
def test_signals_change_keep_their_bounds_and_wait_for_the_cooldown(
    log_returns: list[float], regimes: list[tuple[int, Regime]], cooldown_bars: int
) -> None:
    config = AdaptiveConfig(window_bars=3, threshold=0.005, volume_floor=0.5, cooldown_bars=cooldown_bars)

    ticked = signals(prices(*log_returns), None, config, sorted(regimes))["signal"]

    bars, found = second(ticked), [signal.score for signal in values(ticked)]
    assert all(-1.0 <= score <= 1.0 for score in found)
    sides = [0, *(int(score > 0) - int(score < 0) for score in found)]
    assert all(before != after for before, after in pairwise(sides))
    assert all(later - earlier > cooldown_bars for earlier, later in pairwise(bars))


@pytest.mark.parametrize(
    "bad",
    [
        {"volatility_window_bars": 1},
        {"volatility_window_bars": 250},
        {"volume_recent_bars": 0},
        {"volume_recent_bars": 100},
        {"trend_window_bars": 1},
        {"trend_t_min": math.nan},
        {"calm_ratio": 1.2},
        {"volatile_ratio": math.nan},
        {"volume_high_ratio": math.inf},
        {"hysteresis": -0.1},
        {"hysteresis": 0.6},  # calm until 0.7 * 1.6 = 1.12, but volatile until 1.5 * 0.4 = 0.6
    ],
)
def test_impossible_market_state_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        MarketStateConfig(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"window_bars": 1},
        {"threshold": 0.0},
        {"threshold": math.nan},
        {"volume_floor": -1.0},
        {"volume_floor": math.nan},
        {"cooldown_bars": -1},
        {"horizon_s": math.inf},
        {"confidence": 0.0},
        {"confidence": math.nan},
    ],
)
def test_impossible_rule_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        AdaptiveConfig(**bad)
