"""The command that re-arms trading: what it shows, when it asks, and what it leaves."""

import os
import pty
import select
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from brokers.journal import Halt, Journal
from brokers.reset import main

ROOT = Path(__file__).parents[2]
SHOWN = """\
trading was halted at 2024-01-02 14:30:00 UTC
  why     daily_loss: daily_loss is 0.0512, the limit 0.0500
  value   0.0512
  limit   0.0500
  equity  94,880.00
"""


# Makes standard input the terminal of the process, so that Ctrl-C on it interrupts, and becomes the command.
ON_ITS_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, "-m", "brokers.reset", *sys.argv[1:]])
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "account.journal"
    with Journal(path) as made:
        made.halt(
            "daily_loss",
            "daily_loss is 0.0512, the limit 0.0500",
            datetime(2024, 1, 2, 14, 30),
            value=0.0512,
            limit=0.05,
            equity=94_880.0,
        )
    return path


def state(path: Path) -> Halt | None:
    with Journal(path) as journal:
        return journal.open_halt()


def test_yes_shows_what_happened_and_re_arms(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(journal), "--yes", "--by", "Ada", "--note", "bad tick"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(SHOWN + "re-armed by Ada at ")
    assert state(journal) is None
    with Journal(journal) as kept:
        assert [(h.reset_by, h.reset_note) for h in kept.history()] == [("Ada", "bad tick")]


def test_without_a_terminal_it_refuses_and_says_what_to_type(journal: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "brokers.reset", str(journal)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, SHOWN)
    assert done.stderr == (
        f"reset: there is no terminal to ask on. To re-arm trading type: python -m brokers.reset {journal} --yes\n"
    )
    assert state(journal) is not None


@pytest.mark.parametrize(
    ("typed", "code", "last"),
    [
        ("y\n", 0, "re-armed by Ada"),
        ("YES\n", 0, "re-armed by Ada"),
        ("n\n", 3, "trading stays halted"),
        ("\n", 3, "trading stays halted"),
        ("\x04", 3, "trading stays halted"),  # end of input
        ("\x03", 130, "reset: interrupted, nothing was changed"),
    ],
)
def test_on_a_terminal_it_asks(journal: Path, typed: str, code: int, last: str) -> None:
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_ITS_TERMINAL, str(journal), "--by", "Ada"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(inner)
    shown = b""
    while not shown.endswith(b"[y/N] "):
        shown += os.read(outer, 1024)
    os.write(outer, typed.encode())
    while last.encode() not in shown:
        # An interrupt between the question and the read of its answer is noticed with the next key only.
        if typed == "\x03" and not select.select([outer], [], [], 0.2)[0]:
            os.write(outer, typed.encode())
        else:
            shown += os.read(outer, 1024)
    assert process.wait() == code
    os.close(outer)
    assert (state(journal) is None) == (code == 0)


def test_where_nothing_is_halted_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(tmp_path / "j").close()
    assert main([str(tmp_path / "j")]) == 0
    assert capsys.readouterr().out == f"nothing is halted in {tmp_path / 'j'}\n"


def test_what_is_no_journal_ends_with_2_and_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "j"), "--yes"]) == 2
    assert capsys.readouterr().err == f"reset: journal {tmp_path / 'j'} does not exist\n"
    assert not (tmp_path / "j").exists()
    (tmp_path / "text").write_text("no journal")
    assert main([str(tmp_path / "text"), "--yes"]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_a_blank_name_resets_nothing(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(journal), "--yes", "--by", " "]) == 2
    assert "by a person" in capsys.readouterr().err
    assert state(journal) is not None


def test_the_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("JOURNAL", "--yes", "--by", "--note", "Exit codes"))
