"""The figures in words, one row each: the page and the terminal show the same."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from evaluation.figures import Figure
from evaluation.trading import DEFINITIONS, Report

MISSING = "–"
PERCENT = "\N{NO-BREAK SPACE}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, ready to print. `strategy` and `hold` are a dash where there is no value."""

    key: str
    label: str
    strategy: str
    uncertainty: str  # "" where there is none
    hold: str  # "" where buy and hold has no such figure
    reason: str  # why the strategy's figure is missing, else ""
    definition: str


def risk_rows(report: Report) -> list[Row]:
    """Return and risk of the strategy, buy-and-hold beside it."""
    kinds: list[tuple[str, str, Callable[[float], str]]] = [
        ("total_return", "Total return", change),
        ("annual_return", "Annual return", change),
        ("volatility", "Volatility, annual", share),
        ("sharpe", "Sharpe ratio, annual", ratio),
        ("deflated_sharpe", f"Sharpe above luck, {count(report.trials, 'trial')}", probability),
        ("sortino", "Sortino ratio, annual", ratio),
        ("calmar", "Calmar ratio", ratio),
        ("max_drawdown", "Maximum drawdown", share),
        ("drawdown_days", "From peak to recovery", days),
    ]
    return [
        # Buy-and-hold is one trial, the strategy the best of several: two probabilities that do not compare.
        _row(key, label, show, getattr(report.strategy, key), None if key == "deflated_sharpe" else held)
        for key, label, show in kinds
        for held in [getattr(report.buy_and_hold, key)]
    ]


def activity_rows(report: Report) -> list[Row]:
    """What the strategy did for its return."""

    def money(value: float) -> str:
        return amount(value, report.currency)

    kinds: list[tuple[str, str, Callable[[float], str]]] = [
        ("fills", "Fills", whole),
        ("fees", "Fees", money),
        ("turnover", "Turnover", times),
        ("turnover_per_year", "Turnover a year", times),
        ("round_trips", "Round trips", whole),
        ("win_rate", "Win rate", share),
        ("profit_factor", "Profit factor", ratio),
        ("mean_trip", "Mean profit of a round trip", money),
        ("holding_hours", "Median holding time", hours),
        ("time_in_market", "Time in the market", share),
        ("gross_exposure", "Mean gross exposure", share),
        ("net_exposure", "Mean net exposure", share),
        ("long_exposure", "Mean long exposure", share),
        ("short_exposure", "Mean short exposure", share),
        ("peak_exposure", "Peak gross exposure", share),
    ]
    held = {"fees": report.buy_and_hold_fees}
    return [_row(key, label, show, getattr(report.activity, key), held.get(key)) for key, label, show in kinds]


def verdict(report: Report) -> str:
    """What happened, and how far it can be told from chance, in two sentences."""
    result = report.strategy.total_return
    held = report.buy_and_hold.total_return
    text = (
        f"From {date(report.start)} to {date(report.end)} the account went from "
        f"{amount(report.initial_cash, report.currency)} to {amount(report.final_equity, report.currency)}, "
        f"{value_of(result, change)} after costs"
        + (f"; buy and hold made {change(held.value)}." if held.value is not None else ".")
    )
    annual = report.strategy.annual_return
    if annual.interval is not None:
        low, high = annual.interval
        told = (
            "includes zero: luck alone could have made it."
            if low <= 0.0 <= high
            else "excludes zero, as far as one history can tell."
        )
        return f"{text} The 95 % interval of the annual return, {change(low)} to {change(high)}, {told}"
    if annual.value is None:
        return f"{text} No annual figures: {annual.reason}."
    return text


def uncertainty(figure: Figure, show: Callable[[float], str]) -> str:
    """'0.52 to 1.84 · s.e. 0.34', or what there is of it."""
    parts = []
    if figure.interval is not None:
        parts.append(f"{show(figure.interval[0])} to {show(figure.interval[1])}")
    if figure.standard_error is not None:
        parts.append(f"s.e. {show(figure.standard_error)}")
    return " · ".join(parts)


def change(value: float) -> str:
    return signed(f"{100.0 * value:+,.1f}{PERCENT}")


def share(value: float) -> str:
    return signed(f"{100.0 * value:,.1f}{PERCENT}")


def probability(value: float) -> str:
    # Never a certainty: a rounded 100 % would claim one.
    if value < 0.001:
        return f"< 0.1{PERCENT}"
    return f"> 99.9{PERCENT}" if value > 0.999 else share(value)


def ratio(value: float) -> str:
    return signed(f"{value:,.2f}")


def times(value: float) -> str:
    return signed(f"{value:,.1f} ×")


def whole(value: float) -> str:
    return f"{value:,.0f}"


def days(value: float) -> str:
    return f"{value:,.0f} days" if value >= 10.0 else f"{value:,.1f} days"


def hours(value: float) -> str:
    if value < 1.0:
        return f"{value * 60.0:,.1f} min"
    return f"{value:,.1f} h" if value < 72.0 else f"{value / 24.0:,.1f} days"


def amount(value: float, currency: str) -> str:
    return signed(f"{value:,.2f} {currency}")


def date(time: datetime) -> str:
    return f"{time.day} {time:%B %Y}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def value_of(figure: Figure, show: Callable[[float], str]) -> str:
    """The figure in words, a dash where it is missing."""
    return MISSING if figure.value is None else show(figure.value)


def signed(text: str) -> str:
    """With the sign that people write."""
    return text.replace("-", "\N{MINUS SIGN}")


def _row(key: str, label: str, show: Callable[[float], str], figure: Figure, hold: Figure | None) -> Row:
    return Row(
        key=key,
        label=label,
        strategy=value_of(figure, show),
        uncertainty=uncertainty(figure, show),
        hold="" if hold is None else value_of(hold, show),
        reason=figure.reason or "",
        definition=DEFINITIONS[key],
    )
