"""Waiting before the next attempt."""

import random

import pytest

from feeds.backoff import Backoff


def test_waits_grow_to_the_most_and_are_never_zero() -> None:
    backoff = Backoff(0.5, 8.0, random.Random(1))

    waits = [backoff.next_s() for _ in range(200)]

    for n, wait in enumerate(waits):
        assert 0.0 < wait <= min(8.0, 0.5 * 2**n)
    assert max(waits) > 7.5  # the whole range is used


def test_success_makes_the_next_wait_short() -> None:
    backoff = Backoff(0.5, 8.0, random.Random(1))
    for _ in range(10):
        backoff.next_s()

    backoff.reset()

    assert backoff.next_s() <= 0.5


def test_what_the_server_asks_for_is_waited() -> None:
    assert Backoff(0.5, 8.0, random.Random(1)).next_s(at_least_s=30.0) == 30.0


@pytest.mark.parametrize(("first", "most"), [(0.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_impossible_limits_are_refused(first: float, most: float) -> None:
    with pytest.raises(ValueError, match="want 0 < first_s <= most_s"):
        Backoff(first, most, random.Random(1))
