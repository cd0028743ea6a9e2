"""The whole live path on one machine, without a network or money: run, an outage, stop, and the same again from the
recording.

python examples/03_live_demo.py

1. The local exchange starts on the trades of the E-mini S&P 500 that come with ticktorch.
2. run_live.py trades on it through ccxt.pro, as it would on Binance: signed orders, user stream, journal.
3. After a third of the time the exchange goes away for some seconds, as exchanges do.
4. run_live.py stops; what it recorded is run again in another process and compared, byte for byte.

Exit codes: 0 the replay is identical and there was enough to compare, 1 it is not.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parent.parent
WANTED = {"orders": 10, "fills": 10, "alerts": 2}  # with fewer there is nothing to compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """How long, and how bad."""

    seconds: float = 60.0
    outage_s: float = 4.0
    out: Path | None = None  # keep recording and journal in this folder; absent: they are thrown away

    def __post_init__(self) -> None:
        if not 10.0 <= self.seconds <= 3600.0:
            raise ValueError(f"seconds must lie in [10, 3600], was {self.seconds}")
        if not 0.0 <= self.outage_s <= self.seconds / 3.0:
            raise ValueError(f"outage_s must lie in [0, a third of seconds], was {self.outage_s}")


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


@contextmanager
def local_exchange(environment: dict[str, str]) -> Iterator[str]:
    """The address of an exchange that runs as long as the block."""
    command = [sys.executable, "-m", "brokers.local_exchange", "--listing.loop"]
    command += ["--listing.speed", "80", "--listing.history-s", "400"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.search(r"http://\S+", first)
            if found is None:
                raise SystemExit(f"the local exchange did not start: {first!r}")
            yield found[0]
        finally:
            process.terminate()


def outage(url: str, demo: Demo, recording: Path, over: threading.Event) -> None:
    """Take the exchange away for a while, a third of the time after the run began: connections are cut, nothing is
    answered."""
    while not (recording / "manifest.json").exists():  # which is written when the run begins
        if over.wait(0.1):
            return
    if over.wait(demo.seconds / 3.0):
        return
    body = json.dumps({"fault": "outage", "seconds": demo.outage_s}).encode()
    say(f"the exchange goes away for {demo.outage_s:g} s")
    urllib.request.urlopen(urllib.request.Request(f"{url}/control/faults", body), timeout=10).close()


def trade(url: str, demo: Demo, folder: Path, environment: dict[str, str]) -> int:
    """Run the live graph, with an outage in it; its exit code."""
    command = [sys.executable, "run_live.py", "--config", "configs/live/local_exchange.toml"]
    command += ["--crypto.0.at.url", url, "--venue.at.url", url, "--journal", str(folder / "demo.journal")]
    # One rule that changes its mind at every other bar, so that there is enough to compare.
    command += ["--signals.technical.enabled", "momentum", "--signals.technical.momentum.bars", "1"]
    command += ["--duration", str(demo.seconds), "--record", str(folder / "recording")]
    over = threading.Event()
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        if demo.outage_s:
            threading.Thread(target=outage, args=(url, demo, folder / "recording", over), daemon=True).start()
        try:
            return process.wait()
        except KeyboardInterrupt:  # the run has heard it too, and stops
            return process.wait()
        finally:
            over.set()


def replay(folder: Path) -> tuple[int, str]:
    """Run the recording again; the exit code, and what was said last."""
    command = [sys.executable, "run_backtest.py", "--replay", str(folder / "recording"), "--quiet"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout.strip()


def main() -> int:
    demo = tyro.cli(Demo, description=__doc__)
    # The exchange is of play money, and takes whatever keys it is started with.
    environment = os.environ | {"LOCAL_EXCHANGE_KEY": "play", "LOCAL_EXCHANGE_SECRET": "money"}
    with tempfile.TemporaryDirectory(prefix="ticktorch-demo-") as temporary:
        folder = Path(temporary) if demo.out is None else demo.out
        folder.mkdir(parents=True, exist_ok=True)
        with local_exchange(environment) as url:
            say(f"the local exchange is at {url}; trading for {demo.seconds:g} s")
            code = trade(url, demo, folder, environment)
        if code != 0:
            say(f"the live run ended with {code}")
            return code
        say("the same again, from the recording alone")
        code, told = replay(folder)
        print(told)
        if code != 0:
            return 1
        counts = {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", told)}
        few = [f"{counts.get(name, 0)} {name}, want {least}" for name, least in WANTED.items() if counts[name] < least]
        if few:
            say(f"too little to compare: {'; '.join(few)}")
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
