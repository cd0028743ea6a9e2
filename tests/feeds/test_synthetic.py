import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csp.adapters.parquet import ParquetReader
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from feeds.events import Bar
from feeds.synthetic import BLOCK_ROWS, MODELS, SyntheticConfig, bar_tables, start_ns, trade_tables, write

Tables = Callable[..., Iterator[pa.Table]]
BOTH = pytest.mark.parametrize("tables", [bar_tables, trade_tables])
MINUTES_A_YEAR = 365.25 * 24 * 60


def whole(tables: Tables, table_rows: int = 65_536, **changes: Any) -> pa.Table:
    return pa.concat_tables(tables(SyntheticConfig(**changes), table_rows))


def column(table: pa.Table, name: str) -> Any:
    return table[name].to_numpy()


def returns(**changes: Any) -> Any:
    """Log returns of bars on a grid so fine that rounding does not show."""
    return np.diff(np.log(column(whole(bar_tables, tick="0.00001", **changes), "close")))


@BOTH
@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_series_and_another_seed_another(tables: Tables, model: str) -> None:
    once, again, other = (whole(tables, rows=1_000, model=model, seed=seed) for seed in (1, 1, 2))

    assert once.equals(again)
    assert not once.equals(other)


@BOTH
@pytest.mark.parametrize("model", MODELS)
def test_a_shorter_series_is_the_beginning_of_a_longer_one(tables: Tables, model: str) -> None:
    # Two blocks and a bit against one block and a bit: state is carried, and a block cut short has the same values.
    settings_ = {"model": model, "regime_rows_mean": 50.0, "jumps_a_day": 100.0}
    long, short = whole(tables, rows=2 * BLOCK_ROWS + 9, **settings_), whole(tables, rows=BLOCK_ROWS + 5, **settings_)

    assert len(long) == 2 * BLOCK_ROWS + 9
    assert long.slice(0, len(short)).equals(short)


@BOTH
@settings(max_examples=25, deadline=None)
@given(table_rows=st.integers(200, 100_000), rows=st.integers(1, BLOCK_ROWS + 500))
def test_the_size_of_the_tables_does_not_matter(tables: Tables, table_rows: int, rows: int) -> None:
    parts = list(tables(SyntheticConfig(rows=rows), table_rows))

    assert [len(part) for part in parts[:-1]] == [table_rows] * (len(parts) - 1)
    assert 1 <= len(parts[-1]) <= table_rows
    assert pa.concat_tables(parts).equals(whole(tables, rows=rows))


def test_columns_and_types() -> None:
    time, number = pa.timestamp("ns", tz="UTC"), pa.float64()
    prices = [(name, number) for name in ("open", "high", "low", "close", "volume")]

    bars, trades = (next(tables(SyntheticConfig(rows=3))) for tables in (bar_tables, trade_tables))

    assert bars.schema == pa.schema([("time", time), ("symbol", pa.string()), ("open_time", time), *prices])
    assert trades.schema == pa.schema([("time", time), ("symbol", pa.string()), ("price", number), ("size", number)])
    assert bars["symbol"].to_pylist() == ["SYNTH"] * 3


def test_bars_follow_each_other_without_a_gap_and_across_blocks() -> None:
    config = SyntheticConfig(rows=BLOCK_ROWS + 10, bar_s=60.0, start="2024-01-01T01:00:00+01:00")
    table = pa.concat_tables(bar_tables(config))
    time, open_time = (column(table, name).astype(np.int64) for name in ("time", "open_time"))

    assert open_time[0] == start_ns(config) == 1_704_067_200_000_000_000
    assert set((time - open_time).tolist()) == {60_000_000_000}
    assert (open_time[1:] == time[:-1]).all()
    assert (column(table, "open")[1:] == column(table, "close")[:-1]).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**64),
    model=st.sampled_from(MODELS),
    volatility=st.floats(0.0, 100.0),
    tick=st.sampled_from(["0.01", "0.25", "0.0005", "5"]),
    lot=st.sampled_from(["1", "0.001", "0.00000001"]),
)
def test_bars_are_consistent_positive_and_on_their_grids(
    seed: int, model: str, volatility: float, tick: str, lot: str
) -> None:
    table = whole(
        bar_tables,
        rows=500,
        seed=seed,
        model=model,
        volatility_year=volatility,
        tick=tick,
        lot=lot,
        price=1e5,
        size_mean=2.0,
        volume_mean=3.0,
        bar_s=86_400.0,
    )
    open_, high, low, close, volume = (column(table, n) for n in ("open", "high", "low", "close", "volume"))

    assert (low > 0.0).all()
    assert (low <= np.minimum(open_, close)).all()
    assert (high >= np.maximum(open_, close)).all()
    assert (volume > 0.0).all()
    for price in (open_, high, low, close):
        assert_on_grid(price, tick)
    assert_on_grid(volume, lot)


def assert_on_grid(values: Any, step: str) -> None:
    """Each value is the float nearest to a whole multiple of the step: what reading its decimal text would give."""
    whole_steps = np.rint(values / float(step)).astype(np.int64)
    assert [float(Decimal(int(k)) * Decimal(step)) for k in whole_steps] == values.tolist()


def test_trades_are_in_order_positive_and_on_their_grids() -> None:
    # The last trades of one block and the first of the next, with gaps below a microsecond.
    table = whole(trade_tables, rows=BLOCK_ROWS + 1_000, gap_mean_s=1e-6, tick="0.05", price=500.0)

    assert (np.diff(column(table, "time").astype(np.int64)) > 0).all()
    assert (column(table, "size") > 0.0).all()
    assert_on_grid(column(table, "price"), "0.05")
    assert_on_grid(column(table, "size"), "0.001")


@pytest.mark.parametrize("model", ["random_walk", "regime"])
def test_volatility_is_what_the_config_says(model: str) -> None:
    # A year of minutes. The random walk's estimate has a relative standard error of 1 / sqrt(2 n) = 0.1 %; that of the
    # regimes, which last 100 minutes, about 0.7 %.
    change = returns(rows=525_960, model=model, volatility_year=0.6, regime_rows_mean=100.0)

    assert change.std() * math.sqrt(MINUTES_A_YEAR) == pytest.approx(0.6, rel=0.005 if model == "random_walk" else 0.03)


def test_a_random_walk_has_normal_returns_without_memory() -> None:
    change = returns(rows=200_000)

    assert stats.kurtosis(change) == pytest.approx(0.0, abs=0.05)
    assert abs(np.corrcoef(change[1:], change[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(change[1:] ** 2, change[:-1] ** 2)[0, 1]) < 0.01


def test_regimes_fatten_the_tails_and_cluster() -> None:
    change = returns(rows=200_000, model="regime", regime_rows_mean=500.0, regime_ratio=4.0)

    # Half the time each at variances v and 16 v: excess kurtosis 3 * (2 * 257 / 17**2 - 1) = 2.34.
    assert stats.kurtosis(change) == pytest.approx(2.34, abs=0.4)
    # The variance itself varies by 7.5 v around 8.5 v, squared returns by sqrt(313.25) v; a regime ends once in 500.
    clustering = np.corrcoef(change[1:] ** 2, change[:-1] ** 2)[0, 1]
    assert clustering == pytest.approx(7.5**2 * (1 - 2 / 500) / 313.25, abs=0.02)  # 0.179


def test_a_block_takes_up_the_price_and_the_regime_where_the_last_one_left_them() -> None:
    # Calm and wild differ four to one in deviation; that a regime ends in these 1,000 rows has odds of 1 in 200.
    wild = 0
    for seed in range(8):
        config = {"rows": BLOCK_ROWS + 500, "model": "regime", "regime_rows_mean": 200_000.0, "seed": seed}
        change = returns(**config)[-1_000:]
        before, after = change[:500].std(), change[500:].std()
        wild += before * math.sqrt(MINUTES_A_YEAR) > 0.5
        assert after == pytest.approx(before, rel=0.2)
        price = column(whole(trade_tables, **config), "price")[-502:-498]
        assert np.abs(np.diff(price)).max() < 0.2
    assert 0 < wild < 8


def test_volume_is_higher_in_a_wild_regime_and_right_on_average() -> None:
    table = whole(bar_tables, rows=200_000, model="regime", volume_mean=30.0, regime_rows_mean=200.0)
    volume = column(table, "volume")
    moved = np.abs(np.log(column(table, "close") / column(table, "open")))

    assert volume.mean() == pytest.approx(30.0, rel=0.1)
    assert volume[moved > np.quantile(moved, 0.9)].mean() > 1.5 * volume[moved < np.median(moved)].mean()


def test_jumps_come_as_often_and_as_large_as_configured() -> None:
    # 200 days with 10 jumps a day of 5 %, against minutes of 0.02 %: 95 % of the jumps stand out above 0.3 %.
    change = returns(rows=288_000, model="jumps", jumps_a_day=10.0, jump_std=0.05, volatility_year=0.15)
    jump = change[np.abs(change) > 0.003]
    seen = 2_000 * 2 * stats.norm.sf(0.003 / 0.05)

    assert len(jump) == pytest.approx(seen, abs=4 * math.sqrt(seen))
    assert jump.std() == pytest.approx(0.05, rel=0.1)
    assert stats.kurtosis(change) > 100.0


def test_jumps_come_on_top_of_the_random_walk_and_know_nothing_of_it() -> None:
    config = {"rows": 200_000, "jumps_a_day": 100.0, "jump_std": 0.001}
    walk, jumpy = returns(**config), returns(**config, model="jumps")
    jump = jumpy - walk
    seen = np.abs(jump) > 1e-5  # a tick is 1e-7 of the price

    # 1,440 minutes a day at 100 jumps a day: 6.7 % of the minutes have one or more.
    assert seen.mean() == pytest.approx(1 - math.exp(-100 / 1_440), rel=0.05)
    assert abs(np.corrcoef(jump[seen], walk[seen])[0, 1]) < 0.04  # standard error 0.009


@pytest.mark.parametrize("spread", [4.0, 20.0])
def test_trades_bounce_between_bid_and_ask(spread: float) -> None:
    # Roll: the first autocovariance of price changes is -(spread / 2)^2, and further ones are nothing.
    table = whole(trade_tables, rows=200_000, spread_ticks=spread, volatility_year=0.2, gap_mean_s=0.1)
    change = np.diff(column(table, "price")) / 0.01

    assert np.cov(change[1:], change[:-1])[0, 1] == pytest.approx(-((spread / 2) ** 2), rel=0.03)
    assert abs(np.corrcoef(change[2:], change[:-2])[0, 1]) < 0.01


def test_gaps_are_exponential_and_sizes_have_their_mean() -> None:
    table = whole(trade_tables, rows=200_000, gap_mean_s=2.0, size_mean=0.5)
    gap = np.diff(column(table, "time").astype(np.int64)) * 1e-9

    assert gap.mean() == pytest.approx(2.0, rel=0.01)
    assert gap.std() == pytest.approx(2.0, rel=0.02)
    assert np.quantile(gap, 0.5) == pytest.approx(2.0 * math.log(2.0), rel=0.02)
    assert column(table, "size").mean() == pytest.approx(0.5, rel=0.02)


def test_high_and_low_reach_as_far_as_a_bridge_does() -> None:
    # The range of a Brownian motion over a unit of time is sqrt(8 / pi) on average. High and low drawn independently
    # have their exact means, so the mean range is exact too.
    table = whole(bar_tables, rows=200_000, tick="0.00001", volatility_year=0.6)
    reach = np.log(column(table, "high") / column(table, "low")).mean()

    assert reach * math.sqrt(MINUTES_A_YEAR) / 0.6 == pytest.approx(math.sqrt(8 / math.pi), rel=0.01)


def test_the_price_is_folded_back_into_its_band() -> None:
    # At 10,000 % a year for 180 years, an unfolded path would leave the range of a float.
    table = whole(bar_tables, rows=65_536, bar_s=86_400.0, volatility_year=100.0, price=100.0)
    close = column(table, "close")

    assert 0.99 <= close.min() < 2.0
    assert 5_000.0 < close.max() <= 10_000.01


def test_zero_volatility_is_a_flat_line() -> None:
    table = whole(bar_tables, rows=100, volatility_year=0.0)

    assert {*column(table, "high").tolist(), *column(table, "low").tolist()} == {100.0}


@BOTH
def test_tables_are_drawn_as_they_are_asked_for(tables: Tables) -> None:
    # 24 billion rows would be terabytes.
    parts = tables(SyntheticConfig(rows=24 * 10**9, bar_s=0.1, gap_mean_s=0.1))
    before = pa.total_allocated_bytes()

    for _ in itertools.islice(parts, 40):
        assert pa.total_allocated_bytes() - before < 32_000_000


@pytest.mark.parametrize(("kind", "tables"), [("bars", bar_tables), ("trades", trade_tables)])
def test_written_parquet_reads_back_by_row_groups(tmp_path: Path, kind: Any, tables: Tables) -> None:
    path = tmp_path / "out.parquet"
    write(SyntheticConfig(rows=70_000), path, kind)

    file = pq.ParquetFile(path)
    try:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [65_536, 4_464]
        assert file.read().equals(whole(tables, rows=70_000))
    finally:
        file.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet"]


def test_a_failed_write_leaves_neither_a_part_nor_the_file_harmed(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"before")

    with pytest.raises(ValueError, match="kind must be bars or trades, was 'quotes'"):
        write(SyntheticConfig(rows=10), path, "quotes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="end before 2262"):
        write(late_trades(), path, "trades")

    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("out.parquet", b"before")]


def late_trades() -> SyntheticConfig:
    """A config that passes its check, and whose trades run out of nanoseconds all the same."""
    for seed in range(1_000):
        config = SyntheticConfig(rows=1, seed=seed, gap_mean_s=1e9, bar_s=60.0, start="2190-01-01T00:00:00+00:00")
        try:
            next(trade_tables(config))
        except ValueError:
            return config
    raise AssertionError("no seed reaches the end of time")


def test_csp_reads_a_bar_at_its_close() -> None:
    config = SyntheticConfig(rows=5)

    def graph() -> None:
        reader = ParquetReader(lambda start, end: bar_tables(config), time_column="time", read_from_memory_tables=True)
        fields = {"symbol": "symbol", "open_time": "open_time", "close": "close"}
        csp.add_graph_output(0, reader.subscribe_all(Bar, field_map=fields))

    start = datetime(2024, 1, 1)
    out = csp.run(graph, starttime=start, endtime=timedelta(days=1))[0]

    assert [when for when, _ in out] == [start + timedelta(minutes=i) for i in range(1, 6)]
    assert [bar.open_time for _, bar in out] == [start + timedelta(minutes=i) for i in range(5)]
    assert [bar.close for _, bar in out] == next(bar_tables(config))["close"].to_pylist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "brownian"}, "model must be one of random_walk, regime, jumps"),
        ({"seed": -1}, "seed >= 0"),
        ({"rows": 0}, "rows >= 1"),
        ({"symbol": ""}, "symbol"),
        ({"bar_s": 0.0}, "bar_s must lie in"),
        ({"gap_mean_s": math.nan}, "gap_mean_s must lie in"),
        ({"volatility_year": math.inf}, "volatility_year must lie in"),
        ({"volatility_year": -0.1}, "volatility_year must lie in"),
        ({"spread_ticks": -1.0}, "spread_ticks must lie in"),
        ({"regime_rows_mean": 0.5}, "regime_rows_mean must lie in"),
        ({"regime_ratio": 0.5}, "regime_ratio must lie in"),
        ({"jumps_a_day": math.nan}, "jumps_a_day must lie in"),
        ({"jump_std": 2.0}, "jump_std must lie in"),
        ({"tick": "0"}, "tick of SYNTH must be a positive decimal"),
        ({"lot": "abc"}, "lot of SYNTH must be a positive decimal"),
        ({"price": math.nan}, "price must lie in"),
        ({"price": 1.0}, "price must lie in"),
        ({"price": 1e12}, "price must lie in"),
        ({"size_mean": 1e-6}, "size_mean must lie in"),
        ({"volume_mean": math.inf}, "volume_mean must lie in"),
        ({"start": "2024-01-01"}, "ISO 8601 with an offset"),
        ({"start": "1969-12-31T23:59:59+00:00"}, "1970 or later"),
        ({"start": "soon"}, "ISO 8601"),
        ({"rows": 10**12}, "must end before 2262"),
    ],
)
def test_impossible_config_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**changes)


def test_tables_of_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="table_rows must be at least 1, was 0"):
        next(bar_tables(SyntheticConfig(), 0))


def test_the_command_writes_a_file_and_refuses_a_bad_flag(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    command = [sys.executable, "-m", "feeds.synthetic", "--out", str(path), "--kind", "trades"]

    subprocess.run([*command, "--rows", "50", "--seed", "3"], check=True)
    refused = subprocess.run([*command, "--rows", "0"], capture_output=True, text=True, check=False)

    assert pq.read_table(path).equals(whole(trade_tables, rows=50, seed=3))
    assert refused.returncode == 2
