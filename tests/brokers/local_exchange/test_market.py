"""The exchange's market without a server: tapes, history, bars, the book."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.local_exchange.amounts import ATOMS
from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.market import DAY_MS, Kline, Market, _sum_of_products
from brokers.local_exchange.tape import read, tape
from feeds.errors import DataError

ES = "feeds/sample/es_trades_2013-09.parquet"
NOW_MS = 1_700_000_000_000
COIN = Listing(symbol="BTC/USDT", tick="0.01", lot="0.001", history_s=0.0)


def market(*points: tuple[float, float, float], now_ms: int = NOW_MS, **changes: Any) -> Market:
    """A market of (second, price, size) that starts now."""
    listing = Listing(**({"symbol": "BTC/USDT", "tick": "0.01", "lot": "0.001", "history_s": 0.0} | changes))
    return Market(listing, tape(listing, *zip(*points, strict=True)), seed=7, now_ms=now_ms)


def run_out(wanted: Market) -> Market:
    """All of its trades have happened."""
    while wanted.next_ms is not None:
        wanted.emit()
    return wanted


def test_trades_happen_in_order_with_ids_from_one_and_times_from_the_start() -> None:
    running = market((5.0, 100.0, 1.0), (5.5, 100.5, 0.25), (9.0, 100.25, 2.0))

    told = []
    while (due := running.next_ms) is not None:
        told.append((due, running.emit()))

    assert [due - NOW_MS for due, _ in told] == [0, 500, 4000]
    assert [trade.time_ms for _, trade in told] == [due for due, _ in told]
    assert [trade.id for _, trade in told] == [1, 2, 3]
    assert [(trade.price, trade.size) for _, trade in told] == [
        (10_000_000_000, ATOMS),
        (10_050_000_000, ATOMS // 4),
        (10_025_000_000, 2 * ATOMS),
    ]
    assert running.trades(1, 10) == [trade for _, trade in told]


def test_what_lies_before_the_start_is_history_at_any_speed() -> None:
    points = [(float(i), 100.0 + i, 1.0) for i in range(100)]

    usual = market(*points, history_s=10.0)
    fast = market(*points, history_s=10.0, speed=5.0)
    paced = market(*points, history_s=10.0, trades_per_s=2.0)

    assert (usual.emitted, fast.emitted, paced.emitted) == (10, 50, 20)
    assert usual.trade(1).time_ms == fast.trade(1).time_ms == paced.trade(1).time_ms == NOW_MS - 10_000
    assert (usual.next_ms, fast.next_ms, paced.next_ms) == (NOW_MS, NOW_MS, NOW_MS)


def test_long_silences_are_cut() -> None:
    running = run_out(market((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (5000.0, 1.0, 1.0), (5000.5, 1.0, 1.0), gap_max_s=2.0))
    assert [trade.time_ms - NOW_MS for trade in running.trades(1, 9)] == [0, 1000, 3000, 3500]


def test_a_trade_takes_the_side_to_which_the_price_moved() -> None:
    running = run_out(market(*[(float(i), p, 1.0) for i, p in enumerate((10.0, 10.0, 9.0, 9.0, 11.0, 11.0, 10.0))]))
    assert [trade.buyer_maker for trade in running.trades(1, 9)] == [False, False, True, True, False, False, True]


def test_prices_and_sizes_come_to_stand_on_the_grid() -> None:
    running = run_out(market((0.0, 100.13, 0.01), (1.0, 99.9, 7.4), tick="0.25", lot="1"))
    assert [(t.price / ATOMS, t.size / ATOMS) for t in running.trades(1, 9)] == [(100.25, 1.0), (100.0, 7.0)]


def test_a_tape_that_repeats_goes_on_in_time_and_starts_again_in_price() -> None:
    running = market((0.0, 10.0, 1.0), (1.0, 11.0, 1.0), (2.0, 12.0, 1.0), loop=True)

    told = [running.emit() for _ in range(8)]

    assert [trade.price // ATOMS for trade in told] == [10, 11, 12, 10, 11, 12, 10, 11]
    assert [trade.time_ms - NOW_MS for trade in told] == [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]
    assert [trade.id for trade in told] == list(range(1, 9))


def test_a_tape_that_repeats_fills_a_history_longer_than_itself() -> None:
    running = market((0.0, 10.0, 1.0), (1.0, 11.0, 1.0), loop=True, history_s=7.0)
    assert running.emitted == 7
    assert running.next_ms == NOW_MS


def test_a_tape_that_ends_falls_silent() -> None:
    running = market((0.0, 10.0, 1.0), history_s=5.0)
    assert (running.emitted, running.next_ms, running.pull(3, NOW_MS)) == (1, None, 0)
    with pytest.raises(IndexError, match="ended after 1"):
        running.emit()


def test_pulled_trades_are_due_at_once_and_the_rest_as_much_earlier() -> None:
    running = market(*[(float(i), 10.0, 1.0) for i in range(0, 60, 10)])
    first = running.emit()

    assert running.pull(3, NOW_MS + 2000) == 3

    assert [running.emit().time_ms - NOW_MS for _ in range(3)] == [2000, 2000, 2000]
    assert running.next_ms == NOW_MS + 12_000
    assert first.time_ms == NOW_MS
    assert running.pull(9, NOW_MS + 2000) == 2


def test_what_is_overdue_keeps_its_time_when_pulled() -> None:
    running = market((0.0, 10.0, 1.0), (1.0, 10.0, 1.0), (2.0, 10.0, 1.0))
    running.pull(2, NOW_MS + 10_000)
    assert [running.emit().time_ms - NOW_MS for _ in range(3)] == [0, 1000, 2000]


def told_naively(running: Market, length: int, open_ms: int) -> tuple[Any, ...]:
    """Open, high, low, close, volume, worth, count of a bar from the trades one by one."""
    inside = [t for t in running.trades(1, running.emitted) if open_ms <= t.time_ms < open_ms + length]
    if not inside:
        before = [t for t in running.trades(1, running.emitted) if t.time_ms < open_ms][-1].price
        return before, before, before, before, 0, 0, 0
    prices = [t.price for t in inside]
    worth = sum(t.price * t.size for t in inside)
    return prices[0], max(prices), min(prices), prices[-1], sum(t.size for t in inside), worth, len(inside)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 7000), min_size=1, max_size=60),
    prices=st.lists(st.integers(1, 10**9), min_size=60, max_size=60),
    start_ms=st.integers(NOW_MS, NOW_MS + 60_000),
    limit=st.integers(1, 40),
)
def test_bars_are_what_their_trades_say(gaps: list[int], prices: list[int], start_ms: int, limit: int) -> None:
    times = np.cumsum(gaps) / 1000.0
    points = [(t, price / 100, 0.001 * (price % 977 + 1)) for t, price in zip(times.tolist(), prices, strict=False)]
    running = run_out(market(*points, now_ms=start_ms))
    now_ms = running.trade(running.emitted).time_ms + 2500

    bars = running.klines("1s", None, None, 1000, now_ms)

    first = running.trade(1).time_ms // 1000
    assert [bar.open_ms // 1000 for bar in bars] == list(range(first, now_ms // 1000 + 1))
    for bar in bars:
        figures = bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume, bar.trades
        assert figures == told_naively(running, 1000, bar.open_ms)
        assert bar.close_ms == bar.open_ms + 999
    assert running.klines("1s", None, None, limit, now_ms) == bars[-limit:]
    since = bars[len(bars) // 2].open_ms
    assert running.klines("1s", since, None, limit, now_ms) == bars[len(bars) // 2 :][:limit]
    assert running.klines("1s", since - 500, since, limit, now_ms) == [bars[len(bars) // 2]]


def test_only_what_has_happened_is_in_a_bar() -> None:
    running = market((0.0, 10.0, 1.0), (0.25, 12.0, 1.0), (0.5, 99.0, 1.0))
    assert running.klines("1m", None, None, 5, NOW_MS) == []
    running.emit()
    running.emit()
    (bar,) = running.klines("1m", None, None, 5, NOW_MS + 400)
    assert (bar.high, bar.trades, bar.last_id) == (12 * ATOMS, 2, 2)


def test_the_day_is_the_last_24_hours() -> None:
    hours = [(3600.0 * i, 10.0 + i, 1.0) for i in range(30)]
    running = run_out(market(*hours))
    now_ms = running.trade(30).time_ms
    day: Kline = running.day(now_ms)
    assert (day.trades, day.first_id, day.open, day.close) == (25, 6, 15 * ATOMS, 39 * ATOMS)
    assert day.close_ms - day.open_ms == DAY_MS


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), min_size=1, max_size=20))
def test_sums_of_products_are_exact_beyond_64_bits(pairs: list[tuple[int, int]]) -> None:
    left, right = (np.array(values, dtype=np.int64) for values in zip(*pairs, strict=True))
    assert _sum_of_products(left, right) == sum(a * b for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(prices=st.lists(st.integers(1, 300), min_size=1, max_size=50), spread=st.integers(1, 4))
def test_the_book_is_around_the_last_trade_never_crossed_and_repeatable(prices: list[int], spread: int) -> None:
    points = [(float(i), price / 100, 1.0) for i, price in enumerate(prices)]
    one, other = (market(*points, spread_ticks=spread) for _ in range(2))
    tick, lot = ATOMS // 100, ATOMS // 1000
    for _ in points:
        trade, quote, depth = one.emit(), one.quote(), one.depth()
        other.emit()
        assert depth == other.depth()
        assert depth.version == quote.version == one.emitted
        assert (depth.bids[0], depth.asks[0]) == ((quote.bid, quote.bid_size), (quote.ask, quote.ask_size))
        assert 0 < quote.bid < quote.ask == quote.bid + spread * tick
        assert trade.price in (quote.bid, quote.ask)
        assert [price for price, _ in depth.asks] == [quote.ask + i * tick for i in range(20)]
        assert [price for price, _ in depth.bids] == [quote.bid - i * tick for i in range(20) if quote.bid > i * tick]
        assert all(size > 0 and size % lot == 0 for _, size in depth.bids + depth.asks)


def test_a_seller_hits_the_bid_and_a_buyer_the_ask() -> None:
    running = market((0.0, 10.0, 1.0), (1.0, 9.5, 1.0))
    assert running.emit().price == running.quote().ask
    assert running.emit().price == running.quote().bid


def test_another_seed_shows_other_sizes_at_the_same_prices() -> None:
    points = ((0.0, 10.0, 1.0),)
    listing = COIN
    books = [run_out(Market(listing, tape(listing, *zip(*points, strict=True)), s, NOW_MS)).depth() for s in (1, 2)]
    assert [price for price, _ in books[0].bids] == [price for price, _ in books[1].bids]
    assert books[0].bids != books[1].bids


def test_real_trades_of_a_file_are_the_tape() -> None:
    listing = Listing(symbol="ES/USD", data=ES, rows=1000, tick="0.25", lot="1")
    rows = pq.read_table(ES).slice(0, 1000)
    wanted = read(listing, seed=0)
    assert len(wanted) == 1000
    assert (wanted.price / ATOMS).tolist() == rows["price"].to_pylist()
    assert (wanted.size // ATOMS).tolist() == rows["size"].to_pylist()
    seconds = [(t - rows["event_time"][0].as_py()).total_seconds() for t in rows["event_time"].to_pylist()]
    assert wanted.time_ms.tolist() == [round(s * 1000) for s in seconds]


def test_a_bar_of_a_file_becomes_trades_that_make_the_bar_again() -> None:
    path = "feeds/sample/btc_usd_1h_2017-2019.parquet"
    listing = Listing(symbol="BTC/USD", data=path, bar="1h", rows=500, tick="0.01", lot="0.00000001", history_s=0.0)
    opened = datetime(2017, 7, 1, 11, tzinfo=UTC)
    start_ms = int(opened.timestamp() * 1000)
    running = run_out(Market(listing, read(listing, seed=0), seed=0, now_ms=start_ms))

    bars = running.klines("1h", None, None, 1000, running.trade(running.emitted).time_ms)

    rows = pq.read_table(path).slice(0, 500).to_pylist()
    by_open = {bar.open_ms: bar for bar in bars}
    for row in rows:
        bar = by_open[int(row["open_time"].replace(tzinfo=UTC).timestamp() * 1000)]
        assert [bar.open, bar.high, bar.low, bar.close, bar.volume] == [
            pytest.approx(row[name] * ATOMS, abs=2) for name in ("open", "high", "low", "close", "volume")
        ]
        assert bar.trades == 4


def test_a_bar_without_volume_is_traded_all_the_same(tmp_path: Path) -> None:
    bars = {"open_time": [datetime(2024, 1, 1, 0, m) for m in range(3)]}
    bars |= {name: [10.0, 10.0, 10.0] for name in ("open", "high", "low", "close")}
    pq.write_table(pa.table(bars), tmp_path / "quiet.parquet")
    wanted = read(Listing(data=str(tmp_path / "quiet.parquet"), bar="1m", tick="0.01", lot="0.1"), seed=0)
    assert wanted.size.tolist() == [ATOMS // 10] * 12


def test_an_invented_market_follows_from_its_seed() -> None:
    listing = Listing(rows=500)
    one, same, other = (read(listing, seed) for seed in (3, 3, 4))
    assert one.price.tolist() == same.price.tolist() != other.price.tolist()
    assert one.time_ms.tolist() == same.time_ms.tolist()
    assert (np.diff(one.time_ms) >= 0).all()


@pytest.mark.parametrize(
    ("times", "prices", "sizes", "wanted"),
    [
        ([], [], [], "as many times"),
        ([0.0, 1.0], [1.0], [1.0], "as many times"),
        ([1.0, 0.0], [1.0, 1.0], [1.0, 1.0], "never fall"),
        ([float("nan")], [1.0], [1.0], "finite"),
        ([0.0], [float("nan")], [1.0], "prices"),
        ([0.0], [-1.0], [1.0], "prices"),
        ([0.0], [1.0], [0.0], "sizes"),
        ([0.0], [1.0], [float("inf")], "sizes"),
        ([0.0], [1e12], [1.0], "below"),
    ],
)
def test_an_impossible_tape_is_refused(
    times: list[float], prices: list[float], sizes: list[float], wanted: str
) -> None:
    with pytest.raises(ValueError, match=wanted):
        tape(COIN, times, prices, sizes)


def test_a_file_of_macro_points_is_no_market(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": [datetime(2024, 1, 1)], "value": [1.0]}), tmp_path / "cpi.parquet")
    with pytest.raises(DataError, match="macro"):
        read(Listing(data=str(tmp_path / "cpi.parquet")), seed=0)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"symbol": "BTCUSDT"}, "BASE/QUOTE"),
        ({"symbol": "btc/usdt"}, "BASE/QUOTE"),
        ({"rows": 0}, "rows"),
        ({"speed": 0.0}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"trades_per_s": -1.0}, "trades_per_s"),
        ({"gap_max_s": 0.0}, "gap_max_s"),
        ({"history_s": -1.0}, "history_s"),
        ({"history_s": float("inf")}, "history_s"),
        ({"tick": "0"}, "tick"),
        ({"tick": "0.000000001"}, "tick"),
        ({"lot": "much"}, "lot"),
        ({"lot": "1/0"}, "lot"),
        ({"min_notional": "-1"}, "min_notional"),
        ({"price_max": "10.005"}, "price_max"),
        ({"spread_ticks": 0}, "spread_ticks"),
        ({"kind": "quotes"}, "kind"),
        ({"bar": "1 hour"}, "bar length"),
    ],
)
def test_an_impossible_listing_is_refused(changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        Listing(**changes)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"host": "0.0.0.0"}, "127.0.0.1"),
        ({"port": 70_000}, "port"),
        ({"listings": ()}, "listings"),
        ({"listings": (Listing(), Listing())}, "once"),
        ({"seed": -1}, "seed"),
        ({"weight_per_minute": 0}, "weight_per_minute"),
        ({"taker_bps": float("nan")}, "taker_bps"),
        ({"balances": ("USDT 5",)}, "USDT=100000"),
        ({"balances": ("USDT=5", "USDT=6")}, "once"),
    ],
)
def test_an_impossible_exchange_is_refused(changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        ExchangeConfig(**changes)
