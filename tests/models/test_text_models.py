"""GPT-2 and Llama through the layers, cache and steps that FinGPT has: cached decoding is the definition."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny
from tiny_text import EXACT, MODELS, far, text_model, tokens_of
from torch import Tensor
from torch.nn import functional

from kernels import reference as ops
from models.decoder import CachedDecoder
from models.gpt2 import GPT2, GPT2Config
from models.kv_cache import ContextError, KVCache
from models.layers import Attention, Block, BlockKind, LayerNorm, RMSNorm, SwigluMLP
from models.llama import Llama, LlamaConfig


@torch.no_grad()
def whole(model: CachedDecoder, tokens: Tensor) -> Tensor:
    """The definition: logits (T, V) of tokens (T,)."""
    return model(tokens[None])[0]


def poisoned(model: CachedDecoder, slots: int) -> KVCache:
    cache = model.new_cache(slots)
    cache.store.fill_(float("nan"))
    return cache


@pytest.mark.parametrize("name", MODELS)
def test_steps_and_pieces_are_one_forward_at_every_position(name: str) -> None:
    model = text_model(name)
    tokens = tokens_of(model, 24)
    expected = whole(model, tokens)

    cache = poisoned(model, 2)
    stepped = torch.stack([model.step(token[None], None, None, cache, [1])[0] for token in tokens])

    assert far(stepped, expected) < EXACT
    for first in (1, 7, 23, 24):
        cache.reset(0)
        assert far(model.prefill(tokens[:first], None, None, cache, 0), expected[first - 1]) < EXACT
        if first < 24:
            assert far(model.prefill(tokens[first:], None, None, cache, 0), expected[-1]) < EXACT


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_different_lengths_is_one_by_one(name: str) -> None:
    model = text_model(name)
    together, alone = poisoned(model, 4), poisoned(model, 4)
    for slot, length in ((0, 5), (2, 11), (3, 1)):
        for cache in (together, alone):
            model.prefill(tokens_of(model, length, seed=slot), None, None, cache, slot)
    for now in range(10):
        tokens = tokens_of(model, 4, seed=now)
        batch = model.step(tokens, None, None, together, [0, 1, 2, 3])
        for slot in range(4):
            assert far(batch[slot], model.step(tokens[slot : slot + 1], None, None, alone, [slot])[0]) < EXACT


@pytest.mark.parametrize("name", [name for name in MODELS if name != "llama-window"])
def test_the_token_that_does_not_fit_is_refused_and_nothing_is_taken_in(name: str) -> None:
    model = text_model(name)
    tokens = tokens_of(model, 25)
    cache = model.new_cache(2)

    with pytest.raises(ContextError, match="at most 24 tokens"):
        model.prefill(tokens, None, None, cache, 0)
    assert (cache.counts, cache.room(0)) == ([0, 0], 24)
    model.prefill(tokens[:24], None, None, cache, 0)
    with pytest.raises(ContextError, match="at most 24 tokens"):
        model.step(tokens[:2], None, None, cache, [1, 0])
    with pytest.raises(ContextError, match="at most 24 tokens"):
        model.beside(tokens[None, :1], cache, 0)
    with pytest.raises(ContextError, match="at most 24 tokens"):
        model.beside(tokens[None], cache, None)
    assert (cache.counts, cache.room(0)) == ([24, 0], 0)


def test_a_llama_that_was_asked_for_a_window_goes_on_for_ever() -> None:
    model = text_model("llama-window")
    tokens = tokens_of(model, 100)
    cache = model.new_cache(1)
    with torch.no_grad():
        expected = model(tokens[None], window=24)[0]

    stepped = torch.stack([model.step(token[None], None, None, cache, [0])[0] for token in tokens])

    assert cache.room(0) is None
    assert far(stepped, expected) < EXACT


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_hidden_states_leave_after_the_layer_that_was_asked_for(name: str) -> None:
    model = text_model(name)
    tokens = tokens_of(model, 2, 9)

    assert far(model.logits(model.hidden(tokens, 3)), model(tokens)) < EXACT
    first = model.hidden(tokens, 1)
    changed = copy.deepcopy(model)
    for parameter in changed.blocks[1:].parameters():
        parameter.fill_(float("nan"))
    assert torch.equal(changed.hidden(tokens, 1), first)
    assert torch.equal(
        changed.beside(tokens, changed.new_cache(1), None, 1), model.beside(tokens, poisoned(model, 1), None, 1)
    )
    for layer in (0, 4):
        with pytest.raises(ValueError, match=r"layer in \[1, 3\]"):
            model.hidden(tokens, layer)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), st.integers(0, 14), st.integers(1, 10), st.integers(1, 4), st.integers(1, 3))
def test_many_go_on_beside_a_sequence_as_if_each_were_alone(
    name: str, held: int, more: int, count: int, layer: int
) -> None:
    model = text_model(name)
    cache = poisoned(model, 2)
    prefix, tails = tokens_of(model, held), tokens_of(model, count, more, seed=1)
    if held:
        model.prefill(prefix, None, None, cache, 1)
    before = cache.store.clone()

    found = model.beside(tails, cache, 1 if held else None, layer)

    with torch.no_grad():
        expected = model.hidden(torch.cat((prefix.expand(count, -1), tails), dim=1), layer)[:, held:]
    assert far(found, expected) < EXACT
    assert cache.counts == [0, held]
    assert torch.equal(cache.store.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("held", [3, 12, 24, 35, 48])
@pytest.mark.parametrize("more", [1, 5, 30])
@torch.no_grad()
def test_beside_a_ring_that_has_wrapped_or_is_about_to_turn_a_window_slides(held: int, more: int) -> None:
    model = tiny()  # FinGPT: a ring of 12
    cache = KVCache(2, 1, 2, 12, 8, laps=2)
    prefix, tails = tokens_of(model, held), tokens_of(model, 3, more, seed=1)
    model.prefill(prefix, None, None, cache, 0)

    found = model.logits(model.beside(tails, cache, 0))

    expected = model(torch.cat((prefix.expand(3, -1), tails), dim=1), window=12)[:, held:]
    assert far(found, expected) < EXACT
    after = model.step(tails[:1, 0], None, None, cache, [0])[0]
    assert far(after, expected[0, 0]) < EXACT


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_decodes_to_its_rounding(name: str) -> None:
    exact = text_model(name)
    model = copy.deepcopy(exact).to(torch.bfloat16)
    tokens = tokens_of(model, 20)
    expected = whole(exact, tokens)
    scale = expected.std().item()

    cache = model.new_cache(2)
    stepped = torch.stack([model.step(token[None], None, None, cache, [0])[0] for token in tokens])
    piece = model.prefill(tokens, None, None, cache, 1)

    assert (cache.store.dtype, stepped.dtype) == (torch.bfloat16, torch.bfloat16)
    for found, wanted in (
        (stepped.float(), expected),
        (piece.float(), expected[-1]),
        (whole(model, tokens).float(), expected),
    ):
        assert (found - wanted).square().mean().sqrt().item() < 0.03 * scale


def test_the_published_sizes_are_exact() -> None:
    with torch.device("meta"):
        assert GPT2(GPT2Config()).parameter_count() == 124_439_808
        assert Llama(LlamaConfig()).parameter_count() == 134_515_008
        without = GPT2(GPT2Config(vocabulary=65, context=64, layers=2, width=32, heads=2, bias=False))
    assert without.parameter_count() == 65 * 32 + 64 * 32 + 2 * (12 * 32 * 32 + 2 * 32) + 32
    assert not any(name.endswith("bias") for name in without.state_dict())


def test_new_projections_into_the_residual_are_smaller_with_depth() -> None:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocabulary=100, context=16, layers=8, width=128, heads=4))

    for block in model._blocks:
        assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for projection in (block.attention.out, block.mlp.down):
            assert projection.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
            assert not projection.bias.any()
    tokens = torch.randint(0, 100, (8, 16))
    loss = functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(100), abs=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_learns_and_recomputed_blocks_learn_the_same(name: str) -> None:
    model = text_model(name).train()
    tokens = tokens_of(model, 2, 8)
    gradients = []
    for recompute in (False, True):
        model.recompute_blocks = recompute
        model.zero_grad()
        functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(g is not None and g.abs().sum() > 0 for g in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_the_block_of_a_llama_is_written_out_here_once_more() -> None:
    kind = BlockKind(norm="rms", mlp="swiglu", qk_norm=False, rotary=True, eps=1e-5)
    block = Block(16, 4, 2, 0.0, hidden=24, kind=kind)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, cos, sin = torch.randn(2, 5, 16), torch.randn(5, 2).cos(), torch.randn(5, 2).sin()

    y = functional.rms_norm(x, (16,), block.attention_norm.weight, 1e-5)
    q, k, v = (y @ block.attention.qkv.weight.T).view(2, 5, 8, 4).transpose(1, 2).split((4, 2, 2), dim=1)
    y = ops.attention(ops.rope(q, cos, sin), ops.rope(k, cos, sin), v).transpose(1, 2).reshape(2, 5, 16)
    middle = x + y @ block.attention.out.weight.T
    y = functional.rms_norm(middle, (16,), block.mlp_norm.weight, 1e-5)
    gate, up = block.mlp.up.weight.chunk(2)
    torch.testing.assert_close(block(x, cos, sin, None), middle + ops.swiglu_mlp(y, gate, up, block.mlp.down.weight))


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norms_are_their_definition(bias: bool) -> None:
    kind = BlockKind(norm="layer", mlp="gelu", qk_norm=False, rotary=False, bias=bias, eps=1e-5)
    norm = LayerNorm(16, kind)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 4, 16)

    expected = ops.layer_norm(x, norm.weight, norm.bias, 1e-5)

    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm.quick(x), expected)
    weighted = RMSNorm(16, BlockKind(norm="rms", mlp="swiglu", qk_norm=False, eps=1e-5))
    torch.nn.init.normal_(weighted.weight)
    torch.testing.assert_close(weighted.quick(x), weighted(x))


@pytest.mark.parametrize(
    "wrong",
    [{"norm": "batch"}, {"mlp": "relu"}, {"rotary": False}, {"bias": True}, {"eps": 0.0}, {"eps": float("nan")}],
)
def test_a_block_that_no_architecture_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"want|must"):
        BlockKind(**wrong)


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"heads": 5}, {"eps": 0.0}, {"dropout": 1.0}, {"context": 10**9}])
def test_impossible_shapes_of_a_gpt2_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        GPT2Config(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"heads": 5}, {"kv_heads": 2}, {"rotary_base": 0.5}, {"rotary_base": float("nan")}]
)
def test_impossible_shapes_of_a_llama_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LlamaConfig(**wrong)


def test_a_cache_longer_than_the_positions_is_refused_and_a_shorter_one_is_taken() -> None:
    model = text_model("gpt2")
    for context in (0, 25):
        with pytest.raises(ValueError, match=r"context in \[1, 24\]"):
            model.new_cache(1, context)
    assert model.new_cache(1, 5).room(0) == 5
    with pytest.raises(ValueError, match="at most 24 tokens"):
        model(tokens_of(model, 1, 25))


def test_parts_are_chosen_when_a_block_is_made() -> None:
    model = text_model("llama")
    assert isinstance(model._blocks[0].mlp, SwigluMLP)
    assert isinstance(model._blocks[0].attention, Attention)
