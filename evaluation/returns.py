"""How an account did: return, risk and what is left of both after chance, from its value through time."""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from evaluation.drawdowns import DAY_NS, Drawdown, deepest
from evaluation.figures import Figure, absent, measured
from evaluation.run import Floats, Ints, moment

RETURNS_MIN = 30  # daily returns; below it an annual figure is an anecdote
REPLICATIONS = 2_000
SEED = 1994
# A standard deviation of daily returns below this is rounding: doubles carry 1e-16, one cent of a billion is 1e-11.
DEVIATION_MIN = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """Return and risk of one account."""

    total_return: Figure
    annual_return: Figure
    volatility: Figure
    sharpe: Figure
    deflated_sharpe: Figure
    sortino: Figure
    calmar: Figure
    max_drawdown: Figure
    drawdown_days: Figure
    drawdowns: tuple[Drawdown, ...]  # the deepest
    returns: int  # daily returns behind the annual figures
    block_days: int | None  # mean block of the bootstrap


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % bootstrap intervals; all None where returns do not vary, Sharpe's also where those of a resample do not."""

    annual_return: tuple[float, float] | None = None
    sharpe: tuple[float, float] | None = None
    max_drawdown: tuple[float, float] | None = None
    block_days: int | None = None


def performance(
    times: Ints, equity: Floats, *, initial: float, days: Ints, days_per_year: int, trials: int = 1
) -> Performance:
    """Judge one account.

    Args:
        times: (N,) ns UTC, not decreasing.
        equity: (N,) account value, quote currency; may be zero or negative: bankruptcy is an outcome.
        initial: value before the first mark, quote currency, positive.
        days: (D,) trading days from `trading_days`.
        days_per_year: how many such days make a year.
        trials: variants tried; the Sharpe ratio is deflated for them.

    Source: see DEFINITIONS in evaluation/trading.py; each function below names its paper.
    """
    falls = deepest(times, equity, initial)
    depth, lasted = max_drawdown(len(times), falls)
    total = measured(equity[-1] / initial - 1.0)
    returns, reason = daily_returns(times, equity, initial=initial, days=days, days_per_year=days_per_year)
    if reason is not None:
        return replace(
            undefined(reason, returns=len(returns)),
            total_return=total,
            max_drawdown=depth,
            drawdown_days=lasted,
            drawdowns=falls,
        )
    moves = float(returns.std(ddof=1)) > DEVIATION_MIN
    intervals = bootstrap(returns, days_per_year) if moves else Intervals()
    annual = annual_return(returns, days_per_year)
    sharpe, deflated = sharpe_ratio(returns, days_per_year, trials)
    return Performance(
        total_return=total,
        annual_return=_with_interval(annual, intervals.annual_return),
        volatility=volatility(returns, days_per_year),
        sharpe=_with_interval(sharpe, intervals.sharpe),
        deflated_sharpe=deflated,
        sortino=sortino_ratio(returns, days_per_year),
        calmar=_calmar(annual, depth),
        max_drawdown=_with_interval(depth, intervals.max_drawdown),
        drawdown_days=lasted,
        drawdowns=falls,
        returns=len(returns),
        block_days=intervals.block_days,
    )


def undefined(reason: str, *, returns: int = 0) -> Performance:
    """The performance that nothing can be said about, and why."""
    no = absent(reason)
    return Performance(
        total_return=no,
        annual_return=no,
        volatility=no,
        sharpe=no,
        deflated_sharpe=no,
        sortino=no,
        calmar=no,
        max_drawdown=no,
        drawdown_days=no,
        drawdowns=(),
        returns=returns,
        block_days=None,
    )


def session_days(times: Ints, days_per_year: int) -> Ints:
    """The day that each time belongs to, in days since 1970. (N,) -> (N,)

    Days are UTC and closed on the right: a bar that closes at midnight belongs to the day that it ends. Where the
    market is not open all week, Saturday and Sunday belong to the Monday that follows, as on a futures exchange.
    """
    day = (times - 1_001) // DAY_NS  # (N,), a mark may settle a microsecond after the instant that it marks
    if days_per_year == 365:
        return day
    weekday = (day + 3) % 7  # (N,) Monday is 0; 1970-01-01 was a Thursday
    return np.where(weekday >= 5, day + 7 - weekday, day)


def trading_days(times: Ints, days_per_year: int) -> Ints:
    """All trading days of a window, from the times at which anything happened. (N,) -> (D,)

    A market that never closes has every day; any other the days on which it was seen to trade.
    """
    seen = np.unique(session_days(times, days_per_year))
    if days_per_year == 365:
        return np.arange(seen[0], seen[-1] + 1)
    return seen


def daily_values(times: Ints, equity: Floats, *, days: Ints, initial: float, days_per_year: int) -> Floats:
    """`initial`, then the last value at the end of each day; a day without a mark repeats the one before. (D + 1,)"""
    last = np.searchsorted(session_days(times, days_per_year), days, side="right")  # (D,) marks so far
    return np.concatenate([[initial], equity])[np.concatenate([[0], last])]  # (D + 1,)


def daily_returns(
    times: Ints, equity: Floats, *, initial: float, days: Ints, days_per_year: int
) -> tuple[Floats, str | None]:
    """Simple returns from day to day, (D,), and the reason why they carry no annual figure, if so."""
    if (equity <= 0.0).any():
        when = moment(int(times[np.flatnonzero(equity <= 0.0)[0]]))
        return np.empty(0), f"equity fell to zero or below on {when:%Y-%m-%d}, where returns end"
    values = daily_values(times, equity, days=days, initial=initial, days_per_year=days_per_year)
    returns: Floats = values[1:] / values[:-1] - 1.0  # (D,)
    if len(returns) < RETURNS_MIN:
        return returns, f"needs {RETURNS_MIN} daily returns, has {len(returns)}"
    return returns, None


def annual_return(returns: Floats, days_per_year: int) -> Figure:
    """Compound growth a year: (product of 1 + r) ** (days_per_year / n) - 1."""
    import empyrical  # here, because pandas behind it costs a second that a run without report need not pay

    with np.errstate(over="ignore"):
        return measured(float(empyrical.annual_return(returns, annualization=days_per_year)))


def volatility(returns: Floats, days_per_year: int) -> Figure:
    """Standard deviation of daily returns a year: s * sqrt(days_per_year), n - 1 in the denominator."""
    import empyrical

    return measured(float(empyrical.annual_volatility(returns, annualization=days_per_year)))


def sharpe_ratio(returns: Floats, days_per_year: int, trials: int = 1) -> tuple[Figure, Figure]:
    """The annual Sharpe ratio with its standard error, and the probability that it is not luck.

    The riskless rate is zero. With daily ratio S, skewness g and kurtosis k (3 for a normal) of n returns, the squared
    standard error of S is (1 - g S + (k - 1) / 4 S^2) / n. It takes returns as independent; the bootstrap interval
    does not.

    The deflated ratio is Phi((S - S0) / e), S0 the best ratio that `trials` worthless variants are expected to show,
    each with the variance 1 / n that a worthless one has. One trial has S0 = 0.

    Source: Mertens, "Comments on variance of the IID estimator in Lo (2002)", 2002; Lo, "The statistics of Sharpe
    ratios", Financial Analysts Journal 58(4), 2002; Bailey & Lopez de Prado, "The deflated Sharpe ratio", Journal of
    Portfolio Management 40(5), 2014.
    """
    import empyrical

    if float(returns.std(ddof=1)) <= DEVIATION_MIN:
        # empyrical divides a constant growth rate by rounding noise and gives 1e15.
        no = absent("daily returns do not vary")
        return no, no
    n = len(returns)
    annual = float(empyrical.sharpe_ratio(returns, annualization=days_per_year))
    daily = annual / math.sqrt(days_per_year)
    centred = (returns - returns.mean()) / returns.std()  # (n,)
    skewness, kurtosis = float((centred**3).mean()), float((centred**4).mean())
    error = math.sqrt(max(0.0, 1.0 - skewness * daily + (kurtosis - 1.0) / 4.0 * daily**2) / n)
    luck = best_of_luck(trials) / math.sqrt(n)
    ratio = measured(annual, standard_error=error * math.sqrt(days_per_year))
    if error == 0.0:
        return ratio, absent("the Sharpe ratio has no sampling error")
    return ratio, measured(NormalDist().cdf((daily - luck) / error))


def best_of_luck(trials: int) -> float:
    """The expected maximum of `trials` independent standard normals; 0 for one.

    Source: Bailey & Lopez de Prado, 2014, equation 1.
    """
    if trials == 1:
        return 0.0
    gamma = float(np.euler_gamma)
    quantile = NormalDist().inv_cdf
    return (1.0 - gamma) * quantile(1.0 - 1.0 / trials) + gamma * quantile(1.0 - 1.0 / (trials * math.e))


def sortino_ratio(returns: Floats, days_per_year: int) -> Figure:
    """Mean daily return over the root of the mean squared loss, a year. Source: Sortino & Price, 1994."""
    import empyrical

    if not (returns < -DEVIATION_MIN).any():
        return absent("no day lost money")  # empyrical gives inf
    return measured(float(empyrical.sortino_ratio(returns, annualization=days_per_year)))


def max_drawdown(marks: int, falls: tuple[Drawdown, ...]) -> tuple[Figure, Figure]:
    """The depth of the deepest drawdown and how many days it lasted.

    Of every mark, where empyrical would see compounded daily returns: no dates, and nothing of what happened in a day.
    """
    if marks < 2:
        no = absent("needs two marks, has one")
        return no, no
    if not falls:
        return measured(0.0), absent("equity never fell below its peak")
    return measured(falls[0].depth), measured(falls[0].days)


def bootstrap(returns: Floats, days_per_year: int) -> Intervals:
    """95 % percentile intervals that respect the dependence between days.

    Whole blocks of days are drawn with replacement, their lengths geometric around a mean that the data choose.

    Source: Politis & Romano, "The stationary bootstrap", JASA 89(428), 1994; Politis & White, "Automatic block-length
    selection for the dependent bootstrap", Econometric Reviews 23(1), 2004, corrected by Patton, Politis & White, 2009.
    """
    from arch.bootstrap import StationaryBootstrap, optimal_block_length  # here: the import costs two seconds

    with np.errstate(divide="ignore", invalid="ignore"):  # a few days that moved among many that did not
        block: float = float(optimal_block_length(returns)["stationary"].iloc[0])
    block = max(1, round(block)) if math.isfinite(block) else 1
    n = len(returns)

    def statistics(sample: Floats) -> Floats:
        growth = np.log1p(sample)  # (n,)
        path = np.cumsum(growth)  # (n,)
        fall = (path - np.maximum.accumulate(np.maximum(path, 0.0))).min()
        deviation = sample.std(ddof=1)
        ratio = sample.mean() / deviation if deviation > DEVIATION_MIN else np.nan
        return np.array([path[-1] * days_per_year / n, ratio * math.sqrt(days_per_year), fall])

    draws = StationaryBootstrap(block, returns, seed=SEED).apply(statistics, REPLICATIONS)  # (R, 3)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)  # (3,), (3,)
    with np.errstate(over="ignore"):  # an infinite end is dropped by `measured`
        yearly = np.expm1(low[0]), np.expm1(high[0])
    ratios = (float(low[1]), float(high[1])) if np.isfinite(draws[:, 1]).all() else None
    # The deepest fall is the most negative: the ends change places. (0.0 -: never print a negative zero.)
    falls = float(0.0 - np.expm1(high[2])), float(0.0 - np.expm1(low[2]))
    return Intervals((float(yearly[0]), float(yearly[1])), ratios, falls, block)


def _calmar(annual: Figure, depth: Figure) -> Figure:
    # Not empyrical's: it takes the drawdown from daily values, and gives NaN where there was none.
    if annual.value is None:
        return absent(annual.reason or "")
    if not depth.value:
        return absent("equity never fell below its peak")
    return measured(annual.value / depth.value)


def _with_interval(figure: Figure, interval: tuple[float, float] | None) -> Figure:
    if figure.value is None or interval is None:
        return figure
    return measured(figure.value, standard_error=figure.standard_error, interval=interval)
