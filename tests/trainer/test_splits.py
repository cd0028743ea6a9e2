"""No decision of one part was within reach of another."""

from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_files import HOUR_NS, START, nanoseconds, series

from feeds.errors import DataError
from tokenizer.bars import BarSeries
from trainer.config import SplitConfig
from trainer.data import TokenSeries, moment
from trainer.splits import Split, folds, ranges, split, tail_ranges, within


def thinned(made: BarSeries, every: int) -> BarSeries:
    """A symbol that trades only in some hours of the day, as a stock does."""
    keep = np.arange(len(made)) % every == 0
    columns = {name: getattr(made, name)[keep] for name in ("close_time", "open", "high", "low", "close", "volume")}
    return BarSeries(symbol=made.symbol, bar_s=made.bar_s, **columns)


def tokens_of(made: BarSeries) -> TokenSeries:
    return TokenSeries(
        symbol=made.symbol, tokens=np.arange(len(made)), time=made.close_time, hours=np.zeros(len(made), np.int64)
    )


def laid(*hours: tuple[int, int]) -> Split:
    """Parts by hours after START, with the least purge and no embargo."""
    train, validation, test = ((START + timedelta(hours=a), START + timedelta(hours=b)) for a, b in hours)
    return Split(train=train, validation=validation, test=test, embargo_end=validation[1], purge_bars=1, embargo_bars=0)


def test_parts_of_one_symbol_lie_where_the_config_says() -> None:
    bars = {"AAA": series(bars=1_000)}
    end = START + timedelta(hours=800)
    config = SplitConfig(validation_start=START + timedelta(hours=700), end=end, purge_bars=1, embargo_bars=50)

    found = split(bars, config)

    assert found.train == (START + timedelta(hours=1), START + timedelta(hours=649))  # 51 bars before validation
    assert found.validation == (START + timedelta(hours=700), end)
    assert found.window == (START + timedelta(hours=1), end)
    assert found.embargo_end == end + timedelta(hours=50)
    assert found.test is not None
    assert found.test[0] > found.embargo_end


def test_a_decision_belongs_to_a_part_with_the_bar_that_judges_it() -> None:
    made = tokens_of(series(bars=10))

    found = ranges([made], laid((1, 3), (4, 8), (8, 11)))

    assert found == {
        "train": [(0, 1)],  # decided at 1; judged at 2
        "validation": [(3, 6)],  # decided at 4, 5, 6; judged at 5, 6, 7
        "test": [(7, 9)],  # decided at 8, 9; judged at 9, 10
    }


def test_a_part_without_bars_has_no_decision() -> None:
    made = tokens_of(series(bars=10))
    found = ranges([made], laid((-90, -50), (-50, 0), (20, 30)))
    assert all(first == last for ((first, last),) in found.values())


def test_a_test_within_the_embargo_is_refused() -> None:
    bars = {"AAA": series(bars=1_000)}
    end = START + timedelta(hours=800)
    config = SplitConfig(end=end, embargo_bars=50, test_start=end + timedelta(hours=50))
    with pytest.raises(DataError, match="must be after the embargo"):
        split(bars, config)


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"embargo_bars": 990}, "nothing is left to train on"),
        ({"validation_start": datetime(2025, 1, 1)}, "validation starts at"),
        ({"start": datetime(2025, 1, 1)}, "validation starts at|nothing is left"),
    ],
)
def test_an_empty_part_is_refused(settings_: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        split({"AAA": series(bars=1_000)}, SplitConfig(**{"embargo_bars": 16, **settings_}))


def test_without_bars_after_the_window_there_is_no_test() -> None:
    assert split({"AAA": series(bars=1_000)}, SplitConfig(embargo_bars=16)).test is None


@settings(max_examples=60, deadline=None)
@given(
    every=st.integers(1, 24),
    late=st.integers(0, 400),
    short=st.integers(50, 1_500),
    end=st.integers(700, 1_200),
    purge=st.integers(1, 5),
    embargo=st.integers(0, 60),
    fraction=st.floats(0.05, 0.4),
)
def test_parts_are_apart_in_time_and_in_bars_of_every_symbol(
    every: int, late: int, short: int, end: int, purge: int, embargo: int, fraction: float
) -> None:
    bars = {
        "AAA": series("AAA", 1_500),
        "SLOW": thinned(series("SLOW", 1_500), every),
        "LATE": series("LATE", short, first=START + timedelta(hours=late)),
    }
    config = SplitConfig(
        validation_fraction=fraction, end=START + timedelta(hours=end), purge_bars=purge, embargo_bars=embargo
    )
    try:
        found = split(bars, config)
    except DataError:
        return

    window_end = nanoseconds(found.window[1])
    for made in bars.values():
        one = tokens_of(made)
        parts = {name: part[0] for name, part in ranges([one], found).items()}
        train, validation = parts["train"], parts["validation"]
        if train[1] > train[0] and validation[1] > validation[0]:
            # between the last bar that training was judged by and the first decision of the validation
            between = validation[0] - train[1]
            assert between > purge + embargo
            apart = made.close_time[validation[0]] - made.close_time[train[1]]
            assert apart > (purge + embargo) * HOUR_NS
        if found.test is not None:
            first, last = parts["test"]
            if last > first:
                seen = int(np.searchsorted(made.close_time, window_end, "left"))
                assert first - seen >= embargo
                assert made.close_time[first] > nanoseconds(found.embargo_end)
                assert made.close_time[first] - window_end >= embargo * HOUR_NS


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 6), every=st.integers(1, 6), embargo=st.integers(1, 40))
def test_folds_test_everything_once_and_each_is_a_split_of_its_own(count: int, every: int, embargo: int) -> None:
    bars = {"AAA": series("AAA", 1_500), "SLOW": thinned(series("SLOW", 1_500), every)}
    config = SplitConfig(end=START + timedelta(hours=900), embargo_bars=embargo)
    made = folds(bars, config, count)

    assert len(made) == count
    tests = [one.test for one in made if one.test is not None]
    assert len(tests) == count
    whole = split(bars, config).test
    assert whole is not None
    assert tests[0][0] == whole[0]
    assert abs(tests[-1][1] - whole[1]) <= timedelta(microseconds=2)
    for one, (start, _) in zip(made, tests, strict=True):
        assert one.embargo_end < start
        assert one.window[1] < start
    for (_, before), (after, _) in pairwise(tests):
        assert abs(after - before) <= timedelta(microseconds=2)
    windows = [one.window[1] for one in made]
    assert windows == sorted(windows)


def test_walking_forward_without_a_test_is_refused() -> None:
    with pytest.raises(DataError, match="walk-forward wants bars after"):
        folds({"AAA": series(bars=500)}, SplitConfig(embargo_bars=16), 3)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.floats(0.01, 0.9), st.integers(1, 3))
def test_plain_tokens_validate_at_their_end(lengths: list[int], fraction: float, purge: int) -> None:
    made = [TokenSeries(symbol="", tokens=np.arange(n), time=None, hours=None) for n in lengths]
    train, validation = tail_ranges(made, fraction, purge)
    for n, (t0, t1), (v0, v1) in zip(lengths, train, validation, strict=True):
        assert 0 == t0 <= t1 <= v0 <= v1 == max(n - 1, v0)
        assert t1 == 0 or v0 - t1 >= purge


def test_bars_within_a_part_leave_out_symbols_that_have_none() -> None:
    bars = {"AAA": series("AAA", 100), "LATE": series("LATE", 100, first=START + timedelta(hours=100))}
    part = (START, START + timedelta(hours=51))
    found = within(bars, part)
    assert list(found) == ["AAA"]
    assert moment(int(found["AAA"].close_time[-1])) == START + timedelta(hours=50)
