"""The decode loop: what feeds tokens to a model through its cache, and reads forecasts, samples and paths from it.

Every symbol has a slot of the cache. New tokens of many symbols enter together: one token each as one batch, longer
pieces one symbol after the other.

A text model is served alike: a symbol is then the name of a text, such as the prompt that many texts go on from.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.decoder import CachedDecoder, Decoder
from models.kv_cache import ContextError, KVCache
from models.returns import ReturnTable, StepForecast
from models.sampling import EXACT, Floats, Ints, Sampling, draw, probabilities

__all__ = ["Engine", "EngineError", "Fed", "Paths", "ReturnTable", "Sampling", "StepForecast"]

_PATH_BYTES = 128 * 2**20  # of forked caches: paths beyond what fits are walked in further rounds
_PATHS_MAX = 64  # at once: the batch is efficient by then
_TEXT_TOKENS = 512  # at once, filled up: larger batches are no faster, and their logits take 0.2 MB a token
_FILLED_MAX = 0.15  # of a batch of texts: what is filled up costs what it would cost if it were read


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
        model: a `models.decoder.CachedDecoder` in evaluation mode (FinGPT, GPT2, Llama), or an exported form of one.
        slots: symbols at once.
        context: tokens of a symbol; None: as many as the model was made for, which for a text model may take 0.4 GB.
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
        context: int | None = None,
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
        self._context = context
        self._conditioned: bool = getattr(model.config, "hours", False)  # on the hour of week; texts have none
        self._cache = self._new_cache(slots)
        self._device = self._cache.store.device
        self._slots: dict[str, int] = {}
        self._free = list(range(slots))[::-1]
        self._logits = np.full((slots, vocabulary), np.nan)  # after each slot's last token
        self._rewound: set[int] = set()  # slots whose logits are of a token that is gone
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
            self._rewound.discard(slot)
            self._free.append(slot)

    def rewind(self, symbol: str, count: int) -> None:
        """Go back to the first `count` tokens of a symbol's context, at once: so a prompt is read once, not each time.

        What comes next is known again when tokens were fed.

        Raises: EngineError: the symbol has no context, or never had so many tokens, or has lost what they saw.
        """
        slot = self._known(symbol)
        before = self._cache.counts[slot]
        try:
            self._cache.rewind(slot, count)
        except ContextError as error:
            raise EngineError(f"{symbol}: {error}") from None
        if count != before:
            self._rewound.add(slot)

    def feed(self, batch: Sequence[Fed]) -> Floats:
        """Take new tokens in, and return the probabilities of each symbol's next token, (B, V).

        Raises:
            EngineError: an impossible token or hour, a symbol twice, more symbols than slots, or more tokens than a
                model whose positions end can take; nothing was taken in.
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
        self._rewound.difference_update(self._slots[fed.symbol] for fed in batch)
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
        stop: Collection[int] = (),
    ) -> Ints:
        """Draw `count` further tokens, (count,), or fewer where one of `stop` comes, which is not given back.

        Args:
            start: a symbol that was fed, whose own context is left as it is; or seed tokens.
            hours: (count,) hour of week of each drawn token's bar, where the model is conditioned on it.
            start_hours: of the seed tokens, likewise.
            symbol: how seed tokens are conditioned; a name unknown to training is the unknown symbol.
            stop: tokens that end it.

        Raises: EngineError: the symbol has no context, or tokens or hours are impossible; ContextError: the
            model's positions end before `count` tokens, and before one of `stop`.
        """
        uniforms = np.random.default_rng(seed).random((1, count))
        branches = self._branch_cache()
        with self._running():
            if isinstance(start, str):
                symbol, first = start, self._after(start)
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
                if tokens[i] in stop:
                    return tokens[:i]
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
                walk = self._walk(symbol, self._after(symbol), horizon, width, bar_hours)
                logits, now = next(walk), np.full(width, scale)
                for bar in range(horizon):
                    chance = uniforms[rows, bar]  # (width, 2): one for the token, one for its return
                    tokens = draw(probabilities(logits, sampling), chance[:, 0])
                    z = table.draw(tokens, chance[:, 1])
                    found.tokens[rows, bar], found.scales[rows, bar], found.returns[rows, bar] = tokens, now, z * now
                    now = table.next_scale(now, z)
                    logits = walk.send(tokens)
        return found

    def score(self, symbol: str, continuations: Sequence[Sequence[int]]) -> Floats:
        """Log probability of each of several sequences of tokens after a symbol's context, which is left as it is.

        Shapes:   N continuations of at least one token -> (N,) nats, each the sum over its tokens.
        Raises:   EngineError: the symbol has no context, or a continuation is impossible or does not fit.
        """
        model, slot = self._reader(), self._known(symbol)
        self._check_texts(continuations, slot)
        found = _log_chances(self._after(symbol))[[tokens[0] for tokens in continuations]]  # (N,)
        longer = [i for i, tokens in enumerate(continuations) if len(tokens) > 1]
        with self._running():
            for rows in _groups([len(continuations[i]) - 1 for i in longer]):
                chosen = [longer[row] for row in rows]
                given = self._filled([continuations[i][:-1] for i in chosen])  # (b, T)
                wanted = self._filled([continuations[i][1:] for i in chosen])  # (b, T)
                logits = model.logits(model.beside(given, self._cache, slot)).float()  # (b, T, V)
                each = logits.gather(2, wanted[..., None])[..., 0] - logits.logsumexp(dim=2)  # (b, T)
                lengths = self._integers([len(continuations[i]) - 1 for i in chosen])
                kept = torch.arange(given.shape[1], device=self._device) < lengths[:, None]  # (b, T)
                found[chosen] += _numpy(each.masked_fill(~kept, 0.0).double().sum(dim=1))
        return found

    def embed(self, batch: Sequence[Sequence[int]], layer: int, after: str | None = None) -> npt.NDArray[np.float32]:
        """What the model makes of several texts: [last; mean] of what leaves its first `layer` blocks.

        Shapes:   B texts of at least one token -> (B, 2 W) float32: of the last token, then the mean over the text.
        Args:     after: the symbol whose context the texts go on from; it is left as it is, and not in the mean.
        Numerics: in fp32 as one by one; the blocks after `layer` are not run.
        Raises:   EngineError: there is no such symbol or layer, or a text is impossible or does not fit.
        """
        model, slot = self._reader(), None if after is None else self._known(after)
        self._check_texts(batch, slot)
        if not 1 <= layer <= len(model.blocks):
            raise EngineError(f"want a layer in [1, {len(model.blocks)}], was {layer}")
        width = model.embedding.embedding_dim
        found = np.empty((len(batch), 2 * width), np.float32)
        with self._running():
            for rows in _groups([len(tokens) for tokens in batch]):
                hidden = model.beside(self._filled([batch[row] for row in rows]), self._cache, slot, layer)  # (b, T, W)
                lengths = self._integers([len(batch[row]) for row in rows])[:, None]  # (b, 1)
                kept = torch.arange(hidden.shape[1], device=self._device) < lengths  # (b, T)
                last = hidden[torch.arange(len(rows), device=self._device), lengths[:, 0] - 1]  # (b, W)
                mean = hidden.float().masked_fill(~kept[..., None], 0.0).sum(dim=1) / lengths  # (b, W)
                found[rows] = torch.cat((last.float(), mean), dim=1).cpu().numpy()
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
            self._branches = self._new_cache(max(1, min(_PATHS_MAX, _PATH_BYTES // one)))
        return self._branches

    def _new_cache(self, slots: int) -> KVCache:
        if self._context is None:
            return self._model.new_cache(slots)
        try:
            return self._reader().new_cache(slots, self._context)
        except ValueError as error:
            raise EngineError(str(error)) from None

    def _reader(self) -> CachedDecoder:
        if not isinstance(self._model, CachedDecoder) or self._conditioned:
            raise EngineError(
                "want a model of bare tokens in the form eager, was one that is exported, or asks for the hour of week"
            )
        return self._model

    def _filled(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(b, T): texts side by side, the shorter ones filled up at their ends."""
        longest = max(map(len, texts))
        return self._integers([[*tokens, *[0] * (longest - len(tokens))] for tokens in texts])

    def _check_texts(self, texts: Sequence[Sequence[int]], slot: int | None) -> None:
        vocabulary, room = self._model.config.vocabulary, self._cache.room(slot)
        for tokens in texts:
            if not len(tokens):
                raise EngineError("want at least one token in each text, was none")
            if not 0 <= min(tokens) <= max(tokens) < vocabulary:
                raise EngineError(f"want tokens in [0, {vocabulary}), was {min(tokens)} to {max(tokens)}")
            if room is not None and len(tokens) > room:
                raise EngineError(f"want texts of at most {room} tokens, which is what still fits, was {len(tokens)}")

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
            if self._conditioned:
                self._check_hours(fed.hours, len(fed.tokens))
            room = self._room(fed)
            if room is not None and len(fed.tokens) > room:
                raise EngineError(f"want at most {room} more tokens of {fed.symbol}, was {len(fed.tokens)}")

    def _room(self, fed: Fed) -> int | None:
        begins = fed.gap or fed.missing_bars > self._max_gap_bars or fed.symbol not in self._slots
        return self._cache.room(None if begins else self._slots[fed.symbol])

    def _check_hours(self, hours: Sequence[int] | None, count: int) -> None:
        if hours is None or len(hours) != count or not all(0 <= hour < 168 for hour in hours):
            raise EngineError(f"want {count} hours of week in [0, 168), was {hours}")

    def _future_hours(self, hours: Sequence[int] | None, count: int) -> Sequence[int] | None:
        if not self._conditioned:
            return None
        self._check_hours(hours, count)
        return hours

    def _hours(self, hours: Sequence[int]) -> Tensor | None:
        return self._integers(hours) if self._conditioned else None

    def _integers(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _slot(self, symbol: str) -> int:
        if symbol not in self._slots:
            self._slots[symbol] = self._free.pop()
        return self._slots[symbol]

    def _known(self, symbol: str) -> int:
        if symbol not in self._slots:
            raise EngineError(f"want a symbol that was fed, one of {sorted(self._slots)}, was {symbol!r}")
        return self._slots[symbol]

    def _after(self, symbol: str) -> Floats:
        """Logits (V,) after the symbol's last token."""
        slot = self._known(symbol)
        if slot in self._rewound:
            raise EngineError(f"want tokens of {symbol} fed since it went back: what follows is not known, was none")
        return self._logits[slot]

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


def _log_chances(logits: Floats) -> Floats:
    """Logarithms of the probabilities, (V,) -> (V,)."""
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite: the model has failed")
    top = logits.max()
    result: Floats = logits - top - np.log(np.exp(logits - top).sum())
    return result


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like lengths together, by their numbers, so that little is filled up."""
    rows: list[int] = []
    filled = 0
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        size = lengths[row] * (len(rows) + 1)
        if rows and (size > _TEXT_TOKENS or size - filled - lengths[row] > _FILLED_MAX * size):
            yield rows
            rows, filled = [], 0
        rows.append(row)
        filled += lengths[row]
    if rows:
        yield rows
