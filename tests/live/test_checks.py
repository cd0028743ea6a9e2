"""The checks of a live run find what they look for: each thing that can be wrong is planted in a good run."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.journal import KeptFill, KeptOrder
from tests.live.checks import SECOND, Books, Limits, Row, Run, trade_violations, violations

LIMITS = Limits(stale_after_s=1.0, lag_max_s=2.0, slack_s=1.0)
T = 1_700_000_000 * SECOND
FIRST = 1_000_100  # id of the first recorded trade
FEED, VENUE = "local exchange trades", "local exchange orders"


def at(seconds: float) -> int:
    return T + round(seconds * SECOND)


def trade(number: int, ns: int, *, late_s: float = 0.001) -> Row:
    event = ns - round((late_s + 0.001) * SECOND)
    price, size = 100.0 + number % 3, 1.0 + number % 2
    return {
        "ns": ns,
        "trade_id": FIRST + number,
        "price": price,
        "size": size,
        "event_time": event,
        "received": event + round(late_s * SECOND),
    }


def status(seconds: float, state: str, feed: str = FEED, symbol: str = "ES/USD") -> Row:
    return {"ns": at(seconds), "feed": feed, "symbol": symbol, "state": state}


def alert(row: Row) -> Row:
    return {"ns": row["ns"], "source": row["feed"], "symbol": row["symbol"]}


def order(number: int, seconds: float, side: str, quantity: float, *, reduce_only: bool = False) -> Row:
    key = f"r-{number}"
    return {
        "ns": at(seconds), "order_id": key, "symbol": "ES/USD", "side": side, "quantity": quantity,
        "reduce_only": reduce_only,
    }  # fmt: skip


def update(number: int, seconds: float, state: str, code: str = "") -> Row:
    return {"ns": at(seconds), "order_id": f"r-{number}", "symbol": "ES/USD", "state": state, "code": code}


def fill(number: int, seconds: float, side: str, quantity: float, price: float, fee: float, base_fee: float) -> Row:
    return {
        "ns": at(seconds), "order_id": f"r-{number}", "symbol": "ES/USD", "side": side, "quantity": quantity,
        "price": price, "fee": fee, "base_fee": base_fee,
    }  # fmt: skip


def kept(number: int, side: str, quantity: str, state: str = "FILLED", filled: str | None = None) -> KeptOrder:
    done = quantity if filled is None else filled
    return KeptOrder(
        client_id=f"tt-r-{number}", order_id=f"r-{number}", symbol="ES/USD", side=side, order_type="MARKET",
        quantity=quantity, sent_ns=T, state=state, venue_id=str(number), filled=done, booked=done,
    )  # fmt: skip


def told(number: int, side: str, quantity: str, state: str = "FILLED", filled: str | None = None) -> Row:
    return {
        "clientOrderId": f"tt-r-{number}", "orderId": number, "status": state, "side": side,
        "origQty": f"{quantity}.00000000", "executedQty": f"{quantity if filled is None else filled}.00000000",
    }  # fmt: skip


def booked(trade_id: int, number: int, side: str, quantity: str, price: str, fee: str, base_fee: str) -> KeptFill:
    return KeptFill(
        symbol="ES/USD", trade_id=str(trade_id), order_id=f"r-{number}", client_id=f"tt-r-{number}", side=side,
        quantity=quantity, price=price, fee=fee, base_fee=base_fee, time_ns=T,
    )  # fmt: skip


def executed(trade_id: int, number: int, side: str, quantity: str, price: str, fee: str, asset: str) -> Row:
    return {
        "id": trade_id, "orderId": number, "isBuyer": side == "BUY", "qty": quantity, "price": price,
        "commission": fee, "commissionAsset": asset,
    }  # fmt: skip


# A run of ten seconds: ten trades a second; from 4 s to 6 s the feed was silent, and what was missing was fetched at
# 6 s. It bought 10, sold 4 of them in the dark, had a buy refused there, and was refused one by the venue.
TIMES = [at(0.1 * n) for n in range(40)] + [at(6.0)] * 20 + [at(6.1 + 0.1 * n) for n in range(40)]
TRADES = [trade(n, ns, late_s=0.001 if ns != at(6.0) else 0.1 * (60 - n)) for n, ns in enumerate(TIMES)]
STATUS = [
    status(0.0, "CONNECTED"),
    status(0.0, "CONNECTED", VENUE, ""),
    status(5.0, "STALE"),
    status(5.95, "GAP"),
    status(6.05, "RECOVERED"),
]
RUN = Run(
    symbol="ES/USD",
    warm_ns=TRADES[0]["event_time"] - 1,
    trades=TRADES,
    status=STATUS,
    orders=[
        order(1, 1.0, "BUY", 10.0),
        order(2, 5.2, "BUY", 3.0),
        order(3, 5.5, "SELL", 4.0),
        order(4, 8.0, "BUY", 2.0),
    ],
    updates=[
        update(1, 1.1, "FILLED"),
        update(2, 5.2, "REJECTED", "stale_feed"),
        update(3, 5.6, "FILLED"),
        update(4, 8.1, "REJECTED", "rejected"),
    ],
    fills=[
        fill(1, 1.05, "BUY", 6.0, 100.0, 0.0, 0.0006),
        fill(1, 1.1, "BUY", 4.0, 100.25, 0.0, 0.0004),
        fill(3, 5.55, "SELL", 4.0, 101.0, 0.0404, 0.0),
    ],
    alerts=[alert(row) for row in STATUS],
)
BOOKS = Books(
    orders=[kept(1, "BUY", "10"), kept(3, "SELL", "4"), kept(4, "BUY", "2", "REJECTED", "0")],
    fills=[
        booked(1, 1, "BUY", "6", "100", "0", "0.0006"),
        booked(2, 1, "BUY", "4", "100.25", "0", "0.0004"),
        booked(3, 3, "SELL", "4", "101", "0.0404", "0"),
    ],
    baselines={"ES": "0", "USD": "900000"},
    balances={
        "ES": {"free": "5.99900000", "locked": "0.00000000"},
        "USD": {"free": "999402.95960000", "locked": "0.00000000"},
    },
    told_orders=[told(1, "BUY", "10"), told(3, "SELL", "4")],
    told_trades=[
        executed(1, 1, "BUY", "6.0", "100.00", "0.00060000", "ES"),
        executed(2, 1, "BUY", "4.0", "100.25", "0.00040000", "ES"),
        executed(3, 3, "SELL", "4.0", "101.00", "0.04040000", "USD"),
    ],
    client_ids={"tt-r-1": 1, "tt-r-3": 1, "tt-r-4": 1},
)
TAPE = {row["trade_id"]: {name: row[name] for name in ("price", "size", "event_time")} for row in TRADES}
TAPE[FIRST - 1] = {"price": 100.0, "size": 1.0, "event_time": RUN.warm_ns - 1}

Planted = tuple[Run, Books, dict[int, Row]]


def changed(rows: list[Any], index: int, **values: Any) -> list[Any]:
    """The rows, one of them with other values."""
    row = rows[index]
    new = replace(row, **values) if isinstance(row, KeptOrder | KeptFill) else row | values
    return [*rows[:index], new, *rows[index + 1 :]]


def without(rows: list[Any], index: int) -> list[Any]:
    return [*rows[:index], *rows[index + 1 :]]


def in_run(**streams: list[Any]) -> Planted:
    return replace(RUN, **streams), BOOKS, TAPE


def in_books(**values: Any) -> Planted:
    return RUN, replace(BOOKS, **values), TAPE


def on_tape(**events: Any) -> Planted:
    return RUN, BOOKS, TAPE | {int(key.removeprefix("t")): value for key, value in events.items()}


def dark_order(*, side: str = "BUY", reduce_only: bool = False) -> Planted:
    """One more order while the feed is STALE, which the venue refuses."""
    extra = order(5, 5.7, side, 7.0, reduce_only=reduce_only)
    orders = [*RUN.orders[:3], extra, RUN.orders[3]]
    books = replace(BOOKS, orders=[*BOOKS.orders, kept(5, side, "7", "REJECTED", "0")])
    return replace(RUN, orders=orders, updates=[*RUN.updates, update(5, 8.5, "REJECTED", "rejected")]), books, TAPE


def lagging(*extra: Row) -> Planted:
    """A trade that comes three seconds late from a feed that is said to be well, and what is said then."""
    late = RUN.trades[80] | {"received": RUN.trades[80]["event_time"] + 3 * SECOND}
    return in_run(
        trades=[*RUN.trades[:80], late, *RUN.trades[81:]],
        status=[*RUN.status, *extra],
        alerts=[*RUN.alerts, *(alert(row) for row in extra)],
    )


PLANTED: dict[str, tuple[Callable[[], Planted], str]] = {
    "a trade is missing": (lambda: in_run(trades=without(RUN.trades, 50)), "1 trades are missing after"),
    "a trade came twice": (lambda: in_run(trades=[*RUN.trades[:9], *RUN.trades[8:]]), "came twice"),
    "trades are out of order": (
        lambda: in_run(trades=[*RUN.trades[:8], RUN.trades[9], RUN.trades[8], *RUN.trades[10:]]),
        "came after",
    ),
    "a trade has another price": (lambda: in_run(trades=changed(RUN.trades, 7, price=99.0)), "it was"),
    "a trade never happened": (
        lambda: in_run(trades=[*RUN.trades, trade(100, at(10.2))]),
        f"trade {FIRST + 100} never happened",
    ),
    "no trade at all": (lambda: in_run(trades=[]), "no trade was recorded"),
    "a trade after history is missing": (
        lambda: on_tape(**{f"t{FIRST - 1}": {"price": 1.0, "size": 1.0, "event_time": RUN.warm_ns}}),
        "between history and",
    ),
    "a trade of history came again": (lambda: (replace(RUN, warm_ns=at(0.05)), BOOKS, TAPE), "came again"),
    "a status without an alert": (lambda: in_run(alerts=without(RUN.alerts, 3)), "no alert says"),
    "a gap is never filled": (
        lambda: in_run(status=without(RUN.status, 4), alerts=without(RUN.alerts, 4)),
        "at the end local exchange trades GAP",
    ),
    "a silence nobody was told of": (
        lambda: in_run(status=RUN.status[:2], alerts=RUN.alerts[:2]),
        "without a trade before",
    ),
    "late trades of a feed that is well": (lagging, "3.0 s late, and the feed was RECOVERED"),
    "new risk in the dark": (dark_order, "r-5, 7.0, passed with 5.9990 held while local exchange trades STALE"),
    "a sale that turns the position in the dark": (lambda: dark_order(side="SELL"), "r-5, -7.0, passed with 5.9990"),
    "a reduce-only order that enlarged": (
        lambda: in_run(orders=changed(RUN.orders, 0, reduce_only=True)),
        "r-1 is reduce-only and brought",
    ),
    "a client id used twice": (
        lambda: in_books(client_ids=BOOKS.client_ids | {"tt-r-3": 2}),
        "client id tt-r-3 was used 2 times",
    ),
    "an order that nobody wrote down": (
        lambda: in_books(told_orders=[*BOOKS.told_orders, told(9, "BUY", "1")]),
        "tt-r-9 is at the exchange and not in the journal",
    ),
    "an order that never arrived": (
        lambda: in_books(told_orders=without(BOOKS.told_orders, 1)),
        "tt-r-3 is FILLED in the journal, and the exchange does not know it",
    ),
    "an order that still works": (
        lambda: in_books(
            orders=changed(BOOKS.orders, 1, state="ACCEPTED"), told_orders=changed(BOOKS.told_orders, 1, status="NEW")
        ),
        "tt-r-3 still works",
    ),
    "an order in another state": (
        lambda: in_books(told_orders=changed(BOOKS.told_orders, 1, status="CANCELED")),
        "tt-r-3 is ('FILLED'",
    ),
    "an order of another size": (
        lambda: in_books(told_orders=changed(BOOKS.told_orders, 0, origQty="11")),
        "tt-r-1 is ('FILLED'",
    ),
    "an order of which a fill is not booked": (
        lambda: in_books(orders=changed(BOOKS.orders, 0, booked="6")),
        "tt-r-1 has filled 10, booked are 6",
    ),
    "an order that was not recorded": (lambda: in_run(orders=without(RUN.orders, 2)), "r-3 is in the journal and was"),
    "an order id wanted twice": (
        lambda: in_run(orders=[*RUN.orders, RUN.orders[3]]),
        "order id r-4 was wanted 2 times",
    ),
    "an order whose end nobody told": (
        lambda: in_run(updates=changed(RUN.updates, 2, state="ACCEPTED")),
        "r-3 was wanted, and nobody told how it ended: ACCEPTED",
    ),
    "an order that ended in two ways": (
        lambda: in_run(updates=changed(RUN.updates, 2, state="CANCELLED")),
        "r-3 was told to be CANCELLED, the journal says FILLED",
    ),
    "an order sent without the journal": (
        lambda: in_books(orders=without(BOOKS.orders, 1)),
        "r-3 was told to be FILLED, and is not in the journal",
    ),
    "a fill that the journal lost": (lambda: in_books(fills=without(BOOKS.fills, 1)), "more at the exchange than"),
    "a fill that was booked twice": (
        lambda: in_books(fills=[*BOOKS.fills, BOOKS.fills[2]]),
        "more in the journal than at the exchange",
    ),
    "a fill at another price": (
        lambda: in_books(fills=changed(BOOKS.fills, 1, price="100.5")),
        "more in the journal than at the exchange",
    ),
    "a fill that was told twice": (
        lambda: in_run(fills=[*RUN.fills, RUN.fills[2]]),
        "more in the recording than in the journal",
    ),
    "a fill that was never told": (lambda: in_run(fills=without(RUN.fills, 1)), "more in the journal than in the reco"),
    "a position that is not there": (
        lambda: in_books(balances=BOOKS.balances | {"ES": {"free": "6", "locked": "0"}}),
        "5.9990 ES by the fills, 6 at the exchange",
    ),
    "cash that is not there": (
        lambda: (replace(RUN, cash=Decimal(99_999)), BOOKS, TAPE),
        "USD by the fills",
    ),
    "money locked for nothing": (
        lambda: in_books(balances=BOOKS.balances | {"ES": {"free": "0.999", "locked": "5"}}),
        "5 ES are locked",
    ),
}  # fmt: skip


def test_a_good_run_is_good() -> None:
    assert violations(RUN, BOOKS, TAPE, LIMITS) == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name: str) -> None:
    plant, sentence = PLANTED[name]
    found = violations(*plant(), LIMITS)
    assert any(sentence in each for each in found), found


@given(st.permutations(range(12)), st.integers(0, 88))
@settings(max_examples=50, deadline=None)
def test_no_other_order_of_the_trades_is_good(order_of: list[int], start: int) -> None:
    trades = [*RUN.trades[:start], *(RUN.trades[start + n] for n in order_of), *RUN.trades[start + 12 :]]
    found = trade_violations(replace(RUN, trades=trades), TAPE)
    assert bool(found) is (trades != RUN.trades)


def test_what_may_be_is_not_blamed() -> None:
    # Reduce-only in the dark; a feed of another symbol; late trades that were told to be late.
    assert violations(*dark_order(side="SELL", reduce_only=True), LIMITS) == []
    other = status(0.5, "STALE", "local exchange quotes", "NQ/USD")
    assert (
        violations(*in_run(status=[*STATUS[:2], other, *STATUS[2:]], alerts=[*RUN.alerts, alert(other)]), LIMITS) == []
    )
    assert violations(*lagging(status(8.15, "LAGGING")), LIMITS) == []
