"""Brackets, trailing stops and DAY orders on every trade of the ES sample: what the example prints is what must be."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "02_bracket_orders.py"


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def told() -> str:
    done = example()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def last_states(told: str) -> dict[str, tuple[str, str]]:
    """(state, code) of the last update of each order."""
    found = re.findall(r"updates: (\w+) ES, \S+ open \[([\w-]+)\](?:.*\((\w+)\))?$", told, flags=re.MULTILINE)
    return {order: (state, code) for state, order, code in found}


def fills(told: str) -> dict[str, tuple[str, float]]:
    """(side, price) by order; each is of one contract."""
    found = re.findall(r"fills: (\w+) 1 ES at (\S+), .*\[([\w-]+)\]$", told, flags=re.MULTILINE)
    return {order: (side, float(price)) for side, price, order in found}


def test_of_stop_and_target_one_fills_and_takes_the_other_away(told: str) -> None:
    ends, filled = last_states(told), fills(told)
    entered = [key for key in filled if re.fullmatch(r"bracket-\d+", key)]
    assert entered
    by_exit = defaultdict(int)
    for key in entered:
        outcome = {name: ends[f"{key}-{name}"] for name in ("stop", "target")}
        exits = [name for name, (state, _) in outcome.items() if state == "FILLED"]
        assert len(exits) == 1
        (other,) = set(outcome) - set(exits)
        assert outcome[other] == ("CANCELLED", "oco")
        assert filled[key][0] != filled[f"{key}-{exits[0]}"][0]
        by_exit[exits[0]] += 1
    assert set(by_exit) == {"stop", "target"}  # the sample has both


def test_a_target_fills_at_its_limit_and_a_stop_no_better_than_its_trigger(told: str) -> None:
    filled = fills(told)
    limits = dict(re.findall(r"at limit ([\d.]+), .*\[([\w-]+-target)\]$", told, flags=re.MULTILINE))
    stops = dict(re.findall(r"at stop ([\d.]+), .*\[([\w-]+-stop)\]$", told, flags=re.MULTILINE))
    for price, key in ((float(price), key) for price, key in limits.items()):
        if key in filled:
            assert filled[key][1] == price
    checked = 0
    for trigger, key in ((float(trigger), key) for trigger, key in stops.items()):
        if key in filled:
            side, price = filled[key]
            assert price >= trigger if side == "BUY" else price <= trigger
            checked += 1
    assert checked


def test_a_trailing_stop_closes_what_its_parent_opened(told: str) -> None:
    ends, filled = last_states(told), fills(told)
    trails = [key for key in filled if key.endswith("-trail")]
    assert trails
    for key in trails:
        assert ends[key][0] == "FILLED"
        assert filled[key][0] != filled[key.removesuffix("-trail")][0]


def test_a_day_order_ends_with_its_day_and_takes_its_children_with_it(told: str) -> None:
    expired = re.findall(
        r"^(\S+ \S+) updates: EXPIRED ES, 1 open \[(bracket-\d+)\].*\(time_in_force\)$", told, flags=re.MULTILINE
    )
    assert expired
    for when, key in expired:
        assert when.endswith("00:00:00")  # UTC
        for name in ("stop", "target"):
            assert last_states(told)[f"{key}-{name}"] == ("CANCELLED", "parent_ended")


def test_the_same_command_prints_the_same(told: str) -> None:
    assert example().stdout == told


def test_the_example_refuses_distances_that_cannot_be() -> None:
    done = example("--breakout.stop", "0")
    assert done.returncode == 2
    assert "stop must lie in (0, 1000), was 0.0" in done.stdout + done.stderr
