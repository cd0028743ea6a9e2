"""Labelled headlines: read, grouped by likeness, and parted so that no two that are alike stand on both sides."""

import csv
import gzip
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feeds.errors import DataError
from models.advisor.ngrams import alike
from models.advisor.similar import jaccard, shingles
from models.advisor.text import clean

Ints = npt.NDArray[np.int64]

_BYTES_MAX = 256 << 20
_CLASS_OF_LABEL = {"0": 0, "1": 2, "2": 1}  # the file's bearish, bullish, neutral as down, up, flat
_CLASS_OF_WORD = {"negative": 0, "neutral": 1, "positive": 2}
_COMMON_MAX = 300  # rows that share a shingle: one that more share tells nobody apart


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Headlines, cleaned, and what people said of them.

    Attributes:
        texts: N of them.
        labels: (N,) 0 down, 1 flat, 2 up.
        groups: (N,) the same number for rows that are alike.
    """

    texts: list[str]
    labels: Ints
    groups: Ints

    def at(self, rows: Ints) -> "Labelled":
        return Labelled([self.texts[row] for row in rows], self.labels[rows], self.groups[rows])

    def digest(self) -> str:
        """SHA-256 of the rows as JSON, one [text, label] a line."""
        lines = (json.dumps([text, int(label)]) for text, label in zip(self.texts, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_labelled(path: str | Path, likeness: float) -> Labelled:
    """Rows of a CSV file with the columns text and label (0 bearish, 1 bullish, 2 neutral).

    Raises:
        DataError: the file is missing or not like that; names file and line.
    """
    texts, labels = [], []
    try:
        reader = csv.DictReader(io.StringIO(_read(path)))
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: wanted the columns text and label; found {reader.fieldnames}")
        for row in reader:
            if row["label"] not in _CLASS_OF_LABEL:
                raise DataError(f"{path}:{reader.line_num}: wanted a label 0, 1 or 2; it is {row['label']!r}")
            texts.append(clean(row["text"]).text)
            labels.append(_CLASS_OF_LABEL[row["label"]])
    except csv.Error as exc:
        raise DataError(f"{path}: wanted CSV; {exc}") from None
    return _checked(path, texts, labels, likeness)


def load_sentences(path: str | Path, likeness: float) -> Labelled:
    """Lines of sentence@label, the label negative, neutral or positive.

    Raises:
        DataError: as `load_labelled`.
    """
    texts, labels = [], []
    for number, line in enumerate(_read(path).splitlines(), 1):
        sentence, _, label = line.rpartition("@")
        if label.strip() not in _CLASS_OF_WORD:
            raise DataError(f"{path}:{number}: wanted sentence@negative, @neutral or @positive; it is {line[-40:]!r}")
        texts.append(clean(sentence).text)
        labels.append(_CLASS_OF_WORD[label.strip()])
    return _checked(path, texts, labels, likeness)


def _checked(path: str | Path, texts: list[str], labels: list[int], likeness: float) -> Labelled:
    if missing := {0, 1, 2} - set(labels):
        raise DataError(f"{path}: wanted rows of all three labels; none is {sorted(missing)}")
    return Labelled(texts, np.array(labels, np.int64), grouped(texts, likeness))


def _read(path: str | Path) -> str:
    try:
        with gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb") as file:
            data = file.read(_BYTES_MAX + 1)
        if len(data) > _BYTES_MAX:
            raise DataError(f"{path}: wanted at most {_BYTES_MAX:,} bytes; there are more")
        return data.decode("utf-8-sig")
    except (OSError, EOFError) as exc:
        raise DataError(f"{path}: wanted labelled headlines; {getattr(exc, 'strerror', None) or exc}") from None
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: wanted UTF-8; {exc}") from None


def grouped(texts: Sequence[str], likeness: float) -> Ints:
    """Numbers of groups, (N,): rows whose pairs of words are alike from `likeness` on, and rows alike to those."""
    sets = [shingles(alike(text)) for text in texts]
    rows_of: dict[int, list[int]] = defaultdict(list)
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    same: dict[frozenset[int], int] = {}
    for row, own in enumerate(sets):
        shared: Counter[int] = Counter()
        for shingle in own:
            if len(rows_of[shingle]) < _COMMON_MAX:
                shared.update(rows_of[shingle])
                rows_of[shingle].append(row)
        for other, both in shared.items():
            if both >= likeness * max(len(own), len(sets[other])) * 0.5 and jaccard(own, sets[other]) >= likeness:
                parent[root(row)] = root(other)
        parent[root(row)] = root(same.setdefault(own, row))
    return np.unique([root(row) for row in range(len(texts))], return_inverse=True)[1].astype(np.int64)


def parted(groups: Ints, test_fraction: float, folds: int, seed: int) -> tuple[Ints, Ints]:
    """A fold of each row, (N,), -1 for the test part, and the number of each group's fold is drawn.

    Returns:
        Fold of each row, and the rows of the test part.
    """
    names = np.unique(groups)
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(names))
    fold_of = chance.integers(0, folds, len(names))
    fold_of[order[: round(test_fraction * len(names))]] = -1
    fold = fold_of[np.searchsorted(names, groups)]
    return fold, np.flatnonzero(fold < 0)
