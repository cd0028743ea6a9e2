"""The charts of a model's report as plotly figures in plain dicts."""

from typing import Any

import numpy as np

from evaluation.charts import LIGHT, level, line_trace, packed, panel_layout
from evaluation.drawdowns import DAY_NS
from evaluation.model_figures import FORECASTS, MODEL, ReturnPart


def saved_figure(part: ReturnPart) -> dict[str, Any]:
    """Bits saved over the strongest baseline, summed up day by day: a straight climb is an edge that lasts."""
    times = (part.days + 1) * DAY_NS  # the end of each day
    trace = line_trace("Bits saved", times, part.saved, LIGHT["strategy"], 1.8, "%{y:,.1f} bits")
    layout = panel_layout([("Bits saved so far", 0.0, 1.0)])
    layout["xaxis"]["hoverformat"] = "%Y-%m-%d"
    layout["shapes"] = [level(0.0, "y")]
    return {"data": [trace | {"showlegend": False}], "layout": layout}


def transform_figure(part: ReturnPart) -> dict[str, Any]:
    """The histogram of the probability integral transform: flat is calibrated, a hump too wide, a bowl too narrow."""
    traces = []
    for name, colour in ((part.strongest, "hold"), (MODEL, "strategy")):
        row = next(row for row in part.rows if row.name == name)
        bins = len(row.histogram)
        edges = np.arange(bins + 1) / bins
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": FORECASTS[name],
                "x": packed(np.repeat(edges, 2)[1:-1]),
                "y": packed(np.repeat(row.histogram, 2)),
                "line": {"color": LIGHT[colour], "width": 1.8 if name == MODEL else 1.3},
                "hovertemplate": "%{y:.2f}",
            }
        )
    layout = panel_layout([("Density, 1 is calibrated", 0.0, 1.0)])
    layout["xaxis"] |= {"type": "linear", "range": [0.0, 1.0], "tickformat": ".1f", "hoverformat": ".2f"}
    layout["yaxis"] |= {"rangemode": "tozero", "tickformat": ".1f"}
    layout["legend"]["traceorder"] = "reversed"
    layout["shapes"] = [level(1.0, "y")]
    return {"data": traces, "layout": layout}
