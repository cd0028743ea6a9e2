"""The feed as a whole: as edges of a graph, its bars, its quotes and books, and what is asked before a run."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import csp
import numpy as np
import pytest
from exchange_process import exchange_thread

from feeds.clock import utc_now
from feeds.crypto import CryptoConfig, crypto_feed, describe, warmup
from feeds.errors import FeedError, OfflineError, UnknownSymbolError
from feeds.events import Depth, Quote
from feeds.exchange import ExchangeConfig
from tests.feeds.crypto_ear import SYMBOL, Ear, assert_each_once_in_order, listen, local, market_of, newest_id

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"symbols": ()}, "at least one market"),
        ({"symbols": ("A/B", "A/B")}, "each once"),
        ({"symbols": (" ",)}, "at least one market"),
        ({"streams": ()}, "streams must be of"),
        ({"streams": ("trades", "news")}, "streams must be of"),
        ({"streams": ("bars", "bars")}, "each once"),
        ({"bar": "minute"}, "a bar length is"),
        ({"depth_levels": 0}, "depth_levels"),
        ({"stale_after_s": float("nan")}, "stale_after_s"),
        ({"lag_max_s": 0.0}, "lag_max_s"),
        ({"backoff_max_s": float("inf")}, "backoff_max_s"),
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CryptoConfig(**({"symbols": (SYMBOL,)} | wrong))


def test_what_an_exchange_does_not_offer_is_told_before_the_run() -> None:
    with pytest.raises(FeedError, match=r"binance has bars of 1s, 1m, .*`bar` was '7m'"):
        crypto_feed(CryptoConfig(symbols=(SYMBOL,), streams=("bars",), bar="7m"))
    with pytest.raises(FeedError, match="coincheck offers no bars"):
        crypto_feed(CryptoConfig(at=ExchangeConfig(exchange="coincheck"), symbols=("BTC/JPY",), streams=("bars",)))


def test_in_a_graph_trades_and_their_status_are_ticks() -> None:
    with exchange_thread(market_of()) as running:
        feed = crypto_feed(local(running.url), {SYMBOL: utc_now() - timedelta(seconds=5)})

        def graph() -> None:
            trades = feed.edge("trades")
            csp.add_graph_output("trades", trades)
            csp.add_graph_output("status", feed.edge("status"))
            csp.stop_engine(csp.filter(csp.count(trades) >= 700, trades))

        ticks = csp.run(graph, starttime=utc_now(), endtime=timedelta(seconds=40), realtime=True)

    ids = [trade.trade_id for _, trade in ticks["trades"]]
    assert len(ids) >= 700
    assert_each_once_in_order(ids)
    assert [(status.feed, status.symbol, status.state.name) for _, status in ticks["status"]] == [
        ("local exchange trades", SYMBOL, "CONNECTED")
    ]


def test_bars_are_closed_ones_each_once_and_in_order_through_an_outage() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: len(ear.heard["bars"]) >= 4, "four bars")
        running.faults.outage(2.5)
        await ear.until(lambda: ear.states("bars")[-1] == "STALE", "stale")
        await ear.until(lambda: ear.states("bars")[-1] == "RECOVERED", "recovered")
        count = len(ear.heard["bars"])
        await ear.until(lambda: len(ear.heard["bars"]) >= count + 2, "two bars more")

    with exchange_thread(market_of()) as running:
        config = local(running.url, streams=("bars",), bar="1s")
        warm = warmup(config, "1s", 5)[SYMBOL]
        ear = listen(config, script, {SYMBOL: warm[-1].event_time})
        truth = {bar.open_time: bar for bar in warmup(config, "1s", 50)[SYMBOL]}

    bars = ear.heard["bars"]
    assert bars[0].open_time == warm[-1].event_time
    assert all(later.open_time == earlier.event_time for earlier, later in pairwise(bars))
    for bar in bars:
        assert bar.event_time == bar.open_time + SECOND
        assert bar.received >= bar.event_time
        same = truth[bar.open_time]
        values = [(b.open, b.high, b.low, b.close, b.volume) for b in (bar, same)]
        assert values[0] == values[1]
    recovered = ear.heard["status"][-1]
    assert recovered.value >= 2  # bars that were over while it was gone


def test_without_a_warm_up_bars_begin_with_the_one_that_is_open() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: len(ear.heard["bars"]) >= 2, "two bars")

    start = utc_now()
    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url, streams=("bars",), bar="1s"), script)

    assert ear.heard["bars"][0].event_time > start
    assert ear.states("bars") == ["CONNECTED"]


TOPS: dict[str, Callable[[Any], bool]] = {
    "quotes": lambda event: isinstance(event, Quote) and 0.0 < event.bid < event.ask and event.bid_size > 0.0,
    "depth": lambda event: (
        isinstance(event, Depth) and event.snapshot and event.bids.shape == event.asks.shape == (5, 2)
    ),
}


@pytest.mark.parametrize("fault", ["abort", "stall"])
@pytest.mark.parametrize("kind", TOPS)
def test_quotes_and_books_survive_a_lost_and_a_silent_connection(kind: str, fault: str) -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: len(ear.heard[kind]) >= 5, f"five {kind}")
        getattr(running.faults, fault)()
        await ear.until(lambda: ear.states(kind) == ["CONNECTED", "STALE", "RECOVERED"], "recovered")
        count = len(ear.heard[kind])
        await ear.until(lambda: len(ear.heard[kind]) >= count + 5, f"five {kind} more")

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url, streams=(kind,), depth_levels=5), script)

    assert all(TOPS[kind](event) for event in ear.heard[kind])
    times = [event.event_time for event in ear.heard[kind]]
    assert times == sorted(times)


def test_a_book_is_sent_when_it_has_changed() -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: len(ear.heard["depth"]) >= 10, "ten books")

    with exchange_thread(market_of()) as running:
        ear = listen(local(running.url, streams=("depth",)), script)

    books = ear.heard["depth"]
    for earlier, later in pairwise(books):
        assert not (np.array_equal(earlier.bids, later.bids) and np.array_equal(earlier.asks, later.asks))


@pytest.mark.parametrize("kind", TOPS)
def test_a_quiet_book_is_connected_and_not_stale(kind: str) -> None:
    async def script(ear: Ear) -> None:
        await ear.until(lambda: bool(ear.heard[kind]), "shown")
        asked = running.exchange.requests.count("/api/v3/depth")
        await ear.until(lambda: running.exchange.requests.count("/api/v3/depth") >= asked + 2, "asked about twice")

    with exchange_thread(market_of(trades_per_s=0.4, history_s=100.0)) as running:
        ear = listen(local(running.url, streams=(kind,), stale_after_s=0.4), script)

    assert ear.states(kind) == ["CONNECTED"]


def test_all_streams_of_two_symbols_run_side_by_side() -> None:
    symbols = (SYMBOL, "ETH/USDT")

    async def script(ear: Ear) -> None:
        def seen() -> set[tuple[str, str]]:
            return {(kind, event.symbol) for kind, events in ear.heard.items() for event in events}

        kinds = ("trades", "quotes", "depth", "bars")
        await ear.until(lambda: {(kind, symbol) for kind in kinds for symbol in symbols} <= seen(), "all seen")
        running.faults.abort()
        first = newest_id(running)
        await ear.until(lambda: newest_id(running) > first + 20, "more trades")
        for symbol in symbols:
            await ear.caught_up(running, symbol)

    with exchange_thread(market_of(*symbols)) as running:
        config = local(running.url, symbols=symbols, streams=("trades", "quotes", "depth", "bars"), bar="1s")
        ear = listen(config, script)

    for symbol in symbols:
        assert_each_once_in_order(ear.ids(symbol))


def test_a_warm_up_is_the_latest_closed_bars_of_each_symbol() -> None:
    symbols = (SYMBOL, "ETH/USDT")
    with exchange_thread(market_of(*symbols, trades_per_s=2.0, history_s=3000.0)) as running:
        bars = warmup(local(running.url, symbols=symbols), "1s", 1500)
        few = warmup(local(running.url, symbols=symbols), "1h", 10)
        none = warmup(local(running.url, symbols=symbols), "1s", 0)

    assert list(bars) == list(symbols)
    for symbol in symbols:
        assert len(bars[symbol]) == 1500  # more than a page
        opened = [bar.open_time for bar in bars[symbol]]
        assert opened == [opened[0] + i * SECOND for i in range(1500)]
        assert utc_now() - bars[symbol][-1].event_time < timedelta(seconds=60)
        assert all(bar.event_time <= bar.received for bar in bars[symbol])
        assert len(few[symbol]) <= 1
        assert none[symbol] == []


def test_what_an_exchange_lists_is_described() -> None:
    with exchange_thread(market_of(tick="0.10", lot="0.001", min_notional="7")) as running:
        (described,) = describe(local(running.url))

    assert (described.symbol, described.tick, described.lot, described.min_notional) == (SYMBOL, "0.1", "0.001", "7")
    assert (described.currency, described.fees_in, described.base_unit) == ("USDT", "received", "0.00000001")


def test_an_unknown_symbol_is_told_before_the_run() -> None:
    with exchange_thread(market_of()) as running:
        for ask in (describe, lambda config: warmup(config, "1m", 1)):
            with pytest.raises(UnknownSymbolError, match="did you mean BTC/USDT"):
                ask(local(running.url, symbols=("BTC/USD",)))


def test_an_exchange_that_is_not_there_is_told_in_one_line() -> None:
    with exchange_thread(market_of()) as running:
        url = running.url

    for ask in (describe, lambda config: warmup(config, "1m", 1)):
        with pytest.raises(OfflineError, match="could not be reached") as raised:
            ask(local(url))
        assert "\n" not in str(raised.value)
        assert raised.value.__cause__ is None
