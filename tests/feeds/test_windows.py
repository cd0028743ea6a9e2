"""Windows of time as sets."""

from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.windows import Window, subtract, union

HOUR = timedelta(hours=1)
T0 = datetime(2024, 1, 1)
hours = st.integers(0, 60).map(lambda h: T0 + h * HOUR)
windows = st.lists(st.tuples(hours, hours), max_size=6)  # some are empty, some run backwards: those hold nothing


def moments(pieces: list[Window]) -> set[datetime]:
    return {a + i * HOUR for a, b in pieces for i in range(int((b - a) / HOUR))}


@settings(max_examples=200, deadline=None)
@given(windows, windows)
def test_union_and_subtract_agree_with_sets_of_hours(some: list[Window], held: list[Window]) -> None:
    for result, wanted in ((union(some), moments(some)), (subtract(some, held), moments(some) - moments(held))):
        assert moments(result) == wanted
        assert all(a < b for a, b in result)
        assert all(before[1] < after[0] for before, after in pairwise(result))


def test_a_hole_in_the_middle_leaves_two_pieces() -> None:
    day = [T0 + i * HOUR for i in range(24)]
    assert subtract([(day[0], day[9])], [(day[3], day[5])]) == [(day[0], day[3]), (day[5], day[9])]
    assert union([(day[5], day[9]), (day[0], day[5]), (day[2], day[3])]) == [(day[0], day[9])]
    assert union([]) == subtract([], [(day[0], day[1])]) == []
