"""The fan chart: where a price may go, as bands of many drawn paths."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.sampling import Floats

INK, MUTED, RULE = "#1d2327", "#66717b", "#e6e8ea"
BLUE = "#1f5fae"
BANDS = ((0.05, 0.95, "#dbe5f1"), (0.25, 0.75, "#a5bedd"))  # lower and upper quantile, outer first

_DRAWN_MAX = 4  # single paths: enough to see that none of them looks like the median


@dataclass(frozen=True, slots=True, eq=False)
class Fan:
    """What is drawn.

    Attributes:
        title, value: text above, and what the vertical axis is.
        past: (n,) values known, the last of them where the fan begins; may be only that one.
        future: (count, horizon) of the paths.
        when: (n + horizon,) datetime64[ns] of all of them; None: bars ahead of the last known one are counted.
        percent: values are fractions, shown in percent.
    """

    title: str
    value: str
    past: Floats
    future: Floats
    when: npt.NDArray[np.datetime64] | None = None
    percent: bool = False


def bands(future: Floats, levels: tuple[float, ...]) -> Floats:
    """Quantiles of each bar over the paths, (count, horizon) -> (levels, horizon).

    Quantiles of paths, never paths of quantiles: a mean path has less volatility than any market.
    """
    quantiles: Floats = np.quantile(future, levels, axis=0)
    return quantiles


def fan_png(fan: Fan) -> bytes:
    """A PNG of 1500 x 750 pixels, the same bytes for the same fan."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: half a second that only a picture needs
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter, StrMethodFormatter

    n, (count, horizon) = len(fan.past), fan.future.shape
    x: npt.NDArray[Any] = np.arange(1 - n, horizon + 1) if fan.when is None else fan.when  # (n + horizon,)
    ahead = x[n - 1 :]  # (1 + horizon,) from the last known value on
    whole = np.concatenate([np.full((count, 1), fan.past[-1]), fan.future], axis=1)  # (count, 1 + horizon)
    figure = Figure(figsize=(10, 5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for low, high, colour in BANDS:
        lower, upper = bands(whole, (low, high))
        axes.fill_between(ahead, lower, upper, color=colour, lw=0.0, label=f"{round(100 * (high - low))} %")
    for i in range(min(_DRAWN_MAX, count)):
        axes.plot(ahead, whole[i], color=INK, lw=0.7, alpha=0.55, label="single paths" if i == 0 else None)
    axes.plot(ahead, bands(whole, (0.5,))[0], color=BLUE, lw=2.0, label="median")
    if n > 1:
        axes.plot(x[:n], fan.past, color=INK, lw=1.3, label="known")
    axes.axvline(x[n - 1], color=MUTED, lw=0.8, ls=":")
    if fan.when is not None:
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.set_xlabel("UTC", color=MUTED)
    else:
        axes.set_xlabel("bars ahead", color=MUTED)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0) if fan.percent else StrMethodFormatter("{x:,g}"))
    axes.margins(x=0.0)
    axes.grid(axis="y", color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b9c0c6")
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.set_ylabel(fan.value, color=MUTED)
    axes.set_title(fan.title, loc="left", color=INK, fontsize=11)
    # Outside: inside, it would hide a price sooner or later.
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8, labelcolor=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the default names a version: bytes would differ
    return buffer.getvalue()
