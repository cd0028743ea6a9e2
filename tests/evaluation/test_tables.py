"""Who earned what: a case by hand, and tables that add up to the account."""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from finished import HOUR_NS, START_NS, Row, equity_table, fills_table, market, record

from evaluation import tables
from evaluation.document import plain
from evaluation.run import RunRecord, read_fills
from evaluation.tables import profit_curve
from evaluation.trading import evaluate

Build = Callable[..., RunRecord]
T = [START_NS + i * HOUR_NS for i in range(5)]


def two_markets(**changes: object) -> RunRecord:
    """A earns 10 in a trip and 5 while open, B, at 2 dollars a unit of its currency, loses 2 * 4; fees of 1 each."""
    rows: list[Row] = [
        (T[0], "A", "BUY", 1.0, 100.0, 1.0),
        (T[1], "A", "SELL", 1.0, 110.0, 1.0),
        (T[1], "B", "SELL", 2.0, 10.0, 0.5),
        (T[2], "A", "BUY", 1.0, 115.0, 1.0),
        (T[3], "B", "BUY", 2.0, 12.0, 0.5),
    ]
    markets = (
        market(T, [100.0, 110.0, 90.0, 118.0, 120.0], symbol="A"),
        market(T, [10.0, 10.0, 15.0, 12.0, 12.0], symbol="B", rate=2.0),
        market(T, [1.0] * 5, symbol="C"),
    )
    fields: dict[str, object] = {"markets": markets, "initial_cash": 1000.0, "fills": fills_table(*rows)}
    return record(T, [1000.0, 1000.0, 1000.0, 1000.0, 1002.0], **(fields | changes))


def test_each_symbol_that_traded_has_its_own_profit_trips_and_fall() -> None:
    report = evaluate(two_markets())
    first, second = report.by_symbol

    assert (first.name, first.fills, first.volume, first.notional) == ("A", 3, 3.0, 325.0)
    assert (first.realised, first.open, first.fees, first.profit) == (10.0, 5.0, 3.0, 12.0)
    assert (first.trips.count, first.trips.mean_trip.value) == (1, 8.0)
    assert first.share.value == pytest.approx(12.0 / 2.0)
    assert first.turnover.value == pytest.approx(325.0 / 1000.0)
    # After its trip A was 8 up; then 115 was paid, and the price went to 90: 8 - 1 - 25.
    assert first.deepest_fall.value == pytest.approx(26.0)
    assert (second.realised, second.open, second.fees, second.profit) == (-8.0, 0.0, 2.0, -10.0)
    assert second.trips.win_rate.value == 0.0
    assert second.deepest_fall.value == pytest.approx(2.0 * 10.5)  # at 15 it was 2 * (2 * 5 + 0.5) down
    assert report.elsewhere == pytest.approx(0.0)
    assert report.by_strategy is None


def flows_table(*rows: tuple[int, str, float]) -> pa.Table:
    times, symbols, amounts = zip(*rows, strict=True)
    kinds = ["funding"] * len(rows)
    return pa.table({"time": list(times), "symbol": list(symbols), "amount": list(amounts), "kind": kinds})


def test_flows_belong_to_the_profit_of_their_symbol_and_to_no_strategy() -> None:
    flows = flows_table((T[1], "A", -3.0), (T[3], "B", 2.0))
    fills = two_markets().fills
    named = fills.append_column("strategy", pa.array(["s"] * 5))
    report = evaluate(two_markets(flows=flows, strategy_fills=named, equity=equity_table(T, [1000.0] * 4 + [1003.0])))
    first, second = report.by_symbol

    assert (first.carry, first.profit) == (-3.0, 9.0)
    assert (second.carry, second.profit) == (4.0, -6.0)  # two units of its currency
    assert first.deepest_fall.value == pytest.approx(26.0)  # from 8 - 3, with the 3 gone before and after
    assert report.elsewhere == pytest.approx(0.0)
    assert [part.carry for part in report.by_strategy or ()] == [None]


def test_flows_of_unknown_symbols_are_refused() -> None:
    with pytest.raises(ValueError, match=r"flows must be of the markets of the run, were also of \['Z'\]"):
        evaluate(two_markets(flows=flows_table((T[0], "Z", 1.0))))


def test_a_split_leaves_the_profit_and_its_curve_as_they_would_be_without() -> None:
    rows: list[Row] = [(T[0], "X", "BUY", 1.0, 100.0, 0.0), (T[3], "X", "SELL", 2.0, 60.0, 0.0)]
    split = market(T, [100.0, 110.0, 45.0, 60.0, 60.0], splits=((T[1], 4.0),))
    run = record(T, [100.0] * 5, *rows, markets=(split,), initial_cash=100.0)
    report = evaluate(run)

    curve = profit_curve(run, read_fills(run), np.arange(2))

    # 1 at 100 becomes 4 at 25; 2 are sold at 60.
    assert curve.tolist() == [0.0, 10.0, 80.0, 140.0, 140.0]
    assert (report.by_symbol[0].realised, report.by_symbol[0].open) == (70.0, 70.0)
    assert report.open_symbols == ("X",)


def test_a_share_of_nothing_is_absent() -> None:
    flat = two_markets(equity=equity_table(T, [1000.0] * 5))
    report = evaluate(flat)

    assert report.by_symbol[0].share.reason == "the account earned nothing"
    assert report.elsewhere == pytest.approx(-2.0)


def test_strategies_are_told_apart_by_name_with_the_unallocated_last() -> None:
    names = ["", "z", "a", "z", "a"]
    fills = two_markets().fills
    report = evaluate(two_markets(strategy_fills=fills.append_column("strategy", pa.array(names))))
    assert report.by_strategy is not None

    assert [(part.name, part.fills, part.volume) for part in report.by_strategy] == [
        ("a", 2, None),
        ("z", 2, None),
        ("", 1, None),
    ]
    # z sold at 110 and bought at 115; a lost on B; the unallocated unit went from 100 to 120.
    assert [part.realised for part in report.by_strategy] == [-8.0, -5.0, 0.0]
    assert [part.profit for part in report.by_strategy] == [-10.0, -7.0, 19.0]
    assert [trip.strategy for trip in report.trips] == ["z", "a"]


@pytest.mark.parametrize("fills", [2, 402, 2_000])
def test_tables_add_up_to_the_account_with_foreign_money_and_fees_in_base_units(busy: Build, fills: int) -> None:
    report = evaluate(busy(fills))
    assert report.by_strategy is not None

    for parts in (report.by_symbol, report.by_strategy):
        assert sum(part.profit for part in parts) == pytest.approx(report.profit, abs=1e-6)
        assert sum(part.fees for part in parts) == pytest.approx(report.activity.fees.value, abs=1e-6)
        assert sum(part.fills for part in parts) == report.activity.fills.value
        assert sum(part.turnover.value or 0.0 for part in parts) == pytest.approx(report.activity.turnover.value)
        assert sum(part.realised + part.open - part.fees for part in parts) == pytest.approx(report.profit, abs=1e-6)
    assert report.costs_paid.total.fees.amount.value == pytest.approx(report.activity.fees.value)
    assert sum(part.trips.count for part in report.by_symbol) == report.activity.round_trips.value
    assert sum(part.trips.count for part in report.by_strategy) == len(report.trips)
    assert abs(report.elsewhere) < 1e-6
    json.dumps(plain(report), allow_nan=False)


def test_the_profit_curve_ends_at_the_profit_and_is_the_equity_of_an_account_that_only_trades(busy: Build) -> None:
    run = busy()
    fills = read_fills(run)

    curve = profit_curve(run, fills, np.arange(len(fills)))

    np.testing.assert_allclose(curve + run.initial_cash, run.equity["equity"].to_numpy(), atol=1e-6)


def test_a_long_curve_is_thinned_and_keeps_its_ends(busy: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    run = busy()
    fills = read_fills(run)
    whole = profit_curve(run, fills, np.arange(len(fills)))
    monkeypatch.setattr(tables, "GRID_MAX", 100)

    thinned = profit_curve(run, fills, np.arange(len(fills)))

    assert len(thinned) == 100
    assert (thinned[0], thinned[-1]) == (whole[0], whole[-1])


def test_nothing_traded_is_an_empty_table() -> None:
    report = evaluate(record(T, [100.0] * 5))

    assert (report.by_symbol, report.trips, report.elsewhere) == ((), (), 0.0)


def test_strategies_without_a_fill_are_an_empty_table() -> None:
    none = fills_table().append_column("strategy", pa.array([], pa.string()))

    assert evaluate(two_markets(strategy_fills=none)).by_strategy == ()


def test_a_strategy_fill_without_an_owner_is_refused() -> None:
    fills = two_markets().fills
    owners = pa.array([None, "a", "a", "a", "a"])

    with pytest.raises(ValueError, match="column 'strategy' must not hold nulls"):
        evaluate(two_markets(strategy_fills=fills.append_column("strategy", owners)))
