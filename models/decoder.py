"""What all decoders share: blocks walked in training, one token at a time, in pieces, and beside a sequence."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.kv_cache import LAPS, KVCache
from models.layers import Block, Norm, Rotary

__all__ = ["CachedDecoder", "Decoder"]


class Decoder(Protocol):
    """What the engine needs of a model, or of an exported form of one, to feed it and to draw from it."""

    @property
    def config(self) -> Any:
        """Of which `vocabulary` is read, and `hours` where there is one."""

    def symbol_index(self, name: str) -> int: ...

    def new_cache(self, slots: int) -> KVCache: ...

    def step(
        self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, cache: KVCache, slots: Sequence[int]
    ) -> Tensor: ...

    def prefill(
        self, tokens: Tensor, hours: Tensor | None, symbol: Tensor | None, cache: KVCache, slot: int
    ) -> Tensor: ...


class CachedDecoder(nn.Module):
    """A stack of blocks that decodes through a cache. A model fills in its embeddings and its head.

    Attributes:
        recompute_blocks: True trades time for memory in training: activations of a block are computed again in the
            backward pass.
    """

    config: Any
    embedding: nn.Embedding
    rotary: Rotary | None

    def _stack(self, blocks: Sequence[Block], norm: Norm, *, entry: Norm | None = None, dropout: float = 0.0) -> None:
        """Take the stack; called once, where its parameters are to stand among the others.

        Args:
            norm: before the head.
            entry: on the sum of the embeddings, where the model has one there.
            dropout: on what enters the blocks.
        """
        self.recompute_blocks = False
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.entry = entry
        self.dropout = nn.Dropout(dropout)
        self._blocks = tuple(blocks)  # typed, and quicker to walk than a ModuleList

    def symbol_index(self, name: str) -> int:
        """The number of a symbol; 0 for one that the model does not tell from others."""
        return 0

    def parameter_count(self) -> int:
        """Trained numbers, each once."""
        return sum(p.numel() for p in self.parameters())

    def hidden(self, tokens: Tensor, layer: int) -> Tensor:
        """What leaves the first `layer` blocks, without the rest: the definition of `beside`, and differentiable.

        Shapes:   tokens (B, T) -> (B, T, W).
        Raises:   ValueError where there is no such layer.
        """
        x = self._enter(tokens, None, None, range(tokens.shape[1]))
        return self._through(x, None, self._up_to(layer))

    def new_cache(self, slots: int, context: int | None = None) -> KVCache:
        """A cache that fits this model, on its device, in its dtype.

        Args:
            context: tokens that a sequence may have, or see; None: as many as the model was made for.
        """
        most: int = self.config.context
        if context is not None and not 1 <= context <= most:
            raise ValueError(f"want a context in [1, {most}], was {context}")
        return self._cache(slots, context or most)

    @torch.inference_mode()
    def step(
        self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, cache: KVCache, slots: Sequence[int]
    ) -> Tensor:
        """Append one token to each of several sequences.

        Shapes:   tokens (B,), hours (B,), symbols (B,) int64; slots: B different slots -> logits (B, V).
        Args:     hours, symbols: read by a model that is conditioned on them.
        Numerics: as `forward` over the whole sequence with a window of the context; dropout is never applied.
                  Neighbouring slots in rising order are fastest: they are one view of the cache.
        Raises:   ContextError where a token does not fit.
        """
        cache.require(slots)
        x = self._embed(tokens, hours, symbols, [cache.counts[slot] for slot in slots])  # (B, W)
        if self.entry is not None:
            x = self.entry.quick(x)
        step = cache.begin_step(slots)
        for layer, block in enumerate(self._blocks):
            x = block.step(x, layer, cache, step)
        cache.advance(slots)
        return self._logits(self.norm.quick(x))  # (B, V)

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, hours: Tensor | None, symbol: Tensor | None, cache: KVCache, slot: int) -> Tensor:
        """Append many tokens to one sequence; the slot may hold earlier ones, or be new.

        Shapes:   tokens (T,), hours (T,), T >= 1; symbol () or (1,), int64 -> logits (V,) after the last.
        Numerics: as `step` one by one.
        Raises:   ContextError where they do not all fit; none is taken in.
        """
        count = tokens.shape[0]
        if count == 0:
            raise ValueError("want at least one token, was none")
        cache.require((slot,), count)
        at = cache.counts[slot]
        x = self._enter(tokens, hours, None if symbol is None else symbol.view(1), range(at, at + count))[None]
        last = x  # (1, T, W)
        start = 0
        while start < count:
            chunk = cache.begin_chunk(slot, count - start)
            last = x[:, start : start + chunk.tokens]  # (1, t, W)
            for layer, block in enumerate(self._blocks):
                last = block.chunk(last, layer, cache, chunk)
            cache.advance((slot,), chunk.tokens)
            start += chunk.tokens
        return self._logits(self.norm.quick(last[0, -1]))  # (V,)

    @torch.inference_mode()
    def beside(self, tokens: Tensor, cache: KVCache, slot: int | None, layer: int | None = None) -> Tensor:
        """What leaves the first `layer` blocks for several sequences that go on where a slot is; it stays as it is.

        Shapes:   tokens (B, T), shorter ones filled up at their ends with any token -> (B, T, W).
        Args:     slot: None: they begin anew.
                  layer: None is all of them.
        Numerics: as `prefill` of each into a copy of the slot.
        Raises:   ContextError where they do not fit; ValueError where there is no such layer, or none.
        """
        blocks = self._up_to(layer)
        chunk = cache.begin_beside(slot, tokens.shape[1])
        at = 0 if slot is None else cache.counts[slot]
        x = self._enter(tokens, None, None, range(at, at + tokens.shape[1]))  # (B, T, W)
        for index, block in enumerate(blocks):
            x = block.chunk(x, index, cache, chunk)
        return x

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of what left the last block, (..., W) -> (..., V)."""
        return self._logits(self.norm(hidden))

    def to_tensors(self) -> dict[str, Any]:
        """Weights as numpy arrays under the names of a checkpoint, "model.*"."""
        return {f"model.{n}": p.detach().cpu().contiguous().numpy() for n, p in self.state_dict().items()}

    # --- what a model fills in ---

    def _embed(self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, positions: Sequence[int]) -> Tensor:
        """Sum of the embeddings; all arguments broadcast to the shape of `tokens` (...) -> (..., W)."""
        return torch.embedding(self.embedding.weight, tokens)

    def _logits(self, x: Tensor) -> Tensor:
        """Of normalised hidden states; the head is the embedding, unless the model has one of its own."""
        return functional.linear(x, self.embedding.weight)

    def _cache(self, slots: int, context: int) -> KVCache:
        raise NotImplementedError

    # --- shared ---

    def _new_cache(
        self, slots: int, context: int, *, base: float | None = 10_000.0, ends: bool = False, laps: int = LAPS
    ) -> KVCache:
        attention, weight = self._blocks[0].attention, self.embedding.weight
        return KVCache(
            len(self._blocks),
            slots,
            attention.kv_heads,
            context,
            attention.head_dim,
            weight.dtype,
            weight.device,
            laps=laps,
            base=base,
            ends=ends,
        )

    def _enter(self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, positions: Sequence[int]) -> Tensor:
        x = self._embed(tokens, hours, symbols, positions)
        return x if self.entry is None else self.entry(x)

    def _through(self, x: Tensor, window: int | None, blocks: Sequence[Block]) -> Tensor:
        """(B, T, W) -> (B, T, W), whole sequences, differentiable."""
        cos, sin = self._tables(x)
        for block in blocks:
            if self.recompute_blocks and self.training:
                x = checkpoint(block, x, cos, sin, window, use_reentrant=False)
            else:
                x = block(x, cos, sin, window)
        return x

    def _tables(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.rotary is not None:
            return self.rotary.tables(x.shape[1])
        nothing = x.new_empty(0)
        return nothing, nothing

    def _up_to(self, layer: int | None) -> Sequence[Block]:
        if layer is None:
            return self._blocks
        if not 1 <= layer <= len(self._blocks):
            raise ValueError(f"want a layer in [1, {len(self._blocks)}], was {layer}")
        return self._blocks[:layer]
