"""What the charts draw: nothing lost that a reader would miss, and specifications that plotly accepts."""

import base64
from datetime import datetime
from typing import Any

import numpy as np
import plotly.graph_objects as go
from finished import HOUR_NS, START_NS, Row, market, record
from hypothesis import given
from hypothesis import strategies as st

from evaluation import charts
from evaluation.hold import buy_and_hold
from evaluation.run import read_fills, read_marks
from evaluation.trips import account

T = [START_NS + i * HOUR_NS for i in range(6)]


def unpack(packed: dict[str, str]) -> list[float]:
    values: list[float] = np.frombuffer(base64.b64decode(packed["bdata"]), dtype="<f8").tolist()
    return values


def trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in figure["data"] if item["name"] == name)
    return found


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(4, 60))
def test_thinning_keeps_ends_extremes_order_and_the_limit(values: list[float], points_max: int) -> None:
    times = np.arange(len(values))
    kept_times, kept = charts.thin(times, np.array(values), points_max)

    assert len(kept) <= max(points_max, 1)
    assert (np.diff(kept_times) > 0).all()
    assert (kept[0], kept[-1]) == (values[0], values[-1])
    assert (kept.min(), kept.max()) == (min(values), max(values))
    assert kept.tolist() == [values[i] for i in kept_times]


def test_one_spike_among_a_million_points_survives() -> None:
    values = np.zeros(1_000_000)
    values[654_321] = 1.0

    times, kept = charts.thin(np.arange(1_000_000), values)

    assert times[kept == 1.0].tolist() == [654_321]
    assert len(kept) <= 4_000


@given(st.integers(0, 10_000), st.integers(2, 500))
def test_thinned_rows_are_within_the_limit_and_keep_the_ends(count: int, rows_max: int) -> None:
    rows = charts.thin_rows(count, rows_max)

    assert len(rows) == min(count, rows_max)
    assert (np.diff(rows) > 0).all()
    if count:
        assert (rows[0], rows[-1]) == (0, count - 1)


def test_equity_chart_shows_both_accounts_and_their_drawdowns() -> None:
    equity = [100.0, 120.0, 90.0, 95.0, 130.0, 120.0]
    run = record(T, equity, markets=(market(T, [10.0, 11.0, 12.0, 6.0, 9.0, 10.0]),))

    figure = charts.equity_figure(run, read_marks(run), buy_and_hold(run))

    go.Figure(figure)  # raises on a property that plotly does not know
    assert unpack(trace(figure, "Strategy")["y"]) == equity
    assert unpack(trace(figure, "Strategy")["x"]) == [time / 1e6 for time in T]
    drawdown = unpack(trace(figure, "Strategy, drawdown")["y"])
    np.testing.assert_allclose(drawdown, [0.0, 0.0, -0.25, 95 / 120 - 1, 0.0, 120 / 130 - 1])
    assert min(unpack(trace(figure, "Buy and hold, drawdown")["y"])) == -0.5


def test_equity_chart_shades_and_names_what_is_in_sample() -> None:
    part = (datetime(2024, 1, 1, 1), datetime(2024, 1, 1, 3))
    run = record(T, [100.0, 120.0, 90.0, 95.0, 130.0, 120.0], in_sample=(part,))

    figure = charts.equity_figure(run, read_marks(run), buy_and_hold(run))

    go.Figure(figure)
    (shade,) = [shape for shape in figure["layout"]["shapes"] if shape["type"] == "rect"]
    assert (shade["x0"], shade["x1"]) == ("2024-01-01 01:00:00", "2024-01-01 03:00:00")
    assert (shade["y0"], shade["y1"], shade["yref"]) == (0, 1, "paper")
    assert "in sample" in [item["text"] for item in figure["layout"]["annotations"]]


def test_a_strategy_that_buy_and_hold_would_flatten_gets_a_panel_of_its_own_and_a_log_axis() -> None:
    equity = [100.0, 102.0, 101.0, 104.0, 103.0, 105.0]
    run = record(T, equity, markets=(market(T, [10.0, 20.0, 40.0, 60.0, 90.0, 100.0]),))

    figure = charts.equity_figure(run, read_marks(run), buy_and_hold(run))

    go.Figure(figure)
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert [item["text"] for item in figure["layout"]["annotations"]][1] == "Strategy alone, USD"
    alone = [item for item in figure["data"] if item.get("yaxis") == "y2"]
    assert [unpack(item["y"]) for item in alone] == [equity]
    assert trace(figure, "Strategy, drawdown")["yaxis"] == "y3"


def test_accounts_that_move_alike_share_one_linear_panel() -> None:
    run = record(T, [100.0, 110.0, 120.0, 60.0, 90.0, 100.0], markets=(market(T, [10.0, 11.0, 12.0, 6.0, 9.0, 10.0]),))

    lines = charts.equity_lines(read_marks(run), buy_and_hold(run))

    assert (lines.log, lines.alone) == (False, False)


def test_a_debt_has_no_log_axis() -> None:
    run = record(T, [100.0, 10.0, -5.0, 400.0, 10.0, 10.0], markets=(market(T, [10.0] * 6),))

    assert charts.equity_figure(run, read_marks(run), buy_and_hold(run))["layout"]["yaxis"]["type"] == "linear"


def test_drawdown_is_computed_before_thinning() -> None:
    # A dip within a rise: of the 25 marks around it thinning keeps only 100 and 150, and would see no fall.
    count = 50_000
    equity = np.where(np.arange(count) < 25_000, 100.0, 150.0)
    equity[25_000:25_003] = [140.0, 110.0, 145.0]
    times = [START_NS + i for i in range(count)]
    run = record(times, equity.tolist())

    figure = charts.equity_figure(run, read_marks(run), buy_and_hold(run))

    drawdown = trace(figure, "Strategy, drawdown")
    assert min(unpack(drawdown["y"])) == 110.0 / 140.0 - 1.0
    assert len(unpack(drawdown["x"])) <= charts.POINTS_MAX


def test_price_chart_tells_entries_from_exits_and_buys_from_sells() -> None:
    rows: list[Row] = [
        (T[0], "X", "BUY", 1.0, 10.0, 0.1),
        (T[1], "X", "SELL", 1.0, 11.0, 0.1),
        (T[2], "X", "SELL", 2.0, 12.0, 0.1),
        (T[3], "X", "BUY", 3.0, 13.0, 0.1),  # through zero: an entry
    ]
    run = record(T, [100.0] * 6, *rows, markets=(market(T, [10.0] * 6),))
    fills = read_fills(run)
    entries = account(fills, run.markets).entries

    figure = charts.price_figure(run.markets[0], fills, np.arange(4), entries, "USD")

    go.Figure(figure)
    assert unpack(trace(figure, "Buy, entry")["y"]) == [10.0, 13.0]
    assert unpack(trace(figure, "Sell, exit")["y"]) == [11.0]
    assert unpack(trace(figure, "Sell, entry")["y"]) == [12.0]
    assert trace(figure, "Sell, exit")["marker"]["color"] == charts.LIGHT["card"]
    assert trace(figure, "Buy, entry")["text"][0] == "1 at 10, fee 0.10 USD"


def test_each_price_chart_shows_the_fills_of_its_own_market_thinned_with_a_note() -> None:
    rows: list[Row] = [(START_NS + i, "AB"[i % 7 == 0], "BUY", 1.0, 10.0, 0.0) for i in range(5_000)]
    markets = tuple(market(T, [10.0] * 6, symbol=name) for name in "AB")
    run = record(T, [100.0] * 6, *rows, markets=markets)
    fills = read_fills(run)
    entries = account(fills, run.markets).entries

    own = [np.flatnonzero(fills.places == place) for place in range(2)]
    drawn = [
        unpack(trace(charts.price_figure(m, fills, rows, entries, "USD"), "Buy, entry")["x"])
        for m, rows in zip(markets, own, strict=True)
    ]

    assert [len(times) for times in drawn] == [2_000, 715]
    assert charts.fills_note(len(own[0])) == "Showing 2,000 of 4,285 fills, evenly chosen."
    assert charts.fills_note(len(own[1])) == ""


def test_exposure_chart_adds_gross_only_where_it_differs_and_stops_at_bankruptcy() -> None:
    run = record(T, [100.0, 100.0, 50.0, 0.0, -10.0, 20.0], position=[0.0, 50.0, -100.0, 10.0, 10.0, 10.0])

    figure = charts.exposure_figure(read_marks(run))

    go.Figure(figure)
    assert [item["name"] for item in figure["data"]] == ["Net"]
    assert unpack(figure["data"][0]["y"]) == [0.0, 0.5, -2.0, 0.5]
    marks = read_marks(run)
    hedged = type(marks)(marks.times, marks.equity, marks.position_value, np.full(6, 200.0))
    assert [item["name"] for item in charts.exposure_figure(hedged)["data"]] == ["Net", "Gross"]


def test_an_account_that_is_never_solvent_has_an_empty_exposure_chart() -> None:
    figure = charts.exposure_figure(read_marks(record(T, [-1.0] * 6)))

    assert unpack(figure["data"][0]["y"]) == []


def test_colours_are_unique_so_that_dark_ones_can_replace_them() -> None:
    light = [pair[0] for pair in charts.COLOURS.values()]

    assert len(set(light)) == len(light)
