"""The whole live run under every fault that the exchange knows: nothing is lost, doubled, hidden or risked in the dark.

Each run is run_live.py with real orders on a local exchange. What came of it is judged by `tests.live.checks`.
"""

import random
from pathlib import Path

import pytest

from tests.live.checks import Run, refused_by_gate
from tests.live.ordeals import Fault, ordeal

TROUBLE = r"(STALE|GAP)"
TRADES, ORDERS = r"local exchange trades ES/USD ", r"local exchange orders (ES/USD )?"


FAULTS = (
    Fault("abort", {"kind": "all"}, TRADES + TROUBLE),
    Fault("close", {"kind": "all", "code": 1001}, TRADES + TROUBLE),
    Fault("stall", {"kind": "market"}, TRADES + "STALE"),
    Fault("outage", {"seconds": 1.5}, TRADES + TROUBLE),
    Fault("outage", {"seconds": 1.5, "refuse": True}, TRADES + TROUBLE),
    Fault("burst", {"count": 2000}),
    Fault("duplicate", {"count": 30}),
    Fault("duplicate", {"count": 5, "kind": "user"}),
    Fault("out_of_order", {"count": 30}),
    Fault("out_of_order", {"count": 5, "kind": "user"}),
    Fault("malformed", {"count": 8}, TRADES + "GAP"),
    Fault("http", {"status": 429, "count": 2, "retry_after": 1}),
    Fault("http", {"status": 503, "seconds": 1.0}, ORDERS + TROUBLE),
    Fault("skew", {"ms": 4000}),
    Fault("skew", {"ms": -4000}),
    Fault("reject_next", {"count": 2}),
    Fault("slow_ack", {"ms": 2000.0, "count": 2}),  # the user stream tells of the order in time
    Fault("lost_ack", {"count": 2}),
    Fault("stall", {"kind": "user"}),
)
# With a user stream that is silent too, nobody knows what has become of an order.
UNANSWERED = (
    Fault("slow_ack", {"ms": 2000.0, "count": 1}, ORDERS + "GAP"),
    Fault("lost_ack", {"count": 1}, ORDERS + "GAP"),
)
DEAF = Fault("stall", {"kind": "user"})


def test_a_run_outlives_each_fault_in_turn_and_then_one_upon_another(tmp_path: Path) -> None:
    with ordeal(tmp_path) as suffering:
        for each in FAULTS:
            suffering.suffer(each)
            suffering.recover()
        for each in UNANSWERED:
            suffering.begin(DEAF)
            suffering.suffer(each)
            suffering.recover()
        suffering.pass_through(_sequence(1)[:5])
        run, found = suffering.stop()
    assert found + suffering.replay() == []
    # Orders were refused for the feeds, and those that reduce were not: the checks have judged something.
    assert "stale_feed" in refused_by_gate(run).values()
    assert _passed_in_the_dark(run)
    assert len(run.fills) >= 60
    assert len(run.trades) >= 3000


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
    faults = dice.choices(FAULTS, k=10)
    return [(each, dice.choice((0, 3, 20, 20, 60))) for each in faults]


@pytest.mark.slow
@pytest.mark.parametrize("each", FAULTS, ids=str)
def test_a_run_outlives_a_fault_alone(each: Fault, tmp_path: Path) -> None:
    with ordeal(tmp_path) as suffering:
        suffering.suffer(each)
        suffering.recover()
        _, found = suffering.stop()
    assert found + suffering.replay() == []


@pytest.mark.slow
@pytest.mark.parametrize("each", UNANSWERED, ids=str)
def test_a_run_outlives_an_order_of_which_nobody_tells(each: Fault, tmp_path: Path) -> None:
    with ordeal(tmp_path) as suffering:
        suffering.begin(DEAF)
        suffering.suffer(each)
        suffering.recover()
        _, found = suffering.stop()
    assert found + suffering.replay() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 24))
def test_a_run_outlives_a_random_sequence(seed: int, tmp_path: Path) -> None:
    sequence = _sequence(seed)
    with ordeal(tmp_path) as suffering:
        suffering.pass_through(sequence)
        _, found = suffering.stop()
    assert found + suffering.replay() == [], ", ".join(f"{each} {trades}" for each, trades in sequence)
