"""The decode loop: what feeds tokens to a model through its cache, and reads forecasts, samples and paths from it.

Every symbol has a slot of the cache. New tokens of many symbols enter together: one token each as one batch, longer
pieces one symbol after the other.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.export import Decoder
from models.kv_cache import KVCache
from models.returns import ReturnTable, StepForecast
from models.sampling import EXACT, Floats, Ints, Sampling, draw, probabilities

__all__ = ["Engine", "EngineError", "Fed", "Paths", "ReturnTable", "Sampling", "StepForecast"]

_PATH_BYTES = 128 * 2**20  # of forked caches: paths beyond what fits are walked in further rounds
_PATHS_MAX = 64  # at once: the batch is efficient by then


class EngineError(ValueError):
    """Something was asked of the engine that it cannot do; the message says what was wanted and what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """New tokens of one symbol.

    Attributes:
        symbol: any name; one that training did not know is conditioned as unknown.
        tokens: oldest first, at least one.
        hours: hour of week of each token's bar; needed where the model is conditioned on it.
        missing_bars: bars that should have come between the last token fed and the first of these, but did not.
        gap: forget what came before, whatever `missing_bars` says: `tokens` are the new context.
    """

    symbol: str
    tokens: Sequence[int]
    hours: Sequence[int] | None = None
    missing_bars: int = 0
    gap: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Futures drawn one bar after the other.

    Attributes:
        tokens: (count, horizon).
        returns: (count, horizon) log returns, close to close.
        scales: (count, horizon), by which each return was drawn.
    """

    tokens: Ints
    returns: Floats
    scales: Floats


class Engine:
    """A model at work on many symbols. One thread may call it at a time.

    Args:
        model: a `models.fingpt.FinGPT` in evaluation mode, or an exported form of one.
        slots: symbols at once.
        table: what codes mean in returns; None: tokens and their probabilities only.
        max_gap_bars: where more bars than this are missing, the context before is forgotten. A hole up to this long
            is passed over, as if the bars around it were neighbours, as they were in training.
        threads: of PyTorch within a call; a second one makes small models slower, and very slow on a busy machine.
    """

    def __init__(
        self,
        model: Decoder,
        slots: int,
        *,
        table: ReturnTable | None = None,
        max_gap_bars: int = 8,
        threads: int = 1,
    ) -> None:
        vocabulary = model.config.vocabulary
        if table is not None and table.quantiles.shape[0] != vocabulary:
            raise EngineError(f"want a return table of {vocabulary} codes, was of {table.quantiles.shape[0]}")
        if max_gap_bars < 0 or threads < 1:
            raise EngineError(f"want max_gap_bars >= 0 and threads >= 1, was {max_gap_bars} and {threads}")
        self._model, self._table = model, table
        self._max_gap_bars, self._threads = max_gap_bars, threads
        self._cache = model.new_cache(slots)
        self._device = self._cache.store.device
        self._slots: dict[str, int] = {}
        self._free = list(range(slots))[::-1]
        self._logits = np.full((slots, vocabulary), np.nan)  # after each slot's last token
        self._branches: KVCache | None = None  # made where paths are first asked for, and kept

    def symbols(self) -> tuple[str, ...]:
        """The symbols that have a context, in the order they came."""
        return tuple(self._slots)

    def length(self, symbol: str) -> int:
        """Tokens that the symbol's context has seen since it began; 0 where it has none."""
        return self._cache.counts[self._slots[symbol]] if symbol in self._slots else 0

    def forget(self, symbol: str) -> None:
        """Drop a symbol's context, and free its slot."""
        if symbol in self._slots:
            slot = self._slots.pop(symbol)
            self._cache.reset(slot)
            self._free.append(slot)

    def feed(self, batch: Sequence[Fed]) -> Floats:
        """Take new tokens in, and return the probabilities of each symbol's next token, (B, V).

        Raises:
            EngineError: an impossible token or hour, a symbol twice, or more symbols than slots; nothing was taken in.
        """
        self._check(batch)
        single: list[tuple[int, Fed]] = []
        many: list[tuple[int, Fed]] = []
        for fed in batch:
            slot = self._slot(fed.symbol)
            if fed.gap or fed.missing_bars > self._max_gap_bars:
                self._cache.reset(slot)
            (single if len(fed.tokens) == 1 else many).append((slot, fed))
        with self._running():
            if single:
                single.sort(key=lambda pair: pair[0])  # neighbours in the cache are one view of it
                slots = [slot for slot, _ in single]
                tokens = self._integers([fed.tokens[0] for _, fed in single])
                hours = self._hours([h for _, fed in single for h in fed.hours or ()])
                index = self._integers([self._model.symbol_index(fed.symbol) for _, fed in single])
                self._logits[slots] = _numpy(self._model.step(tokens, hours, index, self._cache, slots))
            for slot, fed in many:
                self._logits[slot] = self._prefill(fed.symbol, fed.tokens, fed.hours, self._cache, slot)
        return probabilities(self._logits[[self._slots[fed.symbol] for fed in batch]])

    def one_step(self, chances: Floats, scale: Floats) -> StepForecast:
        """The distribution of the next log return, exactly, from `feed`'s (B, V) and the (B,) scales of that bar."""
        return self._returns().forecast(chances, scale)

    def sample(
        self,
        start: str | Sequence[int],
        count: int,
        *,
        sampling: Sampling = EXACT,
        seed: int = 0,
        hours: Sequence[int] | None = None,
        start_hours: Sequence[int] | None = None,
        symbol: str = "",
    ) -> Ints:
        """Draw `count` further tokens, (count,).

        Args:
            start: a symbol that was fed, whose own context is left as it is; or seed tokens.
            hours: (count,) hour of week of each drawn token's bar, where the model is conditioned on it.
            start_hours: of the seed tokens, likewise.
            symbol: how seed tokens are conditioned; a name unknown to training is the unknown symbol.
        """
        uniforms = np.random.default_rng(seed).random((1, count))
        branches = self._branch_cache()
        with self._running():
            if isinstance(start, str):
                symbol, first = start, self._logits[self._known(start)]
                branches.fork(self._cache, self._known(start), (0,))
            else:
                self._check([Fed(symbol=symbol, tokens=start, hours=start_hours)], slots=False)
                branches.reset(0)
                first = self._prefill(symbol, start, start_hours, branches, 0)
            walk = self._walk(symbol, first, count, 1, self._future_hours(hours, count))
            tokens = np.empty(count, np.int64)
            logits = next(walk)
            for i in range(count):
                tokens[i] = draw(probabilities(logits, sampling), uniforms[:, i])[0]
                logits = walk.send(tokens[i : i + 1])
        return tokens

    def paths(
        self,
        symbol: str,
        horizon: int,
        count: int,
        scale: float,
        *,
        hours: Sequence[int] | None = None,
        seed: int = 0,
        sampling: Sampling = EXACT,
    ) -> Paths:
        """Draw `count` futures of `horizon` bars from a symbol's context, which is left as it is.

        A token's return is drawn from its training returns, times the path's scale, which the return then moves.
        Path i depends on the seed, `horizon` and i, not on how many others are drawn.

        Args:
            scale: of the first bar, log return; see `tokenizer.codec.CodecStream.scale`.
            hours: (horizon,) hour of week of the bars to come, by the instrument's calendar.

        Raises: EngineError: the symbol has no context, or an argument is impossible.
        """
        table = self._returns()
        if horizon < 1 or count < 1 or not 0.0 < scale < np.inf:
            raise EngineError(f"want horizon, count >= 1, scale > 0, was {horizon}, {count}, {scale}")
        slot, bar_hours = self._known(symbol), self._future_hours(hours, horizon)
        uniforms = np.random.default_rng(seed).random((count, horizon, 2))
        found = Paths(np.empty((count, horizon), np.int64), np.empty((count, horizon)), np.empty((count, horizon)))
        branches = self._branch_cache()
        with self._running():
            for start in range(0, count, branches.slots):
                rows = slice(start, min(start + branches.slots, count))
                width = rows.stop - start
                branches.fork(self._cache, slot, range(width))
                walk = self._walk(symbol, self._logits[slot], horizon, width, bar_hours)
                logits, now = next(walk), np.full(width, scale)
                for bar in range(horizon):
                    chance = uniforms[rows, bar]  # (width, 2): one for the token, one for its return
                    tokens = draw(probabilities(logits, sampling), chance[:, 0])
                    z = table.draw(tokens, chance[:, 1])
                    found.tokens[rows, bar], found.scales[rows, bar], found.returns[rows, bar] = tokens, now, z * now
                    now = table.next_scale(now, z)
                    logits = walk.send(tokens)
        return found

    def _walk(
        self, symbol: str, first: Floats, horizon: int, width: int, hours: Sequence[int] | None
    ) -> Generator[Floats, Ints, None]:
        """Logits (width, V) for each bar to come, given the tokens (width,) that were drawn for the bar before."""
        branches = self._branch_cache()
        slots = range(width)
        index = self._integers([self._model.symbol_index(symbol)] * width)
        logits = np.broadcast_to(first, (width, len(first)))
        for bar in range(horizon):
            tokens = yield logits
            if bar + 1 < horizon:  # nothing is drawn after the last one
                bar_hours = self._hours([] if hours is None else [hours[bar]] * width)
                step = self._model.step(torch.from_numpy(tokens).to(self._device), bar_hours, index, branches, slots)
                logits = _numpy(step)
        yield logits

    def _prefill(
        self, symbol: str, tokens: Sequence[int], hours: Sequence[int] | None, cache: KVCache, slot: int
    ) -> Floats:
        index = self._integers([self._model.symbol_index(symbol)])
        given = self._hours([] if hours is None else hours)
        return _numpy(self._model.prefill(self._integers(tokens), given, index, cache, slot))

    def _branch_cache(self) -> KVCache:
        if self._branches is None:
            one = self._cache.nbytes // self._cache.slots
            self._branches = self._model.new_cache(max(1, min(_PATHS_MAX, _PATH_BYTES // one)))
        return self._branches

    def _check(self, batch: Sequence[Fed], *, slots: bool = True) -> None:
        config = self._model.config
        names = {fed.symbol for fed in batch}
        if len(names) != len(batch):
            raise EngineError(f"want each symbol once in a batch, was {[fed.symbol for fed in batch]}")
        fresh = len(names - self._slots.keys())
        if slots and fresh > len(self._free):
            raise EngineError(f"want at most {self._cache.slots} symbols, was {len(self._slots) + fresh}")
        for fed in batch:
            if not len(fed.tokens):
                raise EngineError(f"want at least one token of {fed.symbol}, was none")
            for token in fed.tokens:
                if not 0 <= token < config.vocabulary:
                    raise EngineError(f"want tokens of {fed.symbol} in [0, {config.vocabulary}), was {token}")
            if fed.missing_bars < 0:
                raise EngineError(f"want missing_bars of {fed.symbol} of at least 0, was {fed.missing_bars}")
            if config.hours:
                self._check_hours(fed.hours, len(fed.tokens))

    def _check_hours(self, hours: Sequence[int] | None, count: int) -> None:
        if hours is None or len(hours) != count or not all(0 <= hour < 168 for hour in hours):
            raise EngineError(f"want {count} hours of week in [0, 168), was {hours}")

    def _future_hours(self, hours: Sequence[int] | None, count: int) -> Sequence[int] | None:
        if not self._model.config.hours:
            return None
        self._check_hours(hours, count)
        return hours

    def _hours(self, hours: Sequence[int]) -> Tensor | None:
        return self._integers(hours) if self._model.config.hours else None

    def _integers(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _slot(self, symbol: str) -> int:
        if symbol not in self._slots:
            self._slots[symbol] = self._free.pop()
        return self._slots[symbol]

    def _known(self, symbol: str) -> int:
        if symbol not in self._slots:
            raise EngineError(f"want a symbol that was fed, one of {sorted(self._slots)}, was {symbol!r}")
        return self._slots[symbol]

    def _returns(self) -> ReturnTable:
        if self._table is None:
            raise EngineError("want a return table to speak of returns, was none: the engine knows tokens only")
        return self._table

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and the threads that were asked for, which are the caller's: they are put back."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)


def _numpy(logits: Tensor) -> Floats:
    array: Floats = logits.double().cpu().numpy()
    return array
