"""What can be said of tokens: how they are used, what follows what, what surprises, and what they mean for prices.

Pure functions on arrays. The pictures are in `tokenizer.pictures`, the command in `tokenizer.analysis`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenizer.bars import Floats, Ints
from tokenizer.quantise import perplexity

LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48, 72, 96, 120, 168)  # bars
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHUFFLES = 5
_GRAMS_COUNTED_MIN = 3  # seen less often, a sequence is an anecdote


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """The tokens of one symbol in order, warm-up left out."""

    symbol: str
    tokens: Ints  # (n,) each in [0, vocabulary)
    close_time: Ints | None = None  # (n,) ns UTC
    z: Floats | None = None  # (n,) return of each bar in scales

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Usage:
    """How often each code is used."""

    counts: Ints  # (V,)
    entropy_bits: float
    perplexity: float  # 2 to the entropy: how many equally used codes would say as much
    unused: int
    half: int  # the most used codes that make up half of all tokens


def usage(rows: Sequence[TokenRow], vocabulary: int) -> Usage:
    """Count the tokens of all rows."""
    return usage_of(np.bincount(_joined(rows), minlength=vocabulary))


def usage_of(counts: Ints) -> Usage:
    """The same for tokens that were counted elsewhere. (V,)"""
    effective = perplexity(counts)
    shares = np.cumsum(np.sort(counts)[::-1]) / max(int(counts.sum()), 1)  # (V,)
    return Usage(
        counts=counts,
        entropy_bits=float(np.log2(effective)) if effective else 0.0,
        perplexity=effective,
        unused=int((counts == 0).sum()),
        half=int(np.searchsorted(shares, 0.5) + 1) if effective else 0,
    )


def transitions(rows: Sequence[TokenRow], vocabulary: int) -> Ints:
    """How often code j came right after code i: (V, V) at [i, j]. Nothing follows from one symbol to another."""
    pairs = [np.empty(0, np.int64), *(row.tokens[:-1] * vocabulary + row.tokens[1:] for row in rows)]
    counts = np.bincount(np.concatenate(pairs), minlength=vocabulary * vocabulary)
    return counts.reshape(vocabulary, vocabulary)  # (V, V)


def independent(rows: Sequence[TokenRow], vocabulary: int) -> Floats:
    """The transitions to expect of independent bars, (V, V), symbol by symbol: what two differ in is no order."""
    expected = np.zeros((vocabulary, vocabulary))
    for row in rows:
        before, after = (np.bincount(part, minlength=vocabulary) for part in (row.tokens[:-1], row.tokens[1:]))
        expected += np.outer(before, after / max(len(row) - 1, 1))
    return expected


def lift(counts: Ints, expected: Floats, prior: float = 1.0) -> Floats:
    """log2 of how much more often a transition is seen than expected. (V, V) and (V, V) -> (V, V)

    Args:
        prior: transitions as expected, added to those seen: 0 seen of 0.1 expected says little, and is near zero.
    """
    more: Floats = np.log2((counts + prior) / (expected + prior))
    return more


@dataclass(frozen=True, slots=True)
class Memory:
    """How much a token says about the one some bars later."""

    lags: Ints  # (M,) bars
    bits: Floats  # (M,) mutual information, less what shuffled tokens show
    noise: Floats  # (M,) standard deviation of what shuffled tokens show


def memory(rows: Sequence[TokenRow], vocabulary: int, *, seed: int, lags: Sequence[int] = LAGS) -> Memory:
    """Mutual information between tokens `lag` bars apart, in bits.

    Few tokens in many cells show information that is not there (about (V - 1)^2 / (2 N ln 2) bits), and tokens of
    several symbols tell which one it is. That much is taken off as the mean over shuffles of the later tokens, each
    symbol's among themselves, whose spread is the noise.
    """
    random = np.random.default_rng(seed)
    kept, bits, noise = [], [], []
    for lag in lags:
        pairs = [(row.tokens[:-lag], row.tokens[lag:]) for row in rows if len(row) > lag]
        if sum(len(first) for first, _ in pairs) < vocabulary:
            continue
        first, later = (np.concatenate(side) for side in zip(*pairs, strict=True))
        shuffled = [np.concatenate([random.permutation(part) for _, part in pairs]) for _ in range(_SHUFFLES)]
        chance = [_information(first, one, vocabulary) for one in shuffled]
        kept.append(lag)
        bits.append(_information(first, later, vocabulary) - float(np.mean(chance)))
        noise.append(float(np.std(chance, ddof=1)))
    return Memory(np.array(kept, np.int64), np.array(bits), np.array(noise))


def _information(first: Ints, later: Ints, vocabulary: int) -> float:
    joint = np.unique(first * vocabulary + later, return_counts=True)[1]
    entropies = [np.log2(perplexity(counts)) for counts in (np.bincount(first), np.bincount(later), joint)]
    return float(entropies[0] + entropies[1] - entropies[2])


@dataclass(frozen=True, slots=True)
class Gram:
    """A sequence of codes that is seen more often than its codes alone explain."""

    codes: tuple[int, ...]
    count: int
    expected: float  # if each code of a symbol came independently of the others
    z: float  # (count - expected) / sqrt(expected)


def grams(rows: Sequence[TokenRow], vocabulary: int, length: int, top: int) -> list[Gram]:
    """The sequences of `length` codes that stand out most, by z; of equal ones that with the lower codes first.

    Raises:
        ValueError: `length` is below 2, or so many codes do not fit a 64-bit number.
    """
    if length < 2 or vocabulary**length >= 2**62:
        raise ValueError(f"length must be from 2 to what 62 bits hold of {vocabulary} codes, was {length}")
    rows = [row for row in rows if len(row) >= length]
    if not rows:
        return []
    keys = [_keys(row.tokens, vocabulary, length) for row in rows]
    found, counts = np.unique(np.concatenate(keys), return_counts=True)
    digits = found[:, None] // vocabulary ** np.arange(length - 1, -1, -1) % vocabulary  # (M, length)
    expected = np.zeros(len(found))
    for row, mine in zip(rows, keys, strict=True):
        shares = np.bincount(row.tokens, minlength=vocabulary) / len(row)  # (V,)
        expected += shares[digits].prod(axis=1) * len(mine)
    z = np.where(counts >= _GRAMS_COUNTED_MIN, (counts - expected) / np.sqrt(expected), -np.inf)
    best = np.argsort(-z, kind="stable")[:top]
    return [
        Gram(tuple(digits[i].tolist()), int(counts[i]), float(expected[i]), float(z[i])) for i in best if z[i] > 0.0
    ]


def _keys(tokens: Ints, vocabulary: int, length: int) -> Ints:
    """Each run of `length` tokens as one number, the first token its highest digit."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length)  # (n - length + 1, length)
    keys: Ints = windows @ vocabulary ** np.arange(length - 1, -1, -1)
    return keys


@dataclass(frozen=True, slots=True)
class Surprise:
    """Bits of each token under a simple model of what came before it."""

    bigram: list[Floats]  # by row, (n,) -log2 P(token | the one before); NaN for the first
    unigram: list[Floats]  # by row, (n,) -log2 P(token)
    judged_from: list[int]  # by row: the model learned from the tokens before this one, and knows none from it on

    def after(self, bits: list[Floats]) -> Floats:
        """The bits of all tokens that the model had not seen, but for the first of a row, which follows none."""
        parts = [row[max(start, 1) :] for row, start in zip(bits, self.judged_from, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0)


def surprise(rows: Sequence[TokenRow], vocabulary: int, fit_share: float = 0.7) -> Surprise:
    """How unexpected each token was, learned from the first `fit_share` of each row and judged on the rest.

    P(j | i) = (c_ij + V p_j) / (c_i + V) with the unigram p_j = (c_j + 1) / (N + V): a code seen rarely is followed as
    codes are in general. Rows with times are parted at one moment for all, so that no symbol tells another its future.

    Raises:
        ValueError: `fit_share` is not between 0 and 1.
    """
    if not 0.0 < fit_share < 1.0:
        raise ValueError(f"fit_share must lie in (0, 1), was {fit_share}")
    starts = _parted(rows, fit_share)
    learned = [TokenRow(symbol=row.symbol, tokens=row.tokens[:start]) for row, start in zip(rows, starts, strict=True)]
    single = usage(learned, vocabulary).counts if learned else np.zeros(vocabulary, np.int64)
    shares = (single + 1.0) / (single.sum() + vocabulary)  # (V,)
    pairs = transitions(learned, vocabulary)
    given = (pairs + vocabulary * shares) / (pairs.sum(axis=1, keepdims=True) + vocabulary)  # (V, V)
    bigram, unigram = [], []
    for row in rows:
        bits = np.full(len(row), np.nan)
        bits[1:] = -np.log2(given[row.tokens[:-1], row.tokens[1:]])
        bigram.append(bits)
        unigram.append(-np.log2(shares[row.tokens]))
    return Surprise(bigram, unigram, starts)


def _parted(rows: Sequence[TokenRow], share: float) -> list[int]:
    times = [row.close_time for row in rows if row.close_time is not None]
    if len(times) < len(rows) or not rows:
        return [int(len(row) * share) for row in rows]
    every = np.sort(np.concatenate(times))
    if not len(every):
        return [0] * len(rows)
    cut = every[min(int(len(every) * share), len(every) - 1)]
    return [int(np.searchsorted(when, cut, "left")) for when in times]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A token that nobody expected."""

    symbol: str
    row: int  # which row of tokens
    index: int  # in that row
    close_time_ns: int | None
    before: int  # the token before it
    token: int
    bits: float
    z: float | None  # return of its bar in scales


def outliers(rows: Sequence[TokenRow], found: Surprise, top: int) -> list[Outlier]:
    """The most surprising tokens among those that the model had not seen, the most surprising first."""
    candidates = []
    for r, (bits, start) in enumerate(zip(found.bigram, found.judged_from, strict=True)):
        first = max(start, 1)
        order = np.argsort(-bits[first:], kind="stable")[:top] + first
        candidates += [(-float(bits[i]), r, int(i)) for i in order]
    made = []
    for minus_bits, r, i in sorted(candidates)[:top]:
        row = rows[r]
        made.append(
            Outlier(
                symbol=row.symbol,
                row=r,
                index=i,
                close_time_ns=None if row.close_time is None else int(row.close_time[i]),
                before=int(row.tokens[i - 1]),
                token=int(row.tokens[i]),
                bits=-minus_bits,
                z=None if row.z is None else float(row.z[i]),
            )
        )
    return made


@dataclass(frozen=True, slots=True)
class CodeReturns:
    """What each code means for prices. Returns in scales; NaN where a code was not seen."""

    quantiles: Floats  # (V, 5) of the bar's own return, at 5, 25, 50, 75 and 95 %
    mean: Floats  # (V,)
    size: Floats  # (V,) root mean square: the bar's own volatility
    next_mean: Floats  # (V,) of the bar after it
    next_error: Floats  # (V,) standard error of that mean
    next_size: Floats  # (V,) root mean square of the bar after it
    count: Ints  # (V,) bars
    next_count: Ints  # (V,) bars with a bar after them


def code_returns(rows: Sequence[TokenRow], vocabulary: int) -> CodeReturns:
    """The return of each code's bars, and of the bars that came after them.

    Raises:
        ValueError: a row comes without returns.
    """
    if any(row.z is None for row in rows):
        raise ValueError("want the returns of every row")
    own = [(row.tokens, row.z) for row in rows if row.z is not None]
    following = [(tokens[:-1], z[1:]) for tokens, z in own]
    quantiles = np.full((vocabulary, len(_LEVELS)), np.nan)
    mean, size, next_mean, next_error, next_size = (np.full(vocabulary, np.nan) for _ in range(5))
    groups, next_groups = (_grouped(pairs, vocabulary) for pairs in (own, following))
    for code, (mine, after) in enumerate(zip(groups, next_groups, strict=True)):
        if len(mine):
            quantiles[code] = np.quantile(mine, _LEVELS)
            mean[code], size[code] = mine.mean(), np.sqrt(np.square(mine).mean())
        if len(after) > 1:
            next_mean[code], next_size[code] = after.mean(), np.sqrt(np.square(after).mean())
            next_error[code] = after.std(ddof=1) / np.sqrt(len(after))
    counts, next_counts = (np.array([len(group) for group in part], np.int64) for part in (groups, next_groups))
    return CodeReturns(quantiles, mean, size, next_mean, next_error, next_size, counts, next_counts)


def _grouped(pairs: list[tuple[Ints, Floats]], vocabulary: int) -> list[Floats]:
    tokens = np.concatenate([tokens for tokens, _ in pairs]) if pairs else np.empty(0, np.int64)
    values = np.concatenate([values for _, values in pairs]) if pairs else np.empty(0)
    order = np.argsort(tokens, kind="stable")
    borders = np.searchsorted(tokens[order], np.arange(1, vocabulary))
    return np.split(values[order], borders)


def _joined(rows: Sequence[TokenRow]) -> Ints:
    return np.concatenate([row.tokens for row in rows]) if rows else np.empty(0, np.int64)
