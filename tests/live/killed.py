"""An account at a local exchange whose runs are killed, and a market that moves only while it is told to."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from exchange_process import KEY, SECRET, Running, exchange_thread

from brokers.journal import Journal
from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.tape import Tape, tape
from brokers.opening import Opening
from feeds.recording import blocks, read_manifest
from graphs.flags import ROOT
from tests.live.agreement import Books, differences, journal_differences, of_run, of_venue

DEADLINE_S = 90.0
SYMBOL = "BTC/USDT"
BEGAN = {"USDT": Decimal(100_000), "BTC": Decimal(2)}  # what the account holds before the first run
CASH = Decimal(10_000)  # of it, what the runs may trade with
# One trade has happened at the start, and the book is thin: 0.04 BTC in twenty levels, so that orders fill in parts.
LISTING = Listing(symbol=SYMBOL, trades_per_s=0.001, history_s=10.0, level_trades=0.2)
CONFIG = ExchangeConfig(
    listings=(LISTING,),
    balances=tuple(f"{asset}={amount}" for asset, amount in BEGAN.items()),
    taker_bps=2.0,
    maker_bps=1.0,
    orders_per_10s=100_000,
    weight_per_minute=10_000_000,
)


def walk(seed: int, trades: int = 100_000) -> Tape:
    """Prices that wander by up to three ticks a trade, in trades of up to 0.02 BTC."""
    source = np.random.default_rng(seed)
    prices = 60_000.0 + 0.01 * np.cumsum(source.integers(-3, 4, trades))
    sizes = 0.0001 * source.integers(1, 200, trades)
    return tape(LISTING, np.arange(trades, dtype=float), prices, sizes)


class Nursery:
    """See nursery.py."""

    def __init__(self) -> None:
        environment = os.environ | {"LOCAL_EXCHANGE_KEY": KEY, "LOCAL_EXCHANGE_SECRET": SECRET, "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.nursery"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE_S)
        self._process.stdout.close()


class Run:
    """One run of a program, recorded."""

    def __init__(self, nursery: Nursery, program: str, argv: list[str], folder: Path, die: Mapping[str, Any] | None):
        self._nursery, self.program, self.folder = nursery, program, folder
        self._log = folder.with_suffix(".log")
        self._log.touch()
        self.pid: int = nursery.ask(run=program, argv=argv, log=str(self._log), die=die)["pid"]
        self.ended: int | None = None

    @property
    def text(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def code(self, seconds: float = DEADLINE_S) -> int | None:
        """How it ended; None where it has not within so many seconds."""
        if self.ended is None:
            self.ended = self._nursery.ask(wait=self.pid, seconds=seconds)["code"]
        return self.ended

    def send(self, number: signal.Signals) -> None:
        if self.ended is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.code() == -signal.SIGKILL, f"{self.program} ended by itself with {self.ended}:\n{self.text}"

    def kill_while(self, condition: Callable[[], object]) -> None:
        """Kill it at a moment at which something is so: it stands still while that is looked at."""

        def seized() -> bool:
            if not condition():
                return False
            self.send(signal.SIGSTOP)
            while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
                assert self.code(0.005) is None, f"{self.program} ended with {self.ended}:\n{self.text}"
            if condition():
                return True
            self.send(signal.SIGCONT)
            return False

        self.until(seized)
        self.kill()

    def until(self, condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
        """Wait for something that the run brings about."""
        give_up = time.monotonic() + seconds
        while not condition():
            assert self.code(0.005) is None, f"{self.program} ended with {self.ended}:\n{self.text}"
            assert time.monotonic() < give_up, f"it did not come about:\n{self.text[-5_000:]}"

    def up(self) -> None:
        """Wait until the venue takes its orders."""
        self.until(lambda: "takes orders" in self.text)

    @property
    def opening(self) -> Opening:
        return Opening.from_json(read_manifest(self.folder)["opening"])

    @property
    def recorded(self) -> int:
        """Bytes of its recording."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.arrow"))

    @property
    def fills(self) -> list[dict[str, Any]]:
        """Those that it has recorded so far."""
        return [row for table in blocks(self.folder, "outputs/fills") for row in table.to_pylist()]


class Desk:
    """The account, its journal, and the runs on it."""

    def __init__(self, running: Running, folder: Path, nursery: Nursery) -> None:
        self.running, self.folder, self._nursery = running, folder, nursery
        self.journal = folder / "account.journal"
        self.runs: list[Run] = []

    def start(self, program: str, *flags: str, die: Mapping[str, Any] | None = None) -> Run:
        record = self.folder / f"run{len(self.runs)}"
        argv = [*self.flags(), "--record", str(record), *flags]
        self.runs.append(Run(self._nursery, program, argv, record, die))
        return self.runs[-1]

    def flags(self) -> list[str]:
        """Of any run on this account."""
        url = self.running.url
        places = ["--crypto.0.at.url", url, "--venue.at.url", url, "--journal", str(self.journal)]
        return ["--config", "tests/live/killed.toml", *places]

    @property
    def truth(self) -> Any:
        """The account as the exchange knows it."""
        return self.running.call(lambda: self.running.exchange.accounts.state())["account 1"]

    def asked_for(self, client_id: str) -> bool:
        """Whether a run has asked the exchange what became of an order."""
        log = self.running.call(lambda: list(self.running.exchange.requests.log))
        return any(r.method == "GET" and r.query.get("origClientOrderId") == client_id for r in log)

    @contextmanager
    def moving(self, pause_s: float = 0.02) -> Iterator[None]:
        """A trade happens every few milliseconds."""
        failed: list[BaseException] = []
        ended = threading.Event()

        def move() -> None:
            try:
                while not ended.wait(pause_s):
                    self.running.faults.burst(1)
            except BaseException as exc:
                failed.append(exc)

        thread = threading.Thread(target=move, name="market")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(DEADLINE_S)
        if failed:
            raise failed[0]

    def venue_books(self) -> Books:
        """What the exchange says; its balances must be that too."""
        account = self.truth
        books = of_venue(account, CASH)
        balances = {asset: Decimal(b["free"]) + Decimal(b["locked"]) for asset, b in account["balances"].items()}
        assert balances == {"USDT": BEGAN["USDT"] - CASH + books.cash, "BTC": BEGAN["BTC"] + books.position}
        return books

    def wrong(self, run: Run) -> list[str]:
        """Where run, journal and exchange differ now; the market stands still."""
        with Journal(self.journal, create=False) as journal:
            orders, fills, baselines = journal.orders(), journal.fills(), journal.baselines()
        opening, account = run.opening, self.truth
        wrong = journal_differences(orders, fills, account)
        wrong += differences(of_run(opening, run.fills, [o for o in orders if not o.ended]), self.venue_books())
        if not opening.clean:
            wrong += [f"it is not clean: {note.code}: {note.message}" for note in opening.notes]
        untouched = {"USDT": BEGAN["USDT"] - CASH, "BTC": BEGAN["BTC"]}
        if {asset: Decimal(amount) for asset, amount in baselines.items()} != untouched:
            wrong.append(f"what was there before is {baselines}, was {untouched}")
        return wrong

    def assert_started_right(self, run: Run) -> None:
        """What a run begins with is what the exchange holds, to the last digit; the market has stood still since."""
        wrong = differences(of_run(run.opening), self.venue_books()) + self.wrong(run)
        assert not wrong, f"{run.folder.name} of {run.program}: {wrong}\n{run.text[-5_000:]}"

    def assert_comes_right(self, run: Run) -> None:
        """Once the market stands still, run, journal and exchange come to say the same."""
        give_up = time.monotonic() + DEADLINE_S
        while wrong := self.wrong(run):
            assert time.monotonic() < give_up, f"{run.folder.name} of {run.program}: {wrong}\n{run.text[-5_000:]}"
            time.sleep(0.05)

    def stop(self, run: Run) -> None:
        """Ask the run to stop, as a person would; it must, and leave nothing behind."""
        run.send(signal.SIGINT)
        assert run.code() == 130, run.text
        assert not self.venue_books().working, run.text

    def replays(self, run: Run) -> bool:
        """Whether the recording of a run, as far as it goes, gives the same again. False where it was killed before
        there was one."""
        if not (run.folder / "watermark").exists() or not (run.folder / "manifest.json").exists():
            return False
        again, out = self.folder / f"{run.folder.name}-again.log", self.folder / f"{run.folder.name}-again"
        program, argv = "limits again", [str(run.folder), str(out)]
        if run.program == "run_live.py":
            program, argv = "run_backtest.py", ["--replay", str(run.folder), "--out", str(out), "--quiet"]
        pid = self._nursery.ask(run=program, argv=argv, log=str(again), die=None)["pid"]
        code = self._nursery.ask(wait=pid, seconds=DEADLINE_S)["code"]
        told = again.read_text(encoding="utf-8")
        assert (code, told.splitlines()[-1].startswith("identical")) == (0, True), f"{run.folder}: {told}"
        return True

    def end(self) -> None:
        for run in self.runs:
            run.send(signal.SIGKILL)
            run.code()


@contextmanager
def desk(folder: Path, nursery: Nursery, seed: int = 0) -> Iterator[Desk]:
    with exchange_thread(CONFIG, tapes={SYMBOL: walk(seed)}) as running:
        made = Desk(running, folder, nursery)
        try:
            yield made
        finally:
            made.end()
