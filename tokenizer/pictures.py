"""What `tokenizer.vocabulary` finds, drawn. Each function gives a PNG as bytes, the same bytes for the same figures."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenizer.bars import Floats, Ints
from tokenizer.features import FeatureConfig
from tokenizer.vocabulary import CodeReturns, Gram, Memory, Outlier, Surprise, TokenRow, Usage, lift

INK, MUTED, RULE = "#1d2327", "#66717b", "#e6e8ea"
BLUE, RISE, FALL, SAND = "#1f5fae", "#0f7a68", "#c2512f", "#9a8a6a"

_DPI = 150
_POINTS_MAX = 6_000  # dots of one panel; more are one blot
_CODES_DRAWN_MAX = 256
_NAMED = 4  # outliers that are told beside the picture
_NAME_MAX = 10  # letters of a symbol there: longer ones run out of it


def usage_picture(found: Usage) -> bytes:
    """Codes by use, and the share of tokens that the most used ones make up."""
    figure, (left, right) = _figure(11, 4.2, 1, 2)
    shares = np.sort(found.counts / max(int(found.counts.sum()), 1))[::-1]  # (V,)
    codes = len(shares)
    left.stairs(100.0 * shares, np.arange(codes + 1) + 0.5, fill=True, color=BLUE, alpha=0.85)
    left.axhline(100.0 / codes, color=MUTED, lw=1.0, ls=":")
    left.annotate(
        "if all were used alike", (codes, 100.0 / codes), (0, 4), textcoords="offset points", ha="right", color=MUTED
    )
    left.set_xlim(0.5, codes + 0.5)
    _label(left, "Use of each code", "code, most used first", "share of tokens, %")
    right.plot(np.arange(codes + 1), 100.0 * np.concatenate([[0.0], np.cumsum(shares)]), color=BLUE, lw=2.0)
    right.plot([0, codes], [0, 100], color=MUTED, lw=1.0, ls=":")
    right.axvline(found.perplexity, color=FALL, lw=1.2, zorder=4)
    over = {"fc": "white", "ec": "none", "pad": 2.0}  # lines go through the words
    side = -1 if found.perplexity > codes / 2 else 1  # of the line: where there is room
    right.annotate(
        f"perplexity {found.perplexity:.1f}",
        (found.perplexity, 6),
        (6 * side, 0),
        textcoords="offset points",
        ha="right" if side < 0 else "left",
        color=FALL,
        bbox=over,
    )
    right.plot([found.half], [50], "o", color=INK, ms=5)
    said = f"half of all tokens: {found.half} codes"
    right.annotate(said, (found.half, 50), (9, -4), textcoords="offset points", bbox=over)
    right.set_xlim(0, codes)
    right.set_ylim(0, 101)
    _label(right, "Share of the most used codes together", "codes", "share of tokens, %")
    title = f"{int(found.counts.sum()):,} tokens, {found.entropy_bits:.2f} of {np.log2(codes):.2f} bits"
    figure.suptitle(f"{title}, {found.unused} of {codes} codes unused", x=0.01, ha="left", color=INK, fontsize=13)
    return _png(figure)


def codes_picture(code_moves: Floats, counts: Ints, config: FeatureConfig) -> bytes:
    """Each code as the bar that it tells, in scales, by return: falls first.

    Bars stand on the close before them, the dotted line. What is used more is darker. Of more than 256 codes, these.
    """
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    order = np.argsort(code_moves[:, config.close_index], kind="stable")[:_CODES_DRAWN_MAX]
    columns = min(32, len(order))
    lines = -(-len(order) // columns)
    figure, panels = _figure(12, 1.0 + 1.55 * lines, lines, 1)
    shares = counts / max(int(counts.max()), 1)
    below = above = 0.0
    for line, axes in enumerate(np.atleast_1d(panels)):
        mine = order[line * columns : (line + 1) * columns]
        for x, code in enumerate(mine.tolist()):
            low, high = _candle(axes, x, code_moves[code], 0.0, config, alpha=0.35 + 0.65 * float(shares[code]) ** 0.5)
            below, above = min(below, low), max(above, high)
            axes.annotate(str(code), (x, 0), (0, -3), ("data", "axes fraction"), "offset points", **_CODE)
        axes.axhline(0.0, color=MUTED, lw=0.7, ls=":", zorder=0)
        axes.set_xlim(-0.7, columns - 0.3)
        axes.set_xticks([])
        axes.set_ylabel("scales", color=MUTED)
        _bare(axes)
        axes.spines["bottom"].set_visible(False)
    marks = [mark for mark in (-30, -10, -3, -1, 0, 1, 3, 10, 30) if below <= mark <= above]
    for axes in np.atleast_1d(panels):
        # Straight near zero, logarithmic far out: else a few long wicks make all bodies lines.
        axes.set_yscale("asinh", linear_width=0.7)
        axes.set_ylim(1.15 * below, 1.15 * above)
        axes.yaxis.set_major_locator(FixedLocator(marks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    title = "What each code says: the bar in units of lagged volatility; darker is used more"
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=13)
    return _png(figure)


_CODE: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7, "color": MUTED}


def transitions_picture(counts: Ints, expected: Floats, order: Ints) -> bytes:
    """Which code follows which more (green) or less (red) often than if bars were independent.

    Args:
        counts: (V, V) transitions.
        expected: (V, V) of independent bars.
        order: (V,) codes as they stand along both axes.
    """
    figure, (left, right) = _figure(12.5, 5.9, 1, 2, width_ratios=[1.15, 1.0])
    table = lift(counts, expected)[np.ix_(order, order)]  # (V, V)
    limit = max(1.0, float(np.quantile(np.abs(table), 0.995)))
    image = left.imshow(table, cmap=_diverging(), vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
    bar = figure.colorbar(image, ax=left, shrink=0.85)
    bar.set_label("log2 of seen over expected", color=MUTED)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=8)
    _label(left, "What follows what", "next code, by its return", "code, by its return")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (V, V)
    told = -(shares * np.log2(np.where(shares > 0.0, shares, 1.0))).sum(axis=1)[order]  # (V,)
    right.scatter(np.maximum(counts.sum(axis=1)[order], 0.8), told, s=16, color=BLUE, alpha=0.7, lw=0)
    most = np.minimum(np.log2(np.maximum(counts.sum(axis=1), 1)), np.log2(len(counts)))
    rank = np.argsort(counts.sum(axis=1))
    right.plot(np.maximum(counts.sum(axis=1)[rank], 0.8), most[rank], color=MUTED, lw=1.0, ls=":")
    _log(right.set_xscale, right.xaxis)
    right.set_ylim(top=np.log2(len(counts)) * 1.05)
    right.annotate(
        "dotted: the most that so few tokens can show",
        (0.98, 0.985),
        xycoords="axes fraction",
        ha="right",
        va="top",
        color=MUTED,
        fontsize=9,
    )
    _label(right, "How open the next code is", "times seen", "entropy of the next code, bits")
    return _png(figure)


def memory_picture(found: Memory, entropy_bits: float) -> bytes:
    """How much a token says about later ones, by lag."""
    figure, axes = _figure(10, 4.4, 1, 1)
    share = 100.0 / max(entropy_bits, 1e-9)
    x = np.arange(len(found.lags))
    axes.bar(x, found.bits * share, width=0.7, color=BLUE, alpha=0.85)
    if len(x):
        band = 2.0 * share * np.concatenate([found.noise[:1], found.noise, found.noise[-1:]])
        at = np.concatenate([[-0.6], x, [len(x) - 0.4]])
        label = "two standard deviations of shuffled tokens"
        axes.fill_between(at, -band, band, color=SAND, alpha=0.3, lw=0.0, label=label)
        axes.legend(frameon=False, loc="upper right")
    else:
        axes.annotate("too few tokens to tell", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED)
    axes.axhline(0.0, color=INK, lw=0.8)
    axes.set_xticks(x, [str(lag) for lag in found.lags.tolist()])
    axes.set_xlim(-0.6, max(len(x), 1) - 0.4)
    _label(axes, "How much a token says about a later one", "lag, bars", "mutual information, % of a token's entropy")
    return _png(figure)


def grams_picture(found: Sequence[Gram], code_moves: Floats | None, config: FeatureConfig | None) -> bytes:
    """The sequences that stand out, with the bars that they tell where those are known."""
    lines = max(len(found), 1)
    length = max((len(gram.codes) for gram in found), default=2)
    figure, (left, right) = _figure(11.5, 1.3 + 0.42 * lines, 1, 2, width_ratios=[0.4 + 0.12 * length, 2.0])
    for line, gram in enumerate(found):
        said = "  ".join(str(code) for code in gram.codes)
        if code_moves is None or config is None:
            left.annotate(said, (0.5, line), ha="center", va="center", color=INK)
            continue
        left.annotate(said, (0.0, line), (-6, 0), textcoords="offset points", ha="right", va="center", color=INK)
        _path(left, line, code_moves[list(gram.codes)], config)
    left.set_xlim(0.0, 1.0)
    for axes in (left, right):
        axes.set_ylim(lines - 0.4, -0.6)
    _bare(left)
    left.set_xticks([])
    left.set_yticks([])
    left.spines[["left", "bottom"]].set_visible(False)
    title = "Codes" if code_moves is None else "Codes, and the bars that they tell"
    left.set_title(title, loc="left", color=INK, fontsize=11)
    at = np.arange(len(found))
    right.hlines(at, [g.expected for g in found], [g.count for g in found], color=RULE, lw=3)
    right.plot([g.expected for g in found], at, "o", color=SAND, ms=6, label="expected of independent codes")
    right.plot([g.count for g in found], at, "o", color=BLUE, ms=6, label="seen")
    if found:
        _log(right.set_xscale, right.xaxis)
        right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.55 / lines - 0.03), ncols=2)
    right.set_yticks([])
    _label(right, f"The {len(found)} sequences that stand out most", "times", "")
    return _png(figure)


def surprise_picture(rows: Sequence[TokenRow], found: Surprise, named: Sequence[Outlier]) -> bytes:
    """Bits of the tokens that the model had not seen: how they are spread, through time, and the outliers."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure, (left, right) = _figure(12, 4.6, 1, 2, width_ratios=[1.0, 1.7])
    bits = found.after(found.bigram)
    single = found.after(found.unigram)
    if len(bits):
        edges = np.linspace(0.0, max(float(bits.max()), float(single.max()), 1.0), 50)
        left.hist(single, edges, histtype="step", color=SAND, lw=1.6, label=f"unigram, mean {single.mean():.2f}")
        left.hist(bits, edges, color=BLUE, alpha=0.75, label=f"bigram, mean {bits.mean():.2f}")
        left.set_yscale("log")
        left.legend(frameon=False, loc="upper left")
        left.set_ylim(top=left.get_ylim()[1] * 6.0)  # room for the legend
    _label(left, "Bits of a token that was not learned from", "bits", "tokens")
    timed = bool(rows) and all(row.close_time is not None for row in rows)
    xs, ys = [], []
    for row, one, start in zip(rows, found.bigram, found.judged_from, strict=True):
        first = max(start, 1)
        xs.append(_when(row, np.arange(first, len(row))))
        ys.append(one[first:])
    x, y = (np.concatenate(xs), np.concatenate(ys)) if xs else (np.empty(0), np.empty(0))
    thin = np.arange(0, len(x), max(1, len(x) // _POINTS_MAX))
    right.plot(x[thin], y[thin], ".", color=BLUE, ms=2.5, alpha=0.35, rasterized=True)
    for rank, outlier in enumerate(named, 1):
        when = _when(rows[outlier.row], np.array([outlier.index]))
        right.plot(when, [outlier.bits], "o", mfc="none", mec=FALL, ms=7)
        if rank <= _NAMED:
            spot, side = (when[0], outlier.bits), _free_side(rows, named, rank - 1)
            right.annotate(
                str(rank),
                spot,
                (6 * side, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                color=FALL,
                fontsize=8,
            )
    said = [f"{rank}  {_moved(outlier)}" for rank, outlier in enumerate(named[:_NAMED], 1)]
    right.annotate(
        "     ".join(said), (1.0, 0.99), xycoords="axes fraction", ha="right", va="top", color=FALL, fontsize=8
    )
    if timed:
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        right.xaxis.set_major_locator(locator)
        right.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    right.margins(x=0.02, y=0.15)
    _label(right, "Through time; circled, the outliers", "close, UTC" if timed else "token", "bits under the bigram")
    return _png(figure)


def returns_picture(found: CodeReturns, order: Ints) -> bytes:
    """What each code means for prices: its own return and size, and what came after it."""
    figure, panels = _figure(12, 7.2, 2, 2)
    (own, size), (after, next_size) = panels
    x = np.arange(len(order))
    low, quarter, middle, three, high = found.quantiles[order].T
    own.fill_between(x, low, high, color=BLUE, alpha=0.15, lw=0.0, label="90 %")
    own.fill_between(x, quarter, three, color=BLUE, alpha=0.35, lw=0.0, label="50 %")
    own.plot(x, middle, color=BLUE, lw=1.4, label="median")
    own.legend(frameon=False, loc="upper left")
    _label(own, "Return of the code's own bar", "", "scales")
    size.plot(x, found.size[order], ".", color=BLUE, ms=7)
    _log(size.set_yscale, size.yaxis)
    _label(size, "Size of the code's own return", "", "root mean square, scales")
    enough = found.next_count[order] >= 30
    error = 2.0 * found.next_error[order][enough]
    after.errorbar(x[enough], found.next_mean[order][enough], error, fmt=".", ms=5, color=BLUE, ecolor=SAND, lw=1.0)
    after.axhline(0.0, color=INK, lw=0.8)
    _label(after, "Return of the next bar, with two standard errors", "code, by its return", "mean, scales")
    next_size.plot(x[enough], found.next_size[order][enough], ".", color=BLUE, ms=7)
    everything = found.next_count > 0
    weight = found.next_count[everything]
    usual = float(np.sqrt(np.average(np.square(np.nan_to_num(found.next_size[everything])), weights=weight)))
    next_size.axhline(usual, color=MUTED, lw=1.0, ls=":")
    _label(
        next_size,
        "Size of the next bar's return; dotted, after any bar",
        "code, by its return",
        "root mean square, scales",
    )
    return _png(figure)


def _free_side(rows: Sequence[TokenRow], named: Sequence[Outlier], which: int) -> int:
    """On which side of an outlier the nearest other one is not: 1 is right."""
    at = [int(_when(rows[one.row], np.array([one.index])).astype(np.int64)[0]) for one in named]
    others = [place - at[which] for i, place in enumerate(at) if i != which]
    return -1 if others and min(others, key=abs) > 0 else 1


def _moved(outlier: Outlier) -> str:
    if outlier.z is None:
        return f"{outlier.token} after {outlier.before}"
    name = outlier.symbol if len(outlier.symbol) <= _NAME_MAX else f"{outlier.symbol[: _NAME_MAX - 1]}…"
    return f"{name} {outlier.z:+.1f} scales"


def _when(row: TokenRow, index: Ints) -> npt.NDArray[Any]:
    return index if row.close_time is None else row.close_time[index].astype("datetime64[ns]")


def _candle(
    axes: Any, x: float, move: Floats, start: float, config: FeatureConfig, *, alpha: float, width: float = 0.62
) -> tuple[float, float]:
    """Draw one bar, as moves in scales from `start`; gives its low and high."""
    from matplotlib.patches import Rectangle

    said = dict(zip(config.names, move.tolist(), strict=True))
    opened, close = start + said.get("gap", 0.0), start + said["close"]
    high = max(opened, close) + said.get("upper wick", 0.0)
    low = min(opened, close) - said.get("lower wick", 0.0)
    colour = RISE if close >= opened else FALL
    wicks = [low, max(opened, close)], [min(opened, close), high]  # not behind the body: it is transparent
    axes.vlines([x, x], *wicks, color=colour, lw=1.1, alpha=alpha)
    height = max(abs(close - opened), 0.01 * max(high - low, 1e-9))
    axes.add_patch(Rectangle((x - width / 2, min(opened, close)), width, height, fc=colour, ec=colour, alpha=alpha))
    return min(low, start), max(high, start)


def _path(axes: Any, line: int, said: Floats, config: FeatureConfig) -> None:
    """The bars of one sequence as a small chart within its line, which is one unit high."""
    inset = axes.inset_axes((0.02, line - 0.42, 0.96, 0.84), transform=axes.transData)
    start, low, high = 0.0, 0.0, 0.0
    for x, move in enumerate(said):
        reach = _candle(inset, x, move, start, config, alpha=1.0)
        low, high = min(low, reach[0]), max(high, reach[1])
        start += float(move[config.close_index])
    pad = 0.08 * max(high - low, 1e-9)
    inset.set_xlim(-0.7, len(said) - 0.3)
    inset.set_ylim(low - pad, high + pad)
    inset.axhline(0.0, color=MUTED, lw=0.6, ls=":", zorder=0)
    inset.axis("off")


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("falls and rises", [FALL, "#f3d9cf", "#fbfbfa", "#cfe6e1", RISE])


def _figure(width: float, height: float, lines: int, columns: int, **ratios: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: half a second that only pictures need
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(lines, columns, **ratios)


def _log(set_scale: Any, axis: Any) -> None:
    """A logarithmic axis with numbers as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
    _bare(axes)


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b9c0c6")
    axes.tick_params(colors=MUTED, labelsize=8)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the default names a version: bytes would differ
    return buffer.getvalue()
