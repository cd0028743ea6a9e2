import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from csp.adapters.parquet import ParquetReader
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, ticks, values

from feeds.events import Bar, Trade
from nodes.bars import bar_aggregator, one_second_aggregator, vwap

SAMPLE = Path(__file__).parents[2] / "feeds" / "sample" / "es_trades_2013-09.parquet"
SECOND = timedelta(seconds=1)
SECOND_NS = 1_000_000_000
MINUTE = timedelta(minutes=1)
T0_NS = (T0 - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000

# (nanoseconds after T0, price, size), sorted; many share a timestamp, many stand on or beside a full second.
trade_times = st.one_of(
    st.integers(0, 5 * SECOND_NS),
    st.builds(lambda second, off: max(0, second * SECOND_NS + off), st.integers(0, 5), st.integers(-2, 2)),
)
trade_rows = st.tuples(trade_times, st.floats(0.01, 1e6), st.sampled_from([0.0, 1e-8, 0.5, 3.0, 1e6]))
trade_lists = st.lists(trade_rows, min_size=1, max_size=40).map(lambda rows: sorted(rows, key=lambda row: row[0]))


def columns(rows: Sequence[tuple[int, float, float]]) -> tuple[Any, Any]:
    """(price, size) edges of (nanoseconds after T0, price, size) rows, as Parquet columns: repeats keep their rows."""
    times, prices, sizes = zip(*rows, strict=True)
    stamps = pa.array([T0_NS + ns for ns in times], pa.timestamp("ns"))
    table = pa.table({"time": stamps, "price": pa.array(prices, pa.float64()), "size": pa.array(sizes, pa.float64())})
    reader = ParquetReader(table, time_column="time", read_from_memory_tables=True)
    return reader.subscribe_all(float, "price"), reader.subscribe_all(float, "size")


def sample() -> pd.DataFrame:
    return pd.read_parquet(SAMPLE).iloc[:60_000].astype({"price": float, "size": float})


def run_sample(graph: Any, frame: pd.DataFrame) -> Any:
    table = pa.table({name: pa.array(frame[name].to_numpy()) for name in ("event_time", "price", "size")})

    def build() -> None:
        reader = ParquetReader(table, time_column="event_time", read_from_memory_tables=True)
        csp.add_graph_output(0, graph(reader.subscribe_all(float, "price"), reader.subscribe_all(float, "size")))

    return csp.run(build, starttime=datetime(2013, 9, 1), endtime=timedelta(days=30))[0]


def bar(start_s: float, end_s: float, *ohlcv: float) -> tuple[datetime, Bar]:
    """The expected tick of a bar, (open, high, low, close, volume)."""
    start, end = T0 + timedelta(seconds=start_s), T0 + timedelta(seconds=end_s)
    names = ("open", "high", "low", "close", "volume")
    return end, Bar(symbol="A", open_time=start, event_time=end, **dict(zip(names, ohlcv, strict=True)))


# --- vwap ---


def test_vwap_averages_the_trades_of_the_window_by_size() -> None:
    price, size = ticks(10.0, 20.0, 30.0, 40.0), ticks(1.0, 3.0, 0.0, 1.0)

    got = run(lambda: vwap(price, size, timedelta(seconds=2)))

    assert got == [(T0, 10.0), (T0 + SECOND, 17.5), (T0 + 2 * SECOND, 20.0), (T0 + 3 * SECOND, 40.0)]


def test_vwap_drops_a_trade_exactly_one_window_old_and_keeps_one_a_nanosecond_younger() -> None:
    rows = [(0, 10.0, 1.0), (1, 20.0, 1.0), (SECOND_NS, 40.0, 2.0)]

    got = run(lambda: vwap(*columns(rows), SECOND))

    assert values(got) == [10.0, 15.0, (20.0 + 2 * 40.0) / 3.0]


def test_vwap_is_silent_while_there_is_no_volume_in_the_window() -> None:
    # The first trade has left when the second comes, and nothing of its size may be left behind.
    price, size = at((0, 10.0), (5, 20.0), (6, 30.0)), at((0, 0.1), (5, 0.0), (6, 0.3))

    got = run(lambda: vwap(price, size, 2 * SECOND))

    assert [when for when, _ in got] == [T0, T0 + 6 * SECOND]
    assert values(got) == pytest.approx([10.0, 30.0], rel=1e-15)


def test_vwap_counts_every_trade_that_shares_a_timestamp() -> None:
    got = run(lambda: vwap(*columns([(0, 10.0, 1.0), (0, 20.0, 1.0), (0, 30.0, 2.0)]), SECOND))

    assert got == [(T0, 10.0), (T0, 15.0), (T0, 22.5)]


def test_vwap_takes_the_fields_of_a_trade_stream() -> None:
    trade = ticks(
        Trade(symbol="A", event_time=T0, price=10.0, size=1.0), Trade(symbol="A", event_time=T0, price=20.0, size=1.0)
    )

    assert values(run(lambda: vwap(trade.price, trade.size, MINUTE))) == [10.0, 15.0]


def test_vwap_of_a_prefix_is_a_prefix_of_the_vwap() -> None:
    rng = np.random.default_rng(3)
    times, prices = np.cumsum(rng.integers(0, 10**8, 300)).tolist(), rng.uniform(1.0, 2.0, 300).tolist()
    rows = list(zip(times, prices, [1.0] * 300, strict=True))

    whole = run(lambda: vwap(*columns(rows), SECOND))

    for cut in (1, 99, 299):
        assert run(lambda cut=cut: vwap(*columns(rows[:cut]), SECOND)) == whole[:cut]


@given(trade_lists, st.integers(1, 3 * SECOND_NS // 1000))
@settings(max_examples=60, deadline=None)
def test_vwap_equals_the_plain_sums_of_its_window(rows: list[tuple[int, float, float]], window_us: int) -> None:
    want = []
    for i, (now, _, _) in enumerate(rows):
        window = [row for row in rows[: i + 1] if row[0] > now - window_us * 1000]
        volume = math.fsum(size for _, _, size in window)
        if volume > 0.0:
            want.append(math.fsum(price * size for _, price, size in window) / volume)

    got = values(run(lambda: vwap(*columns(rows), timedelta(microseconds=window_us))))

    assert got == pytest.approx(want, rel=1e-13)


def test_vwap_does_not_drift_and_forgets_what_has_left() -> None:
    # Blocks of 1e9 among crumbs of 1e-6: sums that add and subtract are 19 % off here (csp.stats), 2 % with Kahan's.
    rng = np.random.default_rng(7)
    n, window_ns = 200_000, 2 * SECOND_NS
    times = np.cumsum(rng.integers(1, 40_000_000, n))
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, n)))
    sizes = np.where(np.arange(n) % 5000 == 0, 1e9, rng.exponential(1e-6, n))

    got = values(
        run(lambda: vwap(*columns(list(zip(times.tolist(), prices.tolist(), sizes.tolist(), strict=True))), 2 * SECOND))
    )

    assert len(got) == n
    for i in [*range(0, n, 97), *range(n - 200, n)]:
        oldest = int(np.searchsorted(times, times[i] - window_ns, side="right"))
        notional = math.fsum(prices[oldest : i + 1] * sizes[oldest : i + 1])
        assert got[i] == pytest.approx(notional / math.fsum(sizes[oldest : i + 1]), rel=1e-13)


def test_vwap_of_real_trades_equals_differences_of_running_totals() -> None:
    frame = sample()
    stamps = frame.event_time.to_numpy("datetime64[us]").astype("i8").tolist()
    notional = np.concatenate([[0.0], np.cumsum(frame.price * frame["size"])])  # quarters and lots: exact sums
    volume = np.concatenate([[0.0], np.cumsum(frame["size"])])
    first = [bisect_right(stamps, stamp - 60_000_000) for stamp in stamps]
    last = np.arange(1, len(stamps) + 1)

    got = run_sample(lambda price, size: vwap(price, size, MINUTE), frame)

    want = (notional[last] - notional[first]) / (volume[last] - volume[first])
    np.testing.assert_allclose(values(got), want, rtol=1e-14)


def test_vwap_refuses_an_empty_window() -> None:
    with pytest.raises(ValueError, match="window must be positive, was 0:00:00"):
        run(lambda: vwap(ticks(1.0), ticks(1.0), timedelta(0)))


# --- bar_aggregator ---


def test_bar_ticks_at_the_end_of_an_interval_that_had_trades() -> None:
    # The first interval is joined half way, minute 2 is empty.
    price = at((30, 10.0), (40, 12.0), (50, 9.0), (59.9, 11.0), (61, 20.0), (185, 30.0))
    size = at((30, 1.0), (40, 2.0), (50, 3.0), (59.9, 4.0), (61, 5.0), (185, 6.0))

    got = run(lambda: bar_aggregator(price, size, "A", MINUTE))

    assert got == [
        bar(0, 60, 10.0, 12.0, 9.0, 11.0, 10.0),
        bar(60, 120, 20.0, 20.0, 20.0, 20.0, 5.0),
        bar(180, 240, 30.0, 30.0, 30.0, 30.0, 6.0),
    ]


def test_trades_at_a_boundary_belong_to_the_next_bar() -> None:
    price = at((0, 10.0), (60, 20.0), (60, 21.0), (60, 19.0), (120, 30.0))
    size = at((0, 1.0), (60, 2.0), (60, 3.0), (60, 4.0), (120, 5.0))

    got = run(lambda: bar_aggregator(price, size, "A", MINUTE))

    assert got == [
        bar(0, 60, 10.0, 10.0, 10.0, 10.0, 1.0),
        bar(60, 120, 20.0, 21.0, 19.0, 19.0, 9.0),
        bar(120, 180, 30.0, 30.0, 30.0, 30.0, 5.0),
    ]


def test_a_trade_one_nanosecond_before_a_boundary_belongs_to_the_old_bar() -> None:
    rows = [(SECOND_NS - 1, 10.0, 1.0), (SECOND_NS, 20.0, 2.0), (2 * SECOND_NS - 1, 30.0, 4.0)]

    got = run(lambda: bar_aggregator(*columns(rows), "A", SECOND))

    assert got == [bar(0, 1, 10.0, 10.0, 10.0, 10.0, 1.0), bar(1, 2, 20.0, 30.0, 20.0, 30.0, 6.0)]


def test_bars_align_to_multiples_of_the_period_since_the_epoch() -> None:
    # 14:30 is no multiple of 7 minutes since 1970; the bar that holds it starts at 14:26 and ends at 14:33.
    period = timedelta(minutes=7)
    (when, got), *_ = run(lambda: bar_aggregator(ticks(10.0), ticks(1.0), "A", period))

    assert when == got.event_time
    assert (got.open_time - datetime(1970, 1, 1)) % period == timedelta(0)
    assert got.open_time <= T0 < got.event_time == got.open_time + period


def test_a_bar_that_the_run_does_not_finish_does_not_tick() -> None:
    assert run(lambda: bar_aggregator(ticks(10.0), ticks(1.0), "A", MINUTE), seconds=59.0) == []


def test_bars_of_a_prefix_are_a_prefix_of_the_bars() -> None:
    rng = np.random.default_rng(3)
    n = 500
    times, prices = np.cumsum(rng.integers(0, 10**8, n)).tolist(), rng.uniform(1.0, 2.0, n).tolist()
    rows = list(zip(times, prices, [1.0] * n, strict=True))

    whole = run(lambda: bar_aggregator(*columns(rows), "A", SECOND))

    for cut in (100, 250, 499):
        part = run(lambda cut=cut: bar_aggregator(*columns(rows[:cut]), "A", SECOND))
        done = [tick for tick in whole if tick[0] <= T0 + timedelta(microseconds=times[cut] // 1000)]
        assert part[: len(done)] == done


@given(trade_lists, st.sampled_from([SECOND, 2 * SECOND, timedelta(milliseconds=700), timedelta(microseconds=1)]))
@settings(max_examples=60, deadline=None)
def test_bars_equal_grouping_by_interval(rows: list[tuple[int, float, float]], period: timedelta) -> None:
    period_ns = period // timedelta(microseconds=1) * 1000
    frame = pd.DataFrame(rows, columns=["ns", "price", "size"])
    groups = frame.groupby((T0_NS + frame.ns) // period_ns)
    want = groups.price.agg(["first", "max", "min", "last"]).join(groups["size"].sum())

    got = run(lambda: bar_aggregator(*columns(rows), "A", period))

    starts = [datetime(1970, 1, 1) + number * period for number in want.index]
    assert [(b.open_time, b.event_time) for b in values(got)] == [(start, start + period) for start in starts]
    assert [when for when, _ in got] == [b.event_time for b in values(got)]
    assert [(b.open, b.high, b.low, b.close) for b in values(got)] == list(
        want[["first", "max", "min", "last"]].itertuples(index=False, name=None)
    )
    assert [b.volume for b in values(got)] == pytest.approx(want["size"].tolist(), rel=1e-13)


def test_bars_of_real_trades_equal_pandas() -> None:
    frame = sample()
    groups = frame.groupby(frame.event_time.dt.floor("1min"))
    want = groups.price.agg(["first", "max", "min", "last"]).join(groups["size"].sum())

    got = values(run_sample(lambda price, size: bar_aggregator(price, size, "ES", MINUTE), frame))

    assert [b.open_time for b in got] == [stamp.to_pydatetime() for stamp in want.index]
    assert [(b.open, b.high, b.low, b.close, b.volume) for b in got] == list(want.itertuples(index=False, name=None))


def test_bars_of_bars_equal_the_longer_bars() -> None:
    # A bar aggregated from its trades in two ways: nothing is lost or counted twice on the way.
    frame = sample()
    short = values(run_sample(lambda price, size: bar_aggregator(price, size, "ES", MINUTE), frame))
    long = values(run_sample(lambda price, size: bar_aggregator(price, size, "ES", timedelta(hours=1)), frame))

    assert sum(b.volume for b in short) == sum(b.volume for b in long)
    for hour in long:
        inside = [b for b in short if hour.open_time <= b.open_time < hour.event_time]
        assert (inside[0].open, inside[-1].close) == (hour.open, hour.close)
        assert (max(b.high for b in inside), min(b.low for b in inside)) == (hour.high, hour.low)


def test_bars_refuse_an_empty_period() -> None:
    with pytest.raises(ValueError, match="period of the bars of A must be positive, was 0:00:00"):
        run(lambda: bar_aggregator(ticks(1.0), ticks(1.0), "A", timedelta(0)))


# --- one_second_aggregator ---


def test_one_second_window_is_armed_by_its_first_trade() -> None:
    # A trade exactly one second after the first starts the next window; the quiet second has none.
    price = at((0.25, 10.0), (0.5, 12.0), (1.0, 11.0), (1.25, 20.0), (3.5, 30.0))
    size = at((0.25, 1.0), (0.5, 1.0), (1.0, 2.0), (1.25, 1.0), (3.5, 2.0))

    got = run(lambda: one_second_aggregator(price, size))

    assert [(when - T0).total_seconds() for when, _ in got] == [1.25, 2.25, 4.5]
    assert [w.start for w in values(got)] == [when - SECOND for when, _ in got]
    assert [(w.vwap, w.volume, w.count, w.high, w.low) for w in values(got)] == [
        (11.0, 4.0, 3, 12.0, 10.0),
        (20.0, 1.0, 1, 20.0, 20.0),
        (30.0, 2.0, 1, 30.0, 30.0),
    ]


def test_one_second_window_ends_to_the_nanosecond() -> None:
    rows = [(7, 10.0, 1.0), (SECOND_NS + 6, 20.0, 1.0), (SECOND_NS + 7, 30.0, 1.0), (SECOND_NS + 7, 40.0, 1.0)]

    got = values(run(lambda: one_second_aggregator(*columns(rows))))

    assert [(w.vwap, w.count) for w in got] == [(15.0, 2), (35.0, 2)]


def test_one_second_vwap_of_one_price_is_that_price() -> None:
    # 0.1 weighed by 0.1, 0.1 and 0.2 is 0.10000000000000002 in floats.
    (got,) = values(
        run(lambda: one_second_aggregator(at((0, 0.1), (0, 0.1), (0, 0.1)), at((0, 0.1), (0, 0.1), (0, 0.2))))
    )

    assert got.vwap == got.high == got.low == 0.1


def test_one_second_window_without_volume_has_the_middle_of_its_range() -> None:
    price, size = at((0, 10.0), (0.1, 13.0), (0.2, 11.0)), at((0, 0.0), (0.1, 0.0), (0.2, 0.0))

    (got,) = values(run(lambda: one_second_aggregator(price, size)))

    assert (got.vwap, got.volume, got.count) == (11.5, 0.0, 3)


@given(trade_lists)
@settings(max_examples=60, deadline=None)
def test_one_second_windows_hold_every_trade_once(rows: list[tuple[int, float, float]]) -> None:
    windows: list[list[tuple[int, float, float]]] = []
    for row in rows:
        if not windows or row[0] >= windows[-1][0][0] + SECOND_NS:
            windows.append([])
        windows[-1].append(row)

    got = values(run(lambda: one_second_aggregator(*columns(rows))))

    assert [w.count for w in got] == [len(window) for window in windows]
    for ticked, window in zip(got, windows, strict=True):
        volume = math.fsum(size for _, _, size in window)
        assert ticked.start == T0 + timedelta(microseconds=window[0][0] // 1000)
        assert (ticked.high, ticked.low) == (max(p for _, p, _ in window), min(p for _, p, _ in window))
        assert ticked.low <= ticked.vwap <= ticked.high
        assert ticked.volume == pytest.approx(volume, rel=1e-13)
        if volume > 0.0:
            assert ticked.vwap == pytest.approx(math.fsum(p * q for _, p, q in window) / volume, rel=1e-13)


# --- what no aggregator takes ---

AGGREGATORS = {
    "vwap": lambda price, size: vwap(price, size, MINUTE),
    "bar_aggregator": lambda price, size: bar_aggregator(price, size, "BTC-USD", MINUTE),
    "one_second_aggregator": one_second_aggregator,
}


@pytest.mark.parametrize("node", AGGREGATORS.values(), ids=AGGREGATORS)
@pytest.mark.parametrize(
    ("price", "size"),
    [
        (math.nan, 1.0),
        (math.inf, 1.0),
        (-math.inf, 1.0),
        (0.0, 1.0),
        (-1.0, 1.0),
        (1e300, 1.0),
        (1.0, math.nan),
        (1.0, math.inf),
        (1.0, -0.5),
    ],
)
def test_an_impossible_trade_stops_the_engine_and_names_its_time(node: Any, price: float, size: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"was price {price}, size {size} at {T0 + SECOND}")):
        run(lambda: node(ticks(10.0, price), ticks(1.0, size)))


@pytest.mark.parametrize("node", AGGREGATORS.values(), ids=AGGREGATORS)
def test_a_price_without_a_size_stops_the_engine(node: Any) -> None:
    with pytest.raises(ValueError, match=r"must tick together, price 11\.0 came alone at 2024-01-02 14:30:01"):
        run(lambda: node(ticks(10.0, 11.0), ticks(1.0, None, 1.0)))


def test_an_impossible_trade_of_a_bar_names_its_symbol() -> None:
    with pytest.raises(ValueError, match="a trade of BTC-USD wants"):
        run(lambda: bar_aggregator(ticks(-1.0), ticks(1.0), "BTC-USD", MINUTE))


@pytest.mark.parametrize("node", AGGREGATORS.values(), ids=AGGREGATORS)
def test_no_trade_no_tick(node: Any) -> None:
    assert run(lambda: node(csp.null_ts(float), csp.null_ts(float))) == []
