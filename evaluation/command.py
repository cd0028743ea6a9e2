"""What `python -m evaluation.tokens` and `python -m evaluation.forecasts` share: flags, loading, writing."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from configs.command import leave_on_interrupt, run_command
from configs.outputs import check_writable
from evaluation import model_report, subject
from evaluation.figures import absent
from evaluation.model_document import Checkpoint, Judgement, ModelReport
from evaluation.model_figures import ReturnPart, return_part, sweep_part, token_part
from evaluation.run import Ints, moment
from evaluation.tracks import Track, Window

if TYPE_CHECKING:
    from tokenizer.bars import BarSeries

__all__ = ["leave_on_interrupt", "main"]

_DATA = "training configs (.toml: the bars of their feeds), or market data files: Parquet, Arrow or CSV"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user typed."""

    checkpoint: Path
    data: tuple[Path, ...]
    symbols: tuple[str, ...]
    bar: str
    time_zone: str
    stamp: str
    start: datetime | None
    end: datetime | None
    out: Path | None
    page: Path | None
    section: str
    title: str
    sweep: tuple[Path, ...]
    allow_in_sample: bool
    recompute: bool
    quiet: bool

    def __post_init__(self) -> None:
        if len({folder.resolve() for folder in self.checkpoints}) < len(self.checkpoints):
            raise ValueError(f"want different checkpoints in a sweep, was {', '.join(map(str, self.checkpoints))}")

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        return self.checkpoint, *self.sweep


def main(argv: Sequence[str], *, program: str, about: str, returns: bool) -> int:
    """Judge a checkpoint; 0 done, 2 it cannot be judged on these data, 130 interrupted."""
    from configs.load import ConfigError
    from feeds.errors import FeedError
    from models.checkpoint import CheckpointError

    def work() -> int:
        request = _parse(argv, program, about, returns=returns)
        _run(request, Console(stderr=True, quiet=request.quiet), returns=returns)
        return 0

    return run_command(program, work, (ConfigError, FeedError, CheckpointError, subject.SubjectError, ValueError))


def _run(request: Request, progress: Console, *, returns: bool) -> None:
    # What cannot work is better refused now than after the work.
    if request.out is not None:
        for name in model_report.FILES:
            check_writable(request.out / name)
    if request.page is not None:
        model_report.parts_of_page(request.page, request.section)
        check_writable(request.page)
    one, *others = (subject.load_subject(folder) for folder in request.checkpoints)
    bars = subject.load_data(request.data, bar=request.bar, time_zone=request.time_zone, stamp=request.stamp)
    if unknown := [symbol for symbol in request.symbols if symbol not in bars]:
        raise subject.SubjectError(f"want symbols among {', '.join(sorted(bars))}, was {', '.join(unknown)}")
    counted = subject.training_tokens(one, bars)
    if request.symbols:
        bars = {symbol: bars[symbol] for symbol in request.symbols}
    window = subject.choose_window(one, bars, request.start, request.end, allow_in_sample=request.allow_in_sample)
    for other in others:
        _check_sweep(other, bars, window)
    progress.print(f"foretelling {len(bars)} symbols with {request.checkpoint}")
    tracks = subject.foretell(one, bars, window, recompute=request.recompute)
    if not tracks:
        raise subject.SubjectError(f"no bar was foretold between {window.start} and {window.end}")
    overfitting = absent("needs a sweep of at least two configs")
    if others:
        runs, tables = {str(one.folder): tracks}, {str(one.folder): one.codec.returns_table}
        for other in others:
            progress.print(f"foretelling with {other.folder}")
            runs[str(other.folder)] = subject.foretell(other, bars, window)
            tables[str(other.folder)] = other.codec.returns_table
        overfitting = sweep_part(runs, tables)
    report = ModelReport(
        title=request.title or f"{request.checkpoint.name}: {'forecasts' if returns else 'tokens'}",
        checkpoint=_checkpoint(one),
        window=window,
        data_sha256=subject.data_digest(bars),
        judged=tuple(_judgement(track) for track in tracks),
        size=subject.size_of(one),
        tokens=token_part(tracks, counted, one.codec.codes),
        returns=_returns(one, tracks, counted, progress) if returns else None,
        overfitting=overfitting,
        sweep=tuple(map(str, request.checkpoints)) if others else (),
    )
    _deliver(request, one, report)


def _check_sweep(other: subject.Subject, bars: Mapping[str, "BarSeries"], window: Window) -> None:
    """Refuse a checkpoint that cannot be judged in the window, or has seen bars of it that the first one has not."""
    choice = subject.choose_window(other, bars, window.start, window.end, allow_in_sample=True)
    if choice.in_sample and not window.in_sample:
        raise subject.SubjectError(
            f"{other.folder} has seen bars that are judged: want --start after {other.manifest.training.guard_end}"
        )


def _returns(one: subject.Subject, tracks: Sequence[Track], counted: Sequence[Ints], progress: Console) -> ReturnPart:
    return return_part(tracks, one.codec.returns_table, counted, progress.print)


def _deliver(request: Request, one: subject.Subject, report: ModelReport) -> None:
    """Write, put into the documentation, and print. Measured times are printed only: files keep their bytes."""
    # Files come first: whoever reads what is printed may stop reading.
    written = () if request.out is None else model_report.write(request.out, report)
    if request.page is not None:
        model_report.update_page(request.page, request.section, model_report.markdown(report))
    if not request.quiet:
        console = Console()
        model_report.show(console, report)
        middle, late = subject.decode_ms(one)
        console.print(f"One decoding step, one thread, here and now: {middle:.2f} ms, 95 % within {late:.2f} ms.")
    for path in written:
        print(path)


def _checkpoint(one: subject.Subject) -> Checkpoint:
    manifest = one.manifest
    training = manifest.training
    assert manifest.codec is not None
    assert training.start is not None
    assert training.end is not None
    assert training.guard_end is not None
    return Checkpoint(
        name=one.folder.name,
        digest=manifest.digest,
        code=manifest.code,
        model=manifest.config,
        tokenizer=manifest.codec["config"],
        training_start=training.start,
        training_end=training.end,
        guard_end=training.guard_end,
        symbols=training.symbols,
        bar_s=training.bar_s,
        trials=training.trials,
        seed=training.seed,
        licence=training.licence,
    )


def _judgement(track: Track) -> Judgement:
    times = track.times[track.judged]
    return Judgement(symbol=track.symbol, bars=len(times), first=moment(int(times[0])), last=moment(int(times[-1])))


def _parse(argv: Sequence[str], program: str, about: str, *, returns: bool) -> Request:
    parser = argparse.ArgumentParser(
        prog=program,
        description=about,
        epilog="Exit codes: 0 done, 2 bad usage, config, data or checkpoint, 130 interrupted.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a model and its tokenizer")
    add("--data", type=Path, nargs="+", required=True, metavar="FILE", help=_DATA)
    add("--symbols", nargs="+", default=[], metavar="SYMBOL", help="judge these alone (default: all)")
    add("--bar", default="1h", help="length of the bars of data files (default: 1h)")
    add("--time-zone", default="UTC", help="of times without an offset in data files (default: UTC)")
    add("--stamp", default="open", choices=("open", "close"), help="what the time of a bar means (default: open)")
    add("--start", type=_date, metavar="DATE", help="first decision, UTC (default: when the embargo is over)")
    add("--end", type=_date, metavar="DATE", help="last decision, UTC (default: the end of the data)")
    add("--out", type=Path, metavar="FOLDER", help="write model.html and model.json there")
    add("--page", type=Path, metavar="FILE", help="put the tables into this Markdown page, between its markers")
    add("--section", default="", metavar="NAME", help="of the markers (default: the name of the checkpoint's folder)")
    add("--title", default="", help="of the report")
    if returns:
        add("--sweep", type=Path, nargs="+", default=[], metavar="CHECKPOINT", help="other configs: asks how likely "
            "the best of all is only lucky (PBO)")  # fmt: skip
    add("--allow-in-sample", action="store_true", help="judge bars that the checkpoint has seen; says on "
        "top that every figure is flattered")  # fmt: skip
    add("--recompute", action="store_true", help="foretell each token also from a window of its own, without the "
        "cache, and say what the cache saves in bits; takes minutes")  # fmt: skip
    add("--quiet", action="store_true", help="print only the paths of files written")
    found = parser.parse_args(list(argv))
    return Request(
        checkpoint=found.checkpoint,
        data=tuple(found.data),
        symbols=tuple(found.symbols),
        bar=found.bar,
        time_zone=found.time_zone,
        stamp=found.stamp,
        start=found.start,
        end=found.end,
        out=found.out,
        page=found.page,
        section=found.section or found.checkpoint.name,
        title=found.title,
        sweep=tuple(found.sweep) if returns else (),
        allow_in_sample=found.allow_in_sample,
        recompute=found.recompute,
        quiet=found.quiet,
    )


def _date(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"want a date such as 2019-01-31 or 2019-01-31T12:00, was {text!r}") from None
    if when.tzinfo is not None:
        raise argparse.ArgumentTypeError(f"want UTC without an offset, was {text!r}")
    return when
