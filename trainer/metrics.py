"""What a checkpoint says of itself: each figure beside those of its baselines, and how sure the difference is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from evaluation.bootstrap import day_bootstrap, edge
from evaluation.token_figures import TokenScores, bigram, code_perplexity, score, score_bigram, score_unigram, unigram
from models.manifest import Training
from tokenizer.bars import BarSeries
from tokenizer.codec import Codec
from tokenizer.features import features
from trainer.data import TokenSeries, moment, nanoseconds
from trainer.splits import Part, Ranges
from trainer.windows import IGNORED, Windows

Ints = npt.NDArray[np.int64]
Metrics = dict[str, dict[str, Any]]

BATCH = 32  # windows computed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Figures of one part of the data, and the sentence that says them."""

    metrics: Metrics
    bits: float
    line: str


def judge(
    model: nn.Module, windows: Windows, series: Sequence[TokenSeries], seen: Sequence[Ints], vocabulary: int, name: str
) -> Judged:
    """Score a model on a part, beside the unigram and the bigram of training tokens.

    Each decision is judged once; a window gives it half a context of history or more where the series has it.

    Args:
        model: gives logits (B, T, V) of tokens, hours and symbols.
        windows: the part's decisions.
        seen: what the baselines count, see `seen_before`.
        name: of the part; figures are called `<name>_bits` and so on.
    """
    ours = _foretold(model, windows)
    before, tokens, times = _targets(windows, series)
    scores = {
        "model": score(ours, tokens),
        "unigram": score_unigram(unigram(seen, vocabulary), tokens),
        "bigram": score_bigram(bigram(seen, vocabulary), before, tokens),
    }
    figures = {who: found.figures() for who, found in scores.items()}
    metrics: Metrics = {
        f"{name}_{key}": {
            "value": figures["model"][key],
            "baselines": {who: figures[who][key] for who in ("unigram", "bigram")},
            "tokens": len(tokens),
        }
        for key in ("bits", "accuracy", "top_5")
    }
    gain, said = _gain(scores, times)
    metrics[f"{name}_bits"] |= gain | _span(times)
    metrics[f"{name}_code_perplexity"] = {
        "value": code_perplexity(tokens, vocabulary),
        "baselines": {"all_codes_alike": float(vocabulary)},
    }
    ours_bits, one, two = (figures[who]["bits"] for who in ("model", "unigram", "bigram"))
    line = f"{name}: {ours_bits:.4f} bits a token; unigram {one:.4f}, bigram {two:.4f}{said}; {len(tokens):,} tokens"
    return Judged(metrics=metrics, bits=ours_bits, line=line)


def seen_before(part: str, series: Sequence[TokenSeries], train: Ranges, training: Training) -> list[Ints]:
    """The tokens that unigram and bigram are counted on, to be judged on a part.

    The test follows the whole training window, so they count all tokens of it, of all symbols, validation and what lies
    before it included, as `evaluation.subject.training_tokens` does: a counter needs no bars held back to know when to
    stop. Validation lies in the window, so there they count the tokens of the training decisions alone.
    """
    if part != "test" or training.start is None or training.end is None:
        return [one.tokens[first : last + 1] for one, (first, last) in zip(series, train, strict=True) if last > first]
    start, end = nanoseconds(training.start), nanoseconds(training.end)
    return [one.tokens[(one.time >= start) & (one.time <= end)] for one in series if one.time is not None]


def reconstruction(codec: Codec, series: Mapping[str, BarSeries], part: Part, name: str) -> Metrics:
    """How well the codes tell the bars of a part: mean squared error over standardised features, beside that of one
    code alone, the training mean."""
    start, end = (nanoseconds(when) for when in part)
    errors, plain = [], []
    for bars in series.values():
        error = codec.distortion(bars)
        known = ~np.isnan(error) & (bars.close_time >= start) & (bars.close_time < end)
        errors.append(error[known])
        x = (features(bars, codec.config.features).x[known] - codec.mean) / codec.std  # (n, F)
        plain.append(np.square(x).mean(axis=1))
    if not sum(map(len, errors)):
        return {}
    value, alone = float(np.concatenate(errors).mean()), float(np.concatenate(plain).mean())
    return {f"{name}_mse": {"value": value, "baselines": {"training_mean": alone}}}


def usage(codec: Codec) -> Metrics:
    """How many codes the training bars used, as the perplexity of their tokens."""
    return {"code_perplexity": {"value": codec.perplexity, "baselines": {"all_codes_alike": float(codec.codes)}}}


def _foretold(model: nn.Module, windows: Windows) -> npt.NDArray[np.float32]:
    """The distribution of each judged token, in the order of `Windows.rows`. (N, V)"""
    model.eval()
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for batch in windows.batches(BATCH):
            moved = batch.to(device)
            logits = model(moved.tokens, moved.hours, moved.symbols)  # (B, T, V)
            found.append(logits[moved.targets != IGNORED].float().softmax(-1).cpu().numpy())
    return np.concatenate(found)


def _targets(windows: Windows, series: Sequence[TokenSeries]) -> tuple[Ints, Ints, Ints | None]:
    """The token before, the judged token and its time, of each row of `_foretold`."""
    rows = windows.rows()
    before = np.concatenate([series[one].tokens[first:last] for one, first, last in rows])
    tokens = np.concatenate([series[one].tokens[first + 1 : last + 1] for one, first, last in rows])
    times = [time[first + 1 : last + 1] for one, first, last in rows if (time := series[one].time) is not None]
    return before, tokens, np.concatenate(times) if len(times) == len(rows) else None


def _gain(scores: dict[str, TokenScores], times: Ints | None) -> tuple[dict[str, Any], str]:
    """The bits that the model saves over the bigram, with an interval where days are known; and in words."""
    saved = scores["bigram"].bits - scores["model"].bits
    if times is None:
        return {"gain_over_bigram": float(saved.mean())}, ""
    figure = day_bootstrap(saved, times)
    interval = None if figure.interval is None else list(figure.interval)
    gain = {"gain_over_bigram": figure.value, "interval_95": interval, "verdict": edge(figure)}
    if figure.interval is None:
        return gain, ""
    low, high = figure.interval
    return gain, f", saved {float(saved.mean()):.4f} [{low:.4f}, {high:.4f}] ({edge(figure)})"


def _span(times: Ints | None) -> dict[str, str]:
    if times is None:
        return {}
    return {"first": moment(int(times.min())).isoformat(), "last": moment(int(times.max())).isoformat()}
