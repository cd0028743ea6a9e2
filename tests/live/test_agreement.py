"""The judge of the killed runs: it finds nothing where all agree, and each thing that could be wrong."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from brokers.journal import KeptFill, KeptOrder
from brokers.opening import Opening, OpeningOrder, OpeningPosition
from tests.live.agreement import Books, differences, journal_differences, of_run, of_venue

ACCOUNT: dict[str, Any] = {
    "orders": [
        {"orderId": 1, "clientOrderId": "tt-a-1", "status": "FILLED", "origQty": "0.5", "executedQty": "0.5"},
        {"orderId": 2, "clientOrderId": "tt-a-2", "status": "PARTIALLY_FILLED", "origQty": "0.3", "executedQty": "0.1"},
    ],
    "trades": [
        {"id": 1, "orderId": 1, "isBuyer": True, "qty": "0.5", "price": "100", "commission": "0.001"},
        {"id": 2, "orderId": 2, "isBuyer": False, "qty": "0.1", "price": "110", "commission": "0.02"},
    ],
    "client_ids": {"tt-a-1": 1, "tt-a-2": 1, "tt-a-3": 1},
}
ORDER = KeptOrder(
    client_id="tt-a-1", order_id="a-1", symbol="A/B", side="BUY", order_type="MARKET", quantity="0.5", sent_ns=1,
    state="FILLED", booked="0.5",
)  # fmt: skip
ORDERS = [
    ORDER,
    replace(ORDER, client_id="tt-a-2", side="SELL", quantity="0.3", state="PARTLY_FILLED", booked="0.1"),
    replace(ORDER, client_id="tt-a-3", state="REJECTED", booked="0"),
]
FILL = KeptFill(
    symbol="A/B", trade_id="1", order_id="a-1", side="BUY", quantity="0.50", price="100", time_ns=1, client_id="tt-a-1"
)
FILLS = [FILL, replace(FILL, trade_id="2", client_id="tt-a-2", side="SELL", quantity="0.1", price="110")]
OPENING = Opening(
    cash="950",
    positions=(OpeningPosition(symbol="A/B", quantity="0.499", cost="50"),),
    orders=(
        OpeningOrder(order_id="tt-a-2", symbol="A/B", side="SELL", order_type="LIMIT", quantity="0.3", remaining="0.2"),
    ),
)
SOLD = {"side": "SELL", "quantity": 0.1, "price": 110.0, "fee": 0.02, "base_fee": 0.0}
HELD = Books(Decimal("960.98"), Decimal("0.399"), {"tt-a-2": Decimal("0.2")})


def test_books_that_agree_have_no_differences() -> None:
    assert of_venue(ACCOUNT, Decimal(1_000)) == HELD
    assert of_run(OPENING, [SOLD]) == HELD
    assert differences(of_run(OPENING, [SOLD]), of_venue(ACCOUNT, Decimal(1_000))) == []
    assert journal_differences(ORDERS, FILLS, ACCOUNT) == []


@pytest.mark.parametrize(
    ("books", "told"),
    [
        (replace(HELD, cash=HELD.cash + Decimal("0.00000001")), "cash of the run is 960.98000001"),
        (replace(HELD, position=Decimal(0)), "position of the run is 0"),
        (replace(HELD, working={}), "order tt-a-2: None is open for the run, 0.2 at the exchange"),
        (replace(HELD, working={**HELD.working, "tt-x": Decimal(1)}), "order tt-x: 1 is open for the run, None at the"),
    ],
)
def test_books_that_differ_are_told(books: Books, told: str) -> None:
    (found,) = differences(books, HELD)
    assert told in found


def _changed(*path: Any, to: Any) -> dict[str, Any]:
    account = deepcopy(ACCOUNT)
    inner: Any = account
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return account


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (lambda: journal_differences(ORDERS, FILLS, _changed("client_ids", "tt-a-1", to=2)), "tt-a-1 came 2 times"),
        (lambda: journal_differences(ORDERS[1:], FILLS, ACCOUNT), "tt-a-1 is at the exchange alone"),
        (
            lambda: journal_differences([*ORDERS, replace(ORDER, client_id="tt-a-4", state="PENDING")], FILLS, ACCOUNT),
            "tt-a-4 is PENDING and never came",
        ),
        (
            lambda: journal_differences([replace(ORDER, state="ACCEPTED"), *ORDERS[1:]], FILLS, ACCOUNT),
            "tt-a-1 is ACCEPTED, at the exchange FILLED",
        ),
        (
            lambda: journal_differences([replace(ORDER, booked="0.4"), *ORDERS[1:]], FILLS, ACCOUNT),
            "tt-a-1 has filled 0.4, at the exchange 0.5",
        ),
        (lambda: journal_differences(ORDERS, FILLS[1:], ACCOUNT), "is booked 0 times, and happened 1 times"),
        (lambda: journal_differences(ORDERS, [*FILLS, FILL], ACCOUNT), "is booked 2 times, and happened 1 times"),
        (
            lambda: journal_differences(ORDERS, [*FILLS, replace(FILL, trade_id="9")], ACCOUNT),
            "is booked 1 times, and happened 0 times",
        ),
    ],
)
def test_a_journal_that_differs_is_told(found: Callable[[], list[str]], told: str) -> None:
    (line,) = found()
    assert told in line
