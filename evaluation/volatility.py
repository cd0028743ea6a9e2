"""What is known of tomorrow's volatility without a language model, and how such forecasts are judged.

Every baseline is fitted on training bars alone and then filtered forward without another fit: the forecast for a bar
uses the returns before it and nothing else. A weak baseline proves nothing, so half-lives, tails and hours are fitted,
each by the likelihood of the training bars.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evaluation.run import Floats, Ints

Bools = npt.NDArray[np.bool_]

HALFLIVES = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0)  # bars
TRAINING_MIN = 500  # bars that are not zero; a tail fitted on fewer is a guess
HOUR_NS = 3_600_000_000_000
HOUR_PRIOR = 20.0  # bars of the mean hour that each hour starts with
VARIANCE_MIN = 1e-4  # of the training variance: a price that stands still for a day is not for ever certain
DF_MIN, DF_MAX = 2.05, 200.0
BASELINES = {
    "random_walk": "Random walk",
    "ewma_t": "EWMA-t",
    "ewma_hour_t": "EWMA × hour-t",
    "garch_t": "GARCH-t",
}
BASELINE_DEFINITIONS: dict[str, str] = {
    "random_walk": "A normal around no change with EWMA volatility; the half-life by QLIKE.",
    "ewma_t": "A Student t with EWMA volatility; half-life, degrees of freedom and scale by likelihood.",
    "ewma_hour_t": "The same of returns divided by the usual size of those of their UTC hour of the day.",
    "garch_t": "A Student t with the volatility of a GARCH(1,1), fitted by the library arch; degrees of freedom and "
    "scale by likelihood.",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baseline:
    """The forecasts of one baseline for one symbol: zero, or else a Student t around zero, for each bar."""

    name: str  # a key of BASELINES
    variance: Floats  # (n,) expected squared log return
    scale: Floats  # (n,) of the Student t of returns that are not zero
    df: float  # degrees of freedom; inf: normal
    zero: float  # probability of a return of exactly zero
    told: str  # what was fitted, in words


def ewma_variance(returns: Floats, halflife_bars: float, start: float) -> Floats:
    """The exponentially weighted mean of squared returns before each bar. (n,) -> (n,)

    v[0] = start, v[t + 1] = d v[t] + (1 - d) r[t]^2 with d = 0.5 ** (1 / halflife_bars).

    Args:
        start: variance before the first return, not negative; the path is never let below VARIANCE_MIN of it.

    Source: J.P. Morgan, "RiskMetrics technical document", 4th edition, 1996, section 5.2.
    """
    decay = 0.5 ** (1.0 / halflife_bars)
    path = _recursion(np.square(returns), 1.0 - decay, decay, 0.0, start)
    return np.maximum(path, VARIANCE_MIN * start)


def garch_variance(returns: Floats, omega: float, alpha: float, beta: float, start: float) -> Floats:
    """v[0] = start, v[t + 1] = omega + alpha r[t]^2 + beta v[t]. (n,) -> (n,). Source: Bollerslev 1986."""
    return _recursion(np.square(returns), alpha, beta, omega, start)


def _recursion(squares: Floats, gain: float, decay: float, constant: float, start: float) -> Floats:
    from scipy.signal import lfilter

    if not len(squares):
        return np.empty(0)
    driven = np.concatenate([[start], constant + gain * squares[:-1]])  # (n,)
    return np.asarray(lfilter([1.0], [1.0, -decay], driven), np.float64)


def hours_of_day(times: Ints) -> Ints:
    """The UTC hour of each close, 0 to 23; it is known before the bar. (n,)"""
    return (times // HOUR_NS) % 24


def fit_student(values: Floats) -> tuple[float, float]:
    """Degrees of freedom and scale of a Student t around zero, by maximum likelihood.

    Args:
        values: (n,) standardised returns; zeros are left out, they have their own probability.

    Raises:
        ValueError: fewer than TRAINING_MIN values.
    """
    from scipy.optimize import minimize
    from scipy.special import gammaln

    values = values[values != 0.0]
    if len(values) < TRAINING_MIN:
        raise ValueError(f"a Student t wants at least {TRAINING_MIN} returns that are not zero, was {len(values)}")

    def loss(point: Floats) -> float:
        df, scale = DF_MIN + math.exp(point[0]), math.exp(point[1])
        constant = gammaln((df + 1.0) / 2.0) - gammaln(df / 2.0) - 0.5 * math.log(df * math.pi) - point[1]
        return float((df + 1.0) / 2.0 * np.log1p(np.square(values / scale) / df).mean() - constant)

    first = np.array([math.log(4.0 - DF_MIN), math.log(float(np.median(np.abs(values))) / 0.74)])
    bounds = [(-6.0, math.log(DF_MAX - DF_MIN)), (first[1] - 8.0, first[1] + 8.0)]
    point = minimize(loss, first, method="L-BFGS-B", bounds=bounds).x
    return DF_MIN + math.exp(point[0]), math.exp(point[1])


def student_log_density(values: Floats, df: float, scale: Floats | float) -> Floats:
    """The natural logarithm of the density of a Student t around zero; df inf is the normal."""
    from scipy.special import gammaln

    z = values / scale
    if math.isinf(df):
        return np.asarray(-0.5 * np.square(z) - 0.5 * math.log(2.0 * math.pi) - np.log(scale), np.float64)
    constant = gammaln((df + 1.0) / 2.0) - gammaln(df / 2.0) - 0.5 * math.log(df * math.pi)
    return np.asarray(constant - (df + 1.0) / 2.0 * np.log1p(np.square(z) / df) - np.log(scale), np.float64)


def baselines(returns: Floats, times: Ints, training: Bools) -> tuple[Baseline, ...]:
    """Fit every baseline on the training bars of one symbol and filter it over all bars.

    Args:
        returns: (n,) log returns, in the order of time.
        times: (n,) closes, ns UTC.
        training: (n,) which bars may be fitted on; all of them come before those that are judged.

    Raises:
        ValueError: too few training bars.
    """
    if not (returns.shape == times.shape == training.shape):
        raise ValueError(f"want three equal shapes, was {returns.shape}, {times.shape}, {training.shape}")
    if not np.isfinite(returns).all():
        raise ValueError("returns must be finite")
    seen = returns[training]
    moved = int((seen != 0.0).sum())
    if moved < TRAINING_MIN:
        raise ValueError(f"want at least {TRAINING_MIN} training returns that are not zero, was {moved}")
    start = float(np.square(seen).mean())
    zero = (len(seen) - moved + 0.5) / (len(seen) + 1.0)
    ewma = {halflife: ewma_variance(returns, halflife, start) for halflife in HALFLIVES}
    best = min(ewma, key=lambda halflife: float(qlike(ewma[halflife][training], seen).mean()))
    walk = Baseline(
        name="random_walk",
        variance=ewma[best],
        scale=np.sqrt(ewma[best] / (1.0 - zero)),
        df=math.inf,
        zero=zero,
        told=f"half-life {best:g} bars",
    )
    return (
        walk,
        _tailed("ewma_t", returns, training, zero, ewma),
        _by_hour(returns, times, training, zero),
        _garch(returns, training, zero, start, walk),
    )


def qlike(variance: Floats, returns: Floats) -> Floats:
    """The loss of a variance forecast, log v + r^2 / v a bar. (n,)

    Its expectation is least where v is the variance, whatever the noise of r^2 about it. It is QLIKE up to a term of
    the return alone, which no difference between forecasts knows and which is infinite for a return of zero.

    Source: Patton, "Volatility forecast comparison using imperfect volatility proxies", J. Econometrics 160(1), 2011.
    """
    return np.log(variance) + np.square(returns) / variance


def range_variance(open_: Floats, high: Floats, low: Floats, close_before: Floats) -> Floats:
    """The squared return of each bar as its gap and its range witness it: a fifth of the noise of the return's own
    square, where prices diffuse. (n,) each -> (n,)

    gap^2 + (log high / low)^2 / (4 log 2). Few trades in a bar make ranges too small: compare it with returns.

    Source: Parkinson, "The extreme value method for estimating the variance of the rate of return", Journal of Business
    53(1), 1980.
    """
    return np.square(np.log(open_ / close_before)) + np.square(np.log(high / low)) / (4.0 * math.log(2.0))


def _tailed(name: str, returns: Floats, training: Bools, zero: float, paths: dict[float, Floats]) -> Baseline:
    """The half-life, tail and scale whose Student t makes the training returns most likely."""
    found: list[tuple[float, float, float, float]] = []
    moved = training & (returns != 0.0)
    for halflife, variance in paths.items():
        sd = np.sqrt(variance)
        df, scale = fit_student((returns / sd)[moved])
        found.append((float(student_log_density(returns[moved], df, scale * sd[moved]).mean()), halflife, df, scale))
    _, halflife, df, scale = max(found)
    calibration = float((np.square(returns[training]) / paths[halflife][training]).mean())
    return Baseline(
        name=name,
        variance=calibration * paths[halflife],
        scale=scale * np.sqrt(paths[halflife]),
        df=df,
        zero=zero,
        told=f"half-life {halflife:g} bars, {df:.2f} degrees of freedom",
    )


def _by_hour(returns: Floats, times: Ints, training: Bools, zero: float) -> Baseline:
    """As EWMA-t, of returns divided by how large those of their hour of the day use to be."""
    hours = hours_of_day(times)  # (n,)
    size = np.abs(returns[training])
    counts = np.bincount(hours[training], minlength=24) + HOUR_PRIOR
    means = (np.bincount(hours[training], weights=size, minlength=24) + HOUR_PRIOR * size.mean()) / counts
    factor = (means / size.mean())[hours]  # (n,)
    level = returns / factor
    start = float(np.square(level[training]).mean())
    paths = {halflife: np.square(factor) * ewma_variance(level, halflife, start) for halflife in HALFLIVES}
    return _tailed("ewma_hour_t", returns, training, zero, paths)


def _garch(returns: Floats, training: Bools, zero: float, start: float, fallback: Baseline) -> Baseline:
    found = fit_garch(returns[training])
    if found is None:
        tailed = _tailed("garch_t", returns, training, zero, {0.0: fallback.variance})
        return replace(tailed, told=f"did not converge: EWMA with {fallback.told} stands in, {tailed.df:.2f} degrees")
    omega, alpha, beta = found
    tailed = _tailed("garch_t", returns, training, zero, {0.0: garch_variance(returns, omega, alpha, beta, start)})
    return replace(tailed, told=f"alpha {alpha:.3f}, beta {beta:.3f}, {tailed.df:.2f} degrees of freedom")


def fit_garch(returns: Floats) -> tuple[float, float, float] | None:
    """omega, alpha and beta of a GARCH(1,1) with mean zero and Student t, by the library `arch`; None: no convergence.

    Source: Bollerslev, "A conditionally heteroskedastic time series model for speculative prices and rates of return",
    Review of Economics and Statistics 69(3), 1987.
    """
    from arch import arch_model

    unit = float(np.sqrt(np.square(returns).mean()))  # the optimiser wants numbers near one
    model = arch_model(returns / unit, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    result = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(result.params[name]) for name in ("omega", "alpha[1]", "beta[1]"))
    # Hourly prices often end at alpha + beta = 1 (IGARCH), missed by rounding to either side.
    stable = alpha >= 0.0 and beta >= 0.0 and alpha + beta < 1.0 + 1e-6
    usable = result.convergence_flag == 0 and omega > 0.0 and stable
    return (omega * unit**2, alpha, beta) if usable else None
