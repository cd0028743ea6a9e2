"""The whole live run under every fault that the exchange knows: nothing is lost, doubled, hidden or risked in the dark.

Each run is run_live.py with real orders on a local exchange. What came of it is judged by `tests.live.checks`.
"""

import json
import random
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from exchange_process import exchange_process
from live_process import Live, fault, replayed, state

from tests.live.checks import Limits, Row, Run, read_books, read_run, refused_by_gate, violations

SYMBOL = "ES/USD"
MARKET = ("--listing.trades-per-s", "60", "--listing.history-s", "60", "--taker-bps", "1", "--maker-bps", "1")
LIMITS = Limits(stale_after_s=1.0, lag_max_s=2.0)
DEADLINE_S = 60.0
_STATUS = re.compile(r"alerts: [A-Z]+ (local exchange [a-z]+) (ES/USD |)(CONNECTED|LAGGING|STALE|GAP|RECOVERED)\b")
TROUBLE = r"(STALE|GAP)"
TRADES, ORDERS = r"local exchange trades ES/USD ", r"local exchange orders "


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the run, and what a person must be told of it at least; "" where there is nothing to tell."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    told: str = ""

    def __str__(self) -> str:
        return "-".join([self.name, *(str(value) for value in self.arguments.values())])


FAULTS = (
    Fault("abort", {"kind": "all"}, TRADES + TROUBLE),
    Fault("close", {"kind": "all", "code": 1001}, TRADES + TROUBLE),
    Fault("stall", {"kind": "market"}, TRADES + "STALE"),
    Fault("stall", {"kind": "user"}),
    Fault("outage", {"seconds": 2.0}, TRADES + TROUBLE),
    Fault("outage", {"seconds": 2.0, "refuse": True}, TRADES + TROUBLE),
    Fault("burst", {"count": 2000}),
    Fault("duplicate", {"count": 30}),
    Fault("duplicate", {"count": 5, "kind": "user"}),
    Fault("out_of_order", {"count": 30}),
    Fault("out_of_order", {"count": 5, "kind": "user"}),
    Fault("malformed", {"count": 8}, TRADES + "GAP"),
    Fault("http", {"status": 429, "count": 2, "retry_after": 1}),
    Fault("http", {"status": 503, "seconds": 1.5}, ORDERS + TROUBLE),
    Fault("skew", {"ms": 4000}),
    Fault("slow_ack", {"ms": 2500.0, "count": 2}, ORDERS + "GAP"),
    Fault("lost_ack", {"count": 2}, ORDERS + "GAP"),
    Fault("reject_next", {"count": 2}),
)


class Ordeal:
    """One run on one exchange, and what is done to it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.recording, self.journal = url, folder / "recording", folder / "account.journal"
        places = ["--crypto.0.at.url", url, "--venue.at.url", url, "--journal", str(self.journal)]
        self.live = Live("--config", "tests/live/restless.toml", *places, "--record", str(self.recording))

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

    def stop(self) -> tuple[Run, list[str]]:
        """End the run as a person does; what it recorded, and all that is wrong with it."""
        self.live.send(signal.SIGINT)
        code = self.live.code()
        assert code == 130, self.live.text
        run = read_run(self.recording, SYMBOL)
        books = read_books(self.journal, state(self.url)["accounts"]["account 1"])
        tape = _tape(self.url, run.trades[0]["trade_id"] - 1, run.trades[-1]["trade_id"])
        found = violations(run, books, tape, LIMITS)
        code, told = replayed(self.recording)
        return run, found if (code, told[:10]) == (0, "identical:") else [*found, told]

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
def ordeal(folder: Path) -> Iterator[Ordeal]:
    """A run that has begun to trade; whatever happens, it has ended afterwards."""
    with exchange_process(*MARKET) as url:
        suffering = Ordeal(url, folder)
        try:
            suffering.live.wait_for(r"fills: ", 3)
            yield suffering
        finally:
            if not suffering.live.ended:
                suffering.live.send(signal.SIGKILL)
                suffering.live.code()


def test_a_run_outlives_each_fault_in_turn(tmp_path: Path) -> None:
    with ordeal(tmp_path) as suffering:
        for each in FAULTS:
            suffering.suffer(each)
            suffering.recover()
        run, found = suffering.stop()
    assert found == []
    # Orders were refused for the feeds, and those that reduce were not: the check above has judged something.
    refused = refused_by_gate(run)
    assert "stale_feed" in refused.values()
    assert _passed_in_the_dark(run)


def _passed_in_the_dark(run: Run) -> bool:
    """Whether an order passed while a feed could not be relied upon."""
    refused, last = refused_by_gate(run), dict[str, str]()
    marks = [(row["ns"], 0, row) for row in run.status] + [(row["ns"], 1, row) for row in run.orders]
    for _, kind, row in sorted(marks, key=lambda mark: mark[:2]):
        if kind == 0:
            last[row["feed"]] = row["state"]
        elif row["order_id"] not in refused and any(state in ("STALE", "GAP") for state in last.values()):
            return True
    return False


def _sequence(seed: int) -> list[tuple[Fault, int]]:
    """Faults in a random order, some twice, and after how many trades the next one comes; 0: when all is well again."""
    dice = random.Random(seed)
    return [(each, dice.choice((0, 0, 3, 20, 90))) for each in dice.choices(FAULTS, k=10)]


def _run_sequence(seed: int, folder: Path) -> None:
    with ordeal(folder) as suffering:
        for each, trades in _sequence(seed):
            suffering.begin(each)
            if trades:
                suffering.endure(trades)
            else:
                suffering.recover()
        suffering.recover()
        _, found = suffering.stop()
    assert found == [], f"seed {seed}: {', '.join(f'{each} {trades}' for each, trades in _sequence(seed))}"


def test_a_run_outlives_faults_one_upon_another(tmp_path: Path) -> None:
    _run_sequence(1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("each", FAULTS, ids=str)
def test_a_run_outlives_a_fault_alone(each: Fault, tmp_path: Path) -> None:
    with ordeal(tmp_path) as suffering:
        suffering.suffer(each)
        suffering.recover()
        _, found = suffering.stop()
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 24))
def test_a_run_outlives_a_random_sequence(seed: int, tmp_path: Path) -> None:
    _run_sequence(seed, tmp_path)
