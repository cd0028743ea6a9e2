"""The engine over text models: what is scored, embedded and sampled is one forward over the whole text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny
from tiny_text import MODELS, text_model

from models.decoder import CachedDecoder
from models.engine import Engine, EngineError, Fed, Sampling
from models.kv_cache import ContextError
from models.sampling import Floats

texts = st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=12), min_size=1, max_size=7)


def log_chances(model: CachedDecoder, tokens: list[int]) -> Floats:
    """(T, V), of the token after each, by the definition."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([tokens]))[0].double(), dim=1).numpy()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MODELS), st.lists(st.integers(0, 49), min_size=1, max_size=12), texts)
def test_scores_are_those_of_the_whole_text(name: str, prompt: list[int], continuations: list[list[int]]) -> None:
    model = text_model(name)
    engine = Engine(model, 2)
    engine.feed([Fed(symbol="prompt", tokens=prompt)])

    found = engine.score("prompt", continuations)

    for tokens, score in zip(continuations, found, strict=True):
        rows = log_chances(model, prompt + tokens)[len(prompt) - 1 : -1]
        assert score == pytest.approx(rows[np.arange(len(tokens)), tokens].sum(), abs=1e-4)
    assert engine.length("prompt") == len(prompt)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MODELS), st.lists(st.integers(0, 49), max_size=12), texts, st.integers(1, 3))
def test_embeddings_are_the_last_and_the_mean_hidden_state(
    name: str, prompt: list[int], batch: list[list[int]], layer: int
) -> None:
    model = text_model(name)
    engine = Engine(model, 1)
    if prompt:
        engine.feed([Fed(symbol="prompt", tokens=prompt)])
    after = "prompt" if prompt else None

    found = engine.embed(batch, layer, after)

    assert (found.dtype, found.shape) == (np.float32, (len(batch), 64))
    for tokens, row in zip(batch, found, strict=True):
        with torch.no_grad():
            hidden = model.hidden(torch.tensor([prompt + tokens]), layer)[0, len(prompt) :].numpy()
        np.testing.assert_allclose(row, np.concatenate((hidden[-1], hidden.mean(axis=0))), atol=1e-5)
        np.testing.assert_allclose(engine.embed([tokens], layer, after)[0], row, atol=1e-5)


def test_a_large_batch_is_cut_and_comes_back_in_its_order() -> None:
    model = text_model("llama")
    engine = Engine(model, 1)
    chance = np.random.default_rng(0)
    batch = [chance.integers(0, 50, size).tolist() for size in chance.integers(1, 25, 200)]

    found = engine.embed(batch, 2)

    for row in (0, 17, 199):
        np.testing.assert_allclose(found[row], engine.embed([batch[row]], 2)[0], atol=1e-5)
    assert engine.embed([], 2).shape == (0, 64)


def test_the_chances_of_all_continuations_sum_to_one() -> None:
    engine = Engine(text_model("gpt2"), 1)
    engine.feed([Fed(symbol="p", tokens=[1, 2, 3])])

    one = engine.score("p", [[token] for token in range(50)])
    two = engine.score("p", [[7, token] for token in range(50)])

    assert np.exp(one).sum() == pytest.approx(1.0, abs=1e-6)
    assert np.exp(two).sum() == pytest.approx(math.exp(one[7]), abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_is_read_once_and_gone_back_to(name: str) -> None:
    model = text_model(name)
    engine, fresh = Engine(model, 1), Engine(model, 1)
    prompt = [1, 2, 3, 4, 5]
    engine.feed([Fed(symbol="p", tokens=prompt)])
    for text in ([6], [7, 8, 9, 10], [11, 12]):
        found = engine.feed([Fed(symbol="p", tokens=text)])
        fresh.forget("p")
        np.testing.assert_allclose(found, fresh.feed([Fed(symbol="p", tokens=prompt + text)]), atol=1e-5)
        np.testing.assert_allclose(engine.score("p", [[1, 2]]), fresh.score("p", [[1, 2]]), atol=1e-5)
        engine.rewind("p", 5)
        assert engine.length("p") == 5
        assert engine.embed([text], 1, "p").shape == (1, 64)  # which asks for no logits
        for ask in (lambda: engine.score("p", [[1]]), lambda: engine.sample("p", 1)):
            with pytest.raises(EngineError, match="since it went back"):
                ask()
    engine.feed([Fed(symbol="p", tokens=[6])])
    engine.rewind("p", 6)
    assert engine.score("p", [[1]]).shape == (1,)


def test_going_back_where_a_ring_has_wrapped_is_refused() -> None:
    engine = Engine(tiny(), 1)  # a ring of 12
    engine.feed([Fed(symbol="A", tokens=[1] * 13)])

    for count, said in ((5, "gone round"), (14, "between 0 and 13"), (-1, "between 0 and 13")):
        with pytest.raises(EngineError, match=said):
            engine.rewind("A", count)
    assert engine.length("A") == 13
    with pytest.raises(EngineError, match="was fed"):
        engine.rewind("B", 1)
    engine.rewind("A", 13)
    assert engine.sample("A", 2).shape == (2,)


@pytest.mark.parametrize("name", MODELS)
def test_a_text_ends_before_the_token_that_stops_it(name: str) -> None:
    model = text_model(name)
    engine = Engine(model, 1)
    greedy = Sampling(temperature=0.0)
    engine.feed([Fed(symbol="p", tokens=[1, 2, 3])])

    tokens = engine.sample("p", 12, sampling=greedy).tolist()

    expected = [1, 2, 3]
    for _ in range(12):
        expected.append(int(log_chances(model, expected)[-1].argmax()))
    assert tokens == expected[3:]
    end = tokens[5]
    assert engine.sample("p", 12, sampling=greedy, stop={end}).tolist() == tokens[: tokens.index(end)]
    assert engine.sample([1, 2, 3], 12, sampling=greedy, stop=(end,)).tolist() == tokens[: tokens.index(end)]


def test_what_does_not_fit_is_refused_and_nothing_is_taken_in() -> None:
    model = text_model("gpt2")
    engine = Engine(model, 2, context=10)
    engine.feed([Fed(symbol="p", tokens=[1] * 8)])

    with pytest.raises(EngineError, match="at most 2 more tokens of p, was 3"):
        engine.feed([Fed(symbol="q", tokens=[1]), Fed(symbol="p", tokens=[1, 2, 3])])
    with pytest.raises(EngineError, match="at most 2 tokens"):
        engine.score("p", [[1], [1, 2, 3]])
    with pytest.raises(EngineError, match="at most 2 tokens"):
        engine.embed([[1, 2, 3]], 1, "p")
    with pytest.raises(EngineError, match="at most 10 tokens"):
        engine.embed([[1] * 11], 1)
    with pytest.raises(ContextError, match="at most 10 tokens"):
        engine.sample("p", 5)
    assert (engine.symbols(), engine.length("p")) == (("p",), 8)
    engine.feed([Fed(symbol="p", tokens=[1] * 10, gap=True)])
    assert engine.length("p") == 10


def test_impossible_questions_are_refused() -> None:
    engine = Engine(text_model("llama"), 1)
    engine.feed([Fed(symbol="p", tokens=[1])])

    for layer in (0, 4):
        with pytest.raises(EngineError, match=r"layer in \[1, 3\]"):
            engine.embed([[1]], layer)
    for wrong in ([[]], [[1], [50]], [[-1]]):
        with pytest.raises(EngineError, match="want"):
            engine.embed(wrong, 1)
        with pytest.raises(EngineError, match="want"):
            engine.score("p", wrong)
    with pytest.raises(EngineError, match="was fed"):
        engine.embed([[1]], 1, "q")
    with pytest.raises(EngineError, match="hour of week"):
        Engine(tiny(hours=True), 1).embed([[1]], 1)
    with pytest.raises(EngineError, match="context in"):
        Engine(text_model("gpt2"), 1, context=25)


def test_a_price_model_of_bare_tokens_is_scored_and_embedded_too() -> None:
    model = tiny()
    engine = Engine(model, 1)
    engine.feed([Fed(symbol="A", tokens=list(range(16)) * 2)])  # its ring has wrapped
    with torch.no_grad():
        logits = model(torch.tensor([[*range(16), *range(16), 3, 9]]), window=12)[0, 31:33].double()

    expected = torch.log_softmax(logits, dim=1)[[0, 1], [3, 9]].sum().item()

    assert engine.score("A", [[3, 9]])[0] == pytest.approx(expected, abs=1e-5)
    assert engine.embed([[1, 2]], 2, "A").shape == (1, 64)
