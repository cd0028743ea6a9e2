"""A headline as the numbers of its n-grams: pieces of words, words and pairs of words, hashed into a fixed table.

Names and figures are made alike first ("+18%" and "+7%" are one word), so that what is learned is what is said and
not of whom. Everything is integer arithmetic modulo 2**64: the same on every machine.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

CHARS_MAX = 512  # of a text; what stands behind them is not read

_URL = re.compile(r"(?:https?://|www\.)\S*|\bpic\.twitter\.com/\S*")
_TICKER = re.compile(r"\$[a-z][a-z.]{0,6}\b")
_FIGURE = re.compile(r"\d[\d.,]*")
_APART = re.compile(r"[^\w$%+\-'&]+")
_WORD = re.compile(r"\S+")

_BASE, _PAIR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)
_WORD_SALT = 64  # kinds of n-grams are told apart by their salt: pieces have their length
_POWERS = np.cumprod(np.full(CHARS_MAX + 3, _BASE, np.uint64), dtype=np.uint64)  # [i] is base ** (i + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramConfig:
    """Which n-grams, and how large the table is."""

    buckets_log2: int = 17
    piece_min: int = 2  # characters, word boundaries included
    piece_max: int = 5
    words_max: int = 2

    def __post_init__(self) -> None:
        if not 8 <= self.buckets_log2 <= 20:
            raise ValueError(f"buckets_log2 must lie in [8, 20], was {self.buckets_log2}")
        if not 1 <= self.piece_min <= self.piece_max <= 8:
            raise ValueError(f"want 1 <= piece_min <= piece_max <= 8, was {self.piece_min} and {self.piece_max}")
        if not 1 <= self.words_max <= 4:
            raise ValueError(f"words_max must lie in [1, 4], was {self.words_max}")

    @property
    def buckets(self) -> int:
        return 1 << self.buckets_log2


def alike(text: str) -> str:
    """The text in lower case, without addresses, its tickers and figures each made one sign, words between blanks."""
    text = _URL.sub(" ", text[:CHARS_MAX].lower()[:CHARS_MAX])
    text = _TICKER.sub("$t", text)
    text = _FIGURE.sub("0", text)
    return f" {_APART.sub(' ', text).strip()} "


def buckets(text: str, config: NgramConfig) -> tuple[Ints, Ints]:
    """Which buckets of the table a text is in: those of its pieces (P,) and those of its words (W,), each once."""
    text = alike(text)
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64) + np.uint64(1)  # (C,)
    pieces, rolling = [], codes
    for size in range(1, config.piece_max + 1):
        if size > 1:
            if len(rolling) < 2:
                break
            rolling = rolling[:-1] * _BASE + codes[size - 1 :]  # (C - size + 1,)
        if size >= config.piece_min:
            pieces.append(_places(rolling, size, config))
    return _once(pieces), _once(_word_places(text, codes, config))


def _word_places(text: str, codes: Words, config: NgramConfig) -> list[Ints]:
    spans = np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)  # (W, 2)
    if not len(spans):
        return []
    # One sum gives all prefixes; what is left of a word is sum of codes[i] * base ** (i - first), times one constant.
    first, last = spans[:, 0], spans[:, 1]
    scaled = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * _POWERS[: len(codes)], dtype=np.uint64)])
    word = (scaled[last] - scaled[first]) * _POWERS[CHARS_MAX + 2 - first]  # (W,), whatever place the word stands at
    found, joined = [_places(word, _WORD_SALT, config)], word
    for size in range(2, config.words_max + 1):
        if len(joined) < 2:
            break
        joined = joined[:-1] * _PAIR + word[size - 1 :]
        found.append(_places(joined, _WORD_SALT + size, config))
    return found


def _places(hashes: Words, salt: int, config: NgramConfig) -> Ints:
    x = hashes + np.uint64(salt * int(_PAIR) % 2**64)
    for factor in _MIX:
        x = (x ^ (x >> _SHIFT)) * factor
    return (x >> np.uint64(64 - config.buckets_log2)).astype(np.int64)


def _once(parts: list[Ints]) -> Ints:
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
