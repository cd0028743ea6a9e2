"""Every trade once and in order: the pure half, under any interleaving of batches, drops, repetitions and pages."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.crypto_order import Counted, Recent


def pairs(*ids: int) -> Iterator[tuple[int, str]]:
    return ((trade_id, f"trade {trade_id}") for trade_id in ids)


def names(*ids: int) -> list[str]:
    return [f"trade {trade_id}" for trade_id in ids]


def begun(first: int, hold_max: int = 100) -> Counted[str]:
    order: Counted[str] = Counted(hold_max)
    assert order.start(first) == []
    return order


def test_ids_in_order_leave_at_once() -> None:
    order = begun(5)

    assert order.offer(pairs(5, 6)) == names(5, 6)
    assert order.offer(pairs(7)) == names(7)
    assert (order.next_id, order.missing(), order.duplicates, order.late, order.lost) == (8, None, 0, 0, 0)


def test_what_comes_after_a_gap_waits_and_the_gap_is_named_exactly() -> None:
    order = begun(5)

    assert order.offer(pairs(5, 9, 10)) == names(5)
    assert order.missing() == (6, 8)
    assert order.fill(pairs(6, 7)) == names(6, 7)
    assert order.missing() == (8, 8)
    assert order.fill(pairs(8)) == names(8, 9, 10)
    assert order.missing() is None


def test_a_live_trade_that_was_overtaken_is_counted_and_leaves_in_its_place() -> None:
    order = begun(1)

    assert order.offer(pairs(2, 1, 3)) == names(1, 2, 3)
    assert (order.late, order.duplicates) == (1, 0)


def test_repetitions_are_dropped_and_counted_wherever_they_come_from() -> None:
    order = begun(1)
    order.offer(pairs(1, 2, 5))

    assert order.offer(pairs(1, 5)) == []
    assert order.fill(pairs(2, 3, 3, 4, 5)) == names(3, 4, 5)
    assert order.duplicates == 5


def test_before_it_knows_where_to_begin_everything_waits_and_what_is_older_than_the_beginning_is_dropped() -> None:
    order: Counted[str] = Counted(100)

    assert order.offer(pairs(7, 8, 9)) == []
    assert order.first_held() == 7
    assert order.missing() is None
    assert order.start(8) == names(8, 9)
    assert order.offer(pairs(10)) == names(10)


def test_what_the_exchange_does_not_have_is_given_up_and_counted() -> None:
    order = begun(1)
    order.offer(pairs(1, 6, 7))
    order.fill(pairs(3))

    assert order.give_up(6) == names(3, 6, 7)
    assert order.lost == 3  # 2, 4 and 5
    assert order.give_up(4) == []
    assert order.next_id == 8


def test_more_than_memory_may_hold_gives_the_oldest_gap_up() -> None:
    order = begun(1, hold_max=3)

    assert order.offer(pairs(3, 4, 6)) == []
    assert order.offer(pairs(7)) == names(3, 4)
    assert (order.lost, order.missing()) == (2, (5, 5))


def test_more_than_memory_may_hold_before_the_beginning_begins_there() -> None:
    order: Counted[str] = Counted(2)

    assert order.offer(pairs(5, 6, 7)) == names(5, 6, 7)
    assert order.next_id == 8


def test_ids_that_begin_anew_are_taken_after_a_restart() -> None:
    order = begun(500)
    order.offer(pairs(500))

    assert order.offer(pairs(1)) == []
    order.restart()
    assert order.start(1) == []
    assert order.offer(pairs(1, 2)) == names(1, 2)


@pytest.mark.parametrize("hold_max", [0, -1])
def test_a_hold_of_nothing_is_refused(hold_max: int) -> None:
    with pytest.raises(ValueError, match="hold_max must be positive"):
        Counted(hold_max)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), count=st.integers(1, 60), first=st.integers(0, 10**12))
def test_any_interleaving_of_batches_drops_repetitions_and_pages_gives_every_id_once_and_in_order(
    data: st.DataObject, count: int, first: int
) -> None:
    # The live stream loses, repeats and reorders; each reply to a request is any part of what was asked for, and may
    # come late, when the live stream has filled the gap itself.
    ids = list(range(first, first + count))
    order = begun(first)
    out: list[str] = []
    replies: list[list[int]] = []
    live = [i for i in ids for _ in range(data.draw(st.integers(0, 2)))]
    live = data.draw(st.permutations(live)) if data.draw(st.booleans()) else live
    while live:
        size = data.draw(st.integers(1, len(live)))
        batch, live = live[:size], live[size:]
        out += order.offer(pairs(*batch))
        gap = order.missing()
        if gap is not None:
            replies.append(list(range(gap[0], min(gap[1], gap[0] + data.draw(st.integers(0, 5))) + 1)))
        if replies and data.draw(st.booleans()):
            out += order.fill(pairs(*replies.pop(0)))
        assert out == names(*range(first, first + len(out)))
    while (gap := order.missing()) is not None:
        size = data.draw(st.integers(1, 5))
        out += order.fill(pairs(*range(gap[0], min(gap[1], gap[0] + size - 1) + 1)))
    out += order.fill(pairs(*range(order.next_id or first, first + count)))  # what came after the last live one

    assert out == names(*ids)
    assert (order.held, order.lost) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 40), max_size=8), max_size=12),
    given_up=st.lists(st.integers(0, 45), max_size=3),
)
def test_ids_leave_in_strict_order_and_no_id_is_both_lost_and_sent(
    batches: list[list[int]], given_up: list[int]
) -> None:
    order = begun(0, hold_max=6)
    out: list[str] = []
    for turn, batch in enumerate(batches):
        out += order.offer(pairs(*batch))
        if turn < len(given_up):
            out += order.give_up(given_up[turn])

    sent = [int(name.split()[1]) for name in out]
    assert sent == sorted(set(sent))
    assert order.next_id is not None
    assert order.lost == order.next_id - len(sent)
    assert order.held <= 6


def keyed(*keys: str) -> Iterator[tuple[str, str]]:
    return ((key, key) for key in keys)


def test_without_counts_each_key_leaves_once() -> None:
    order: Recent[str] = Recent(10, 10)

    assert order.offer(keyed("a", "b", "a")) == ["a", "b"]
    assert order.offer(keyed("b", "c")) == ["c"]
    assert order.duplicates == 2


def test_what_a_pause_holds_back_follows_what_was_fetched() -> None:
    order: Recent[str] = Recent(10, 10)
    order.offer(keyed("a"))

    order.pause()
    assert order.offer(keyed("c", "d", "d")) == []
    assert (order.held, order.holds("c"), order.knows("a")) == (2, True, True)
    assert order.fill(keyed("a", "b", "c")) == ["b", "c"]
    assert order.resume() == ["d"]
    assert order.offer(keyed("e")) == ["e"]


def test_a_pause_that_holds_more_than_memory_may_ends_by_itself() -> None:
    order: Recent[str] = Recent(10, 2)
    order.pause()

    assert order.offer(keyed("a", "b")) == []
    assert order.offer(keyed("c")) == ["a", "b", "c"]
    assert not order.paused


def test_keys_are_remembered_as_far_as_the_window_reaches() -> None:
    order: Recent[str] = Recent(2, 10)
    order.offer(keyed("a", "b", "c"))

    assert order.offer(keyed("b", "c")) == []
    assert order.offer(keyed("a")) == ["a"]


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window and hold_max must be positive"):
        Recent(0, 1)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), count=st.integers(1, 40))
def test_without_counts_any_cut_of_the_connection_gives_every_trade_once_and_in_order(
    data: st.DataObject, count: int
) -> None:
    # Each connection brings a run of trades, perhaps beginning with some that came already; the page after it brings
    # what came since, and may overlap on both sides.
    everything = [f"t{i}" for i in range(count)]
    order: Recent[str] = Recent(1000, 1000)
    out: list[str] = []
    now = 0
    while now < count:
        missed = data.draw(st.integers(0, 5))
        begin = min(count, now + missed)
        end = data.draw(st.integers(begin, count))
        order.pause()
        out += order.offer(keyed(*everything[max(0, begin - data.draw(st.integers(0, 3))) : end]))
        out += order.fill(keyed(*everything[max(0, now - data.draw(st.integers(0, 3))) : min(count, begin + 2)]))
        out += order.resume()
        now = max(end, min(count, begin + 2))

    assert out == everything
