"""Decoding through the cache is the definition: one forward over the whole sequence, with a window of the context."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny, tokens_of
from torch import Tensor

from models.fingpt import FinGPT
from models.kv_cache import KVCache

NAN = float("nan")
EXACT = 1e-5  # fp32, logits


def poisoned(model: FinGPT, slots: int, laps: int = 16) -> KVCache:
    """An empty cache whose memory is NaN."""
    c = model.config
    cache = KVCache(c.layers, slots, c.kv_heads, c.context, c.head_dim, laps=laps)
    cache.store.fill_(NAN)
    return cache


@torch.no_grad()
def whole(model: FinGPT, tokens: Tensor) -> Tensor:
    """The definition: logits (T, V) of tokens (T,)."""
    return model(tokens[None], window=model.config.context)[0]


def stepped(model: FinGPT, tokens: Tensor, cache: KVCache, slot: int = 0) -> Tensor:
    return torch.stack([model.step(token[None], None, None, cache, [slot])[0] for token in tokens])


def far(found: Tensor, expected: Tensor) -> float:
    """Largest difference; NaN stays NaN, and fails every comparison."""
    return (found - expected).abs().max().item()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("laps", [1, 2, 16])
def test_steps_are_one_forward_at_every_position_through_many_wraps(kv_heads: int, laps: int) -> None:
    # 220 tokens in a ring of 12: 18 wraps, and with 16 laps one turn of the keys.
    model = tiny(kv_heads=kv_heads)
    tokens = tokens_of(model, 220)

    assert far(stepped(model, tokens, poisoned(model, 1, laps)), whole(model, tokens)) < EXACT


def test_steps_are_one_forward_at_the_size_that_ships() -> None:
    model = tiny(vocabulary=128, context=256, layers=4, width=128, heads=4, kv_heads=4)
    tokens = tokens_of(model, 4 * 256 + 7)  # three wraps and a little

    cached = stepped(model, tokens, poisoned(model, 1, laps=2))

    # Random weights of this size make logits of 4 and more: fp32 rounding in proportion.
    assert far(cached, whole(model, tokens)) < EXACT


@torch.no_grad()
def test_before_the_wrap_steps_are_plain_recomputation() -> None:
    model = tiny()
    tokens = tokens_of(model, 12)

    cached = stepped(model, tokens, poisoned(model, 1))

    for t in range(12):
        assert far(cached[t], model(tokens[None, : t + 1])[0, -1]) < EXACT


@torch.no_grad()
def test_after_the_wrap_steps_know_more_than_the_window_recomputed() -> None:
    # Each layer looks one context further back, so the two differ; a model of one layer cannot tell them apart.
    for layers, same in ((1, True), (2, False)):
        model = tiny(layers=layers)
        tokens = tokens_of(model, 40)
        cached = stepped(model, tokens, poisoned(model, 1))[-1]
        window = model(tokens[None, -12:])[0, -1]
        assert (far(cached, window) < EXACT) is same


@pytest.mark.parametrize("start", [1_000, 9_999_937, 10_000_000, 2**40 + 11])
def test_a_late_token_is_as_right_as_an_early_one(start: int) -> None:
    # The counter says that `start` tokens came before; what they were is out of sight after layers x context tokens.
    model = tiny()
    tokens, settled = tokens_of(model, 300), 2 * 12
    cache = model.new_cache(1)
    cache.counts[0] = start

    found = stepped(model, tokens, cache)

    assert cache.counts == [start + 300]
    assert far(found[settled:], whole(model, tokens)[settled:]) < EXACT


@pytest.mark.parametrize("first", [1, 5, 11, 12, 13, 24, 100])
@pytest.mark.parametrize("laps", [1, 3])
def test_prefill_is_the_same_as_steps(first: int, laps: int) -> None:
    model = tiny()
    tokens = tokens_of(model, 120)
    expected = whole(model, tokens)
    cache = poisoned(model, 2, laps)

    assert far(model.prefill(tokens[:first], None, None, cache, 1), expected[first - 1]) < EXACT
    assert far(model.step(tokens[first][None], None, None, cache, [1])[0], expected[first]) < EXACT
    assert far(model.prefill(tokens[first + 1 :], None, None, cache, 1), expected[-1]) < EXACT


def test_prefill_refuses_nothing() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="at least one token"):
        model.prefill(torch.empty(0, dtype=torch.long), None, None, model.new_cache(1), 0)


@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [3, 1, 0, 5], [1, 2, 4, 5], [5, 3, 1, 0]])
def test_a_batch_of_different_lengths_is_one_by_one(slots: list[int]) -> None:
    # Neighbours or not, new, half full, wrapped, and one about to turn its keys.
    model = tiny(hours=True, symbols=("A", "B"))
    together, alone = poisoned(model, 6, laps=2), poisoned(model, 6, laps=2)
    index = torch.tensor([0, 1, 2, 1])
    for slot, length, symbol in zip(slots, (0, 5, 30, 24), index, strict=True):
        for cache in (together, alone):
            if length:
                hours = torch.arange(length)
                model.prefill(tokens_of(model, length, seed=slot), hours, symbol, cache, slot)
    for now in range(30):
        tokens, hours = tokens_of(model, 4, seed=now), torch.tensor([now, 3, 50, 167])

        batch = model.step(tokens, hours, index, together, slots)

        for i, slot in enumerate(slots):
            rows = slice(i, i + 1)
            single = model.step(tokens[rows], hours[rows], index[rows], alone, [slot])
            assert far(batch[rows], single) < EXACT
    assert together.counts == alone.counts


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_happens_to_other_slots_each_is_its_own_sequence(data: st.DataObject) -> None:
    # Steps of some slots, pieces into one, forgetting, branching off: every answer is that of the whole sequence.
    model = tiny()
    cache = poisoned(model, 4, laps=data.draw(st.sampled_from([1, 2, 16])))
    told: list[list[int]] = [[] for _ in range(4)]
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["step", "step", "piece", "piece", "reset", "fork"]))
        slots = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
        if kind == "step":
            tokens = data.draw(st.lists(st.integers(0, 15), min_size=len(slots), max_size=len(slots)))
            found = model.step(torch.tensor(tokens), None, None, cache, slots)
            for row, slot in enumerate(slots):
                told[slot].append(tokens[row])
                assert far(found[row], whole(model, torch.tensor(told[slot]))[-1]) < EXACT
        elif kind == "piece":
            piece = data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=30))
            told[slots[0]] += piece
            found = model.prefill(torch.tensor(piece), None, None, cache, slots[0])
            assert far(found, whole(model, torch.tensor(told[slots[0]]))[-1]) < EXACT
        elif kind == "reset":
            cache.reset(slots[0])
            told[slots[0]] = []
        else:
            cache.fork(cache, slots[0], slots[1:])
            for slot in slots[1:]:
                told[slot] = list(told[slots[0]])
    assert cache.counts == [len(tokens) for tokens in told]


def test_branches_of_one_prefix_go_their_own_ways() -> None:
    model = tiny()
    prefix, tails = tokens_of(model, 29), tokens_of(model, 3, 20, seed=1)
    cache, branches = poisoned(model, 2), poisoned(model, 3)
    model.prefill(prefix, None, None, cache, 1)
    before = cache.store[:, :, 1].clone()

    branches.fork(cache, 1, range(3))
    found = torch.stack([model.step(tails[:, i], None, None, branches, [0, 1, 2]) for i in range(20)], dim=1)

    for branch in range(3):
        assert far(found[branch], whole(model, torch.cat((prefix, tails[branch])))[29:]) < EXACT
    assert torch.equal(cache.store[:, :, 1], before)
    assert cache.counts == [0, 29]


def test_a_slot_cannot_be_copied_onto_itself_nor_stepped_twice() -> None:
    model = tiny()
    cache = model.new_cache(2)
    with pytest.raises(ValueError, match="onto itself"):
        cache.fork(cache, 1, [0, 1])
    with pytest.raises(ValueError, match="must differ"):
        model.step(torch.tensor([1, 2]), None, None, cache, [0, 0])
    assert cache.counts == [0, 0]


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"layers": 0}, {"context": -1}, {"laps": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    sizes = {"layers": 1, "slots": 1, "kv_heads": 1, "context": 4, "head_dim": 4, **wrong}
    with pytest.raises(ValueError, match="at least 1"):
        KVCache(**sizes)  # type: ignore[arg-type]


def test_decoding_allocates_no_new_memory_in_the_cache() -> None:
    model = tiny()
    cache = model.new_cache(2)
    address, size = cache.store.data_ptr(), cache.nbytes

    for token in tokens_of(model, 40):
        model.step(token[None], None, None, cache, [1])

    assert (cache.store.data_ptr(), cache.nbytes) == (address, size)
    assert size == 2 * 2 * 2 * 2 * 12 * 8 * 4


def test_dropout_is_never_applied_in_decoding() -> None:
    model = tiny(dropout=0.9).train()
    tokens = tokens_of(model, 5)

    found = stepped(model, tokens, model.new_cache(1))

    assert far(found, whole(model.eval(), tokens)) < EXACT
    assert far(model.train().prefill(tokens, None, None, model.new_cache(1), 0), found[-1]) < EXACT
