"""The line to a local exchange, cut, silent, late and wrong: nothing is lost and nothing happens twice."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread

from brokers.events import OrderState
from brokers.venue_errors import Trouble
from brokers.venue_ids import client_id
from brokers.venue_link import Link, VenueError
from brokers.venue_messages import Execution, Snapshot
from brokers.venue_terms import Terms
from feeds.exchange import connect, disconnect
from nodes.feed_status import FeedStates
from tests.brokers.venue_account import (
    KEY_ENV,
    LOCAL,
    SECRET_ENV,
    SYMBOL,
    check_books,
    config,
    market,
    sockets,
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


def test_a_lost_answer_is_found_by_its_client_id_and_nothing_is_sent_twice(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            exchange.faults.abort("user")
            exchange.faults.lost_ack(2)
            orders = desk.order(), desk.limit(59_000.0)
            await desk.until(lambda: desk.state(orders[0]) is S.FILLED and desk.state(orders[1]) is S.ACCEPTED)
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_an_order_that_never_arrived_is_told_so_only_after_its_window(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            exchange.faults.http(503, count=1, path="/api/v3/order")
            before = asyncio.get_running_loop().time()
            order = desk.order()
            await desk.until(lambda: desk.states(order))
            assert asyncio.get_running_loop().time() - before >= 1.0  # the receive window
            assert (desk.states(order), desk.code(order)) == ([S.REJECTED], "not_sent")
            assert desk.states_of_feed(SYMBOL) == ["GAP", "RECOVERED"]
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_a_slow_answer_is_a_gap_until_the_order_is_known(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal, ack_timeout_s=0.2, poll_s=5.0) as desk:
            await desk.until(lambda: _hears(exchange))
            exchange.faults.stall(kind="user")
            exchange.faults.slow_ack(3_000.0)
            order = desk.limit(59_000.0)
            await desk.until(lambda: desk.state(order) is S.ACCEPTED)
            assert desk.states_of_feed(SYMBOL) == ["GAP", "RECOVERED"]

    asyncio.run(run())


def test_an_order_given_up_that_turns_up_after_all_is_taken_off_and_told(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        late = connect(config(exchange.url).at, private=True)
        try:
            async with trading(exchange.url, journal) as desk:
                exchange.faults.http(503, count=1, path="/api/v3/order")
                order = desk.limit(59_000.0)
                await desk.until(lambda: desk.states(order))
                assert desk.code(order) == "not_sent"
                # What a venue promises not to do: it takes the request after all.
                params = {"clientOrderId": client_id(order)}
                await late.create_order(SYMBOL, "limit", "buy", "0.01", "59000", params)
                await desk.until(lambda: desk.states_of_feed(SYMBOL) == ["GAP", "RECOVERED"] * 2)
                assert truth(exchange).open_orders() == []
                assert desk.states(order) == [S.REJECTED]
        finally:
            await disconnect(late)

    asyncio.run(run())


def _turned_away(exchange: Running) -> bool:
    """Whether an order came and was answered with an outage."""
    log = exchange.call(lambda: list(exchange.exchange.requests.log))
    return any((request.method, request.path, request.status) == ("POST", "/api/v3/order", 503) for request in log)


def _hears(exchange: Running) -> bool:
    return any(socket.kind == "user" and not socket.stalled for socket in sockets(exchange))


def test_a_stalled_stream_loses_nothing_and_is_replaced_when_a_poll_knows_more(
    exchange: Running, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokers.venue_link._PING_MS", 600_000)

    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            resting = desk.limit(59_985.0)
            await desk.until(lambda: desk.state(resting) is S.ACCEPTED)
            exchange.faults.stall(kind="user")
            exchange.faults.burst(3)
            await desk.until(lambda: desk.state(resting) is S.FILLED)
            check_books(exchange, desk, journal)
            desk.limit(59_000.0)  # so that there is another poll
            await desk.until(lambda: _hears(exchange))

    asyncio.run(run())


def test_a_stalled_stream_with_nothing_to_say_is_replaced_when_a_ping_is_not_answered(
    exchange: Running, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokers.venue_link._PING_MS", 200)

    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            await desk.until(lambda: _hears(exchange))
            assert exchange.faults.stall(kind="user")
            await desk.until(lambda: _hears(exchange))

    asyncio.run(run())


def test_an_outage_is_told_and_what_happened_in_it_is_caught_up_with(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            resting = desk.limit(59_985.0)
            await desk.until(lambda: desk.state(resting) is S.ACCEPTED)
            exchange.faults.outage(60.0)
            exchange.faults.burst(3)
            await desk.until(lambda: "STALE" in desk.states_of_feed())
            meanwhile = desk.limit(59_000.0)
            desk.cancel(meanwhile)
            await desk.until(lambda: _turned_away(exchange))
            exchange.faults.clear()  # the end of the outage
            await desk.until(lambda: desk.states_of_feed()[-1] == "RECOVERED")
            await desk.until(lambda: desk.state(resting) is S.FILLED and desk.state(meanwhile) is S.REJECTED)
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_events_that_come_twice_or_in_the_wrong_order_change_nothing(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            exchange.faults.duplicate(10, "user")
            exchange.faults.out_of_order(10, "user")
            orders = [desk.order(quantity=0.001) for _ in range(5)]
            await desk.until(lambda: all(desk.state(order) is S.FILLED for order in orders))
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_after_a_rate_limit_orders_are_refused_rather_than_late(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            exchange.faults.http(429, count=1, retry_after=2, path="/api/v3/order")
            orders = [desk.limit(59_000.0)]
            await desk.until(lambda: desk.states(orders[0]))
            orders.append(desk.limit(59_000.0))
            assert [desk.code(order) for order in orders] == ["rate_limit", "rate_limit"]
            assert "left alone" in desk.updates[-1].reason

            async def sent() -> bool:
                order = desk.limit(59_000.0)
                await desk.until(lambda: desk.states(order))
                return desk.state(order) is S.ACCEPTED

            async with asyncio.timeout(20.0):
                while not await sent():
                    await asyncio.sleep(0.1)
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_more_orders_than_may_wait_for_an_answer_are_refused(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal, in_flight_max=2) as desk:
            orders = [desk.limit(59_000.0) for _ in range(3)]
            assert desk.code(orders[2]) == "rate_limit"
            await desk.until(lambda: all(desk.state(order) is S.ACCEPTED for order in orders[:2]))

    asyncio.run(run())


def test_a_clock_that_is_wrong_is_set_again(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            exchange.faults.skew(30_000)
            refused = desk.order()
            await desk.until(lambda: desk.states(refused))
            assert (desk.state(refused), desk.code(refused)) == (S.REJECTED, "clock")

            async def filled() -> bool:
                order = desk.order()
                await desk.until(lambda: desk.state(order) in (S.FILLED, S.REJECTED))
                return desk.state(order) is S.FILLED

            async with asyncio.timeout(20.0):
                while not await filled():
                    await asyncio.sleep(0.05)
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_orders_before_the_venue_is_reached_are_refused_and_it_keeps_trying(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        exchange.faults.outage(60.0)
        async with trading(exchange.url, journal, wait=False) as desk:
            await desk.until(lambda: desk.states_of_feed())
            early = desk.order()
            assert desk.code(early) == "venue_down"
            exchange.faults.clear()  # the end of the outage
            await desk.until(lambda: desk.states_of_feed() == ["STALE", "RECOVERED"])
            order = desk.order()
            await desk.until(lambda: desk.state(order) is S.FILLED)
            check_books(exchange, desk, journal)

    asyncio.run(run())


def test_an_order_that_could_not_be_sent_makes_the_line_stale_until_a_poll_gets_through(
    exchange: Running, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_line(link: Link, terms: Terms) -> list[Snapshot | Execution]:
        raise VenueError(Trouble("venue_down", "cannot connect", certain=True))

    async def run() -> None:
        async with trading(exchange.url, journal) as desk:  # the user stream lives on, so no poll would say so
            with monkeypatch.context() as cut:
                cut.setattr(Link, "place", no_line)
                order = desk.order()
                await desk.until(lambda: desk.states(order))
            assert (desk.states(order), desk.code(order)) == ([S.REJECTED], "venue_down")
            await desk.until(lambda: desk.states_of_feed()[-2:] == ["STALE", "RECOVERED"])
            again = desk.order()
            await desk.until(lambda: desk.state(again) is S.FILLED)

    asyncio.run(run())


def test_an_order_that_is_settled_while_the_line_is_down_does_not_end_that(exchange: Running, journal: Path) -> None:
    async def run() -> None:
        async with trading(exchange.url, journal) as desk:
            order = desk.limit(59_000.0)
            await desk.until(lambda: desk.state(order) is S.ACCEPTED)
            service = desk.service
            service.lost("nothing gets through")
            service._gap(service._tracker.orders[order], "an answer is late")
            service._tell()  # and is there
            states = FeedStates()
            for status in desk.statuses:
                states.heard(status)
            fault = states.fault(SYMBOL)
            assert fault is not None, desk.statuses
            assert service._unsure == {}
            service.reached()
            states.heard(desk.statuses[-1])
            assert states.fault(SYMBOL) is None

    asyncio.run(run())
