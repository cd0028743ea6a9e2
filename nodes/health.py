"""Is the machine that trades in good health?"""

import math
from dataclasses import dataclass

import csp
from csp import ts

from nodes.events import Alert, AlertLevel
from nodes.rolling import RESOLUTION, VALUE_MAX, RollingMoments

Z_MAX = 1000.0  # z-scores are cut here, so that no tick is infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """When a reading is unusual, and when a person should look after the machine."""

    window: int = 120  # readings of each sensor that the next one is compared with
    samples_min: int = 30  # readings before a sensor is judged at all
    z_max: float = 4.0  # standard deviations
    deviation_floor: float = 0.05  # fraction of the mean; a steadier sensor is judged as if it moved by that much
    score_min: float = 0.6  # a score below counts towards maintenance
    maintenance_updates: int = 10  # in a row

    def __post_init__(self) -> None:
        if not 2 <= self.samples_min <= self.window:
            raise ValueError(f"want 2 <= samples_min <= window, was {self.samples_min} and {self.window}")
        if not 0.0 < self.z_max < Z_MAX:
            raise ValueError(f"z_max must lie in (0, {Z_MAX:g}), was {self.z_max}")
        if not 0.0 <= self.deviation_floor < math.inf:
            raise ValueError(f"deviation_floor must be finite and not negative, was {self.deviation_floor}")
        if not 0.0 < self.score_min <= 1.0:
            raise ValueError(f"score_min must lie in (0, 1], was {self.score_min}")
        if self.maintenance_updates < 1:
            raise ValueError(f"maintenance_updates must be at least 1, was {self.maintenance_updates}")


class HealthStatus(csp.Struct, strict=True):
    """How the machine is doing."""

    score: float  # [0, 1], to two decimals; 1 is sound
    sensors: int  # that have given a reading
    anomalous: int
    failed: int
    worst: str  # the sensor that is worst off; "" when all are sound


class _Sensor:
    """One sensor: its window and the verdict on its last reading."""

    __slots__ = ("_config", "_window", "anomalous", "failed", "known", "name", "soundness", "z")

    def __init__(self, name: str, config: HealthConfig) -> None:
        self.name = name
        self._config = config
        self._window = RollingMoments(config.window)
        self.known = self.anomalous = self.failed = False  # known: it has given a reading
        self.soundness = 1.0
        self.z = 0.0

    def read(self, value: float) -> Alert | None:
        """Judge `value` against the window before it, then add it. An alert when the verdict turns bad."""
        was_anomalous, was_failed = self.anomalous, self.failed
        self.known = True
        self.failed = not -VALUE_MAX <= value <= VALUE_MAX
        self.z = 0.0 if self.failed else self._z_score(value)
        self.anomalous = abs(self.z) > self._config.z_max
        if self.failed:
            self.soundness = 0.0
            return None if was_failed else self._alert(AlertLevel.ALERT, f"{self.name} failed: it reads {value}", 0.0)
        self._window.push(value)
        self.soundness = self._config.z_max / abs(self.z) if self.anomalous else 1.0
        if not self.anomalous or was_anomalous:
            return None
        return self._alert(AlertLevel.WARNING, f"{self.name} at {value:g} is unusual, z = {self.z:+.1f}", self.z)

    def _z_score(self, value: float) -> float:
        if len(self._window) < self._config.samples_min:
            return 0.0
        mean = self._window.mean
        deviation = max(self._window.deviation, self._config.deviation_floor * abs(mean), RESOLUTION)
        return max(-Z_MAX, min(Z_MAX, (value - mean) / deviation))

    @staticmethod
    def _alert(level: AlertLevel, message: str, value: float) -> Alert:
        return Alert(level=level, source="host_health", symbol="", message=message, value=value)


def _health_score(sensors: list[_Sensor]) -> float:
    soundness = [sensor.soundness for sensor in sensors if sensor.known]
    return (math.fsum(soundness) / len(soundness) + min(soundness)) / 2.0


def _status(sensors: list[_Sensor], score: float) -> HealthStatus:
    known = [sensor for sensor in sensors if sensor.known]
    worst = min(known, key=lambda sensor: sensor.soundness)
    return HealthStatus(
        score=round(score, 2),
        sensors=len(known),
        anomalous=sum(sensor.anomalous for sensor in known),
        failed=sum(sensor.failed for sensor in known),
        worst=worst.name if worst.soundness < 1.0 else "",
    )


@csp.node
def _judge(sensors: dict[str, ts[float]], config: HealthConfig) -> csp.Outputs(
    alerts=ts[list[Alert]], status=ts[HealthStatus], maintenance=ts[bool]
):
    """All sensors that ticked together are one update."""
    with csp.state():
        s_sensors = []
        s_status = None
        s_low = 0
        s_needed = False

    with csp.start():
        s_sensors = [_Sensor(name, config) for name in sensors.keys()]  # noqa: SIM118 - a basket is no dict

    if csp.ticked(sensors):
        # In the order of the names, not of the ticks, which live and replay need not share.
        verdicts = [sensor.read(sensors[sensor.name]) for sensor in s_sensors if csp.ticked(sensors[sensor.name])]
        alerts = [alert for alert in verdicts if alert is not None]
        if alerts:
            csp.output(alerts=alerts)

        score = _health_score(s_sensors)
        status = _status(s_sensors, score)
        if status != s_status:
            s_status = status
            csp.output(status=status)

        s_low = min(s_low + 1, config.maintenance_updates) if score < config.score_min else 0
        needed = s_low == config.maintenance_updates
        if needed != s_needed:
            s_needed = needed
            csp.output(maintenance=needed)


@csp.graph
def host_health(sensors: dict[str, ts[float]], config: HealthConfig) -> csp.Outputs(
    anomaly_alert=ts[Alert], status_update=ts[HealthStatus], maintenance_needed=ts[bool]
):
    """Watch any named numbers of the machine: temperatures, load, memory, feed lag.

    A reading is judged by z = (reading - mean) / deviation over the `window` readings before it, where deviation is
    the standard deviation but at least `deviation_floor` times the mean; after nothing but zeros any other reading has
    the highest z, 1000. |z| above `z_max` is an anomaly; the reading joins the window all the same, so a lasting change
    becomes the new normal. What is judged is change: a sensor that was always at its limit looks sound. A reading that
    is NaN or beyond +-1e100 is a failed sensor, and does not join the window.

    soundness of a sensor   0 when failed, z_max / |z| when anomalous, else 1
    health score            (mean + worst soundness) / 2, over the sensors that have given a reading

    Args:
        sensors: name to readings, in any unit. Sensors that tick together are one update.

    Ticks:
        anomaly_alert: when a sensor turns anomalous (WARNING, value z) or failed (ALERT); not while it stays so.
            Several at once tick one after another at the same time, in the order of `sensors`.
        status_update: on the first update, and when any field of the status differs from the last one.
        maintenance_needed: True when the score was below `score_min` for `maintenance_updates` updates in a row, False
            at the first update that is not.

    Raises:
        ValueError: there are no sensors.
    """
    if not sensors:
        raise ValueError("sensors must name at least one sensor, was {}")
    judged = _judge(sensors, config)
    return csp.output(
        anomaly_alert=csp.unroll(judged.alerts), status_update=judged.status, maintenance_needed=judged.maintenance
    )
