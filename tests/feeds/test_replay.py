"""Files as edges: every row ticks once, when it was known, in the order of the file."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csp import ts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_files import FORMATS, NS_UTC, START, bars, times, trades, write

from feeds import files, replay
from feeds.errors import DataError
from feeds.events import Bar, Side, Trade
from feeds.files import Source, describe
from feeds.streams import together

T0 = datetime(2024, 1, 2, 14, 30)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def source(path: Path, **settings: Any) -> Source:
    return Source(path=str(path), **settings)


def run(
    edges: Callable[[], dict[str, Any]], start: datetime = T0, end: datetime = T0 + timedelta(days=400)
) -> dict[str, Any]:
    """{name: [(time, value), ...]} of the edges that are made inside the graph."""

    def graph() -> None:
        for name, edge in edges().items():
            csp.add_graph_output(name, edge)

    return csp.run(graph, starttime=start, endtime=end)


def replayed(here: Source, symbols: list[str] | None = None, **window: datetime) -> dict[str, Any]:
    """The trades or bars of a file, through csp."""
    described = describe(here)
    symbols = list(described.symbols) if symbols is None else symbols
    edges = replay.trades if described.kind == "trades" else replay.bars
    return run(lambda: edges(here, symbols, described.symbols), **window)


# --- what ticks ---


@pytest.mark.parametrize("form", FORMATS)
def test_a_bar_ticks_at_its_close(tmp_path: Path, form: str) -> None:
    out = replayed(source(write(bars(3), tmp_path, form), bar="1h"))

    assert list(out) == ["AAPL"]
    assert [when for when, _ in out["AAPL"]] == [T0 + (i + 1) * HOUR for i in range(3)]
    assert out["AAPL"][1][1] == Bar(
        symbol="AAPL",
        event_time=T0 + 2 * HOUR,
        open_time=T0 + HOUR,
        open=100.125,
        high=101.125,
        low=99.125,
        close=100.625,
        volume=10.0,
    )


def test_a_bar_without_volume_has_a_volume_of_zero(tmp_path: Path) -> None:
    out = replayed(source(write(bars(2, volume=None), tmp_path), bar="1h"))
    assert [bar.volume for _, bar in out["AAPL"]] == [0.0, 0.0]


@pytest.mark.parametrize("form", FORMATS)
def test_a_trade_ticks_when_it_was(tmp_path: Path, form: str) -> None:
    out = replayed(source(write(trades(2), tmp_path, form), symbol="ES"))
    first = Trade(symbol="ES", event_time=T0, price=100.0, size=1.0)
    second = Trade(symbol="ES", event_time=T0 + SECOND, price=100.125, size=2.0)
    assert out == {"ES": [(T0, first), (T0 + SECOND, second)]}


@pytest.mark.parametrize("form", FORMATS)
def test_a_trade_has_a_side_where_the_file_tells_it(tmp_path: Path, form: str) -> None:
    told = source(write(trades(3, side=["sell", None, "B"]), tmp_path, form))
    untold = source(write(trades(1), tmp_path, form, name="untold"))
    out = run(lambda: replay.trades(told, ["T"], ("T",)) | replay.trades(untold, ["U"], ("U",)))
    sides = [getattr(trade, "side", None) for _, trade in out["T"] + out["U"]]
    assert sides == [Side.SELL, None, Side.BUY, None]


def test_trades_of_several_symbols_are_told_apart(tmp_path: Path) -> None:
    here = source(write(trades(6, symbol=["A", "B", "A", "C", "B", "A"]), tmp_path))
    out = replayed(here)
    assert {name: [trade.size for _, trade in points] for name, points in out.items()} == {
        "A": [1.0, 3.0, 6.0],
        "B": [2.0, 5.0],
        "C": [4.0],
    }
    assert all(trade.symbol == name for name, points in out.items() for _, trade in points)


@pytest.mark.parametrize("kind", [bars, trades])
def test_only_the_symbols_that_are_asked_for_tick(tmp_path: Path, kind: Any) -> None:
    here = source(write(kind(6, symbol=["A", "B", "A", "C", "B", "A"]), tmp_path), bar="1h")
    everything = replayed(here)
    assert replayed(here, ["C", "A"]) == {name: everything[name] for name in "CA"}
    assert replayed(here, ["B"]) == {"B": everything["B"]}
    assert replayed(here, []) in ({}, None)


def test_a_file_of_one_other_symbol_gives_nothing(tmp_path: Path) -> None:
    assert replayed(source(write(bars(2), tmp_path), bar="1h"), []) in ({}, None)


def test_trades_that_share_a_time_all_tick_in_order(tmp_path: Path) -> None:
    stamps = pa.array(START.astype(int) + np.array([0, 0, 0, 1, 1, 500, 1_000, 1_000])).view(NS_UTC)
    here = source(write(trades(8, time=stamps, symbol=list("AABABABB")), tmp_path))

    out = run(lambda: {"all": together(list(replay.trades(here, ["A", "B"], ("A", "B")).values()))})

    assert [trade.size for _, trade in out["all"]] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def test_engine_time_keeps_nanoseconds(tmp_path: Path) -> None:
    stamps = START.astype(int) + np.array([1, 2, 1_003])
    here = source(write(trades(3, time=pa.array(stamps).view(NS_UTC)), tmp_path))

    out = run(lambda: {"ns": csp.times_ns(replay.trades(here, ["AAPL"], ("AAPL",))["AAPL"])})

    assert [nanoseconds for _, nanoseconds in out["ns"]] == stamps.tolist()


@csp.node
def _pair(price: ts[float], size: ts[float]) -> ts[object]:
    if csp.ticked(price) and csp.ticked(size):
        return (price, size)


@pytest.mark.parametrize("form", FORMATS)
def test_price_and_size_of_a_trade_tick_together(tmp_path: Path, form: str) -> None:
    here = source(write(trades(3, time=["2024-01-02 14:31Z"] * 3), tmp_path, form))
    out = run(lambda: {"pairs": _pair(*replay.trade_columns(here))})
    assert out["pairs"] == [(T0 + 60 * SECOND, (100.0 + i / 8, 1.0 + i)) for i in range(3)]


@pytest.mark.parametrize("form", FORMATS)
def test_macro_points_tick_when_they_could_be_known_and_name_their_period(tmp_path: Path, form: str) -> None:
    points = pa.table(
        {"time": times(3, 60.0), "series": ["CPI", "GDP", "CPI"], "observed": times(3, 1.0), "value": [3.0, -1.5, 3.1]}
    )
    here = source(write(points, tmp_path, form))
    out = run(lambda: {"points": replay.macro_points(here)})
    assert [(when, p.series, p.event_time, p.value) for when, p in out["points"]] == [
        (T0, "CPI", T0, 3.0),
        (T0 + timedelta(minutes=1), "GDP", T0 + SECOND, -1.5),
        (T0 + timedelta(minutes=2), "CPI", T0 + 2 * SECOND, 3.1),
    ]


def test_daily_closes_of_an_exchange_are_known_at_its_midnight(tmp_path: Path) -> None:
    table = bars(3, time=["2024-03-08", "2024-03-09", "2024-03-10"])
    here = source(
        write(table, tmp_path),
        kind="macro",
        symbol="RISK",
        columns={"value": "close"},
        time_zone="America/New_York",
        bar="1d",
    )
    out = run(lambda: {"points": replay.macro_points(here)})
    assert [(when, p.series, p.value) for when, p in out["points"]] == [
        (datetime(2024, 3, 9, 5), "RISK", 100.5),
        (datetime(2024, 3, 10, 5), "RISK", 100.625),
        (datetime(2024, 3, 11, 4), "RISK", 100.75),  # the clocks changed
    ]


# --- the window ---


def test_only_rows_inside_the_window_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TABLE_ROWS", 4)  # both ends lie inside tables, with others before and behind
    here = source(write(trades(20), tmp_path))
    for first, last in ((6, 13), (4, 11), (0, 19), (7, 7), (-5, 2), (17, 40)):
        out = replayed(here, start=T0 + first * SECOND, end=T0 + last * SECOND)
        assert [when for when, _ in out["AAPL"]] == [T0 + i * SECOND for i in range(max(first, 0), min(last, 19) + 1)]


def test_a_window_beside_the_file_has_no_tick(tmp_path: Path) -> None:
    here = source(write(trades(3), tmp_path))
    assert replayed(here, start=T0 + HOUR, end=T0 + 2 * HOUR) == {"AAPL": []}
    assert replayed(here, start=T0 - 2 * HOUR, end=T0 - HOUR) == {"AAPL": []}


def test_a_run_from_the_first_to_the_last_moment_has_every_row(tmp_path: Path) -> None:
    stamps = pa.array(START.astype(int) + np.array([999, 1_500, 2_001])).view(NS_UTC)
    here = source(write(trades(3, time=stamps), tmp_path))
    described = describe(here)
    assert len(replayed(here, start=described.first, end=described.last)["AAPL"]) == 3


def test_rows_behind_the_window_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TABLE_ROWS", 4)
    path = write(trades(20, price=[1.0] * 19 + [-1.0]), tmp_path)
    out = run(lambda: replay.trades(source(path), ["X"], ("X",)), end=T0 + 5 * SECOND)
    assert len(out["X"]) == 6


def test_sources_merge_in_the_order_of_time(tmp_path: Path) -> None:
    slow = source(write(bars(3), tmp_path, name="SLOW"), bar="1h")
    fast = source(write(trades(40, time=times(40, 300.0)), tmp_path, "csv", name="FAST"))
    early = source(write(bars(2, time=["2024-01-01", "2024-01-02"]), tmp_path, name="EARLY"), bar="1d", time_zone="UTC")

    def edges() -> dict[str, Any]:
        everything = [
            replay.bars(slow, ["SLOW"], ("SLOW",))["SLOW"].event_time,
            replay.trades(fast, ["FAST"], ("FAST",))["FAST"].event_time,
            replay.bars(early, ["EARLY"], ("EARLY",))["EARLY"].event_time,
        ]
        return {"all": together(everything)}

    ticks = run(edges, start=T0 - timedelta(days=3))["all"]

    expected = [datetime(2024, 1, 2), datetime(2024, 1, 3)]
    expected += [T0 + (i + 1) * HOUR for i in range(3)] + [T0 + i * timedelta(minutes=5) for i in range(40)]
    assert [event_time for _, event_time in ticks] == sorted(expected)
    assert all(when == event_time for when, event_time in ticks)


@pytest.mark.parametrize("group", [1, 10, 1_000])
def test_a_window_of_a_long_file_has_its_rows_and_no_others(tmp_path: Path, group: int) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(trades(100, time=times(100, 86_400.0)), path, row_group_size=group)
    day = timedelta(days=1)
    out = replayed(source(path), start=T0 + 40 * day, end=T0 + 50 * day)
    assert [when for when, _ in out["x"]] == [T0 + i * day for i in range(40, 51)]
    assert replayed(source(path), start=T0 + 200 * day) == {"x": []}


def test_a_bad_row_has_its_number_also_behind_rows_that_were_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    price = [1.0] * 90 + [-1.0] * 10
    pq.write_table(trades(100, time=times(100, 86_400.0), price=price), path, row_group_size=10)
    with pytest.raises(DataError, match=r"x\.parquet, row 91: want a positive price, was -1\.0$"):
        run(lambda: replay.trades(source(path), ["X"], ("X",)), start=T0 + timedelta(days=80))


def test_times_before_1970_replay(tmp_path: Path) -> None:
    here = source(write(trades(1, time=["1962-01-02 15:00Z"]), tmp_path))
    ((when, trade),) = replayed(here, start=datetime(1960, 1, 1), end=datetime(1970, 1, 1))["AAPL"]
    assert when == trade.event_time == datetime(1962, 1, 2, 15)


# --- what stops a run ---


@pytest.mark.parametrize("bad", [3, 65_536 + 100])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_bad_row_stops_the_run_with_its_message(tmp_path: Path, form: str, bad: int) -> None:
    price = np.full(70_000, 5.0)
    price[bad] = -1.0
    path = write(trades(len(price), price=price), tmp_path, form)
    here = source(path)
    for edges in (
        lambda: replay.trades(here, ["AAPL"], ("AAPL",)),
        lambda: {"sum": csp.count(replay.trade_columns(here)[0])},
    ):
        with pytest.raises(DataError, match=rf"{path.name}, row {bad + 1}: want a positive price, was -1\.0$"):
            run(edges)


def test_a_file_that_is_gone_stops_the_run(tmp_path: Path) -> None:
    here = source(write(bars(2), tmp_path), bar="1h")
    described = describe(here)
    Path(here.path).unlink()
    with pytest.raises(DataError, match="does not exist"):
        run(lambda: replay.bars(here, ["AAPL"], described.symbols))


# --- pace ---


def test_pace_holds_the_engine_back_and_changes_nothing(tmp_path: Path) -> None:
    here = source(write(trades(11), tmp_path))

    def paced(speed: float) -> tuple[Any, float]:
        started = time.monotonic()
        out = run(lambda: {"paced": replay.pace(replay.trades(here, ["X"], ("X",))["X"], speed)})
        return out["paced"], time.monotonic() - started

    plain = run(lambda: replay.trades(here, ["X"], ("X",)))["X"]
    slow, slow_s = paced(25.0)
    fast, fast_s = paced(1e9)
    assert slow == fast == plain
    assert slow_s >= 10.0 / 25.0
    assert fast_s < slow_s


# --- properties ---


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.sampled_from([0, 1, 999, 1_000, 10**9]), min_size=1, max_size=30),
    data=st.data(),
    form=st.sampled_from(FORMATS),
)
def test_every_trade_ticks_once_in_order(tmp_path: Path, gaps: list[int], data: st.DataObject, form: str) -> None:
    rows = len(gaps)
    symbols = data.draw(st.lists(st.sampled_from("ABC"), min_size=rows, max_size=rows))
    stamps = START.astype(int) + np.cumsum(gaps)
    table = trades(rows, time=pa.array(stamps).view(NS_UTC), symbol=symbols)

    out = replayed(source(write(table, tmp_path, form)))

    assert list(out) == list(dict.fromkeys(symbols))
    for name, points in out.items():
        mine = [i for i in range(rows) if symbols[i] == name]
        assert [trade.size for _, trade in points] == [i + 1.0 for i in mine]
        assert [when for when, _ in points] == [files.moment(int(stamps[i])) for i in mine]
