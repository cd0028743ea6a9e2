import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_bars import closes, walk

from models.returns import ReturnTable
from tokenizer.codec import Codec, TokenizerConfig
from tokenizer.features import features
from tokenizer.fit import _matched, fit

SMALL = TokenizerConfig(codes=32, hidden=32)
TRAINING = [walk(2_000, symbol="A"), walk(1_500, seed=1, symbol="B")]


def bytes_of(codec: Codec) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in codec.to_tensors().items()}


@pytest.mark.parametrize("config", [SMALL, TokenizerConfig(kind="fsq", grid="4x4x2", codes=32)])
def test_the_same_seed_gives_the_same_codec_and_another_seed_another(config: TokenizerConfig) -> None:
    one, two = (fit(TRAINING, config, seed=3, steps=100, batch=256, learning_rate=1e-2) for _ in range(2))

    assert bytes_of(one) == bytes_of(two)
    assert bytes_of(one) != bytes_of(fit(TRAINING, config, seed=4, steps=100, batch=256, learning_rate=1e-2))


def test_fitting_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)

    fit(TRAINING, SMALL, seed=0, steps=5, batch=64)

    assert torch.equal(torch.rand(3), wanted)


def test_the_codebook_stays_in_use_and_tells_most_of_a_bar() -> None:
    seen: list[tuple[int, dict[str, float]]] = []

    codec = fit(TRAINING, SMALL, seed=0, steps=300, batch=512, on_step=lambda step, found: seen.append((step, found)))

    test = walk(2_000, seed=2)
    assert codec.perplexity > 16.0
    assert np.nanmean(codec.distortion(test)) < 0.35  # 32 codes; none at all would give 1
    assert [step for step, _ in seen] == [50, 100, 150, 200, 250, 300]
    assert seen[-1][1]["mse"] < seen[0][1]["mse"]
    assert set(seen[0][1]) == {"loss", "mse", "perplexity", "revived"}


def test_more_codes_than_the_sample_has_rows_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizer.fit._SAMPLE", 16)

    assert fit(TRAINING, SMALL, seed=0, steps=5, batch=64).codes == 32


def test_statistics_are_those_of_the_training_bars() -> None:
    codec = fit(TRAINING, SMALL, seed=0, steps=30, batch=256)
    x = np.concatenate([features(bars, SMALL.features).x[32:] for bars in TRAINING])
    tokens = np.concatenate([codec.encode(bars).tokens[32:] for bars in TRAINING])
    z = np.concatenate([(f.returns / f.scale)[32:] for f in (features(bars, SMALL.features) for bars in TRAINING)])

    assert codec.mean == pytest.approx(x.mean(axis=0), rel=1e-5, abs=1e-6)
    assert codec.std == pytest.approx(x.std(axis=0), rel=1e-5)
    assert np.array_equal(codec.code_counts, np.bincount(tokens, minlength=32))
    code = int(codec.code_counts.argmax())
    at = (np.arange(64) + 0.5) / 64
    quantiles = np.quantile(z[tokens == code], at, method="hazen")
    # Stretched so that mean and variance are right, and by no more than the tails ask for.
    assert codec.returns_table[code] == pytest.approx(quantiles, abs=0.1)
    assert (np.diff(codec.returns_table, axis=1) >= 0.0).all()


def test_a_codes_returns_have_the_mean_and_the_variance_of_its_training_bars() -> None:
    # Heavy tails, and a fifth of the bars does not move at all.
    random = np.random.default_rng(1)
    steps = np.where(random.random(4_000) < 0.2, 0.0, 1e-3 * random.standard_t(3.0, 4_000))
    bars = closes(np.concatenate([[100.0], 100.0 * np.exp(np.cumsum(steps))]).tolist())

    codec = fit([bars], TokenizerConfig(kind="returns", codes=16), seed=0, steps=100, batch=256)

    found = codec.encode(bars)
    known = found.tokens >= 0
    tokens, z = found.tokens[known], (found.returns / found.scale)[known]
    told = ReturnTable(codec.returns_table, halflife_bars=32.0).forecast(np.eye(16), np.ones(16))
    cut = 0
    for code in np.unique(tokens).tolist():
        mine = z[tokens == code]
        assert told.mean[code] == pytest.approx(mine.mean(), abs=1e-4 * mine.std())
        assert told.volatility[code] == pytest.approx(mine.std(), rel=1e-4)
        cut += np.quantile(mine, (np.arange(64) + 0.5) / 64, method="hazen").std() < 0.98 * mine.std()
    assert cut >= 1  # plain quantiles would not have done


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 300), shift=st.floats(-3.0, 3.0), zeros=st.floats(0.0, 1.0), tails=st.floats(1.5, 10.0),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_matched_quantiles_stay_sorted_and_keep_their_signs(
    count: int, shift: float, zeros: float, tails: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    z = np.where(random.random(count) < zeros, 0.0, shift + random.standard_t(tails, count)).clip(-50.0, 50.0)
    row = np.quantile(z, (np.arange(64) + 0.5) / 64, method="hazen")

    matched = _matched(row, float(z.mean()), float(z.var()))

    assert (np.diff(matched) >= 0.0).all()
    assert np.array_equal(np.sign(matched), np.sign(row))
    told = ReturnTable(matched[None], halflife_bars=32.0).forecast(np.ones((1, 1)), np.ones(1))
    if not (row == 0.0).any() and np.ptp(row) > 0.0 and (row > 0.0).all() == (z > 0.0).all():
        assert told.mean[0] == pytest.approx(z.mean(), abs=1e-6 * (1.0 + z.std()))
        assert told.volatility[0] == pytest.approx(z.std(), rel=1e-6)


def test_codes_are_in_order_of_the_return_that_they_tell() -> None:
    codec = fit(TRAINING, SMALL, seed=0, steps=100, batch=256)

    assert (np.diff(codec.code_moves[:, 1]) >= 0.0).all()


def test_returns_of_exactly_zero_keep_their_share() -> None:
    # A third of the bars does not move at all.
    random = np.random.default_rng(0)
    steps = np.where(random.random(3_000) < 1 / 3, 0.0, random.normal(0.0, 1e-3, 3_000))
    bars = closes(np.concatenate([[100.0], 100.0 * np.exp(np.cumsum(steps))]).tolist())

    codec = fit([bars], TokenizerConfig(kind="returns", codes=16), seed=0, steps=100, batch=256)

    share = ((codec.returns_table == 0.0).mean(axis=1) * codec.code_counts).sum() / codec.code_counts.sum()
    assert share == pytest.approx(1 / 3, abs=0.03)


def test_a_code_without_training_bars_has_the_return_that_it_tells() -> None:
    wave = closes([100.0 + (i % 2) for i in range(400)])

    codec = fit([wave], TokenizerConfig(codes=32), seed=0, steps=5, batch=64)

    unused = codec.code_counts == 0
    assert unused.any()
    assert codec.returns_table[unused] == pytest.approx(np.repeat(codec.code_moves[unused, 1:2], 64, axis=1), rel=1e-5)


def test_too_few_bars_and_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="want at least 128 bars after the warm-up to fit 32 codes, was 127"):
        fit([walk(159)], SMALL, seed=0, steps=1)
    with pytest.raises(ValueError, match="was 0"):
        fit([], SMALL, seed=0, steps=1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        fit(TRAINING, SMALL, seed=0, steps=0)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        fit(TRAINING, SMALL, seed=0, batch=0)
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        fit(TRAINING, SMALL, seed=0, learning_rate=math.nan)


def test_a_market_that_never_moves_is_fitted_without_numbers_that_are_not() -> None:
    codec = fit([closes([100.0] * 500)], TokenizerConfig(codes=8), seed=0, steps=25, batch=64)

    assert np.isfinite(codec.returns_table).all()
    assert len(set(codec.encode(closes([100.0] * 100)).tokens[32:].tolist())) == 1
