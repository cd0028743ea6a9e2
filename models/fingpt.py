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

from models.decoder import CachedDecoder
from models.fingpt_config import FinGPTConfig
from models.kv_cache import KVCache
from models.layers import FINGPT, Block, Rotary, norm_of

HOURS = 168  # of a week, Monday 00:00 UTC = 0
UNKNOWN_SYMBOL = 0  # its embedding is trained by symbol dropout


class FinGPT(CachedDecoder):
    """The model. `forward` is its definition and what is trained; `step` and `prefill` decode through a cache.

    Args:
        config: the shape.
    Attributes:
        recompute_blocks: see `models.decoder.CachedDecoder`.
    """

    config: FinGPTConfig

    def __init__(self, config: FinGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.hour_embedding = nn.Embedding(HOURS, config.width) if config.hours else None
        self.symbol_embedding = nn.Embedding(len(config.symbols) + 1, config.width) if config.symbols else None
        blocks = [Block(config.width, config.heads, config.kv_heads, config.dropout) for _ in range(config.layers)]
        entry, norm = (norm_of(config.width, FINGPT) for _ in range(2))
        self._stack(blocks, norm, entry=entry, dropout=config.dropout)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.rotary = Rotary(config.head_dim, config.context)
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
        x = self._enter(tokens, hours, None if symbols is None else symbols[:, None], ())  # (B, T, W)
        return self.head(self.norm(self._through(self.dropout(x), window, self._blocks)))  # (B, T, V)

    def _embed(self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, positions: Sequence[int]) -> Tensor:
        x = torch.embedding(self.embedding.weight, tokens)
        if self.hour_embedding is not None:
            if hours is None:
                raise ValueError("this model is conditioned on the hour of week: hours are needed, was None")
            x = x + torch.embedding(self.hour_embedding.weight, hours)
        if self.symbol_embedding is not None:
            index = torch.zeros_like(tokens) if symbols is None else symbols
            x = x + torch.embedding(self.symbol_embedding.weight, index)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.head.weight)

    def _cache(self, slots: int, context: int) -> KVCache:
        return self._new_cache(slots, context)

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

    def to_manifest(self) -> dict[str, Any]:
        """The config as a checkpoint's manifest keeps it."""
        return asdict(self.config)
