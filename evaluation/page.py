"""One page that holds a whole report and needs nothing else: no network, no server, no other file."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from evaluation import charts
from evaluation.display import MISSING, PERCENT, Row, activity_rows, change, count, date, risk_rows, verdict
from evaluation.grids import Grid, summary_grids, trip_grid
from evaluation.hindsight import advisor_facts, hindsight
from evaluation.hold import Hold
from evaluation.model_words import (
    aim_grid,
    foresight_grid,
    marked,
    training_facts,
    training_lines,
    warning,
)
from evaluation.returns import REPLICATIONS, SEED
from evaluation.run import Fills, Marks, RunRecord
from evaluation.trading import Report

TILES = {
    "total_return": "Total return",
    "annual_return": "Annual return",
    "sharpe": "Sharpe ratio",
    "max_drawdown": "Maximum drawdown",
    "win_rate": "Win rate",
    "fees": "Fees",
}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render(record: RunRecord, report: Report, marks: Marks, fills: Fills, hold: Hold) -> str:
    """The page. Text from the run is escaped; the same run gives the same bytes."""
    price_sections, price_figures = _prices(record, report, fills)
    figures = {
        "equity": charts.equity_figure(record, marks, hold),
        **price_figures,
        "exposure": charts.exposure_figure(marks),
    }
    window = [float(marks.times[0]) / 1e6, float(marks.times[-1]) / 1e6]
    risk, activity = risk_rows(report), activity_rows(report)
    rows = {row.key: row for row in risk + activity}
    trained = "".join(f'<p class="note trained">{escape(line)}</p>' for line in training_lines(report))
    sections = _template("report.html").substitute(
        tiles="\n".join(_tile(rows[key]) for key in TILES),
        equity_note=_equity_note(report),
        equity_class="tall three" if charts.equity_lines(marks, hold).alone else "tall",
        prices="\n".join(price_sections),
        months=_months(report),
        risk=_table(marked("Return and risk", report), risk),
        activity=_table(marked("Trading", report), activity),
        model="\n".join(grid_card(grid) for grid in (foresight_grid(report), aim_grid(report)) if grid is not None),
        grids="\n".join(grid_card(grid) for grid in summary_grids(report)),
        trips=grid_card(trip_grid(report)) if report.trips else "",
    )
    return page(
        title=report.title,
        symbols=report.symbols,
        banner=_banner(report),
        verdict=f'<p class="verdict">{escape(verdict(report))}</p>\n{trained}',
        sections=sections,
        method="Data, costs and method",
        facts=_facts(report),
        drawn={"window": window, "figures": figures},
        script="report.js",
    )


def page(*, title: str, symbols: Sequence[str], drawn: dict[str, Any], script: str, **parts: str) -> str:
    """What every report's page has around its own sections.

    Args:
        title, symbols: plain text.
        drawn: "figures" by the id of their place, and what else the script reads; no figures: no script.
        script: name of the asset that draws them.
        parts: HTML of banner, verdict, sections and facts, and the heading of the facts, `method`.
    """
    from plotly.offline import get_plotlyjs

    payload = {"dark": dict(charts.COLOURS.values()), **drawn}
    return _template("page.html").substitute(
        parts,
        title=escape(title),
        css=_asset("report.css"),
        symbols=escape(", ".join(symbols)),
        # A "<" inside a JSON string may be written as an escape: nothing in the data can then end the script.
        payload=json.dumps(payload, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        plotly=get_plotlyjs() if drawn["figures"] else "",
        js=_asset(script) if drawn["figures"] else "",
    )


def _asset(name: str) -> str:
    return (files("evaluation") / "assets" / name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    return Template(_asset(name))


def _banner(report: Report) -> str:
    banners = []
    if report.in_sample:
        banners.append(f"<strong>In sample.</strong> {escape(warning(report))}")
    if told := hindsight(report):
        banners.append(f"<strong>Hindsight.</strong> {escape(told)}")
    if report.partial:
        banners.append(
            "<strong>Partial run.</strong> It ended before its planned end; every figure covers only what had happened "
            f"by {date(report.end)}, {report.end:%H:%M} UTC."
        )
    return "\n".join(f'<p class="banner" role="status">{text}</p>' for text in banners)


def _tile(row: Row) -> str:
    lines = []
    if row.uncertainty:
        lines.append(f"95 %: {escape(row.uncertainty)}")
    if row.reason:
        lines.append(escape(row.reason))
    if row.hold not in ("", MISSING):
        lines.append(f"Buy and hold: {escape(row.hold)}")
    notes = "".join(f'<p class="note">{line}</p>' for line in lines)
    return f'<div class="tile"><h3>{TILES[row.key]}</h3><p class="number">{escape(row.strategy)}</p>{notes}</div>'


def _equity_note(report: Report) -> str:
    shaded = " Shaded: what a price model was trained on." if report.in_sample else ""
    if not report.strategy.drawdowns:
        return shaded.strip()
    span = report.strategy.drawdowns[0]
    back = f"recovered on {date(span.recovered)}" if span.recovered else "not recovered by the end"
    return escape(f"Deepest drawdown: from {date(span.peak)} to {date(span.trough)}, {back}.{shaded}")


def _prices(record: RunRecord, report: Report, fills: Fills) -> tuple[list[str], dict[str, Any]]:
    counts = np.bincount(fills.places, minlength=len(record.markets))  # (M,)
    busiest = np.argsort(-counts, kind="stable")[: charts.PRICE_CHARTS_MAX]
    sections, figures = [], {}
    for number, place in enumerate(np.sort(busiest).tolist()):
        market = record.markets[place]
        name = f"price-{number}"
        figures[name] = charts.price_figure(
            market, fills, np.flatnonzero(fills.places == place), report.entries, market.currency or record.currency
        )
        note = escape(charts.fills_note(int(counts[place])))
        sections.append(
            f'<figure class="card"><figcaption><h2>{escape(market.symbol)}: price and fills</h2>'
            f'<p class="note">Triangles up are buys, down are sells; full ones enter, hollow ones leave. {note}</p>'
            f'</figcaption><div class="chart" id="{name}"></div></figure>'
        )
    if left := len(record.markets) - len(busiest):
        sections.append(f'<p class="note">{count(left, "further market")} with fewer fills not drawn.</p>')
    return sections, figures


def _months(report: Report) -> str:
    if not report.months:
        return f'<p class="note">{escape((report.strategy.annual_return.reason or "No month").capitalize())}.</p>'
    cells = dict(report.months)
    widest = max(0.1, *(abs(value) for value in cells.values()))  # a month of 10 % or more may be full of colour
    years = sorted({month[:4] for month in cells})
    rows = []
    for year in years:
        growth = 1.0
        row = []
        for number in range(1, 13):
            value = cells.get(f"{year}-{number:02d}")
            if value is None:
                row.append("<td></td>")
                continue
            growth *= 1.0 + value
            depth = round(60.0 * abs(value) / widest)
            kind = "gain" if value >= 0.0 else "loss"
            row.append(f'<td class="{kind}" style="--depth:{depth}%">{_month(value)}</td>')
        rows.append(f'<tr><th scope="row">{year}</th>{"".join(row)}<td class="year">{_month(growth - 1.0)}</td></tr>')
    heads = "".join(f'<th scope="col">{name}</th>' for name in (*MONTHS, "Year"))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Returns by month"><table class="months">'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _month(value: float) -> str:
    return change(value).removesuffix(PERCENT)


def _table(title: str, rows: list[Row]) -> str:
    body = []
    for row in rows:
        reason = f'<span class="reason">{escape(row.reason)}</span>' if row.reason else ""
        body.append(
            f'<tr><th scope="row">{escape(row.label)}<span class="definition">{escape(row.definition)}</span></th>'
            f'<td data-label="Strategy"><div><b>{escape(row.strategy)}</b>{reason}</div></td>'
            f'<td data-label="Uncertainty">{escape(row.uncertainty)}</td>'
            f'<td data-label="Buy and hold">{escape(row.hold)}</td></tr>'
        )
    return (
        f'<table class="figures"><caption>{title}</caption><thead><tr><th scope="col">Figure</th>'
        '<th scope="col">Strategy</th><th scope="col">95 % interval, standard error</th>'
        f'<th scope="col">Buy and hold</th></tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def grid_card(grid: Grid) -> str:
    """A table as a card of the page, its columns explained below."""
    heads = "".join(
        f'<th scope="col"{_left(column, grid)}>{escape(head)}</th>' for column, head in enumerate(grid.heads)
    )
    body = []
    for number, row in enumerate(grid.rows):
        first, *others = (_cell(cell) for cell in row)
        cells = "".join(f"<td{_left(column, grid)}>{cell}</td>" for column, cell in enumerate(others, start=1))
        total = ' class="total"' if number >= len(grid.rows) - grid.totals else ""
        body.append(f'<tr{total}><th scope="row">{first}</th>{cells}</tr>')
    title = escape(grid.title)
    note = f'<p class="note">{escape(grid.note)}</p>' if grid.note else ""
    meanings = "".join(f"<div><dt>{escape(head)}</dt><dd>{escape(text)}</dd></div>" for head, text in grid.definitions)
    details = f'<details><summary>What the columns mean</summary><dl class="facts">{meanings}</dl></details>'
    return (
        f'<section class="card"><h2>{title}</h2>{note}'
        f'<div class="scroll{" tall" if grid.tall else ""}" tabindex="0" role="region" aria-label="{title}">'
        f'<table class="grid"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f"{details if meanings else ''}</section>"
    )


def _left(column: int, grid: Grid) -> str:
    return ' class="text"' if column < grid.texts else ""


def _cell(text: str) -> str:
    main, _, lesser = escape(text).partition("\n")
    return f'{main}<span class="lesser">{lesser}</span>' if lesser else main


def _facts(report: Report) -> str:
    data = report.data
    blocks = report.strategy.block_days
    bootstrap = (
        f"Stationary bootstrap of {report.strategy.returns:,} daily returns, {REPLICATIONS:,} replications, mean block "
        f"{count(blocks, 'day')}, seed {SEED}; percentile intervals."
        if blocks is not None
        else "None: too few daily returns, or none that vary."
    )
    lines = [
        ("Data", data.path),
        ("SHA-256", data.sha256),
        ("Rows", f"{data.rows:,}, from {data.start:%Y-%m-%d %H:%M} to {data.end:%Y-%m-%d %H:%M} UTC"),
        ("Judged", f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC"),
        ("What was fitted", report.sample),
        *training_facts(report),
        *advisor_facts(report),
        ("Costs", "\n".join(report.costs) or "None."),
        ("Trading days", f"{report.days_per_year} a year"),
        ("Intervals", bootstrap),
        ("Held at the end", ", ".join(report.open_symbols) or "Nothing"),
        *report.facts,
    ]
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in lines)
