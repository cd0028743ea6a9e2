"""The judgement of a whole run: activity by hand, what cannot be said, and what is refused."""

import json
import math
from dataclasses import fields
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from finished import DAY_NS, HOUR_NS, START_NS, Row, compounded, daily_times, equity_table, fills_table, market, record
from hypothesis import given
from hypothesis import strategies as st

from evaluation.activity import Activity, wilson_interval
from evaluation.document import plain
from evaluation.figures import Figure, absent, measured
from evaluation.run import DataDescription, moment, read_marks
from evaluation.trading import DEFINITIONS, evaluate

T = [START_NS + i * HOUR_NS for i in range(5)]


def figures_of(part: Any) -> dict[str, Figure]:
    pairs = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: value for name, value in pairs.items() if isinstance(value, Figure)}


def test_activity_of_two_trips_by_hand() -> None:
    # Long 1 from 100 to 110, then short 2 from 110 to 112; a fee of 1 each. Four hours, equity 100 + what is earned.
    rows: list[Row] = [
        (T[0], "X", "BUY", 1.0, 100.0, 1.0),
        (T[1], "X", "SELL", 1.0, 110.0, 1.0),
        (T[3], "X", "SELL", 2.0, 110.0, 1.0),
        (T[4], "X", "BUY", 2.0, 112.0, 1.0),
    ]
    run = record(T, [99.0, 108.0, 108.0, 107.0, 102.0], *rows, position=[100.0, 0.0, 0.0, -220.0, 0.0])

    report = evaluate(run)
    activity = report.activity

    assert (activity.fills.value, activity.fees.value, activity.round_trips.value) == (4.0, 4.0, 2.0)
    mean_equity = (99.0 + 108.0 + 108.0 + 107.0) / 4  # the last mark holds for no time
    assert activity.turnover.value == pytest.approx((100.0 + 110.0 + 220.0 + 224.0) / mean_equity)
    assert activity.win_rate.value == 0.5
    assert activity.profit_factor.value == pytest.approx(8.0 / 6.0)
    assert activity.mean_trip.value == pytest.approx(1.0)
    assert activity.holding_hours.value == 1.0
    assert activity.time_in_market.value == 0.5
    assert activity.gross_exposure.value == pytest.approx((100.0 / 99.0 + 220.0 / 107.0) / 4)
    assert activity.net_exposure.value == pytest.approx((100.0 / 99.0 - 220.0 / 107.0) / 4)
    assert activity.long_exposure.value == pytest.approx(100.0 / 99.0 / 4)
    assert activity.short_exposure.value == pytest.approx(220.0 / 107.0 / 4)
    assert activity.peak_exposure.value == pytest.approx(220.0 / 107.0)
    assert activity.turnover_per_year.reason == "needs 30 trading days"
    assert report.strategy.total_return.value == pytest.approx(0.02)
    assert (report.start, report.end) == (datetime(2024, 1, 1), datetime(2024, 1, 1, 4))


def test_turnover_a_year_is_turnover_over_calendar_years() -> None:
    times = [START_NS, START_NS + round(730.5 * DAY_NS)]
    run = record(times, [100.0, 100.0], (times[0], "X", "BUY", 3.0, 100.0, 0.0))

    activity = evaluate(run).activity

    assert activity.turnover.value == pytest.approx(3.0)
    assert activity.turnover_per_year.value == pytest.approx(1.5)


def test_the_multiplier_counts_in_turnover() -> None:
    only = market(T, [100.0] * 5, multiplier=50.0)
    run = record(T, [100.0] * 5, (T[1], "X", "BUY", 1.0, 2.0, 0.0), markets=(only,))

    assert evaluate(run).activity.turnover.value == pytest.approx(1.0)


def test_buy_and_hold_is_judged_like_the_strategy() -> None:
    # A strategy that is always fully invested without costs is buy and hold.
    times = daily_times(60)
    closes = compounded([0.02, -0.01, 0.005] * 20)
    only = market(times, closes, first_price=100.0)

    report = evaluate(record(times, closes, markets=(only,), initial_cash=100.0))

    ours, theirs = figures_of(report.strategy), figures_of(report.buy_and_hold)
    for name, figure in ours.items():
        assert theirs[name].value == pytest.approx(figure.value, rel=1e-6), name
    assert report.buy_and_hold_fees.value == 0.0


def test_cash_that_buys_no_lot_has_no_buy_and_hold() -> None:
    report = evaluate(record(T, [100.0] * 5, markets=(market(T, [1e6] * 5, lot=1.0),)))

    for figure in (*figures_of(report.buy_and_hold).values(), report.buy_and_hold_fees):
        assert figure.reason == "the initial cash does not buy one lot"


def test_months_multiply_up_to_the_total() -> None:
    times = daily_times(91)  # January to March 2024 has 91 days; the last ends at midnight of 1 April
    report = evaluate(record(times, compounded([0.01] * 91)))

    assert [month for month, _ in report.months] == ["2024-01", "2024-02", "2024-03"]
    assert [value for _, value in report.months] == pytest.approx([1.01**31 - 1, 1.01**29 - 1, 1.01**31 - 1])


def test_quiet_ends_of_the_window_belong_to_the_averages() -> None:
    # Marks on days 10 to 12 only, prices on days 1 to 40.
    days = daily_times(40)
    run = record(days[9:12], [100.0, 110.0, 105.0], position=[0.0, 50.0, 0.0], markets=(market(days, [1.0] * 40),))

    report = evaluate(run)

    assert report.strategy.returns == 40
    assert (report.start, report.end) == (moment(days[0]), moment(days[-1]))
    assert report.activity.time_in_market.value == pytest.approx(1.0 / 39.0)


def test_no_fill_is_no_trade_and_no_zero() -> None:
    activity = evaluate(record(T, [100.0] * 5)).activity

    assert (activity.fills.value, activity.fees.value, activity.turnover.value) == (0.0, 0.0, 0.0)
    for figure in (activity.win_rate, activity.profit_factor, activity.mean_trip, activity.holding_hours):
        assert (figure.value, figure.reason) == (None, "no closed round trip")


def test_winning_only_has_no_profit_factor() -> None:
    rows: list[Row] = [(T[0], "X", "BUY", 1.0, 10.0, 0.0), (T[1], "X", "SELL", 1.0, 11.0, 0.0)]
    activity = evaluate(record(T, [100.0] * 5, *rows)).activity

    assert activity.win_rate.value == 1.0
    assert activity.profit_factor.reason == "no round trip lost money"


def test_a_round_trip_that_breaks_even_neither_wins_nor_loses() -> None:
    rows: list[Row] = []
    for i, price in enumerate((10.5, 10.0, 9.0)):
        rows += [(T[i], "X", "BUY", 1.0, 10.0, 0.0), (T[i], "X", "SELL", 1.0, price, 0.0)]
    activity = evaluate(record(T, [100.0] * 5, *rows)).activity

    assert activity.win_rate.value == pytest.approx(1 / 3)
    assert activity.profit_factor.value == 0.5


def test_one_mark_says_what_was_earned_and_nothing_else() -> None:
    report = evaluate(record([START_NS], [101.0]))

    assert report.strategy.total_return.value == pytest.approx(0.01)
    for figure in (report.strategy.max_drawdown, report.activity.turnover, report.activity.time_in_market):
        assert figure.value is None
    json.dumps(plain(report), allow_nan=False)


def test_constant_equity_has_no_ratio() -> None:
    times = daily_times(60)
    report = evaluate(record(times, [100.0] * 60))

    assert report.strategy.annual_return.value == 0.0
    assert report.strategy.max_drawdown.value == 0.0
    assert report.strategy.sharpe.reason == "daily returns do not vary"
    json.dumps(plain(report), allow_nan=False)


def test_a_bankrupt_account_has_no_exposure_no_months_and_no_ratio() -> None:
    times = daily_times(60)
    equity = list(np.linspace(100.0, -50.0, 60))
    report = evaluate(record(times, equity, position=[10.0] * 60))

    assert report.strategy.total_return.value == pytest.approx(-1.5)
    assert report.activity.gross_exposure.reason == "equity fell to zero or below"
    assert report.activity.time_in_market.value == 1.0
    assert report.months == ()
    json.dumps(plain(report), allow_nan=False)


def test_several_symbols_need_recorded_gross_exposure() -> None:
    markets = (market(T, [1.0] * 5, symbol="A"), market(T, [1.0] * 5, symbol="B"))
    table = equity_table(T, [100.0] * 5)  # long one, short the other: nothing net
    gross = table.append_column("gross_exposure", pa.array([0.0, 80.0, 80.0, 0.0, 0.0]))

    without = evaluate(record(T, [100.0] * 5, markets=markets)).activity
    recorded = evaluate(record(T, [100.0] * 5, markets=markets, equity=gross)).activity

    assert "gross_exposure" in (without.time_in_market.reason or "")
    assert recorded.time_in_market.value == 0.5
    assert recorded.gross_exposure.value == pytest.approx(0.4)
    assert (recorded.long_exposure.value, recorded.short_exposure.value) == (pytest.approx(0.2), pytest.approx(0.2))
    assert without.net_exposure.value == 0.0


def test_every_figure_is_defined_and_every_definition_is_a_figure() -> None:
    report = evaluate(record(T, [100.0] * 5))

    assert set(figures_of(report.strategy)) | set(figures_of(report.activity)) == set(DEFINITIONS)
    assert all(text.endswith(".") for text in DEFINITIONS.values())


def test_the_json_form_is_strict_stable_and_names_its_sources() -> None:
    run = record(daily_times(40), compounded([0.01, -0.005] * 20), partial=True, facts=(("Run", "r-1"),))

    first, second = (json.dumps(plain(evaluate(run)), allow_nan=False) for _ in range(2))
    document = json.loads(first)

    assert first == second
    assert document["schema"] == 4
    assert document["partial"] is True
    assert document["data"] == {
        "path": "data/x.parquet",
        "sha256": "ab" * 32,
        "rows": 3,
        "start": "2024-01-01T00:00:00Z",
        "end": "2024-03-01T00:00:00Z",
    }
    assert document["facts"] == {"Run": "r-1"}
    assert document["activity"]["win_rate"] == {
        "value": None,
        "standard_error": None,
        "interval_95": None,
        "reason": "no closed round trip",
    }
    sharpe = document["strategy"]["sharpe"]
    assert sharpe["interval_95"][0] < sharpe["value"] < sharpe["interval_95"][1]
    assert document["method"]["bootstrap"]["seed"] == 1994


def test_wilson_interval_of_a_known_case() -> None:
    # Wilson's interval for 8 of 10, as in statistical tables.
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 5)[0] == 0.0
    assert wilson_interval(5, 5)[1] == 1.0


@given(wins=st.integers(0, 1_000), losses=st.integers(0, 1_000))
def test_a_share_lies_in_its_interval_and_that_in_zero_to_one(wins: int, losses: int) -> None:
    count = max(1, wins + losses)
    low, high = wilson_interval(wins, count)

    assert 0.0 <= low <= wins / count + 1e-12
    assert wins / count - 1e-12 <= high <= 1.0


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 99), st.floats(0.0, 5.0)), min_size=2, max_size=30))
def test_win_rate_is_a_share_and_fees_add_up(rows: list[tuple[int, int, float]]) -> None:
    fills: list[Row] = [
        (START_NS + i, "X", "SELL" if i % 2 else "BUY", float(size), float(price), fee)
        for i, (size, price, fee) in enumerate(rows)
    ]
    activity: Activity = evaluate(record(T, [100.0] * 5, *fills)).activity

    assert activity.fees.value == pytest.approx(sum(fee for *_, fee in rows))
    assert activity.win_rate.value is None or 0.0 <= activity.win_rate.value <= 1.0
    assert activity.profit_factor.value is None or activity.profit_factor.value >= 0.0


def test_marks_may_be_nanosecond_timestamps_in_utc_or_microseconds() -> None:
    expected = read_marks(record(T, [100.0] * 5)).times.tolist()
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("us"), pa.timestamp("ns")):
        unit = 1_000 if kind.unit == "us" else 1
        table = equity_table(T, [100.0] * 5)
        table = table.set_column(0, "time", pa.array([t // unit for t in T], pa.int64()).cast(kind))
        assert read_marks(record(T, [100.0] * 5, equity=table)).times.tolist() == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_equity_that_is_not_a_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"column 'equity' must be finite, was (nan|-?inf) in row 1"):
        evaluate(record(T[:3], [100.0, bad, 100.0], position=[0.0] * 3))


def test_nulls_disorder_and_missing_columns_are_refused() -> None:
    table = equity_table(T, [100.0] * 5)
    with pytest.raises(ValueError, match="must not hold nulls"):
        evaluate(record(T, [1.0] * 5, equity=table.set_column(1, "equity", pa.array([1.0, None, 1.0, 1.0, 1.0]))))
    with pytest.raises(ValueError, match="must not decrease, does in row 1"):
        evaluate(record(T, [1.0] * 5, equity=table.take([1, 0, 2])))
    with pytest.raises(ValueError, match="wanted a column 'position_value'"):
        evaluate(record(T, [1.0] * 5, equity=table.drop_columns(["position_value"])))
    with pytest.raises(ValueError, match="at least one mark"):
        evaluate(record(T, [1.0] * 5, equity=table.slice(0, 0)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((T[0], "Y", "BUY", 1.0, 1.0, 0.0), r"were also of \['Y'\]"),
        ((T[0], "X", "Buy", 1.0, 1.0, 0.0), "must be BUY or SELL"),
        ((T[0], "X", "BUY", 0.0, 1.0, 0.0), "quantity of a fill must be positive"),
        ((T[0], "X", "BUY", 1.0, -1.0, 0.0), "price of a fill must be positive"),
        ((T[0], "X", "BUY", 1.0, 1.0, math.nan), "column 'fee' must be finite"),
    ],
)
def test_impossible_fills_are_refused(row: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(record(T, [100.0] * 5, row))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_cash": 0.0}, "initial_cash must be positive"),
        ({"initial_cash": math.nan}, "initial_cash must be positive"),
        ({"days_per_year": 260}, r"days_per_year must be one of \(252, 365\), was 260"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"markets": ()}, "at least one symbol"),
        ({"markets": (market(T, [1.0] * 5), market(T, [1.0] * 5))}, "each symbol once"),
    ],
)
def test_impossible_records_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(T, [100.0] * 5, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tick": 0.0}, "tick of X must be positive"),
        ({"lot": 0.0}, "lot of X must be positive"),
        ({"multiplier": math.inf}, "multiplier of X must be positive"),
        ({"first_price": math.nan}, "first_price of X must be positive"),
        ({"taker_bps": 2_000.0}, "taker_bps of X must lie in"),
        ({"slippage": -1.0}, "slippage of X must not be negative"),
        ({"rate": 0.0}, "rate of X must be positive"),
        ({"splits": ((T[0], 0.0),)}, "splits of X must be positive and finite"),
        ({"splits": ((T[1], 2.0), (T[0], 2.0))}, "splits of X must not decrease, does in row 1"),
        ({"dividends": ((T[0], math.nan),)}, "dividends of X must be finite"),
    ],
)
def test_impossible_markets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        market(T, [1.0] * 5, **changes)


def test_impossible_price_series_are_refused() -> None:
    with pytest.raises(ValueError, match="closes of X must be positive and finite"):
        market(T, [1.0, math.nan, 1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="of one length"):
        market(T, [1.0, 1.0])
    with pytest.raises(ValueError, match="times of X must not decrease"):
        market(T[::-1], [1.0] * 5)


def test_data_descriptions_that_end_before_they_start_are_refused() -> None:
    with pytest.raises(ValueError, match="must end at or after"):
        DataDescription(path="", sha256="", rows=1, start=datetime(2024, 1, 2), end=datetime(2024, 1, 1))


def test_a_figure_is_a_number_or_a_reason() -> None:
    with pytest.raises(ValueError, match="a value or a reason"):
        Figure(value=None)
    with pytest.raises(ValueError, match="a value or a reason"):
        Figure(value=1.0, reason="and yet")
    with pytest.raises(ValueError, match="must be finite"):
        Figure(value=math.nan)
    assert measured(math.inf) == absent("the number is too large to write down")
    assert measured(1.0, interval=(0.0, math.inf), standard_error=math.nan) == Figure(value=1.0)


def test_fills_of_several_markets_keep_their_own_books() -> None:
    markets = (market(T, [1.0] * 5, symbol="A"), market(T, [1.0] * 5, symbol="B"))
    table = fills_table(
        (T[0], "A", "BUY", 1.0, 10.0, 0.0), (T[1], "B", "SELL", 1.0, 10.0, 0.0), (T[2], "A", "SELL", 1.0, 12.0, 0.0)
    )
    report = evaluate(record(T, [100.0] * 5, markets=markets, fills=table))

    assert report.activity.round_trips.value == 1.0
    assert report.open_symbols == ("B",)


def test_a_mark_that_settles_just_after_midnight_ends_the_day_before() -> None:
    # As the graph marks: a microsecond after the instant, which no rounding of time may make more.
    times = [time + 1_000 for time in daily_times(40)]
    equity = compounded([0.01, -0.005] * 20)

    settled, exact = (evaluate(record(when, equity)).strategy for when in (times, daily_times(40)))

    assert settled.returns == exact.returns == 40
    assert settled.sharpe == exact.sharpe
