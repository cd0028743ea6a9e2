"""The journal: what it keeps, whatever happens to the process that writes it."""

import math
import signal
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.journal import Halt, Journal, JournalError

WHEN = datetime(2024, 1, 2, 14, 30, 0, 123456)
ROOT = Path(__file__).parents[2]


def halted(journal: Journal, code: str = "drawdown", when: datetime = WHEN) -> Halt:
    return journal.halt(code, "it fell", when, value=0.4, limit=0.35, equity=61_234.5)


def test_a_halt_is_open_until_a_person_resets_it(tmp_path: Path) -> None:
    path = tmp_path / "account.journal"
    with Journal(path) as journal:
        assert journal.open_halt() is None
        halted(journal)
    with Journal(path) as journal:  # a restart
        open_halt = Halt(1, "drawdown", "it fell", WHEN, 0.4, 0.35, 61_234.5)
        assert journal.open_halt() == open_halt
        done = journal.reset("Ada", WHEN + timedelta(hours=1), "looked into it")
        assert done == Halt(
            1, "drawdown", "it fell", WHEN, 0.4, 0.35, 61_234.5, "Ada", WHEN + timedelta(hours=1), "looked into it"
        )
    with Journal(path) as journal:
        assert journal.open_halt() is None
        assert journal.history() == [done]


def test_a_second_halt_does_not_hide_the_first(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        first = halted(journal)
        assert halted(journal, "daily_loss", WHEN + timedelta(days=1)) == first
        assert journal.history() == [first]
        journal.reset("Ada", WHEN)
        assert halted(journal, "daily_loss").number == 2
        assert [h.code for h in journal.history()] == ["drawdown", "daily_loss"]


def test_a_reset_without_a_halt_changes_nothing_and_wants_a_name(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal.reset("Ada", WHEN) is None
        halted(journal)
        with pytest.raises(ValueError, match="by a person"):
            journal.reset(" ", WHEN)
        assert journal.open_halt() is not None


def test_figures_that_are_no_numbers_do_not_keep_a_halt_from_being_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        halt = journal.halt("x", "", WHEN, value=math.inf, limit=math.nan, equity=-math.inf)
    assert (halt.value, halt.equity) == (math.inf, -math.inf)
    assert math.isnan(halt.limit)


def test_two_processes_cannot_both_open_a_halt(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one, Journal(tmp_path / "j") as other:
        assert halted(one, "drawdown") == halted(other, "daily_loss")
        assert other.reset("Ada", WHEN) is not None
        assert one.open_halt() is None


def test_every_write_is_synced_in_full(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Halts and resets in turn, and says after each that it is done.
WRITER = """
import sys
from datetime import datetime
from brokers.journal import Journal
journal = Journal(sys.argv[1])
for i in range(100_000):
    journal.halt(f"code{i}", "", datetime(2024, 1, 2), value=float(i), limit=0.0, equity=0.0)
    print("halted", i, flush=True)
    if i == int(sys.argv[2]):
        sys.stdin.read()
    journal.reset("Ada", datetime(2024, 1, 3))
    print("reset", i, flush=True)
"""


def killed_writer(path: Path, *, waits_at: int, kill_at: int) -> str:
    """Kill -9 a process that writes, after its line `kill_at`; the last line that it managed to print."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(waits_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    lines = [process.stdout.readline() for _ in range(kill_at + 1)]
    process.kill()
    lines += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    process.stdin.close()
    return [line for line in lines if line.endswith("\n")][-1].strip()


def test_a_halt_survives_kill_9_as_soon_as_it_returned(tmp_path: Path) -> None:
    assert killed_writer(tmp_path / "j", waits_at=0, kill_at=0) == "halted 0"
    with Journal(tmp_path / "j") as journal:
        halt = journal.open_halt()
        assert halt is not None
        assert halt.code == "code0"


@pytest.mark.parametrize("kill_at", [1, 4, 9, 30])
def test_a_process_killed_while_it_writes_leaves_what_it_said_and_at_most_one_step_more(
    tmp_path: Path, kill_at: int
) -> None:
    said, number = killed_writer(tmp_path / "j", waits_at=-1, kill_at=kill_at).split()
    with Journal(tmp_path / "j") as journal:
        history = journal.history()
        steps = sum(2 if halt.reset_by else 1 for halt in history)  # writes that are in the file
        done = 2 * int(number) + (1 if said == "halted" else 2)  # writes that were told of
        assert steps in (done, done + 1)
        assert [halt.code for halt in history] == [f"code{i}" for i in range(len(history))]
        assert halted(journal) == journal.open_halt()  # and it can be written on


def test_a_file_that_is_no_journal_is_told(tmp_path: Path) -> None:
    text, other, folder = tmp_path / "text", tmp_path / "other", tmp_path / "folder"
    text.write_text("halts: none\n" * 100)
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE halts (id INTEGER)")
    database.close()
    folder.mkdir()
    for path, message in (
        (text, "cannot be used: file is not a database"),
        (other, "is no journal: want one that ticktorch wrote"),
        (folder, "cannot be opened: unable to open"),
        (tmp_path / "no" / "such" / "folder", "cannot be opened: unable to open"),
    ):
        with pytest.raises(JournalError, match=message):
            Journal(path)
    assert text.read_text() == "halts: none\n" * 100


def test_a_journal_that_is_not_there_is_made_only_if_so_wanted(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="does not exist"):
        Journal(tmp_path / "j", create=False)
    assert not (tmp_path / "j").exists()
    (tmp_path / "j").touch()  # left by a process that was killed before its first write
    with pytest.raises(JournalError, match="is no journal"):
        Journal(tmp_path / "j", create=False)
    Journal(tmp_path / "j").close()
    Journal(tmp_path / "j", create=False).close()


def test_a_journal_of_a_newer_schema_is_told_and_left_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        halted(journal)
        journal._db.execute("PRAGMA user_version = 7")
    with pytest.raises(JournalError, match="is of schema 7, this version knows up to 1"):
        Journal(tmp_path / "j")
    database = sqlite3.connect(tmp_path / "j")
    assert database.execute("PRAGMA user_version").fetchone() == (7,)
    database.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), max_size=12))
def test_there_is_never_more_than_one_open_halt(tmp_path_factory: pytest.TempPathFactory, steps: list[bool]) -> None:
    with Journal(tmp_path_factory.mktemp("j") / "j") as journal:
        halted_now, count = False, 0
        for stop in steps:
            if stop:
                count += not halted_now
                halted(journal)
            else:
                journal.reset("Ada", WHEN)
            halted_now = stop
            assert (journal.open_halt() is not None) == halted_now
            assert sum(halt.reset_by == "" for halt in journal.history()) == halted_now
        assert len(journal.history()) == count
