"""Silence: of the market, which is no fault, of a socket that has died, and of an exchange that counts anew."""

from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

from exchange_process import exchange_thread

from feeds.clock import utc_now
from tests.feeds.crypto_ear import SYMBOL, Ear, assert_each_once_in_order, listen, local, market_of, newest_id


def test_a_quiet_market_is_connected_and_not_stale() -> None:
    # A trade every 2 s, and the exchange is asked after half a second of silence.
    async def script(ear: Ear) -> None:
        first = newest_id(running)
        await ear.until(lambda: newest_id(running) == first + 2, "two trades more")
        await ear.caught_up(running)

    with exchange_thread(market_of(trades_per_s=0.5, history_s=600.0)) as running:
        ear = listen(local(running.url, stale_after_s=0.5), script)
        dials = [request for request in running.exchange.requests.log if request.path.startswith("/stream/")]

    assert ear.states() == ["CONNECTED"]
    assert_each_once_in_order(ear.ids())
    assert len(ear.ids()) >= 2
    assert len(dials) <= 1 + 4  # one fresh socket for each silence, not for each second


def test_a_market_that_has_been_quiet_since_the_warm_up_is_connected() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: ear.states() == ["CONNECTED"], "connected")

    with exchange_thread(market_of(trades_per_s=0.01, history_s=1000.0)) as running:
        ear = listen(local(running.url), script, {SYMBOL: utc_now()})

    assert ear.ids() == []
    assert "quiet" in ear.heard["status"][0].detail


def test_a_socket_that_dies_while_the_market_is_quiet_loses_nothing() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: ear.states() == ["CONNECTED"], "connected")
        running.faults.stall()
        running.faults.burst(3)
        await ear.caught_up(running)
        running.faults.burst(2)
        await ear.caught_up(running)

    with exchange_thread(market_of(trades_per_s=0.01, history_s=1000.0)) as running:
        ear = listen(local(running.url), script)

    assert len(ear.ids()) == 5
    assert_each_once_in_order(ear.ids())


def test_an_exchange_that_counts_anew_after_a_restart_is_followed() -> None:
    with ExitStack() as exchanges:
        first = exchanges.enter_context(exchange_thread(market_of(history_s=50.0)))
        url = first.url

        async def script(ear: Ear) -> None:
            await ear.caught_up(first)
            exchanges.close()  # what it has sent may still be on its way
            config = replace(market_of(history_s=1.0), port=int(url.rpartition(":")[2]))
            second = exchanges.enter_context(exchange_thread(config))
            await ear.until(lambda: ear.ids()[-1] < ear.ids()[0], "heard of smaller ids")
            await ear.caught_up(second)

        ear = listen(local(url), script)

    ids = ear.ids()
    anew = next(n for n, (last, following) in enumerate(pairwise(ids), 1) if following < last)
    assert_each_once_in_order(ids[:anew])
    assert_each_once_in_order(ids[anew:])
    assert ear.states()[:3] == ["CONNECTED", "STALE", "GAP"]
    assert any("counts anew" in status.detail for status in ear.heard["status"])
