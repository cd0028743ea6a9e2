"""The report of a run as files: report.json for programs, report.html for people, equity.png for everywhere else."""

import json
import os
from pathlib import Path

from rich.table import Table
from rich.text import Text

from evaluation.display import Row, activity_rows, risk_rows
from evaluation.hold import buy_and_hold
from evaluation.page import render
from evaluation.picture import equity_png
from evaluation.run import RunRecord, read_fills, read_marks
from evaluation.trading import Report, plain


def write(out: Path, record: RunRecord, report: Report) -> tuple[Path, Path, Path]:
    """Write report.json, report.html and equity.png into `out`, which is made if it is not there.

    Each file appears whole or not at all, and the same run gives the same bytes.

    Args:
        report: what `evaluate(record)` gave.

    Returns:
        The three paths, in the order above.
    """
    out.mkdir(parents=True, exist_ok=True)
    marks, fills, hold = read_marks(record), read_fills(record), buy_and_hold(record)
    text = json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    page = render(record, report, marks, fills, hold)
    return (
        _put(out / "report.json", text.encode()),
        _put(out / "report.html", page.encode()),
        _put(out / "equity.png", equity_png(record, marks, hold)),
    )


def summary_table(report: Report) -> Table:
    """The figures for the terminal, reasons in place of what is missing."""
    table = Table(title=Text(report.title + (" (partial run)" if report.partial else "")), title_justify="left")
    table.add_column("Figure")
    table.add_column("Strategy", justify="right")
    table.add_column("95 % interval, standard error")
    table.add_column("Buy and hold", justify="right")
    for rows in (risk_rows(report), activity_rows(report)):
        for row in rows:
            # Text, not str: rich would read [brackets] in data as markup.
            table.add_row(*(Text(cell) for cell in _cells(row)))
        table.add_section()
    return table


def _cells(row: Row) -> tuple[str, str, str, str]:
    return row.label, row.strategy, row.reason or row.uncertainty, row.hold


def _put(path: Path, content: bytes) -> Path:
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    os.replace(draft, path)
    return path
