import math
import statistics
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, run, ticks, values

from nodes.events import Alert, AlertLevel
from nodes.health import HealthConfig, HealthStatus, host_health

SECOND = timedelta(seconds=1)
CONFIG = HealthConfig(window=4, samples_min=3, z_max=2.0, deviation_floor=0.1, score_min=0.6, maintenance_updates=2)
QUIET = [50.0, 50.0, 50.0]  # the next reading is judged in units of 5: the floor is a tenth of the mean


def watch(sensors: dict[str, list[Any]], config: HealthConfig = CONFIG) -> Any:
    def system() -> Any:
        out = host_health({name: ticks(*readings, typ=float) for name, readings in sensors.items()}, config)
        return {
            "alert": out.anomaly_alert,
            "status": out.status_update,
            "maintenance": out.maintenance_needed,
        }

    return run(system)


def second(ticked: Any) -> list[int]:
    return [round((when - T0).total_seconds()) for when, _ in ticked]


def sound(sensors: int) -> HealthStatus:
    return HealthStatus(score=1.0, sensors=sensors, anomalous=0, failed=0, worst="")


def test_a_steady_machine_says_so_once() -> None:
    assert watch({"load": QUIET * 4}) == {"alert": [], "status": [(T0, sound(1))], "maintenance": []}


def test_a_reading_is_judged_against_the_window_before_it() -> None:
    # 70 is 20 above 50 in units of 5: z = 4, so half sound; with the sound sensor (0.75 + 0.5) / 2.
    # Then the window is (50, 50, 50, 70): 50 is 5 below its mean, in units of its deviation 10.
    out = watch({"load": [*QUIET, 70.0, 50.0], "memory": [*QUIET, 50.0, 50.0]})

    assert out["alert"] == [
        (
            T0 + 3 * SECOND,
            Alert(
                level=AlertLevel.WARNING,
                source="host_health",
                symbol="",
                message="load at 70 is unusual, z = +4.0",
                value=4.0,
            ),
        )
    ]
    assert out["status"] == [
        (T0, sound(2)),
        (T0 + 3 * SECOND, HealthStatus(score=0.62, sensors=2, anomalous=1, failed=0, worst="load")),
        (T0 + 4 * SECOND, sound(2)),
    ]


def test_nothing_is_judged_before_there_are_samples_enough() -> None:
    assert watch({"load": [50.0, 50.0, 900.0]})["alert"] == []


def test_a_sensor_that_stays_unusual_alerts_once() -> None:
    # Each reading is far from the window before it, though that follows.
    out = watch({"load": [*QUIET, 100.0, 900.0, 9000.0]})

    assert second(out["alert"]) == [3]


def test_a_lasting_change_becomes_the_new_normal() -> None:
    out = watch({"load": [*QUIET, 90.0, 90.0, 90.0, 90.0, 90.0, 90.0]})

    assert second(out["alert"]) == [3]
    assert out["status"][-1][1] == sound(1)


def test_after_nothing_but_zeros_any_other_reading_is_unusual_and_finite() -> None:
    out = watch({"lag": [0.0, 0.0, 0.0, 0.0, -1e-9]})

    assert [alert.value for alert in values(out["alert"])] == [-1000.0]
    assert out["status"][-1][1].score == 0.0  # 2 / 1000, rounded


def test_without_a_floor_a_constant_sensor_may_not_move() -> None:
    exact = HealthConfig(window=4, samples_min=3, z_max=2.0, deviation_floor=0.0)

    assert watch({"load": [0.001] * 9}, exact)["alert"] == []
    assert [a.value for a in values(watch({"load": [*QUIET, 49.999]}, exact)["alert"])] == [-1000.0]


@pytest.mark.parametrize("reading", [math.nan, math.inf, -math.inf, 1e300])
def test_a_reading_that_is_no_number_is_a_failed_sensor_and_no_crash(reading: float) -> None:
    out = watch({"fan": [*QUIET, reading, reading, 50.0], "load": [*QUIET, 50.0, 50.0, 50.0]})

    assert out["alert"] == [
        (
            T0 + 3 * SECOND,
            Alert(
                level=AlertLevel.ALERT,
                source="host_health",
                symbol="",
                message=f"fan failed: it reads {reading}",
                value=0.0,
            ),
        )
    ]
    assert out["status"] == [
        (T0, sound(2)),
        (T0 + 3 * SECOND, HealthStatus(score=0.25, sensors=2, anomalous=0, failed=1, worst="fan")),
        (T0 + 5 * SECOND, sound(2)),
    ]


def test_sensors_that_turn_bad_together_all_alert_at_that_time_in_their_order() -> None:
    bad = {"b": [*QUIET, 90.0], "a": [*QUIET, math.nan], "c": [*QUIET, 10.0]}

    out = watch(bad)

    assert second(out["alert"]) == [3, 3, 3]
    assert [alert.message.split()[0] for alert in values(out["alert"])] == ["b", "a", "c"]
    assert second(out["status"]) == [0, 3]


def test_a_sensor_counts_from_its_first_reading() -> None:
    out = watch({"load": [1.0, 1.0, 1.0], "late": [None, None, 5.0]})

    assert out["status"] == [(T0, sound(1)), (T0 + 2 * SECOND, sound(2))]


def test_maintenance_is_needed_after_updates_in_a_row_below_the_score() -> None:
    nan = math.nan
    out = watch({"fan": [nan, 1.0, nan, nan, nan, 1.0, 1.0]})

    assert out["maintenance"] == [(T0 + 3 * SECOND, True), (T0 + 5 * SECOND, False)]


def test_a_machine_without_sensors_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sensor"):
        watch({})


READINGS = st.lists(
    st.one_of(
        st.sampled_from([0.0, 50.0, 51.0]),
        st.floats(-1e6, 1e6).map(lambda x: round(x, 6)),
        st.just(math.nan),
    ),
    min_size=1,
    max_size=30,
)
# Thresholds that no such reading hits exactly, so that rounding cannot decide a test.
ODD = HealthConfig(window=5, samples_min=3, z_max=2.0173, deviation_floor=0.1031)


@settings(max_examples=60, deadline=None)
@given(READINGS)
def test_verdicts_are_those_of_the_whole_history(readings: list[float]) -> None:
    out = watch({"x": readings}, ODD)

    bad: list[str] = []
    for i, reading in enumerate(readings):
        before = [x for x in readings[:i] if not math.isnan(x)][-ODD.window :]
        if math.isnan(reading):
            bad.append("failed")
        elif len(before) < ODD.samples_min:
            bad.append("")
        else:
            mean = statistics.fmean(before)
            unit = max(statistics.stdev(before), ODD.deviation_floor * abs(mean), 2.0**-60)
            bad.append("unusual" if abs(reading - mean) > ODD.z_max * unit else "")
    turned = [i for i, verdict in enumerate(bad) if verdict and (i == 0 or bad[i - 1] != verdict)]
    assert second(out["alert"]) == turned
    assert [next(w for w in ("failed", "unusual") if w in a.message) for a in values(out["alert"])] == [
        bad[i] for i in turned
    ]


@settings(max_examples=50, deadline=None)
@given(READINGS, READINGS)
def test_statuses_change_and_stay_within_bounds(one: list[float], other: list[float]) -> None:
    out = watch({"one": one, "other": other})

    statuses = values(out["status"])
    assert all(0.0 <= status.score <= 1.0 for status in statuses)
    assert all((status.worst == "") == (status.anomalous + status.failed == 0) for status in statuses)
    assert all(before != after for before, after in pairwise(statuses))
    needed = values(out["maintenance"])
    assert needed == [i % 2 == 0 for i in range(len(needed))]


@pytest.mark.parametrize(
    "bad",
    [
        {"samples_min": 1},
        {"samples_min": 121},
        {"z_max": 0.0},
        {"z_max": math.nan},
        {"z_max": 1000.0},
        {"deviation_floor": -0.1},
        {"deviation_floor": math.nan},
        {"score_min": 0.0},
        {"score_min": math.nan},
        {"maintenance_updates": 0},
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        HealthConfig(**bad)
