"""The model as it is defined: its size, what it may see, and how conditioning enters."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny, tokens_of
from torch.nn import functional

from kernels import reference as ops
from models.fingpt import FinGPT, FinGPTConfig
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
