"""Exported forms of the decoding step give what the model gives, on the same cache."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models.engine import Engine, Fed
from models.export import BLOCK, FORMS, FormError, exported, quantise
from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig

torch.set_num_threads(1)

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")),
    reason="wants the extra `export`",
)


def model(**changed: Any) -> FinGPT:
    """A small FinGPT whose every matrix matters: the untrained one has zeros where blocks join."""
    shape = {"vocabulary": 16, "context": 8, "layers": 2, "width": 32, "heads": 4, "kv_heads": 4}
    torch.manual_seed(1)
    made = FinGPT(FinGPTConfig(**(shape | changed))).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0.0, weight.shape[-1] ** -0.5)
    return made


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 16, (count,), generator=torch.Generator().manual_seed(seed))


def decode(form: Any, series: torch.Tensor, hours: Any = None, symbols: Any = None) -> np.ndarray:
    cache = form.new_cache(3)
    given = [None if hours is None else hours[i : i + 1] for i in range(len(series))]
    return np.concatenate(
        [form.step(series[i : i + 1], given[i], symbols, cache, (1,)).numpy() for i in range(len(series))]
    )


@needs_onnx
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_onnx_form_equals_the_model_over_three_wraps_of_the_ring(kv_heads: int) -> None:
    eager = model(kv_heads=kv_heads)
    series = tokens(3 * 8 + 5)

    np.testing.assert_allclose(decode(exported(eager, "onnx"), series), decode(eager, series), atol=1e-5)


@needs_onnx
def test_hour_and_symbol_condition_the_onnx_form_as_they_do_the_model() -> None:
    eager = model(hours=True, symbols=("AAPL", "BTC-USD"))
    form, series = exported(eager, "onnx"), tokens(20)
    hours = torch.arange(20) * 7 % 168
    known = torch.tensor([form.symbol_index("BTC-USD")])

    assert form.symbol_index("BTC-USD") == 2
    found = decode(form, series, hours, known)
    np.testing.assert_allclose(found, decode(eager, series, hours, known), atol=1e-5)
    unknown = decode(form, series, hours, None)
    np.testing.assert_allclose(unknown, decode(eager, series, hours, None), atol=1e-5)
    assert np.abs(found - unknown).max() > 0.01
    with pytest.raises(ValueError, match="hours are needed"):
        form.step(series[:1], None, known, form.new_cache(1), (0,))


@needs_onnx
@pytest.mark.parametrize("name", ["onnx", "onnx-w8"])
def test_a_batch_gives_what_its_sequences_give_alone_to_the_bit(name: str) -> None:
    form = exported(model(), name)
    series = [tokens(21, seed) for seed in range(3)]
    together, alone = form.new_cache(3), form.new_cache(3)
    for i in range(21):
        # Sequence 2 starts later, so the three are of different lengths.
        slots = (0, 1, 2) if i > 4 else (0, 1)
        batch = torch.stack([series[slot][i] for slot in slots])
        found = form.step(batch, None, None, together, slots)
        for row, slot in enumerate(slots):
            assert torch.equal(form.step(series[slot][i : i + 1], None, None, alone, (slot,))[0], found[row])
    assert torch.equal(together.store, alone.store)


@needs_onnx
def test_forms_share_a_cache_and_its_prefill() -> None:
    eager = model()
    form, series = exported(eager, "onnx"), tokens(30)
    cache = form.new_cache(1)
    form.prefill(series[:13], None, None, cache, 0)
    wanted = eager(series[None], window=8)[0]
    for i in range(13, 30):
        taker = form if i % 3 else eager
        found = taker.step(series[i : i + 1], None, None, cache, (0,))[0]
        np.testing.assert_allclose(found.numpy(), wanted[i].detach().numpy(), atol=1e-5)
    assert cache.counts[0] == 30


@needs_onnx
def test_the_engine_runs_on_an_exported_form() -> None:
    eager = model(hours=True, symbols=("A",))
    engines = [Engine(form, slots=2) for form in (eager, exported(eager, "onnx"))]
    for i in range(25):
        batch = [Fed(symbol="A", tokens=[i % 16], hours=[i])]
        if i > 3:
            tokens_new = [i % 16, 3] if i == 4 else [i * 5 % 16]  # first several, then one beside the other symbol's
            batch.append(Fed(symbol="new", tokens=tokens_new, hours=[i] * len(tokens_new)))
        wanted, found = (engine.feed(batch) for engine in engines)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    drawn = [engine.sample("A", 12, hours=range(12), seed=5) for engine in engines]
    assert np.array_equal(*drawn)


@needs_onnx
def test_a_slot_used_again_remembers_nothing() -> None:
    form, series = exported(model(), "onnx"), tokens(6)
    cache = form.new_cache(1)
    for token in tokens(30, seed=9):
        form.step(token.view(1), None, None, cache, (0,))
    cache.reset(0)
    again = [form.step(token.view(1), None, None, cache, (0,)) for token in series]
    new = form.new_cache(1)

    assert all(torch.equal(a, form.step(t.view(1), None, None, new, (0,))) for a, t in zip(again, series, strict=True))


@needs_onnx
@pytest.mark.parametrize("width", [32, 48])
def test_eight_bits_lose_little(width: int) -> None:
    # 48 is no multiple of the block of 32: the rest is padded.
    eager = model(width=width, heads=2, kv_heads=2)
    series = tokens(40)
    wanted, found = decode(eager, series), decode(exported(eager, "onnx-w8"), series)

    error = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert 0.0 < error.max() < 0.05


@needs_onnx
def test_the_same_weights_give_the_same_form() -> None:
    series = tokens(12)
    assert np.array_equal(decode(exported(model(), "onnx-w8"), series), decode(exported(model(), "onnx-w8"), series))


@given(
    weight=npst.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 70)),
        elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
    )
)
@settings(max_examples=100, deadline=None)
def test_a_quantised_number_is_within_half_a_step(weight: np.ndarray) -> None:
    codes, scale = quantise(weight)
    rows, columns = weight.shape
    read = ((codes.astype(np.float32) - 128.0) * scale[:, :, None]).reshape(rows, -1)

    assert codes.shape == (rows, -(-columns // BLOCK), BLOCK)
    assert codes.min() >= 1  # symmetric: 0 would stand for -128
    half = np.repeat(scale, BLOCK, axis=1)[:, :columns] / 2.0
    assert (np.abs(read[:, :columns] - weight) <= half * (1.0 + 1e-4) + 1e-30).all()
    assert not read[:, columns:].any()


def test_the_eager_form_is_the_model() -> None:
    made = model()
    assert exported(made) is made
    assert FORMS[0] == "eager"


def test_unknown_forms_and_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="form must be one of eager, onnx, onnx-w8"):
        exported(model(), "tensorrt")
    with pytest.raises(ValueError, match="float32 on the cpu"):
        exported(model().double(), "onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # what import finds where a package is not there
    with pytest.raises(FormError, match="pip install"):
        exported(model(), "onnx")


@needs_onnx
@pytest.mark.parametrize("slots", [(0, 0), (1, 2, 1)])
def test_a_slot_twice_in_one_step_is_refused(slots: Sequence[int]) -> None:
    form = exported(model(), "onnx")
    with pytest.raises(ValueError, match="must differ"):
        form.step(tokens(len(slots)), None, None, form.new_cache(3), slots)


def test_importing_the_forms_loads_no_extra() -> None:
    code = "import sys, models.export; sys.exit('onnx' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
