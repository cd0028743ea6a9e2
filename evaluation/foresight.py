"""How good the forecasts of a run were: what the price models said of each next bar, against what came."""

from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import day_bootstrap
from evaluation.figures import Figure, absent, measured
from evaluation.run import Floats, Forecasts, Ints, PriceModel, read_forecasts
from evaluation.volatility import VARIANCE_MIN, ewma_variance, qlike

NOTHING = "no bar was judged"
BANDS = {"coverage_50": ("q25", "q75"), "coverage_90": ("q05", "q95")}
FORESIGHT_DEFINITIONS: dict[str, str] = {
    "bars": "Bars whose return a forecast had been made of before they closed.",
    "qlike": "Mean of log v + r² / v over the bars, with the log return r, close to close, and the forecast's expected "
    "squared return v (Patton 2011); less is better.",
    "ewma_qlike": "The same of the exponentially weighted mean of the squared returns before the bar, its weights "
    "summing to one from the first bar of the run on (RiskMetrics 1996), with the half-life of the volatility that the "
    "model itself measures returns by: what it adds is what it knows beyond its own scale.",
    "gain": "QLIKE of EWMA less that of the forecast, bar by bar; above zero the forecast was better.",
    "coverage_50": "Share of returns within the quantiles at 25 % and 75 %; 50 % is right.",
    "coverage_90": "Share of returns within the quantiles at 5 % and 95 %; 90 % is right.",
    "surprise": "Mean of minus log2 of the probability that the bar's token had been given, bits; of several models "
    "the mean.",
    "entropy": "What the forecasts themselves expected the surprise to be on the same bars, bits.",
    "excess": "Surprise less entropy; zero is right, above it the model was surer than it had reason to be.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """How the forecasts of one symbol did, or of all."""

    symbol: str | None  # None: all
    bars: int
    qlike: Figure
    ewma_qlike: Figure
    gain: Figure
    coverage_50: Figure
    coverage_90: Figure
    surprise: Figure
    entropy: Figure
    excess: Figure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """Figures of the bars that were forecast. All (b,)."""

    times: Ints  # when the bar closed
    qlike: Floats
    ewma_qlike: Floats
    coverage_50: Floats  # 1.0 within the band
    coverage_90: Floats
    surprise: Floats  # NaN where nobody expected a token
    entropy: Floats


def foresight(model: PriceModel) -> tuple[Foresight, ...]:
    """Judge the forecasts of a run, all symbols together first, then each; one alone stands for all.

    A forecast counts for the bar of its symbol that came next after the last one it had seen, and only if it was made
    before that bar closed. Intervals are of whole days drawn again with all symbols of a day together.

    Raises:
        ValueError: see `read_forecasts`.
    """
    said = read_forecasts(model)
    if said is None:
        return (_figures(None, _joined([])),)
    judged = {
        symbol: _judged(said, said.rows[symbol], *closes, model.halflife_bars)
        for symbol, closes in model.closes.items()
        if symbol in said.rows and len(closes[0])
    }
    every = _figures(None, _joined(list(judged.values())))
    return every, *(_figures(symbol, part) for symbol, part in judged.items() if len(judged) > 1)


def lagged_ewma(returns: Floats, halflife_bars: float) -> Floats:
    """The exponentially weighted mean of the squared returns before each bar; NaN before the first that moved.

    Its weights sum to one from the first return on. It falls no further than VARIANCE_MIN of the mean of all squared
    returns so far: a price that stood still for a day is not for ever certain. (n,) -> (n,)

    Source: J.P. Morgan, "RiskMetrics technical document", 4th edition, 1996, section 5.2.
    """
    before = np.arange(len(returns))  # (n,) returns before each
    weights = 1.0 - 0.5 ** (before / halflife_bars)
    recent = ewma_variance(returns, halflife_bars, 0.0)
    usual = np.concatenate([[0.0], np.cumsum(np.square(returns))])[: len(returns)]
    known = usual > 0.0
    floor = VARIANCE_MIN * np.divide(usual, before, out=np.full(len(returns), np.nan), where=known)
    return np.maximum(np.divide(recent, weights, out=np.full(len(returns), np.nan), where=known), floor)


def _judged(said: Forecasts, rows: Ints, times: Ints, closes: Floats, halflife_bars: float) -> _Judged:
    """Pair the forecasts of one symbol with its bars.

    Args:
        rows: (K',) those of the symbol.
        times: (n,) closes of its bars, rising.
        closes: (n,) last prices.
    """
    seen = np.searchsorted(times, said.asof[rows])  # (K',) the bar that each was made after
    known = seen < len(times)
    known &= times[np.minimum(seen, len(times) - 1)] == said.asof[rows]
    surprise = np.full(len(times), np.nan)  # (n,) of each bar
    surprise[seen[known]] = said.surprise[rows[known]]
    due = np.append(times[1:], np.iinfo(np.int64).min)  # (n,) when the next bar closes; after the last there is none
    known &= said.times[rows] < due[np.minimum(seen, len(times) - 1)]
    rows, seen = rows[known], seen[known]
    returns = np.diff(np.log(closes))  # (n - 1,) of the bar after each
    expected = lagged_ewma(returns, halflife_bars)[seen]  # (b,)
    usable = np.isfinite(expected)
    rows, seen, expected = rows[usable], seen[usable], expected[usable]
    came = returns[seen]
    least = VARIANCE_MIN * expected  # a forecast of no change at all is no certainty either
    variance = np.maximum(np.square(said.volatility[rows]) + np.square(said.mean[rows]), least)
    within = {
        name: ((getattr(said, low)[rows] <= came) & (came <= getattr(said, high)[rows])).astype(np.float64)
        for name, (low, high) in BANDS.items()
    }
    return _Judged(
        times=times[seen + 1],
        qlike=qlike(variance, came),
        ewma_qlike=qlike(expected, came),
        surprise=surprise[seen + 1],
        entropy=said.entropy[rows],
        **within,
    )


def _joined(parts: list[_Judged]) -> _Judged:
    empty = {name: np.empty(0, np.int64 if name == "times" else np.float64) for name in _Judged.__slots__}
    return _Judged(**{name: np.concatenate([none, *(getattr(p, name) for p in parts)]) for name, none in empty.items()})


def _figures(symbol: str | None, part: _Judged) -> Foresight:
    """Means, of all symbols with their intervals; of one among many that of the gain is enough."""
    sure = day_bootstrap if symbol is None else _mean
    told = np.isfinite(part.surprise)
    surprise, entropy, times = part.surprise[told], part.entropy[told], part.times[told]
    return Foresight(
        symbol=symbol,
        bars=len(part.times),
        qlike=_mean(part.qlike, part.times),
        ewma_qlike=_mean(part.ewma_qlike, part.times),
        gain=day_bootstrap(part.ewma_qlike - part.qlike, part.times),
        coverage_50=sure(part.coverage_50, part.times),
        coverage_90=sure(part.coverage_90, part.times),
        surprise=_mean(surprise, times),
        entropy=_mean(entropy, times),
        excess=sure(surprise - entropy, times),
    )


def _mean(values: Floats, times: Ints) -> Figure:
    return measured(float(values.mean())) if len(values) else absent(NOTHING)
