"""News that another program writes to a file, followed as it grows. Its lines are those of `feeds.news`.

The file may be missing at first, be renamed and begun anew, or be cut and written again: what stood in it to the end is
read first, then the new one from its beginning. A line counts when its end has been written.
"""

import math
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from feeds.errors import DataError, FeedError
from feeds.news import LINE_BYTES_MAX, parse
from feeds.news_desk import BEFORE_ALL, Article, Desk, answered, short
from feeds.polling import Poller, Turn

FEED = "file news"

_READ_BYTES = 1 << 18
_MARK_BYTES = 64  # before the place reached, by which a file that was written anew is told from one that grew
_BACKOFF_MAX_S = 5.0  # it costs nobody anything to look for a file


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowConfig:
    """A file of news that another program appends to."""

    path: str  # JSON lines, as of [[news]]; relative to here; it may come into being later
    from_start: bool = False  # also what is in it when the run begins
    poll_s: float = 0.5  # between looks at it
    stale_after_s: float = 60.0  # without a file that can be read

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path of the news file must not be empty")
        for name in ("poll_s", "stale_after_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")


class Tail:
    """The lines of a file, each once its end is written.

    Args:
        path: of a regular file.
        from_start: whether lines count that are complete when it is first looked at.
        bad: told of a line that is too long, and dropped.
    """

    def __init__(self, path: str, from_start: bool, bad: Callable[[str], None]) -> None:
        self._path, self._bad = path, bad
        self._from_start = from_start
        self._file: BinaryIO | None = None
        self._at = 0  # how far it was read
        self._mark = b""  # the last bytes before that
        self._rest = b""  # the beginning of a line without its end
        self._skipping = False  # inside a line that is too long

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> tuple[list[tuple[str, bytes]], bool]:
        """The next lines, each with where it stands, and whether there is more to read at once.

        Raises:
            FeedError: there is no such file, or it cannot be read.
        """
        try:
            return self._read()
        except OSError as error:
            raise FeedError(f"{self._path}: {error.strerror or type(error).__name__}") from error

    def _read(self) -> tuple[list[tuple[str, bytes]], bool]:
        there = self._stat()
        if self._file is None:
            if there is None:
                self._from_start = True  # what comes into being during the run is new
                raise FeedError(f"{self._path}: no such file yet")
            self._open()
        assert self._file is not None
        held = os.fstat(self._file.fileno())
        if held.st_size < self._at or self._changed():
            self._begin()
        part = self._file.read(_READ_BYTES)
        lines = self._split(part)
        replaced = there is not None and (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)
        if part:
            return lines, replaced or len(part) == _READ_BYTES
        if there is None:
            raise FeedError(f"{self._path}: the file is gone")
        if not replaced:
            return [], False
        if self._rest and not self._skipping:  # its writer will not come back to end it
            lines = [(self._where(self._at - len(self._rest)), self._rest)]
        self.close()  # the next look opens the new one
        return lines, True

    def _stat(self) -> os.stat_result | None:
        try:
            there = Path(self._path).stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(there.st_mode):
            raise FeedError(f"{self._path}: want a regular file")
        return there

    def _open(self) -> None:
        self._file = Path(self._path).open("rb", buffering=0)  # noqa: SIM115 (held until it is replaced)
        self._begin()
        if not self._from_start:
            self._skip_lines()
        self._from_start = True  # whatever takes its place is new

    def _begin(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._at, self._mark, self._rest, self._skipping = 0, b"", b"", False

    def _skip_lines(self) -> None:
        """Go to the beginning of the last line, which may still grow."""
        assert self._file is not None
        size = self._file.seek(0, os.SEEK_END)
        start = max(0, size - LINE_BYTES_MAX)
        tail = os.pread(self._file.fileno(), size - start, start)
        end = tail.rfind(b"\n") + 1
        self._skipping = end == 0 and start > 0
        self._at = size if self._skipping else start + end
        self._file.seek(self._at)
        self._mark = tail[: self._at - start][-_MARK_BYTES:]

    def _changed(self) -> bool:
        """Whether something else stands where it was read."""
        assert self._file is not None
        mark = self._mark
        return os.pread(self._file.fileno(), len(mark), self._at - len(mark)) != mark

    def _split(self, part: bytes) -> list[tuple[str, bytes]]:
        """The complete lines among what was kept and what is new."""
        at = self._at - len(self._rest)
        self._at += len(part)
        self._mark = (self._mark + part)[-_MARK_BYTES:]
        *whole, rest = (self._rest + part).split(b"\n")
        lines = []
        for line in whole:
            if self._skipping:  # the end of a line that was dropped
                self._skipping = False
            elif len(line) > LINE_BYTES_MAX:
                self._bad(f"{self._where(at)}: a line of more than {LINE_BYTES_MAX} bytes")
            elif line.strip():
                lines.append((self._where(at), line))
            at += len(line) + 1
        if not self._skipping and len(rest) > LINE_BYTES_MAX:
            self._bad(f"{self._where(at)}: a line of more than {LINE_BYTES_MAX} bytes")
            self._skipping = True
        self._rest = b"" if self._skipping else rest
        return lines

    def _where(self, at: int) -> str:
        return f"{self._path} at byte {at}"


class Follow:
    """One file, looked at again and again."""

    def __init__(self, config: FollowConfig, desk: Desk) -> None:
        self._config, self._desk = config, desk
        self._health = desk.health(FEED, (config.path,))
        self._tail = Tail(config.path, config.from_start, self._health.bad)

    async def run(self) -> None:
        """Deliver until cancelled."""
        config = self._config
        poller = Poller(
            self._look,
            {config.path: self._health},
            stale_after_s=config.stale_after_s,
            backoff_max_s=_BACKOFF_MAX_S,
            seed=0,
            clock=self._desk.clock,
        )
        try:
            await poller.run()
        finally:
            self._tail.close()

    async def _look(self, path: str) -> Turn:
        lines, more = self._tail.read()
        self._health.well(f"{path} can be read")
        for where, line in lines:
            try:
                item = parse(where, line)
            except DataError as error:
                self._health.bad(short(error))
                continue
            article = Article(
                feed=f"{FEED} {path}",
                item_id=item.item_id,
                published=item.event_time,
                headline=item.headline,
                body=item.body,
                source=item.source,
                symbols=(item.symbol,),
            )
            self._desk.hand_in(self._health, article, BEFORE_ALL, undated=True)
        turn = answered(self._config, self._desk.clock.now(), path)
        return replace(turn, again_at=turn.heard_at) if more else turn
