"""The report of a model as plain data: what model.json holds."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evaluation.bootstrap import DAYS_MIN, REPLICATIONS, SEED, edge
from evaluation.direction import DIRECTION_DEFINITIONS
from evaluation.document import figure_values
from evaluation.figures import Figure
from evaluation.judge import FLOOR, RETURN_DEFINITIONS
from evaluation.model_figures import (
    FORECASTS,
    VOLATILITIES,
    VOLATILITY_DEFINITIONS,
    ReturnPart,
    SymbolRow,
    TokenPart,
)
from evaluation.ranks import RANK_DEFINITIONS
from evaluation.token_figures import TOKEN_DEFINITIONS
from evaluation.tracks import Size, Window

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Which model was judged, and what it has seen."""

    name: str  # of its folder
    digest: str
    code: str  # version that wrote it
    model: dict[str, Any]  # its config
    tokenizer: dict[str, Any]  # its config
    training_start: datetime
    training_end: datetime
    guard_end: datetime  # no decision up to here is out of sample
    symbols: tuple[str, ...]
    bar_s: float
    trials: int
    seed: int
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Bars of one symbol that were judged."""

    symbol: str
    bars: int
    first: datetime  # close
    last: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """Everything that is said of a model."""

    title: str
    checkpoint: Checkpoint
    window: Window
    data_sha256: str
    judged: tuple[Judgement, ...]
    size: Size
    tokens: TokenPart
    returns: ReturnPart | None  # None: only tokens were judged
    overfitting: Figure  # over the checkpoints of a sweep
    sweep: tuple[str, ...]  # their folders


def plain(report: ModelReport) -> dict[str, Any]:
    """The report as JSON-ready data: finite numbers, strings, booleans, None, lists and dicts in a fixed order."""
    checkpoint = report.checkpoint
    return {
        "schema": SCHEMA,
        "title": report.title,
        "in_sample": report.window.in_sample,
        "checkpoint": {
            "name": checkpoint.name,
            "digest": checkpoint.digest,
            "code": checkpoint.code,
            "model": checkpoint.model,
            "tokenizer": checkpoint.tokenizer,
            "training": {
                "start": _stamp(checkpoint.training_start),
                "end": _stamp(checkpoint.training_end),
                "embargo_end": _stamp(checkpoint.guard_end),
                "symbols": list(checkpoint.symbols),
                "bar_s": checkpoint.bar_s,
                "trials": checkpoint.trials,
                "seed": checkpoint.seed,
                "licence": checkpoint.licence,
            },
        },
        "size": {
            "parameters": report.size.parameters,
            "weights_bytes": report.size.weights_bytes,
            "context": report.size.context,
            "multiply_adds_per_token": report.size.multiply_adds,
            "cache_bytes_per_symbol": report.size.cache_bytes,
        },
        "data_sha256": report.data_sha256,
        "decisions": {"start": _stamp(report.window.start), "end": _stamp(report.window.end)},
        "judged": [
            {"symbol": one.symbol, "bars": one.bars, "first": _stamp(one.first), "last": _stamp(one.last)}
            for one in report.judged
        ],
        "tokens": _tokens(report.tokens),
        "returns": None if report.returns is None else _returns(report.returns),
        "overfitting": figure_values(report.overfitting) | {"sweep": list(report.sweep)},
        "method": {
            "intervals": {
                "kind": "stationary bootstrap of UTC days, all symbols of a day together, percentile interval, 95 %",
                "replications": REPLICATIONS,
                "seed": SEED,
                "days_min": DAYS_MIN,
            },
            "floor": FLOOR,
        },
        "definitions": {
            "tokens": TOKEN_DEFINITIONS,
            "returns": RETURN_DEFINITIONS,
            "volatility": VOLATILITY_DEFINITIONS,
            "direction": DIRECTION_DEFINITIONS,
            "ranks": RANK_DEFINITIONS,
        },
    }


def _tokens(part: TokenPart) -> dict[str, Any]:
    return {
        "vocabulary": part.vocabulary,
        "tokens": part.tokens,
        "training_tokens": part.training_tokens,
        "code_perplexity": part.code_perplexity,
        "models": {row.name: row.figures | {"bits_saved_by_model": _gain(row.gain)} for row in part.rows},
    }


def _returns(part: ReturnPart) -> dict[str, Any]:
    found = part.direction
    ranks = part.ranks
    return {
        "bars": part.bars,
        "bins": part.bins,
        "strongest_baseline": part.strongest,
        "forecasts": {
            row.name: {"label": FORECASTS[row.name]}
            | row.figures
            | {"pit_histogram": [float(x) for x in row.histogram]}
            | {"saved_by_model": {loss: _gain(gain) for loss, gain in row.gains.items()}}
            for row in part.rows
        },
        "volatility": {
            row.name: {
                "label": VOLATILITIES[row.name],
                "qlike": row.qlike,
                "range_qlike": row.range_qlike,
                "ratio": row.ratio,
                "saved_by_model": _gain(row.gain),
                "range_saved_by_model": _gain(row.range_gain),
            }
            for row in part.volatility
        },
        "direction": {
            "bars": found.bars,
            "log_loss": figure_values(found.log_loss),
            "coin": _gain(found.coin),
            "base_rate": _gain(found.base_rate),
            "sign_before": _gain(found.sign_before),
            "accuracy": figure_values(found.accuracy),
            "majority": found.majority,
            "above_majority": _gain(found.above_majority),
        },
        "ranks": {
            "instants": ranks.instants,
            "symbols": ranks.symbols,
            "lags": ranks.lags,
            "ic": _gain(ranks.ic),
            "ic_t": figure_values(ranks.ic_t),
            "rank_ic": _gain(ranks.rank_ic),
            "rank_ic_t": figure_values(ranks.rank_ic_t),
        },
        "symbols": [_symbol(row) for row in part.symbols],
        "left_out": dict(part.left_out),
    }


def _symbol(row: SymbolRow) -> dict[str, Any]:
    return {
        "symbol": row.symbol,
        "bars": row.bars,
        "bits": row.bits,
        "bits_saved": _gain(row.gain),
        "crps_saved": _gain(row.crps_gain),
        "coverage_90": row.coverage_90,
        "fitted": row.fitted,
    }


def _gain(figure: Figure | None) -> dict[str, Any] | None:
    """A difference, with what it says."""
    if figure is None:
        return None
    return figure_values(figure) | {"verdict": None if figure.value is None else edge(figure)}


def _stamp(time: datetime) -> str:
    return time.isoformat() + "Z"
