"""The charts of a report as plotly figures in plain dicts: what is drawn, not how the page holds it."""

import base64
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.drawdowns import drawdowns
from evaluation.hold import Hold
from evaluation.run import Fills, Floats, Ints, Market, Marks, RunRecord

POINTS_MAX = 4_000  # a line; more than a screen has columns, few enough to drag smoothly
MARKERS_MAX = 2_000  # a chart
PRICE_CHARTS_MAX = 12
LOG_FROM = 3.0  # highest over lowest equity; below it a linear axis hides nothing
FLAT = 0.4  # of the axis; a strategy that moves over less of it is seen alone as well
FONT = "system-ui, sans-serif"

# Light and dark. A figure carries the light colour; the page swaps it by value, so each must be unique.
COLOURS: dict[str, tuple[str, str]] = {
    "ink": ("#1d2327", "#e7eaec"),
    "muted": ("#66717b", "#98a3ac"),
    "rule": ("#e6e8ea", "#2b3137"),
    "zero": ("#b9c0c6", "#4b545c"),
    "strategy": ("#1f5fae", "#74a9f0"),
    "shade": ("rgba(31, 95, 174, 0.14)", "rgba(116, 169, 240, 0.18)"),
    "hold": ("#9a8a6a", "#b5a27c"),
    "price": ("#87929c", "#76818b"),
    "fall": ("#b3482f", "#e88d73"),
    "depth": ("rgba(179, 72, 47, 0.16)", "rgba(232, 141, 115, 0.2)"),
    "buy": ("#0f7a68", "#48c0aa"),
    "sell": ("#c2512f", "#f09a74"),
    "card": ("#fefefe", "#171b1f"),
    "seen": ("#d9a441", "#c9963c"),
    "seen_ink": ("#7a5600", "#f3d58a"),
}
SEEN_OPACITY = 0.2
LIGHT = {name: pair[0] for name, pair in COLOURS.items()}


def thin(times: Ints, values: Floats, points_max: int = POINTS_MAX) -> tuple[Ints, Floats]:
    """At most `points_max` of the points: the first, the last, and the lowest and highest of each stretch between.

    No spike is lost, which regular sampling would do. `points_max` is at least 4.
    """
    size = len(values)
    if size <= points_max:
        return times, values
    edges = np.linspace(1, size - 1, (points_max - 2) // 2 + 1).astype(np.int64)
    keep = {0, size - 1}
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        piece = values[low:high]
        keep.update((low + int(piece.argmin()), low + int(piece.argmax())))
    rows = np.array(sorted(keep))
    return times[rows], values[rows]


def thin_rows(count: int, rows_max: int = MARKERS_MAX) -> Ints:
    """Evenly chosen row numbers, at most `rows_max` of `count`, the first and the last among them."""
    if count <= rows_max:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, rows_max).round().astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The accounts of an equity chart, and how they are seen best."""

    accounts: tuple[tuple[str, str, Ints, Floats], ...]  # name, colour, times, equity; the strategy last, on top
    log: bool  # one of them multiplied: equal distances are equal returns, and early years are seen
    alone: bool  # buy and hold would flatten the strategy: it gets a second panel to itself


def equity_lines(marks: Marks, hold: Hold) -> Lines:
    strategy = ("Strategy", "strategy", marks.times, marks.equity)
    if not any(hold.quantities):
        return Lines((strategy,), log=_widest(marks.equity), alone=False)
    both = np.concatenate([marks.equity, hold.equity])
    log = _widest(both)
    ours, all_of_it = (float(np.ptp(np.log(values) if log else values)) for values in (marks.equity, both))
    return Lines((("Buy and hold", "hold", hold.times, hold.equity), strategy), log=log, alone=ours < FLAT * all_of_it)


def _widest(values: Floats) -> bool:
    return bool(values.min() > 0.0 and values.max() / values.min() > LOG_FROM)


def equity_figure(record: RunRecord, marks: Marks, hold: Hold) -> dict[str, Any]:
    """Equity over drawdown on one time axis, buy-and-hold behind. Drawdowns are of every mark, thinned after."""
    currency = escape(record.currency)
    lines = equity_lines(marks, hold)
    worth = f"%{{y:,.0f}} {currency}"
    traces = []
    for name, colour, times, values in lines.accounts:
        width = 1.8 if colour == "strategy" else 1.3
        traces.append(line_trace(name, *thin(times, values), LIGHT[colour], width, worth))
    if lines.alone:
        trace = line_trace("Strategy", *thin(marks.times, marks.equity), LIGHT["strategy"], 1.5, worth)
        traces.append(trace | {"yaxis": "y2", "showlegend": False, "hoverinfo": "skip", "hovertemplate": None})
    below = "3" if lines.alone else "2"
    for name, colour, times, values in lines.accounts:
        falls = thin(times, -drawdowns(values, record.initial_cash))
        trace = line_trace(name, *falls, LIGHT["fall" if colour == "strategy" else "hold"], 1.0, "%{y:.1%}")
        trace |= {"yaxis": "y" + below, "showlegend": False, "name": f"{name}, drawdown"}
        if colour == "strategy":
            trace |= {"fill": "tozeroy", "fillcolor": LIGHT["depth"]}
        traces.append(trace)
    if lines.alone:
        panels = [("Equity, " + currency, 0.56, 1.0), ("Strategy alone, " + currency, 0.27, 0.49)]
        layout = panel_layout([*panels, ("Drawdown", 0.0, 0.2)])
        layout["yaxis2"] |= {"tickformat": "~s", "nticks": 4}
    else:
        layout = panel_layout([("Equity, " + currency, 0.36, 1.0), ("Drawdown", 0.0, 0.27)])
    layout["yaxis"] |= {"tickformat": "~s", "type": "log" if lines.log else "linear"}
    layout["yaxis" + below] |= {"tickformat": ".0%", "rangemode": "tozero", "nticks": 4}
    layout["legend"]["traceorder"] = "reversed"  # the strategy is drawn last, on top, and named first
    layout["shapes"] = [level(record.initial_cash, "y")]
    if lines.alone:
        layout["shapes"].append(level(record.initial_cash, "y2"))
    for start, end in record.in_sample:
        layout["shapes"].append(_shade(start, end))
        layout["annotations"].append(_shade_label(start, layout["yaxis"]["domain"][0]))
    return {"data": traces, "layout": layout}


def price_figure(
    market: Market, fills: Fills, own: Ints, entries: npt.NDArray[np.bool_], currency: str
) -> dict[str, Any]:
    """The price of one market with its fills: buys point up, sells down; entries are full, exits hollow.

    Args:
        own: (K,) rows of the market's fills.
        entries: (F,) which fills opened or enlarged a position.
        currency: what the market is quoted in.
    """
    line = line_trace("Price", *thin(market.times, market.closes), LIGHT["price"], 1.2, "%{y:,.6~g}")
    traces = [line | {"showlegend": False}]
    shown = own[thin_rows(len(own))]
    for name, buys, enters in (
        ("Buy, entry", True, True),
        ("Sell, exit", False, False),
        ("Sell, entry", False, True),
        ("Buy, exit", True, False),
    ):
        rows = shown[(fills.buys[shown] == buys) & (entries[shown] == enters)]
        if rows.size:
            traces.append(_markers(name, fills, rows, buys=buys, enters=enters, currency=currency))
    layout = panel_layout([(f"{escape(market.symbol)}, {escape(currency)}", 0.0, 1.0)])
    layout["yaxis"] |= {"tickformat": ",.5~g"}
    layout["hovermode"] = "closest"
    return {"data": traces, "layout": layout}


def exposure_figure(marks: Marks) -> dict[str, Any]:
    """Position value over equity: net, and gross where it differs; absent where equity is not positive."""
    solvent = marks.equity > 0.0
    times, equity = marks.times[solvent], marks.equity[solvent]
    net = marks.position_value[solvent] / equity
    trace = line_trace("Net", *thin(times, net), LIGHT["strategy"], 1.0, "%{y:.1%}")
    trace["line"]["shape"] = "hv"
    traces = [trace | {"fill": "tozeroy", "fillcolor": LIGHT["shade"]}]
    if marks.gross is not None:
        gross = marks.gross[solvent] / equity
        if not np.allclose(gross, np.abs(net)):
            trace = line_trace("Gross", *thin(times, gross), LIGHT["hold"], 1.0, "%{y:.1%}")
            trace["line"]["shape"] = "hv"
            traces.append(trace)
    layout = panel_layout([("Share of equity", 0.0, 1.0)])
    layout["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero", "nticks": 5}
    return {"data": traces, "layout": layout}


def fills_note(total: int) -> str:
    """What the price chart of a market with `total` fills leaves out, or ""."""
    return f"Showing {MARKERS_MAX:,} of {total:,} fills, evenly chosen." if total > MARKERS_MAX else ""


def _markers(name: str, fills: Fills, rows: Ints, *, buys: bool, enters: bool, currency: str) -> dict[str, Any]:
    colour = LIGHT["buy" if buys else "sell"]
    texts = [
        f"{quantity:,.8g} at {price:,.8g}, fee {fee:,.2f} {escape(currency)}"
        for quantity, price, fee in zip(fills.quantities[rows], fills.prices[rows], fills.fees[rows], strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": _dates(fills.market_times[rows]),
        "y": packed(fills.prices[rows]),
        "text": texts,
        "hovertemplate": "<b>%{fullData.name}</b><br>%{text}<br>%{x|%Y-%m-%d %H:%M:%S}<extra></extra>",
        "marker": {
            "symbol": "triangle-up" if buys else "triangle-down",
            "size": 8,
            "color": colour if enters else LIGHT["card"],
            "line": {"color": colour, "width": 1.3},
        },
    }


def line_trace(name: str, times: Ints, values: Floats, colour: str, width: float, hover: str) -> dict[str, Any]:
    """A line through time, ns UTC."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": _dates(times),
        "y": packed(values),
        "line": {"color": colour, "width": width},
        "hovertemplate": hover,
    }


def panel_layout(panels: list[tuple[str, float, float]]) -> dict[str, Any]:
    """The common layout: panels (label, bottom, top) stacked over one time axis."""
    layout: dict[str, Any] = {
        "margin": {"l": 52, "r": 12, "t": 26, "b": 38},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": FONT, "size": 12, "color": LIGHT["muted"]},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "hoverlabel": {
            "bgcolor": LIGHT["card"],
            "bordercolor": LIGHT["rule"],
            "font": {"family": FONT, "size": 12, "color": LIGHT["ink"]},
            "align": "left",
        },
        "dragmode": "zoom",
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        "xaxis": {
            "type": "date",
            "anchor": "y" if len(panels) == 1 else f"y{len(panels)}",
            "gridcolor": LIGHT["rule"],
            "linecolor": LIGHT["zero"],
            "ticks": "",
            "zeroline": False,
            "hoverformat": "%Y-%m-%d %H:%M",
        },
        "annotations": [],
    }
    for number, (label, bottom, top) in enumerate(panels, start=1):
        suffix = "" if number == 1 else str(number)
        layout[f"yaxis{suffix}"] = {
            "domain": [bottom, top],
            "anchor": "x",
            "fixedrange": True,  # dragging zooms time; the page fits the height to what is seen
            "gridcolor": LIGHT["rule"],
            "zerolinecolor": LIGHT["zero"],
            "zerolinewidth": 1,
            "automargin": "width",
        }
        layout["annotations"].append(
            {
                "text": label,
                "x": 0,
                "y": top,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "yshift": 5,
                "showarrow": False,
                "font": {"size": 12, "color": LIGHT["muted"]},
            }
        )
    return layout


def level(value: float, axis: str) -> dict[str, Any]:
    """A dotted line across a panel."""
    return {
        "type": "line",
        "xref": "paper",
        "yref": axis,
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": LIGHT["zero"], "width": 1, "dash": "dot"},
        "layer": "below",
    }


def _shade(start: datetime, end: datetime) -> dict[str, Any]:
    """A part of the time behind all panels that a price model was trained on."""
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": start.isoformat(" "),
        "x1": end.isoformat(" "),
        "y0": 0,
        "y1": 1,
        "fillcolor": LIGHT["seen"],
        "opacity": SEEN_OPACITY,
        "line": {"width": 0},
        "layer": "below",
    }


def _shade_label(start: datetime, bottom: float) -> dict[str, Any]:
    return {
        "text": "in sample",
        "x": start.isoformat(" "),
        "y": bottom,
        "xref": "x",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": 3,
        "showarrow": False,
        "font": {"size": 12, "color": LIGHT["seen_ink"]},
    }


def _dates(times: Ints) -> dict[str, str]:
    return packed(times / 1e6)  # plotly counts milliseconds


def packed(values: npt.NDArray[Any]) -> dict[str, str]:
    """A float64 array as plotly's base64 form: half the size of digits, and exact."""
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"dtype": "f8", "bdata": base64.b64encode(data).decode("ascii")}
