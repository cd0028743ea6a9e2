"""FinGPT: a decoder over price tokens, one token a bar.

RoPE, RMSNorm without weights, normalised queries and keys, squared ReLU, grouped-query attention, no biases, an
embedding and a head of their own. The hour of week and the symbol may be added to the token's embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kernels import reference as ops
from models.fingpt_config import FinGPTConfig
from models.kv_cache import KVCache
from models.layers import EPS, Block, Rotary, quick_rms_norm

HOURS = 168  # of a week, Monday 00:00 UTC = 0
UNKNOWN_SYMBOL = 0  # its embedding is trained by symbol dropout


class FinGPT(nn.Module):
    """The model. `forward` is its definition and what is trained; `step` and `prefill` decode through a cache.

    Args:
        config: the shape.
    Attributes:
        recompute_blocks: True trades time for memory in training: activations of a block are computed again in the
            backward pass.
    """

    def __init__(self, config: FinGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_blocks = False
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.hour_embedding = nn.Embedding(HOURS, config.width) if config.hours else None
        self.symbol_embedding = nn.Embedding(len(config.symbols) + 1, config.width) if config.symbols else None
        blocks = [Block(config.width, config.heads, config.kv_heads, config.dropout) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.rotary = Rotary(config.head_dim, config.context)
        self.dropout = nn.Dropout(config.dropout)
        self._blocks = tuple(blocks)  # typed, and quicker to walk than a ModuleList
        self._indices = {name: i for i, name in enumerate(config.symbols, start=1)}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew; projections back into the residual start at zero, so a block starts as identity."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.in_features))
        nn.init.normal_(self.head.weight, std=0.02)
        for block in self._blocks:
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)

    def symbol_index(self, name: str) -> int:
        """The number of a symbol for `forward`; 0 for one that training did not name."""
        return self._indices.get(name, UNKNOWN_SYMBOL)

    def parameter_count(self) -> int:
        """Trained numbers, conditioning included."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self,
        tokens: Tensor,
        hours: Tensor | None = None,
        symbols: Tensor | None = None,
        *,
        window: int | None = None,
    ) -> Tensor:
        """Logits of the token after each position.

        Shapes:   tokens (B, T) in [0, V), hours (B, T) in [0, 168), symbols (B,) -> (B, T, V).
        Args:     hours: needed where the config says so, else ignored.
                  symbols: `symbol_index` of each sequence; None is unknown. In training mode each is hidden with
                      probability `symbol_dropout` (torch's global generator).
                  window: each position sees this many, itself included; None is all before it.
        Raises:   ValueError where hours are missing.
        """
        if self.training and self.symbol_embedding is not None and symbols is not None:
            kept = torch.rand(symbols.shape, device=symbols.device) >= self.config.symbol_dropout
            symbols = torch.where(kept, symbols, UNKNOWN_SYMBOL)
        x = self._embed(tokens, hours, None if symbols is None else symbols[:, None])  # (B, T, W)
        x = self.dropout(ops.rms_norm(x, eps=EPS))
        cos, sin = self.rotary.tables(tokens.shape[1])
        for block in self._blocks:
            if self.recompute_blocks and self.training:
                x = checkpoint(block, x, cos, sin, window, use_reentrant=False)
            else:
                x = block(x, cos, sin, window)
        return self.head(ops.rms_norm(x, eps=EPS))  # (B, T, V)

    def new_cache(self, slots: int) -> KVCache:
        """A cache that fits this model, on its device, in its dtype."""
        c, weight = self.config, self.embedding.weight
        return KVCache(c.layers, slots, c.kv_heads, c.context, c.head_dim, weight.dtype, weight.device)

    @torch.inference_mode()
    def step(
        self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, cache: KVCache, slots: Sequence[int]
    ) -> Tensor:
        """Append one token to each of several sequences.

        Shapes:   tokens (B,), hours (B,), symbols (B,) int64; slots: B different slots -> logits (B, V).
        Numerics: as `forward` over the whole sequence with a window of the context; dropout is never applied.
                  Neighbouring slots in rising order are fastest: they are one view of the cache.
        """
        x = quick_rms_norm(self._embed(tokens, hours, symbols))  # (B, W)
        step = cache.begin_step(slots)
        for layer, block in enumerate(self._blocks):
            x = block.step(x, layer, cache, step)
        cache.advance(slots)
        return functional.linear(quick_rms_norm(x), self.head.weight)  # (B, V)

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, hours: Tensor | None, symbol: Tensor | None, cache: KVCache, slot: int) -> Tensor:
        """Append many tokens to one sequence; the slot may hold earlier ones, or be new.

        Shapes:   tokens (T,), hours (T,), T >= 1; symbol () or (1,), int64 -> logits (V,) after the last.
        Numerics: as `step` one by one.
        """
        if tokens.numel() == 0:
            raise ValueError("want at least one token, was none")
        x = self._embed(tokens, hours, None if symbol is None else symbol.view(1))[None]  # (1, T, W)
        x = ops.rms_norm(x, eps=EPS)
        last = x
        start = 0
        while start < tokens.shape[0]:
            chunk = cache.begin_chunk(slot, tokens.shape[0] - start)
            t = chunk.cos.shape[0]
            last = x[:, start : start + t]  # (1, t, W)
            for layer, block in enumerate(self._blocks):
                last = block.chunk(last, layer, cache, chunk)
            cache.advance((slot,), t)
            start += t
        return functional.linear(quick_rms_norm(last[0, -1]), self.head.weight)  # (V,)

    def _embed(self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None) -> Tensor:
        """Sum of the embeddings; all arguments broadcast to the shape of `tokens` (...) -> (..., W)."""
        x = torch.embedding(self.embedding.weight, tokens)
        if self.hour_embedding is not None:
            if hours is None:
                raise ValueError("this model is conditioned on the hour of week: hours are needed, was None")
            x = x + torch.embedding(self.hour_embedding.weight, hours)
        if self.symbol_embedding is not None:
            index = torch.zeros_like(tokens) if symbols is None else symbols
            x = x + torch.embedding(self.symbol_embedding.weight, index)
        return x

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> "FinGPT":
        """The model of a checkpoint folder, in evaluation mode.

        Raises: CheckpointError: the folder holds no sound FinGPT.
        """
        from models.checkpoint import CheckpointError, read_manifest, read_tensors

        manifest = read_manifest(folder)
        if manifest.kind != "fingpt":
            raise CheckpointError(f"want a checkpoint of kind fingpt, {folder} is of kind {manifest.kind}")
        try:
            config = FinGPTConfig.from_dict(manifest.config)
            with torch.device("meta"):  # shapes alone: nothing is drawn, and no memory asked for what may not fit
                model = cls(config)
        except ValueError as error:
            raise CheckpointError(f"{folder} holds no usable model: {error}") from None
        stored = {
            n.removeprefix("model."): spec.shape for n, spec in manifest.tensors.items() if n.startswith("model.")
        }
        wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        if differing := sorted(n for n in stored.keys() | wanted.keys() if stored.get(n) != wanted.get(n)):
            name = differing[0]
            raise CheckpointError(
                f"the weights of {folder} do not fit its config: want {name} of shape {wanted.get(name)}, was"
                f" {stored.get(name)}, and {len(differing) - 1} more differ"
            )
        tensors = read_tensors(folder, manifest)
        model.load_state_dict({n: torch.from_numpy(tensors[f"model.{n}"]).float() for n in wanted}, assign=True)
        model.rotary = Rotary(config.head_dim, config.context)
        return model.to(device).eval()

    def to_tensors(self) -> dict[str, Any]:
        """Weights as numpy arrays under the names of a checkpoint, "model.*"."""
        return {f"model.{n}": p.detach().cpu().contiguous().numpy() for n, p in self.state_dict().items()}

    def to_manifest(self) -> dict[str, Any]:
        """The config as a checkpoint's manifest keeps it."""
        return asdict(self.config)
