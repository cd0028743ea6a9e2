"""Every decision is judged once, with its own target, and nothing after it is seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import TokenSeries
from trainer.windows import IGNORED, Windows

CONTEXT = 8


def numbered(*lengths: int) -> list[TokenSeries]:
    """Tokens that say where they are: series s, place t is 1000 s + t. Hours are the place modulo 168."""
    return [
        TokenSeries(
            symbol=f"S{s}", tokens=1_000 * s + np.arange(n), time=np.arange(n) * 10 + 1, hours=np.arange(n) % 168
        )
        for s, n in enumerate(lengths)
    ]


def windows(ranges: list[tuple[int, int]], *lengths: int) -> Windows:
    made = numbered(*lengths)
    return Windows(made, ranges, CONTEXT, symbols=list(range(1, len(made) + 1)), hours=True)


@st.composite
def parts(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    lengths = draw(st.lists(st.integers(2, 60), min_size=1, max_size=4))
    ranges = []
    for n in lengths:
        first = draw(st.integers(0, n - 1))
        ranges.append((first, draw(st.integers(first, n - 1))))
    return lengths, ranges


@given(parts(), st.integers(1, 5), st.integers(1, 3))
def test_every_decision_is_judged_once_by_the_token_after_it(
    part: tuple[list[int], list[tuple[int, int]]], size: int, world: int
) -> None:
    lengths, ranges = part
    made = windows(ranges, *lengths)
    judged = []
    for rank in range(world):
        for batch in made.batches(size, rank, world):
            assert batch.hours is not None
            assert batch.symbols is not None
            assert batch.tokens.shape == batch.targets.shape == batch.hours.shape
            assert batch.tokens.shape[1] == CONTEXT
            for row in range(len(batch.tokens)):
                (places,) = np.nonzero(batch.targets[row].numpy() != IGNORED)
                # Inputs are one run of one series up to the last judged place: nothing later, nothing else.
                seen = batch.tokens[row, : places[-1] + 1].tolist()
                assert seen == list(range(seen[0], seen[0] + len(seen)))
                assert batch.targets[row, places].tolist() == [seen[place] + 1 for place in places]
                assert batch.hours[row, : len(seen)].tolist() == [token % 1_000 % 168 for token in seen]
                assert batch.symbols[row] == seen[0] // 1_000 + 1
                judged += [seen[place] for place in places]
    wanted = [1_000 * s + t for s, (first, last) in enumerate(ranges) for t in range(first, last)]
    assert sorted(judged) == wanted
    assert made.decisions == len(wanted)


def test_a_judged_decision_has_half_a_context_of_history_where_there_is_any() -> None:
    made = windows([(20, 45)], 60)
    for batch in made.batches(100):
        for targets in batch.targets.numpy():
            assert np.flatnonzero(targets != IGNORED)[0] >= CONTEXT // 2 - 1


@given(parts(), st.integers(0, 99))
def test_drawn_windows_lie_within_the_part_and_fill_the_context_where_they_can(
    part: tuple[list[int], list[tuple[int, int]]], seed: int
) -> None:
    lengths, ranges = part
    made = windows(ranges, *lengths)
    if not made.decisions:
        return
    for one, first, last in made.draw(np.random.default_rng(seed), 50):
        begin, end = ranges[one]
        assert begin <= first < last <= end
        assert last - first == min(CONTEXT, end - begin)


def test_every_start_is_as_likely_as_any_other() -> None:
    made = windows([(0, 10), (5, 30), (0, 0), (0, 3)], 12, 31, 4, 9)
    drawn = made.draw(np.random.default_rng(0), 22_000)
    starts, counts = np.unique([1_000 * one + first for one, first, _ in drawn], return_counts=True)
    assert starts.tolist() == [0, 1, 2, *range(1_005, 1_023), 3_000]
    assert counts.min() > 850  # of 1000 expected; five standard deviations below
    assert counts.max() < 1_150


def test_a_batch_judges_all_of_a_drawn_window() -> None:
    made = windows([(0, 20)], 30)
    batch = made.drawn([(0, 3, 11)])
    assert batch.tokens.tolist() == [list(range(3, 11))]
    assert batch.targets.tolist() == [list(range(4, 12))]


@pytest.mark.parametrize("hours", [False, True])
def test_what_the_model_is_not_conditioned_on_is_not_there(hours: bool) -> None:
    made = Windows(numbered(30), [(0, 20)], CONTEXT, symbols=None, hours=hours)
    batch = next(made.batches(1))
    assert batch.symbols is None
    assert (batch.hours is not None) == hours
