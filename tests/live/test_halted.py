"""A start on an account that an earlier stop has left with a position."""

import signal
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from brokers.journal import Journal
from tests.live.killed import Desk, Nursery, desk

LOT = Decimal("0.00001")


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Desk]:
    nursery = Nursery()
    with desk(tmp_path, nursery) as made:
        yield made
    nursery.close()


def hold_something(account: Desk) -> None:
    """A run that ends with a position."""
    run = account.start("run_live.py")
    run.up()
    while account.venue_books().position < LOT:
        with account.moving():
            run.until(lambda: account.venue_books().position >= LOT)
        account.assert_comes_right(run)  # the market stands still, so nothing new is wanted
    account.stop(run)
    assert account.venue_books().position >= LOT


def test_it_sells_what_is_held_and_again_where_that_did_not_reach_the_exchange(account: Desk) -> None:
    hold_something(account)
    with Journal(account.journal) as journal:
        journal.halt("drawdown", "too deep", datetime(2026, 1, 1), value=0.5, limit=0.3, equity=5_000.0)
        before = len(journal.orders())

    run = account.start("run_live.py")
    run.up()
    account.running.faults.http(503, count=1, path="/api/v3/order")
    with account.moving():
        run.until(lambda: account.venue_books().position < LOT)
    account.assert_comes_right(run)

    assert "halted_position" in run.text
    with Journal(account.journal, create=False) as journal:
        orders = journal.orders()[before:]
    assert [(order.side, order.state, order.code) for order in orders] == [
        ("SELL", "REJECTED", "not_sent"),
        ("SELL", "FILLED", ""),
    ]
    run.send(signal.SIGINT)
    assert run.code() == 3, run.text
    assert account.replays(run)
