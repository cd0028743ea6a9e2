"""How good answers about headlines are: the figures, their intervals, and a picture of how much a probability is worth.

An answer is a class and a direction with a strength, so that who gives probabilities and who only counts words are
judged alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt

from trainer.advisor_figures import accuracy, calibration_error, macro_f1

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLASSES = 3
DOWN, FLAT, UP = range(CLASSES)
REPLICATIONS = 1_000
BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What someone says of N headlines.

    Attributes:
        said: (N,) the class, DOWN, FLAT or UP.
        way: (N,) the likelier direction, DOWN or UP, also where FLAT is said.
        side: (N,) how much speaks for it, on any scale that rises.
        emits: (N,) whether it is told; else HOLD.
        chances: (N, 3) probabilities; None where there are none.
    """

    said: Ints
    way: Ints
    side: Floats
    emits: npt.NDArray[np.bool_]
    chances: Floats | None = None

    def at(self, rows: Ints) -> "Answers":
        chances = None if self.chances is None else self.chances[rows]
        return Answers(self.said[rows], self.way[rows], self.side[rows], self.emits[rows], chances)


def by_chances(chances: Floats, threshold: float) -> Answers:
    """Answers of probabilities (N, 3): a direction is told where its probability reaches the threshold."""
    side = np.maximum(chances[:, DOWN], chances[:, UP])
    way = np.where(chances[:, UP] > chances[:, DOWN], UP, DOWN)
    emits = (side >= threshold) & (chances[:, UP] != chances[:, DOWN])
    return Answers(chances.argmax(axis=1), way, side, emits, chances)


def by_score(score: Floats, least: float) -> Answers:
    """Answers of a score (N,) that is positive for UP, and says something from `least` on."""
    emits = np.abs(score) >= least
    way = np.where(score > 0.0, UP, DOWN)
    return Answers(np.where(emits, way, FLAT), way, np.abs(score), emits)


# --- figures ----------------------------------------------------------------------------------------------------------

Judge = Callable[[Answers, Ints], float]


def emitted(answers: Answers, labels: Ints) -> float:
    return float(answers.emits.mean())


def precision(answers: Answers, labels: Ints) -> float:
    """Right directions among those told; no number where none is."""
    if not answers.emits.any():
        return np.nan
    return float((answers.way == labels)[answers.emits].mean())


def opposite(answers: Answers, labels: Ints) -> float:
    """Opposite directions among those told."""
    if not answers.emits.any():
        return np.nan
    return float((answers.way + labels == DOWN + UP)[answers.emits].mean())


def precision_at(share: float) -> Judge:
    """Right directions among the share of the rows for which most speaks; of rows alike at its end, their mean.

    No number where less than that share has anything said of it.
    """

    def judge(answers: Answers, labels: Ints) -> float:
        count = max(1, round(share * len(labels)))
        last = np.partition(answers.side, -count)[-count]
        if last <= 0.0:
            return np.nan
        right = answers.way == labels
        over, alike = answers.side > last, answers.side == last
        return float((right[over].sum() + (count - over.sum()) * right[alike].mean()) / count)

    return judge


def weighted_f1(answers: Answers, labels: Ints) -> float:
    """The mean of the classes' F1, each by its share of the rows, as FinGPT tells it."""
    found = 0.0
    for k in range(CLASSES):
        both = ((answers.said == k) & (labels == k)).sum()
        found += (labels == k).mean() * 2.0 * both / max(1, (answers.said == k).sum() + (labels == k).sum())
    return float(found)


def _one_hot(judge: Callable[[Floats, Ints], float]) -> Judge:
    return lambda answers, labels: judge(np.eye(CLASSES)[answers.said], labels)


def _calibration(answers: Answers, labels: Ints) -> float:
    if answers.chances is None:
        return np.nan
    rows = np.random.default_rng(0).permutation(len(labels))  # files are sorted by label: rows alike must not stay so
    return calibration_error(answers.chances[rows], labels[rows])


FIGURES: Mapping[str, Judge] = {
    "accuracy": _one_hot(accuracy),
    "macro-F1": _one_hot(macro_f1),
    "weighted F1": weighted_f1,
    "emitted": emitted,
    "precision": precision,
    "opposite": opposite,
    "precision at 20 %": precision_at(0.2),
    "precision at 10 %": precision_at(0.1),
    "ECE": _calibration,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval; no numbers where it does not exist."""

    value: float
    low: float
    high: float

    def text(self, *, interval: bool = True) -> str:
        if np.isnan(self.value):
            return ""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]" if interval else f"{self.value:.3f}"


def judged(answers: Answers, labels: Ints, groups: Ints, seed: int = 0) -> dict[str, Figure]:
    """All figures. Intervals by bootstrap: whole groups of rows that are alike are drawn again."""
    draws = drawn(groups, seed)
    found = {}
    for name, judge in FIGURES.items():
        value = judge(answers, labels)
        spread = [np.nan] if np.isnan(value) else [judge(answers.at(rows), labels[rows]) for rows in draws]
        spread = [one for one in spread if not np.isnan(one)] or [np.nan]
        low, high = np.quantile(spread, [0.025, 0.975])
        found[name] = Figure(value, float(low), float(high))
    return found


def drawn(groups: Ints, seed: int) -> list[Ints]:
    """Rows of REPLICATIONS samples of as many groups as there are, with replacement."""
    names, counts = np.unique(groups, return_counts=True)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(counts)[:-1])
    picks = np.random.default_rng(seed).integers(0, len(names), (REPLICATIONS, len(names)))
    return [np.concatenate([members[i] for i in pick]) for pick in picks]


# --- reliability ------------------------------------------------------------------------------------------------------


def reliability(chances: Floats, labels: Ints) -> tuple[Floats, Floats, Floats]:
    """Mean probability of the likeliest class, how often it was right, and the standard error of that, by bin (B,).

    Bins hold equally many rows, as those of the calibration error do.
    """
    top, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(top, kind="stable"), BINS)
    told = np.array([top[rows].mean() for rows in bins])
    came = np.array([right[rows].mean() for rows in bins])
    counts = np.array([len(rows) for rows in bins])
    return told, came, np.sqrt(came * (1.0 - came) / counts)


def draw_reliability(panels: Mapping[str, Mapping[str, tuple[Any, Ints]]], path: Path) -> None:
    """A panel for each set: how often the likeliest class was right, over how probable it was called.

    Args:
        panels: title -> name -> (chances (N, 3), labels (N,)).
    """
    mpl.use("Agg")
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 5.0), sharey=True, squeeze=False)
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        axis.plot([0.3, 1.0], [0.3, 1.0], color="0.6", linewidth=1.0, linestyle="--", label="as often as told")
        for (name, (chances, labels)), mark in zip(curves.items(), "osD^v", strict=False):
            told, came, error = reliability(chances, labels)
            axis.errorbar(
                told, came, yerr=1.96 * error, marker=mark, markersize=5, capsize=2, linewidth=1.2, label=name
            )
        axis.set(title=title, xlabel="probability of the likeliest class", xlim=(0.3, 1.02), ylim=(0.3, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", frameon=False)
    axes[0][0].set_ylabel("how often it was right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
