"""What one would write first: a GPT in plain PyTorch, its key-value cache grown by `torch.cat`.

Layer norms, learned positions, GELU, no biases; matrices as large as FinGPT's. Positions are learned, so the sequence
ends where the table ends: the cache is kept at the context by dropping its oldest row, and the position stays at the
last one. That is no longer the function that was trained, which is what FinGPT's ring buffer is for; the time is right.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.fingpt_config import FinGPTConfig

Pair = tuple[Tensor, Tensor]  # keys and values, each (B, H, T, D)
Cache = list[Pair]


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, past: Pair | None, context: int) -> tuple[Tensor, Pair]:
        y = self.norm_1(x)
        q, k, v = (self._split(layer(y)) for layer in (self.query, self.key, self.value))  # (B, H, T, D) each
        if past is not None:
            k = torch.cat((past[0], k), dim=2)[:, :, -context:]
            v = torch.cat((past[1], v), dim=2)[:, :, -context:]
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.norm_2(x)))), (k, v)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, D)


class PlainGPT(nn.Module):
    def __init__(self, config: FinGPTConfig) -> None:
        super().__init__()
        self.context = config.context
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits (B, T, V) and the cache after them; with a cache, T is 1."""
        t = tokens.shape[1]
        before = 0 if cache is None else cache[0][0].shape[2]
        position = torch.arange(before, before + t).clamp(max=self.context - 1)
        x = self.embedding(tokens) + self.positions(position)  # (B, T, W)
        grown: Cache = []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, None if cache is None else cache[i], self.context)
            grown.append(pair)
        return self.head(self.norm(x)), grown
