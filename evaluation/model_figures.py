"""All figures of a model over data, from what it foretold for each bar; the model itself is not known here.

Two kinds of metric, in two parts that are never mixed: how well the next token was foretold, among models of the same
tokens; and how well the next return was, among forecasts of returns, whatever they are made of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from evaluation.bootstrap import day_bootstrap, days_of
from evaluation.direction import Direction, direction, turning_forecast, turning_share
from evaluation.distributions import ROWS, Codes, Forecast, Mixture, Student
from evaluation.figures import Figure, absent
from evaluation.judge import MIDDLE, Bins, Judged, coverage, judge, pit_distance, pit_histogram
from evaluation.overfit import overfitting
from evaluation.ranks import RankFigures, information
from evaluation.run import Floats, Ints
from evaluation.token_figures import bigram, code_perplexity, score, score_bigram, score_unigram, unigram
from evaluation.tracks import Track
from evaluation.volatility import BASELINE_DEFINITIONS, BASELINES, baselines, qlike

MODEL = "model"
RECOMPUTED = "recomputed"  # the model, each token from a window of its own
MARGINAL_ENTRIES = 1_024  # quantiles that stand for all training returns
LOSSES = ("bits", "bits_plain", "crps")  # whose differences are told with intervals
FORECASTS = {
    MODEL: "Model",
    "bigram": "Bigram of codes",
    **BASELINES,
    "marginal": "Training returns",
}
FORECAST_DEFINITIONS: dict[str, str] = {
    MODEL: "The model's probabilities of the next code, mixed over the returns that the code had in training.",
    "bigram": "The bigram's probabilities in place of the model's.",
    **BASELINE_DEFINITIONS,
    "marginal": "All standardised training returns together, the same forecast for every bar.",
}
VOLATILITIES = {
    MODEL: "Model",
    "random_walk": "EWMA",
    "ewma_hour_t": "EWMA × hour of day",
    "garch_t": "GARCH(1,1)",
}
VOLATILITY_DEFINITIONS: dict[str, str] = {
    "qlike": "Mean of log v + r² / v, v the expected and r² the realised squared return in units of the lagged "
    "volatility (QLIKE, Patton 2011): least where v is the true variance. Below 1: more is known than the lag.",
    "range_qlike": "The same with a less noisy witness than r²: squared gap and squared log range over 4 log 2 "
    "(Parkinson 1980), scaled so that its mean over the training bars of the symbol is that of r².",
    "gain": "QLIKE of that forecast less the model's; above zero the model is better.",
    "ratio": "Mean of realised over expected variance; 1 is right on average.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One model of the tokens."""

    name: str
    figures: dict[str, float]  # by the keys of TOKEN_DEFINITIONS
    gain: Figure | None  # bits that the model saves over it; None for the model itself


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPart:
    """How well the next token was foretold."""

    vocabulary: int
    tokens: int
    training_tokens: int  # what unigram and bigram were counted on
    code_perplexity: float
    rows: tuple[TokenRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRow:
    """One forecast of returns."""

    name: str  # a key of FORECASTS
    figures: dict[str, float]  # by the keys of RETURN_DEFINITIONS
    gains: dict[str, Figure]  # by loss: what the model saves over it; {} for the model itself
    histogram: Floats  # of the probability integral transform


@dataclass(frozen=True, slots=True, kw_only=True)
class VolatilityRow:
    """One forecast of the squared return."""

    name: str  # a key of VOLATILITIES
    qlike: float
    range_qlike: float
    ratio: float
    gain: Figure | None
    range_gain: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolRow:
    """One symbol, the model against the baseline that was strongest over all symbols."""

    symbol: str
    bars: int
    bits: float
    gain: Figure  # bits saved
    crps_gain: Figure
    coverage_90: float
    fitted: dict[str, str]  # what each baseline's fit found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnPart:
    """How well the next return was foretold."""

    bars: int
    bins: int
    rows: tuple[ReturnRow, ...]  # the model first
    strongest: str  # the baseline that costs the fewest bits on the judged bars themselves
    volatility: tuple[VolatilityRow, ...]
    direction: Direction
    ranks: RankFigures
    symbols: tuple[SymbolRow, ...]
    left_out: tuple[tuple[str, str], ...]  # symbol, why
    days: Ints  # (D,) days since 1970
    saved: Floats  # (D,) bits saved over the strongest baseline, summed up to the end of each day


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """What is judged, all symbols one after another."""

    times: Ints  # (N,)
    came: Floats  # (N,) returns in units of the lagged volatility
    symbols: tuple[tuple[str, slice], ...]
    judged: dict[str, Judged]  # by forecast
    variance: dict[str, Floats]  # (N,) expected squared return, same unit squared
    ranged: Floats  # (N,) root of the squared return as gap and range witness it, same unit
    bins: int
    told: dict[str, dict[str, str]]  # by symbol, what each baseline's fit found
    left_out: tuple[tuple[str, str], ...]  # symbol, why
    training_up: float  # share of rising bars among those of training that moved
    turning: Floats  # (N,) the same after bars of the sign that the bar before had


def token_part(tracks: Sequence[Track], counted: Sequence[Ints], vocabulary: int) -> TokenPart:
    """Judge the tokens.

    Args:
        counted: training tokens that unigram and bigram count, a sequence each; see
            `evaluation.subject.training_tokens`.

    Raises:
        ValueError: no token is judged.
    """
    if not tracks:
        raise ValueError("want at least one judged bar, was none")
    tokens = np.concatenate([track.tokens[track.judged] for track in tracks])
    before = np.concatenate([_before(track)[track.judged] for track in tracks])
    times = np.concatenate([track.times[track.judged] for track in tracks])
    windows = [track.recomputed for track in tracks if track.recomputed is not None]
    again = np.concatenate(windows) if len(windows) == len(tracks) else None  # (N, V)
    scores = {
        MODEL: score(np.concatenate([track.probabilities for track in tracks]), tokens),
        **({} if again is None else {RECOMPUTED: score(again, tokens)}),
        "bigram": score_bigram(bigram(counted, vocabulary), before, tokens),
        "unigram": score_unigram(unigram(counted, vocabulary), tokens),
    }
    own = scores[MODEL]
    rows = [
        TokenRow(
            name=name,
            figures=found.figures(),
            gain=None if name == MODEL else day_bootstrap(found.bits - own.bits, times),
        )
        for name, found in scores.items()
    ]
    return TokenPart(
        vocabulary=vocabulary,
        tokens=len(tokens),
        training_tokens=int(sum((one >= 0).sum() for one in counted)),
        code_perplexity=code_perplexity(tokens, vocabulary),
        rows=tuple(rows),
    )


def return_part(
    tracks: Sequence[Track],
    table: npt.NDArray[np.floating],
    counted: Sequence[Ints],
    told: Callable[[str], None] = lambda words: None,
) -> ReturnPart:
    """Judge the returns.

    Args:
        table: (V, Q) sorted standardised training returns of each code.
        counted: training tokens that the bigram counts, as in `token_part`.
        told: hears what is done for which symbol, for progress.

    Raises:
        ValueError: no symbol has enough training bars to fit the baselines on.
    """
    bars = judge_bars(tracks, table, counted, told)
    model = bars.judged[MODEL]
    others = [name for name in bars.judged if name != MODEL]
    strongest = min(others, key=lambda name: float(bars.judged[name].bits.mean()))
    best = bars.judged[strongest]
    days, place = np.unique(days_of(bars.times), return_inverse=True)
    return ReturnPart(
        bars=len(bars.came),
        bins=bars.bins,
        rows=tuple(_return_row(bars, name) for name in FORECASTS if name in bars.judged),
        strongest=strongest,
        volatility=tuple(_volatility_row(bars, name) for name in VOLATILITIES),
        direction=direction(
            model.up, model.down, bars.came, bars.times, training_up=bars.training_up, turning=bars.turning
        ),
        ranks=information(model.mean, bars.came, bars.times),
        symbols=tuple(_symbol_row(bars, name, rows, best) for name, rows in bars.symbols),
        left_out=bars.left_out,
        days=days,
        saved=np.cumsum(np.bincount(place, weights=best.bits - model.bits)),
    )


def judge_bars(
    tracks: Sequence[Track],
    table: npt.NDArray[np.floating],
    counted: Sequence[Ints],
    told: Callable[[str], None] = lambda words: None,
) -> Bars:
    """Judge every forecast of every judged bar. Bins are fixed on the training returns of all symbols together.

    Raises:
        ValueError: no symbol has enough training bars to fit the baselines on.
    """
    kept, fits, left_out = [], {}, []
    for track in tracks:
        told(f"fitting the baselines of {track.symbol}")
        try:
            fits[track.symbol] = baselines(track.returns, track.times, track.training)
        except ValueError as exc:
            left_out.append((track.symbol, str(exc)))
            continue
        kept.append(track)
    if not kept:
        raise ValueError(f"no symbol can be judged: {'; '.join(f'{name}: {why}' for name, why in left_out) or 'none'}")
    units = [float(track.returns[track.training].std()) for track in kept]
    seen = np.concatenate([(t.returns / t.scale)[t.training & np.isfinite(t.scale)] for t in kept])
    plain = np.concatenate([t.returns[t.training] / unit for t, unit in zip(kept, units, strict=True)])
    moved = plain[plain != 0.0]
    codes, alike = Codes.from_table(table), Codes.from_table(_marginal(seen))
    pairs = bigram(counted, len(table))
    bins, plain_bins = Bins.of(seen), Bins.of(plain)
    judged: dict[str, list[Judged]] = {name: [] for name in FORECASTS}
    variance: dict[str, list[Floats]] = {name: [] for name in FORECASTS}
    places, first = [], 0
    for track, unit in zip(kept, units, strict=True):
        told(f"judging {track.symbol}")
        rows = track.judged
        scale = track.scale[rows]  # (m,)
        came = track.returns[rows] / scale
        forecasts: dict[str, Forecast] = {
            MODEL: Mixture(track.probabilities, codes),
            "bigram": Mixture(pairs[_before(track)[rows]], codes),
            "marginal": Mixture(np.ones((len(came), 1)), alike),
        }
        for one in fits[track.symbol]:
            forecasts[one.name] = Student(one.scale[rows] / scale, one.df, one.zero)
        for name, forecast in forecasts.items():
            judged[name].append(judge(forecast, came, bins=bins, plain_bins=plain_bins, plain_unit=unit / scale))
            variance[name].append(forecast.moments()[1])
        for one in fits[track.symbol]:
            variance[one.name][-1] = one.variance[rows] / np.square(scale)
        places.append((track.symbol, slice(first, first + len(came))))
        first += len(came)
    return Bars(
        times=np.concatenate([track.times[track.judged] for track in kept]),
        came=np.concatenate([(track.returns / track.scale)[track.judged] for track in kept]),
        symbols=tuple(places),
        ranged=np.concatenate([_ranged(track) for track in kept]),
        judged={name: _joined(parts) for name, parts in judged.items()},
        variance={name: np.concatenate(parts) for name, parts in variance.items()},
        bins=bins.count,
        told={symbol: {one.name: one.told for one in fit} for symbol, fit in fits.items()},
        left_out=tuple(left_out),
        turning=_turning(kept),
        training_up=(float((moved > 0.0).sum()) + 0.5) / (len(moved) + 1.0),
    )


def sweep_part(runs: Mapping[str, Sequence[Track]], tables: Mapping[str, npt.NDArray[np.floating]]) -> Figure:
    """The probability of backtest overfitting over the checkpoints of a sweep, by their daily CRPS.

    Only bars that all of them judged count, and CRPS is taken in units of the symbol's standard deviation over all of
    its bars: whatever was trained on which of them, a unit is the same for every checkpoint.
    """
    if len(runs) < 2:
        return absent("needs a sweep of at least two configs")
    losses: list[dict[tuple[str, int], float]] = []
    for name, tracks in runs.items():
        codes = Codes.from_table(tables[name])
        losses.append({bar: loss for track in tracks for bar, loss in _bar_crps(track, codes)})
    shared = sorted(set.intersection(*(set(one) for one in losses)), key=lambda bar: (bar[1], bar[0]))
    if not shared:
        return absent("no bar was judged by every checkpoint of the sweep")
    matrix = np.array([[one[bar] for one in losses] for bar in shared])  # (N, C)
    _, place = np.unique(days_of(np.array([when for _, when in shared])), return_inverse=True)
    counts = np.bincount(place)
    daily = np.stack([np.bincount(place, weights=column) / counts for column in matrix.T], axis=1)  # (D, C)
    return overfitting(-daily)


def _bar_crps(track: Track, codes: Codes) -> list[tuple[tuple[str, int], float]]:
    """(symbol, close) and CRPS of each judged bar, in units of the standard deviation of all returns."""
    rows = track.judged
    came = track.returns[rows] / track.scale[rows]
    unit = track.scale[rows] / (float(track.returns.std()) or 1.0)  # 1: a price that never moves weighs nothing
    parts = [piece.crps(came[part]) for part, piece in Mixture(track.probabilities, codes).pieces(ROWS)]
    crps = np.concatenate(parts) * unit
    return [((track.symbol, when), loss) for when, loss in zip(track.times[rows].tolist(), crps.tolist(), strict=True)]


def _before(track: Track) -> Ints:
    """The token of the bar before each; -1 where there is none. (n,)"""
    return np.concatenate([[-1], track.tokens[:-1]]).astype(np.int64)


def _turning(tracks: Sequence[Track]) -> Floats:
    """What the sign of the bar before says of each judged bar, by the training bars of all symbols. (N,)"""
    before = [np.concatenate([[0.0], track.returns[:-1]]) for track in tracks]
    shares = turning_share(
        np.concatenate([one[track.training] for one, track in zip(before, tracks, strict=True)]),
        np.concatenate([track.returns[track.training] for track in tracks]),
    )
    return np.concatenate([turning_forecast(shares, one[t.judged]) for one, t in zip(before, tracks, strict=True)])


def _ranged(track: Track) -> Floats:
    """Root of the range's variance of each judged bar in lagged volatilities, right on average over training. (m,)"""
    seen = track.training
    witness = float(track.ranges[seen].mean())
    if witness == 0.0:
        raise ValueError(f"the bars of {track.symbol} have neither gaps nor ranges")
    factor = float(np.square(track.returns[seen]).mean()) / witness
    return np.sqrt(factor * track.ranges[track.judged]) / track.scale[track.judged]


def _marginal(seen: Floats) -> Floats:
    """All training returns as a table of one code, (1, MARGINAL_ENTRIES)."""
    levels = (np.arange(MARGINAL_ENTRIES) + 0.5) / MARGINAL_ENTRIES
    return np.quantile(seen, levels, method="hazen")[None, :]


def _joined(parts: Sequence[Judged]) -> Judged:
    return Judged(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Judged)})


def _return_row(bars: Bars, name: str) -> ReturnRow:
    own, model = bars.judged[name], bars.judged[MODEL]
    figures = {loss: float(getattr(own, loss).mean()) for loss in (*LOSSES, "pinball")}
    figures |= {key: float(coverage(own.pit_low, own.pit_high, span).mean()) for key, span in MIDDLE.items()}
    figures |= {"width_90": float(own.width_90.mean()), "pit": pit_distance(own.pit_low, own.pit_high)}
    gains = {
        loss: day_bootstrap(getattr(own, loss) - getattr(model, loss), bars.times)
        for loss in (LOSSES if name != MODEL else ())
    }
    return ReturnRow(name=name, figures=figures, gains=gains, histogram=pit_histogram(own.pit_low, own.pit_high))


def _volatility_row(bars: Bars, name: str) -> VolatilityRow:
    losses, ranged = (qlike(bars.variance[name], witness) for witness in (bars.came, bars.ranged))
    own, own_ranged = (qlike(bars.variance[MODEL], witness) for witness in (bars.came, bars.ranged))
    return VolatilityRow(
        name=name,
        qlike=float(losses.mean()),
        range_qlike=float(ranged.mean()),
        ratio=float((np.square(bars.came) / bars.variance[name]).mean()),
        gain=None if name == MODEL else day_bootstrap(losses - own, bars.times),
        range_gain=None if name == MODEL else day_bootstrap(ranged - own_ranged, bars.times),
    )


def _symbol_row(bars: Bars, symbol: str, rows: slice, best: Judged) -> SymbolRow:
    model, times = bars.judged[MODEL], bars.times[rows]
    return SymbolRow(
        symbol=symbol,
        bars=len(times),
        bits=float(model.bits[rows].mean()),
        gain=day_bootstrap(best.bits[rows] - model.bits[rows], times),
        crps_gain=day_bootstrap(best.crps[rows] - model.crps[rows], times),
        coverage_90=float(coverage(model.pit_low[rows], model.pit_high[rows], MIDDLE["coverage_90"]).mean()),
        fitted=bars.told[symbol],
    )
