"""Orders through a bad day: seeded sequences of orders, cancels, market moves, faults and restarts.

Whatever happens in between, in the end every order's state and every fill are what the exchange says, and no client id
was used twice.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread

from brokers.events import OrderState, OrderType, TimeInForce
from brokers.journal import Journal
from brokers.orders import ENDED
from brokers.venue_ids import client_id
from feeds.events import Side
from nodes.feed_status import FeedStates
from tests.brokers.venue_account import (
    KEY_ENV,
    LOCAL,
    SECRET_ENV,
    Desk,
    check_books,
    market,
    trading,
    truth,
)

S = OrderState
_SAME = {
    "NEW": S.ACCEPTED,
    "PARTIALLY_FILLED": S.PARTLY_FILLED,
    "FILLED": S.FILLED,
    "CANCELED": S.CANCELLED,
    "EXPIRED": S.EXPIRED,
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SECRET_ENV, SECRET)


def _prices(rng: random.Random) -> list[float]:
    """A walk of the market between 59900 and 60100."""
    price, prices = 60_000.0, []
    for _ in range(200):
        price = min(60_100.0, max(59_900.0, price + rng.choice([-10.0, 0.0, 10.0])))
        prices.append(price)
    return prices


def _order(desk: Desk, rng: random.Random) -> str:
    side, quantity = rng.choice(list(Side)), rng.choice([0.001, 0.01, 0.6])
    kind = rng.randrange(5)
    if kind == 0:
        return desk.order(side, quantity)
    price = 60_000.0 + rng.choice([-50.0, -10.0, 10.0, 50.0])
    if kind == 1:
        return desk.limit(price, side, quantity, time_in_force=rng.choice([TimeInForce.IOC, TimeInForce.FOK]))
    if kind == 2:
        return desk.order(side, quantity, order_type=OrderType.STOP, stop_price=price)
    return desk.limit(price, side, quantity)


def _fault(exchange: Running, rng: random.Random) -> None:
    faults = exchange.faults
    choices: list[Callable[[], Any]] = [
        lambda: faults.abort("user"),
        lambda: faults.close("user"),
        lambda: faults.stall(kind="user"),
        lambda: faults.outage(0.5),
        lambda: faults.http(503, count=2, path="/api/v3/order"),
        lambda: faults.http(503, seconds=0.3, path="/api/v3/"),
        lambda: faults.http(429, count=1, retry_after=1, path="/api/v3/"),
        lambda: faults.lost_ack(2),
        lambda: faults.slow_ack(400.0, 2),
        lambda: faults.reject_next(1),
        lambda: faults.duplicate(5, "user"),
        lambda: faults.out_of_order(5, "user"),
        lambda: faults.skew(rng.choice([-5_000, 5_000])),
    ]
    rng.choice(choices)()


async def _bad_day(exchange: Running, desk: Desk, rng: random.Random, orders: list[str], steps: int) -> None:
    for _ in range(steps):
        act = rng.random()
        if act < 0.45:
            orders.append(_order(desk, rng))
        elif act < 0.6 and orders:
            desk.cancel(rng.choice(orders))
        elif act < 0.8:
            exchange.faults.burst(rng.randrange(1, 4))
        else:
            _fault(exchange, rng)
        await asyncio.sleep(rng.choice([0.0, 0.0, 0.02, 0.1]))  # the pace is part of the script


def _agree(exchange: Running, journal: Path, orders: list[str]) -> bool:
    """Whether the journal says of every order what the exchange says."""
    account = truth(exchange)
    there = exchange.call(lambda: {o.client_id: o.status for o in account.orders("BTCUSDT")})
    with Journal(journal, durable=False) as kept:
        for order_id in orders:
            written = kept.order_of(order_id)
            if written is None:  # refused before it was sent
                assert client_id(order_id) not in there
                continue
            status = there.get(client_id(order_id))
            state = S.REJECTED if status is None else _SAME[status]
            working = state not in ENDED and written.state not in ("FILLED", "CANCELLED", "EXPIRED", "REJECTED")
            if written.state == "PENDING" or not (written.state == state.name or working):
                return False
    return True


def _well(desk: Desk) -> bool:
    """Whether the line was told to be well, as those who trade over it understand what is told."""
    states = FeedStates()
    for status in desk.statuses:
        states.heard(status)
    return bool(desk.statuses) and not states.unreliable


async def _sequence(exchange: Running, journal: Path, seed: int) -> None:
    rng = random.Random(seed)
    orders: list[str] = []
    told: list[Any] = []
    for run_id in ("r1", "r2"):
        async with trading(exchange.url, journal, run_id=run_id, on_stop="keep", timeout_s=2.0) as desk:
            await _bad_day(exchange, desk, rng, orders, 20)
            if run_id == "r1":  # an end in the middle of it: what was not told is told by the next run
                told = desk.fills
                continue
            exchange.faults.clear()
            for order_id in orders:
                desk.cancel(order_id)
            await desk.until(lambda: _agree(exchange, journal, orders))
            await desk.until(lambda: not truth(exchange).open_orders())
            await desk.until(lambda: _agree(exchange, journal, orders))
            await desk.until(lambda: _well(desk))
            last = desk
    last.fills[:0] = told
    check_books(exchange, last, journal)


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_day_ends_with_the_truth(tmp_path: Path, seed: int) -> None:
    with exchange_thread(LOCAL, tapes=market(*_prices(random.Random(seed)))) as running:
        asyncio.run(_sequence(running, tmp_path / "journal.db", seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 40))
def test_many_bad_days_end_with_the_truth(tmp_path: Path, seed: int) -> None:
    with exchange_thread(LOCAL, tapes=market(*_prices(random.Random(seed)))) as running:
        asyncio.run(_sequence(running, tmp_path / "journal.db", seed))
