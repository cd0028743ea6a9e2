import itertools
import math
import statistics
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import T0, at, run, values

from feeds.events import MacroPoint
from nodes.macro import MacroConfig, macro_signal, z_score

SETTLE = timedelta(microseconds=1)


def config(**changes: Any) -> MacroConfig:
    small = {"risk_on": ("UP",), "risk_off": ("FEAR",), "difference": ("UP", "FEAR"), "window": 3, "changes_min": 2}
    return MacroConfig(**(small | {"z_scale": 1.0, "fresh_s": 100.0, "confidence": 0.4, "change_min": 0.0} | changes))


def point(series: str, value: float) -> MacroPoint:
    return MacroPoint(series=series, event_time=T0, value=value)


def signals(*points: tuple[float, str, float], cfg: MacroConfig | None = None, seconds: float = 1_000.0) -> Any:
    """Run on (seconds after T0, series, value) points."""
    edge = at(*((s, point(series, value)) for s, series, value in points), typ=MacroPoint)
    return run(lambda: macro_signal(edge, "BTC-USD", cfg or config()), seconds=seconds)


def test_z_score_is_measured_against_the_window_before_the_change() -> None:
    # Changes 1, 3 and then 4: mean 2, sample deviation sqrt(2). The 4 itself is not in the window.
    out = signals((0, "UP", 10.0), (1, "UP", 11.0), (2, "UP", 14.0), (3, "UP", 18.0), seconds=10.0)

    ((when, signal),) = out
    assert when == T0 + timedelta(seconds=3) + SETTLE
    assert signal.score == pytest.approx(math.tanh(2.0 / math.sqrt(2.0)))
    assert signal.confidence == pytest.approx(0.2)  # one of two series
    assert (signal.symbol, signal.source, signal.asof) == ("BTC-USD", "macro", T0 + timedelta(seconds=3))


def test_risk_off_series_count_the_other_way() -> None:
    up = signals((0, "UP", 10.0), (1, "UP", 11.0), (2, "UP", 14.0), (3, "UP", 18.0), seconds=10.0)
    fear = signals((0, "FEAR", 10.0), (1, "FEAR", 11.0), (2, "FEAR", 14.0), (3, "FEAR", 18.0), seconds=10.0)

    assert fear[0][1].score == -up[0][1].score


def test_log_change_is_the_default() -> None:
    # Log changes log 2, log 4 and log 16, in units of log 2: 1, 2 and 4 against mean 1.5, deviation sqrt(0.5).
    points = ((0, "UP", 1.0), (1, "UP", 2.0), (2, "UP", 8.0), (3, "UP", 128.0))

    out = signals(*points, cfg=config(difference=()), seconds=10.0)

    assert out[0][1].score == pytest.approx(math.tanh(2.5 / math.sqrt(0.5)))


def test_the_window_is_bounded() -> None:
    # The wild first change has left a window of two when the last one is measured against 1 and 3.
    points = [(i, "UP", v) for i, v in enumerate((0.0, 1e6, 1e6 + 1, 1e6 + 4, 1e6 + 8))]

    out = signals(*points, cfg=config(window=2), seconds=10.0)

    assert out[-1][1].score == pytest.approx(math.tanh(2.0 / math.sqrt(2.0)))


def test_points_of_one_time_make_one_tick() -> None:
    points = [(i, s, float(v)) for i, v in enumerate((10, 11, 14, 18)) for s in ("UP", "FEAR")]

    out = signals(*points, seconds=10.0)

    # The series say opposite things of the same strength: without settling there would be a tick for the first alone.
    ((when, signal),) = out
    assert when == T0 + timedelta(seconds=3) + SETTLE
    assert (signal.score, signal.confidence) == (0.0, 0.4)


def test_settle_window_is_measured_from_the_first_point() -> None:
    points = [(10 * i, "UP", v) for i, v in enumerate((10.0, 11.0, 14.0, 18.0))] + [(30.5, "FEAR", 1.0)]

    out = signals(*points, cfg=config(settle_s=2.0), seconds=60.0)

    assert [when for when, _ in out] == [T0 + timedelta(seconds=32)]


def test_a_stale_series_drops_out_and_silence_has_no_confidence() -> None:
    points = [(i, "UP", v) for i, v in enumerate((10.0, 11.0, 14.0, 18.0))]
    points += [(i + 50, "FEAR", v) for i, v in enumerate((10.0, 11.0, 14.0, 11.0))]

    out = signals(*points, seconds=1_000.0)

    assert [when for when, _ in out] == [
        T0 + timedelta(seconds=3) + SETTLE,
        T0 + timedelta(seconds=53) + SETTLE,
        T0 + timedelta(seconds=103),  # UP is 100 s old
        T0 + timedelta(seconds=153),  # and so is FEAR
    ]
    fear = math.tanh(5.0 / math.sqrt(2.0))
    assert out[2][1].score == pytest.approx(fear)
    assert [s.confidence for s in values(out)] == pytest.approx([0.2, 0.4, 0.2, 0.0])
    assert out[3][1].score == 0.0
    assert out[3][1].asof == T0 + timedelta(seconds=53)


def test_a_series_that_goes_on_is_never_stale() -> None:
    points = [(60 * i, "UP", float(v)) for i, v in enumerate((10, 11, 14, 18, 19, 25, 20))]

    out = signals(*points, seconds=6 * 60 + 99.0)

    assert all(s.confidence == pytest.approx(0.2) for s in values(out))


def test_small_changes_are_silent() -> None:
    points = [(i, "UP", v) for i, v in enumerate((10.0, 11.0, 14.0, 18.0, 22.5))]

    assert len(signals(*points, cfg=config(change_min=0.0), seconds=10.0)) == 2
    assert len(signals(*points, cfg=config(change_min=0.9), seconds=10.0)) == 1


def test_falling_silent_ticks_however_quiet_the_signal_was() -> None:
    points = [(i, "UP", v) for i, v in enumerate((10.0, 11.0, 14.0, 18.0))]

    out = signals(*points, cfg=config(change_min=1.0), seconds=1_000.0)

    assert [s.confidence for s in values(out)] == pytest.approx([0.2, 0.0])


def test_unknown_series_are_ignored_whatever_they_hold() -> None:
    assert signals(*[(i, "OTHER", math.nan) for i in range(9)]) == []


def test_a_flat_series_has_no_scale_and_says_nothing_strong() -> None:
    flat = [(i, "UP", 5.0) for i in range(5)]

    out = signals(*flat, (5, "UP", 9.0), seconds=10.0)

    assert {s.score for s in values(out)} == {0.0}
    assert z_score(1e9, [0.1 + 0.2, 0.3]) == 0.0  # flat but for rounding


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_a_value_that_is_no_number_stops_the_engine(value: float) -> None:
    for difference in ((), ("UP",)):
        with pytest.raises(ValueError, match="UP must lie in"):
            signals((0, "UP", 1.0), (1, "UP", value), cfg=config(difference=difference))


def test_zero_and_negative_values_need_plain_differences() -> None:
    points = [(i, "UP", v) for i, v in enumerate((-1.0, 0.0, 3.0, 7.0))]

    assert len(signals(*points, seconds=10.0)) == 1
    with pytest.raises(ValueError, match=r"UP must lie in \(0, 1e\+100\), was -1.0"):
        signals(*points, cfg=config(difference=()))


@pytest.mark.parametrize(
    "changes",
    [
        {"risk_on": (), "risk_off": ()},
        {"risk_on": ("A",), "risk_off": ("A",)},
        {"changes_min": 1},
        {"window": 1},
        {"z_scale": 0.0},
        {"fresh_s": math.nan},
        {"horizon_s": math.inf},
        {"settle_s": 0.0},
        {"settle_s": 1e9},
        {"change_min": -0.1},
        {"confidence": 1.5},
    ],
)
def test_impossible_config_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"was|were"):
        config(**changes)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30),
    st.floats(-1e6, 1e6),
    st.floats(0.1, 10.0),
    st.floats(-100.0, 100.0),
)
def test_z_score_has_no_unit(before: list[float], change: float, scale: float, shift: float) -> None:
    deviation = statistics.stdev(before)
    assume(deviation > 1.0)

    z = z_score(change, before)

    assert z == pytest.approx((change - statistics.fmean(before)) / deviation, rel=1e-6, abs=1e-6)
    moved = z_score(scale * change + shift, [scale * x + shift for x in before])
    assert moved == pytest.approx(z, rel=1e-4, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    points=st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from(["UP", "FEAR", "OTHER"]), st.floats(-1e9, 1e9)), max_size=40
    ).map(lambda rows: sorted(rows, key=lambda row: row[0])),
    cut=st.integers(0, 300),
)
def test_signals_are_bounded_change_each_time_and_do_not_look_ahead(
    points: list[tuple[float, str, float]], cut: int
) -> None:
    out = signals(*points, seconds=500.0)
    prefix = signals(*[p for p in points if p[0] <= cut], seconds=cut + 0.5)

    assert all(-1.0 <= s.score <= 1.0 and 0.0 <= s.confidence <= 0.4 and s.asof <= when for when, s in out)
    told = [(0.0, 0.0), *((s.score, s.confidence) for s in values(out))]
    assert all(a != b for a, b in itertools.pairwise(told))
    assert prefix == [(when, s) for when, s in out if when <= T0 + timedelta(seconds=cut + 0.5)]
