"""What the report of a run says of its price models: sentences, tables, and lines for the terminal."""

from datetime import datetime

from evaluation.aims import AIM_DEFINITIONS, Aim
from evaluation.bootstrap import edge
from evaluation.display import MISSING, date, share, signed, value_of
from evaluation.figures import Figure
from evaluation.foresight import FORESIGHT_DEFINITIONS, Foresight
from evaluation.grids import Grid
from evaluation.model_grids import difference, gained
from evaluation.run import Checkpoint
from evaluation.trading import Report

Cells = tuple[str, str, str, str]

IN_SAMPLE = "in sample"
_HEADS = {
    "gain": "Saved",
    "coverage_50": "In 50\u00a0%",
    "coverage_90": "In 90\u00a0%",
    "qlike": "QLIKE",
    "ewma_qlike": "QLIKE, EWMA",
    "excess": "Excess",
    "surprise": "Surprise",
    "entropy": "Entropy",
    "bars": "Bars",
}
_AIM_HEADS = {"target": "Target", "realised": "All of the time", "in_market": "In the market"}


def marked(title: str, report: Report) -> str:
    """A title, with a word that nobody overlooks where a part of the run is in sample."""
    return f"{title} ({IN_SAMPLE})" if report.in_sample else title


def warning(report: Report) -> str:
    """What is in sample and what that means; "" where nothing is."""
    if not report.in_sample:
        return ""
    whole = any(start <= report.start and report.end <= end for start, end in report.in_sample)
    parts = " and ".join(f"{date(start)} to {date(end)}" for start, end in report.in_sample)
    return (
        f"{'The whole run' if whole else f'The part from {parts}'} is what a price model was trained on, embargo "
        "included. It foretells what it has seen better than it will foretell anything else: every figure of this "
        "report is flattered."
    )


def training_lines(report: Report) -> list[str]:
    """What each price model had seen and how that lies to the run, a sentence each."""
    return [f"Price model {one.name}: {_trained(one, report)}." for one in report.checkpoints]


def training_facts(report: Report) -> list[tuple[str, str]]:
    """The same with the digests, for the table of facts."""
    told = [f"{one.name}, digest {one.digest}; {_trained(one, report)}" for one in report.checkpoints]
    return [("Price model" if len(told) == 1 else "Price models", "\n".join(told))] if told else []


def foresight_grid(report: Report) -> Grid | None:
    """How the forecasts did; None where no price model spoke."""
    if not report.foresight:
        return None
    every, *symbols = report.foresight
    note = (
        "What the price model said of each next bar, against what came. Saved: QLIKE over lagged EWMA volatility with a"
        f" half-life of {report.halflife_bars:g} bars; below it the 95 % interval, by days; “no edge” where that"
        " includes zero."
    )
    name = ", ".join(report.symbols) if not symbols and len(report.symbols) == 1 else "All"
    return Grid(
        title=marked("Forecasts", report),
        note=note if every.bars else f"None was judged: no bar came after a forecast of it. {note}",
        heads=("Symbol", *_HEADS.values()),
        rows=(*(_foresight(part.symbol or "", part) for part in symbols), _foresight(name, every)),
        totals=int(bool(symbols)),
        definitions=tuple((head, FORESIGHT_DEFINITIONS[key]) for key, head in _HEADS.items()),
        tall=len(symbols) > 20,
    )


def aim_grid(report: Report) -> Grid | None:
    """Realised against target volatility; None where no strategy sizes by volatility."""
    aim = report.aim
    if aim is None:
        return None
    by = {
        "forecast": "the forecast of the price model, and by that of the last prices where there is none",
        "realised": "the volatility of the last prices",
    }
    if aim.target is not None:
        note = f"Positions were sized by {by[aim.targets[0].by]}."
    else:
        own = [f"{t.strategy} {share(t.target)} of {share(t.allocation)} of equity, by {t.by}" for t in aim.targets]
        note = f"Each strategy has a target of its own, the account has none: {'; '.join(own)}."
    if aim.hours_in_market is not None:
        note += f" A position was held in {aim.hours_in_market:,} of {aim.hours:,} hours."
    rows = [(head, *_against(figure, aim)) for head, figure in _aimed(aim)]
    return Grid(
        title=marked("Realised against target volatility", report),
        note=note,
        heads=("Account", "Realised", "Target", "Realised / target", "95 % interval"),
        rows=tuple(rows),
        definitions=tuple((head, AIM_DEFINITIONS[key]) for key, head in _AIM_HEADS.items()),
    )


def terminal_cells(report: Report) -> list[Cells]:
    """The main figures for the terminal."""
    cells: list[Cells] = []
    if report.foresight:
        every = report.foresight[0]
        told = every.gain.reason or f"{_interval(every.gain)}{edge(every.gain)}"
        gain = value_of(every.gain, lambda value: difference(value, 4))
        cells.append(("QLIKE saved over EWMA", gain, told, ""))
        cells.append(("Returns in 90 % band", value_of(every.coverage_90, share), every.coverage_90.reason or "", ""))
    if report.aim is not None:
        wanted = "" if report.aim.target is None else f", target {share(report.aim.target)}"
        figure = report.aim.in_market
        cells.append(("Volatility in the market", value_of(figure, share), (figure.reason or "annual") + wanted, ""))
    return cells


def _trained(one: Checkpoint, report: Report) -> str:
    if one.end is None or one.guard_end is None:
        return "trained on data of unknown times, so the whole run counts as in sample"
    text = f"trained on {'data up' if one.start is None else date(one.start)} to {date(one.end)}"
    if one.guard_end > one.end:
        text += f", with an embargo to {date(one.guard_end)}"
    if one.guard_end < report.start:
        return f"{text}; this run begins after it"
    if one.start is not None and report.end < one.start:
        return f"{text}; this run ends before it"
    first, last = max(one.start or report.start, report.start), min(one.guard_end, report.end)
    return f"{text}; from {_minute(first)} to {_minute(last)} this run is in sample"


def _minute(time: datetime) -> str:
    return f"{date(time)}, {time:%H:%M}"


def _foresight(name: str, part: Foresight) -> tuple[str, ...]:
    return (
        name,
        gained(part.gain, 4),
        _share(part.coverage_50),
        _share(part.coverage_90),
        _number(part.qlike),
        _number(part.ewma_qlike),
        _with_interval(part.excess),
        _number(part.surprise),
        _number(part.entropy),
        f"{part.bars:,}",
    )


def _aimed(aim: Aim) -> list[tuple[str, Figure]]:
    return [(_AIM_HEADS["realised"], aim.realised), (_AIM_HEADS["in_market"], aim.in_market)]


def _against(figure: Figure, aim: Aim) -> tuple[str, str, str, str]:
    low, high = figure.interval or (None, None)
    interval = "" if low is None or high is None else f"{share(low)} to {share(high)}"
    target = MISSING if aim.target is None else share(aim.target)
    if figure.value is None:
        return f"{MISSING}\n{figure.reason}", target, "", ""
    return share(figure.value), target, "" if aim.target is None else f"{figure.value / aim.target:.2f}", interval


def _interval(figure: Figure) -> str:
    if figure.interval is None:
        return "too few days for an interval: "
    low, high = figure.interval
    return f"{difference(low, 4)} to {difference(high, 4)}: "


def _number(figure: Figure) -> str:
    return value_of(figure, lambda value: signed(f"{value:.4f}"))


def _share(figure: Figure) -> str:
    text = value_of(figure, share)
    return text if figure.interval is None else f"{text}\n{share(figure.interval[0])} to {share(figure.interval[1])}"


def _with_interval(figure: Figure) -> str:
    text = value_of(figure, lambda value: difference(value, 3))
    if figure.interval is None:
        return text
    low, high = figure.interval
    return f"{text}\n{difference(low, 3)} to {difference(high, 3)}"
