"""The journal: what it keeps, whatever happens to the process that writes it."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.journal import NOT_SENT, Halt, Journal, JournalError, KeptFill, KeptFlow, KeptOrder, KeptRisk
from brokers.journal_schema import APPLICATION, STEPS

WHEN = datetime(2024, 1, 2, 14, 30, 0, 123456)
ROOT = Path(__file__).parents[2]


def halted(journal: Journal, code: str = "drawdown", when: datetime = WHEN) -> Halt:
    return journal.halt(code, "it fell", when, value=0.4, limit=0.35, equity=61_234.5)


def test_a_halt_is_open_until_a_person_resets_it(tmp_path: Path) -> None:
    path = tmp_path / "account.journal"
    with Journal(path) as journal:
        assert journal.open_halt() is None
        halted(journal)
    with Journal(path) as journal:  # a restart
        open_halt = Halt(1, "drawdown", "it fell", WHEN, 0.4, 0.35, 61_234.5)
        assert journal.open_halt() == open_halt
        done = journal.reset("Ada", WHEN + timedelta(hours=1), "looked into it")
        assert done == Halt(
            1, "drawdown", "it fell", WHEN, 0.4, 0.35, 61_234.5, "Ada", WHEN + timedelta(hours=1), "looked into it"
        )
    with Journal(path) as journal:
        assert journal.open_halt() is None
        assert journal.history() == [done]


def test_a_second_halt_does_not_hide_the_first(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        first = halted(journal)
        assert halted(journal, "daily_loss", WHEN + timedelta(days=1)) == first
        assert journal.history() == [first]
        journal.reset("Ada", WHEN)
        assert halted(journal, "daily_loss").number == 2
        assert [h.code for h in journal.history()] == ["drawdown", "daily_loss"]


def test_a_reset_without_a_halt_changes_nothing_and_wants_a_name(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal.reset("Ada", WHEN) is None
        halted(journal)
        with pytest.raises(ValueError, match="by a person"):
            journal.reset(" ", WHEN)
        assert journal.open_halt() is not None


def test_figures_that_are_no_numbers_do_not_keep_a_halt_from_being_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        halt = journal.halt("x", "", WHEN, value=math.inf, limit=math.nan, equity=-math.inf)
    assert (halt.value, halt.equity) == (math.inf, -math.inf)
    assert math.isnan(halt.limit)


def test_two_processes_cannot_both_open_a_halt(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one, Journal(tmp_path / "j") as other:
        assert halted(one, "drawdown") == halted(other, "daily_loss")
        assert other.reset("Ada", WHEN) is not None
        assert one.open_halt() is None


def test_every_write_is_synced_in_full_unless_it_need_not_be(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with Journal(tmp_path / "j", durable=False) as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (1,)


# Halts and resets in turn, and says after each that it is done.
WRITER = """
import sys
from datetime import datetime
from brokers.journal import Journal
journal = Journal(sys.argv[1])
for i in range(100_000):
    journal.halt(f"code{i}", "", datetime(2024, 1, 2), value=float(i), limit=0.0, equity=0.0)
    print("halted", i, flush=True)
    if i == int(sys.argv[2]):
        sys.stdin.read()
    journal.reset("Ada", datetime(2024, 1, 3))
    print("reset", i, flush=True)
"""


def killed_writer(path: Path, *, waits_at: int, kill_at: int) -> str:
    """Kill -9 a process that writes, after its line `kill_at`; the last line that it managed to print."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(waits_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    lines = [process.stdout.readline() for _ in range(kill_at + 1)]
    process.kill()
    lines += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    process.stdin.close()
    return [line for line in lines if line.endswith("\n")][-1].strip()


def test_a_halt_survives_kill_9_as_soon_as_it_returned(tmp_path: Path) -> None:
    assert killed_writer(tmp_path / "j", waits_at=0, kill_at=0) == "halted 0"
    with Journal(tmp_path / "j") as journal:
        halt = journal.open_halt()
        assert halt is not None
        assert halt.code == "code0"


@pytest.mark.parametrize("kill_at", [1, 4, 9, 30])
def test_a_process_killed_while_it_writes_leaves_what_it_said_and_at_most_one_step_more(
    tmp_path: Path, kill_at: int
) -> None:
    said, number = killed_writer(tmp_path / "j", waits_at=-1, kill_at=kill_at).split()
    with Journal(tmp_path / "j") as journal:
        history = journal.history()
        steps = sum(2 if halt.reset_by else 1 for halt in history)  # writes that are in the file
        done = 2 * int(number) + (1 if said == "halted" else 2)  # writes that were told of
        assert steps in (done, done + 1)
        assert [halt.code for halt in history] == [f"code{i}" for i in range(len(history))]
        assert halted(journal) == journal.open_halt()  # and it can be written on


def test_a_file_that_is_no_journal_is_told(tmp_path: Path) -> None:
    text, other, folder = tmp_path / "text", tmp_path / "other", tmp_path / "folder"
    text.write_text("halts: none\n" * 100)
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE halts (id INTEGER)")
    database.close()
    folder.mkdir()
    for path, message in (
        (text, "cannot be used: file is not a database"),
        (other, "is no journal: want one that ticktorch wrote"),
        (folder, "cannot be opened: unable to open"),
        (tmp_path / "no" / "such" / "folder", "cannot be opened: unable to open"),
    ):
        with pytest.raises(JournalError, match=message):
            Journal(path)
    assert text.read_text() == "halts: none\n" * 100


def test_a_journal_that_is_not_there_is_made_only_if_so_wanted(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="does not exist"):
        Journal(tmp_path / "j", create=False)
    assert not (tmp_path / "j").exists()
    (tmp_path / "j").touch()  # left by a process that was killed before its first write
    with pytest.raises(JournalError, match="is no journal"):
        Journal(tmp_path / "j", create=False)
    Journal(tmp_path / "j").close()
    Journal(tmp_path / "j", create=False).close()


def test_a_journal_of_a_newer_schema_is_told_and_left_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        halted(journal)
        journal._db.execute("PRAGMA user_version = 7")
    with pytest.raises(JournalError, match="is of schema 7, this version knows up to 2"):
        Journal(tmp_path / "j")
    database = sqlite3.connect(tmp_path / "j")
    assert database.execute("PRAGMA user_version").fetchone() == (7,)
    database.close()


def test_a_copy_holds_what_the_file_holds_and_changes_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:  # of a run that goes on
        journal.begin_run("r-1", "paper")
        halted(journal)
        before = path.read_bytes()

        with Journal(path, copy=True) as copy:
            assert [run.run_id for run in copy.runs()] == ["r-1"]
            assert copy.reset("Ada", WHEN) is not None

        assert path.read_bytes() == before
        assert journal.open_halt() is not None


def test_a_copy_of_what_is_no_journal_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"gone does not exist"):
        Journal(tmp_path / "gone", copy=True)
    (tmp_path / "text").write_text("no journal" * 100)
    with pytest.raises(JournalError, match=r"text cannot be used: file is not a database"):
        Journal(tmp_path / "text", copy=True)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE a (b)")
    other.close()
    with pytest.raises(JournalError, match=r"other is no journal"):
        Journal(tmp_path / "other", copy=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), max_size=12))
def test_there_is_never_more_than_one_open_halt(tmp_path_factory: pytest.TempPathFactory, steps: list[bool]) -> None:
    with Journal(tmp_path_factory.mktemp("j") / "j") as journal:
        halted_now, count = False, 0
        for stop in steps:
            if stop:
                count += not halted_now
                halted(journal)
            else:
                journal.reset("Ada", WHEN)
            halted_now = stop
            assert (journal.open_halt() is not None) == halted_now
            assert sum(halt.reset_by == "" for halt in journal.history()) == halted_now
        assert len(journal.history()) == count


# Runs, orders and fills


def begun(path: Path, run_id: str = "r1") -> Journal:
    journal = Journal(path, durable=False)
    journal.begin_run(run_id, "paper", "abc")
    return journal


def an_order(number: int = 1, **changed: Any) -> KeptOrder:
    values = {
        "client_id": f"tt-r1-{number}",
        "order_id": f"r1-{number}",
        "symbol": "BTC/USDT",
        "side": "BUY",
        "order_type": "LIMIT",
        "quantity": "0.5",
        "limit_price": "100.25",
        "sent_ns": 1000 + number,
    }
    return KeptOrder(**{**values, **changed})


def a_fill(trade_id: str = "7", number: int = 1, **changed: Any) -> KeptFill:
    values = {
        "symbol": "BTC/USDT",
        "trade_id": trade_id,
        "order_id": f"r1-{number}",
        "client_id": f"tt-r1-{number}",
        "side": "BUY",
        "quantity": "0.2",
        "price": "100.25",
        "time_ns": 2000,
    }
    return KeptFill(**{**values, **changed})


def test_an_order_is_kept_as_it_was_sent_and_follows_what_is_heard_of_it(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        sent = an_order(quantity="0.500", limit_price="1E+2", reduce_only=True, strategy="trend")
        journal.order_sent(sent)
        plain = replace(sent, quantity="0.5", limit_price="100", changed_ns=1001, run=1)
        assert journal.open_orders() == [plain]
        assert journal.order_changed("tt-r1-1", "ACCEPTED", changed_ns=5000, venue_id="42")
        assert journal.fill(a_fill())
        kept = journal.order("tt-r1-1")
        assert kept == replace(plain, state="PARTLY_FILLED", venue_id="42", booked="0.2", filled="0.2", changed_ns=5000)
        assert journal.order_of("r1-1") == kept
        assert journal.fill(a_fill("8", quantity="0.3"))
    with Journal(tmp_path / "j") as journal:  # a restart
        assert journal.open_orders() == journal.unsettled_orders() == []
        assert [(order.state, order.booked) for order in journal.orders()] == [("FILLED", "0.5")]
        assert [(fill.number, fill.run, fill.trade_id) for fill in journal.fills()] == [(1, 1, "7"), (2, 1, "8")]
        assert journal.positions() == {"BTC/USDT": Decimal("0.5")}


def test_no_client_id_and_no_order_id_is_sent_twice(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        journal.order_sent(an_order())
        for again in (an_order(), an_order(client_id="tt-x"), an_order(order_id="x")):
            with pytest.raises(JournalError, match="cannot be written: UNIQUE"):
                journal.order_sent(again)
        assert len(journal.orders()) == 1


def test_a_trade_is_booked_once_and_the_same_id_of_another_symbol_is_another_trade(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        journal.order_sent(an_order())
        assert [journal.fill(a_fill()), journal.fill(a_fill()), journal.fill(a_fill(quantity="0.3"))] == [
            True,
            False,
            False,
        ]
        assert journal.fill(a_fill(symbol="ETH/USDT", client_id="", order_id="paper-1", side="SELL", base_fee="0"))
        assert journal.positions() == {"BTC/USDT": Decimal("0.2"), "ETH/USDT": Decimal("-0.2")}
        assert [order.booked for order in journal.orders()] == ["0.2"]
        assert [fill.trade_id for fill in journal.fills(after=1)] == ["7"]


def test_an_order_that_ended_stays_ended_unless_it_is_revived(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        journal.order_sent(an_order())
        assert journal.order_changed("tt-r1-1", "REJECTED", changed_ns=5, code=NOT_SENT)
        assert [order.client_id for order in journal.unsettled_orders()] == ["tt-r1-1"]
        assert not journal.order_changed("tt-r1-1", "ACCEPTED", changed_ns=6, venue_id="9", filled="0.1")
        kept = journal.order("tt-r1-1")
        assert kept is not None
        assert (kept.state, kept.venue_id, kept.filled, kept.code) == ("REJECTED", "9", "0.1", NOT_SENT)
        assert journal.order_changed("tt-r1-1", "CANCELLED", changed_ns=7, filled="0.05", revive=True)
        kept = journal.order("tt-r1-1")
        assert kept is not None
        assert (kept.state, kept.filled, kept.booked) == ("CANCELLED", "0.1", "0")  # what was filled never shrinks
        assert journal.unsettled_orders() == [kept]  # a fill is missing
        assert journal.fill(a_fill(quantity="0.1"))
        assert journal.unsettled_orders() == []
        assert journal.orders()[0].state == "CANCELLED"


def test_a_cancel_that_is_under_way_stays_so_until_all_is_filled(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        journal.order_sent(an_order())
        journal.order_changed("tt-r1-1", "CANCEL_PENDING", changed_ns=5)
        journal.fill(a_fill())
        assert journal.orders()[0].state == "CANCEL_PENDING"
        journal.fill(a_fill("8", quantity="0.3"))
        assert journal.orders()[0].state == "FILLED"


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        for order in (an_order(quantity="0"), an_order(quantity="nan"), an_order(limit_price="x"), an_order(state="X")):
            with pytest.raises(ValueError, match="must be"):
                journal.order_sent(order)
        journal.order_sent(an_order())
        with pytest.raises(ValueError, match="price must be a decimal"):
            journal.fill(a_fill(price="inf"))
        with pytest.raises(ValueError, match="state of an order must be one of"):
            journal.order_changed("tt-r1-1", "LOST", changed_ns=1)
        with pytest.raises(JournalError, match="has no order 'tt-other'"):
            journal.order_changed("tt-other", "ACCEPTED", changed_ns=1)
        assert (len(journal.orders()), journal.fills()) == (1, [])


def test_rows_want_a_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(JournalError, match="want begin_run first"):
            journal.order_sent(an_order())
        with pytest.raises(ValueError, match="wants an id and a life"):
            journal.begin_run("", "paper")


def test_a_connection_that_began_no_run_adds_to_the_newest(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as owner, Journal(tmp_path / "j") as other:
        assert other.fill(a_fill(client_id=""))
        assert [fill.run for fill in owner.fills()] == [1]


def test_a_run_id_serves_once_and_an_account_stays_what_it_is(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        journal.end_run()
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(JournalError, match="knows a run 'r1'"):
            journal.begin_run("r1", "paper")
        with pytest.raises(JournalError, match="is of the account 'paper', was asked to go on as 'binance live'"):
            journal.begin_run("r2", "binance live")
        assert journal.begin_run("r2", "paper") == 2
        assert [(run.run_id, run.config_hash, run.outcome) for run in journal.runs()] == [
            ("r1", "abc", "stop"),
            ("r2", "", ""),
        ]
        first, second = journal.runs()
        assert first.ended is not None
        assert second.ended is None


def test_an_account_has_one_run_at_a_time(tmp_path: Path) -> None:
    with begun(tmp_path / "j"), Journal(tmp_path / "j") as other:
        with pytest.raises(JournalError, match=rf"is in use by process {os.getpid()}: an account has one run"):
            other.begin_run("r2", "paper")
        assert [run.run_id for run in other.runs()] == ["r1"]  # to look at it is no run
    with begun(tmp_path / "j", "r2") as journal:
        assert len(journal.runs()) == 2


HOLDER = """
import sys
from brokers.journal import Journal
journal = Journal(sys.argv[1])
journal.begin_run("theirs", "paper")
print("begun", flush=True)
sys.stdin.read()
"""


def test_a_killed_run_lets_go_of_the_account(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "j")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with Journal(tmp_path / "j") as journal:
            with pytest.raises(JournalError, match=f"in use by process {process.pid}"):
                journal.begin_run("ours", "paper")
            process.kill()
            process.wait()
            assert journal.begin_run("ours", "paper") == 2


def test_risk_baselines_facts_and_flows_are_what_was_written_last(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        assert (journal.risk(), journal.baselines(), journal.fact("x")) == (KeptRisk(), {}, "")
        journal.save_risk(1.0, "2024-01-02", 0.9)
        journal.save_risk(0.1 + 0.2, "2024-01-03", 1e15 / 3)
        journal.set_baseline("BTC", "1.50")
        journal.set_baseline("BTC", "-0.00000001")
        journal.keep_fact("x", "1")
        journal.keep_fact("x", "2")
        journal.flow(KeptFlow(symbol="BTC/USDT", amount="-1.10", kind="borrow", time_ns=5))
        with pytest.raises(ValueError, match="baseline of ETH must be a decimal"):
            journal.set_baseline("ETH", "much")
    with Journal(tmp_path / "j") as journal:
        assert journal.risk() == KeptRisk(0.1 + 0.2, "2024-01-03", 1e15 / 3)
        assert journal.baselines() == {"BTC": "-0.00000001"}
        assert (journal.baseline("BTC"), journal.baseline("ETH")) == ("-0.00000001", None)
        assert journal.fact("x") == "2"
        assert journal.flows() == [
            KeptFlow(symbol="BTC/USDT", amount="-1.1", kind="borrow", time_ns=5, number=1, run=1)
        ]


def test_a_transaction_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with begun(tmp_path / "j") as journal:
        with suppress(ZeroDivisionError), journal.transaction():
            journal.order_sent(an_order())
            journal.fill(a_fill())  # has a transaction of its own
            assert (len(journal.orders()), len(journal.fills())) == (1, 1)
            raise ZeroDivisionError
        assert (journal.orders(), journal.fills()) == ([], [])
        with journal.transaction():
            journal.order_sent(an_order())
            journal.fill(a_fill())
        assert (len(journal.orders()), len(journal.fills())) == (1, 1)


def test_a_journal_of_the_first_schema_goes_on_with_its_halts(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "j")
    for statement in STEPS[1]:
        old.execute(statement)
    old.execute(f"PRAGMA application_id = {APPLICATION}")
    old.execute("PRAGMA user_version = 1")
    old.execute("INSERT INTO halts (code, message, engine_time) VALUES ('drawdown', 'it fell', '2024-01-02T00:00:00')")
    old.commit()
    old.close()
    with Journal(tmp_path / "j", create=False) as journal:
        halt = journal.open_halt()
        assert halt is not None
        assert halt.code == "drawdown"
        journal.begin_run("r1", "paper")
        journal.order_sent(an_order())
    with Journal(tmp_path / "j") as journal:
        assert len(journal.open_orders()) == 1
        assert journal._db.execute("PRAGMA user_version").fetchone() == (2,)


# Sends an order, fills it, and says after each that it is done.
TRADER = """
import sys
from brokers.journal import Journal, KeptFill, KeptOrder
journal = Journal(sys.argv[1], durable=False)
run = f"r{len(journal.runs())}"
journal.begin_run(run, "paper")
for i in range(100_000):
    name = f"{run}-{i}"
    journal.order_sent(KeptOrder(client_id="tt-" + name, order_id=name, symbol="A", side="BUY", order_type="MARKET",
                                 quantity="2", sent_ns=i + 1))
    print("sent", name, flush=True)
    for trade in (1, 2):
        journal.fill(KeptFill(symbol="A", trade_id=f"{name}-{trade}", order_id=name, client_id="tt-" + name, side="BUY",
                              quantity="1", price="3", time_ns=i))
        print("filled", f"{name}-{trade}", flush=True)
"""


def test_a_trader_killed_again_and_again_leaves_all_that_it_said(tmp_path: Path) -> None:
    said: list[str] = []
    for kill_at in (1, 2, 3, 10, 25, 40):
        command = [sys.executable, "-c", TRADER, str(tmp_path / "j")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(kill_at)]
            process.kill()
            lines += [line for line in process.stdout.readlines() if line.endswith("\n")]
            assert process.wait() == -signal.SIGKILL
        said += [line.strip() for line in lines]
        with Journal(tmp_path / "j") as journal:
            orders, fills = journal.orders(), journal.fills()
            assert {line[5:] for line in said if line.startswith("sent")} <= {order.order_id for order in orders}
            assert {line[7:] for line in said if line.startswith("filled")} <= {fill.trade_id for fill in fills}
            assert len(orders) + len(fills) - len(said) <= len(journal.runs())  # at most one step more a run
            for order in orders:  # a fill and what it does to its order are one step
                assert Decimal(order.booked) == sum(fill.order_id == order.order_id for fill in fills)
                assert order.state == ("PENDING", "PARTLY_FILLED", "FILLED")[int(order.booked)]


amounts = st.integers(1, 10**12).map(lambda count: Decimal(count) / 10**8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), amounts, st.booleans()), max_size=10))
def test_positions_are_the_exact_sum_of_fills_however_often_they_come(
    tmp_path_factory: pytest.TempPathFactory, trades: list[tuple[bool, Decimal, bool]]
) -> None:
    with begun(tmp_path_factory.mktemp("j") / "j") as journal:
        position = Decimal()
        for number, (buys, quantity, again) in enumerate(trades):
            side, base_fee = ("BUY", Decimal("0.00000001")) if buys else ("SELL", Decimal())
            fill = a_fill(str(number), client_id="", side=side, quantity=str(quantity), base_fee=str(base_fee))
            for time in range(1 + again):
                assert journal.fill(fill) == (time == 0)
            position += (quantity if buys else -quantity) - base_fee
        assert journal.positions() == ({"BTC/USDT": position} if trades else {})
        assert len(journal.fills()) == len(trades)


def test_a_reset_lets_losses_be_measured_anew(tmp_path: Path) -> None:
    # By the old peak the next run would stop again at its first mark.
    with Journal(tmp_path / "account.journal") as journal:
        journal.begin_run("r", "paper")
        journal.save_risk(110_000.0, "2024-01-02", 105_000.0)
        journal.halt("drawdown", "it fell", datetime(2024, 1, 2), value=0.3, limit=0.2, equity=77_000.0)
        assert journal.risk().equity_peak == 110_000.0

        journal.reset("a person", datetime(2024, 1, 3))

        kept = journal.risk()
        assert (kept.equity_peak, kept.day, kept.day_start) == (0.0, "", 0.0)
