"""Building blocks of the transformers: norms, rotary positions, grouped-query attention, MLPs, and the block of all.

A block is used in three ways. `forward` takes whole sequences, for training and as the definition. `step` takes one
token a sequence and `chunk` several tokens of each, against a key-value cache and without gradients: at one token the
number of calls is the cost, not the arithmetic, so `step` makes as few as it can.

Architectures differ in a `BlockKind`, which chooses parts when the block is made; nothing is chosen while it runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import reference as ops

if TYPE_CHECKING:
    from models.kv_cache import Chunk, KVCache, Step

EPS = 1e-6  # of FinGPT's norms, and of every norm of queries and keys


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockKind:
    """What tells the block of one architecture from that of another. The defaults are FinGPT's."""

    norm: str = "bare"  # bare: RMS without weights; rms: with weights; layer: mean and deviation, with weights
    mlp: str = "relu2"  # relu2, gelu (GPT-2's tanh), gelu_exact, swiglu
    qk_norm: bool = True  # each head of queries and keys is normalised
    rotary: bool = True  # queries and keys are rotated by their positions
    bias: bool = False  # of all matrices and layer norms
    eps: float = EPS  # of the block's norms

    def __post_init__(self) -> None:
        if self.norm not in _NORMS or self.mlp not in _MLPS:
            known = f"norm of {', '.join(_NORMS)} and mlp of {', '.join(_MLPS)}"
            raise ValueError(f"want a {known}, was {self.norm!r} and {self.mlp!r}")
        if not 0.0 < self.eps < 1.0:
            raise ValueError(f"eps must lie in (0, 1), was {self.eps}")
        if (self.qk_norm, self.rotary) not in _TURNS or (self.bias and self.mlp in ("relu2", "swiglu")):
            raise ValueError(f"want a kind of block that some architecture has, was {self}")


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


class Norm(nn.Module):
    """A norm over the last dimension; `forward` is differentiated, `quick` is not and makes fewer calls."""

    def __init__(self, width: int, kind: BlockKind) -> None:
        super().__init__()
        self.width, self.eps = width, kind.eps

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def quick(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class BareNorm(Norm):
    """Root mean square, without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, eps=self.eps)

    def quick(self, x: Tensor) -> Tensor:
        return quick_rms_norm(x, self.eps)


class RMSNorm(Norm):
    """Root mean square, with a weight for each number."""

    def __init__(self, width: int, kind: BlockKind) -> None:
        super().__init__(width, kind)
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)

    def quick(self, x: Tensor) -> Tensor:
        return quick_rms_norm(x, self.eps) * self.weight


class LayerNorm(Norm):
    """Mean and deviation, with a weight for each number, and a bias where the block has them."""

    def __init__(self, width: int, kind: BlockKind) -> None:
        super().__init__(width, kind)
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if kind.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """`kernels.reference.layer_norm`, through PyTorch's own kernel."""
        return functional.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)

    def quick(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)


def quick_rms_norm(x: Tensor, eps: float = EPS) -> Tensor:
    """`kernels.reference.rms_norm`, not differentiated: 7 us instead of 14 for one row of 128.

    Constants are tensors because wrapping a Python number costs as much as a call; sqrt(a^2 + eps) is hypot.
    """
    if x.itemsize == 2:
        return ops.rms_norm(x, eps=eps)  # half the digits of a norm would be lost to rounding
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.hypot(norm * _inverse_root(x.shape[-1]), _root(eps))


@lru_cache(maxsize=64)
def _inverse_root(d: int) -> Tensor:
    return torch.tensor(d**-0.5)


@lru_cache(maxsize=64)
def _root(eps: float) -> Tensor:
    return torch.tensor(eps**0.5)


class Attention(nn.Module):
    """Causal grouped-query attention; queries and keys are normalised and rotated where the kind of block says so.

    One matrix makes queries, keys and values: at one token, each further call costs more than its arithmetic.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, kind: BlockKind | None = None) -> None:
        super().__init__()
        if width % heads or heads % kv_heads:
            raise ValueError(f"heads must divide width, kv_heads heads, was {width}, {heads}, {kv_heads}")
        kind = kind or FINGPT
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head_dim, bias=kind.bias)
        self.out = nn.Linear(width, width, bias=kind.bias)
        self._turn, self._turn_step = _TURNS[kind.qk_norm, kind.rotary]
        self._linears = (self.qkv, self.out)  # as `Block._parts`
        self._biased = kind.bias

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, window: int | None) -> Tensor:
        q, k, v = self._heads(x)
        q, k = self._turn(q, k, cos, sin)
        y = fused_attention(q, k, v, window=window)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).reshape(x.shape))  # (B, T, W)

    def step(self, x: Tensor, y: Tensor, layer: int, cache: "KVCache", step: "Step") -> Tensor:
        """`x` and what attention adds to it, given its norm `y`, for one token a sequence, (B, W) twice -> (B, W)."""
        batch, width = x.shape
        d, kv = self.head_dim, self.kv_heads
        whole, out = self._linears
        qkv = functional.linear(y, whole.weight, whole.bias if self._biased else None).view(batch, -1, d)
        self._turn_step(qkv[:, : self.heads + kv], step)
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
        heads = parts[0] if len(parts) == 1 else torch.cat(parts)  # (B * K, G, D)
        return torch.addmm(x + out.bias if self._biased else x, heads.view(batch, width), out.weight.t())

    def chunk(self, x: Tensor, layer: int, cache: "KVCache", chunk: "Chunk") -> Tensor:
        """Several tokens of each sequence, (B, t, W) -> (B, t, W), after those that the cache holds."""
        q, k, v = self._heads(x)
        q, k = self._turn(q, k, chunk.cos, chunk.sin)
        k, v = cache.extend(layer, chunk, k, v)  # (B, K, held + t, D) each
        y = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=chunk.seen, is_causal=chunk.seen is None, enable_gqa=self.heads != self.kv_heads
        )  # (B, H, t, D)
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, K, T, D) of x (B, T, W), before norm and rotation."""
        qkv = self.qkv(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return q, k, v


# --- what is done to queries and keys: (B, H, T, D) and (B, K, T, D), with cos and sin (T, D/2); and for one token a
# sequence to both at once, (B, H + K, D), in place

_Turn = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_TurnStep = Callable[[Tensor, "Step"], None]


def _norm_and_rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return ops.qk_norm_rope(q, k, cos, sin, EPS)


def _norm_and_rotate_step(qk: Tensor, step: "Step") -> None:
    normed = quick_rms_norm(qk)
    torch.addcmul(normed * step.cos, normed.roll(qk.shape[-1] // 2, -1), step.sin, out=qk)


def _rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return ops.rope(q, cos, sin), ops.rope(k, cos, sin)


def _rotate_step(qk: Tensor, step: "Step") -> None:
    qk.copy_(torch.addcmul(qk * step.cos, qk.roll(qk.shape[-1] // 2, -1), step.sin))


def _leave(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return q, k


def _leave_step(qk: Tensor, step: "Step") -> None:
    pass


_TURNS: dict[tuple[bool, bool], tuple[_Turn, _TurnStep]] = {  # by qk_norm, rotary
    (True, True): (_norm_and_rotate, _norm_and_rotate_step),
    (False, True): (_rotate, _rotate_step),
    (False, False): (_leave, _leave_step),
}


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
    """Two matrices with the squared ReLU between them."""

    ups = 1  # products that `up` makes

    def __init__(self, width: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, self.ups * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu2_mlp(x, self.up.weight, self.down.weight)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """`x` and what the MLP makes of its norm `y`, not differentiated, (B, W) twice -> (B, W)."""
        up = functional.linear(y, self.up.weight).relu_().square_()  # (B, 4W)
        return torch.addmm(x, up, self.down.weight.t())


class GeluMLP(MLP):
    """Two matrices with the GELU between them, by GPT-2's tanh."""

    exact = False

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu_mlp(x, self.up.weight, self.up.bias, self.down.weight, self.down.bias, exact=self.exact)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        up = functional.linear(y, self.up.weight, self.up.bias)  # (B, F)
        up = functional.gelu(up, approximate="none" if self.exact else "tanh")
        bias = self.down.bias
        return torch.addmm(x if bias is None else x + bias, up, self.down.weight.t())


class ExactGeluMLP(GeluMLP):
    """Two matrices with the GELU between them, by the error function."""

    exact = True


class SwigluMLP(MLP):
    """Two products multiplied, one of them through x * sigmoid(x). `up` is both matrices, the gate's rows first."""

    ups = 2

    def forward(self, x: Tensor) -> Tensor:
        """`kernels.reference.swiglu_mlp`, with one product for both matrices."""
        gate, up = functional.linear(x, self.up.weight).chunk(2, dim=-1)  # (..., F) each
        return functional.linear(functional.silu(gate) * up, self.down.weight)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        gate, up = functional.linear(y, self.up.weight).chunk(2, dim=-1)  # (B, F) each
        return torch.addmm(x, functional.silu(gate).mul_(up), self.down.weight.t())


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP; dropout on what each adds.

    Args:
        hidden: numbers within the MLP; None is four times the width.
        kind: of which architecture; None is FinGPT's.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        dropout: float,
        *,
        hidden: int | None = None,
        kind: BlockKind | None = None,
    ) -> None:
        super().__init__()
        kind = kind or FINGPT
        self.attention_norm = _NORMS[kind.norm](width, kind)
        self.attention = Attention(width, heads, kv_heads, kind)
        self.mlp_norm = _NORMS[kind.norm](width, kind)
        self.mlp = _MLPS[kind.mlp](width, hidden or 4 * width, kind.bias)
        self.dropout = nn.Dropout(dropout)
        # Once more, because reading a module's attribute costs a third of a microsecond, and a step reads many.
        self._parts = (self.attention_norm, self.attention, self.mlp_norm, self.mlp)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, window: int | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin, window))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

    def step(self, x: Tensor, layer: int, cache: "KVCache", step: "Step") -> Tensor:
        """One token a sequence, (B, W) -> (B, W)."""
        attention_norm, attention, mlp_norm, mlp = self._parts
        x = attention.step(x, attention_norm.quick(x), layer, cache, step)
        return mlp.step(x, mlp_norm.quick(x))

    def chunk(self, x: Tensor, layer: int, cache: "KVCache", chunk: "Chunk") -> Tensor:
        """Several tokens of each sequence, (B, t, W) -> (B, t, W)."""
        x = x + self.attention.chunk(self.attention_norm(x), layer, cache, chunk)
        return x + self.mlp(self.mlp_norm(x))


_NORMS: dict[str, type[Norm]] = {"bare": BareNorm, "rms": RMSNorm, "layer": LayerNorm}
_MLPS: dict[str, type[MLP]] = {"relu2": MLP, "gelu": GeluMLP, "gelu_exact": ExactGeluMLP, "swiglu": SwigluMLP}

FINGPT = BlockKind()


def norm_of(width: int, kind: BlockKind) -> Norm:
    """A norm of this kind of block, for what stands before or after the blocks."""
    return _NORMS[kind.norm](width, kind)
