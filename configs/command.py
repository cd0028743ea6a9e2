"""How a command ends: what a user can get wrong in a sentence and with 2, Ctrl-C in a line and with 130."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def run_command(
    program: str, work: Callable[[], int], wrong: tuple[type[Exception], ...], interrupted: str = "interrupted"
) -> int:
    """Do the work of a command; returns its exit code. What is in neither list is a bug, and keeps its traceback.

    Args:
        program: as it was started, in front of what is said.
        work: returns the exit code where nothing goes wrong.
        wrong: errors whose message is a sentence for the user. Of an OSError the sentence is made here.
        interrupted: what is said after Ctrl-C.
    """
    if sys.stdout is None:  # closed by who called us
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()  # here, where a reader that has gone is an answer and not an accident
    except wrong as exc:
        return _say(program, f"error: {exc}", 2)
    except KeyboardInterrupt:
        return _say(program, interrupted, 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where what is still buffered goes
        return 141  # as the shell has it: 128 + SIGPIPE
    except OSError as exc:
        reason = exc.strerror or str(exc)
        return _say(program, f"error: {reason}" + (f": {exc.filename}" if exc.filename else ""), 2)


def leave_on_interrupt(program: str, interrupted: str = "interrupted") -> None:
    """Let Ctrl-C end this process at once, in a line and with 130; for a `__main__` block.

    A KeyboardInterrupt comes up anywhere, and torch swallows one that comes up in its first backward pass. Nothing is
    lost by it: what a command writes is there whole or not at all, as after a kill.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # who started us wants it otherwise, as a shell does for a background job
    shown = "\x1b[?25h\n" if sys.stderr is not None and sys.stderr.isatty() else ""  # a progress bar hides the cursor
    line = f"{shown}{program}: {interrupted}\n".encode()

    def leave(*_: object) -> None:
        os.write(2, line)
        os._exit(130)

    signal.signal(signal.SIGINT, leave)


def _say(program: str, text: str, code: int) -> int:
    print(f"{program}: {text}", file=sys.stderr)
    return code
