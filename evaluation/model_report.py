"""The report of a model as files: model.json for programs, model.html for people, Markdown for the documentation."""

import json
import os
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.display import count
from evaluation.grids import Grid
from evaluation.model_document import ModelReport, plain
from evaluation.model_grids import heading, return_grids, size_grid, tokens_grid, verdicts
from evaluation.model_page import render

FILES = ("model.json", "model.html")


def write(out: Path, report: ModelReport) -> tuple[Path, Path]:
    """Write model.json and model.html into `out`, which is made if it is not there.

    Each file appears whole or not at all, and the same report gives the same bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    data, page = (out / name for name in FILES)
    return _put(data, text), _put(page, render(report))


def show(console: Console, report: ModelReport) -> None:
    """Print the tables and the verdicts."""
    console.print(Text(report.title, style="bold"))
    console.print(Text(heading(report)))
    if report.window.in_sample:
        console.print(Text("IN SAMPLE: every figure is flattered.", style="bold red"))
    for grid in (tokens_grid(report.tokens), *return_grids(report), size_grid(report)):
        if grid.rows:
            console.print(_table(grid))
            console.print(Text(f"{grid.note}\n", style="dim"))
        else:
            console.print(Text(f"{grid.title}: {grid.note}"))
    for sentence in verdicts(report):
        console.print(Text(sentence))


def markdown(report: ModelReport) -> str:
    """The report for the documentation: verdicts, then every table."""
    checkpoint = report.checkpoint
    lines = [f"**{heading(report)}**"]
    if report.window.in_sample:
        lines.append("**In sample: every figure is flattered.**")
    span = f"{checkpoint.training_start:%Y-%m-%d} to {checkpoint.training_end:%Y-%m-%d}"
    lines.append(
        f"Checkpoint `{checkpoint.digest[:12]}`, {report.size.parameters:,} parameters, trained on "
        f"{', '.join(checkpoint.symbols)} from {span}, seed {checkpoint.seed}, {count(checkpoint.trials, 'setting')} "
        "tried."
    )
    lines.append("\n".join(f"- {sentence}" for sentence in verdicts(report)))
    for grid in (*return_grids(report), tokens_grid(report.tokens), size_grid(report)):
        lines.append(f"**{grid.title}.** {grid.note}")
        if grid.rows:
            lines.append(_markdown_table(grid))
    return "\n\n".join(lines) + "\n"


def update_page(page: Path, name: str, text: str) -> None:
    """Put a text between the markers of a page; see `parts_of_page`."""
    head, tail = parts_of_page(page, name)
    _put(page, f"{head}\n\n{text}\n{tail}")


def parts_of_page(page: Path, name: str) -> tuple[str, str]:
    """What stands up to `<!-- begin NAME -->` and from `<!-- end NAME -->` on.

    Raises:
        ValueError: the page cannot be read, or does not have both markers, once each and in order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    try:
        content = page.read_text(encoding="utf-8")
    except OSError as exc:
        raise ValueError(f"{page} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ValueError(f"{page} cannot be read: want UTF-8, was {exc}") from None
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ValueError(f"want {begin} and {end} once each in {page}, in this order")
    return content[: content.index(begin) + len(begin)], content[content.index(end) :]


def _table(grid: Grid) -> Table:
    table = Table(
        title=Text(grid.title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for column, head in enumerate(grid.heads):
        text = column < grid.texts
        table.add_column(head, justify="left" if text else "right", no_wrap=text, overflow="fold")
    for row in grid.rows:
        # Text, not str: rich would read [brackets] in data as markup.
        table.add_row(*(Text(cell) for cell in row))
    return table


def _markdown_table(grid: Grid) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    align = ["---" if column < grid.texts else "---:" for column in range(len(grid.heads))]
    return "\n".join([line(grid.heads), "|" + "|".join(align) + "|", *(line(row) for row in grid.rows)])


def _put(path: Path, text: str) -> Path:
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(text.encode())
    os.replace(draft, path)
    return path
