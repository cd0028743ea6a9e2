"""Which headlines are the same news: alike to the letter, or nearly so."""

import hashlib
import re
import zlib
from itertools import pairwise

from models.advisor.guard import fold

_WORD = re.compile(r"\w+")


def fingerprint(text: str) -> str:
    """A hash of a headline's words, 32 hexadecimal digits: case, accents and punctuation do not count."""
    return hashlib.sha256(" ".join(_WORD.findall(fold(text))).encode()).hexdigest()[:32]


def shingles(text: str) -> frozenset[int]:
    """Hashes of its pairs of neighbouring words; of the one word, where there is only one."""
    words = _WORD.findall(fold(text))
    pairs = [f"{first} {second}" for first, second in pairwise(words)] or words
    return frozenset(zlib.crc32(pair.encode("utf-8", "replace")) for pair in pairs)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Shared over all; 1.0 for two empty sets.

    Source: Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
    """
    both = len(one & other)
    return both / union if (union := len(one) + len(other) - both) else 1.0
