"""Training, validation and test by the calendar, the same moments for every symbol.

Symbols move together, so a split by symbol or at random tests on what was trained on. Here a bar belongs to a part by
its close. A decision is made at one bar and judged at the next: it belongs to a part when both lie in it. Inputs of a
decision may be older than its part; that is history, not hindsight.

Source: Lopez de Prado, "Advances in Financial Machine Learning", 2018, chapter 7 (purging and embargo).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from feeds.errors import DataError
from tokenizer.bars import BarSeries
from trainer.config import SplitConfig
from trainer.data import TokenSeries, moment, nanoseconds, span

_US = timedelta(microseconds=1)  # the finest step of a datetime

Part = tuple[datetime, datetime]  # [start, end) of bar closes, naive UTC
Ranges = list[tuple[int, int]]  # of each series: decisions [first, last) as positions of their input token


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Calendar parts. The training window is [train start, validation end): both chose the weights."""

    train: Part
    validation: Part
    test: Part | None  # None: no bar is left
    embargo_end: datetime  # no decision up to here counts as out of sample
    purge_bars: int
    embargo_bars: int

    @property
    def window(self) -> Part:
        return self.train[0], self.validation[1]


def split(series: Mapping[str, BarSeries], config: SplitConfig) -> Split:
    """Lay the parts out over all symbols.

    Training ends `purge_bars + embargo_bars` before validation starts, and no test decision is made within
    `embargo_bars` after the window, both counted in bars of the symbol that has the fewest there.

    Raises:
        DataError: a part would be empty, or the test would start within the embargo.
    """
    first, last = span(series)
    start = max(config.start or first, first)
    end = min(config.end or last + _US, last + _US)
    validation_start = config.validation_start or end - (end - start) * config.validation_fraction
    embargo_end = _after(series, end, config.embargo_bars)
    train_end = _before(series, validation_start, config.purge_bars + config.embargo_bars)
    if not start < train_end:
        raise DataError(
            f"nothing is left to train on: bars start at {start}, and training must end at {train_end}, "
            f"{config.purge_bars} + {config.embargo_bars} bars before validation starts at {validation_start}"
        )
    if not validation_start < end:
        raise DataError(f"validation starts at {validation_start}, when the data or the window have ended at {end}")
    test_start = config.test_start or embargo_end + _US
    test_end = min(config.test_end + _US if config.test_end else last + _US, last + _US)
    if test_start <= embargo_end and config.test_start:
        raise DataError(f"split.test_start must be after the embargo, which ends at {embargo_end}, was {test_start}")
    test = (test_start, test_end) if test_start < test_end else None
    return Split(
        train=(start, train_end),
        validation=(validation_start, end),
        test=test,
        embargo_end=embargo_end,
        purge_bars=config.purge_bars,
        embargo_bars=config.embargo_bars,
    )


def within(series: Mapping[str, BarSeries], part: Part) -> dict[str, BarSeries]:
    """The bars of a part, of the symbols that have any."""
    cut = {name: bars.slice(nanoseconds(part[0]), nanoseconds(part[1])) for name, bars in series.items()}
    return {name: bars for name, bars in cut.items() if len(bars)}


def ranges(series: Sequence[TokenSeries], laid: Split) -> dict[str, Ranges]:
    """Which decisions of each series lie in train, validation and test (where there is one), by the time of their bar
    and of the one that they are judged by.

    The distance in bars holds for each series, also for one with too few bars for the calendar to see to it.
    """
    parts = {"train": laid.train, "validation": laid.validation, "test": laid.test}
    found: dict[str, Ranges] = {name: [] for name, part in parts.items() if part is not None}
    gap = laid.purge_bars + laid.embargo_bars
    for one in series:
        edges = {name: _positions(one, part) for name, part in parts.items() if part is not None}
        held, seen = edges["validation"]
        for name, (first, end) in edges.items():
            last = end - 1  # the last bar of a part judges, and decides nothing
            if name == "train" and held < len(one):
                last = min(last, held - gap - 1)
            start = max(first, seen + laid.embargo_bars) if name == "test" else first
            found[name].append((start, max(start, last)))
    return found


def _positions(one: TokenSeries, part: Part) -> tuple[int, int]:
    """The bars [first, end) of a part."""
    if one.time is None:
        raise ValueError("tokens without times have no calendar parts")
    first, end = np.searchsorted(one.time, [nanoseconds(part[0]), nanoseconds(part[1])], "left")
    return int(first), int(end)


def tail_ranges(series: Sequence[TokenSeries], fraction: float, purge: int) -> tuple[Ranges, Ranges]:
    """Training and validation decisions of tokens without times: the end of each series validates."""
    train: Ranges = []
    validation: Ranges = []
    for one in series:
        decisions = len(one) - 1
        cut = decisions - int(decisions * fraction)
        train.append((0, max(0, cut - purge)))
        validation.append((cut, max(cut, decisions)))
    return train, validation


def folds(series: Mapping[str, BarSeries], config: SplitConfig, count: int) -> list[Split]:
    """Walk-forward: the time from the first test decision to the end of the data in `count` equal parts, each the test
    of a model that was trained on everything before it.

    The first window is the config's; each later one grows to keep the same distance from its own test. Validation
    keeps its length.

    Raises:
        DataError: as `split`.
    """
    whole = split(series, config)
    if whole.test is None:
        raise DataError("walk-forward wants bars after the training window and its embargo: set split.end earlier")
    (test_start, test_end), end = whole.test, whole.validation[1]
    length, held = (test_end - test_start) / count, end - whole.validation[0]
    made = []
    for fold in range(count):
        edges = test_start + fold * length, test_start + (fold + 1) * length
        wanted = end + fold * length
        made.append(_fold(series, config, wanted, held, (edges[0], test_end if fold == count - 1 else edges[1])))
    return made


def _fold(series: Mapping[str, BarSeries], config: SplitConfig, end: datetime, held: timedelta, test: Part) -> Split:
    """One fold. Where holidays stretch the embargo beyond its test's start, the window ends that much earlier."""
    end = min(end, _before(series, test[0], config.embargo_bars) - _US)
    laid = replace(config, validation_start=end - held, end=end, test_start=test[0], test_end=test[1] - _US)
    return split(series, laid)


def _before(series: Mapping[str, BarSeries], when: datetime, bars: int) -> datetime:
    """So early that every symbol which trades on both sides has `bars` bars from there up to `when`."""
    edge, earliest = nanoseconds(when), when - timedelta(seconds=bars * _bar_s(series))
    for one in series.values():
        at = int(np.searchsorted(one.close_time, edge, "left"))
        if bars <= at < len(one):
            earliest = min(earliest, moment(int(one.close_time[at - bars])))
    return earliest


def _after(series: Mapping[str, BarSeries], when: datetime, bars: int) -> datetime:
    """So late that every symbol which trades on both sides has `bars` bars from `when` up to there."""
    edge, latest = nanoseconds(when), when + timedelta(seconds=bars * _bar_s(series))
    for one in series.values():
        at = int(np.searchsorted(one.close_time, edge, "left"))
        if 0 < bars <= min(at, len(one) - at):
            latest = max(latest, moment(int(one.close_time[at + bars - 1]) + 999))
    return latest


def _bar_s(series: Mapping[str, BarSeries]) -> float:
    return next(iter(series.values())).bar_s
