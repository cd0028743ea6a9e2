"""The journal of an account: what must outlive the process. Plain SQLite; it survives `kill -9` and a lost power line.

This schema holds halts: that risk stopped trading, why, and that a person reset it. At most one is open.
"""

import math
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_APPLICATION = 0x7469636B  # of all journals: PRAGMA application_id
_SCHEMA = 1  # PRAGMA user_version; a later one can read all earlier ones
_BUSY_S = 5.0  # how long another process may hold the file

_CREATE = (
    """
    CREATE TABLE halts (
        id INTEGER PRIMARY KEY,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        engine_time TEXT NOT NULL,  -- ISO, UTC
        value REAL,                 -- NULL is a figure that was no number
        figure_limit REAL,
        equity REAL,
        reset_by TEXT,
        reset_time TEXT,            -- ISO, UTC, of the wall clock, NULL while the halt is open
        reset_note TEXT
    )
    """,
    "CREATE UNIQUE INDEX one_open ON halts ((1)) WHERE reset_time IS NULL",
)


class JournalError(Exception):
    """A journal that cannot be used; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class Halt:
    """One emergency stop. `reset_by` is "" while it is open."""

    number: int
    code: str
    message: str
    engine_time: datetime
    value: float
    limit: float
    equity: float
    reset_by: str = ""
    reset_time: datetime | None = None
    reset_note: str = ""


class Journal:
    """One account's journal. Every write is on disk when its method returns (`synchronous=FULL`).

    Args:
        path: of the file; made where there is none.
        create: False: a file that is not there is an error.

    Raises:
        JournalError: the file cannot be opened, is no journal, or is of a newer schema.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self._path = Path(path)
        if not create and not self._path.exists():
            raise JournalError(f"journal {path} does not exist")
        try:
            self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        except sqlite3.Error as exc:
            raise JournalError(f"journal {path} cannot be opened: {exc}") from None
        try:
            self._open(create=create)
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
        self._db.close()

    def halt(
        self, code: str, message: str, engine_time: datetime, *, value: float, limit: float, equity: float
    ) -> Halt:
        """Write that trading was stopped; return the open halt, which is the earlier one where there was one.

        Args:
            code: stable, such as drawdown or daily_loss.
            engine_time: naive UTC.
            value, limit: what was passed, and by how much.
            equity: of the account at that moment, its currency.
        """
        self._write(
            "INSERT INTO halts (code, message, engine_time, value, figure_limit, equity) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (code, message, engine_time.isoformat(), *(_stored(figure) for figure in (value, limit, equity))),
        )
        written = self.open_halt()
        assert written is not None
        return written

    def open_halt(self) -> Halt | None:
        """The halt that no person has reset; None where trading may begin."""
        open_ones = self._halts("WHERE reset_time IS NULL")
        return open_ones[0] if open_ones else None

    def reset(self, by: str, wall_time: datetime, note: str = "") -> Halt | None:
        """End the open halt in the name of a person; return it as it stands now, None where there was none.

        Raises:
            ValueError: `by` is blank.
        """
        if not by.strip():
            raise ValueError("a halt is reset by a person, the name was blank")
        halt = self.open_halt()
        if halt is None:
            return None
        self._write(
            "UPDATE halts SET reset_by = ?, reset_time = ?, reset_note = ? WHERE id = ? AND reset_time IS NULL",
            (by, wall_time.isoformat(), note, halt.number),
        )
        return self._halts("WHERE id = ?", halt.number)[0]

    def history(self) -> list[Halt]:
        """All halts, the oldest first."""
        return self._halts("")

    def _open(self, *, create: bool) -> None:
        application = self._pragma("application_id")
        empty = not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != _APPLICATION and not (create and application == 0 and empty):
            raise JournalError(f"{self._path} is no journal: want one that ticktorch wrote")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN IMMEDIATE")  # another process may be making it too
        if self._pragma("application_id") == 0:
            for statement in _CREATE:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {_SCHEMA}")
        schema = self._pragma("user_version")
        self._db.execute("COMMIT")
        if schema > _SCHEMA:
            raise JournalError(
                f"journal {self._path} is of schema {schema}, this version knows up to {_SCHEMA}: use a newer one"
            )

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as exc:
            raise JournalError(f"journal {self._path} cannot be written: {exc}") from None

    def _halts(self, where: str, *values: object) -> list[Halt]:
        try:
            rows = self._db.execute(
                "SELECT id, code, message, engine_time, value, figure_limit, equity, reset_by, reset_time, reset_note"
                f" FROM halts {where} ORDER BY id",
                values,
            ).fetchall()
        except sqlite3.Error as exc:
            raise JournalError(f"journal {self._path} cannot be read: {exc}") from None
        return [_halt(row) for row in rows]


def _halt(row: tuple[Any, ...]) -> Halt:
    number, code, message, engine_time, value, limit, equity, by, wall_time, note = row
    return Halt(
        number=number,
        code=code,
        message=message,
        engine_time=datetime.fromisoformat(engine_time),
        value=_read(value),
        limit=_read(limit),
        equity=_read(equity),
        reset_by=by or "",
        reset_time=datetime.fromisoformat(wall_time) if wall_time else None,
        reset_note=note or "",
    )


def _read(figure: float | None) -> float:
    return math.nan if figure is None else figure


def _stored(figure: float) -> float | None:
    return None if math.isnan(figure) else figure
