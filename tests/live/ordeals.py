"""A run_live.py with real orders on a local exchange of its own, what is done to it, and what came of it."""

import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exchange_process import exchange_process
from live_process import Live, fault, replayed, state

from tests.live.checks import Limits, Row, Run, read_books, read_run, violations

SYMBOL = "ES/USD"
CONFIG = "tests/live/restless.toml"
MARKET = ("--listing.trades-per-s", "60", "--listing.history-s", "60", "--taker-bps", "1", "--maker-bps", "1")
LIMITS = Limits(stale_after_s=1.0, lag_max_s=2.0)  # as the config has them
DEADLINE_S = 60.0
_STATUS = re.compile(r"alerts: [A-Z]+ (local exchange [a-z]+) (ES/USD |)(CONNECTED|LAGGING|STALE|GAP|RECOVERED)\b")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the run, and what a person must be told of it at least; "" where there is nothing to tell."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    told: str = ""

    def __str__(self) -> str:
        return "-".join([self.name, *(str(value) for value in self.arguments.values())])


class Ordeal:
    """One run on one exchange, and what is done to it."""

    def __init__(self, url: str, folder: Path, flags: Sequence[str] = ()) -> None:
        self.url, self.recording, self.journal = url, folder / "recording", folder / "account.journal"
        places = ["--crypto.0.at.url", url, "--venue.at.url", url, "--journal", str(self.journal)]
        self.live = Live("--config", CONFIG, *places, "--record", str(self.recording), *flags)

    def begin(self, what: Fault) -> None:
        """Let a fault happen."""
        self._state()  # it listens
        fault(self.url, what.name, **what.arguments)

    def suffer(self, what: Fault) -> None:
        """Let a fault happen, until a person has been told."""
        before = self.live.count(what.told)
        self.begin(what)
        if what.told:
            self.live.wait_for(what.told, before + 1, DEADLINE_S)

    def recover(self) -> None:
        """Until no fault lasts, every feed is well, and orders fill again."""
        self._until(self._spent, "the faults are over")
        self._until(self._well, "all feeds are well")
        self.trade(2)

    def trade(self, fills: int) -> None:
        """Until so many more orders have filled."""
        self.live.wait_for(r"fills: ", self.live.count(r"fills: ") + fills, DEADLINE_S)

    def endure(self, trades: int) -> None:
        """Until the market has had so many more trades, whatever became of the run."""
        enough = self._traded() + trades
        self._until(lambda: self._traded() >= enough, f"{trades} trades have happened")

    def pass_through(self, sequence: list[tuple[Fault, int]]) -> None:
        """Faults, and for each how many trades the next one waits; 0: until all is well again."""
        for each, trades in sequence:
            self.begin(each)
            if trades:
                self.endure(trades)
            else:
                self.recover()
        self.recover()
        self.endure(150)  # an answer that is late now makes trouble later, and must have made it before the end
        self.recover()

    def stop(self) -> tuple[Run, list[str]]:
        """End the run as a person does; what it recorded, and all that is wrong with it."""
        self.live.send(signal.SIGINT)
        code = self.live.code()
        assert code == 130, self.live.text
        run = read_run(self.recording, SYMBOL)
        books = read_books(self.journal, state(self.url)["accounts"]["account 1"])
        tape = _tape(self.url, run.trades[0]["trade_id"] - 1, run.trades[-1]["trade_id"])
        return run, violations(run, books, tape, LIMITS)

    def replay(self) -> list[str]:
        """What is wrong with the replay, in another process, of what was recorded."""
        code, told = replayed(self.recording)
        return [] if (code, told[:10]) == (0, "identical:") else [told]

    def _traded(self) -> int:
        return int(self._state()["markets"]["ESUSD"]["trades"])

    def _spent(self) -> bool:
        lasting = self._state()["faults"]
        return not (lasting["counts"] or lasting["outage"] or any(f["left"] for f in lasting["http"]))

    def _well(self) -> bool:
        """By what was printed last of every feed, of a symbol or, which counts for each symbol, of all."""
        last: dict[str, dict[str, str]] = {}
        for feed, symbol, told in _STATUS.findall(self.live.text):
            if not symbol:
                last[feed] = {}
            last.setdefault(feed, {})[symbol] = told
        return bool(last) and not any(told in ("STALE", "GAP") for by in last.values() for told in by.values())

    def _state(self) -> dict[str, Any]:
        """The truth; it cannot be had while nobody listens."""
        found: list[dict[str, Any]] = []

        def asked() -> bool:
            with suppress(OSError):
                found.append(state(self.url))
            return bool(found)

        self._until(asked, "the exchange answers")
        return found[0]

    def _until(self, there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not there():
            assert not self.live.ended, f"the run has ended:\n{self.live.text}"
            assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}:\n{self.live.text}"
            time.sleep(0.05)


def _tape(url: str, first: int, last: int) -> dict[int, Row]:
    """What the exchange says that was traded, by id."""
    tape: dict[int, Row] = {}
    while first <= last:
        query = f"{url}/api/v3/aggTrades?symbol=ESUSD&limit=1000&fromId={first}"
        with urllib.request.urlopen(query, timeout=30) as answer:
            page = json.load(answer)
        for row in page:
            tape[row["a"]] = {"price": float(row["p"]), "size": float(row["q"]), "event_time": row["T"] * 1_000_000}
        first = page[-1]["a"] + 1
    return tape


@contextmanager
def ordeal(folder: Path, market: Sequence[str] = MARKET, flags: Sequence[str] = ()) -> Iterator[Ordeal]:
    """A run that has begun to trade; whatever happens, it has ended afterwards."""
    with exchange_process(*market) as url:
        suffering = Ordeal(url, folder, flags)
        try:
            suffering.live.wait_for(r"fills: ", 3)
            yield suffering
        finally:
            if not suffering.live.ended:
                suffering.live.send(signal.SIGKILL)
                suffering.live.code()
