"""What every contestant is given, and how each says what it did.

Plain Python: the scripts beside it run in two virtual environments, ours and the peers'.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar

FAST, SLOW = 10, 20  # bars
QUANTITY = 1  # held long or short
CASH = 1_000_000
FEE = 0.001  # of the notional
NEAR = 1e-12  # averages nearer than this fraction are equal: a cross must not be made of rounding

T = TypeVar("T")


def cpu_s() -> float:
    """User and system seconds of this process and its threads so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """CPU seconds and wall seconds of the engine alone."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0

    def time(self, work: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), cpu_s()
        result = work()
        self.cpu_s, self.wall_s = cpu_s() - cpu, time.perf_counter() - wall
        return result


def report(watch: Stopwatch, packages: tuple[str, ...], **found: Any) -> None:
    """Tell the driver, on the last line of standard output."""
    versions = {name: version(name) for name in packages}
    json.dump({"engine_cpu_s": watch.cpu_s, "engine_wall_s": watch.wall_s, "versions": versions, **found}, sys.stdout)
    print()
