"""Where costs went: a case by hand, what is not known, and that the parts add up."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from finished import START_NS, Row, fills_table, market, record
from hypothesis import given
from hypothesis import strategies as st

from evaluation.costs import PARTS, Breakdown, Costs, costs
from evaluation.run import RunRecord, read_fills

Build = Callable[..., RunRecord]
Prices = tuple[float, float, float]  # decision, market, half the spread


def judged(rows: list[Row], prices: list[Prices], **changes: Any) -> Costs:
    table = fills_table(*rows)
    for column, name in enumerate(("decision_price", "market_price", "half_spread")):
        table = table.append_column(name, pa.array([row[column] for row in prices], pa.float64()))
    run = record([START_NS], [100.0], fills=table, **changes)
    return costs(run, read_fills(run))


def amounts(part: Breakdown) -> dict[str, float | None]:
    return {name: getattr(part, name).amount.value for name in (*PARTS, "shortfall")}


def test_a_purchase_and_a_sale_by_hand() -> None:
    # Decided at 100, the market at 101 when the order was there, bought at 101.5 of which 0.2 was half the spread;
    # sold at 98.9 when it was decided at 99 and the market had come to 99.25. Fees 1 and 0.5.
    rows: list[Row] = [(START_NS, "X", "BUY", 10.0, 101.5, 1.0), (START_NS, "X", "SELL", 4.0, 98.9, 0.5)]
    total = judged(rows, [(100.0, 101.0, 0.2), (99.0, 99.25, 0.2)]).total

    assert amounts(total) == {
        "fees": pytest.approx(1.5),
        "spread": pytest.approx(10 * 0.2 + 4 * 0.2),
        "slippage": pytest.approx(10 * 0.3 + 4 * 0.15),
        "delay": pytest.approx(10 * 1.0 - 4 * 0.25),
        "shortfall": pytest.approx(10 * 1.5 + 4 * 0.1 + 1.5),
    }
    assert total.notional == pytest.approx(1015.0 + 395.6)
    assert total.shortfall.bps.value == pytest.approx(16.9 / 1410.6 * 1e4)
    assert (total.fills, total.priced) == (2, 2)


def test_costs_are_in_the_currency_of_the_account_with_the_multiplier() -> None:
    only = market([START_NS], [100.0], multiplier=50.0, rate=1.2)
    rows: list[Row] = [(START_NS, "X", "BUY", 1.0, 101.0, 2.0)]
    total = judged(rows, [(100.0, 100.5, 0.25)], markets=(only,)).total

    assert amounts(total) == {
        "fees": pytest.approx(2.4),
        "spread": pytest.approx(0.25 * 60.0),
        "slippage": pytest.approx(0.25 * 60.0),
        "delay": pytest.approx(0.5 * 60.0),
        "shortfall": pytest.approx(62.4),
    }


def test_without_the_columns_only_fees_are_known() -> None:
    run = record([START_NS], [100.0], (START_NS, "X", "BUY", 1.0, 100.0, 0.1))
    total = costs(run, read_fills(run)).total

    assert (total.fees.amount.value, total.fees.bps.value) == (0.1, pytest.approx(10.0))
    for part in (total.spread, total.slippage, total.delay, total.shortfall):
        assert (part.amount.reason, part.bps.reason) == ("not recorded", "not recorded")


def test_a_fill_without_a_decision_price_adds_its_fee_and_nothing_else() -> None:
    rows: list[Row] = [(START_NS, "X", "BUY", 1.0, 101.0, 0.1), (START_NS, "X", "BUY", 1.0, 50.0, 0.2)]
    total = judged(rows, [(100.0, 100.0, 0.5), (0.0, 49.0, 0.5)]).total

    assert (total.fills, total.priced) == (2, 1)
    assert amounts(total)["spread"] == 0.5
    assert amounts(total)["shortfall"] == pytest.approx(0.3 + 1.0)


def test_decision_prices_of_zero_throughout_are_not_recorded() -> None:
    total = judged([(START_NS, "X", "BUY", 1.0, 101.0, 0.1)], [(0.0, 0.0, 0.0)]).total

    assert total.shortfall.amount.reason == "not recorded"


def test_nothing_traded_costs_nothing_and_has_no_rate() -> None:
    total = judged([], []).total

    assert (total.fees.amount.value, total.fees.bps.reason) == (0.0, "nothing was traded")


def test_fees_in_base_units_count_at_the_price_of_their_fill() -> None:
    table = fills_table((START_NS, "X", "BUY", 2.0, 50.0, 0.0)).append_column("base_fee", pa.array([0.01]))
    run = record([START_NS], [100.0], fills=table)

    assert costs(run, read_fills(run)).total.fees.amount.value == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["decision_price", "market_price", "half_spread"])
def test_negative_prices_are_refused(name: str) -> None:
    table = fills_table((START_NS, "X", "BUY", 1.0, 100.0, 0.1)).append_column(name, pa.array([-1.0]))

    with pytest.raises(ValueError, match=f"{name} of a fill must not be negative, was -1.0"):
        read_fills(record([START_NS], [100.0], fills=table))


def test_a_fee_that_takes_all_that_was_bought_is_refused() -> None:
    table = fills_table((START_NS, "X", "BUY", 1.0, 100.0, 0.0)).append_column("base_fee", pa.array([1.0]))

    with pytest.raises(ValueError, match=r"must leave some of it, was 1\.0"):
        read_fills(record([START_NS], [100.0], fills=table))


def test_symbols_add_up_to_the_total_and_parts_to_the_shortfall_and_both_to_paper_less_real(busy: Build) -> None:
    run = busy()
    fills = read_fills(run)
    found = costs(run, fills)

    for name, value in amounts(found.total).items():
        assert sum(amounts(part)[name] or 0.0 for part in found.symbols) == pytest.approx(value, rel=1e-9), name
    # What a paper account without costs would have had to pay for the same units, and what was paid.
    paper = real = 0.0
    for row, place in enumerate(fills.places.tolist()):
        one = run.markets[place]
        size = fills.signs[row] * fills.quantities[row] * one.multiplier * one.rate
        assert fills.decision_prices is not None
        paper += size * fills.decision_prices[row]
        real += size * fills.prices[row] + fills.fees[row] * one.rate
    assert amounts(found.total)["shortfall"] == pytest.approx(real - paper, rel=1e-9)


PRICE = st.floats(1.0, 1e4)


@given(st.lists(st.tuples(st.sampled_from(["BUY", "SELL"]), PRICE, PRICE, PRICE, st.floats(0.0, 10.0)), max_size=20))
def test_parts_add_up_to_the_shortfall(rows: list[tuple[str, float, float, float, float]]) -> None:
    fills: list[Row] = [(START_NS, "X", side, 2.0, price, 1.0) for side, price, *_ in rows]
    total = judged(fills, [(decided, seen, spread) for *_, decided, seen, spread in rows]).total

    if rows:
        direct = sum((p - d) * (2.0 if side == "BUY" else -2.0) + 1.0 for side, p, d, *_ in rows)
        assert amounts(total)["shortfall"] == pytest.approx(direct, abs=1e-6)
        assert sum(amounts(total)[name] or 0.0 for name in PARTS) == amounts(total)["shortfall"]
