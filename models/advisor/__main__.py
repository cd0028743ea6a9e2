"""`python -m models.advisor --file headlines.csv`: score a file of headlines in batches."""

import csv
import gzip
import io
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.command import leave_on_interrupt, run_command
from configs.flags import registry
from models.advisor.advice import GUARD, Advice, Advisor, AdvisorError, Headline, unread
from models.advisor.backends import BACKENDS, make
from models.advisor.guard import REASONS, inspect
from models.advisor.text import clean

PROGRAM = "python -m models.advisor"
COLUMNS = ("symbol", "action", "score", "confidence", "down", "flat", "up", "reason", "backend", "model_id", "text")

_TEXT_COLUMNS = ("headline", "text")
_BYTES_MAX = 1 << 30
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Score the headlines of a CSV file, .gz too: column headline or text, and symbol where there is one.

Each headline is cleaned first; one that speaks to its reader is HOLD and not read.

Exit codes: 0 done, 1 nobody answered, 2 bad usage, file or model, 130 interrupted.
"""


class FileError(Exception):
    """A file that cannot be read or written; the message says what was wanted."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the user typed."""

    file: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
    """headlines, CSV"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: print)")] = None
    """where the answers go, CSV"""
    backend: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(BACKENDS) + "}")] = "auto"
    """who answers; auto: gpt where its model is installed, else head"""
    model: str = ""
    """GGUF file or safetensors folder of gpt, score and generate; name at the server of chat"""
    checkpoint: str = ""
    """of the head, for head and gpt; without: the shipped one"""
    answers: str = ""
    """recorded answers, for replay"""
    url: str = ""
    """of the server, for chat"""
    batch: int = 32
    """headlines at once"""
    quiet: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """no progress"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        SystemExit: on --help, with 0; on a wrong flag, with 2.
    """
    return run_command(PROGRAM, lambda: _run(_parse(argv)), (AdvisorError, FileError))


def _parse(argv: Sequence[str]) -> Arguments:
    arguments = tyro.cli(
        Arguments, args=list(argv), prog=PROGRAM, description=_DESCRIPTION, registry=registry(), config=()
    )
    if arguments.backend not in BACKENDS:
        raise FileError(f"--backend must be one of {', '.join(BACKENDS)}, was {arguments.backend!r}")
    if not 1 <= arguments.batch <= 1024:
        raise FileError(f"--batch must lie in [1, 1024], was {arguments.batch}")
    return arguments


def _run(arguments: Arguments) -> int:
    headlines = read(arguments.file)
    if arguments.out is not None and arguments.out.resolve() == arguments.file.resolve():
        raise FileError(f"--out {arguments.out} would replace the headlines: name another file")
    read_ones, silent = 0, Counter[str]()
    counted = dict.fromkeys(("BUY_SIGNAL", "SELL_SIGNAL", "HOLD"), 0)
    made = make(
        arguments.backend,
        model=arguments.model,
        checkpoint=arguments.checkpoint,
        answers=arguments.answers,
        url=arguments.url,
    )
    with closing(made) as advisor, _target(arguments.out) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for headline, advice in scored(advisor, headlines, arguments.batch, quiet=arguments.quiet):
            counted[advice.action] += 1
            read_ones += advice.backend != GUARD
            if advice.backend != GUARD and not advice.confidence:
                silent[advice.reason] += 1
            chances = [f"{chance:.6f}" if advice.confidence else "" for chance in advice.probabilities]
            numbers = (f"{advice.score:.6f}", f"{advice.confidence:.6f}", *chances)
            told = (advice.reason, advice.backend, advice.model_id, clean(headline.text).text)
            table.writerow((_inert(advice.symbol), advice.action, *numbers, *map(_inert, told)))
    if arguments.out is not None and not arguments.quiet:
        said = ", ".join(f"{count} {action}" for action, count in counted.items())
        print(f"{len(headlines)} headlines by {advisor.model_id}: {said}; {arguments.out}")
    if silent:
        why = ", ".join(f"{reason} ({count})" for reason, count in silent.items())
        print(f"{PROGRAM}: {silent.total()} of {read_ones} headlines had no answer: {why}", file=sys.stderr)
    return 1 if read_ones and silent.total() == read_ones else 0


def read(path: Path) -> list[Headline]:
    """The headlines of a CSV file.

    Raises:
        FileError: it is missing, no CSV in UTF-8, or has no column headline or text.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
        if len(data) > _BYTES_MAX:
            raise FileError(f"want a file of at most {_BYTES_MAX:,} bytes at {path}, there are more")
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        column = next((name for name in _TEXT_COLUMNS if name in (rows.fieldnames or ())), None)
        if column is None:
            raise FileError(f"want a column headline or text in {path}, was {rows.fieldnames}")
        found = [Headline(text=row[column] or "", symbol=row.get("symbol") or "") for row in rows]
    except (OSError, EOFError, zlib.error) as exc:
        raise FileError(f"want headlines at {path}: {getattr(exc, 'strerror', None) or exc}") from None
    except (UnicodeDecodeError, csv.Error) as exc:
        raise FileError(f"want CSV in UTF-8 at {path}: {exc}") from None
    return found


def scored(
    advisor: Advisor, headlines: Sequence[Headline], batch: int, *, quiet: bool
) -> Iterator[tuple[Headline, Advice]]:
    """Each headline and its answer, in order; what the guard holds back is not read by the advisor."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as shown:
        task = shown.add_task("headlines", total=len(headlines))
        for start in range(0, len(headlines), batch):
            part = headlines[start : start + batch]
            verdicts = [inspect(headline.text) for headline in part]
            open_ones = [headline for headline, verdict in zip(part, verdicts, strict=True) if not verdict.held]
            answers = iter(advisor.advise(open_ones) if open_ones else [])
            for headline, verdict in zip(part, verdicts, strict=True):
                if verdict.held:
                    yield headline, unread(headline, REASONS[verdict.held])
                else:
                    yield headline, next(answers)
            shown.advance(task, len(part))


@contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there whole or not at all."""
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise FileError(f"want a file, or nothing, at {path}, was something else")
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _inert(text: str) -> str:
    """One line, without control characters; what a spreadsheet would take for a formula is quoted."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


if __name__ == "__main__":
    leave_on_interrupt(PROGRAM)
    sys.exit(main(sys.argv[1:]))
