"""What a run leaves to look at: a CSV file, TensorBoard events, progress with its end in sight, curves as a picture."""

import csv
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from configs.load import ConfigError

COLUMNS = ("step", "loss", "validation_loss", "lr", "grad_norm", "tokens", "seconds", "tokens_per_s")
LOG = "log.csv"  # of a run, in the folder of its work
UNITS = {"bits": math.log(2.0), "nats": 1.0}  # that losses are told in, and how many nats one has
_INK, _GRAY, _BLUE, _ORANGE = "#1f2933", "#8a94a0", "#2a6fbb", "#d9730d"


class Told(Protocol):
    """Who hears how far the training is."""

    def __call__(self, step: int, words: str) -> None: ...


class Log:
    """Rows of a CSV file, each on disk when it is written, and the same as TensorBoard scalars where wanted.

    Args:
        folder: for log.csv and the event files.
        step: rows after it are of a run that was killed, and are dropped; 0 begins anew.
    Raises:
        ConfigError: TensorBoard is wanted and tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int = 0, *, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LOG
        kept = [row for row in read_log(self.path) if row["step"] <= step] if step else []
        self._before_s = max((row["seconds"] for row in kept), default=0.0)
        self._began = time.perf_counter()
        self._tokens = max((row["tokens"] for row in kept), default=0)
        self._last = (self._before_s, self._tokens)
        self._events = _events(folder, step) if tensorboard else None
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            writer.writerows([_cell(row.get(name)) for name in COLUMNS] for row in kept)
        partial.replace(self.path)
        self._stream = self.path.open("a", newline="")
        self._writer = csv.writer(self._stream)

    def row(self, step: int, tokens: int, **values: float) -> None:
        """Note the figures of a step.

        Args:
            tokens: seen so far, repeats included.
            values: of the other COLUMNS but the times, which are measured here.
        """
        now = self._before_s + time.perf_counter() - self._began
        seconds, seen = self._last
        rate = (tokens - seen) / (now - seconds) if now > seconds else math.nan
        self._last = (now, tokens)
        row: dict[str, Any] = {"step": step, "tokens": tokens, "seconds": round(now, 3), **values}
        row["tokens_per_s"] = round(rate, 1)
        self._writer.writerow([_cell(row.get(name)) for name in COLUMNS])
        self._stream.flush()
        if self._events is not None:
            for name in COLUMNS[1:]:
                if name in row:
                    self._events.add_scalar(name, row[name], step)
            self._events.flush()

    def close(self) -> None:
        self._stream.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log.csv, without what its writer did not get to the end of."""
    if not path.exists():
        return []
    rows = []
    with path.open(newline="") as stream:
        for cells in csv.DictReader(stream):
            try:
                rows.append({name: float(text) for name, text in cells.items() if name and text})
            except (TypeError, ValueError):
                break
    return [{**row, "step": int(row["step"])} for row in rows if {"step", "tokens", "seconds"} <= set(row)]


def draw(rows: list[dict[str, float]], path: Path, title: str, *, unit: str = "bits") -> None:
    """Loss of training and of validation over steps, in one of UNITS, and where validation was best."""
    from matplotlib.figure import Figure

    scale = 1.0 / UNITS[unit]
    train = [(row["step"], row["loss"] * scale) for row in rows if "loss" in row]
    judged = [(row["step"], row["validation_loss"] * scale) for row in rows if "validation_loss" in row]
    figure = Figure(figsize=(8.0, 4.5), dpi=144, layout="constrained")
    axes = figure.subplots()
    if train:
        axes.plot(*zip(*train, strict=True), color=_GRAY, linewidth=1.0, label="training")
    if judged:
        axes.plot(*zip(*judged, strict=True), color=_BLUE, linewidth=1.8, marker="o", markersize=3, label="validation")
        step, best = min(judged, key=lambda point: point[1])
        axes.plot([step], [best], "o", color=_ORANGE, markersize=7)
        note = f"best {best:.3f} at step {step:,.0f}"
        late = step > 0.6 * max(s for s, _ in judged)
        axes.annotate(
            note,
            (step, best),
            xytext=(0, -16),
            textcoords="offset points",
            ha="right" if late else "left",
            color=_ORANGE,
        )
        axes.margins(y=0.12)
    axes.set_xlabel("step")
    axes.set_ylabel(f"{unit} a token")
    axes.set_title(title, loc="left", color=_INK, fontweight="bold")
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if train or judged:
        axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, metadata={"Software": None})


@contextmanager
def progress(title: str, steps: int, *, quiet: bool) -> Iterator[Told]:
    """A bar on stderr with the time that is left; where stderr is no terminal, a line now and then."""
    console = Console(stderr=True)
    if quiet:
        yield lambda step, words: None
        return
    if not console.is_terminal:
        yield _Lines(title, steps, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(title, total=steps, words="")

        def told(step: int, words: str) -> None:
            shown.update(task, completed=step)
            if words:
                shown.update(task, words=words)

        yield told


class _Lines:
    """One line for each tenth of the way, with the time that is left."""

    def __init__(self, title: str, steps: int, console: Console) -> None:
        self._title, self._steps, self._console = title, steps, console
        self._began, self._first = 0.0, -1
        self._tenth, self._words = 0, ""

    def __call__(self, step: int, words: str) -> None:
        self._words = words or self._words
        tenth = 10 * step // self._steps
        if self._first < 0:  # of a resumed run it is not 1; what came before it, loading and all, is no step
            self._first, self._tenth, self._began = step, tenth, time.perf_counter()
        elif tenth > self._tenth:
            self._tenth = tenth
            each = (time.perf_counter() - self._began) / (step - self._first)
            left = each * (self._steps - step)
            line = f"{self._title}: step {step} of {self._steps}, at most {left:.0f} s left {self._words}"
            self._console.print(line.rstrip(), highlight=False, soft_wrap=True)


def _events(folder: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard = true wants the package tensorboardX: pip install 'ticktorch[train]'") from None
    # What a killed run noted after the step is struck out by TensorBoard itself.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
