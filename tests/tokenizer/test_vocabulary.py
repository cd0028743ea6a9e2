import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tokenizer.vocabulary import (
    TokenRow,
    code_returns,
    grams,
    independent,
    lift,
    memory,
    outliers,
    surprise,
    transitions,
    usage,
)

tokens = hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 4))


def row(said: list[int], symbol: str = "A", **columns: np.ndarray) -> TokenRow:
    return TokenRow(symbol=symbol, tokens=np.array(said, np.int64), **columns)


def chain(count: int, vocabulary: int, stay: float, seed: int = 0) -> TokenRow:
    """Each token repeats the one before with probability `stay`, else it is any."""
    random = np.random.default_rng(seed)
    fresh = random.integers(0, vocabulary, count)
    keep = random.random(count) < stay
    said = fresh.copy()
    for i in range(1, count):
        if keep[i]:
            said[i] = said[i - 1]
    return TokenRow(symbol="CHAIN", tokens=said)


def test_usage_counts_codes_over_all_rows() -> None:
    found = usage([row([0, 0, 1]), row([1, 2, 2], "B")], 5)

    assert found.counts.tolist() == [2, 2, 2, 0, 0]
    assert found.perplexity == pytest.approx(3.0)
    assert found.entropy_bits == pytest.approx(math.log2(3))
    assert found.unused == 2
    assert found.half == 2


def test_usage_of_nothing_is_zero() -> None:
    found = usage([], 3)

    assert (found.entropy_bits, found.perplexity, found.unused, found.half) == (0.0, 0.0, 3, 0)


@given(st.lists(tokens, max_size=4))
@settings(max_examples=100)
def test_transitions_are_pairs_within_a_row(said: list[np.ndarray]) -> None:
    wanted = np.zeros((5, 5), np.int64)
    for one in said:
        for before, after in pairwise(one.tolist()):
            wanted[before, after] += 1

    assert np.array_equal(transitions([TokenRow(symbol="", tokens=one) for one in said], 5), wanted)


def test_lift_is_zero_where_bars_are_independent_and_positive_where_they_follow() -> None:
    even = np.full((2, 2), 50.0)
    assert lift(np.array([[50, 50], [50, 50]]), even) == pytest.approx(np.zeros((2, 2)))
    assert lift(np.array([[90, 10], [10, 90]]), even, prior=0.0)[0, 0] == pytest.approx(math.log2(90 / 50))
    assert lift(np.zeros((3, 3), np.int64), np.zeros((3, 3))) == pytest.approx(np.zeros((3, 3)))


def test_independent_bars_have_the_margins_of_those_seen() -> None:
    one = row([0, 1, 1, 0, 2])

    assert independent([one], 3).tolist() == [[0.5, 1.0, 0.5], [0.5, 1.0, 0.5], [0.0, 0.0, 0.0]]
    assert independent([row([]), row([1])], 3).tolist() == np.zeros((3, 3)).tolist()


def test_what_two_symbols_differ_in_is_no_order() -> None:
    random = np.random.default_rng(0)
    rows = [TokenRow(symbol=str(low), tokens=random.integers(low, low + 4, 20_000)) for low in (0, 4)]

    assert np.abs(memory(rows, 8, seed=0).bits).max() < 0.01  # all together would say: a bit
    assert lift(transitions(rows, 8), independent(rows, 8)) == pytest.approx(np.zeros((8, 8)), abs=0.15)
    assert max(gram.z for gram in grams(rows, 8, 2, 9)) < 4.0


def test_memory_finds_what_is_there_and_nothing_where_there_is_none() -> None:
    held, free = memory([chain(20_000, 8, 0.5)], 8, seed=0), memory([chain(20_000, 8, 0.0)], 8, seed=0)

    # The chain's own: the later token is the same with probability a = s + (1 - s) / 8, else any of the seven others.
    for lag, bits in zip(held.lags[:3].tolist(), held.bits[:3].tolist(), strict=True):
        same = 0.5**lag + (1 - 0.5**lag) / 8
        other = (1 - same) / 7
        assert bits == pytest.approx(3 + same * math.log2(same) + 7 * other * math.log2(other), abs=0.01)
    assert np.abs(free.bits).max() < 0.01
    assert np.array_equal(memory([chain(500, 4, 0.5)], 4, seed=1).bits, memory([chain(500, 4, 0.5)], 4, seed=1).bits)


def test_memory_leaves_out_lags_that_too_few_tokens_reach() -> None:
    assert memory([chain(30, 8, 0.5)], 8, seed=0).lags.tolist() == [1, 2, 3, 4, 6, 8, 12, 16]
    assert len(memory([], 8, seed=0).lags) == 0


def test_grams_find_a_sequence_that_was_put_there() -> None:
    random = np.random.default_rng(0)
    said = random.integers(0, 16, 4_000)
    for start in range(0, 4_000, 100):
        said[start : start + 3] = (3, 1, 4)

    best = grams([TokenRow(symbol="", tokens=said)], 16, 3, 5)[0]

    assert best.codes == (3, 1, 4)
    assert best.count >= 40
    assert best.z == pytest.approx((best.count - best.expected) / math.sqrt(best.expected))


def test_grams_do_not_reach_from_one_row_to_the_next() -> None:
    rows = [row([0, 1]) for _ in range(10)]

    assert [(gram.codes, gram.count) for gram in grams(rows, 2, 2, 9)] == [((0, 1), 10)]
    assert grams(rows, 2, 3, 9) == []
    with pytest.raises(ValueError, match="length must be"):
        grams(rows, 2, 1, 9)
    with pytest.raises(ValueError, match="length must be"):
        grams(rows, 65_536, 4, 9)


def test_surprise_is_the_textbook_bigram() -> None:
    found = surprise([row([0, 1, 0, 1, 0, 1, 0, 0, 1, 1])], 2, fit_share=0.7)

    # Learned from 0 1 0 1 0 1 0: three pairs 0 1, three pairs 1 0; four 0 and three 1.
    p0, p1 = 5 / 9, 4 / 9
    assert found.unigram[0][-1] == pytest.approx(-math.log2(p1))
    assert found.bigram[0][7] == pytest.approx(-math.log2((0 + 2 * p0) / (3 + 2)))  # 0 after 0
    assert found.bigram[0][8] == pytest.approx(-math.log2((3 + 2 * p1) / (3 + 2)))  # 1 after 0
    assert math.isnan(found.bigram[0][0])
    assert found.judged_from == [7]
    assert len(found.after(found.bigram)) == 3


def test_surprise_on_the_rest_finds_order_and_what_breaks_it() -> None:
    wheel = np.arange(2_000) % 10
    wheel[1_900] = 3  # after 9
    one = TokenRow(symbol="WHEEL", tokens=wheel, close_time=np.arange(2_000) * 10**9, z=np.full(2_000, 0.5))

    found = surprise([one], 10)
    named = outliers([one], found, 2)

    assert found.after(found.bigram).mean() < 0.2 < 3.0 < found.after(found.unigram).mean()
    assert (named[0].symbol, named[0].row, named[0].index) in {("WHEEL", 0, 1_900), ("WHEEL", 0, 1_901)}
    assert {outlier.index for outlier in named} == {1_900, 1_901}
    assert named[0].close_time_ns == named[0].index * 10**9
    assert named[0].z == 0.5
    assert named[0].bits >= named[1].bits > 6.0


def test_both_models_are_judged_on_the_same_tokens() -> None:
    early = row([0, 1] * 50, close_time=np.arange(100))
    late = row([1, 0, 1], "B", close_time=np.arange(97, 100))  # all of it after the moment of parting

    found = surprise([early, late], 2)

    assert found.judged_from == [72, 0]
    assert len(found.after(found.bigram)) == len(found.after(found.unigram)) == 28 + 2


@given(st.lists(tokens, min_size=1, max_size=3), st.floats(0.05, 0.95))
@settings(max_examples=100)
def test_what_was_not_learned_from_changes_nothing_that_was(said: list[np.ndarray], share: float) -> None:
    rows = [TokenRow(symbol="", tokens=one) for one in said]
    found = surprise(rows, 5, share)
    other = surprise(
        [
            TokenRow(symbol="", tokens=np.concatenate([one[:start], 4 - one[start:]]))
            for one, start in zip(said, found.judged_from, strict=True)
        ],
        5,
        share,
    )

    for start, one, two in zip(found.judged_from, found.bigram, other.bigram, strict=True):
        assert np.array_equal(one[:start], two[:start], equal_nan=True)
    assert all((one[1:] > 0.0).all() for one in found.bigram)


def test_rows_with_times_are_parted_at_one_moment() -> None:
    early = row([0] * 10, close_time=np.arange(10))
    late = row([1] * 10, "B", close_time=np.arange(5, 15))

    found = surprise([early, late], 2, fit_share=0.5)

    cut = np.sort(np.concatenate([np.arange(10), np.arange(5, 15)]))[10]
    assert found.judged_from == [int(cut), int(cut) - 5]


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="fit_share"):
        surprise([], 2, share)


def test_code_returns_tell_the_bar_and_the_one_after_it() -> None:
    z = np.array([1.0, -2.0, 3.0, -4.0, 5.0])
    found = code_returns([row([0, 1, 0, 1, 0], z=z), row([2], "B", z=np.array([9.0]))], 4)

    assert found.count.tolist() == [3, 2, 1, 0]
    assert found.next_count.tolist() == [2, 2, 0, 0]
    assert found.mean[:3].tolist() == [3.0, -3.0, 9.0]
    assert found.size[1] == pytest.approx(math.sqrt(10.0))
    assert found.next_mean[:2].tolist() == [-3.0, 4.0]
    assert found.next_error[0] == pytest.approx(math.sqrt(2.0) / math.sqrt(2.0))
    assert found.quantiles[0].tolist() == pytest.approx([1.2, 2.0, 3.0, 4.0, 4.8])
    assert np.isnan(found.mean[3])
    assert np.isnan(found.next_mean[2])


def test_returns_are_wanted_of_every_row() -> None:
    with pytest.raises(ValueError, match="returns of every row"):
        code_returns([row([0, 1])], 2)
