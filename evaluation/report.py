"""The report of a run as files: report.json and trips.parquet for programs, report.html for people, equity.png for
everywhere else."""

import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from evaluation.display import Row, activity_rows, amount, count, risk_rows, share, value_of
from evaluation.document import TRIPS_FILE, plain, trips_table
from evaluation.grids import COSTS, bps, strategy_name
from evaluation.hindsight import advisor_lines
from evaluation.hold import buy_and_hold
from evaluation.model_words import marked, terminal_cells, training_lines, warning
from evaluation.page import render
from evaluation.picture import equity_png
from evaluation.run import RunRecord, read_fills, read_marks
from evaluation.trading import Report

Cells = tuple[str, str, str, str]

# What the terminal shows of the trading figures; the page shows all.
BRIEF = ("fills", "fees", "turnover_per_year", "round_trips", "win_rate", "profit_factor", "mean_trip", "holding_hours")
PARTS_SHOWN = 4


def write(out: Path, record: RunRecord, report: Report) -> tuple[Path, Path, Path, Path]:
    """Write report.json, report.html, equity.png and trips.parquet into `out`, which is made if it is not there.

    Each file appears whole or not at all, and the same run gives the same bytes.

    Args:
        report: what `evaluate(record)` gave.

    Returns:
        The four paths, in the order above.
    """
    out.mkdir(parents=True, exist_ok=True)
    marks, fills, hold = read_marks(record), read_fills(record), buy_and_hold(record)
    text = json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    page = render(record, report, marks, fills, hold)
    trips = io.BytesIO()
    pq.write_table(trips_table(report.trips), trips, compression="zstd")
    return (
        _put(out / "report.json", text.encode()),
        _put(out / "report.html", page.encode()),
        _put(out / "equity.png", equity_png(record, marks, hold)),
        _put(out / TRIPS_FILE, trips.getvalue()),
    )


def summary_table(report: Report) -> Table:
    """The main figures for the terminal, one screen, reasons in place of what is missing."""
    title = marked(report.title + (" (partial run)" if report.partial else ""), report)
    said = [
        *([f"IN SAMPLE. {warning(report)}"] if report.in_sample else []),
        *training_lines(report),
        *advisor_lines(report),
    ]
    table = Table(
        title=Text(title), title_justify="left", caption=Text("\n".join(said)) if said else None, caption_justify="left"
    )
    table.add_column("Figure")
    table.add_column("Strategy", justify="right", no_wrap=True)
    table.add_column("95 % interval, standard error")
    table.add_column("Buy and hold", justify="right", no_wrap=True)
    activity = {row.key: row for row in activity_rows(report)}
    sections = (
        [_cells(row) for row in risk_rows(report)],
        [_cells(activity[key]) for key in BRIEF] + [_exposure(activity), _shortfall(report)],
        _contributions(report),
        terminal_cells(report),
    )
    for cells in sections:
        for row in cells:
            # Text, not str: rich would read [brackets] in data as markup.
            table.add_row(*(Text(cell) for cell in row))
        table.add_section()
    return table


def _cells(row: Row) -> Cells:
    return row.label, row.strategy, row.reason or row.uncertainty, row.hold


def _exposure(activity: dict[str, Row]) -> Cells:
    gross, net, peak = (activity[f"{kind}_exposure"] for kind in ("gross", "net", "peak"))
    return gross.label, gross.strategy, gross.reason or f"net {net.strategy}, peak {peak.strategy}", ""


def _shortfall(report: Report) -> Cells:
    total = report.costs_paid.total
    amounts = value_of(total.shortfall.amount, lambda value: amount(value, report.currency))
    if total.shortfall.amount.value is None:
        return "Implementation shortfall", amounts, total.shortfall.amount.reason or "", ""
    parts = ", ".join(
        f"{label.lower()} {bps(getattr(total, key)).removesuffix(' bps')}"
        for key, label in COSTS.items()
        if key != "shortfall"
    )
    return "Implementation shortfall", amounts, f"{bps(total.shortfall)}: {parts}", ""


def _contributions(report: Report) -> list[Cells]:
    """The strategies, or else the symbols, that moved the account most; nothing where there is only one."""
    parts = report.by_strategy or report.by_symbol
    if len(parts) < 2:
        return []
    most = sorted(parts, key=lambda part: -abs(part.profit))
    rows = [
        (
            f"Profit of {strategy_name(part.name)}",
            amount(part.profit, report.currency),
            f"{count(part.trips.count, 'trip')}, {value_of(part.trips.win_rate, share)} won",
            "",
        )
        for part in most[:PARTS_SHOWN]
    ]
    if left := len(parts) - len(rows):
        rows.append(
            (f"{left:,} more", amount(sum(part.profit for part in most[PARTS_SHOWN:]), report.currency), "", "")
        )
    return rows


def _put(path: Path, content: bytes) -> Path:
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    os.replace(draft, path)
    return path
