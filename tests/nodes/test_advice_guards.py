"""The same news is read once, and no more calls are made than were allowed."""

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0

from nodes.advice_guards import Budget, Recent

DAY = timedelta(days=1)


def test_letter_case_accents_and_punctuation_make_no_other_news() -> None:
    recent = Recent(DAY, 1.0)

    assert not recent.repeats("Café Co. rallies", "A", T0)
    assert recent.repeats("cafe co RALLIES!", "A", T0)


def test_near_duplicates_are_those_of_the_similarity_asked_for() -> None:
    # "a b c d e" and "a b c d f" share 3 of 5 pairs of words.
    for similar_min, same in ((0.6, True), (0.61, False)):
        recent = Recent(DAY, similar_min)
        recent.repeats("a b c d e", "A", T0)
        assert recent.repeats("a b c d f", "A", T0) is same


def test_what_rises_and_what_falls_is_not_the_same_news_however_alike() -> None:
    recent = Recent(DAY, 0.7)
    text = "Acme of Springfield {} the forecasts of analysts for the fourth quarter of this year, it says"

    assert not recent.repeats(text.format("beats"), "A", T0)
    assert not recent.repeats(text.format("misses"), "A", T0)
    assert recent.repeats(text.format("easily beats"), "A", T0)


def test_another_symbol_is_another_news() -> None:
    recent = Recent(DAY, 0.7)

    assert [recent.repeats("all rise", symbol, T0) for symbol in ("A", "B", "", "A", "")] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_what_is_older_than_the_window_is_forgotten() -> None:
    recent = Recent(DAY, 0.7)
    recent.repeats("all rise", "A", T0)

    assert recent.repeats("all rise", "A", T0 + DAY)
    assert not recent.repeats("all rise", "A", T0 + DAY + timedelta(microseconds=1))


def test_what_was_not_read_after_all_is_forgotten() -> None:
    recent = Recent(DAY, 0.7)
    recent.repeats("all rise", "A", T0)
    recent.repeats("some fall", "A", T0)
    recent.forget()

    assert not recent.repeats("some fall", "A", T0)
    assert recent.repeats("all rise", "A", T0)


def test_memory_has_an_end() -> None:
    recent = Recent(DAY, 0.7)
    for n in range(5_000):
        assert not recent.repeats(f"w{n} x{n} y{n}", "A", T0)

    assert len(recent._seen) == 2_048


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 7_200), max_size=60).map(sorted), st.integers(1, 5))
def test_in_no_hour_are_there_more_calls_than_allowed(seconds: list[int], most: int) -> None:
    budget = Budget(most, 1_000)
    taken: list[datetime] = []
    for second in seconds:
        now = T0 + timedelta(seconds=second)
        if budget.book(now):
            taken.append(now)
        else:
            assert sum(now - then < timedelta(hours=1) for then in taken) == most

    for now in taken:
        assert sum(timedelta() <= now - then < timedelta(hours=1) for then in taken) <= most


def test_the_day_is_that_of_utc() -> None:
    budget = Budget(1_000, 2)
    midnight = datetime(2024, 1, 3)
    times = [midnight - timedelta(seconds=s) for s in (3, 2, 1)] + [midnight + timedelta(seconds=s) for s in (0, 1, 2)]

    assert [budget.book(now) for now in times] == [True, True, False, True, True, False]
