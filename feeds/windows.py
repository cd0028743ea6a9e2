"""Windows of time as sets of moments: what is covered, what is missing."""

from collections.abc import Sequence
from datetime import datetime

Window = tuple[datetime, datetime]  # naive; the end is outside


def union(windows: Sequence[Window]) -> list[Window]:
    """The same moments as disjoint windows in order."""
    merged: list[Window] = []
    for start, end in sorted(windows):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif start < end:
            merged.append((start, end))
    return merged


def subtract(windows: Sequence[Window], held: Sequence[Window]) -> list[Window]:
    """The moments of `windows` that are not in `held`, as disjoint windows in order."""
    left = union(windows)
    for start, end in union(held):
        left = [piece for a, b in left for piece in ((a, min(b, start)), (max(a, end), b)) if piece[0] < piece[1]]
    return left
