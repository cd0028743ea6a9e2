"""The picture of a run: equity over drawdown, for places where a page cannot be opened."""

import io

import numpy as np

from evaluation.charts import LIGHT, SEEN_OPACITY, equity_lines, thin
from evaluation.drawdowns import drawdowns
from evaluation.hold import Hold
from evaluation.run import Marks, RunRecord


def equity_png(record: RunRecord, marks: Marks, hold: Hold) -> bytes:
    """A PNG of 1500 x 900 pixels, the same bytes for the same run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: half a second that only a report needs
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

    figure = Figure(figsize=(10, 6), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    lines = equity_lines(marks, hold)
    heights = [2.4, 1.3, 1.0] if lines.alone else [2.4, 1.0]
    top, *middle, bottom = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for name, colour, times, values in lines.accounts:
        ours = colour == "strategy"
        line_times, line = thin(times, values)
        top.plot(line_times.astype("datetime64[ns]"), line, color=LIGHT[colour], lw=1.4 if ours else 1.0, label=name)
        fall_times, falls = thin(times, -drawdowns(values, record.initial_cash))
        moments = fall_times.astype("datetime64[ns]")
        bottom.plot(moments, falls, color=LIGHT["fall" if ours else "hold"], lw=0.8)
        if ours:
            bottom.fill_between(moments, falls, 0.0, color=LIGHT["fall"], alpha=0.16, lw=0.0)
    for axes in middle:
        strategy_times, strategy = thin(marks.times, marks.equity)
        axes.plot(strategy_times.astype("datetime64[ns]"), strategy, color=LIGHT["strategy"], lw=1.2)
        axes.set_ylabel("Strategy alone")
    if lines.log:
        top.set_yscale("log")
        top.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        top.yaxis.set_minor_locator(NullLocator())
    for axes in (top, *middle):
        axes.axhline(record.initial_cash, color=LIGHT["zero"], lw=0.8, ls=":")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for start, end in record.in_sample:
        for axes in (top, *middle, bottom):
            axes.axvspan(
                np.datetime64(start, "ns"), np.datetime64(end, "ns"), color=LIGHT["seen"], alpha=SEEN_OPACITY, lw=0.0
            )
        top.annotate(
            "in sample",
            (np.datetime64(start, "ns"), 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(5, 6),
            textcoords="offset points",
            color=LIGHT["seen_ink"],
        )
    top.set_ylabel(f"Equity, {record.currency}".replace("$", r"\$"))
    top.legend(loc="upper left", frameon=False)
    # Titles are data: a dollar sign in one must not start a formula.
    notes = (" (partial run)" if record.partial else "") + (" (in sample)" if record.in_sample else "")
    title = record.title + notes
    top.set_title(title.replace("$", r"\$"), loc="left", color=LIGHT["ink"])
    bottom.set_ylabel("Drawdown")
    bottom.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bottom.set_xlabel("Time, UTC")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    for axes in (top, *middle, bottom):
        axes.grid(color=LIGHT["rule"], lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the default names a version: bytes would differ
    return buffer.getvalue()
