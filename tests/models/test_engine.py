"""The decode loop: symbols together and alone, gaps, branches, forecasts."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tiny_model import tiny, tokens_of

from models.engine import Engine, EngineError, Fed, ReturnTable, Sampling
from models.fingpt import FinGPT
from models.sampling import Floats


def table(codes: int = 16) -> ReturnTable:
    quantiles = np.sort(np.random.default_rng(0).standard_t(4, (codes, 8)), axis=1)
    return ReturnTable(quantiles, halflife_bars=4.0)


def definition(model: FinGPT, tokens: list[int]) -> Floats:
    """Probabilities of the next token by one forward over the whole sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), window=model.config.context)[0, -1]
    return torch.softmax(logits.double(), dim=0).numpy()


def drawn(symbol: str, count: int) -> list[int]:
    return np.random.default_rng(len(symbol) + count).integers(0, 16, count).tolist()


def test_symbols_of_different_lengths_are_fed_together_as_if_alone() -> None:
    model = tiny()
    engine = Engine(model, 4)
    told = {"AAA": drawn("A", 3), "B": drawn("B", 30), "CC": drawn("C", 1)}

    first = engine.feed([Fed(symbol=name, tokens=tokens) for name, tokens in told.items()])

    np.testing.assert_allclose(first, [definition(model, tokens) for tokens in told.values()], atol=1e-5)
    for bar in range(25):
        order = ["B", "CC", "AAA"] if bar % 2 else ["CC", "AAA"]
        for name in order:
            told[name] = [*told[name], (bar * 7 + len(name)) % 16]
        found = engine.feed([Fed(symbol=name, tokens=told[name][-1:]) for name in order])
        np.testing.assert_allclose(found, [definition(model, told[name]) for name in order], atol=1e-5)
    assert engine.symbols() == ("AAA", "B", "CC")
    assert [engine.length(name) for name in ("AAA", "B", "none")] == [28, 42, 0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=20), min_size=1, max_size=6))
def test_how_a_sequence_is_cut_does_not_matter(pieces: list[list[int]]) -> None:
    model = tiny()
    engine = Engine(model, 1)

    for piece in pieces:
        found = engine.feed([Fed(symbol="A", tokens=piece)])

    np.testing.assert_allclose(found[0], definition(model, list(chain(*pieces))), atol=1e-5)


def test_hours_and_symbols_reach_the_model_in_any_order() -> None:
    model = tiny(hours=True, symbols=("A", "B"))
    names = ["Z", "B", "A"]
    alone = []
    for i, name in enumerate(names):
        single = Engine(model, 1)
        single.feed([Fed(symbol=name, tokens=[1, 2], hours=[5, 6])])
        alone.append(single.feed([Fed(symbol=name, tokens=[i], hours=[7 + i])])[0])
    engine = Engine(model, 3)
    engine.feed([Fed(symbol=name, tokens=[1, 2], hours=[5, 6]) for name in reversed(names)])

    found = engine.feed([Fed(symbol=name, tokens=[i], hours=[7 + i]) for i, name in enumerate(names)])

    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("gap", "forgotten"),
    [({}, False), ({"missing_bars": 3}, False), ({"missing_bars": 4}, True), ({"gap": True}, True)],
)
def test_a_gap_beyond_the_limit_begins_a_new_context(gap: dict[str, Any], forgotten: bool) -> None:
    model = tiny()
    engine = Engine(model, 2, max_gap_bars=3)
    before, after = drawn("A", 20), [3, 1, 2]
    engine.feed([Fed(symbol="A", tokens=before), Fed(symbol="B", tokens=before)])

    found = engine.feed([Fed(symbol="A", tokens=after, **gap), Fed(symbol="B", tokens=[5])])

    np.testing.assert_allclose(found[0], definition(model, after if forgotten else before + after), atol=1e-5)
    np.testing.assert_allclose(found[1], definition(model, [*before, 5]), atol=1e-5)
    assert engine.length("A") == (3 if forgotten else 23)


def test_a_slot_that_is_freed_starts_clean_for_the_next_symbol() -> None:
    model = tiny()
    engine = Engine(model, 1)
    engine.feed([Fed(symbol="A", tokens=drawn("A", 40))])
    with pytest.raises(EngineError, match="at most 1 symbols"):
        engine.feed([Fed(symbol="B", tokens=[1])])

    engine.forget("A")
    engine.forget("A")

    np.testing.assert_allclose(engine.feed([Fed(symbol="B", tokens=[1])])[0], definition(model, [1]), atol=1e-5)
    assert engine.symbols() == ("B",)


@pytest.mark.parametrize(
    "wrong",
    [
        [Fed(symbol="A", tokens=[1]), Fed(symbol="A", tokens=[2])],
        [Fed(symbol="A", tokens=[1]), Fed(symbol="B", tokens=[])],
        [Fed(symbol="A", tokens=[1]), Fed(symbol="B", tokens=[-1])],
        [Fed(symbol="A", tokens=[1]), Fed(symbol="B", tokens=[3, 16])],
        [Fed(symbol="A", tokens=[1]), Fed(symbol="B", tokens=[3], missing_bars=-1)],
        [Fed(symbol=name, tokens=[1]) for name in "ABCD"],
    ],
)
def test_a_batch_with_a_fault_changes_nothing(wrong: list[Fed]) -> None:
    model = tiny()
    engine = Engine(model, 3)
    engine.feed([Fed(symbol="A", tokens=[4, 5])])

    with pytest.raises(EngineError, match="want"):
        engine.feed(wrong)

    assert engine.symbols() == ("A",)
    np.testing.assert_allclose(engine.feed([Fed(symbol="A", tokens=[6])])[0], definition(model, [4, 5, 6]), atol=1e-5)


@pytest.mark.parametrize("hours", [None, [1], [1, 168], [-1, 3], [1, 2, 3]])
def test_missing_and_impossible_hours_are_refused(hours: list[int] | None) -> None:
    engine = Engine(tiny(hours=True), 1)
    with pytest.raises(EngineError, match="2 hours of week"):
        engine.feed([Fed(symbol="A", tokens=[1, 2], hours=hours)])


def test_samples_continue_what_was_fed_and_leave_it_as_it_was() -> None:
    model = tiny()
    engine = Engine(model, 2)
    tokens = drawn("A", 17)
    engine.feed([Fed(symbol="A", tokens=tokens)])

    greedy = engine.sample("A", 6, sampling=Sampling(temperature=0.0)).tolist()

    expected = list(tokens)
    for _ in range(6):
        expected.append(int(definition(model, expected).argmax()))
    assert greedy == expected[17:]
    assert engine.sample(tokens, 6, sampling=Sampling(temperature=0.0)).tolist() == greedy
    assert engine.length("A") == 17
    np.testing.assert_allclose(
        engine.feed([Fed(symbol="A", tokens=[1])])[0], definition(model, [*tokens, 1]), atol=1e-5
    )


def test_samples_are_seeded_and_ignore_global_randomness() -> None:
    engine = Engine(tiny(), 1)
    torch.manual_seed(1)
    first = engine.sample([1, 2, 3], 30, seed=5).tolist()
    torch.manual_seed(2)

    assert engine.sample([1, 2, 3], 30, seed=5).tolist() == first
    assert engine.sample([1, 2, 3], 12, seed=5).tolist() == first[:12]
    assert engine.sample([1, 2, 3], 30, seed=6).tolist() != first
    assert engine.sample([1, 2, 3], 0).tolist() == []


def test_sampled_tokens_have_the_frequencies_of_the_model() -> None:
    model = tiny()
    engine = Engine(model, 1, table=table())
    tokens = drawn("A", 20)
    engine.feed([Fed(symbol="A", tokens=tokens)])

    paths = engine.paths("A", 2, 10_000, 0.01, seed=3)

    first, second = (np.bincount(paths.tokens[:, bar], minlength=16) for bar in range(2))
    chances = definition(model, tokens)
    assert stats.chisquare(first, chances * 10_000).pvalue > 0.001
    after = chances @ np.array([definition(model, [*tokens, code]) for code in range(16)])
    assert stats.chisquare(second, after * 10_000).pvalue > 0.001


def test_the_first_bar_of_many_paths_is_the_exact_distribution() -> None:
    engine = Engine(tiny(), 1, table=table())
    chances = engine.feed([Fed(symbol="A", tokens=drawn("A", 20))])
    exact = engine.one_step(chances, np.array([0.02]))

    paths = engine.paths("A", 1, 40_000, 0.02, seed=4)

    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    at = exact.quantile(levels)[0]
    assert ((paths.returns < at).mean(axis=0) <= levels + 0.01).all()
    assert ((paths.returns <= at).mean(axis=0) >= levels - 0.01).all()  # more, where one value has weight of its own
    assert paths.returns.mean() == pytest.approx(exact.mean[0], abs=4 * exact.volatility[0] / 40_000**0.5)
    assert paths.returns.std() == pytest.approx(exact.volatility[0], rel=0.02)
    assert (paths.returns > 0.0).mean() == pytest.approx(exact.probability_up[0], abs=0.01)


def test_the_scale_of_a_path_follows_its_own_returns() -> None:
    codes = table()
    engine = Engine(tiny(), 1, table=codes)
    engine.feed([Fed(symbol="A", tokens=drawn("A", 5))])

    paths = engine.paths("A", 40, 150, 0.01, seed=1)  # more paths than one round holds

    assert (paths.scales[:, 0] == 0.01).all()
    decay = 0.5**0.25
    expected = np.sqrt(decay * paths.scales[:, :-1] ** 2 + (1.0 - decay) * paths.returns[:, :-1] ** 2)
    np.testing.assert_allclose(paths.scales[:, 1:], expected, rtol=1e-12)
    z = paths.returns / paths.scales
    row = codes.quantiles[paths.tokens]  # (150, 40, 8)
    assert ((z >= row.min(axis=2) - 1e-12) & (z <= row.max(axis=2) + 1e-12)).all()
    assert len(np.unique(paths.returns[:, -1])) == 150


def test_each_path_is_what_the_whole_sequence_says() -> None:
    # Greedy, so that the token of each bar is known: from the forward over prefix and path.
    model = tiny()
    engine = Engine(model, 2, table=table())
    tokens = drawn("A", 30)
    engine.feed([Fed(symbol="A", tokens=tokens)])

    paths = engine.paths("A", 15, 3, 0.01, sampling=Sampling(temperature=0.0))

    expected = list(tokens)
    for _ in range(15):
        expected.append(int(definition(model, expected).argmax()))
    assert paths.tokens.tolist() == [expected[30:]] * 3


def test_paths_do_not_depend_on_how_many_are_drawn() -> None:
    engine = Engine(tiny(), 1, table=table())
    engine.feed([Fed(symbol="A", tokens=drawn("A", 20))])

    few, many = engine.paths("A", 9, 3, 0.01, seed=2), engine.paths("A", 9, 200, 0.01, seed=2)

    np.testing.assert_array_equal(few.tokens, many.tokens[:3])
    np.testing.assert_allclose(few.returns, many.returns[:3], rtol=1e-12)


def test_the_hours_to_come_move_paths_after_the_first_bar() -> None:
    engine = Engine(tiny(hours=True), 1, table=table())
    engine.feed([Fed(symbol="A", tokens=[1, 2, 3], hours=[1, 2, 3])])

    night, day = (engine.paths("A", 3, 500, 0.01, hours=[h, h + 1, h + 2], seed=1) for h in (3, 60))

    assert (night.tokens[:, 0] == day.tokens[:, 0]).all()
    assert (night.tokens[:, 1] != day.tokens[:, 1]).mean() > 0.05
    with pytest.raises(EngineError, match="3 hours of week"):
        engine.paths("A", 3, 5, 0.01)


def test_what_cannot_be_asked_is_refused() -> None:
    engine = Engine(tiny(), 1, table=table())
    engine.feed([Fed(symbol="A", tokens=[1])])
    bare = Engine(tiny(), 1)
    bare.feed([Fed(symbol="A", tokens=[1])])

    with pytest.raises(EngineError, match="was fed"):
        engine.paths("B", 3, 3, 0.01)
    with pytest.raises(EngineError, match="was fed"):
        engine.sample("B", 3)
    for horizon, count, scale in ((0, 1, 0.1), (1, 0, 0.1), (1, 1, 0.0), (1, 1, float("nan"))):
        with pytest.raises(EngineError, match="want horizon"):
            engine.paths("A", horizon, count, scale)
    with pytest.raises(EngineError, match="return table"):
        bare.paths("A", 3, 3, 0.01)
    with pytest.raises(EngineError, match="return table"):
        bare.one_step(np.full((1, 16), 1 / 16), np.ones(1))
    with pytest.raises(EngineError, match="16 codes"):
        Engine(tiny(), 1, table=table(15))
    with pytest.raises(EngineError, match="threads"):
        Engine(tiny(), 1, threads=0)


def test_a_model_that_fails_says_so() -> None:
    model = tiny()
    torch.nn.init.constant_(model.head.weight, float("nan"))
    with pytest.raises(ValueError, match="finite"):
        Engine(model, 1).feed([Fed(symbol="A", tokens=[1])])


def test_threads_are_the_engines_while_it_runs_and_the_callers_after() -> None:
    before = torch.get_num_threads()
    seen = []

    class Watched(FinGPT):
        def step(self, *args: Any) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().step(*args)

    model = tiny()
    watched = Watched(model.config)
    watched.load_state_dict(model.state_dict())
    torch.set_num_threads(2)
    try:
        Engine(watched.eval(), 1).feed([Fed(symbol="A", tokens=tokens_of(model, 1).tolist())])
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
