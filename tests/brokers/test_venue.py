"""The venue against a local exchange, through the real client."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread

from brokers.events import OrderState, OrderType, TimeInForce
from brokers.journal import Journal, JournalError
from brokers.local_exchange.config import ExchangeConfig as LocalConfig
from brokers.venue import VenueService
from brokers.venue_config import VenueConfig
from brokers.venue_ids import client_id
from feeds.errors import FeedError
from feeds.events import Side
from feeds.exchange import ExchangeConfig, connect, disconnect
from tests.brokers.venue_account import (
    BTC,
    KEY_ENV,
    LISTING,
    LOCAL,
    SECRET_ENV,
    SYMBOL,
    check_books,
    config,
    market,
    trading,
    truth,
)

S = OrderState


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SECRET_ENV, SECRET)


@pytest.fixture
def exchange() -> Iterator[Running]:
    with exchange_thread(LOCAL, tapes=market(59_990.0, 59_980.0, 59_970.0)) as running:
        yield running


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_a_market_order_fills_and_is_told_in_order(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            bought = desk.order()
            await desk.until(lambda: desk.state(bought) is S.FILLED)
            assert desk.filled(bought) == Decimal("0.01")
            assert desk.fills[0].base_fee > 0.0  # the venue takes it out of what was bought
            assert desk.fills[0].fee == 0.0
            assert desk.fills[0].price == desk.fills[0].market_price
            sold = desk.order(Side.SELL, 0.005)
            await desk.until(lambda: desk.state(sold) is S.FILLED)
            assert desk.fills[-1].fee > 0.0
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_what_the_account_held_before_the_first_run_is_not_sold(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:  # 1 BTC is there, and none of it is ours
            short = desk.order(Side.SELL, 0.4)
            assert (desk.state(short), desk.code(short)) == (S.REJECTED, "not_held")
            bought = desk.order(quantity=0.01)
            on_its_way = desk.order(Side.SELL, 0.005)  # of what is being bought
            resting = desk.limit(61_000.0, Side.SELL, 0.004)
            assert desk.states(on_its_way) == desk.states(resting) == []
            twice = desk.order(Side.SELL, 0.004)
            assert desk.code(twice) == "not_held"
            await desk.until(lambda: desk.state(bought) is desk.state(on_its_way) is S.FILLED)
            await desk.until(lambda: desk.state(resting) is S.ACCEPTED)
            desk.cancel(resting)
            instead = desk.order(Side.SELL, 0.004)  # what is being cancelled is no longer for sale
            await desk.until(lambda: desk.state(instead) in (S.FILLED, S.REJECTED))
            assert desk.state(instead) is S.FILLED
            check_books(exchange, desk, journal)
            assert truth(exchange).balances["BTC"].free >= 10**8

    asyncio.run(run())


def test_a_resting_order_is_accepted_fills_in_parts_and_the_rest_is_cancelled(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            order = desk.limit(59_990.01, quantity=1.5)  # more than a trade of 0.5 and the best of the book
            await desk.until(lambda: desk.state(order) is S.ACCEPTED)
            exchange.faults.burst(2)
            await desk.until(lambda: desk.fills)
            desk.cancel(order)
            await desk.until(lambda: desk.state(order) is S.CANCELLED)
            left = Decimal(str(desk.updates[-1].remaining))
            assert 0 < left == Decimal("1.5") - desk.filled(order)
            check_books(exchange, desk, journal)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"order_type": OrderType.LIMIT, "limit_price": 59_000.0, "time_in_force": TimeInForce.IOC}, S.EXPIRED),
        ({"order_type": OrderType.LIMIT, "limit_price": 59_000.0, "time_in_force": TimeInForce.FOK}, S.EXPIRED),
        ({"order_type": OrderType.LIMIT, "limit_price": 60_100.0, "time_in_force": TimeInForce.FOK}, S.FILLED),
        ({"order_type": OrderType.LIMIT, "limit_price": 59_000.0, "post_only": True}, S.ACCEPTED),
        ({"order_type": OrderType.STOP, "stop_price": 61_000.0}, S.ACCEPTED),
        ({"order_type": OrderType.STOP_LIMIT, "stop_price": 61_000.0, "limit_price": 61_100.0}, S.ACCEPTED),
        ({"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 59_985.0}, S.ACCEPTED),
    ],
)
def test_each_type_and_time_in_force_is_taken(
    exchange: Running, journal: Path, fields: dict[str, object], end: OrderState
) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            order = desk.order(**fields)  # type: ignore[arg-type]
            await desk.until(lambda: desk.state(order) is end)
            desk.check_stories()
        assert truth(exchange).open_orders() == []  # cancelled on the way out

    asyncio.run(run())


def test_a_touched_order_is_sent_off_by_the_market(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            order = desk.order(order_type=OrderType.MARKET_IF_TOUCHED, stop_price=59_985.0)
            await desk.until(lambda: desk.state(order) is S.ACCEPTED)
            exchange.faults.burst(3)
            await desk.until(lambda: desk.state(order) is S.FILLED)
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_what_the_venue_refuses_comes_with_a_stable_code(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            dear = desk.limit(59_000.0, quantity=5.0)
            small = desk.order(quantity=0.00001)  # a market order: only the venue knows its worth
            exchange.faults.reject_next(1)
            await desk.until(lambda: all(desk.states(order) for order in (dear, small)))
            codes = {desk.code(dear), desk.code(small)}
            assert codes <= {"insufficient_funds", "filter", "rejected"}
            assert all(desk.states(order) == [S.REJECTED] for order in (dear, small))

            group = desk.limit(59_000.0, group="oco")
            assert desk.code(group) == "unsupported"
            again = desk.limit(59_000.0)
            desk.limit(59_000.0, order_id=again)
            assert desk.code(again) == "duplicate_order_id"

    asyncio.run(run())


def test_a_cancel_waits_for_the_order_to_be_acknowledged(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            exchange.faults.slow_ack(500.0)
            order = desk.limit(59_000.0)
            desk.cancel(order)
            desk.cancel(order)
            await desk.until(lambda: desk.state(order) is S.CANCELLED)
            assert desk.states(order) == [S.ACCEPTED, S.CANCEL_PENDING, S.CANCELLED]
            desk.cancel(order)
            desk.cancel("nobody's")

    asyncio.run(run())


@pytest.mark.parametrize("policy", ["cancel", "keep"])
def test_a_stop_cancels_what_works_or_keeps_it_and_a_restart_goes_on_with_it(
    exchange: Running, journal: Path, policy: str
) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal, on_stop=policy) as desk:
            order = desk.limit(59_985.0)
            await desk.until(lambda: desk.state(order) is S.ACCEPTED)
        kept = [there.client_id for there in truth(exchange).open_orders()]
        assert kept == ([] if policy == "cancel" else [client_id(order)])
        with Journal(journal, durable=False) as book:
            found = book.order_of(order)
            assert found is not None
            assert found.state == ("CANCELLED" if policy == "cancel" else "ACCEPTED")
        if policy == "cancel":
            return
        exchange.faults.burst(3)  # it fills while nobody watches
        async with trading(exchange.url, journal, run_id="r2") as desk:
            await desk.until(lambda: desk.state(order) is S.FILLED)
            assert len(desk.fills) == 1
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_a_journal_that_cannot_be_written_stops_the_run_and_what_works_is_cancelled(
    exchange: Running, journal: Path
) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            resting = desk.limit(59_000.0)
            await desk.until(lambda: desk.state(resting) is S.ACCEPTED)
            with sqlite3.connect(journal) as other:
                other.execute("DROP TABLE fills")
            other.close()
            desk.order()
            await desk.until(lambda: desk.task.done())
            assert truth(exchange).open_orders() == []
            assert desk.fills == []  # told only once it is written

    with pytest.raises(JournalError, match="cannot be written"):
        asyncio.run(run())


def test_an_order_of_a_person_is_left_alone(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        person = connect(config(exchange.url).at, private=True)
        try:
            async with trading(exchange.url, journal) as desk:
                await person.create_order(SYMBOL, "limit", "buy", "0.01", "59000")
                await person.create_order(SYMBOL, "market", "buy", "0.01")
                order = desk.order()
                await desk.until(lambda: desk.state(order) is S.FILLED)
            assert len(desk.fills) == 1
            assert {update.order_id for update in desk.updates} == {order}
            assert len(truth(exchange).open_orders()) == 1
        finally:
            await disconnect(person)

    asyncio.run(run())


def test_a_reduce_only_order_sells_no_more_than_was_bought_here(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            nothing = desk.order(Side.SELL, 0.01, reduce_only=True)
            assert desk.code(nothing) == "reduce_only"  # though the account holds a bitcoin of its own
            bought = desk.order()
            await desk.until(lambda: desk.state(bought) is S.FILLED)
            sold = desk.order(Side.SELL, 0.5, reduce_only=True)
            await desk.until(lambda: desk.state(sold) is S.CANCELLED)
            assert desk.code(sold) == "reduce_only"
            assert desk.filled(sold) == Decimal("0.00999")
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_real_money_is_refused_unless_a_person_has_said_so(tmp_path: Path) -> None:
    real = VenueConfig(at=ExchangeConfig(exchange="binance", key_env=KEY_ENV, secret_env=SECRET_ENV))
    with pytest.raises(ValueError, match="real money"):
        VenueService(real, (BTC,), tmp_path / "journal.db")
    VenueService(real, (BTC,), tmp_path / "journal.db", live_money=True)
    VenueService(config("http://127.0.0.1:1"), (BTC,), tmp_path / "journal.db")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"at": ExchangeConfig(exchange="kraken")}, "orders want an exchange .* binance, .*, was 'kraken'"),
        ({"on_stop": "sell"}, "on_stop must be one of cancel, keep"),
        ({"strays": "ignore"}, "strays must be one of cancel, adopt"),
        ({"working": "keep"}, "working must be one of cancel, adopt, was 'keep'"),
        ({"poll_s": float("nan")}, "poll_s"),
        ({"ack_timeout_s": 0.0}, "ack_timeout_s"),
        ({"recv_window_ms": 60_001}, "recv_window_ms"),
        ({"in_flight_max": 0}, "in_flight_max"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VenueConfig(**fields)  # type: ignore[arg-type]


def test_an_instrument_that_is_not_the_venues_is_refused(exchange: Running, journal: Path) -> None:
    async def run(instrument: object) -> None:
        with Journal(journal, durable=False) as kept:
            kept.begin_run(os.urandom(4).hex(), "test")
            service = VenueService(config(exchange.url), (instrument,), journal)  # type: ignore[arg-type]
            await asyncio.wait_for(service.run(lambda output, value: None), 20.0)

    for fields, words in (
        ({"lot": "0.000001"}, "lot of BTC/USDT must be local exchange's, 0.00001, was 0.000001"),
        ({"tick": "1"}, "tick of BTC/USDT must be local exchange's, 0.01, was 1"),  # what fills at 59990.38 is no tick
    ):
        with pytest.raises(FeedError, match=words):
            asyncio.run(run(replace(BTC, **fields)))
    with pytest.raises(FeedError, match="base_unit must be"):
        asyncio.run(run(replace(BTC, base_unit="")))


def test_no_secret_is_in_what_is_told(exchange: Running, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_ENV, "not-the-secret-that-it-wants")

    async def run() -> None:
        async with trading(exchange.url, journal, wait=False) as desk:
            await desk.until(lambda: desk.service._ready)
            order = desk.order()
            await desk.until(lambda: desk.states(order))
            assert desk.code(order) == "auth"
            told = repr((desk.updates, desk.statuses, desk.service))
            assert "not-the-secret" not in told
            assert KEY not in told
            assert "signature=" not in told

    asyncio.run(run())


def test_the_limits_of_the_exchange_are_told_as_such(journal: Path) -> None:
    local = LocalConfig(listings=(LISTING,), balances=("USDT=100000", "BTC=1"), orders_per_10s=3)

    async def run(running: Running) -> None:
        async with trading(running.url, journal) as desk:
            orders = [desk.limit(59_000.0) for _ in range(5)]
            await desk.until(lambda: all(desk.states(order) for order in orders))
            ends = sorted((desk.state(order) or S.NEW).name for order in orders)
            assert ends == ["ACCEPTED"] * 3 + ["REJECTED"] * 2
            assert {desk.code(order) for order in orders if desk.state(order) is S.REJECTED} == {"rate_limit"}
            check_books(running, desk, journal)

    with exchange_thread(local, tapes=market()) as running:
        asyncio.run(run(running))
