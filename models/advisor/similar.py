"""Which headlines are the same news: alike to the letter, or nearly so and of one mind."""

import hashlib
import re
import zlib
from itertools import pairwise

from models.advisor.guard import fold
from models.advisor.lexicon import counts

_WORD = re.compile(r"\w+")
_SIGN = re.compile(r"(?<![\w+-])[+-](?=[$€£¥]?\.?\d)")  # of a figure; not a dash, nor a range
_MINUS = str.maketrans("−–", "--")


def fingerprint(text: str) -> str:
    """A hash of a headline's words, 32 hexadecimal digits: case, accents and punctuation do not count, signs do."""
    words = " ".join(_WORD.findall(fold(text)))
    return hashlib.sha256(f"{words}{''.join(_signs(text))}".encode()).hexdigest()[:32]


def stance(text: str) -> tuple[int, int]:
    """How many words and signs of figures say falling, and how many rising.

    Headlines that differ in it are not the same news, however many words they share: of thirteen words "beats" and
    "misses" are one.
    """
    falling, rising = counts(text)
    signs = _signs(text)
    return falling + signs.count("-"), rising + signs.count("+")


def shingles(text: str) -> frozenset[int]:
    """Hashes of its pairs of neighbouring words; of the one word, where there is only one. Signs do not count."""
    words = _WORD.findall(fold(text))
    pairs = [f"{first} {second}" for first, second in pairwise(words)] or words
    return frozenset(zlib.crc32(pair.encode()) for pair in pairs)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Shared over all; 1.0 for two empty sets.

    Source: Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
    """
    both = len(one & other)
    return both / union if (union := len(one) + len(other) - both) else 1.0


def _signs(text: str) -> list[str]:
    return _SIGN.findall(text.translate(_MINUS))
