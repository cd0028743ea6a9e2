"""The model as it is defined: its size, what it may see, and how conditioning enters."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny, tokens_of
from torch.nn import functional

from kernels import reference as ops
from models.checkpoint import CheckpointError, Training, write
from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig
from models.layers import Attention, fused_attention, quick_rms_norm, rotary_tables


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ({}, 19_005_440),
        ({"layers": 4, "width": 128, "heads": 4, "kv_heads": 4}, 819_200),
        # Conditioning: 168 hours and two symbols with the unknown one, 128 wide.
        ({"layers": 4, "width": 128, "heads": 4, "kv_heads": 4, "hours": True, "symbols": ("A", "B")}, 841_088),
        # Two key heads of eight: keys and values of 512 x 128 where they were 512 x 512.
        ({"kv_heads": 2}, 19_005_440 - 6 * 2 * 512 * 384),
    ],
)
def test_parameter_count_is_exact(shape: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = FinGPT(FinGPTConfig(**shape))

    assert model.parameter_count() == count


def test_tensors_are_the_parameters_alone() -> None:
    model = tiny(hours=True, symbols=("A",))

    assert sum(array.size for array in model.to_tensors().values()) == model.parameter_count()
    assert all(name.startswith("model.") for name in model.to_tensors())


def test_config_survives_json() -> None:
    config = FinGPTConfig(symbols=("A", "B"), hours=True)

    assert FinGPTConfig.from_dict({**dataclasses.asdict(config), "symbols": ["A", "B"]}) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": 0},
        {"width": 100, "heads": 3, "kv_heads": 3},
        {"width": 24, "heads": 8},
        {"kv_heads": 3},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"symbol_dropout": -0.1},
        {"symbols": ("A", "A")},
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        FinGPTConfig(**wrong)


def test_a_new_model_knows_nothing() -> None:
    # Projections into the residual start at zero and the head small: close to one of 128 equally likely tokens.
    torch.manual_seed(0)
    model = FinGPT(FinGPTConfig(layers=2, width=64, heads=2, kv_heads=2))
    tokens = torch.randint(0, 128, (4, 32))

    loss = functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    assert loss.item() == pytest.approx(4.852, abs=0.05)
    assert all(not block.mlp.down.weight.any() for block in model.blocks)


@torch.no_grad()
def test_logits_do_not_depend_on_later_tokens() -> None:
    model = tiny(hours=True, symbols=("A",))
    tokens, hours = tokens_of(model, 2, 20), torch.randint(0, 168, (2, 20))
    changed, moved = tokens.clone(), hours.clone()
    changed[:, 12:], moved[:, 12:] = (tokens[:, 12:] + 1) % 16, (hours[:, 12:] + 1) % 168

    before, after = model(tokens, hours), model(changed, moved)

    assert torch.equal(before[:, :12], after[:, :12])
    assert (before[:, 12:] != after[:, 12:]).all(dim=-1).any()


@torch.no_grad()
def test_a_window_as_long_as_the_sequence_changes_nothing() -> None:
    model = tiny()
    tokens = tokens_of(model, 1, 20)

    torch.testing.assert_close(model(tokens, window=20), model(tokens), atol=1e-5, rtol=0)
    assert (model(tokens, window=4)[:, 3] - model(tokens)[:, 3]).abs().max() < 1e-5
    assert (model(tokens, window=4)[:, 10] - model(tokens)[:, 10]).abs().max() > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.sampled_from([1, 2, 4]), st.sampled_from([None, 1, 3, 50]), st.integers(0, 99))
def test_attention_layer_is_its_definition(t: int, kv_heads: int, window: int | None, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Attention(16, 4, kv_heads)
    x, (cos, sin) = torch.randn(2, t, 16), rotary_tables(4, t)

    q, k, v = layer._heads(x)
    q, k = ops.qk_norm_rope(q, k, cos, sin)

    expected = ops.attention(q, k, v, window=window)
    torch.testing.assert_close(fused_attention(q, k, v, window=window), expected, atol=1e-5, rtol=0)
    out = layer.out(expected.transpose(1, 2).reshape(2, t, 16))
    torch.testing.assert_close(layer(x, cos, sin, window), out, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3, 1.0, 1e6])
def test_the_quick_norm_is_the_norm(scale: float) -> None:
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0)) * scale

    torch.testing.assert_close(quick_rms_norm(x), ops.rms_norm(x, eps=1e-6), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_hours_and_symbols_change_the_forecast_and_are_asked_for() -> None:
    model = tiny(hours=True, symbols=("A", "B"))
    tokens, hours = tokens_of(model, 1, 5), torch.arange(5)[None]
    index = torch.tensor([model.symbol_index("B")])

    assert (model.symbol_index("A"), model.symbol_index("B"), model.symbol_index("C")) == (1, 2, 0)
    assert not torch.allclose(model(tokens, hours, index), model(tokens, hours))
    assert not torch.allclose(model(tokens, hours + 1), model(tokens, hours))
    torch.testing.assert_close(model(tokens, hours, torch.tensor([0])), model(tokens, hours))
    with pytest.raises(ValueError, match="hours are needed"):
        model(tokens)


def test_symbol_dropout_trains_the_unknown_symbol_and_only_in_training() -> None:
    model = tiny(symbols=("A",), symbol_dropout=0.5)
    tokens, index = tokens_of(model, 64, 3), torch.ones(64, dtype=torch.long)
    with torch.no_grad():
        named, unnamed = model(tokens, None, index), model(tokens)

    torch.manual_seed(0)
    mixed = model.train()(tokens, None, index)
    mixed.sum().backward()

    hidden = (mixed - unnamed).abs().amax(dim=(1, 2)) < 1e-5
    assert 16 < int(hidden.sum()) < 48
    assert ((mixed - named).abs().amax(dim=(1, 2)) < 1e-5).eq(~hidden).all()
    assert model.symbol_embedding is not None
    assert model.symbol_embedding.weight.grad is not None
    assert model.symbol_embedding.weight.grad.abs().sum(dim=1).gt(0).all()


def test_recomputed_blocks_give_the_same_gradients() -> None:
    model = tiny(dropout=0.2).train()
    tokens = tokens_of(model, 2, 8)
    gradients = []
    for recompute in (False, True):
        model.recompute_blocks = recompute
        model.zero_grad()
        torch.manual_seed(3)
        functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])

    assert len(gradients[0]) == len(list(model.parameters()))
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def saved(folder: Path, config: dict[str, Any], model: FinGPT | None = None) -> Path:
    """A checkpoint, sound but for its config."""
    tensors = (model or tiny()).to_tensors()
    training = Training(start=None, end=None, symbols=("X",), bar_s=60.0, embargo_bars=0)
    write(folder, kind="fingpt", config=config, codec=None, training=training, metrics={}, tensors=tensors)
    return folder


def test_a_loaded_model_is_the_one_that_was_saved_and_draws_nothing(tmp_path: Path) -> None:
    model = tiny(hours=True, symbols=("A",))
    folder = saved(tmp_path / "one", model.to_manifest(), model)
    state = torch.random.get_rng_state()

    loaded = FinGPT.load(folder)

    assert torch.equal(torch.random.get_rng_state(), state)
    assert not loaded.training
    assert loaded.config == model.config
    tokens, hours = tokens_of(model, 2, 12), torch.arange(24).view(2, 12)
    assert torch.equal(loaded(tokens, hours), model(tokens, hours))
    cache = loaded.new_cache(1)
    wanted = model(tokens[:1], hours[:1])[0, -1]
    torch.testing.assert_close(loaded.prefill(tokens[0], hours[0], None, cache, 0), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layers": "two"}, "layers"),
        ({"layers": 2.5}, "layers"),
        ({"layers": 0}, "layers must lie in"),
        ({"layers": 10**9}, "layers must lie in"),
        ({"layers": 3}, "do not fit its config"),
        ({"width": 64}, "do not fit its config"),
        ({"width": 16_384}, "do not fit its config"),
        ({"context": 10**12}, "context must lie in"),
        ({"context": None}, "context"),
        ({"heads": 5}, "heads"),
        ({"hours": "yes"}, "hours"),
        ({"hours": True}, "want hour_embedding.weight"),
        ({"symbols": "ABC"}, "symbols"),
        ({"symbols": [1]}, "symbols"),
        ({"symbols": ["A", "A"]}, "symbols must differ"),
        ({"dropout": "none"}, "dropout"),
        ({"dropout": 1e308}, "dropout"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_impossible_config_is_refused_in_a_sentence(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    folder = saved(tmp_path / "one", {**tiny().to_manifest(), **changed})

    with pytest.raises(CheckpointError, match=said) as refused:
        FinGPT.load(folder)

    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(tiny().to_manifest())), JSON)
@settings(max_examples=60, deadline=None)
def test_any_value_in_a_config_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any
) -> None:
    folder = saved(tmp_path_factory.mktemp("any") / "one", {**tiny().to_manifest(), name: value})

    try:
        config = FinGPT.load(folder).config
    except CheckpointError:
        return
    assert dataclasses.asdict(config)[name] in (value, tuple(value) if isinstance(value, list) else value)
