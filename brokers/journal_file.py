"""The file under a journal: SQLite in WAL mode, made, migrated, locked and read so that a failure names the file."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from brokers.journal_schema import APPLICATION, SCHEMA, STEPS

_BUSY_S = 5.0  # how long another connection may hold the file


class JournalError(Exception):
    """A journal that cannot be used; the message names the file and says why."""


class KnownError(JournalError):
    """What is to be written must be new, and is in the journal."""


class JournalFile:
    """One connection to a journal. See `brokers.journal.Journal` for the arguments."""

    def __init__(self, path: str | Path, *, create: bool = True, durable: bool = True, copy: bool = False) -> None:
        self._path = Path(path)
        self._lock = -1  # file descriptor
        if (copy or not create) and not self._path.exists():
            raise JournalError(f"journal {path} does not exist")
        try:
            place = ":memory:" if copy else self._path
            self._db = sqlite3.connect(place, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as exc:
            raise JournalError(f"journal {path} cannot be opened: {exc}") from None
        try:
            if copy:
                self._fill()
            self._open(create=create and not copy, durable=durable)
        except sqlite3.Error as exc:
            self._db.close()
            raise JournalError(f"journal {path} cannot be used: {exc}") from None
        except JournalError:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another run have the account."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside, or none of them. One inside another belongs to the outer one."""
        if self._db.in_transaction:
            yield
            return
        self._write("BEGIN IMMEDIATE", ())
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._write("COMMIT", ())

    def _take_lock(self) -> None:
        """Hold `<file>.lock` to the end. The system lets it go when the process ends, however it does."""
        if self._lock >= 0:
            return
        path = self._path.with_name(self._path.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise JournalError(f"lock {path} cannot be opened: {exc.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise JournalError(
                f"journal {self._path} is in use by process {holder}: an account has one run at a time"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def _open(self, *, create: bool, durable: bool) -> None:
        application = self._pragma("application_id")
        empty = not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION and not (create and application == 0 and empty):
            raise JournalError(f"{self._path} is no journal: want one that ticktorch wrote")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")  # another process may be making it too
        schema = self._pragma("user_version")
        for step in range(schema + 1, SCHEMA + 1):
            for statement in STEPS[step]:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {step}")
        self._db.execute("COMMIT")
        if schema > SCHEMA:
            raise JournalError(
                f"journal {self._path} is of schema {schema}, this version knows up to {SCHEMA}: use a newer one"
            )

    def _fill(self) -> None:
        """Take in the file as it stands, whether or not a run is writing to it."""
        with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as file:
            file.backup(self._db)

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _write(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as exc:
            kind = KnownError if isinstance(exc, sqlite3.IntegrityError) else JournalError
            raise kind(f"journal {self._path} cannot be written: {exc}") from None

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as exc:
            raise JournalError(f"journal {self._path} cannot be read: {exc}") from None
