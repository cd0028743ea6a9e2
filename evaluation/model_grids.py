"""The tables and sentences of a model's report; page, terminal and documentation show the same."""

from evaluation.bootstrap import NO_EDGE, edge
from evaluation.direction import DIRECTION_DEFINITIONS
from evaluation.display import MISSING, PERCENT, date, signed
from evaluation.figures import Figure
from evaluation.grids import Grid
from evaluation.judge import RETURN_DEFINITIONS
from evaluation.model_document import ModelReport
from evaluation.model_figures import (
    FORECAST_DEFINITIONS,
    FORECASTS,
    MODEL,
    RECOMPUTED,
    VOLATILITIES,
    VOLATILITY_DEFINITIONS,
    ReturnPart,
    TokenPart,
)
from evaluation.ranks import RANK_DEFINITIONS
from evaluation.token_figures import TOKEN_DEFINITIONS

TOKEN_MODELS = {MODEL: "Model", RECOMPUTED: "Model, window recomputed", "bigram": "Bigram", "unigram": "Unigram"}
WORSE = "worse"


def verdicts(report: ModelReport) -> list[str]:
    """What the figures say, a sentence each; every difference with its interval, "no edge" where it includes zero."""
    pairs = {row.name: row.gain for row in report.tokens.rows}
    own = next(row for row in report.tokens.rows if row.name == MODEL).figures["bits"]
    said = [f"The next token costs {own:.3f} bits; over the bigram {_saved(pairs['bigram'], 'bits')}."]
    part = report.returns
    if part is None:
        return said
    rows = {row.name: row for row in part.rows}
    best = rows[part.strongest]
    said.append(
        f"The next return costs {rows[MODEL].figures['bits']:.3f} bits; over the strongest baseline, "
        f"“{FORECASTS[part.strongest]}”, {_saved(best.gains['bits'], 'bits')}, and in CRPS "
        f"{_saved(best.gains['crps'], 'volatilities')}."
    )
    rows_of = {row.name: row for row in part.volatility}
    ewma, garch = rows_of["random_walk"], rows_of["garch_t"]
    said.append(
        f"Expected variance: over EWMA {_saved(ewma.gain, 'QLIKE')}, over GARCH {_saved(garch.gain, 'QLIKE')}; against "
        f"ranges, over EWMA {_saved(ewma.range_gain, 'QLIKE')}, over GARCH {_saved(garch.range_gain, 'QLIKE')}."
    )
    sign = part.direction
    said.append(
        f"Direction: over a coin {_saved(sign.coin, 'bits')}, over what the sign before says "
        f"{_saved(sign.sign_before, 'bits')}; right on {percent(sign.accuracy.value or 0.0)} of the "
        f"bars that moved, the majority sign on {percent(sign.majority)}: {_against(sign.above_majority)}."
    )
    return said


def heading(report: ModelReport) -> str:
    """What was judged, in one sentence."""
    bars = sum(one.bars for one in report.judged)
    symbols = "1 symbol" if len(report.judged) == 1 else f"{len(report.judged)} symbols"
    first, last = min(one.first for one in report.judged), max(one.last for one in report.judged)
    if report.window.in_sample:
        sample = "in the training window"
    elif report.window.end < report.checkpoint.training_start:
        sample = "before the training window"
    else:
        sample = "after the training window and its embargo"
    return f"{bars:,} bars of {symbols}, {date(first)} to {date(last)}, {sample}."


def return_grids(report: ModelReport) -> list[Grid]:
    """The tables of the return forecast; none where only tokens were judged."""
    part = report.returns
    if part is None:
        return []
    grids = [returns_grid(part), gains_grid(part), volatility_grid(part), direction_grid(part)]
    grids.append(ranks_grid(part))
    grids.append(overfitting_grid(report))
    if len(part.symbols) > 1:
        grids.append(symbols_grid(part))
    return grids


def tokens_grid(part: TokenPart) -> Grid:
    shown = ("bits", "cross_entropy", "perplexity", "accuracy", "top_5")
    rows = []
    for row in part.rows:
        figures = row.figures
        words = (
            f"{figures['bits']:.4f}",
            f"{figures['cross_entropy']:.4f}",
            f"{figures['perplexity']:.2f}",
            percent(figures["accuracy"]),
            percent(figures["top_5"]),
        )
        rows.append((TOKEN_MODELS[row.name], *words, gained(row.gain, 4)))
    return Grid(
        title="Next token",
        note=f"{part.tokens:,} tokens; {part.vocabulary} codes, code perplexity {part.code_perplexity:.1f}; the "
        f"counts of unigram and bigram are of {part.training_tokens:,} training tokens. These figures are of this "
        "tokenizer alone, and say nothing of returns.",
        heads=("Model", "Bits", "Nats", "Perplexity", "Accuracy", "Top 5", "Bits that the model saves"),
        rows=tuple(rows),
        definitions=(
            *((name, TOKEN_DEFINITIONS[key]) for name, key in zip(_TOKEN_HEADS, shown, strict=True)),
            ("Code perplexity", TOKEN_DEFINITIONS["code_perplexity"]),
        ),
    )


_TOKEN_HEADS = ("Bits", "Nats", "Perplexity", "Accuracy", "Top 5")


def returns_grid(part: ReturnPart) -> Grid:
    rows = []
    for row in part.rows:
        f = row.figures
        numbers = (f"{f['bits']:.4f}", f"{f['bits_plain']:.4f}", f"{f['crps']:.4f}", f"{f['pinball']:.4f}")
        rows.append(
            (
                FORECASTS[row.name],
                *numbers,
                percent(f["coverage_50"]),
                percent(f["coverage_90"]),
                f"{f['width_90']:.3f}",
                f"{f['pit']:.3f}",
            )
        )
    heads = ("Bits", "Bits, plain", "CRPS", "Pinball", "In 50\u00a0%", "In 90\u00a0%", "Width 90\u00a0%", "PIT")
    keys = ("bits", "bits_plain", "crps", "pinball", "coverage_50", "coverage_90", "width_90", "pit")
    return Grid(
        title="Next return",
        note=f"{part.bars:,} bars, all forecasts on the same ones. Less is better for bits, CRPS and pinball.",
        heads=("Forecast", *heads),
        rows=tuple(rows),
        definitions=(
            *((head, RETURN_DEFINITIONS[key]) for head, key in zip(heads, keys, strict=True)),
            *((FORECASTS[row.name], FORECAST_DEFINITIONS[row.name]) for row in part.rows),
        ),
    )


def gains_grid(part: ReturnPart) -> Grid:
    rows = tuple(
        (FORECASTS[row.name], *(gained(row.gains[loss], 4) for loss in ("bits", "bits_plain", "crps")))
        for row in part.rows
        if row.gains
    )
    return Grid(
        title="What the model saves over each forecast",
        note="Below each difference its 95 % interval, by days. “No edge” where that includes zero. "
        f"The strongest baseline in bits: {FORECASTS[part.strongest]}.",
        heads=("Over", "Bits", "Bits, plain", "CRPS"),
        rows=rows,
    )


def volatility_grid(part: ReturnPart) -> Grid:
    rows = tuple(
        (
            VOLATILITIES[row.name],
            f"{row.ratio:.3f}",
            f"{row.qlike:.4f}",
            gained(row.gain, 4),
            f"{row.range_qlike:.4f}",
            gained(row.range_gain, 4),
        )
        for row in part.volatility
    )
    keys = {"Realised / expected": "ratio", "QLIKE": "qlike", "Model saves": "gain", "QLIKE, range": "range_qlike"}
    return Grid(
        title="Volatility",
        note="Expected against realised squared return of the next bar, and against what its range says of it.",
        heads=("Forecast", *keys, "Model saves"),
        rows=rows,
        definitions=tuple((head, VOLATILITY_DEFINITIONS[key]) for head, key in keys.items()),
    )


def direction_grid(part: ReturnPart) -> Grid:
    found = part.direction
    rows = (
        ("Log-loss, bits", _plain(found.log_loss, 4), "a coin: 1", gained(found.coin, 4)),
        ("Log-loss, bits", _plain(found.log_loss, 4), "the base rate of training", gained(found.base_rate, 4)),
        ("Log-loss, bits", _plain(found.log_loss, 4), "the sign before", gained(found.sign_before, 4)),
        (
            "Accuracy",
            _share(found.accuracy),
            f"the majority sign: {percent(found.majority)}",
            gained(found.above_majority, 1, points=True),
        ),
    )
    return Grid(
        title="Direction",
        note=f"The sign of {found.bars:,} bars that moved.",
        heads=("Figure", "Model", "Against", "Better by"),
        rows=rows,
        definitions=tuple((key.replace("_", " ").capitalize(), text) for key, text in DIRECTION_DEFINITIONS.items()),
    )


def ranks_grid(part: ReturnPart) -> Grid:
    found = part.ranks
    missing = found.ic.reason
    rows = (
        ("IC", gained(found.ic, 4), _plain(found.ic_t, 2)),
        ("RankIC", gained(found.rank_ic, 4), _plain(found.rank_ic_t, 2)),
    )
    said = f"{found.instants:,} instants of up to {found.symbols} symbols; Newey-West with {found.lags} lags."
    return Grid(
        title="Cross-section",
        note=f"None: {missing}." if missing else said,
        heads=("Figure", "Mean", "t"),
        rows=() if missing else rows,
        definitions=tuple(
            (head, RANK_DEFINITIONS[key]) for head, key in (("IC", "ic"), ("RankIC", "rank_ic"), ("t", "t"))
        ),
    )


def overfitting_grid(report: ModelReport) -> Grid:
    found = report.overfitting
    rows = () if found.value is None else (("PBO", percent(found.value)),)
    return Grid(
        title="Overfitting of a sweep",
        note=f"None: {found.reason}."
        if found.value is None
        else f"Probability that the best of {len(report.sweep)} checkpoints by CRPS is below the median out of sample, "
        "by combinatorially symmetric cross-validation of days.",
        heads=("Figure", "Value"),
        rows=rows,
    )


def symbols_grid(part: ReturnPart) -> Grid:
    rows = tuple(
        (
            row.symbol,
            f"{row.bars:,}",
            f"{row.bits:.4f}",
            gained(row.gain, 4),
            gained(row.crps_gain, 4),
            percent(row.coverage_90),
        )
        for row in part.symbols
    )
    return Grid(
        title="By symbol",
        note=f"Against the strongest baseline over all symbols, {FORECASTS[part.strongest]}.",
        heads=("Symbol", "Bars", "Bits", "Bits saved", "CRPS saved", "In 90\u00a0%"),
        rows=rows,
        tall=True,
    )


def size_grid(report: ModelReport) -> Grid:
    size = report.size
    rows = (
        ("Parameters", f"{size.parameters:,}"),
        ("Weights file", f"{size.weights_bytes / 1e6:,.2f} MB"),
        ("Context", f"{size.context:,} bars"),
        ("Multiply-adds a decoded token", f"{size.multiply_adds / 1e6:,.2f} million"),
        ("Cache of a symbol", f"{size.cache_bytes / 1e6:,.2f} MB"),
    )
    return Grid(title="Size and cost", note="By counting, context full.", heads=("Of", "Is"), rows=rows)


def percent(value: float) -> str:
    return f"{100.0 * value:.1f}{PERCENT}"


def difference(value: float, digits: int) -> str:
    return signed(f"{value:+.{digits}f}")


def gained(figure: Figure | None, digits: int, *, points: bool = False) -> str:
    """'+0.0123 better' over its interval, '+0.0010 no edge'; of a difference of shares '+1.2 points better'."""
    if figure is None:
        return ""
    if figure.value is None:
        return f"{MISSING}\n{figure.reason}"
    factor, unit = (100.0, " points") if points else (1.0, "")
    lead = f"{difference(factor * figure.value, digits)}{unit} {edge(figure)}"
    if figure.interval is None:
        return f"{lead}\ntoo few days for an interval"
    low, high = (difference(factor * end, digits) for end in figure.interval)
    return f"{lead}\n{low} to {high}"


def _plain(figure: Figure, digits: int) -> str:
    if figure.value is None:
        return MISSING
    text = signed(f"{figure.value:.{digits}f}")
    if figure.interval is None:
        return text
    low, high = figure.interval
    return f"{text}\n{signed(f'{low:.{digits}f}')} to {signed(f'{high:.{digits}f}')}"


def _share(figure: Figure) -> str:
    if figure.value is None:
        return MISSING
    if figure.interval is None:
        return percent(figure.value)
    return f"{percent(figure.value)}\n{percent(figure.interval[0])} to {percent(figure.interval[1])}"


def _saved(figure: Figure | None, unit: str) -> str:
    if figure is None or figure.value is None:
        return f"nothing can be said ({'' if figure is None else figure.reason})"
    if figure.interval is None:
        return f"{NO_EDGE}: too few days for an interval"
    low, high = (difference(end, 4) for end in figure.interval)
    found = edge(figure)
    if found == NO_EDGE:
        return f"{NO_EDGE} ({difference(figure.value, 4)} {unit}, 95 %: {low} to {high})"
    side = "it loses" if found == WORSE else "it saves"
    return f"{side} {abs(figure.value):.4f} {unit} (95 %: {low} to {high})"


def _against(figure: Figure) -> str:
    """What a difference of shares says, its interval in percent."""
    if figure.interval is None:
        return f"{NO_EDGE}, too few days for an interval"
    low, high = (signed(f"{100.0 * end:+.1f}") for end in figure.interval)
    return f"{edge(figure)} (difference, 95 %: {low} to {high} points)"
