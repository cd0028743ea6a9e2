"""The definitions, against PyTorch's own functions, closed forms and poisoned memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from kernels import reference as ops

NAN = float("nan")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def angles(positions: Tensor, half: int) -> tuple[Tensor, Tensor]:
    turn = positions[:, None] * (0.3 ** torch.arange(half, dtype=positions.dtype))
    return turn.cos(), turn.sin()


@pytest.mark.parametrize("width", [1, 13, 512, 768])
def test_rms_norm_is_that_of_pytorch(width: int) -> None:
    x, weight = noise(5, width), noise(width, seed=1)

    torch.testing.assert_close(ops.rms_norm(x, weight, 1e-6), functional.rms_norm(x, (width,), weight, 1e-6))
    torch.testing.assert_close(ops.rms_norm(x), functional.rms_norm(x, (width,), None, 1e-6))


def test_rms_norm_of_zeros_is_zero_and_of_half_precision_does_not_overflow() -> None:
    assert ops.rms_norm(torch.zeros(2, 8)).tolist() == torch.zeros(2, 8).tolist()
    large = torch.full((1, 8), 6e4, dtype=torch.float16)  # its square is beyond fp16
    assert ops.rms_norm(large).tolist() == [[1.0] * 8]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(-200, 200), st.integers(0, 2**31))
def test_rope_scores_depend_on_the_distance_alone(position: int, distance: int, seed: int) -> None:
    q, k = noise(8, seed=seed).double(), noise(8, seed=seed + 1).double()
    at = [
        angles(torch.tensor([float(p)], dtype=torch.float64), 4) for p in (position, position + distance, 0, distance)
    ]

    scores = [(ops.rope(q[None], *at[i]) * ops.rope(k[None], *at[j])).sum().item() for i, j in ((0, 1), (2, 3))]

    assert scores[0] == pytest.approx(scores[1], abs=1e-9)


def test_rope_keeps_the_norm_and_turns_pairs_of_the_two_halves() -> None:
    cos, sin = angles(torch.tensor([0.0, 1.0]), 2)
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])

    y = ops.rope(x, cos, sin)

    torch.testing.assert_close(y[0], x[0])
    torch.testing.assert_close(y[1], torch.tensor([np.cos(1.0), 0.0, np.sin(1.0), 0.0], dtype=torch.float32))


def test_qk_norm_rope_gives_unit_rms_in_either_order() -> None:
    q, k = noise(2, 4, 5, 8) * 3.0, noise(2, 2, 5, 8, seed=1) * 0.1
    cos, sin = angles(torch.arange(5.0), 4)

    found = ops.qk_norm_rope(q, k, cos, sin)

    for x, y in zip((q, k), found, strict=True):
        torch.testing.assert_close(y.square().mean(-1), torch.ones(y.shape[:-1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(y, ops.rms_norm(ops.rope(x, cos, sin)))


@pytest.mark.parametrize("t", [1, 13, 64])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_attention_is_that_of_pytorch(t: int, kv_heads: int) -> None:
    q, k, v = noise(2, 6, t, 8), noise(2, kv_heads, t, 8, seed=1), noise(2, kv_heads, t, 8, seed=2)

    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    torch.testing.assert_close(ops.attention(q, k, v), expected, atol=1e-5, rtol=0)


def test_attention_of_the_last_queries_is_the_end_of_all() -> None:
    q, k, v = (noise(1, 2, 20, 8, seed=i) for i in range(3))

    torch.testing.assert_close(ops.attention(q[:, :, 15:], k, v), ops.attention(q, k, v)[:, :, 15:])
    torch.testing.assert_close(ops.attention(q[:, :, 5:9], k, v, offset=5), ops.attention(q, k, v)[:, :, 5:9])


@pytest.mark.parametrize("window", [1, 4, 20, 99])
def test_a_window_hides_what_is_older(window: int) -> None:
    q, k, v = (noise(1, 2, 20, 8, seed=i) for i in range(3))

    found = ops.attention(q, k, v, window=window)

    for i in range(20):
        first = max(0, i + 1 - window)
        alone = ops.attention(q[:, :, i : i + 1], k[:, :, first : i + 1], v[:, :, first : i + 1])
        torch.testing.assert_close(found[:, :, i : i + 1], alone)


def test_attention_does_not_read_what_no_query_sees() -> None:
    q, k, v = (noise(1, 2, 9, 8, seed=i) for i in range(3))
    clean = ops.attention(q[:, :, 4:6], k, v, offset=4, window=3)
    for poisoned in (k, v):
        poisoned[:, :, 6:] = NAN
        poisoned[:, :, :2] = NAN

    torch.testing.assert_close(ops.attention(q[:, :, 4:6], k, v, offset=4, window=3), clean)


def test_attention_refuses_keys_of_another_batch() -> None:
    for batch in (1, 3):
        kv = noise(batch, 2, 4, 8)
        with pytest.raises(ValueError, match="want"):
            ops.attention(noise(2, 2, 4, 8), kv, kv)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys", "window"), [(3, 2, 4, 4, None), (2, 2, 5, 4, None), (2, 2, 4, 4, 0)]
)
def test_attention_refuses_what_does_not_fit(
    heads: int, kv_heads: int, queries: int, keys: int, window: int | None
) -> None:
    with pytest.raises(ValueError, match=r"want|no key"):
        ops.attention(
            noise(1, heads, queries, 4), noise(1, kv_heads, keys, 4), noise(1, kv_heads, keys, 4), window=window
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decode_attention_over_the_ring_is_attention_over_the_last_tokens(dtype: torch.dtype) -> None:
    # Two sequences in slots 2 and 0: one on its first lap, one that has wrapped. All other memory is NaN.
    context, lengths, slots = 8, (5, 19), (2, 0)
    k_cache = torch.full((3, 2, context, 4), NAN, dtype=dtype)
    v_cache = k_cache.clone()
    q = noise(2, 4, 4, seed=9, dtype=dtype)
    expected = []
    for b, (length, slot) in enumerate(zip(lengths, slots, strict=True)):
        k, v = (noise(1, 2, length, 4, seed=10 * b + i, dtype=dtype) for i in range(2))
        for p in range(length):
            k_cache[slot, :, p % context], v_cache[slot, :, p % context] = k[0, :, p], v[0, :, p]
        expected.append(ops.attention(q[b][None, :, None], k, v, window=context)[0, :, 0])

    found = ops.decode_attention(q, k_cache, v_cache, torch.tensor(lengths), torch.tensor(slots))

    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5 if dtype == torch.float32 else 5e-2, rtol=0)


def test_decode_attention_uses_the_other_query_for_the_lap_before() -> None:
    # Keys rotated by their row; the query by s, and by s + C for rows above s: the distances are the true ones.
    context, length, d = 6, 16, 8
    q, k, v = noise(1, 2, 1, d), noise(1, 2, length, d, seed=1), noise(1, 2, length, d, seed=2)
    cos, sin = angles(torch.arange(float(length)), d // 2)
    expected = ops.attention(ops.rope(q, cos[-1:], sin[-1:]), ops.rope(k, cos, sin), v, window=context)
    newest = (length - 1) % context
    k_cache, v_cache = torch.zeros(1, 2, context, d), torch.zeros(1, 2, context, d)
    for p in range(length - context, length):
        row = p % context
        k_cache[:, :, row] = ops.rope(k[:, :, p : p + 1], cos[row : row + 1], sin[row : row + 1])[:, :, 0]
        v_cache[:, :, row] = v[:, :, p]
    now, before = (ops.rope(q, cos[i : i + 1], sin[i : i + 1])[:, :, 0] for i in (newest, newest + context))

    found = ops.decode_attention(now, k_cache, v_cache, torch.tensor([length]), torch.tensor([0]), lapped=before)

    torch.testing.assert_close(found, expected[:, :, 0], atol=1e-5, rtol=0)


def test_relu2_mlp_squares_what_is_positive() -> None:
    found = ops.relu2_mlp(torch.tensor([[1.0, -2.0]]), torch.eye(2), torch.tensor([[1.0, 1.0], [2.0, 0.0]]))

    assert found.tolist() == [[1.0, 2.0]]
    assert ops.relu2_mlp(torch.tensor([[3.0]]), torch.eye(1), torch.eye(1)).tolist() == [[9.0]]


@pytest.mark.parametrize("width", [1, 13, 768])
def test_layer_norm_is_that_of_pytorch(width: int) -> None:
    x, weight, bias = noise(5, width) * 3.0 + 2.0, noise(width, seed=1), noise(width, seed=2)

    torch.testing.assert_close(ops.layer_norm(x), functional.layer_norm(x, (width,)))
    for given_bias in (None, bias):
        expected = functional.layer_norm(x, (width,), weight, given_bias, 1e-6)
        torch.testing.assert_close(ops.layer_norm(x, weight, given_bias, 1e-6), expected)


def test_layer_norm_of_a_constant_is_its_bias_and_of_half_precision_does_not_overflow() -> None:
    assert ops.layer_norm(torch.full((2, 8), 7.0), None, torch.arange(8.0)).tolist() == [list(range(8))] * 2
    large = torch.tensor([[6e4, -6e4]], dtype=torch.float16)  # its square is beyond fp16
    assert ops.layer_norm(large).tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize(("exact", "name"), [(False, "tanh"), (True, "none")])
def test_gelu_mlp_is_that_of_pytorch(exact: bool, name: str) -> None:
    x, up, down = noise(2, 3, 8), torch.nn.Linear(8, 20), torch.nn.Linear(20, 8)

    found = ops.gelu_mlp(x, up.weight, up.bias, down.weight, down.bias, exact=exact)

    torch.testing.assert_close(found, down(torch.nn.GELU(approximate=name)(up(x))))
    bare = ops.gelu_mlp(x, up.weight, None, down.weight, None, exact=exact)
    torch.testing.assert_close(bare, functional.gelu(x @ up.weight.T, approximate=name) @ down.weight.T)


def test_gelu_mlp_follows_the_tanh_of_its_source() -> None:
    found = ops.gelu_mlp(torch.tensor([[1.0]]), torch.eye(1), None, torch.eye(1), None).item()

    assert found == pytest.approx(0.5 * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * 1.044715)), abs=1e-6)


def test_swiglu_mlp_gates_one_product_by_the_other() -> None:
    x, gate, up, down = noise(2, 3, 8), noise(20, 8, seed=1), noise(20, 8, seed=2), noise(8, 20, seed=3)

    found = ops.swiglu_mlp(x, gate, up, down)

    torch.testing.assert_close(found, functional.linear(functional.silu(x @ gate.T) * (x @ up.T), down))
    one = ops.swiglu_mlp(torch.tensor([[2.0]]), torch.eye(1), torch.eye(1) * 3.0, torch.eye(1)).item()
    assert one == pytest.approx(2.0 / (1.0 + np.exp(-2.0)) * 6.0, abs=1e-5)


def test_nearest_code_takes_the_lower_index_of_a_tie() -> None:
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])

    found = ops.nearest_code(torch.tensor([[1.0, 0.1], [0.5, 0.5], [0.0, 2.0]]), codebook)

    assert found.dtype == torch.int32
    assert found.tolist() == [0, 0, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31))
def test_no_code_is_nearer_than_the_nearest(rows: int, codes: int, d: int, seed: int) -> None:
    x, codebook = noise(rows, d, seed=seed), noise(codes, d, seed=seed + 1)

    found = ops.nearest_code(x, codebook)

    chosen = (x - codebook[found.long()]).norm(dim=1)
    torch.testing.assert_close(chosen, torch.cdist(x, codebook).min(dim=1).values, atol=1e-5, rtol=1e-5)
