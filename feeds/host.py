"""The machine's own sensors, polled: a realtime edge, silent in simulation."""

import math
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import csp
import psutil
from csp import ts
from csp.impl.pushadapter import PushInputAdapter
from csp.impl.wiring import py_push_adapter_def


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """How often the sensors are read."""

    poll_interval_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.poll_interval_s < math.inf:
            raise ValueError(f"poll_interval_s must be positive and finite, was {self.poll_interval_s}")


def read_host() -> dict[str, float]:
    """One reading of every sensor of this machine, by name.

    cpu_percent         since the reading before; the first one of a process is 0.0 and means nothing
    memory_percent      in use
    load_1m             runnable processes, averaged over a minute
    temperature_*_c     one for each sensor that the system shows, if any

    A sensor that cannot be read now is NaN.
    """
    readings = {
        "cpu_percent": _read(psutil.cpu_percent),
        "memory_percent": _read(lambda: psutil.virtual_memory().percent),
        "load_1m": _read(lambda: psutil.getloadavg()[0]),
    }
    # Only some systems have it: see psutil's documentation of sensors_temperatures.
    temperatures = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    for chip, sensors in temperatures.items():
        for i, sensor in enumerate(sensors):
            label = "_".join(f"{chip} {i} {sensor.label}".lower().split())  # two packages both have a "Core 0"
            readings[f"temperature_{label}_c"] = math.nan if sensor.current is None else float(sensor.current)
    return readings


def _read(probe: Any) -> float:
    try:
        return float(probe())
    except (OSError, psutil.Error):
        return math.nan


class _HostPoll(PushInputAdapter):  # type: ignore[misc] # csp ships no types
    """A thread that pushes one dict of readings at every interval."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="host-poll", daemon=True)
        super().__init__()

    def start(self, starttime: datetime, endtime: datetime) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        try:
            read_host()  # cpu_percent counts from here
            while not self._stopping.wait(self._interval_s):
                self.push_tick(read_host())
        except Exception as exc:  # a thread that dies in silence would look like a machine at rest
            self.shutdown_engine(exc)


_host_poll = py_push_adapter_def("host_poll", _HostPoll, ts[dict[str, float]], interval_s=float)


@csp.node
def _by_sensor(poll: ts[dict[str, float]], sensors: list[str]) -> csp.OutputBasket(
    dict[str, ts[float]], shape="sensors"
):
    """One edge a sensor; a sensor that the poll lacks is NaN."""
    if csp.ticked(poll):
        return {name: poll.get(name, math.nan) for name in sensors}


def host_sensors(config: HostConfig) -> Any:
    """The sensors of this machine as a basket {name: ts[float]}, for a graph that runs in realtime.

    Which sensors there are is settled when the graph is built. Names and units: `read_host`.

    Ticks:
        All sensors together every `poll_interval_s`, first one interval after the start; NaN where a sensor failed.
    """
    return _by_sensor(_host_poll(config.poll_interval_s), list(read_host()))
