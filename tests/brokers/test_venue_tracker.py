"""One story out of a venue's messages, however they come."""

from dataclasses import dataclass
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0

from brokers.events import Fill, OrderRequest, OrderState, OrderType, OrderUpdate, TimeInForce
from brokers.ledger import Contract
from brokers.orders import ENDED, follow
from brokers.venue_ids import client_id
from brokers.venue_messages import Execution, Market, Snapshot
from brokers.venue_terms import Drafter, Offer, Terms
from brokers.venue_tracker import Booked, Change, Tracked, Tracker
from feeds.events import Side
from feeds.instruments import Instrument

S = OrderState
NOW_MS = int(T0.replace(tzinfo=UTC).timestamp() * 1000)
SYMBOL = "BTC/USDT"
BTC = Instrument(
    symbol=SYMBOL,
    tick="0.01",
    lot="0.001",
    currency="USDT",
    currency_unit="0.00000001",
    base_unit="0.00000001",
    fees_in="received",
)
MARKET = Market.of(BTC, "BTC", "USDT")
DRAFTER = Drafter(BTC, Contract(BTC), Offer())


def request(order_id: str, lots: int, side: Side = Side.BUY, **fields: Any) -> OrderRequest:
    fields = {"order_type": OrderType.LIMIT, "limit_price": 100.0} | fields
    return OrderRequest(order_id=order_id, symbol=SYMBOL, side=side, quantity=lots / 1000, **fields)


def sent(tracker: Tracker, order_id: str, lots: int, **fields: Any) -> Tracked:
    wanted = request(order_id, lots, **fields)
    terms = DRAFTER.terms(wanted, T0, tracker.reducible(SYMBOL, wanted.side, MARKET))
    assert isinstance(terms, Terms)
    return tracker.send(wanted, terms, MARKET)


def said(order_id: str, state: str, filled: int | None = 0, venue_id: str = "") -> Snapshot:
    return Snapshot(client_id(order_id), venue_id or f"v-{order_id}", SYMBOL, state, filled)


def trade(order_id: str, number: int, lots: int, side: Side = Side.BUY) -> Execution:
    return Execution(
        f"{order_id}/{number}", f"v-{order_id}", SYMBOL, side, lots, 10_000, 0.0, lots * 1e-6, "", True, NOW_MS
    )


def states(tracker: Tracker, order_id: str = "a") -> list[OrderState]:
    return [news.update.state for news in tracker.news if isinstance(news, Change) and news.order.order_id == order_id]


def fills(tracker: Tracker) -> list[Fill]:
    return [news.fill for news in tracker.news if isinstance(news, Booked)]


def updates(tracker: Tracker) -> list[OrderUpdate]:
    return [news.update for news in tracker.news if isinstance(news, Change)]


def test_an_order_is_accepted_filled_in_parts_and_ends_with_its_last_execution() -> None:
    tracker = Tracker({})
    sent(tracker, "a", 3)

    tracker.snapshot(said("a", "open"))
    tracker.execution(trade("a", 1, 1))
    tracker.snapshot(said("a", "open", 1))
    tracker.execution(trade("a", 2, 2))
    tracker.snapshot(said("a", "closed", 3))

    assert states(tracker) == [S.ACCEPTED, S.PARTLY_FILLED, S.FILLED]
    assert [update.remaining for update in updates(tracker)] == [0.003, 0.002, 0.0]
    assert [fill.quantity for fill in fills(tracker)] == [0.001, 0.002]
    assert fills(tracker)[1].base_fee == pytest.approx(2e-6)
    assert fills(tracker)[1].price == fills(tracker)[1].market_price == 100.0
    assert fills(tracker)[1].market_time == T0


def test_an_end_waits_for_the_executions_that_the_venue_speaks_of() -> None:
    tracker = Tracker({})
    order = sent(tracker, "a", 3)

    tracker.snapshot(said("a", "open"))
    tracker.snapshot(said("a", "canceled", 2))
    assert states(tracker) == [S.ACCEPTED]
    assert tracker.short == [order]

    tracker.execution(trade("a", 1, 1))
    tracker.execution(trade("a", 2, 1))
    assert states(tracker) == [S.ACCEPTED, S.PARTLY_FILLED, S.PARTLY_FILLED, S.CANCELLED]
    assert updates(tracker)[-1].remaining == 0.001
    assert updates(tracker)[-1].code == "by_venue"
    assert not tracker.short


def test_an_execution_that_comes_before_its_order_is_known_waits_for_it() -> None:
    tracker = Tracker({})
    sent(tracker, "a", 1)

    for _ in range(2):
        assert not tracker.execution(trade("a", 1, 1))
    assert tracker.news == []

    tracker.snapshot(said("a", "closed", 1))
    assert states(tracker) == [S.FILLED]
    assert len(fills(tracker)) == 1


def test_the_orders_of_a_person_are_none_of_ours() -> None:
    tracker = Tracker({})
    sent(tracker, "a", 1)

    tracker.execution(Execution("9", "v-9", SYMBOL, Side.SELL, 5, 10_000, 0.0, 0.0, "", True, NOW_MS))
    assert tracker.snapshot(Snapshot("web_1", "v-9", SYMBOL, "closed", 5)) is None

    assert tracker.news == []
    assert tracker.reducible(SYMBOL, Side.BUY, MARKET) == 0


def test_what_is_stale_changes_nothing() -> None:
    tracker = Tracker({})
    sent(tracker, "a", 2)
    for message in (said("a", "open"), said("a", "canceled")):
        tracker.snapshot(message)
    before = list(tracker.news)

    for message in (said("a", "open"), said("a", "open", 0), said("a", "canceled"), said("a", "expired")):
        tracker.snapshot(message)

    assert tracker.news == before


def test_a_cancel_is_told_and_so_is_its_refusal() -> None:
    tracker = Tracker({})
    order = sent(tracker, "a", 2)
    tracker.snapshot(said("a", "open"))

    tracker.cancelling(order)
    tracker.execution(trade("a", 1, 1))
    tracker.uncancelled(order, "cancel_refused", "no")
    tracker.cancelling(order)
    tracker.snapshot(said("a", "canceled", 1))

    assert states(tracker) == [
        S.ACCEPTED,
        S.CANCEL_PENDING,
        S.CANCEL_PENDING,
        S.ACCEPTED,
        S.CANCEL_PENDING,
        S.CANCELLED,
    ]
    assert updates(tracker)[-1].code == ""


def test_an_immediate_order_that_ends_unfilled_has_expired() -> None:
    for end in ("expired", "canceled"):
        tracker = Tracker({})
        sent(tracker, "a", 2, time_in_force=TimeInForce.IOC)
        tracker.snapshot(said("a", end, 0))
        assert states(tracker) == [S.EXPIRED]
        assert updates(tracker)[0].code == "time_in_force"


def test_a_refused_order_is_rejected_once_and_one_that_the_venue_knows_is_not() -> None:
    tracker = Tracker({})
    lost, there = sent(tracker, "a", 1), sent(tracker, "b", 1)
    tracker.snapshot(said("b", "open"))

    assert tracker.refused(lost, "filter", "too small")
    assert not tracker.refused(lost, "filter", "too small")
    assert not tracker.refused(there, "not_sent", "lost")

    assert states(tracker, "a") == [S.REJECTED]
    assert updates(tracker)[-1].remaining == 0.0
    assert states(tracker, "b") == [S.ACCEPTED]


def test_an_order_given_up_that_turns_up_after_all_is_told_once_and_its_fills_count() -> None:
    tracker = Tracker({})
    order = sent(tracker, "a", 2)
    tracker.refused(order, "not_sent", "the venue does not know it")

    for _ in range(2):
        tracker.snapshot(said("a", "open"))
    tracker.execution(trade("a", 1, 1))

    assert tracker.ghosts == [order]
    assert states(tracker) == [S.REJECTED]
    assert [fill.quantity for fill in fills(tracker)] == [0.001]
    assert tracker.reducible(SYMBOL, Side.SELL, MARKET) == 0  # 0.001 less its fee is no whole lot


def test_a_reduce_only_order_is_cut_to_what_is_held_and_ends_when_that_is_sold() -> None:
    tracker = Tracker({SYMBOL: 250_000})  # 2.5 lots
    order = sent(tracker, "a", 5, side=Side.SELL, order_type=OrderType.MARKET, limit_price=0.0, reduce_only=True)
    assert (order.sent_lots, order.working.lots) == (2, 5)
    assert tracker.reducible(SYMBOL, Side.SELL, MARKET) == 0  # all of it is on its way out

    tracker.execution(trade("a", 1, 2, Side.SELL))
    tracker.snapshot(said("a", "closed", 2))

    assert states(tracker) == [S.PARTLY_FILLED, S.CANCELLED]
    assert updates(tracker)[-1].code == "reduce_only"
    assert updates(tracker)[-1].remaining == 0.003


def test_an_id_is_not_used_twice() -> None:
    tracker = Tracker({})
    sent(tracker, "a", 1)
    with pytest.raises(ValueError, match="used before"):
        sent(tracker, "a", 1)


def test_an_adopted_order_goes_on_where_it_was_and_its_old_executions_are_not_booked_again() -> None:
    tracker = Tracker({SYMBOL: 100_000})
    order = Tracked("a", client_id("a"), MARKET, Side.BUY, 3, 3)
    tracker.adopt(order, "v-a", 2, {"a/1"})

    for number in (1, 2, 3):
        tracker.execution(trade("a", number, 1))
    tracker.snapshot(said("a", "closed", 3))

    assert states(tracker) == [S.PARTLY_FILLED, S.FILLED]
    assert len(fills(tracker)) == 2


def test_memory_is_bounded_and_a_late_word_on_a_forgotten_order_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.venue_tracker._REMEMBERED", 3)
    tracker = Tracker({})
    for i in range(10):
        sent(tracker, f"o{i}", 1)
        tracker.snapshot(said(f"o{i}", "canceled"))
        tracker.execution(Execution(str(i), f"x{i}", SYMBOL, Side.BUY, 1, 10_000, 0.0, 0.0, "", True, NOW_MS))

    assert list(tracker.orders) == ["o7", "o8", "o9"]
    assert len(tracker._waiting) == 3
    assert tracker.snapshot(said("o1", "open")) is None


@dataclass(frozen=True)
class Truth:
    """What really happens to one order."""

    order_id: str
    lots: int
    parts: tuple[int, ...]  # lots of each execution
    end: str

    @property
    def messages(self) -> list[Snapshot | Execution]:
        if self.end == "rejected":
            return [said(self.order_id, "rejected")]
        out: list[Snapshot | Execution] = [said(self.order_id, "open")]
        done = 0
        for number, lots in enumerate(self.parts):
            done += lots
            out.append(trade(self.order_id, number, lots))
            out.append(said(self.order_id, "closed" if done == self.lots else "open", done))
        if self.end in ("canceled", "expired"):
            out.append(said(self.order_id, self.end, done))
        return out

    @property
    def last(self) -> list[Snapshot | Execution]:
        """What a poll tells in the end."""
        every = self.messages
        return [m for m in every if isinstance(m, Execution)] + [m for m in every if isinstance(m, Snapshot)][-1:]


@st.composite
def truths(draw: st.DrawFn) -> list[Truth]:
    found = []
    for i in range(draw(st.integers(1, 3))):
        end = draw(st.sampled_from(["closed", "canceled", "expired", "open", "rejected"]))
        parts = tuple(draw(st.lists(st.integers(1, 3), min_size=1 if end == "closed" else 0, max_size=4)))
        parts = () if end == "rejected" else parts
        rest = 0 if end == "closed" else draw(st.integers(1, 3))
        found.append(Truth(f"o{i}", sum(parts) + rest, parts, end))
    return found


def _told(orders: list[Truth], messages: list[Any]) -> Tracker:
    tracker = Tracker({})
    for order in orders:
        sent(tracker, order.order_id, order.lots)
    for message in messages:
        if isinstance(message, Snapshot):
            tracker.snapshot(message)
        elif isinstance(message, Execution):
            tracker.execution(message)
        else:  # a cancel of ours goes out, once the venue has spoken of the order
            if tracker.orders[message].known:
                tracker.cancelling(tracker.orders[message])
    return tracker


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_is_lost_doubled_or_late_the_poll_at_the_end_makes_the_same_story(data: st.DataObject) -> None:
    orders = data.draw(truths())
    every: list[Any] = [message for order in orders for message in order.messages]
    cancels = [o.order_id for o in orders if o.end == "canceled"]
    heard = data.draw(st.lists(st.sampled_from(every + cancels), max_size=25))  # a loss, a double, any order
    poll: list[Any] = data.draw(st.permutations([message for order in orders for message in order.last]))

    tracker = _told(orders, [*heard, *poll])

    plain = _told(orders, [message for order in orders for message in order.last])
    booked = [news.execution.trade_id for news in tracker.news if isinstance(news, Booked)]
    assert sorted(booked) == sorted(f"{o.order_id}/{n}" for o in orders for n in range(len(o.parts)))
    for order in orders:
        working, same = tracker.orders[order.order_id].working, plain.orders[order.order_id].working
        assert working.open_lots == same.open_lots == order.lots - sum(order.parts)
        assert working.state is same.state or order.end == "open"
        _check_story(tracker, order)


def _check_story(tracker: Tracker, truth: Truth) -> None:
    """Each update can follow the one before; the end comes once, and after the last fill."""
    state, left = S.PENDING, truth.lots
    ended = False
    for news in tracker.news:
        if news.order.order_id != truth.order_id:
            continue
        assert not ended
        if isinstance(news, Booked):
            left -= round(news.fill.quantity * 1000)
            continue
        update = news.update
        state = follow(truth.order_id, state, update.state) if update.state is not state else state
        assert round(update.remaining * 1000) == (0 if state is S.REJECTED else left)
        ended = update.state in ENDED
    wanted = {
        "closed": S.FILLED,
        "canceled": S.CANCELLED,
        "expired": S.EXPIRED,
        "rejected": S.REJECTED,
    }.get(truth.end)
    assert state is wanted if wanted else not ended
