"""Building blocks of the transformers: norms without weights, rotary positions, grouped-query attention, MLP.

A block is used in three ways. `forward` takes whole sequences, for training and as the definition. `step` takes one
token a sequence and `chunk` several tokens of one, against a key-value cache and without gradients: at one token the
number of calls is the cost, not the arithmetic, so `step` makes as few as it can.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import reference as ops

if TYPE_CHECKING:
    from models.kv_cache import Chunk, KVCache, Step

EPS = 1e-6  # of every norm
_ROOT_EPS = torch.tensor(EPS**0.5)


class Rotary(nn.Module):
    """Cosines and sines of the rotary angles of positions 0..n-1, built in fp64 and kept in fp32.

    Args:
        head_dim: D, even.
        positions: n; `tables` builds longer ones on demand, without keeping them.
    Source: Su et al., arXiv:2104.09864, section 3.2.2.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, positions: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim < 2 or head_dim % 2:
            raise ValueError(f"head_dim must be even and positive, was {head_dim}")
        self.head_dim, self.base = head_dim, base
        cos, sin = rotary_tables(head_dim, positions, base)
        self.register_buffer("cos", cos, persistent=False)  # (n, D/2)
        self.register_buffer("sin", sin, persistent=False)  # (n, D/2)

    def tables(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` positions: cos, sin, each (count, D/2)."""
        if count <= self.cos.shape[0]:
            return self.cos[:count], self.sin[:count]
        cos, sin = rotary_tables(self.head_dim, count, self.base)
        return cos.to(self.cos.device), sin.to(self.sin.device)


def rotary_tables(head_dim: int, positions: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (positions, head_dim / 2) fp32, rounded once from fp64."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (D/2,)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency  # (n, D/2)
    return angle.cos().float(), angle.sin().float()


class Attention(nn.Module):
    """Causal grouped-query attention with normalised, rotated queries and keys, and no biases.

    One matrix makes queries, keys and values: at one token, each further call costs more than its arithmetic.
    """

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        if width % heads or heads % kv_heads:
            raise ValueError(f"heads must divide width, kv_heads heads, was {width}, {heads}, {kv_heads}")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, window: int | None) -> Tensor:
        q, k, v = self._heads(x)
        q, k = ops.qk_norm_rope(q, k, cos, sin, EPS)
        y = fused_attention(q, k, v, window=window)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).reshape(x.shape))  # (B, T, W)

    def step(self, x: Tensor, layer: int, cache: "KVCache", step: "Step") -> Tensor:
        """`x` and what attention adds to it, for one token a sequence, (B, W) -> (B, W)."""
        batch, width = x.shape
        d, kv = self.head_dim, self.kv_heads
        qkv = functional.linear(quick_rms_norm(x), self.qkv.weight).view(batch, -1, d)  # (B, H + 2K, D)
        qk = qkv[:, : self.heads + kv]  # (B, H + K, D)
        normed = quick_rms_norm(qk)
        torch.addcmul(normed * step.cos, normed.roll(d // 2, -1), step.sin, out=qk)
        cache.write(layer, step, qkv[:, self.heads :].view(batch, 2, kv, d).transpose(0, 1))
        q = (qkv[:, : self.heads] * _inverse_root(d)).view(batch, kv, -1, d).flatten(0, 1)  # (B * K, G, D)
        # Not scaled_dot_product_attention: for one sequence it is as fast (17 us at 4 heads of 32 over 256 rows), for
        # 64 it takes 1.8 ms where these three calls take 1.1.
        parts = []
        for run in step.runs:
            k, v = cache.held(layer, run)  # (b * K, rows, D) each
            scores = torch.bmm(q[run.heads], k.transpose(1, 2))  # (b * K, G, rows)
            if run.hidden is not None:
                scores = scores.masked_fill(run.hidden, -torch.inf)
                v = v.masked_fill(run.hidden.transpose(1, 2), 0.0)  # zero times NaN is NaN
            parts.append(torch.bmm(torch.softmax(scores, dim=-1), v))  # (b * K, G, D)
        y = parts[0] if len(parts) == 1 else torch.cat(parts)  # (B * K, G, D)
        return torch.addmm(x, y.view(batch, width), self.out.weight.t())

    def chunk(self, x: Tensor, layer: int, cache: "KVCache", chunk: "Chunk") -> Tensor:
        """Several tokens of one sequence, (1, t, W) -> (1, t, W), after those that the cache holds."""
        q, k, v = self._heads(x)
        q, k = ops.qk_norm_rope(q, k, chunk.cos, chunk.sin, EPS)
        k, v = cache.extend(layer, chunk, k, v)  # (1, K, held + t, D) each
        y = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=chunk.seen, is_causal=chunk.seen is None, enable_gqa=self.heads != self.kv_heads
        )  # (1, H, t, D)
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, K, T, D) of x (B, T, W), before norm and rotation."""
        qkv = self.qkv(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return q, k, v


def quick_rms_norm(x: Tensor) -> Tensor:
    """`kernels.reference.rms_norm`, not differentiated: 7 us instead of 14 for one row of 128.

    Constants are tensors because wrapping a Python number costs as much as a call; sqrt(a^2 + eps) is hypot.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.hypot(norm * _inverse_root(x.shape[-1]), _ROOT_EPS)


@lru_cache(maxsize=64)
def _inverse_root(d: int) -> Tensor:
    return torch.tensor(d**-0.5)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
    """`kernels.reference.attention` over whole sequences, through PyTorch's own kernel, which differentiates well."""
    t = q.shape[2]
    mask = None
    if window is not None and window < t:
        position = torch.arange(t, device=q.device)
        behind = position[:, None] - position[None, :]  # (T, T)
        mask = (behind >= 0) & (behind < window)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


class MLP(nn.Module):
    """Squared-ReLU MLP, four times as wide inside, no biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu2_mlp(x, self.up.weight, self.down.weight)


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP; dropout on what each adds."""

    def __init__(self, width: int, heads: int, kv_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, kv_heads)
        self.mlp = MLP(width, 4 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, window: int | None) -> Tensor:
        x = x + self.dropout(self.attention(ops.rms_norm(x, eps=EPS), cos, sin, window))
        return x + self.dropout(self.mlp(ops.rms_norm(x, eps=EPS)))

    def step(self, x: Tensor, layer: int, cache: "KVCache", step: "Step") -> Tensor:
        """One token a sequence, (B, W) -> (B, W)."""
        x = self.attention.step(x, layer, cache, step)
        up = functional.linear(quick_rms_norm(x), self.mlp.up.weight).relu_().square_()  # (B, 4W)
        return torch.addmm(x, up, self.mlp.down.weight.t())

    def chunk(self, x: Tensor, layer: int, cache: "KVCache", chunk: "Chunk") -> Tensor:
        """Several tokens of one sequence, (1, t, W) -> (1, t, W)."""
        x = x + self.attention.chunk(ops.rms_norm(x, eps=EPS), layer, cache, chunk)
        return x + self.mlp(ops.rms_norm(x, eps=EPS))
