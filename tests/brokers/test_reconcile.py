"""Reconciliation: whatever happened before a crash, afterwards journal, books and venue agree to the last digit."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_venue import BASES, BTC, ModelVenue

from brokers.journal import NOT_SENT, Journal, JournalError, KeptFill, KeptFlow, KeptOrder
from brokers.ledger import Ledger
from brokers.opening import Note, Opening, OpeningPosition
from brokers.reconcile import (
    NEVER_ARRIVED,
    Plan,
    ReconcileConfig,
    ReconcileError,
    VenueTrade,
    journal_view,
    paper_opening,
    reconcile,
    write,
)
from brokers.restore import books
from brokers.venue_ids import client_id, is_ours

CONFIG = ReconcileConfig(initial_cash=1000.0)
ONE, PRICE = Decimal(1), Decimal("100.25")


class Desk:
    """One side that trades and may die at any step, and the venue that lives on."""

    def __init__(self, path: Path, venue: ModelVenue | None = None) -> None:
        self.path, self.venue = path, venue or ModelVenue()
        self.journal = Journal(path, durable=False)
        self.sent = 0
        self.journal.begin_run("r0", "test")

    def send(self, side: str, quantity: Decimal, *, arrives: bool = True, heard: bool = True) -> str:
        """Journal an order and send it; return its client id."""
        order_id = f"r{len(self.journal.runs()) - 1}-{self.sent}"
        self.sent += 1
        name = client_id(order_id)
        self.journal.order_sent(
            KeptOrder(
                client_id=name,
                order_id=order_id,
                symbol="BTC/USDT",
                side=side,
                order_type="LIMIT",
                quantity=str(quantity),
                limit_price=str(PRICE),
                sent_ns=self.sent,
            )
        )
        if arrives:
            order = self.venue.take(name, side, quantity, PRICE)
            if heard:
                self.journal.order_changed(name, "ACCEPTED", changed_ns=1, venue_id=order.venue_id)
        return name

    def hear_trade(self, trade: VenueTrade | None) -> None:
        kept = self.journal.order(self.venue.order(trade.venue_id).client_id) if trade else None
        if trade is not None and kept is not None:
            self.journal.fill(
                KeptFill(
                    symbol=trade.symbol,
                    trade_id=trade.trade_id,
                    order_id=kept.order_id,
                    client_id=kept.client_id,
                    side=trade.side,
                    quantity=str(trade.quantity),
                    price=str(trade.price),
                    fee=str(trade.fee),
                    base_fee=str(trade.base_fee),
                    time_ns=trade.time_ns,
                )
            )

    def hear_order(self, venue_id: str) -> None:
        order = self.venue.order(venue_id)
        if self.journal.order(order.client_id) is not None:
            self.journal.order_changed(
                order.client_id, order.state, changed_ns=2, venue_id=venue_id, filled=str(order.filled)
            )

    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path, durable=False)
        self.journal.begin_run(f"r{len(self.journal.runs())}", "test")

    def plan(self, config: ReconcileConfig = CONFIG, **changed: Any) -> Plan:
        options = {name: changed.pop(name) for name in ("patient", "done") if name in changed}
        view = self.venue.view(**changed)
        working = [order.client_id for order in view.orders if order.working]
        return reconcile(journal_view(self.journal, working), view, config, (BTC,), **options)

    def settled(self, config: ReconcileConfig = CONFIG, meanwhile: Iterator[None] | None = None) -> Plan:
        """Look, cancel, and look again until the plan is final; write it."""
        done: tuple[Note, ...] = ()
        for look in range(6):
            plan = self.plan(config, patient=look < 5, done=done)
            if plan.final:
                write(self.journal, plan, 9)
                return plan
            for cancel in plan.cancels:
                if meanwhile is not None:
                    next(meanwhile, None)
                self.venue.end(cancel.order.venue_id, "CANCELLED")
                done = (*done, Note(code=cancel.code, symbol="BTC/USDT", message=""))
        raise AssertionError(f"not settled: {plan.cancels} {plan.waits}")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "j")
    yield made
    made.journal.close()


def codes(plan: Plan) -> list[str]:
    return [note.code for note in plan.opening.notes]


def agrees(desk: Desk, opening: Opening) -> None:
    """The venue holds what the run starts with and what is not ours, to the last digit; the journal knows all."""
    baselines = {asset: max(Decimal(amount), Decimal()) for asset, amount in desk.journal.baselines().items()}
    held = {position.symbol: Decimal(position.quantity) for position in opening.positions}
    assert baselines["BTC"] + held.get("BTC/USDT", 0) == desk.venue.balances["BTC"]
    assert baselines["USDT"] + Decimal(opening.cash) == desk.venue.balances["USDT"]
    ours = {order.venue_id for order in desk.venue.orders if desk.journal.order(order.client_id) is not None}
    assert sorted(fill.trade_id for fill in desk.journal.fills()) == sorted(
        trade.trade_id for trade in desk.venue.trades if trade.venue_id in ours
    )
    working = {order.client_id: order for order in desk.venue.orders if order.working}
    assert {order.client_id for order in desk.journal.open_orders()} == {name for name in working if is_ours(name)}
    assert {client_id(order.order_id): Decimal(order.remaining) for order in opening.orders} == {
        name: order.quantity - order.filled for name, order in working.items() if is_ours(name)
    }
    assert desk.journal.unsettled_orders() == desk.journal.open_orders()


def test_the_first_start_leaves_alone_what_was_held_before(desk: Desk) -> None:
    desk.venue.balances["BTC"] = Decimal("0.5")
    plan = desk.settled()
    assert plan.opening == Opening(
        cash="1000",
        notes=(
            Note(
                code="baseline_set",
                symbol="BTC/USDT",
                message="0.5 BTC that the account held before are left alone",
                value=0.5,
            ),
        ),
    )
    assert desk.journal.baselines() == {"BTC": "0.5", "USDT": "9000"}
    agrees(desk, plan.opening)


def test_less_cash_than_the_first_run_wants_is_an_error(desk: Desk) -> None:
    with pytest.raises(ReconcileError, match=r"has 10000 USDT, the first run is to begin with 10000\.01"):
        desk.plan(ReconcileConfig(initial_cash=10_000.01))


def test_a_second_start_goes_on_from_the_fills_of_the_first(desk: Desk) -> None:
    desk.settled()
    desk.send("BUY", 2 * ONE)
    desk.hear_trade(desk.venue.fill("1", 2 * ONE))
    desk.journal.save_risk(1234.5, "2024-01-02", 1200.0)
    desk.restart()
    opening = desk.settled().opening
    # 0.1 % of 2 BTC went as a fee at the price that was paid, so what is left of the position cost 1.998 * 100.25.
    position = OpeningPosition(symbol="BTC/USDT", quantity="1.998", cost="200.2995")
    assert opening == Opening(
        cash="799.5", positions=(position,), equity_peak=1234.5, day="2024-01-02", day_start=1200.0
    )
    agrees(desk, opening)


def test_initial_cash_is_that_of_the_first_start(desk: Desk) -> None:
    desk.settled()
    desk.restart()
    plan = desk.settled(replace(CONFIG, initial_cash=5000.0))
    assert plan.opening.cash == "1000"
    assert codes(plan) == ["initial_cash_kept"]
    assert plan.opening.clean


def test_fills_that_came_while_it_was_down_are_booked_and_told(desk: Desk) -> None:
    desk.settled()
    desk.send("BUY", ONE)
    desk.hear_trade(desk.venue.fill("1", Decimal("0.25")))
    desk.venue.fill("1", Decimal("0.25"))
    desk.venue.fill("1", ONE)
    desk.restart()
    plan = desk.settled()
    assert [fill.trade_id for fill in plan.fills] == ["2", "3"]
    assert codes(plan) == ["fills_booked", "order_ended"]
    assert plan.opening.notes[0].message == "order r0-0 filled 0.75 in 2 trades that the journal had missed"
    assert plan.opening.clean
    agrees(desk, plan.opening)
    assert [order.state for order in desk.journal.orders()] == ["FILLED"]


def test_an_order_that_works_goes_on_or_is_cancelled_as_the_policy_says(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE)
    desk.venue.fill("1", Decimal("0.25"))
    desk.restart()
    plan = desk.settled()
    assert [(order.order_id, order.remaining, order.limit_price) for order in plan.opening.orders] == [
        ("r0-0", "0.75", "100.25")
    ]
    assert codes(plan) == ["fills_booked", "order_adopted"]
    agrees(desk, plan.opening)
    desk.restart()
    plan = desk.settled(replace(CONFIG, working="cancel"))
    assert (plan.opening.orders, codes(plan)) == ((), ["order_cancelled", "order_ended"])
    kept = desk.journal.order(name)
    assert kept is not None
    assert (kept.state, kept.booked) == ("CANCELLED", "0.25")
    agrees(desk, plan.opening)


def test_an_order_whose_cancel_was_under_way_is_cancelled_under_any_policy(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE)
    desk.journal.order_changed(name, "CANCEL_PENDING", changed_ns=3)
    desk.restart()
    plan = desk.plan()
    assert [(cancel.order.client_id, cancel.code) for cancel in plan.cancels] == [(name, "order_cancelled")]
    plan = desk.settled()
    assert plan.opening.orders == ()
    agrees(desk, plan.opening)


def test_an_order_that_a_cancel_came_too_late_for_is_booked_as_filled(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE)
    desk.restart()

    def meanwhile() -> Iterator[None]:
        desk.venue.fill("1", ONE)
        yield

    plan = desk.settled(replace(CONFIG, working="cancel"), meanwhile())
    kept = desk.journal.order(name)
    assert kept is not None
    assert (kept.state, kept.booked) == ("FILLED", "1")
    agrees(desk, plan.opening)


def test_an_order_that_the_venue_does_not_know_is_waited_for_and_then_given_up(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE, arrives=False)
    desk.restart()
    early = desk.plan(late=False)
    assert early.waits == ("order r0-0 is not known at the venue, and may still arrive there",)
    assert not early.final
    assert [order.order_id for order in early.opening.orders] == ["r0-0"]  # it may work any moment
    plan = desk.settled()
    assert codes(plan) == [NEVER_ARRIVED]
    assert plan.opening.orders == ()
    kept = desk.journal.order(name)
    assert kept is not None
    assert (kept.state, kept.code) == ("REJECTED", NEVER_ARRIVED)
    desk.restart()
    assert codes(desk.settled()) == []  # told once


def test_one_that_arrives_after_the_first_look_is_taken_as_it_is(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE, arrives=False)
    desk.restart()
    assert not desk.plan(late=False).final
    desk.venue.take(name, "BUY", ONE, PRICE)
    desk.venue.fill("1", ONE)
    plan = desk.settled()
    assert codes(plan) == ["fills_booked", "order_ended"]
    agrees(desk, plan.opening)


def test_an_order_given_up_as_not_sent_that_filled_all_the_same_is_found(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE, heard=False)
    desk.journal.order_changed(name, "REJECTED", changed_ns=5, code=NOT_SENT)
    desk.venue.fill("1", ONE)
    desk.restart()
    plan = desk.settled()
    assert plan.opening.clean
    agrees(desk, plan.opening)
    kept = desk.journal.order(name)
    assert kept is not None
    assert (kept.state, kept.code) == ("FILLED", "")


def test_one_given_up_as_not_sent_that_the_venue_refused_is_asked_for_once_more_only(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE, arrives=False)
    desk.journal.order_changed(name, "REJECTED", changed_ns=5, code=NOT_SENT)
    desk.venue.take(name, "BUY", ONE, PRICE, state="REJECTED")
    desk.restart()
    desk.settled()
    kept = desk.journal.order(name)
    assert kept is not None
    assert (kept.state, kept.code) == ("REJECTED", "rejected")
    assert desk.journal.unsettled_orders() == []


def test_an_order_that_ended_in_the_journal_alone_works_on_and_is_told(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE)
    desk.journal.order_changed(name, "CANCELLED", changed_ns=5)
    desk.restart()
    plan = desk.settled()
    assert codes(plan) == ["order_revived"]
    assert plan.opening.notes[0].level == "WARNING"
    agrees(desk, plan.opening)


def test_an_acknowledged_order_that_the_venue_forgot_has_ended(desk: Desk) -> None:
    desk.settled()
    desk.send("BUY", ONE)
    desk.venue.end("1", "CANCELLED")
    desk.restart()
    plan = desk.plan(orders=())
    assert codes(plan) == ["unknown_order"]
    write(desk.journal, plan, 9)
    assert [(order.state, order.code) for order in desk.journal.orders()] == [("EXPIRED", "unknown_order")]
    assert plan.opening.clean


def test_fills_that_cannot_be_found_make_the_start_unclean(desk: Desk) -> None:
    desk.settled()
    name = desk.send("BUY", ONE)
    desk.venue.fill("1", ONE)
    desk.journal.order_changed(name, "PARTLY_FILLED", changed_ns=5, filled="0.5")
    desk.restart()
    plan = desk.plan(orders=(), trades=(), patient=False)
    assert codes(plan) == ["unknown_order", "balance_differs", "balance_differs"]
    assert not plan.opening.clean


def test_trades_that_the_venue_does_not_list_yet_are_waited_for(desk: Desk) -> None:
    desk.settled()
    desk.send("BUY", ONE)
    desk.venue.fill("1", ONE)
    desk.restart()
    plan = desk.plan(trades=())
    assert plan.waits == ("order r0-0 has filled 1 at the venue, its trades add up to 0",)
    plan = desk.plan(trades=(), patient=False)
    assert codes(plan)[-1] == "unsettled"
    assert not plan.opening.clean
    assert plan.baselines == {}  # nobody knows yet whose the difference is
    write(desk.journal, plan, 9)
    desk.restart()
    plan = desk.settled()  # and when they are listed, nothing is amiss
    assert plan.opening.clean
    agrees(desk, plan.opening)


@pytest.mark.parametrize(("policy", "code"), [("cancel", "stray_cancelled"), ("adopt", "stray_adopted")])
def test_a_stray_is_cancelled_or_adopted_and_an_order_of_a_person_is_left_alone(
    desk: Desk, policy: str, code: str
) -> None:
    desk.venue.take(client_id("before-1"), "BUY", ONE, PRICE)
    desk.venue.take("web_1", "BUY", ONE, PRICE)
    config = replace(CONFIG, strays=policy)
    plan = desk.settled(config)
    assert sorted(codes(plan)) == ["foreign_order", code]
    assert desk.venue.order("2").working
    assert [order.order_id for order in plan.opening.orders] == ([client_id("before-1")] if policy == "adopt" else [])
    agrees(desk, plan.opening)
    desk.venue.fill("1", ONE)
    desk.restart()
    plan = desk.settled(config)
    assert plan.opening.clean
    agrees(desk, plan.opening)


def test_a_stray_that_has_filled_or_is_of_no_type_of_ours_is_cancelled_under_any_policy(desk: Desk) -> None:
    desk.venue.take(client_id("before-1"), "BUY", ONE, PRICE)
    desk.venue.fill("1", Decimal("0.5"))
    desk.venue.take(client_id("before-2"), "BUY", ONE, PRICE, order_type="")
    plan = desk.settled(replace(CONFIG, strays="adopt"))
    assert codes(plan)[:2] == ["stray_cancelled"] * 2
    assert not any(order.working for order in desk.venue.orders)
    agrees(desk, plan.opening)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_a_person_pays_in_or_takes_out_is_told_and_never_traded_with(desk: Desk, sign: int) -> None:
    desk.venue.balances["BTC"] = ONE
    desk.settled()
    desk.send("BUY", ONE)
    desk.hear_trade(desk.venue.fill("1", ONE))
    desk.restart()
    desk.venue.balances["BTC"] += sign * Decimal("0.5")
    desk.venue.balances["USDT"] += sign * 100
    assert not desk.plan().final  # the venue may only be late with a part of it
    plan = desk.settled()
    assert codes(plan) == ["balance_differs"] * 2
    assert [note.value for note in plan.opening.notes] == [sign * 0.5, sign * 100.0]
    assert not plan.opening.clean
    assert plan.opening.cash == "899.75"
    assert [position.quantity for position in plan.opening.positions] == ["0.999"]
    agrees(desk, plan.opening)
    desk.restart()
    assert desk.settled().opening.clean  # known now


def test_more_taken_out_than_was_there_before_is_taken_off_the_position(desk: Desk) -> None:
    desk.settled(ReconcileConfig(initial_cash=10_000.0))
    desk.send("BUY", ONE)
    desk.hear_trade(desk.venue.fill("1", ONE))
    desk.restart()
    desk.venue.balances = {"BTC": Decimal("0.25"), "USDT": Decimal("9000")}
    plan = desk.settled(ReconcileConfig(initial_cash=10_000.0))
    assert not plan.opening.clean
    assert plan.opening.cash == "9000"
    # 0.25 of the 0.999 BTC that cost 0.999 * 100.25
    assert plan.opening.positions == (OpeningPosition(symbol="BTC/USDT", quantity="0.25", cost="25.0625"),)
    agrees(desk, plan.opening)
    desk.venue.balances["BTC"] = Decimal()
    desk.restart()
    plan = desk.settled(ReconcileConfig(initial_cash=10_000.0))
    assert plan.opening.positions == ()
    agrees(desk, plan.opening)


def test_rounding_of_the_venue_is_no_difference(desk: Desk) -> None:
    desk.settled()
    desk.send("BUY", ONE)
    desk.hear_trade(desk.venue.fill("1", ONE))
    desk.venue.balances["USDT"] += Decimal("0.00000002")
    desk.restart()
    assert desk.settled().opening.clean
    desk.venue.balances["USDT"] += Decimal("0.00000002")  # without a fill there is nothing to round
    desk.restart()
    assert not desk.settled().opening.clean


def test_instruments_that_share_an_asset_and_fills_of_others_are_refused(desk: Desk) -> None:
    desk.settled()
    view, known = desk.venue.view(), journal_view(desk.journal, ())
    other = replace(BTC, symbol="BTC/FDUSD")
    with pytest.raises(ReconcileError, match="BTC is in several"):
        reconcile(known, replace(view, bases={**BASES, "BTC/FDUSD": "BTC"}), CONFIG, (BTC, other))
    with pytest.raises(ReconcileError, match="instruments of one currency"):
        reconcile(known, view, CONFIG, (BTC, replace(other, currency="FDUSD")))
    desk.send("BUY", ONE)
    desk.hear_trade(desk.venue.fill("1", ONE))
    with pytest.raises(ReconcileError, match="holds trades of BTC/USDT, which this run does not trade"):
        reconcile(journal_view(desk.journal, ()), replace(view, bases={"BTC/FDUSD": "BTC"}), CONFIG, (other,))


def test_an_order_of_a_symbol_that_is_not_traded_any_more_is_refused(desk: Desk) -> None:
    desk.settled()
    desk.send("BUY", ONE)
    other = replace(BTC, symbol="ETH/USDT")
    with pytest.raises(ReconcileError, match="holds orders of BTC/USDT that may work"):
        reconcile(journal_view(desk.journal, ()), desk.venue.view(bases={"ETH/USDT": "ETH"}), CONFIG, (other,))


def test_balances_that_never_rest_leave_the_baselines_as_they_are(desk: Desk) -> None:
    desk.settled()
    desk.venue.balances["USDT"] += 5
    assert not desk.plan(steady=False).final
    plan = desk.plan(steady=False, patient=False)
    assert (plan.final, plan.baselines, plan.opening.clean, codes(plan)) == (True, {}, False, ["unsettled"])


@pytest.mark.parametrize(
    "changed",
    [{"working": "keep"}, {"strays": ""}, {"method": "lifo"}, {"initial_cash": -1.0}, {"initial_cash": float("nan")}],
)
def test_a_policy_that_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        ReconcileConfig(**changed)


# Histories

step = st.tuples(
    st.sampled_from(("send", "fill", "end", "hear_trade", "hear_order", "ask", "person", "crash")), st.integers(0, 9)
)


def act(desk: Desk, what: str, number: int) -> Decimal:
    """One step of a history; the USDT that a person paid in with it."""
    venue = desk.venue
    quantity = Decimal(1 + number) / 10
    if what == "send":
        # 0 and 1 never arrive, of 2 and 3 the answer is lost
        desk.send(("BUY", "BUY", "SELL")[number % 3], quantity, arrives=number > 1, heard=number > 3)
    elif what == "fill" and venue.orders:
        venue.fill(venue.orders[-1 - number % len(venue.orders)].venue_id, quantity)
    elif what == "end" and venue.orders:
        venue.end(venue.orders[-1 - number % len(venue.orders)].venue_id, ("CANCELLED", "EXPIRED")[number % 2])
    elif what == "hear_trade" and venue.trades:
        desk.hear_trade(venue.trades[-1 - number % len(venue.trades)])
    elif what == "hear_order" and venue.orders:
        desk.hear_order(venue.orders[-1 - number % len(venue.orders)].venue_id)
    elif what == "ask" and (working := desk.journal.open_orders()):
        desk.journal.order_changed(working[-1 - number % len(working)].client_id, "CANCEL_PENDING", changed_ns=4)
    elif what == "person":
        paid = Decimal(5 - number) / 100
        venue.balances["USDT"] += paid
        return paid
    return Decimal()


def crash(desk: Desk, number: int, paid: Decimal, survives: int) -> None:
    """Die, start again, perhaps die once more while the plan is written, and compare."""
    desk.restart()
    config = replace(CONFIG, working=("adopt", "cancel")[number % 2])
    meanwhile = (None for order in list(desk.venue.orders) if desk.venue.fill(order.venue_id, Decimal(number) / 20))
    if survives < 9 and (plan := desk.plan(config)).final:
        dying = Dying(desk.path, survives)
        with suppress(JournalError):  # a short plan is written before
            write(dying, plan, 9)
        dying.close()
    plan = desk.settled(config, meanwhile)
    agrees(desk, plan.opening)
    assert plan.opening.clean == (paid == 0)
    held = sum(
        (trade.quantity if trade.side == "BUY" else -trade.quantity) - trade.base_fee for trade in desk.venue.trades
    )
    assert [Decimal(position.quantity) for position in plan.opening.positions] == ([held] if held else [])
    again = desk.plan(config)  # nothing is left to do
    assert (again.final, again.fills, again.marks, again.adopted) == (True, (), (), ())
    assert (again.opening.cash, again.opening.positions) == (plan.opening.cash, plan.opening.positions)


class Dying(Journal):
    """A journal whose process dies after so many writes."""

    def __init__(self, path: Path, writes: int) -> None:
        super().__init__(path, durable=False)
        self._left = writes

    def _write(self, statement: str, values: tuple[object, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise JournalError("died")
        return super()._write(statement, values)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, min_size=3, max_size=40), st.integers(0, 9))
def test_after_any_history_and_crash_the_books_equal_the_venue(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int]], survives: int
) -> None:
    desk = Desk(tmp_path_factory.mktemp("history") / "j")
    desk.venue.balances["BTC"] = Decimal(3)
    desk.settled()
    paid = Decimal()
    for what, number in (*history, ("crash", 9)):
        if what == "crash":
            crash(desk, number, paid, survives)
            paid = Decimal()
        else:
            paid += act(desk, what, number)
    assert len({order.client_id for order in desk.venue.orders}) == len(desk.venue.orders)
    desk.journal.close()


# On paper


def paper_fill(number: int, side: str, quantity: str, price: str, fee: str = "0") -> KeptFill:
    return KeptFill(
        symbol="BTC/USDT",
        trade_id=str(number),
        order_id=str(number),
        side=side,
        quantity=quantity,
        price=price,
        fee=fee,
        time_ns=number,
    )


def test_an_account_on_paper_goes_on_with_what_it_had(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", durable=False) as journal:
        journal.begin_run("r0", "paper")
        assert paper_opening(journal, (BTC,), 1000.0) == Opening(cash="1000")
        journal.fill(paper_fill(1, "BUY", "2", "100", "0.2"))
        journal.fill(paper_fill(2, "SELL", "0.5", "110", "0.055"))
        journal.flow(KeptFlow(symbol="BTC/USDT", amount="-1.5", kind="borrow", time_ns=3))
        journal.save_risk(1010.0, "2024-01-02", 1000.0)
    with Journal(tmp_path / "j", durable=False) as journal:
        journal.begin_run("r1", "paper")
        opening = paper_opening(journal, (BTC,), 2000.0)
    assert opening == Opening(
        cash="853.245",
        positions=(OpeningPosition(symbol="BTC/USDT", quantity="1.5", cost="150"),),
        equity_peak=1010.0,
        day="2024-01-02",
        day_start=1000.0,
        notes=(
            Note(
                code="initial_cash_kept",
                symbol="",
                message="the account began with 1000 USDT; initial_cash 2000.0 is not used",
                level="WARNING",
            ),
        ),
    )


def test_fills_from_before_a_change_of_tick_and_lot_are_booked_exactly(tmp_path: Path) -> None:
    coarse = replace(BTC, tick="1", lot="0.1", base_unit="")
    with Journal(tmp_path / "j", durable=False) as journal:
        journal.begin_run("r0", "paper")
        journal.fill(paper_fill(1, "BUY", "0.30001", "100.25"))
        opening = paper_opening(journal, (coarse,), 1000.0)
    # What is less than a step can no longer be traded; its share of the cost stays behind with it.
    assert opening.cash == "969.9239975"
    assert opening.positions == (OpeningPosition(symbol="BTC/USDT", quantity="0.3", cost="30.075"),)


@pytest.mark.parametrize(
    ("fee", "cash"),
    [
        ("0.000000005", "899.99999999"),  # half a unit: up
        ("0.0000000049", "900"),
        ("-0.000000005", "900"),
        ("-0.0000000051", "900.00000001"),
        ("-0.3", "900.3"),
    ],
)
def test_a_fee_is_rounded_half_up_to_the_unit_of_its_currency(tmp_path: Path, fee: str, cash: str) -> None:
    with Journal(tmp_path / "j", durable=False) as journal:
        journal.begin_run("r0", "paper")
        journal.fill(paper_fill(1, "BUY", "1", "100", fee))
        assert paper_opening(journal, (BTC,), 1000.0).cash == cash


trades = st.lists(
    st.tuples(st.booleans(), st.integers(1, 10**6), st.integers(1, 10**7), st.integers(0, 10**6)), max_size=20
)


@settings(max_examples=50, deadline=None)
@given(trades, st.sampled_from(("average", "fifo")))
def test_the_books_out_of_the_journal_are_those_that_the_run_had(
    tmp_path_factory: pytest.TempPathFactory, trades: list[tuple[bool, int, int, int]], method: str
) -> None:
    running = Ledger((BTC,), 1000.0, method=method)
    contract = running.contracts["BTC/USDT"]
    with Journal(tmp_path_factory.mktemp("j") / "j", durable=False) as journal:
        journal.begin_run("r0", "paper")
        for number, (buys, lots, ticks, fee) in enumerate(trades):
            side, quantity, price = "BUY" if buys else "SELL", Decimal(lots) / 10**5, Decimal(ticks) / 100
            journal.fill(paper_fill(number, side, str(quantity), str(price), str(Decimal(fee) / 10**8)))
            running.book("BTC/USDT", lots if buys else -lots, ticks, fee * contract.fee_unit)
        restored = books(journal.fills(), (), (BTC,), Fraction(1000), method)
        assert restored.cash == running.cash
        assert restored.positions["BTC/USDT"].units == running.positions["BTC/USDT"].units
        assert restored.positions["BTC/USDT"].cost == running.positions["BTC/USDT"].cost
        opening = paper_opening(journal, (BTC,), 1000.0, method)
        assert Fraction(opening.cash) == running.cash["USDT"] * contract.quantum
