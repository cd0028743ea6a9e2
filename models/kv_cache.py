"""The key-value cache: a ring buffer a slot, allocated once, for sequences that never end.

Token p of a slot's sequence lies in row p mod C. Its key is rotated by the angle of p mod (LAPS x C), and so is its
query: as long as that number grows, relative positions are exact and decoding is a softmax over the rows, in whatever
order they lie. Where the number would start again at 0, the slot's keys are turned back once by LAPS x C, so angles
stay within [-C, LAPS x C) for ever, and a key is turned at most once in its life: token 10,000,000 is as exact as
token 1,000. A turn takes 0.15 ms for a slot of 4 layers of 128, 0.9 ms for 6 of 512, once in 4,096 tokens. The other
way, two queries a token, one for each side of the ring's seam, takes 0.3 ms more a layer of every step of 64 symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers import rotary_tables

LAPS = 16  # of the ring between two turns; the tables of angles are LAPS x C long


@dataclass(slots=True, frozen=True)
class Run:
    """Neighbouring slots that one view of the cache reaches.

    Attributes:
        heads: rows of the batch times kv heads.
        cached: slots times kv heads.
        rows: rows of the ring that hold something, in the longest of these sequences, the new token included.
        hidden: (b * K, 1, rows), True where a shorter sequence holds nothing yet; None where all are as long.
    """

    heads: slice
    cached: slice
    rows: int
    hidden: Tensor | None


@dataclass(slots=True, frozen=True)
class Step:
    """What all layers of one decoding step share.

    Attributes:
        runs: the batch, in pieces that are views of the cache.
        slots, row: neighbouring slots and the one ring row that each writes, where `where` is None.
        where: slots and rows, (B,) int64 each, where the slots are no neighbours or the rows differ.
        cos, sin: (B or 1, 1, D), the rotation of the new tokens in full width, sin with the sign of the half:
            rotated = x * cos + roll(x, D / 2) * sin.
    """

    runs: tuple[Run, ...]
    slots: slice
    row: int
    where: tuple[Tensor, Tensor] | None
    cos: Tensor
    sin: Tensor


@dataclass(slots=True, frozen=True)
class Chunk:
    """What all layers share when several tokens enter one slot, or pass beside it.

    Attributes:
        slot: the slot.
        tokens: new ones, t.
        rows: the ring rows that are written: they do not wrap; None: the slot is left as it is.
        held: ring rows that hold something before.
        seen: (t, held + t), True where a new token sees a held row, or a new one; None: plain causal, nothing is held.
        cos, sin: (t, D / 2).
    """

    slot: int
    tokens: int
    rows: slice | None
    held: int
    seen: Tensor | None
    cos: Tensor
    sin: Tensor


class ContextError(ValueError):
    """Tokens that do not fit into what a model can see, or a place in it that is gone."""


class KVCache:
    """Ring buffers of keys and values for `slots` sequences, and how far each has come.

    Args:
        layers, kv_heads, context, head_dim: of the model; `context` is the rows of a ring, C.
        slots: sequences that can live at once.
        laps: see the module's text.
        base: of the rotary angles; None: keys are not rotated.
        ends: positions end at the context: the token that does not fit is refused, and there are no laps.
    Attributes:
        store: (2, layers, slots, kv_heads, context, head_dim), keys at 0, values at 1. Rows never written are never
            read into a result: they may hold anything.
        counts: tokens that each slot has seen; an int, so it cannot overflow.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        kv_heads: int,
        context: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        laps: int = LAPS,
        base: float | None = 10_000.0,
        ends: bool = False,
    ) -> None:
        sizes = {"layers": layers, "slots": slots, "kv_heads": kv_heads, "context": context, "laps": laps}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, was {value}")
        self.store = torch.zeros(2, layers, slots, kv_heads, context, head_dim, dtype=dtype, device=device)
        self.counts = [0] * slots
        self.context = context
        # Slots and heads stay neighbours in memory, so a run is one batch of matrices without a copy.
        self._layers = self.store.unbind(1)  # (2, slots, kv_heads, context, head_dim) each
        self._heads = self.store.flatten(2, 3).unbind(1)  # (2, slots * kv_heads, context, head_dim) each
        self._kv_heads = kv_heads
        self._span = context if ends else laps * context
        self._base, self._ends = base, ends
        self._device = device
        cos, sin = self._angles(0, self._span + 1)
        self._cos, self._sin = cos, sin  # (span + 1, D/2): the last row is the turn; (span + 1, 0) without rotation
        self._wide_cos = torch.cat((self._cos, self._cos), dim=1)  # (span + 1, D)
        self._wide_sin = torch.cat((-self._sin, self._sin), dim=1)  # (span + 1, D)

    @property
    def slots(self) -> int:
        return len(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return self.store.nbytes

    def reset(self, slot: int) -> None:
        """Forget a slot's sequence; O(1), nothing is cleared."""
        self.counts[slot] = 0

    def rewind(self, slot: int, count: int) -> None:
        """Go back to the first `count` tokens of a slot's sequence, as if the later ones had never come; O(1).

        Raises:
            ContextError: there are not so many, or the later ones lie where some that they saw have been.
        """
        have = self.counts[slot]
        if not 0 <= count <= have:
            raise ContextError(f"want to go back to between 0 and {have} tokens, was {count}")
        if 0 < count < have and have > self.context:
            raise ContextError(
                f"want to go back to {count} tokens, but {have} have gone round a ring of {self.context}: what the"
                " earlier ones saw is overwritten"
            )
        self.counts[slot] = count

    def room(self, slot: int | None) -> int | None:
        """Tokens that a slot can still take, or a new one (None); None where there is no end."""
        held = 0 if slot is None else self.counts[slot]
        return self.context - held if self._ends else None

    def require(self, slots: Sequence[int], tokens: int = 1) -> None:
        """Refuse tokens that do not fit.

        Raises:
            ContextError: positions end before the last of `tokens` more in one of `slots`.
        """
        if not self._ends:
            return
        for slot in slots:
            if self.counts[slot] + tokens > self.context:
                raise ContextError(
                    f"want at most {self.context} tokens in a sequence, was {self.counts[slot]} and {tokens} more"
                )

    def fork(self, source: "KVCache", slot: int, targets: Sequence[int]) -> None:
        """Copy a slot of `source` (this cache or another of the same shape) to many slots of this one.

        Args:
            targets: slots of this cache; `slot` itself may not be among them where the cache is the same.
        """
        if source is self and slot in targets:
            raise ValueError(f"a slot cannot be copied onto itself, was {slot} to {tuple(targets)}")
        held = min(source.counts[slot], self.context)
        for target in targets:
            self.store[:, :, target, :, :held].copy_(source.store[:, :, slot, :, :held])
            self.counts[target] = source.counts[slot]

    def begin_step(self, slots: Sequence[int]) -> Step:
        """Plan one token for each of `slots` (which must differ), turning keys back where it is time.

        The plan holds until `advance`, and rows of the new tokens are written layer by layer.

        Raises:
            ContextError: the token does not fit.
        """
        if len(set(slots)) != len(slots):
            raise ValueError(f"slots of one step must differ, was {tuple(slots)}")
        self.require(slots)
        for slot in slots:
            self._turn(slot)
        counts = [self.counts[slot] for slot in slots]
        angles = [count % self._span for count in counts]
        runs = tuple(self._runs(slots, counts))
        rows = [count % self.context for count in counts]
        together = len(runs) == 1 and min(rows) == max(rows)
        where = None if together else (self._index(slots), self._index(rows))
        if min(angles) == max(angles):
            cos, sin = self._wide_cos[angles[0]], self._wide_sin[angles[0]]  # (D,)
        else:
            index = self._index(angles)
            cos, sin = self._wide_cos[index][:, None], self._wide_sin[index][:, None]  # (B, 1, D)
        span = slice(slots[0], slots[-1] + 1)
        return Step(runs=runs, slots=span, row=rows[0], where=where, cos=cos, sin=sin)

    def write(self, layer: int, step: Step, kv: Tensor) -> None:
        """Put the new tokens' keys and values, (2, B, K, D), into their rows."""
        store = self._layers[layer]
        if step.where is None:
            store[:, step.slots, :, step.row] = kv
        else:
            slots, rows = step.where
            store[:, slots, :, rows] = kv.transpose(0, 1)  # (B, 2, K, D): indexed dimensions come first

    def held(self, layer: int, run: Run) -> tuple[Tensor, Tensor]:
        """Keys and values of a run, each (b * K, rows, D), views of the cache."""
        k, v = self._heads[layer][:, run.cached, : run.rows].unbind(0)
        return k, v

    def begin_chunk(self, slot: int, tokens: int) -> Chunk:
        """Plan the first part of `tokens` new ones for one slot: as many as fit before the ring wraps.

        Raises:
            ContextError: they do not fit.
        """
        self.require((slot,), tokens)
        self._turn(slot)
        count, context = self.counts[slot], self.context
        row = count % context
        t = min(tokens, context - row)
        return self._chunk(slot, t, count % self._span, slice(row, row + t))

    def begin_beside(self, slot: int | None, tokens: int) -> Chunk:
        """Plan `tokens` new ones of any number of sequences that go on where one slot is, which is left as it is.

        Args:
            slot: None: they begin anew.

        Raises:
            ContextError: they do not fit.
        """
        if slot is None:
            if self._ends and tokens > self.context:
                raise ContextError(f"want at most {self.context} tokens in a sequence, was {tokens}")
            return self._chunk(None, tokens, 0, None)
        self.require((slot,), tokens)
        count = self.counts[slot]
        # Keys that are about to be turned are not yet: their next token is at the span, not at 0.
        angle = count % self._span or min(count, self._span)
        return self._chunk(slot, tokens, angle, None)

    def _chunk(self, slot: int | None, t: int, angle: int, rows: slice | None) -> Chunk:
        count, context = 0 if slot is None else self.counts[slot], self.context
        row, held = count % context, min(count, context)
        seen = None
        if held or t > context:
            # Held row j has been there for `age` tokens when the first new one comes: 0 is the newest.
            age = (row - 1 - torch.arange(held, device=self._device)) % context  # (held,)
            new = torch.arange(t, device=self._device)[:, None]  # (t, 1)
            behind = new - new.T  # (t, t)
            seen = torch.cat((age + new + 1 < context, (behind >= 0) & (behind < context)), dim=1)  # (t, held + t)
        if angle + t <= self._span:
            cos, sin = self._cos[angle : angle + t], self._sin[angle : angle + t]
        else:
            cos, sin = self._angles(angle, t)
        return Chunk(slot=slot or 0, tokens=t, rows=rows, held=held, seen=seen, cos=cos, sin=sin)

    def extend(self, layer: int, chunk: Chunk, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values before and of the chunk, each (B, K, held + t, D); then the chunk's are written.

        Held rows are copied first: the new ones fall onto rows that the chunk's first tokens still see.
        """
        store = self._layers[layer][:, chunk.slot]  # (2, K, C, D)
        both = (k, v)
        if chunk.held:
            before = store[:, :, : chunk.held]  # (2, K, held, D)
            old = before[:, None].expand(-1, k.shape[0], -1, -1, -1)  # (2, B, K, held, D)
            both = torch.cat((old[0], k), dim=2), torch.cat((old[1], v), dim=2)
        if chunk.rows is not None:
            store[0, :, chunk.rows] = k[0]
            store[1, :, chunk.rows] = v[0]
        return both

    def advance(self, slots: Sequence[int], tokens: int = 1) -> None:
        """Count the tokens that all layers have written."""
        for slot in slots:
            self.counts[slot] += tokens

    def _angles(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions from `first`, (count, D/2) each; (count, 0) where nothing is rotated."""
        if self._base is None:
            nothing = torch.empty(count, 0, device=self._device)
            return nothing, nothing
        cos, sin = rotary_tables(self.store.shape[-1], first + count, self._base)
        return cos[first:].to(self._device), sin[first:].to(self._device)

    def _index(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _runs(self, slots: Sequence[int], counts: Sequence[int]) -> list[Run]:
        """Cut the batch where the slots stop being neighbours: views are free, gathering copies the cache."""
        runs = []
        start, kv = 0, self._kv_heads
        for end in range(1, len(slots) + 1):
            if end < len(slots) and slots[end] == slots[end - 1] + 1:
                continue
            held = [min(count + 1, self.context) for count in counts[start:end]]
            hidden = None
            if min(held) != max(held):
                empty = torch.arange(max(held), device=self._device) >= self._index(held)[:, None]  # (b, rows)
                hidden = empty.repeat_interleave(kv, dim=0)[:, None]  # (b * K, 1, rows)
            heads = slice(start * kv, end * kv)
            cached = slice(slots[start] * kv, (slots[end - 1] + 1) * kv)
            runs.append(Run(heads=heads, cached=cached, rows=max(held), hidden=hidden))
            start = end
        return runs

    def _turn(self, slot: int) -> None:
        """Turn the slot's keys back by the span, where the next token would be at angle 0 again."""
        count = self.counts[slot]
        if count == 0 or count % self._span or self._base is None:
            return
        keys = self.store[0, :, slot]  # (layers, K, C, D), all rows written: the span is at least one lap
        half = keys.shape[-1] // 2
        cos, sin = self._wide_cos[self._span], -self._wide_sin[self._span]  # the inverse rotation
        keys.copy_(keys * cos + keys.roll(half, -1) * sin)
