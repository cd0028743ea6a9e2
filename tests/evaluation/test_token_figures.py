"""Token metrics against closed forms and counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.token_figures import (
    BACKOFFS,
    bigram,
    code_perplexity,
    score,
    score_bigram,
    score_unigram,
    unigram,
)


def test_a_uniform_forecast_costs_the_logarithm_of_the_vocabulary() -> None:
    tokens = np.array([0, 5, 7, 3])

    figures = score(np.full((4, 8), 1 / 8), tokens).figures()

    assert figures["bits"] == pytest.approx(3.0)
    assert figures["cross_entropy"] == pytest.approx(math.log(8.0))
    assert figures["perplexity"] == pytest.approx(8.0)


def test_rank_counts_what_was_more_probable_and_a_tie_goes_to_the_lower_token() -> None:
    probabilities = np.array([[0.1, 0.4, 0.4, 0.1]] * 4)

    scores = score(probabilities, np.arange(4))

    assert scores.ranks.tolist() == [2, 0, 1, 3]
    assert scores.correct.tolist() == [False, True, False, False]
    assert scores.figures()["accuracy"] == 0.25
    assert scores.figures()["top_5"] == 1.0


def test_top_five_leaves_out_the_sixth() -> None:
    probabilities = np.array([[0.3, 0.2, 0.15, 0.14, 0.13, 0.08]] * 6)

    assert score(probabilities, np.arange(6)).top.tolist() == [True] * 5 + [False]


def test_an_impossible_token_costs_infinitely_many_bits() -> None:
    assert math.isinf(score(np.array([[1.0, 0.0]]), np.array([1])).bits[0])


@pytest.mark.parametrize(
    ("probabilities", "tokens", "message"),
    [
        (np.full((2, 4), 0.25), np.array([0, 4]), "want tokens in"),
        (np.full((2, 4), 0.25), np.array([0, -1]), "want tokens in"),
        (np.full((2, 4), 0.3), np.array([0, 1]), "add up to 1"),
        (np.array([[1.5, -0.5]]), np.array([0]), "add up to 1"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "add up to 1"),
        (np.full((2, 4), 0.25), np.array([0]), "want \\(N, V\\)"),
        (np.empty((0, 4)), np.empty(0, np.int64), "N > 0"),
    ],
)
def test_what_is_no_forecast_is_refused(probabilities: np.ndarray, tokens: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(probabilities, tokens)


def test_unigram_counts_all_sequences_and_leaves_out_missing_tokens() -> None:
    found = unigram([np.array([-1, 0, 0, 1]), np.array([0])], 3)

    assert found == pytest.approx(np.array([3.5, 1.5, 0.5]) / 5.5)


def test_bigram_backs_off_to_the_unigram_by_a_weight_that_leaves_one_out_chose() -> None:
    chance = np.random.default_rng(5)
    tokens = chance.integers(0, 4, 400)
    tokens[1::2] = (tokens[::2] + (chance.random(200) < 0.2)) % 4  # every second token mostly repeats the one before
    lower = unigram([tokens], 4)
    counts = np.zeros((4, 4))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1.0)

    def left_out(k: float) -> float:
        pairs = zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True)
        return sum(math.log((counts[a, b] - 1 + k * lower[b]) / (counts[a].sum() - 1 + k)) for a, b in pairs)

    found = bigram([tokens], 4)

    best = max(BACKOFFS, key=left_out)
    assert BACKOFFS[0] < best < BACKOFFS[-1]
    assert found == pytest.approx((counts + best * lower) / (counts.sum(axis=1, keepdims=True) + best))


def test_a_bigram_that_knows_nothing_is_no_worse_than_the_unigram() -> None:
    chance = np.random.default_rng(7)
    share = chance.dirichlet(np.ones(128))
    train, test = (chance.choice(128, size, p=share) for size in (3_000, 20_000))

    pairs = score_bigram(bigram([train], 128), test[:-1], test[1:]).bits.mean()

    assert pairs == pytest.approx(score_unigram(unigram([train], 128), test[1:]).bits.mean(), abs=0.01)


def test_no_pair_crosses_a_missing_token_or_the_end_of_a_sequence() -> None:
    apart = bigram([np.array([0, -1, 1]), np.array([1])], 2)

    # No pair at all: nothing but the unigram.
    assert apart == pytest.approx(np.tile(unigram([np.array([0, 1, 1])], 2), (2, 1)))


def test_counted_baselines_score_as_their_full_tables_do() -> None:
    chance = np.random.default_rng(3)
    before, tokens = chance.integers(0, 6, (2, 50))
    pairs = bigram([chance.integers(0, 6, 300)], 6)
    single = unigram([chance.integers(0, 6, 300)], 6)

    for ours, table in (
        (score_bigram(pairs, before, tokens), pairs[before]),
        (score_unigram(single, tokens), np.tile(single, (50, 1))),
    ):
        theirs = score(table, tokens)
        assert ours.bits == pytest.approx(theirs.bits)
        assert ours.ranks.tolist() == theirs.ranks.tolist()


def test_the_bigram_of_a_markov_chain_finds_its_entropy_rate() -> None:
    chance = np.random.default_rng(1)
    chain = np.array([[0.9, 0.1], [0.4, 0.6]])
    tokens = [0]
    for draw in chance.random(40_000):
        tokens.append(int(draw > chain[tokens[-1], 0]))
    train, test = np.array(tokens[:20_000]), np.array(tokens[20_000:])

    bits = score_bigram(bigram([train], 2), test[:-1], test[1:]).bits.mean()

    stationary = np.array([0.8, 0.2])
    rate = -(stationary[:, None] * chain * np.log2(chain)).sum()
    assert bits == pytest.approx(rate, abs=0.01)


def test_code_perplexity_is_the_number_of_codes_in_equal_use() -> None:
    assert code_perplexity(np.array([0, 1, 2, 3, -1]), 128) == pytest.approx(4.0)
    assert code_perplexity(np.zeros(9, np.int64), 128) == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 6), max_size=30), min_size=1, max_size=4))
def test_rows_of_counted_baselines_are_positive_distributions(sequences: list[list[int]]) -> None:
    arrays = [np.array(one, np.int64) for one in sequences]

    for rows in (bigram(arrays, 7), unigram(arrays, 7)[None, :]):
        assert rows.sum(axis=1) == pytest.approx(np.ones(len(rows)))
        assert (rows > 0.0).all()
