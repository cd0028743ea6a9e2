import math
import threading
from datetime import timedelta
from typing import Any

import csp
import psutil
import pytest
from csp.utils.datetime import utc_now

from feeds.host import HostConfig, host_sensors, read_host

FAST = HostConfig(poll_interval_s=0.02)


def test_a_machine_has_its_basic_sensors() -> None:
    readings = read_host()

    assert 0.0 <= readings["cpu_percent"] <= 100.0
    assert 0.0 < readings["memory_percent"] <= 100.0
    assert readings["load_1m"] >= 0.0
    assert all(isinstance(reading, float) for reading in readings.values())


def test_a_sensor_that_cannot_be_read_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("no such device")

    monkeypatch.setattr(psutil, "getloadavg", broken)

    readings = read_host()

    assert math.isnan(readings["load_1m"])
    assert readings["memory_percent"] > 0.0


def test_sensors_tick_together_and_the_thread_ends_with_the_engine() -> None:
    names = list(read_host())

    def graph() -> None:
        sensors = host_sensors(FAST)
        assert list(sensors.keys()) == names
        cpu = sensors["cpu_percent"]
        csp.stop_engine(csp.filter(csp.count(cpu) >= 3, cpu))
        for name in names:
            csp.add_graph_output(name, sensors[name])

    result = csp.run(graph, starttime=utc_now(), endtime=timedelta(seconds=30), realtime=True)

    times = [[when for when, _ in result[name]] for name in names]
    assert len(times[0]) >= 3
    assert all(ticked == times[0] for ticked in times)
    assert not any(thread.name == "host-poll" for thread in threading.enumerate())


def test_an_error_in_the_poll_stops_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(*_: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:  # the graph is built and the thread has started
            raise ValueError("not a sensor error")
        return 1.0, 1.0, 1.0

    monkeypatch.setattr(psutil, "getloadavg", broken)

    def graph() -> None:
        csp.add_graph_output(0, host_sensors(FAST)["load_1m"])

    with pytest.raises(ValueError, match="not a sensor error"):
        csp.run(graph, starttime=utc_now(), endtime=timedelta(seconds=30), realtime=True)


@pytest.mark.parametrize("poll_interval_s", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_interval_is_refused(poll_interval_s: float) -> None:
    with pytest.raises(ValueError, match="poll_interval_s must be positive and finite"):
        HostConfig(poll_interval_s=poll_interval_s)
