"""A checkpoint over bars: the same as decoding through the cache, and nothing that it has seen without leave."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from foretold import checkpoint, series, small_model

from evaluation import subject
from evaluation.run import moment
from evaluation.subject import Subject, SubjectError, choose_window, foretell, load_subject, size_of, training_tokens
from models.checkpoint import CheckpointError
from models.kv_cache import KVCache
from tokenizer.bars import BarSeries, hours_of_week

BARS = [series("S0", 1_200, 1), series("S1", 1_000, 2)]
TRAINING = 700


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return load_subject(checkpoint(tmp_path_factory.mktemp("made") / "small", BARS, training=TRAINING))


def named(bars: list[BarSeries]) -> dict[str, BarSeries]:
    return {each.symbol: each for each in bars}


@pytest.mark.parametrize("chunk", [1, 37, 1_024])
@pytest.mark.parametrize("symbol", ["S0", "never seen"])
def test_chunks_foretell_what_decoding_through_the_cache_does(
    monkeypatch: pytest.MonkeyPatch, chunk: int, symbol: str
) -> None:
    monkeypatch.setattr(subject, "CHUNK", chunk)
    model = small_model()
    config = model.config
    chance = np.random.default_rng(0)
    tokens, hours = chance.integers(0, config.vocabulary, 120), chance.integers(0, 168, 120)
    cache = KVCache(config.layers, 1, config.kv_heads, config.context, config.head_dim)
    index = torch.tensor([model.symbol_index(symbol)])
    with torch.inference_mode():
        stepped = [
            model.step(torch.tensor([token]), torch.tensor([hour]), index, cache, [0]).softmax(-1)[0].numpy()
            for token, hour in zip(tokens.tolist(), hours.tolist(), strict=True)
        ]
    positions = np.array([0, 1, 7, 8, 9, 40, 41, 60, 118, 119])

    found = subject.window_probabilities(model, symbol, tokens, hours, positions)

    assert found == pytest.approx(np.stack(stepped)[positions], abs=1e-5)


@pytest.mark.parametrize("windows", [1, 3, 32])
def test_recomputed_windows_know_their_context_and_nothing_before(
    monkeypatch: pytest.MonkeyPatch, windows: int
) -> None:
    monkeypatch.setattr(subject, "WINDOWS", windows)
    model = small_model()
    context = model.config.context
    chance = np.random.default_rng(0)
    tokens, hours = chance.integers(0, model.config.vocabulary, 60), chance.integers(0, 168, 60)
    positions = np.array([0, context - 2, context - 1, context, 20, 21, 59])

    found = subject.recomputed(model, "S0", tokens, hours, positions)

    cached = subject.window_probabilities(model, "S0", tokens, hours, positions)
    assert found[:3] == pytest.approx(cached[:3], abs=1e-6)  # nothing has left the context yet
    assert np.abs(found[3:] - cached[3:]).max(axis=1).min() > 1e-4
    index = torch.tensor([model.symbol_index("S0")])
    for row, position in enumerate(positions.tolist()):
        seen = slice(max(0, position + 1 - context), position + 1)
        with torch.inference_mode():
            logits = model(torch.from_numpy(tokens[seen])[None], torch.from_numpy(hours[seen])[None], index)
        assert found[row] == pytest.approx(logits[0, -1].softmax(-1).numpy(), abs=1e-6)


def test_every_bar_after_the_embargo_is_judged_and_none_before(one: Subject) -> None:
    window = choose_window(one, named(BARS), None, None, allow_in_sample=False)
    tracks = foretell(one, named(BARS), window)

    assert not window.in_sample
    assert [track.symbol for track in tracks] == ["S0", "S1"]
    guard = BARS[0].close_time[TRAINING - 1 + 48]
    for bars, track in zip(BARS, tracks, strict=True):
        decided = bars.close_time[:-1][track.judged]  # each is foretold at the close of the bar before
        assert decided.tolist() == bars.close_time[:-1][bars.close_time[:-1] > guard].tolist()
        assert track.times[track.training].max() == BARS[0].close_time[TRAINING - 1]
        assert track.training.sum() == TRAINING - 1  # the first bar has no return
        assert len(track.probabilities) == track.judged.sum()
        assert track.probabilities.sum(axis=1) == pytest.approx(np.ones(len(track.probabilities)), abs=1e-5)


def test_unigram_and_bigram_count_all_that_the_checkpoint_was_trained_on_and_no_other_symbol(one: Subject) -> None:
    other = series("S9", 1_000, 3)
    end = BARS[0].close_time[TRAINING - 1]

    found = training_tokens(one, named([other, *BARS]))

    wanted = [one.codec.encode(bars).tokens[bars.close_time <= end] for bars in BARS]
    assert [each.tolist() for each in found] == [each[each >= 0].tolist() for each in wanted]
    # Data that have none of its symbols lend their own.
    lent = one.codec.encode(other).tokens[other.close_time <= end]
    assert [each.tolist() for each in training_tokens(one, named([other]))] == [lent[lent >= 0].tolist()]
    assert training_tokens(one, named([other.slice(int(end) + 1, None)])) == []


def test_a_forecast_does_not_know_its_own_bar_or_a_later_one(one: Subject) -> None:
    bars = BARS[0]
    close = bars.close.copy()
    close[1_100:] *= np.exp(0.05 * np.random.default_rng(0).standard_normal(100))
    changed = BarSeries(
        symbol=bars.symbol,
        bar_s=bars.bar_s,
        close_time=bars.close_time,
        open=bars.open,
        high=np.maximum(bars.high, close),
        low=np.minimum(bars.low, close),
        close=close,
        volume=bars.volume,
    )
    window = choose_window(one, named([bars]), None, None, allow_in_sample=False)

    (before,), (after,) = (foretell(one, named([each]), window) for each in (bars, changed))

    judged = np.flatnonzero(before.judged) + 1  # as rows of the bars
    upto = judged <= 1_100  # bar 1,100 itself is foretold from those before it
    assert before.probabilities[upto] == pytest.approx(after.probabilities[upto], abs=1e-6)
    assert np.abs(before.probabilities[judged > 1_102] - after.probabilities[judged > 1_102]).max() > 1e-3


def test_what_was_seen_is_refused_without_leave_and_marked_with_it(one: Subject) -> None:
    start = moment(int(BARS[0].close_time[600]))

    with pytest.raises(SubjectError, match="overlaps what the checkpoint has seen"):
        choose_window(one, named(BARS), start, None, allow_in_sample=False)

    window = choose_window(one, named(BARS), start, start + timedelta(hours=90), allow_in_sample=True)
    assert window.in_sample
    (track, _) = foretell(one, named(BARS), window)
    assert track.judged.sum() == 91


def test_the_embargo_counts_as_seen(one: Subject) -> None:
    guard = one.manifest.training.guard_end
    assert guard is not None
    with pytest.raises(SubjectError, match="with its embargo"):
        choose_window(one, named(BARS), guard, None, allow_in_sample=False)


def test_bars_of_another_length_and_none_at_all_are_refused(one: Subject) -> None:
    day = BarSeries(**{name: getattr(BARS[0], name) for name in BarSeries.__slots__} | {"bar_s": 86_400.0})
    with pytest.raises(SubjectError, match="S0 has 86400 s"):
        choose_window(one, {"S0": day}, None, None, allow_in_sample=False)
    with pytest.raises(SubjectError, match="at least one symbol"):
        choose_window(one, {}, None, None, allow_in_sample=False)
    with pytest.raises(SubjectError, match="no bar is left"):
        choose_window(one, named(BARS), datetime(2030, 1, 1), None, allow_in_sample=False)


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="bare tokens"):
        load_subject(checkpoint(tmp_path / "bare", BARS, training=TRAINING, codec=False))
    with pytest.raises(CheckpointError):
        load_subject(tmp_path / "nothing")


def test_size_is_counted_from_the_shape(one: Subject) -> None:
    size = size_of(one)

    assert size.parameters == one.model.parameter_count()
    # 3 layers of 16 wide, 2 heads and 1 key-value head of 8, context 8, 16 codes.
    block = 16 * 4 * 8 + 16 * 16 + 2 * 64 * 16
    assert size.multiply_adds == 3 * (block + 2 * 16 * 8) + 16 * 16
    assert size.cache_bytes == 3 * 2 * 8 * 8 * 4


def test_hours_of_the_stream_are_those_of_its_bars() -> None:
    assert hours_of_week(BARS[0].close_time[:3]).tolist() == [1, 2, 3]  # Monday
