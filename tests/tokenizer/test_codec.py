import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_bars import closes, rows, walk

from tokenizer.bars import BarSeries
from tokenizer.codec import NO_TOKEN, CodebookCollapsed, Codec, TokenizerConfig
from tokenizer.features import FeatureConfig
from tokenizer.fit import fit

TRAINING = walk(3_000)
CONFIGS = {
    "vqvae": TokenizerConfig(codes=32, hidden=32),
    "levels": TokenizerConfig(codes=16, levels=3, hidden=32),
    "fsq": TokenizerConfig(kind="fsq", grid="4x3x3", codes=36),
    "returns": TokenizerConfig(kind="returns", codes=16),
    "volume": TokenizerConfig(codes=16, features=FeatureConfig(volume=True, warmup_bars=5)),
}
KINDS = sorted(CONFIGS)


@pytest.fixture(scope="module")
def codecs() -> dict[str, Codec]:
    return {name: fit([TRAINING], config, seed=0, steps=200, batch=128) for name, config in CONFIGS.items()}


def same(one: Codec, other: Codec, bars: BarSeries) -> bool:
    return np.array_equal(one.encode(bars).levels, other.encode(bars).levels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_the_tokens_of_the_series(codecs: dict[str, Codec], kind: str) -> None:
    bars = walk(2_000, seed=5)
    found = codecs[kind].encode(bars)
    stream = codecs[kind].stream()
    for t, bar in enumerate(rows(bars)):
        before = stream.scale
        assert stream.push(*bar) == found.tokens[t]
        assert repr(before) == repr(float(found.scale[t]))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_begin_after_the_warm_up_and_lie_in_the_vocabulary(codecs: dict[str, Codec], kind: str) -> None:
    codec = codecs[kind]
    warmup = codec.config.features.warmup_bars

    found = codec.encode(walk(200, seed=6))

    assert (found.tokens[:warmup] == NO_TOKEN).all()
    assert found.tokens[warmup:].min() >= 0
    assert found.tokens.max() < codec.codes
    assert found.levels.shape == (200, codec.config.levels)
    assert np.array_equal(found.tokens, found.levels[:, 0])
    assert np.isnan(found.scale[:warmup]).all()
    assert found.returns[1:] == pytest.approx(np.log(np.exp(found.returns[1:])))


@given(st.integers(40, 100), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_bars_after_t_do_not_change_tokens_up_to_t(t: int, seed: int) -> None:
    codec = _small()
    bars, other = walk(120, seed=seed), walk(120, seed=seed + 1)
    columns = ("open", "high", "low", "close", "volume")
    mixed = replace(bars, **{n: np.concatenate([getattr(bars, n)[:t], getattr(other, n)[t:]]) for n in columns})

    assert np.array_equal(codec.encode(mixed).tokens[:t], codec.encode(bars).tokens[:t])
    assert np.array_equal(codec.encode(bars.slice(None, int(bars.close_time[t]))).tokens, codec.encode(bars).tokens[:t])


def _small() -> Codec:
    if not _KEPT:
        _KEPT.append(fit([TRAINING], TokenizerConfig(codes=16), seed=0, steps=60, batch=256))
    return _KEPT[0]


_KEPT: list[Codec] = []


@pytest.mark.parametrize("kind", KINDS)
def test_a_codec_comes_back_from_its_parts(codecs: dict[str, Codec], kind: str) -> None:
    codec = codecs[kind]
    tensors = codec.to_tensors()

    back = Codec.from_parts(json.loads(json.dumps(codec.to_manifest())), {**tensors, "model.head": np.zeros(3)})

    assert back.config == codec.config
    assert same(back, codec, walk(1_000, seed=7))
    assert np.array_equal(back.returns_table, codec.returns_table)
    assert np.array_equal(back.code_counts, codec.code_counts)
    assert back.perplexity == codec.perplexity
    assert {name: array.tobytes() for name, array in back.to_tensors().items()} == {
        name: array.tobytes() for name, array in tensors.items()
    }
    assert all(name.startswith("codec.") for name in tensors)


def test_loading_and_streaming_need_no_torch(codecs: dict[str, Codec], tmp_path) -> None:
    codec = codecs["levels"]
    np.savez(tmp_path / "tensors.npz", **codec.to_tensors())
    (tmp_path / "manifest.json").write_text(json.dumps(codec.to_manifest()))
    manifest, weights = str(tmp_path / "manifest.json"), str(tmp_path / "tensors.npz")
    bars = rows(walk(60, seed=8))
    script = f"""
import json, sys
import numpy as np
from tokenizer.codec import Codec
codec = Codec.from_parts(json.load(open({manifest!r})), dict(np.load({weights!r})))
stream = codec.stream()
tokens = [stream.push(*bar) for bar in {bars!r}]
codec.decode(tokens[-5:], 100.0, 0.01)
assert not {{"torch", "csp", "matplotlib", "pandas"}} & set(sys.modules)
print(json.dumps(tokens))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == codec.encode(walk(60, seed=8)).tokens.tolist()


def test_a_collapsed_codebook_is_not_saved(codecs: dict[str, Codec]) -> None:
    codec = codecs["vqvae"]
    tensors = codec.to_tensors()
    counts = np.ones(32, np.int64)
    counts[0] = 10_000
    collapsed = Codec(codec.config, tensors | {"codec.code_counts": counts})
    just = Codec(codec.config, tensors | {"codec.code_counts": np.repeat([100, 0], [9, 23])})

    with pytest.raises(CodebookCollapsed, match=r"at least 8 of 32 codes, was 1\.0"):
        collapsed.to_tensors()
    assert just.perplexity == pytest.approx(9.0)
    assert just.to_tensors()


def test_a_real_collapse_is_found_in_training_bars() -> None:
    # A market that does the same again and again has few words, however many codes it gets.
    wave = closes([100.0 + (i % 2) for i in range(1_000)])
    codec = fit([wave], TokenizerConfig(codes=64), seed=0, steps=20, batch=64)

    with pytest.raises(CodebookCollapsed):
        codec.to_tensors()


@pytest.mark.parametrize(
    "name", ["mean", "encoder.0.weight", "decoder.1.bias", "codebooks", "returns_table", "code_counts"]
)
def test_a_tensor_that_is_missing_misshapen_or_not_finite_is_named(codecs: dict[str, Codec], name: str) -> None:
    codec = codecs["vqvae"]
    tensors, key = codec.to_tensors(), f"codec.{name}"

    with pytest.raises(ValueError, match=f"no tensor {name}"):
        Codec(codec.config, {k: v for k, v in tensors.items() if k != key})
    with pytest.raises(ValueError, match=f"{name} of the codec must be"):
        Codec(codec.config, tensors | {key: tensors[key][..., :1]})
    with pytest.raises(ValueError, match=f"{name} of the codec must hold finite"):
        Codec(codec.config, tensors | {key: np.full_like(tensors[key], np.nan, np.float32)})


def test_impossible_statistics_are_refused(codecs: dict[str, Codec]) -> None:
    codec = codecs["vqvae"]
    tensors = codec.to_tensors()
    with pytest.raises(ValueError, match="std of the codec must be positive"):
        Codec(codec.config, tensors | {"codec.std": np.zeros(4)})
    with pytest.raises(ValueError, match="returns_table of the codec must not decrease"):
        Codec(codec.config, tensors | {"codec.returns_table": -np.sort(np.random.default_rng(0).random((32, 64)))})
    with pytest.raises(ValueError, match="code_counts of the codec must be whole"):
        Codec(codec.config, tensors | {"codec.code_counts": np.full(32, 0.5)})


@pytest.mark.parametrize("manifest", [{}, {"config": None}, {"config": {"kind": "lstm"}}, {"config": {"colour": 1}}])
def test_a_manifest_that_makes_no_codec_is_refused(codecs: dict[str, Codec], manifest: dict) -> None:
    with pytest.raises(ValueError, match="no usable config"):
        Codec.from_parts(manifest, codecs["vqvae"].to_tensors())


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_bars_are_possible_and_start_where_they_were_told(codecs: dict[str, Codec], kind: str) -> None:
    codec = codecs[kind]
    tokens = np.random.default_rng(0).choice(codec.codes, 500, p=codec.code_counts / codec.code_counts.sum())

    told = codec.decode(tokens, 50.0, 0.01)

    assert len(told) == 500
    assert (told.low > 0.0).all()
    assert (told.low <= np.minimum(told.open, told.close)).all()
    assert (told.high >= np.maximum(told.open, told.close)).all()
    assert told.scale[0] == pytest.approx(0.01)
    assert told.close == pytest.approx(50.0 * np.exp(np.cumsum(told.returns)))


def test_the_scale_of_a_decoded_path_is_the_scale_of_its_own_bars(codecs: dict[str, Codec]) -> None:
    # Bars told by tokens, read again from a warm stream, are measured by the scale that they were drawn with.
    codec, bars = codecs["vqvae"], walk(4_000, seed=9)
    stream = codec.stream()
    for bar in rows(bars):
        stream.push(*bar)
    told = codec.decode(np.random.default_rng(1).integers(0, 32, 300), float(bars.close[-1]), stream.scale)

    for t in range(300):
        assert stream.scale == pytest.approx(told.scale[t], rel=1e-9)
        stream.push(told.open[t], told.high[t], told.low[t], told.close[t])


@pytest.mark.parametrize("kind", ["vqvae", "levels", "returns"])
def test_what_is_told_is_near_what_was_seen(codecs: dict[str, Codec], kind: str) -> None:
    codec, bars = codecs[kind], walk(1_000, seed=10)
    found = codec.encode(bars)
    first = codec.config.features.warmup_bars

    told = codec.decode(found.levels[first : first + 1], float(bars.close[first - 1]), float(found.scale[first]))
    z = np.arcsinh(found.returns[first:] / found.scale[first:])
    said = np.arcsinh(codec.code_moves[found.tokens[first:], codec.config.features.close_index])

    assert told.close[0] == pytest.approx(bars.close[first], rel=2.0 * found.scale[first])
    assert np.corrcoef(said, z)[0, 1] > 0.7  # 16 codes for four numbers, hardly fitted; chance gives 0


def test_more_levels_tell_more(codecs: dict[str, Codec]) -> None:
    codec, bars = codecs["levels"], walk(2_000, seed=11)
    found = codec.encode(bars)
    first = codec.config.features.warmup_bars
    z = np.arcsinh(found.returns[first:] / found.scale[first:])

    def error(levels: int) -> float:
        moves = codec._moves(found.levels[first:, :levels])[:, codec.config.features.close_index]
        return float(np.square(np.arcsinh(moves) - z).mean())

    assert error(3) < error(2) < error(1)


def test_distortion_is_small_for_usual_bars_and_large_for_strange_ones(codecs: dict[str, Codec]) -> None:
    codec, bars = codecs["vqvae"], walk(200, seed=12)
    high = bars.high.copy()
    high[-1] *= 1.5

    usual, strange = codec.distortion(bars), codec.distortion(replace(bars, high=high))

    assert np.isnan(usual[:32]).all()
    assert np.nanmean(usual) < 1.0
    assert strange[-1] > 20.0 * np.nanmean(usual)
    assert np.array_equal(usual[:-1], strange[:-1], equal_nan=True)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([0, NO_TOKEN], r"must lie in \[0, 32\), was -1"),
        ([0, 32], "was 32"),
        ([0.5], "whole numbers"),
        ([[0, 0]], "1 to 1"),
        ([[[0]]], "1 to 1"),
        (3, "1 to 1"),
    ],
)
def test_tokens_that_do_not_exist_are_refused(codecs: dict[str, Codec], tokens: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codecs["vqvae"].decode(np.array(tokens), 1.0, 0.01)


@pytest.mark.parametrize(
    ("close", "scale"), [(0.0, 0.01), (math.nan, 0.01), (1.0, math.nan), (1.0, -0.01), (math.inf, 1.0)]
)
def test_an_impossible_start_of_a_path_is_refused(codecs: dict[str, Codec], close: float, scale: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        codecs["vqvae"].decode([0], close, scale)


def test_a_path_that_leaves_all_numbers_is_refused(codecs: dict[str, Codec]) -> None:
    # The largest move again and again: each makes the next one larger.
    with pytest.raises(ValueError, match="leave what a number can hold at token"):
        codecs["vqvae"].decode([31] * 5_000, 1.0, 0.01)


def test_no_tokens_are_no_bars(codecs: dict[str, Codec]) -> None:
    assert len(codecs["vqvae"].decode([], 1.0, 0.01)) == 0
    assert len(codecs["vqvae"].encode(walk(40).slice(0, 0)).tokens) == 0
    assert (codecs["vqvae"].encode(walk(10)).tokens == NO_TOKEN).all()


def test_a_bad_bar_leaves_a_stream_as_it_was(codecs: dict[str, Codec]) -> None:
    stream = codecs["vqvae"].stream()
    for bar in rows(walk(50)):
        stream.push(*bar)
    before = stream.state()

    with pytest.raises(ValueError, match="want finite numbers"):
        stream.push(math.nan, 1.0, 1.0, 1.0)

    assert stream.state() == before


def test_a_stream_goes_on_from_its_state(codecs: dict[str, Codec]) -> None:
    codec, bars = codecs["volume"], rows(walk(80, seed=13))
    stream, other = codec.stream(), codec.stream()
    for bar in bars[:40]:
        stream.push(*bar)
    other.restore(json.loads(json.dumps(stream.state())))

    assert [other.push(*bar) for bar in bars[40:]] == [stream.push(*bar) for bar in bars[40:]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "lstm"}, "kind must be one of"),
        ({"codes": 1}, "codes must lie"),
        ({"levels": 0}, "levels must lie"),
        ({"dim": 0}, "dim must lie"),
        ({"hidden": 0}, "hidden must lie"),
        ({"commitment": math.nan}, "commitment must be"),
        ({"decay": 1.0}, "decay must lie"),
        ({"revive_below": math.nan}, "revive_below must lie"),
        ({"kind": "fsq", "codes": 100}, "codes must be 128"),
        ({"kind": "fsq", "levels": 2}, "levels must be 1"),
        ({"grid": "8"}, None),
    ],
)
def test_an_impossible_tokenizer_is_refused_by_name(changes: dict, message: str | None) -> None:
    if message is None:
        assert TokenizerConfig(**changes).codes == 128  # a grid that is not used need not fit
        return
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**changes)


def test_a_tokenizer_of_returns_sees_returns_alone() -> None:
    assert TokenizerConfig(kind="returns").features.names == ("close",)
