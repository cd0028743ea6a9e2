"""What each operation means, in plain torch. Faster backends are judged against these functions.

Sums and softmax are taken in at least fp32, whatever the inputs' dtype; results come back in the inputs' dtype.
"""

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Divide each row of `x` by its root mean square, and scale by `weight` where there is one.

    Shapes:   x (..., D), weight (D,) -> (..., D).
    Source:   Zhang & Sennrich, arXiv:1910.07467, eq. 4.
    """
    wide = _wide(x)
    y = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight.to(y.dtype)
    return y.to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Shift each row of `x` to mean 0, divide it by its deviation, then scale and shift it where there is by what.

    Shapes:   x (..., D), weight and bias (D,) -> (..., D).
    Source:   Ba et al., arXiv:1607.06450, eq. 3 and 4; `eps` stands under the root.
    """
    wide = _wide(x)
    centred = wide - wide.mean(dim=-1, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight.to(y.dtype)
    if bias is not None:
        y = y + bias.to(y.dtype)
    return y.to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + D/2) of the last dimension by the angles of each position.

    Shapes:   x (..., T, D), cos and sin (T, D/2), or anything that broadcasts to (..., T, D/2) -> (..., T, D).
    Source:   Su et al., arXiv:2104.09864, eq. 34, in the half-split layout of GPT-NeoX and Llama of Hugging Face.
    """
    first, second = _wide(x).chunk(2, dim=-1)  # (..., T, D/2) each
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def qk_norm_rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Normalise every head of `q` and `k`, then rotate it. (A rotation keeps the norm, so the order is free.)

    Shapes:   q (B, H, T, D), k (B, K, T, D), cos and sin (T, D/2) -> the same two.
    Source:   Dehghani et al., arXiv:2302.05442, section 2 (normalised queries and keys).
    """
    return rope(rms_norm(q, eps=eps), cos, sin), rope(rms_norm(k, eps=eps), cos, sin)


def attention(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, offset: int | None = None) -> Tensor:
    """Causal softmax attention; query i stands at position `offset + i` of the keys.

    Shapes:   q (B, H, T, D), k and v (B, K, S, D) with H a multiple of K -> (B, H, T, D). Query head h reads key head
              h // (H // K).
    Args:     window: a query sees this many positions, itself included; None is all of the past.
              offset: None aligns the last query with the last key (S - T).
    Numerics: scale 1/sqrt(D); hidden scores are replaced, never added to, so NaN in hidden keys does not matter.
    Raises:   ValueError where shapes do not fit, or a query would see no key.
    """
    (batch, heads, t, d), (kv_batch, kv_heads, s, kv_d) = q.shape, k.shape
    offset = s - t if offset is None else offset
    if heads % kv_heads or k.shape != v.shape or (kv_batch, kv_d) != (batch, d):
        raise ValueError(f"want (B, H, T, D) and twice (B, K, S, D), was {(*q.shape,)}, {(*k.shape,)}, {(*v.shape,)}")
    if offset < 0 or offset + t > s or (window is not None and window < 1):
        raise ValueError(f"{t} queries at offset {offset} over {s} keys with window {window}: some would see no key")
    position = torch.arange(offset, offset + t, device=q.device)[:, None]  # (T, 1)
    key = torch.arange(s, device=q.device)[None, :]  # (1, S)
    seen = key <= position  # (T, S)
    if window is not None:
        seen = seen & (key > position - window)
    k = k.repeat_interleave(heads // kv_heads, dim=1)  # (B, H, S, D)
    v = v.repeat_interleave(heads // kv_heads, dim=1)  # (B, H, S, D)
    v = v.masked_fill(~seen.any(dim=0)[:, None], 0.0)  # zero times NaN is NaN: rows that nobody sees must not be read
    scores = torch.einsum("bhtd,bhsd->bhts", _wide(q), _wide(k)) * d**-0.5
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1)  # (B, H, T, S)
    return torch.einsum("bhts,bhsd->bhtd", weights, _wide(v)).to(q.dtype)


def decode_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, slots: Tensor, *, lapped: Tensor | None = None
) -> Tensor:
    """One query a sequence over the ring buffer of its slot; the sequence's newest token is already in it.

    Token p of a sequence lies in row p mod C. With `lengths` tokens seen, the newest is in row s = (length - 1) mod C;
    rows above s hold the lap before, or were never written while length < C.

    Shapes:   q (B, H, D), k_cache and v_cache (N, K, C, D), lengths (B,) >= 1, slots (B,) -> (B, H, D).
    Args:     lapped: (B, H, D), the query to use for rows of the lap before: with rotary positions a key is rotated
              by its row, so a query is rotated by s for rows up to s and by s + C for those above. None where the
              keys carry no position.
    Numerics: rows never written may hold NaN.
    """
    (_, heads, d), (_, kv_heads, context, _) = q.shape, k_cache.shape
    group = heads // kv_heads
    row = torch.arange(context, device=q.device)[None, :]  # (1, C)
    newest = ((lengths - 1) % context)[:, None]  # (B, 1)
    hidden = (row >= lengths[:, None])[:, None, :]  # (B, 1, C)
    k = k_cache[slots].repeat_interleave(group, dim=1)  # (B, H, C, D)
    v = v_cache[slots].repeat_interleave(group, dim=1).masked_fill(hidden[..., None], 0.0)  # (B, H, C, D)
    scores = torch.einsum("bhd,bhcd->bhc", _wide(q), _wide(k))
    if lapped is not None:
        before = torch.einsum("bhd,bhcd->bhc", _wide(lapped), _wide(k))
        scores = torch.where((row > newest)[:, None, :], before, scores)
    weights = torch.softmax((scores * d**-0.5).masked_fill(hidden, -torch.inf), dim=-1)  # (B, H, C)
    return torch.einsum("bhc,bhcd->bhd", weights, _wide(v)).to(q.dtype)


def relu2_mlp(x: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """Two matrices with the squared ReLU between them.

    Shapes:   x (..., D), w_up (F, D), w_down (D, F) -> (..., D).
    Numerics: the square overflows fp16 above 256: use fp32 or bf16.
    Source:   So et al., "Primer", arXiv:2109.08668, section 3.
    """
    return functional.linear(functional.relu(functional.linear(x, w_up)).square(), w_down)


def gelu_mlp(
    x: Tensor, w_up: Tensor, b_up: Tensor | None, w_down: Tensor, b_down: Tensor | None, *, exact: bool = False
) -> Tensor:
    """Two matrices with the GELU between them, by GPT-2's tanh.

    Shapes:   x (..., D), w_up (F, D), b_up (F,), w_down (D, F), b_down (D,) -> (..., D).
    Args:     exact: by the error function instead, from which the tanh is off by up to 5e-4.
    Source:   Hendrycks & Gimpel, arXiv:1606.08415, section 2.
    """
    up = functional.gelu(functional.linear(x, w_up, b_up), approximate="none" if exact else "tanh")
    return functional.linear(up, w_down, b_down)


def swiglu_mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """Two matrices whose products are multiplied, one through x * sigmoid(x), and one matrix back.

    Shapes:   x (..., D), w_gate and w_up (F, D), w_down (D, F) -> (..., D).
    Source:   Shazeer, arXiv:2002.05202, eq. 6.
    """
    return functional.linear(functional.silu(functional.linear(x, w_gate)) * functional.linear(x, w_up), w_down)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the codebook row nearest to each row of `x`.

    Shapes:   x (N, D), codebook (K, D) -> (N,) int32; K >= 1.
    Numerics: squared Euclidean distance in fp32; a tie goes to the lower index.
    Source:   van den Oord et al., arXiv:1711.00937, eq. 1.
    """
    distance = (_wide(x)[:, None, :] - _wide(codebook)[None, :, :]).square().sum(-1)  # (N, K)
    return distance.argmin(dim=1).to(torch.int32)


def _wide(x: Tensor) -> Tensor:
    """At least fp32: half-precision sums lose what they add."""
    return x if x.dtype == torch.float64 else x.float()
