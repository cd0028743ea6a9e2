"""run_live.py in a process of its own, steered and read by a test; and what an exchange beside it is told and asked."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from exchange_process import KEY, SECRET

from graphs.flags import ROOT

CONFIG = "configs/live/local_exchange.toml"
DEADLINE_S = 120.0
KEYS = {"LOCAL_EXCHANGE_KEY": KEY, "LOCAL_EXCHANGE_SECRET": SECRET}


class Live:
    """A run_live.py in a process of its own; its lines are read as they come."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "run_live.py", *flags]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        environment = {**os.environ, **KEYS, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | (env or {})
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
        self._lines: list[str] = []
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self._lines.append(line)
                self._heard.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        return "".join(self._lines)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def count(self, pattern: str) -> int:
        """How many lines match so far."""
        return sum(re.search(pattern, line) is not None for line in self._lines)

    def wait_for(self, pattern: str, times: int = 1, deadline_s: float = DEADLINE_S) -> None:
        """Until that many lines match."""
        with self._heard:
            there = self._heard.wait_for(lambda: self.count(pattern) >= times, deadline_s)
            assert there, f"no {pattern!r} in:\n{self.text}"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def code(self, deadline_s: float = DEADLINE_S) -> int:
        """How it ended, once it has."""
        code = self._process.wait(deadline_s)
        self._reader.join(deadline_s)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


def replayed(folder: Path, *flags: str) -> tuple[int, str]:
    """Of a replay in another process: its exit code, and what it says."""
    command = [sys.executable, "run_backtest.py", "--replay", str(folder), "--quiet", *flags]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    return done.returncode, done.stdout + done.stderr


def state(url: str) -> dict[str, Any]:
    """What an exchange holds to be true: trades told, orders, fills, balances, faults that last."""
    with urllib.request.urlopen(f"{url}/control/state", timeout=30) as answer:
        return dict(json.load(answer))


def fault(url: str, name: str, **arguments: Any) -> Any:
    """Have an exchange misbehave, see brokers/local_exchange/faults.py; return what it did."""
    body = json.dumps({"fault": name, **arguments}).encode()
    request = urllib.request.Request(f"{url}/control/faults", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["result"]
