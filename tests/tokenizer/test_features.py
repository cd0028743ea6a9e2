import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_bars import closes, rows, walk

from tokenizer.bars import BarSeries
from tokenizer.features import FeatureConfig, FeatureStream, features, moves

SHORT = FeatureConfig(warmup_bars=4, scale_halflife_bars=3.0)
price = st.floats(1e-3, 1e6)


def last(bars: BarSeries, config: FeatureConfig = SHORT) -> list[float]:
    return features(bars, config).x[-1].tolist()


def test_features_are_scaled_log_prices_by_the_textbook() -> None:
    # The same in numpy, from the definition: a weighted mean with weights decay ** age over all returns before t.
    bars, config = walk(200), FeatureConfig(warmup_bars=10)
    r = np.log(bars.close[1:] / bars.close[:-1])
    x = features(bars, config).x
    for t in (10, 11, 50, 199):
        past = r[: t - 1]
        weights = config.decay ** np.arange(len(past))[::-1]
        scale = math.sqrt((weights * past**2).sum() / weights.sum())
        top, bottom = max(bars.open[t], bars.close[t]), min(bars.open[t], bars.close[t])
        steps = (bars.open[t] / bars.close[t - 1], bars.close[t] / bars.close[t - 1], bars.high[t] / top)
        wanted = [math.asinh(math.log(step) / scale) for step in (*steps, bottom / bars.low[t])]
        assert x[t] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert features(bars, config).scale[t] == pytest.approx(scale, rel=1e-12)


def test_the_warm_up_has_no_features_and_the_bar_after_it_does() -> None:
    found = features(walk(40), FeatureConfig(warmup_bars=32))

    assert np.isnan(found.x[:32]).all()
    assert np.isnan(found.scale[:32]).all()
    assert np.isfinite(found.x[32:]).all()
    assert np.isfinite(found.returns[1:]).all()
    assert np.isnan(found.returns[0])


@pytest.mark.parametrize("kind", ["bar", "returns"])
@pytest.mark.parametrize("volume", [False, True])
def test_a_stream_gives_the_bits_of_the_series(kind: str, volume: bool) -> None:
    bars, config = walk(300), FeatureConfig(kind=kind, volume=volume)
    found = features(bars, config)
    stream = FeatureStream(config)
    for t, bar in enumerate(rows(bars)):
        before = stream.scale
        x = stream.push(*bar)
        if x is None:
            assert np.isnan(found.x[t]).all()
            assert math.isnan(before)
        else:
            assert x.tobytes() == found.x[t].tobytes()
            assert before == found.scale[t]


@given(st.integers(5, 60), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_bars_after_t_do_not_change_features_up_to_t(t: int, seed: int) -> None:
    one, other = walk(80, seed=seed), walk(80, seed=seed + 1)
    mixed = replace(
        one,
        **{
            name: np.concatenate([getattr(one, name)[:t], getattr(other, name)[t:]])
            for name in ("open", "high", "low", "close", "volume")
        },
    )
    config = replace(SHORT, volume=True)

    assert features(mixed, config).x[:t].tobytes() == features(one, config).x[:t].tobytes()


def test_a_bar_is_not_measured_by_its_own_return() -> None:
    calm = [100.0, 100.1, 100.0, 100.1, 100.0, 100.1]

    small, large = features(closes([*calm, 101.0]), SHORT), features(closes([*calm, 150.0]), SHORT)

    assert small.scale[-1] == large.scale[-1]


def test_the_price_unit_does_not_matter() -> None:
    bars = walk(100)
    pence = replace(bars, **{name: getattr(bars, name) * 128.0 for name in ("open", "high", "low", "close")})

    assert np.allclose(features(bars, SHORT).x[4:], features(pence, SHORT).x[4:], rtol=1e-9, atol=1e-9)


def test_an_unchanged_price_has_features_of_exactly_zero() -> None:
    assert last(closes([100.0, 101.0, 100.0, 101.0, 100.0, 100.0])) == [0.0, 0.0, 0.0, 0.0]


def test_a_weekend_gap_is_in_the_gap_and_not_in_the_body() -> None:
    bars = closes([100.0, 101.0, 100.0, 101.0, 100.0, 103.0])
    opened = bars.open.copy()
    opened[-1] = 103.0
    jumped = replace(bars, open=opened, low=np.minimum(opened, bars.close))

    gap, close, upper, lower = last(jumped)

    assert gap == close > 1.0
    assert upper == lower == 0.0


def test_a_price_that_stands_still_for_weeks_leaves_a_scale_at_its_floor() -> None:
    bars = closes([100.0, 101.0, 100.0, 101.0] + [100.0] * 5_000 + [100.0 * math.exp(3e-6)])
    found = features(bars, SHORT)

    assert found.scale[-1] == SHORT.scale_floor
    assert np.isfinite(found.x[4:]).all()
    assert found.x[-1][1] == pytest.approx(math.asinh(3.0), rel=1e-6)


def test_a_series_without_any_move_has_features_of_zero() -> None:
    assert not features(closes([100.0] * 50), SHORT).x[4:].any()


def test_an_absurd_jump_is_clipped_and_does_not_blind_the_scale() -> None:
    calm = [100.0 + 0.1 * (i % 2) for i in range(100)]
    config = FeatureConfig(clip=50.0)
    found = features(closes([*calm, 1e6, *[1e6 + 100.0 * (i % 2) for i in range(2)]]), config)

    assert found.x[100].max() == math.asinh(50.0)
    assert found.scale[101] < 10.0 * found.scale[100]
    assert found.returns[100] == pytest.approx(math.log(1e6 / 100.1))  # what really happened is told as it is


def test_volume_counts_against_its_lagged_mean() -> None:
    config = replace(SHORT, volume=True)
    bars = closes([100.0, 101.0, 100.0, 101.0, 100.0, 101.0], volume=8.0)

    def at(volume: float) -> float:
        column = bars.volume.copy()
        column[-1] = volume
        return last(replace(bars, volume=column), config)[-1]

    assert at(8.0) == pytest.approx(0.0, abs=1e-12)
    assert at(0.0) == pytest.approx(math.log(0.1 / 1.1))
    assert at(80.0) == pytest.approx(math.log(10.1 / 1.1))
    assert at(1e300) == math.asinh(config.clip)
    assert last(closes([100.0, 101.0, 100.0, 101.0, 100.0, 101.0], volume=0.0), config)[-1] == 0.0


@pytest.mark.parametrize("where", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -5.0])
def test_an_impossible_price_is_refused_and_leaves_the_stream_as_it_was(where: int, value: float) -> None:
    stream, twin = FeatureStream(SHORT), FeatureStream(SHORT)
    history = rows(walk(20))
    for bar in history[:-1]:
        stream.push(*bar)
        twin.push(*bar)
    wrong = list(history[-1])
    wrong[where] = value

    with pytest.raises(ValueError, match="want finite numbers"):
        stream.push(*wrong)

    assert stream.state() == twin.state()
    assert np.array_equal(stream.push(*history[-1]), twin.push(*history[-1]))


@pytest.mark.parametrize("bar", [(1.0, 2.0, 3.0, 2.0, 0.0), (5.0, 4.0, 1.0, 2.0, 0.0), (2.0, 4.0, 3.0, 3.5, 0.0)])
def test_prices_outside_high_and_low_are_refused(bar: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="0 < low <= open and close <= high"):
        FeatureStream(SHORT).push(*bar)


@pytest.mark.parametrize("volume", [math.nan, math.inf, -1.0])
def test_an_impossible_volume_is_refused(volume: float) -> None:
    with pytest.raises(ValueError, match="volume of zero or more"):
        FeatureStream(SHORT).push(1.0, 1.0, 1.0, 1.0, volume)


@given(st.integers(0, 40))
@settings(max_examples=20, deadline=None)
def test_a_restored_stream_goes_on_to_the_bit_through_json(cut: int) -> None:
    config = replace(SHORT, volume=True)
    bars = rows(walk(50))
    stream = FeatureStream(config)
    for bar in bars[:cut]:
        stream.push(*bar)

    other = FeatureStream(config)
    other.restore(json.loads(json.dumps(stream.state(), allow_nan=False)))

    assert repr(other.scale) == repr(stream.scale)
    for bar in bars[cut:]:
        one, two = stream.push(*bar), other.push(*bar)
        assert (one is None and two is None) or one.tobytes() == two.tobytes()


def test_a_state_of_something_else_is_refused() -> None:
    stream = FeatureStream(SHORT)
    with pytest.raises(ValueError, match="state must have"):
        stream.restore({"bars": 1.0})
    with pytest.raises(ValueError, match="variance of the state"):
        stream.restore({"bars": 0.0, "variance": math.nan, "weight": 0.0, "mean_volume": 0.0})
    sound = {"bars": 40.0, "variance": 1e-4, "weight": 0.5, "mean_volume": 0.0, "close": 100.0}
    stream.restore(sound)
    for wrong in ({"close": 0.0}, {"weight": 0.0}, {"bars": 2.5}, {"bars": 1.0}):
        with pytest.raises(ValueError, match="state must have whole bars"):
            stream.restore(sound | wrong)


@given(st.lists(st.tuples(price, price, price, price, st.floats(0.0, 1e12)), min_size=6, max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_possible_bars_have_finite_features_within_the_clip(bars: list[tuple[float, ...]]) -> None:
    config = FeatureConfig(warmup_bars=2, volume=True)
    stream = FeatureStream(config)
    for a, b, c, d, volume in bars:
        low, high = min(a, b, c, d), max(a, b, c, d)
        x = stream.push(a, high, low, b, volume)
        if x is not None:
            assert np.isfinite(x).all()
            assert np.abs(x).max() <= math.asinh(config.clip)
            assert x[2] >= 0.0
            assert x[3] >= 0.0


def test_moves_undo_features() -> None:
    bars, config = walk(100), FeatureConfig(warmup_bars=10)
    found = features(bars, config)

    back = moves(found.x[10:], config)

    assert back[:, 1] * found.scale[10:] == pytest.approx(found.returns[10:], rel=1e-9)
    assert moves(np.array([[0.0, 99.0, -1.0, -1.0]]), config)[0].tolist() == [0.0, pytest.approx(config.clip), 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "candle"),
        ("scale_halflife_bars", math.nan),
        ("scale_halflife_bars", 0.0),
        ("warmup_bars", 1),
        ("clip", math.nan),
        ("clip", 1.0),
        ("scale_floor", 0.0),
        ("scale_floor", math.nan),
    ],
)
def test_an_impossible_config_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        FeatureConfig(**{name: value})
