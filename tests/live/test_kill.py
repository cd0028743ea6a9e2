"""Runs killed with SIGKILL at any moment: whatever was on its way, the next start holds what the exchange holds."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from live_process import Live
from trading_desk import trader

from brokers.journal import Journal
from tests.live.killed import SYMBOL, Desk, Nursery, Run, desk

_STARTING_S, _TRADING_S = 1.2, 1.2  # the moments of a kill lie within
# Where a trader dies: which function, before it has begun or when it has done its work, the how-manieth time.
TRADING = [
    ("brokers.journal:Journal.order_sent", "before", 5),
    ("brokers.journal:Journal.order_sent", "after", 4),
    ("brokers.venue_link:Link.place", "before", 6),  # it is in the journal, and nobody was sent it
    ("brokers.venue_link:Link.place", "after", 7),  # it was answered, and the journal does not know
    ("brokers.venue_keeper:Keeper.tell", "before", 12),
    ("brokers.journal:Journal._book", "before", 9),  # inside of the transaction of a fill: half of it is written
    ("brokers.journal:Journal.fill", "after", 11),  # it is booked, and the graph has not heard
    ("brokers.journal:Journal.order_changed", "before", 8),
    ("brokers.journal:Journal.order_changed", "after", 8),
    ("brokers.venue_link:Link.cancel", "before", 2),
    ("brokers.venue_link:Link.cancel", "after", 2),
]
STARTING = [
    ("feeds.crypto:warmup", "before", 1),
    ("feeds.crypto:warmup", "after", 1),
    ("brokers.journal:Journal.begin_run", "after", 1),
    ("brokers.settle:_Settler._look", "after", 1),
    ("brokers.settle:write", "before", 1),
    ("brokers.journal:Journal.set_baseline", "after", 1),  # inside of the transaction of the plan
    ("brokers.settle:write", "after", 1),
    ("graphs.live_run:write_manifest", "before", 1),
    ("graphs.live_run:write_manifest", "after", 1),
    ("brokers.venue:VenueService._work", "before", 1),
    ("brokers.venue_link:Link.open", "after", 1),
]
FAST = {TRADING[2], TRADING[5], STARTING[5]}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def account(tmp_path: Path, nursery: Nursery) -> Iterator[Desk]:
    with desk(tmp_path, nursery) as made:
        yield made


def slow(points: list[Any]) -> list[Any]:
    """All of them; those that are not among the few of the fast form are slow."""
    return [pytest.param(*p, id=" ".join(map(str, p)), marks=() if p in FAST else pytest.mark.slow) for p in points]


@pytest.mark.parametrize(
    ("program", "kills"),
    [
        ("limits", 3),
        ("run_live.py", 3),
        pytest.param("limits", 50, marks=pytest.mark.slow),
        pytest.param("run_live.py", 50, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_goes_on_with_what_the_exchange_holds(
    account: Desk, program: str, kills: int
) -> None:
    source, seen = random.Random(f"{program} {kills}"), Counter[str]()
    moments = [("unanswered", "starting", "trading", "stopping")[number % 4] for number in range(kills)]
    source.shuffle(moments)
    for moment in moments:
        killed_while(account, program, moment, source, seen)
        account.running.faults.clear()
        account.running.faults.burst(source.randrange(1, 40))  # the market goes on without it
    run = account.start(program)
    run.up()
    account.assert_started_right(run)
    with account.moving():
        time.sleep(_TRADING_S)
    account.assert_comes_right(run)
    account.stop(run)
    assert not account.wrong(run)

    assert seen["unanswered"], seen
    assert seen["working"] or program != "limits", seen
    killed = account.runs[:-1]
    again = killed if kills > 5 else [max(killed, key=lambda run: run.recorded)]
    assert sum(account.replays(run) for run in again) >= len(again) / 3


def killed_while(account: Desk, program: str, moment: str, source: random.Random, seen: Counter[str]) -> None:
    """Start a run, see that it begins well, and kill it: while it is starting, while it trades, while an order of its
    has not been answered, or while it takes back what works because it was asked to stop."""
    if source.random() < 0.5:
        account.running.faults.slow_ack(source.choice((30.0, 300.0)), source.randrange(1, 6))
    run = account.start(program)
    market = nullcontext(True) if source.random() < 0.6 else account.moving()
    if moment == "starting":
        with market:
            time.sleep(source.random() * _STARTING_S)
            run.kill()
        return
    with market as still:
        run.up()
    if still:
        account.assert_started_right(run)
    account.assert_comes_right(run)
    with account.moving():
        time.sleep(0.1 + source.random() * _TRADING_S)
        if moment == "unanswered":
            account.running.faults.stall(kind="user")  # so that nothing tells of an order but its answer
            account.running.faults.slow_ack(500.0, 1_000)
            run.until(lambda: unanswered(account))
            time.sleep(source.random() * 0.05)
        if moment == "stopping":
            run.send(signal.SIGINT)
            time.sleep(source.random() * 0.3)
            run.send(signal.SIGKILL)
            assert run.code() in (-signal.SIGKILL, 130), run.text
        else:
            run.kill()
    seen["working"] += bool(account.venue_books().working)
    seen["unanswered"] += unanswered(account)


def unanswered(account: Desk) -> bool:
    """Whether an order is on its way, for all that the journal knows."""
    with Journal(account.journal, create=False) as journal:
        return any(order.state == "PENDING" for order in journal.open_orders())


@pytest.mark.parametrize(("where", "when", "times"), slow(TRADING))
def test_a_trader_that_dies_at_a_line_is_gone_on_with(account: Desk, where: str, when: str, times: int) -> None:
    dying = account.start("limits", die={"in": where, "when": when, "times": times})
    dies(account, dying)
    run = account.start("limits")
    run.up()
    account.assert_started_right(run)
    with account.moving():
        run.until(lambda: run.text.count(" orders: ") >= 5)
    account.assert_comes_right(run)
    account.stop(run)


@pytest.mark.parametrize(("where", "when", "times"), slow(STARTING))
def test_a_start_that_dies_at_a_line_is_begun_again(account: Desk, where: str, when: str, times: int) -> None:
    dies(account, account.start("limits", die={"in": "brokers.venue_link:Link.place", "when": "before", "times": 12}))
    account.running.faults.burst(20)
    dies(account, account.start("limits", die={"in": where, "when": when, "times": times}))
    run = account.start("limits")
    run.up()
    account.assert_started_right(run)
    with Journal(account.journal, create=False) as journal:
        assert [order.code for order in journal.orders() if not order.venue_id] == ["never_arrived"]


def test_one_killed_between_the_send_and_its_acknowledgement_finds_its_order(account: Desk) -> None:
    first = account.start("limits")
    first.up()
    account.running.faults.slow_ack(60_000.0, 1_000)  # the answer does not tell

    def unheard() -> list[str]:
        """Orders at the exchange of which the run does not know."""
        account.running.faults.stall(kind="user")  # nor does the stream, whenever it is connected again
        sent = [order["clientOrderId"] for order in account.truth["orders"]]
        with Journal(account.journal, create=False, copy=True) as journal:
            state = {order.client_id: order.state for order in journal.orders()}
        return [client_id for client_id in sent if state[client_id] == "PENDING"]

    with account.moving():
        first.kill_while(lambda: len(unheard()) >= 3)  # the next poll would tell
    assert len(unheard()) >= 3
    account.running.faults.clear()

    run = account.start("limits")
    run.up()
    account.assert_started_right(run)
    account.stop(run)


def test_an_order_that_arrives_after_its_sender_has_died_is_found_by_the_start_that_asks_for_it(account: Desk) -> None:
    dies(account, account.start("limits", die={"in": "brokers.venue_link:Link.place", "when": "before", "times": 6}))
    with Journal(account.journal, create=False) as journal:
        (lost,) = (order for order in journal.open_orders() if order.state == "PENDING")

    async def late() -> Run:
        """The order comes through once the next start has been told that nobody knows it."""
        async with trader(account.running.url) as client:
            run = account.start("limits", "--venue.recv-window-ms", "60000")  # for which it is waited for
            run.until(lambda: account.asked_for(lost.client_id))
            kind, price = ("limit", lost.limit_price) if lost.order_type == "LIMIT" else ("market", None)
            params = {"clientOrderId": lost.client_id}
            await client.create_order(SYMBOL, kind, lost.side.lower(), lost.quantity, price, params)
            return run

    run = asyncio.run(late())
    run.up()
    account.assert_started_right(run)
    assert account.truth["client_ids"][lost.client_id] == 1


@pytest.mark.slow
def test_the_command_itself_can_be_killed_from_its_first_instruction_on(account: Desk) -> None:
    source = random.Random(1)
    for _ in range(6):
        live = Live(*account.flags())
        with account.moving():
            time.sleep(source.random() * 12.0)
            live.send(signal.SIGKILL)
            assert live.code() == -signal.SIGKILL, live.text
        run = account.start("run_live.py")
        run.up()
        account.assert_started_right(run)
        account.stop(run)


def dies(account: Desk, run: Run) -> None:
    """The run kills itself, sooner or later, while the market moves."""
    with account.moving():
        assert run.code() == -signal.SIGKILL, run.text
