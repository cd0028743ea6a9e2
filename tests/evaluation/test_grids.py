"""The tables in words: what adds up says so, and what is missing too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from finished import HOUR_NS, START_NS, Row, fills_table, market, record

from evaluation.costs import COST_DEFINITIONS
from evaluation.grids import CONTRIBUTIONS, COSTS, Grid, cost_grid, drawdown_grid, summary_grids, trip_grid
from evaluation.run import RunRecord
from evaluation.tables import TABLE_DEFINITIONS
from evaluation.trading import evaluate

Build = Callable[..., RunRecord]
T = [START_NS + i * HOUR_NS for i in range(3)]


def grid(run: RunRecord, title: str) -> Grid:
    return next(grid for grid in summary_grids(evaluate(run)) if grid.title == title)


def cells(grid: Grid, row: int) -> dict[str, str]:
    return dict(zip(grid.heads, grid.rows[row], strict=True))


def one_trip(equity: float = 109.0, **changes: Any) -> RunRecord:
    rows: list[Row] = [(T[0], "X", "BUY", 1.0, 100.0, 0.5), (T[2], "X", "SELL", 1.0, 110.0, 0.5)]
    return record(T, [100.0, 100.0, equity], **({"fills": fills_table(*rows)} | changes))


def test_one_symbol_has_no_total() -> None:
    found = grid(one_trip(), "By symbol")

    assert found.totals == 0
    assert cells(found, 0) == {
        "Symbol": "X",
        "Fills": "2",
        "Units": "2",
        "Traded": "210.00",
        "Turnover": "2.1 ×",
        "Realised": "10.00",
        "Open": "0.00",
        "Fees": "1.00",
        "Profit": "9.00",
        "Share": "100.0\N{NO-BREAK SPACE}%",
        "Trips": "1",
        "Won": "100.0\N{NO-BREAK SPACE}%",
        "Profit factor": "–",
        "Mean trip": "9.00",
        "Deepest fall": "0.50",
    }


def test_profit_from_no_fill_has_a_line_of_its_own_and_the_total_is_that_of_the_account() -> None:
    found = grid(one_trip(equity=112.5), "By symbol")

    assert [row[0] for row in found.rows] == ["X", "Elsewhere", "Total"]
    assert [cells(found, row)["Profit"] for row in range(3)] == ["9.00", "3.50", "12.50"]
    assert found.totals == 2
    assert "such as funding" in found.note


def test_the_unallocated_have_a_name_and_strategies_no_units(busy: Build) -> None:
    found = grid(busy(), "By strategy")

    assert [row[0] for row in found.rows] == ["revert", "trend", "(unallocated)", "Total"]
    assert not {"Units", "Carry"} & set(found.heads)
    assert {head for head, _ in found.definitions} == set(found.heads[1:])


def test_costs_show_their_rate_below_and_what_is_not_known(busy: Build) -> None:
    every, none = cost_grid(evaluate(busy())), cost_grid(evaluate(busy(priced=False)))

    assert [row[0] for row in every.rows] == ["BTC-USD", "FDAX", "Total"]
    assert all(cell.endswith(" bps") and "\n" in cell for cell in every.rows[-1][3:])
    assert cells(none, 2)["Delay"] == "–"
    assert cells(none, 2)["Fees"] == cells(every, 2)["Fees"]
    assert "were not recorded" in none.note


def test_fills_without_a_decision_price_are_counted_in_a_note() -> None:
    table = one_trip().fills
    for name, values in (("decision_price", [0.0, 110.0]), ("market_price", [1.0, 110.0]), ("half_spread", [0.0, 0.0])):
        table = table.append_column(name, pa.array(values))

    assert "1 fill without a decision price" in cost_grid(evaluate(one_trip(fills=table))).note


def test_a_trip_reads_as_it_was() -> None:
    found = trip_grid(evaluate(one_trip()))

    assert cells(found, 0) == {
        "Symbol": "X",
        "Side": "long",
        "Opened": "2024-01-01 00:00",
        "Closed": "2024-01-01 02:00",
        "Peak units": "1",
        "Entry": "100",
        "Exit": "110",
        "Profit": "9.00",
        "Fees": "1.00",
        "Return": "+9.0\N{NO-BREAK SPACE}%",
    }


def test_drawdowns_say_when_they_did_not_end() -> None:
    days = [START_NS + i * 24 * HOUR_NS for i in range(4)]
    run = record(days, [100.0, 90.0, 100.0, 80.0], markets=(market(days, [1.0] * 4),))
    found = drawdown_grid(evaluate(run).strategy.drawdowns)

    assert [cells(found, row)["Recovered"] for row in range(2)] == ["not by the end", "2024-01-03 00:00"]
    assert [cells(found, row)["Days up"] for row in range(2)] == ["–", "1.0"]
    assert cells(found, 0)["Depth"] == "20.0\N{NO-BREAK SPACE}%"


def test_cents_are_left_out_where_they_drown() -> None:
    rich = one_trip(equity=9e6, initial_cash=1e6, markets=(market(T, [100.0] * 3, multiplier=1e6),))
    found = grid(rich, "By symbol")

    assert cells(found, 0)["Realised"] == "10,000,000"
    assert cells(found, 0)["Traded"] == "210,000,000"


def test_a_run_without_trades_has_no_tables() -> None:
    assert summary_grids(evaluate(record(T, [100.0] * 3))) == []


@pytest.mark.parametrize("fills", [2, 402])
def test_every_row_has_a_cell_for_every_head(busy: Build, fills: int) -> None:
    report = evaluate(busy(fills))

    for found in [*summary_grids(report), trip_grid(report)]:
        assert all(len(row) == len(found.heads) for row in found.rows)


@pytest.mark.parametrize(
    ("labels", "meanings"), [(CONTRIBUTIONS, TABLE_DEFINITIONS), (COSTS, COST_DEFINITIONS)], ids=["tables", "costs"]
)
def test_the_reference_defines_every_column_in_the_same_words(labels: dict[str, str], meanings: dict[str, str]) -> None:
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "report.md").read_text(encoding="utf-8")

    for key, label in labels.items():
        assert f"| {label} | `{key}` | {meanings[key]} |" in reference
