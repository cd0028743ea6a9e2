"""How good a head is on rows it has not seen, beside saying nothing and beside counting words."""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.advisor.lexicon import counts
from trainer.advisor_data import Labelled
from trainer.advisor_fit import CLASSES, Floats, Ints

_REPLICATIONS = 1_000
_BINS = 10
_TOP_SHARE = 0.2  # emitted, at which precisions are compared

Judge = Callable[[Floats, Ints], float]


def accuracy(chances: Floats, labels: Ints) -> float:
    return float((chances.argmax(axis=1) == labels).mean())


def macro_f1(chances: Floats, labels: Ints) -> float:
    """The mean of the three classes' F1; of a class that neither side has, 0."""
    said = chances.argmax(axis=1)
    both = [2.0 * ((said == k) & (labels == k)).sum() for k in range(CLASSES)]
    sizes = [(said == k).sum() + (labels == k).sum() for k in range(CLASSES)]
    return float(np.mean([b / max(1, n) for b, n in zip(both, sizes, strict=True)]))


def calibration_error(chances: Floats, labels: Ints) -> float:
    """Expected calibration error of the likeliest class, over ten bins of equally many rows."""
    top = chances.max(axis=1)
    right = chances.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(top, kind="stable"), _BINS)
    return float(sum(abs(top[rows].mean() - right[rows].mean()) * len(rows) for rows in bins if len(rows)) / len(top))


def precision_at_share(chances: Floats, labels: Ints) -> float:
    """Right directions among the fifth of the rows whose direction is most probable."""
    side = np.maximum(chances[:, 0], chances[:, 2])
    rows = np.argsort(-side, kind="stable")[: max(1, int(_TOP_SHARE * len(side)))]
    return float((_direction(chances[rows]) == labels[rows]).mean())


def precision_over(threshold: float) -> Judge:
    def judge(chances: Floats, labels: Ints) -> float:
        rows = np.maximum(chances[:, 0], chances[:, 2]) >= threshold
        return float((_direction(chances[rows]) == labels[rows]).mean()) if rows.any() else 0.0

    return judge


def emitted_over(threshold: float) -> Judge:
    return lambda chances, labels: float((np.maximum(chances[:, 0], chances[:, 2]) >= threshold).mean())


def _direction(chances: Floats) -> Ints:
    return np.where(chances[:, 2] > chances[:, 0], 2, 0)


def figures(chances: Floats, rows: Labelled, threshold: float, seed: int, prefix: str) -> dict[str, dict[str, Any]]:
    """Figures with 95 % intervals, each beside always HOLD and the lexicon, as a manifest wants them.

    Whole groups of rows that are alike are drawn again: they are one headline written twice.

    Args:
        chances: (N, 3) of the head.
        prefix: of the names, such as "test".
    """
    flat = np.tile([0.0, 1.0, 0.0], (len(rows.labels), 1))
    words = _lexicon(rows.texts)
    judges: dict[str, Judge] = {
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "calibration_error": calibration_error,
        "precision_at_20_percent": precision_at_share,
        "precision_of_emitted": precision_over(threshold),
        "emitted": emitted_over(threshold),
    }
    draws = _draws(rows.groups, np.random.default_rng(seed))
    found: dict[str, dict[str, Any]] = {}
    for name, judge in judges.items():
        spread = [judge(chances[row], rows.labels[row]) for row in draws]
        low, high = np.quantile(spread, [0.025, 0.975])
        lexicon = precision_over(0.5) if name == "precision_of_emitted" else judge
        lexicon = emitted_over(0.5) if name == "emitted" else lexicon
        found[f"{prefix}_{name}"] = {
            "value": judge(chances, rows.labels),
            "interval_95": [float(low), float(high)],
            "baselines": {"always_hold": judge(flat, rows.labels), "lexicon": lexicon(words, rows.labels)},
            "rows": len(rows.labels),
            "groups": len(np.unique(rows.groups)),
        }
    for name in ("precision_at_20_percent", "precision_of_emitted"):  # who emits nothing has no precision
        by_chance = max(float((rows.labels == 0).mean()), float((rows.labels == 2).mean()))
        baselines = found[f"{prefix}_{name}"]["baselines"]
        del baselines["always_hold"]
        baselines["one_direction_always"] = by_chance
    return found


def lines_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """Figures that have an interval, a line each, for a person."""
    lines = []
    for name, figure in found.items():
        if "interval_95" in figure:
            low, high = figure["interval_95"]
            beside = ", ".join(f"{key} {value:.3f}" for key, value in figure["baselines"].items())
            lines.append(f"{name:36} {figure['value']:.3f} [{low:.3f}, {high:.3f}]  ({beside})")
    return lines


def _draws(groups: Ints, chance: np.random.Generator) -> list[Ints]:
    names, first = np.unique(groups, return_index=True)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.searchsorted(groups[order], names[1:]))
    picks = chance.integers(0, len(first), (_REPLICATIONS, len(first)))
    return [np.concatenate([members[i] for i in pick]) for pick in picks]


def _lexicon(texts: list[str]) -> Floats:
    counted = np.array([counts(text) for text in texts], np.float64)  # (N, 2) falling, rising
    found = np.column_stack([0.25 + counted[:, 0], np.ones(len(texts)), 0.25 + counted[:, 1]])
    return found / found.sum(axis=1, keepdims=True)
