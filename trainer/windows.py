"""Tokens as windows of the context's length: drawn at random to train, laid side by side to judge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.data import TokenSeries
from trainer.splits import Ranges

Ints = npt.NDArray[np.int64]

IGNORED = -1  # target of a position that is not judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Windows side by side. Where a series is shorter than T, the rest is token 0 without a target."""

    tokens: Tensor  # (B, T)
    targets: Tensor  # (B, T) the token after each; IGNORED where it is not judged
    hours: Tensor | None  # (B, T)
    symbols: Tensor | None  # (B,)

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        moved = (None if x is None else x.to(device) for x in (self.tokens, self.targets, self.hours, self.symbols))
        tokens, targets, hours, symbols = moved
        assert tokens is not None
        assert targets is not None
        return Batch(tokens=tokens, targets=targets, hours=hours, symbols=symbols)


class Windows:
    """The decisions of one part of the data.

    Args:
        series: tokens by symbol.
        ranges: decisions [first, last) of each series that belong to the part.
        context: T, the length of a window.
        symbols: number of each series for the model; None where it is not conditioned on them.
        hours: whether the model is conditioned on the hour of week.
    """

    def __init__(
        self, series: Sequence[TokenSeries], ranges: Ranges, context: int, *, symbols: Sequence[int] | None, hours: bool
    ) -> None:
        self._series, self._context = series, context
        self._symbols, self._hours = symbols, hours
        self.ranges = ranges
        self.decisions = sum(last - first for first, last in ranges)
        # A window may start wherever it fits whole; in a shorter range at its first token alone.
        starts = [max(1, last - first - context + 1) if last > first else 0 for first, last in ranges]
        self._starts = np.cumsum(starts)

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
        """Windows at random, each start as likely as any other: (series, first, last) of their inputs."""
        picks = rng.integers(int(self._starts[-1]), size=count)
        which = np.searchsorted(self._starts, picks, "right")
        found = []
        for one, pick in zip(which.tolist(), picks.tolist(), strict=True):
            before = int(self._starts[one - 1]) if one else 0
            first, last = self.ranges[one]
            start = first + pick - before
            found.append((one, start, min(start + self._context, last)))
        return found

    def rows(self) -> list[tuple[int, int, int]]:
        """(series, first, last) such that every decision is judged once, by half a context or more of history where
        the series has it: a window judges its later half, the first one of a series all that it has."""
        found = []
        step = max(1, self._context // 2)
        for one, (first, last) in enumerate(self.ranges):
            at = first
            while at < last:
                end = min(at + (self._context if at == 0 else step), last)
                found.append((one, at, end))
                at = end
        return found

    def drawn(self, windows: Sequence[tuple[int, int, int]]) -> Batch:
        """The batch of windows that are judged whole."""
        return self._batch([(one, first, first, last) for one, first, last in windows])

    def laid(self, rows: Sequence[tuple[int, int, int]]) -> Batch:
        """The batch of `rows`, with the history before them in front."""
        return self._batch([(one, max(0, last - self._context), first, last) for one, first, last in rows])

    def batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """All rows of this process, `size` at a time; their judged targets come in order."""
        mine = self.rows()[rank::world]
        for at in range(0, len(mine), size):
            yield self.laid(mine[at : at + size])

    def _batch(self, windows: Sequence[tuple[int, int, int, int]]) -> Batch:
        """(series, start of the inputs, first judged, end) of each."""
        shape = (len(windows), self._context)
        tokens, hours = np.zeros(shape, np.int64), np.zeros(shape, np.int64)  # (B, T)
        targets = np.full(shape, IGNORED, np.int64)  # (B, T)
        for row, (one, start, judged, end) in enumerate(windows):
            series = self._series[one]
            tokens[row, : end - start] = series.tokens[start:end]
            targets[row, judged - start : end - start] = series.tokens[judged + 1 : end + 1]
            if self._hours and series.hours is not None:
                hours[row, : end - start] = series.hours[start:end]
        symbols = None if self._symbols is None else torch.tensor([self._symbols[one] for one, *_ in windows])
        return Batch(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            hours=torch.from_numpy(hours) if self._hours else None,
            symbols=symbols,
        )
