"""Going back to the first tokens of a slot, and caches without rotation or with an end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny, tokens_of
from tiny_text import MODELS, text_model
from torch import Tensor

from models.decoder import CachedDecoder
from models.kv_cache import ContextError, KVCache

EXACT = 2e-5


@torch.no_grad()
def whole(model: CachedDecoder, tokens: list[int]) -> Tensor:
    """Logits (V,) after the last, by the definition."""
    return model(torch.tensor([tokens]), window=model.config.context)[0, -1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_came_between_a_slot_goes_on_from_where_it_went_back_to(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["fingpt", *MODELS]))
    model = tiny() if name == "fingpt" else text_model(name)
    vocabulary, context = model.config.vocabulary, model.config.context
    cache = model.new_cache(2)
    cache.store.fill_(float("nan"))
    told: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        room = cache.room(1)
        kind = data.draw(st.sampled_from(["step", "piece", "piece", "back", "back"]))
        if kind == "back":
            count = data.draw(st.integers(0, len(told)))
            if 0 < count < len(told) and len(told) > context:
                with pytest.raises(ContextError, match="overwritten"):
                    cache.rewind(1, count)
            else:
                cache.rewind(1, count)
                told = told[:count]
            continue
        most = 1 if kind == "step" else 20
        most = most if room is None else min(most, room)
        if most:
            piece = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=most))
            told = [*told, *piece]
            tokens = torch.tensor(piece)
            found = (
                model.step(tokens, None, None, cache, [1])[0]
                if len(piece) == 1
                else model.prefill(tokens, None, None, cache, 1)
            )
            assert (found - whole(model, told)).abs().max().item() < EXACT
    assert cache.counts == [0, len(told)]


def test_going_back_copies_nothing() -> None:
    model = text_model("llama")
    cache = model.new_cache(1)
    model.prefill(torch.arange(10), None, None, cache, 0)
    before, address = cache.store.clone(), cache.store.data_ptr()

    cache.rewind(0, 4)

    assert torch.equal(cache.store, before)
    assert cache.store.data_ptr() == address
    assert (cache.counts, cache.room(0), cache.room(None)) == ([4], 20, 24)


@pytest.mark.parametrize("count", [-1, 6])
def test_a_place_that_never_was_is_refused(count: int) -> None:
    model = tiny()
    cache = model.new_cache(1)
    model.prefill(tokens_of(model, 5), None, None, cache, 0)

    with pytest.raises(ContextError, match="between 0 and 5"):
        cache.rewind(0, count)
    assert cache.counts == [5]


@pytest.mark.parametrize("laps", [1, 2, 16])
def test_a_ring_that_is_just_full_can_go_back_and_one_that_has_wrapped_cannot(laps: int) -> None:
    model = tiny()
    cache = KVCache(2, 1, 2, 12, 8, laps=laps)
    tokens = tokens_of(model, 14)
    model.prefill(tokens[:12], None, None, cache, 0)
    cache.rewind(0, 11)
    model.prefill(tokens[11:13], None, None, cache, 0)

    with pytest.raises(ContextError, match="13 have gone round a ring of 12"):
        cache.rewind(0, 12)

    found = model.step(tokens[13:14], None, None, cache, [0])[0]
    assert (found - whole(model, tokens.tolist())).abs().max().item() < EXACT
    cache.rewind(0, 0)
    assert cache.counts == [0]


def test_keys_without_rotation_are_kept_as_they_came() -> None:
    cache = KVCache(1, 1, 1, 4, 2, base=None, laps=1)
    chunk = cache.begin_chunk(0, 3)
    keys = torch.arange(6.0).view(1, 1, 3, 2)
    cache.extend(0, chunk, keys, keys)
    cache.advance((0,), 3)
    for _ in range(6):  # past the span, where rotated keys would be turned
        step = cache.begin_step((0,))
        assert step.cos.numel() == 0
        cache.write(0, step, torch.full((2, 1, 1, 2), 9.0))
        cache.advance((0,))

    assert cache.store[0, 0, 0, 0].tolist() == [[9.0, 9.0]] * 4


def test_another_base_is_another_angle() -> None:
    plain, other = KVCache(1, 1, 1, 4, 4), KVCache(1, 1, 1, 4, 4, base=100.0)
    for cache in (plain, other):
        cache.counts[0] = 3
    cos = [cache.begin_step((0,)).cos for cache in (plain, other)]

    torch.testing.assert_close(cos[0], torch.tensor([3.0, 0.03, 3.0, 0.03]).cos())
    torch.testing.assert_close(cos[1], torch.tensor([3.0, 0.3, 3.0, 0.3]).cos())
