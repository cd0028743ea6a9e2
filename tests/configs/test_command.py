"""How commands end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.command import run_command

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class WrongError(Exception):
    pass


def fails(error: BaseException) -> int:
    raise error


def test_the_exit_code_is_that_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("thing", lambda: 7, (WrongError,)) == 7
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (WrongError("want one, was two"), 2, "thing: error: want one, was two\n"),
        (KeyboardInterrupt(), 130, "thing: stopped\n"),
        (FileExistsError(17, "File exists", "x.png"), 2, "thing: error: File exists: x.png\n"),
        (OSError(28, "No space left on device"), 2, "thing: error: No space left on device\n"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("thing", lambda: fails(error), (WrongError,), "stopped") == code
    assert capsys.readouterr().err == said


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command("thing", lambda: 1 // 0, (WrongError,))


def process(code: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"from configs.command import *\n{code}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **{**pipes, **options})  # type: ignore[call-overload]


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, written = os.pipe()
    os.close(read)
    with process("sys.exit(run_command('thing', lambda: print('x' * 9) or 0, ()))", stdout=written) as one:
        os.close(written)
        assert (one.wait(PATIENCE_S), one.stderr.read()) == (141, "")


def test_ctrl_c_is_one_line_even_where_an_interrupt_would_be_swallowed() -> None:
    code = """
leave_on_interrupt("thing", "stopped")
print("here", flush=True)
while True:
    try:
        signal.pause()
    except BaseException:
        pass
"""
    with process(code) as one:
        assert one.stdout.readline() == "here\n"
        one.send_signal(signal.SIGINT)
        assert (one.wait(PATIENCE_S), one.stderr.read()) == (130, "thing: stopped\n")


def test_ctrl_c_that_was_ignored_on_purpose_stays_so() -> None:
    code = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
leave_on_interrupt("thing")
print("here", flush=True)
sys.stdin.read()
"""
    with process(code, stdin=subprocess.PIPE) as one:
        assert one.stdout.readline() == "here\n"
        one.send_signal(signal.SIGINT)
        one.stdin.close()
        assert (one.wait(PATIENCE_S), one.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        ("trainer", "fingpt", "configs/train/demo.toml", "--out"),
        ("models.generate", "checkpoints/demo", "--paths", "100000", "--horizon", "1000", "--out"),
    ],
)
def test_ctrl_c_in_the_middle_of_a_command_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    started = [sys.executable, "-m", *command, str(tmp_path / "out")]
    with subprocess.Popen(started, cwd=ROOT, stderr=subprocess.PIPE, text=True) as one:
        try:
            give_up = time.monotonic() + PATIENCE_S
            while "torch" not in Path(f"/proc/{one.pid}/maps").read_text():  # it is loading, or at work
                assert one.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.01)  # between two looks
            one.send_signal(signal.SIGINT)
            told = one.communicate(timeout=PATIENCE_S)[1].splitlines()
        finally:
            one.kill()
    assert one.returncode == 130
    assert told[-1].startswith(f"python -m {command[0]}: interrupted")
    assert not any("Traceback" in line for line in told)
    assert not (tmp_path / "out").exists()
