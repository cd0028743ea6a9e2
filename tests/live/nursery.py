"""Runs that begin in milliseconds, and that can be made to die at a given line: forked from a process that has imported
all.

It speaks JSON lines. What it is asked, and what it answers:

    {"run": NAME OF A PROGRAM, "argv": [...], "log": FILE, "die": null}    {"pid": PID}
    {"wait": PID, "seconds": S}                                           {"code": CODE}, null where it goes on

"die" may be {"in": "module:Class.method", "when": "before" or "after", "times": N}: with that call it kills itself.
"""

import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from graphs.cli import backtest_main
from graphs.live_cli import live_main
from tests.live import traders

PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "run_live.py": live_main,
    "run_backtest.py": backtest_main,
    "limits": traders.main,
    "limits again": traders.again,
}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {"pid": _born(**asked)} if "run" in asked else {"code": _ended(asked["wait"], asked["seconds"])}
        print(json.dumps(answer), flush=True)


def _born(run: str, argv: list[str], log: str, die: dict[str, Any] | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        if die is not None:
            _make_deadly(die["in"], die["when"], die["times"])
        code = PROGRAMS[run](argv)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        os._exit(code)


def _make_deadly(name: str, when: str, times: int) -> None:
    """Have the process kill itself at a call of a function, before it does anything or after it has done it all."""
    module, _, path = name.partition(":")
    owner: Any = importlib.import_module(module)
    *parts, last = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    real, left = getattr(owner, last), times

    def passed(moment: str) -> None:
        nonlocal left
        left -= moment == when
        if moment == when and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @wraps(real)
    def deadly(*values: Any, **named: Any) -> Any:
        passed("before")
        result = real(*values, **named)
        passed("after")
        return result

    @wraps(real)
    async def deadly_task(*values: Any, **named: Any) -> Any:
        passed("before")
        result = await real(*values, **named)
        passed("after")
        return result

    setattr(owner, last, deadly_task if inspect.iscoroutinefunction(real) else deadly)


def _ended(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


if __name__ == "__main__":
    main()
