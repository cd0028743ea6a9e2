"""The training window of a manifest, and what is in sample."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import END, START, TRAINING, arguments

from models import checkpoint
from models.checkpoint import Training, read_manifest, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "demo", **arguments())
    return tmp_path / "demo"


@pytest.mark.parametrize(
    "changed",
    [
        {"end": None},
        {"end": START - timedelta(seconds=1)},
        {"start": datetime(2017, 1, 1, tzinfo=UTC)},
        {"bar_s": 0.0},
        {"bar_s": float("nan")},
        {"embargo_bars": -1},
        {"embargo_bars": 10**12},
        {"embargo_end": END - timedelta(seconds=1)},
        {"trials": 0},
        {"data_sha256": "abc"},
        {"symbols": ("A", "A")},
        {"symbols": ("",)},
    ],
)
def test_an_impossible_training_window_is_refused(changed: dict[str, Any]) -> None:
    known = {"start": START, "end": END, "symbols": ("A",), "bar_s": 60.0, "embargo_bars": 1}
    with pytest.raises(ValueError, match=r"must|want"):
        Training(**(known | changed))


@pytest.mark.parametrize(
    ("start", "end", "overlaps"),
    [
        (END + timedelta(hours=257), END + timedelta(days=400), False),
        (END + timedelta(hours=256), END + timedelta(days=400), True),  # the last moment of the embargo
        (END - timedelta(days=1), END + timedelta(days=400), True),
        (START - timedelta(days=9), START - timedelta(microseconds=1), False),
        (START - timedelta(days=9), START, True),
        (START - timedelta(days=9), END + timedelta(days=400), True),
    ],
)
def test_decisions_in_the_window_or_its_embargo_are_in_sample(start: datetime, end: datetime, overlaps: bool) -> None:
    assert TRAINING.overlaps(start, end) is overlaps


def test_the_embargo_follows_the_calendar_where_it_is_known() -> None:
    # 256 hourly bars of a stock, seven a day, take 37 sessions: 53 days, where 256 hours are 11.
    known = {"start": START, "end": END, "symbols": ("AAPL",), "bar_s": 3600.0, "embargo_bars": 256}
    later = END + timedelta(days=30)

    assert not Training(**known).overlaps(later, later)
    assert Training(**known, embargo_end=END + timedelta(days=53)).overlaps(later, later)


def test_an_unknown_window_overlaps_everything() -> None:
    unknown = Training(start=None, end=None, symbols=(), bar_s=60.0, embargo_bars=0)
    assert unknown.overlaps(datetime(1900, 1, 1), datetime(1900, 1, 2))


def test_of_a_known_end_alone_everything_before_it_overlaps(tmp_path: Path) -> None:
    known = Training(start=None, end=END, symbols=(), bar_s=1.0, embargo_bars=0)
    write(tmp_path / "headlines", **arguments(training=known))

    assert read_manifest(tmp_path / "headlines").training == known
    assert known.guard_end == END
    assert known.overlaps(datetime(1900, 1, 1), datetime(1900, 1, 2))
    assert known.overlaps(END, END + timedelta(days=9))
    assert not known.overlaps(END + timedelta(microseconds=1), END + timedelta(days=9))


def test_the_manifest_answers_for_its_training(folder: Path) -> None:
    found = read_manifest(folder)
    assert found.overlap(START, START)
    assert not found.overlap(END + timedelta(days=30), END + timedelta(days=60))


def test_the_modules_names_agree() -> None:
    assert set(checkpoint.__all__) <= set(vars(checkpoint))
