"""Figures beside their limits, as a person reads them."""

import math
from datetime import datetime


def apart(value: float, limit: float, places: int = 4) -> tuple[str, str]:
    """A figure and its limit with as many digits, at least `places` behind the point, as it takes for two that differ
    to differ as printed."""
    if math.isfinite(value) and math.isfinite(limit) and value != limit:
        while f"{value:.{places}f}" == f"{limit:.{places}f}":
            places += 1
    return f"{value:.{places}f}", f"{limit:.{places}f}"


def passed(code: str, value: float, limit: float, at: datetime | None = None) -> str:
    """What passed its limit, now or `at` a time, such as "drawdown is 0.3600, the limit 0.3500"."""
    was, most = apart(value, limit)
    return f"{code} is {was}, the limit {most}" if at is None else f"{code} was {was} at {at}, the limit {most}"
