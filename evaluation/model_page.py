"""One page that holds a model's whole report and needs nothing else: no network, no server, no other file."""

from html import escape
from typing import Any

from evaluation.bootstrap import REPLICATIONS, SEED, edge
from evaluation.display import MISSING, date
from evaluation.figures import Figure
from evaluation.model_charts import saved_figure, transform_figure
from evaluation.model_document import ModelReport
from evaluation.model_figures import FORECASTS, MODEL, ReturnPart
from evaluation.model_grids import difference, heading, percent, return_grids, size_grid, tokens_grid, verdicts
from evaluation.page import grid_card, page
from evaluation.volatility import BASELINES


def render(report: ModelReport) -> str:
    """The page. Text from files is escaped; the same report gives the same bytes."""
    part = report.returns
    figures: dict[str, Any] = {}
    sections = []
    if part is not None:
        figures = {"saved": saved_figure(part), "transform": transform_figure(part)}
        grids = [grid_card(grid) for grid in return_grids(report) if grid.rows]
        sections = [_tiles(part), *grids[:2], *_charts(part), *grids[2:]]
    sections += [grid_card(tokens_grid(report.tokens)), grid_card(size_grid(report))]
    return page(
        title=report.title,
        symbols=[one.symbol for one in report.judged],
        banner=_banner(report),
        verdict="\n".join(f'<p class="verdict">{escape(said)}</p>' for said in (heading(report), *verdicts(report))),
        sections="\n\n".join(sections),
        method="Checkpoint, data and method",
        facts=_facts(report),
        drawn={"figures": figures},
        script="model.js",
    )


def _banner(report: ModelReport) -> str:
    if not report.window.in_sample:
        return ""
    checkpoint = report.checkpoint
    return (
        '<p class="banner" role="status"><strong>In sample.</strong> The judged bars overlap what the checkpoint has '
        f"seen, {date(checkpoint.training_start)} to {date(checkpoint.training_end)} with its embargo: every figure of "
        "this page is flattered.</p>"
    )


def _tiles(part: ReturnPart) -> str:
    rows = {row.name: row for row in part.rows}
    model, best = rows[MODEL], rows[part.strongest]
    gains = {row.name: row.gain for row in part.volatility}
    over = f"over {FORECASTS[part.strongest]}"
    tiles = [
        ("Bits saved", best.gains["bits"], over),
        ("CRPS saved, volatilities", best.gains["crps"], over),
        ("QLIKE saved", gains["garch_t"], "over GARCH(1,1)"),
        ("Log-loss of the sign, bits saved", part.direction.coin, "over a coin"),
    ]
    made = [_tile(title, figure, note) for title, figure, note in tiles if figure is not None]
    made.append(_plain_tile("In the 90 % interval", percent(model.figures["coverage_90"]), "90 % is right"))
    made.append(_plain_tile("Largest miscalibration", percent(model.figures["pit"]), "of the probability transform"))
    return f'<section class="tiles" aria-label="Key figures">\n{"".join(made)}\n</section>'


def _tile(title: str, figure: Figure, note: str) -> str:
    if figure.value is None:
        return _plain_tile(title, MISSING, figure.reason or "")
    lines = [f"{edge(figure)}, {note}"]
    if figure.interval is not None:
        low, high = (difference(end, 4) for end in figure.interval)
        lines.append(f"95 %: {low} to {high}")
    return _plain_tile(title, difference(figure.value, 4), *lines)


def _plain_tile(title: str, number: str, *notes: str) -> str:
    lines = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<div class="tile"><h3>{escape(title)}</h3><p class="number">{escape(number)}</p>{lines}</div>'


def _charts(part: ReturnPart) -> list[str]:
    saved = (
        f"Over {FORECASTS[part.strongest]}, the strongest baseline. A straight climb is an edge that lasts; a step is "
        "one lucky stretch."
    )
    transform = (
        "Where in its forecast each return came. Flat is calibrated; a bowl says the forecast is too narrow, a hump "
        "too wide."
    )
    return [_chart("saved", "Bits saved, day by day", saved), _chart("transform", "Calibration", transform)]


def _chart(name: str, title: str, note: str) -> str:
    return (
        f'<figure class="card"><figcaption><h2>{escape(title)}</h2><p class="note">{escape(note)}</p></figcaption>'
        f'<div class="chart" id="{name}"></div></figure>'
    )


def _facts(report: ModelReport) -> str:
    checkpoint, window = report.checkpoint, report.window
    bootstrap = (
        f"Stationary bootstrap of UTC days, all symbols of a day together, {REPLICATIONS:,} replications, block length "
        f"chosen by the data, seed {SEED}; percentile intervals."
    )
    span = f"{checkpoint.training_start:%Y-%m-%d %H:%M} to {checkpoint.training_end:%Y-%m-%d %H:%M} UTC"
    missing = [(grid.title, grid.note) for grid in return_grids(report) if not grid.rows]
    lines = [
        ("Checkpoint", f"{checkpoint.name}, written by {checkpoint.code}"),
        ("Digest", checkpoint.digest),
        ("Trained on", f"{', '.join(checkpoint.symbols)}; {span}; bars of {checkpoint.bar_s:g} s"),
        ("Settings tried", f"{checkpoint.trials}; seed {checkpoint.seed}"),
        ("Licence of the data", checkpoint.licence),
        ("Out of sample after", f"{checkpoint.guard_end:%Y-%m-%d %H:%M} UTC"),
        ("Decisions judged", f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC"),
        ("SHA-256 of the bars", report.data_sha256),
        ("Intervals", bootstrap),
    ]
    if report.returns is not None:
        lines.append(
            (
                "Baselines",
                "Fitted on the training bars of each symbol, then filtered forward without another fit.\n"
                + "\n".join(
                    f"{row.symbol}: {'; '.join(f'{BASELINES[name]}: {told}' for name, told in row.fitted.items())}"
                    for row in report.returns.symbols
                ),
            )
        )
        lines += [("Left out", f"{symbol}: {why}") for symbol, why in report.returns.left_out]
    lines += missing
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in lines)
