"""Watch this machine: psutil's sensors through the health node, printed as they tick.

python examples/01_host_health.py --seconds 10

The first status comes with the first poll. Anomalies are judged after `--health.samples-min` polls: put the machine
under load while this runs, and watch `alerts` and `status`.
"""

import math
from dataclasses import dataclass, field
from datetime import timedelta

import csp
import tyro
from csp.utils.datetime import utc_now

from feeds.host import HostConfig, host_sensors
from nodes.health import HealthConfig, host_health


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Print the health of this machine."""

    seconds: float = 10.0  # how long to watch
    host: HostConfig = field(default_factory=lambda: HostConfig(poll_interval_s=0.25))
    health: HealthConfig = field(default_factory=lambda: HealthConfig(window=40, samples_min=8))

    def __post_init__(self) -> None:
        if not 0.0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be positive and finite, was {self.seconds}")


@csp.graph
def watch(options: Options):
    health = host_health(host_sensors(options.host), options.health)
    csp.print("alerts", health.anomaly_alert)
    csp.print("status", health.status_update)
    csp.print("maintenance", health.maintenance_needed)


def main() -> None:
    options = tyro.cli(Options)
    csp.run(watch, options, starttime=utc_now(), endtime=timedelta(seconds=options.seconds), realtime=True)


if __name__ == "__main__":
    main()
