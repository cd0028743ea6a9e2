"""A checkpoint over data: which bars it may be judged on, and what it foretold for each.

This is the one module here that knows checkpoints, tokenizers and files. It imports them where they are used, so that
the figures stay free of torch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evaluation.run import Ints, moment
from evaluation.tracks import Bools, Size, Track, Window
from evaluation.volatility import range_variance

if TYPE_CHECKING:
    from models.fingpt import FinGPT
    from models.manifest import Manifest
    from tokenizer.bars import BarSeries
    from tokenizer.codec import Codec

    Form = Callable[[FinGPT, str, Ints, Ints, Ints], npt.NDArray[np.float32]]

CHUNK = 1_024  # decisions computed at once
WINDOWS = 32  # computed at once where each decision has its own
DECODES = 200  # steps that decoding is timed over
_EPOCH = datetime(1970, 1, 1)


class SubjectError(Exception):
    """A checkpoint that cannot be judged on these data; the message is one sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is judged."""

    folder: Path
    manifest: "Manifest"
    codec: "Codec"
    model: "FinGPT"


def load_subject(folder: Path) -> Subject:
    """Read a checkpoint that holds a model and its tokenizer.

    Raises:
        SubjectError: it holds no model, or no tokenizer.
        CheckpointError: it cannot be used.
    """
    from models.checkpoint import read_manifest
    from models.fingpt import FinGPT
    from tokenizer.codec import Codec

    manifest = read_manifest(folder)
    if manifest.kind != "fingpt":
        raise SubjectError(f"want a checkpoint of kind fingpt, {folder} is of kind {manifest.kind}")
    if manifest.codec is None:
        raise SubjectError(f"{folder} was trained on bare tokens: without a tokenizer, bars say nothing to it")
    return Subject(folder, manifest, Codec.load(folder), FinGPT.load(folder))


def load_data(paths: Sequence[Path], *, bar: str, time_zone: str, stamp: str) -> dict[str, "BarSeries"]:
    """The bars of training configs (.toml: their feeds) and of market data files.

    Args:
        bar, time_zone, stamp: of plain files; see `feeds.files.Source`.

    Raises:
        ConfigError, DataError: a file cannot be used.
    """
    from trainer import data

    return data.load_data(paths, bar=bar, time_zone=time_zone, stamp=stamp)


def data_digest(series: Mapping[str, "BarSeries"]) -> str:
    """The sha256 by which manifests name data."""
    from trainer.data import digest

    return digest(series)


def choose_window(
    subject: Subject,
    series: Mapping[str, "BarSeries"],
    start: datetime | None,
    end: datetime | None,
    *,
    allow_in_sample: bool,
) -> Window:
    """The window of decisions: what is asked for, else all that comes after the training window and its embargo.

    Raises:
        SubjectError: nothing is known of the training window, nothing is left after it, the bars have another length,
            or the window overlaps it without leave.
    """
    training = subject.manifest.training
    if training.start is None or training.guard_end is None:
        raise SubjectError("the training window is not known: no bar is out of sample, and no baseline can be fitted")
    if not series:
        raise SubjectError("want bars of at least one symbol, was none")
    for bars in series.values():
        if bars.bar_s != training.bar_s:
            raise SubjectError(f"want bars of {training.bar_s:g} s as in training, {bars.symbol} has {bars.bar_s:g} s")
    last = moment(max(int(bars.close_time[-1]) for bars in series.values()))
    first = training.guard_end + timedelta(microseconds=1) if start is None else start
    final = last if end is None else min(end, last)
    if end is not None and first > end:
        raise SubjectError(f"no bar is left to judge: decisions would start at {first}, and end at {end}")
    if first > final:
        raise SubjectError(f"no bar is left to judge: decisions would start at {first}, and the data end at {final}")
    overlaps = subject.manifest.overlap(first, final)
    if overlaps and not allow_in_sample:
        raise SubjectError(
            f"{first} to {final} overlaps what the checkpoint has seen, {training.start} to {training.guard_end} "
            "with its embargo: judge later bars, or say --allow-in-sample, and every figure is marked"
        )
    return Window(start=first, end=final, in_sample=overlaps)


def foretell(
    subject: Subject, series: Mapping[str, "BarSeries"], window: Window, *, recompute: bool = False
) -> tuple[Track, ...]:
    """Run the checkpoint over every symbol; symbols without a judged bar are left out.

    The model sees each symbol as an unbroken stream of tokens, as it does behind its cache; bars before the window are
    context and nothing else.

    Args:
        recompute: compute each forecast a second time, from the last `context` tokens alone.
    """
    tracks = (_track(subject, bars, window, recompute=recompute) for bars in series.values() if len(bars) > 1)
    return tuple(track for track in tracks if track.judged.any())


def training_tokens(subject: Subject, series: Mapping[str, "BarSeries"]) -> list[Ints]:
    """What unigram and bigram are counted on: all tokens of the training window, validation included, of every symbol
    that the checkpoint was trained on, a sequence each.

    Where the data have no bar of these symbols in the window, the other symbols lend theirs.
    """
    training = subject.manifest.training
    assert training.start is not None
    assert training.end is not None
    start, end = nanoseconds(training.start), nanoseconds(training.end)
    found: dict[str, Ints] = {}
    for symbol, bars in series.items():
        tokens = subject.codec.encode(bars).tokens
        found[symbol] = tokens[(bars.close_time >= start) & (bars.close_time <= end) & (tokens >= 0)]
    own = [tokens for symbol, tokens in found.items() if symbol in training.symbols and len(tokens)]
    return own or [tokens for tokens in found.values() if len(tokens)]


def _track(subject: Subject, bars: "BarSeries", window: Window, *, recompute: bool) -> Track:
    training = subject.manifest.training
    assert training.start is not None
    assert training.end is not None
    encoded = subject.codec.encode(bars)
    times, tokens = bars.close_time, encoded.tokens
    decided = np.concatenate([times[:1], times[:-1]])  # (n,) a bar is foretold at the close of the one before
    known = (tokens >= 0) & (np.concatenate([[-1], tokens[:-1]]) >= 0)
    judged = known & (decided >= nanoseconds(window.start)) & (decided <= nanoseconds(window.end))
    seen = (times >= nanoseconds(training.start)) & (times <= nanoseconds(training.end))
    rest = slice(1, None)  # the first bar has no return
    return Track(
        symbol=bars.symbol,
        times=times[rest],
        returns=encoded.returns[rest],
        ranges=range_variance(bars.open[rest], bars.high[rest], bars.low[rest], bars.close[:-1]),
        scale=encoded.scale[rest],
        tokens=tokens[rest],
        training=seen[rest],
        judged=judged[rest],
        probabilities=_probabilities(subject, bars.symbol, times, tokens, judged, window_probabilities),
        recomputed=_probabilities(subject, bars.symbol, times, tokens, judged, recomputed) if recompute else None,
    )


def _probabilities(
    subject: Subject, symbol: str, times: Ints, tokens: Ints, judged: Bools, form: "Form"
) -> npt.NDArray[np.float32]:
    from tokenizer.bars import hours_of_week

    rows = np.flatnonzero(tokens >= 0)
    if len(rows) and not (np.diff(rows) == 1).all():
        raise SubjectError(f"the tokens of {symbol} have holes: a bar after the warm-up has none")
    targets = np.flatnonzero(judged[rows]) - 1  # the position that foretells each, among those with a token
    if not len(targets):
        return np.empty((0, subject.codec.codes), np.float32)
    return form(subject.model, symbol, tokens[rows], hours_of_week(times[rows]), targets)


def window_probabilities(
    model: "FinGPT", symbol: str, tokens: Ints, hours: Ints, positions: Ints
) -> npt.NDArray[np.float32]:
    """The distribution after each of some positions of one stream, as decoding through the cache gives it.

    A position sees `context` tokens in each layer, so its logits depend on layers * (context - 1) tokens before it.
    Each chunk is computed with all of these in front.

    Args:
        tokens, hours: (n,)
        positions: (m,) rising, in [0, n).

    Returns:
        (m, V)
    """
    import torch

    config = model.config
    lead = config.layers * (config.context - 1)
    chunk = max(CHUNK, lead)
    index = torch.tensor([model.symbol_index(symbol)])
    found = np.empty((len(positions), config.vocabulary), np.float32)
    model.eval()
    done = 0
    with torch.inference_mode():
        while done < len(positions):
            first = int(positions[done])
            until = int(np.searchsorted(positions, first + chunk))
            begin, end = max(0, first - lead), int(positions[until - 1]) + 1
            logits = model(
                torch.from_numpy(tokens[begin:end])[None],
                torch.from_numpy(hours[begin:end])[None],
                index,
                window=config.context,
            )[0]  # (T, V)
            rows = torch.from_numpy(positions[done:until] - begin)
            found[done:until] = logits[rows].double().softmax(-1).float().numpy()
            done = until
    return found


def recomputed(model: "FinGPT", symbol: str, tokens: Ints, hours: Ints, positions: Ints) -> npt.NDArray[np.float32]:
    """As `window_probabilities`, of a model without a cache: each position is computed from the last `context` tokens
    alone. Up to the `context`th token both are the same; after it, what the layers of a cache remember of older tokens
    is missing here.
    """
    import torch

    context = model.config.context
    index = torch.tensor([model.symbol_index(symbol)])
    found = np.empty((len(positions), model.config.vocabulary), np.float32)
    early = np.flatnonzero(positions < context)
    if len(early):
        found[early] = window_probabilities(model, symbol, tokens, hours, positions[early])
    model.eval()
    with torch.inference_mode():
        for first in range(len(early), len(positions), WINDOWS):
            rows = slice(first, first + WINDOWS)
            inside = torch.from_numpy(positions[rows, None] + np.arange(1 - context, 1))  # (b, T)
            logits = model(
                torch.from_numpy(tokens)[inside], torch.from_numpy(hours)[inside], index.expand(len(inside))
            )[:, -1]  # (b, V)
            found[rows] = logits.double().softmax(-1).float().numpy()
    return found


def size_of(subject: Subject) -> Size:
    """Parameters, bytes and arithmetic of one decoded token."""
    config = subject.model.config
    width, head = config.width, config.head_dim
    block = width * (config.heads + 2 * config.kv_heads) * head + width * width + 2 * 4 * width * width
    attention = 2 * config.heads * head * config.context
    return Size(
        parameters=subject.manifest.parameters,
        weights_bytes=subject.manifest.weights_bytes,
        context=config.context,
        multiply_adds=config.layers * (block + attention) + width * config.vocabulary,
        cache_bytes=2 * 4 * config.layers * config.kv_heads * head * config.context,
    )


def decode_ms(subject: Subject) -> tuple[float, float]:
    """Median and 95th percentile of one decoding step with a full cache, one symbol, one thread, milliseconds."""
    import torch

    from models.kv_cache import KVCache

    config = subject.model.config
    cache = KVCache(config.layers, 1, config.kv_heads, config.context, config.head_dim)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            chance = np.random.default_rng(0)
            tokens = torch.from_numpy(chance.integers(0, config.vocabulary, config.context))
            hours = torch.zeros_like(tokens)
            subject.model.prefill(tokens, hours, torch.zeros(1, dtype=torch.long), cache, 0)
            spent = []
            for token in tokens[:1].repeat(DECODES):
                begin = time.perf_counter()
                subject.model.step(token[None], hours[:1], torch.zeros(1, dtype=torch.long), cache, [0])
                spent.append(1e3 * (time.perf_counter() - begin))
    finally:
        torch.set_num_threads(threads)
    middle, late = np.quantile(spent[DECODES // 10 :], [0.5, 0.95])
    return float(middle), float(late)


def nanoseconds(when: datetime) -> int:
    """Naive UTC as nanoseconds since 1970."""
    return (when - _EPOCH) // timedelta(microseconds=1) * 1_000
