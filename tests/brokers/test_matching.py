"""Each rule of the simulated market, with its worked example."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.ledger import Contract
from brokers.matching import Execution, FillModel, RestingOrder, capacity, match_bar, match_trade
from feeds.instruments import Instrument

CONTRACT = Contract(Instrument(symbol="A", tick="0.01", lot="1"))
FREE = FillModel(slippage_bps=0.0)
SENT = datetime(2024, 1, 2)


def order(sign: int = 1, lots: int = 10, limit: float | None = None, seen: bool = False) -> RestingOrder:
    ticks = None if limit is None else CONTRACT.ticks.exact(limit)
    return RestingOrder("1", sign, lots, ticks, SENT, seen_market=seen)


def on_bar(o: RestingOrder, ohlc: tuple[float, float, float], volume: float, model: FillModel) -> Execution | None:
    open_, high, low = ohlc
    return match_bar(o, open_, high, low, volume, capacity(volume, model), CONTRACT, model)


def test_market_order_takes_the_open() -> None:
    assert on_bar(order(), (100.0, 101.0, 99.0), 1e6, FREE) == Execution(10, 10_000, maker=False)


@pytest.mark.parametrize(("sign", "ticks"), [(1, 10_006), (-1, 9_994)])
def test_slippage_moves_the_price_against_the_order_and_rounds_away(sign: int, ticks: int) -> None:
    # 5.5 bps of 100.00 are 0.055: a buyer pays 100.06, a seller gets 99.94.
    assert on_bar(order(sign), (100.0, 101.0, 99.0), 1e6, FillModel(slippage_bps=5.5)) == Execution(10, ticks, False)


def test_impact_grows_with_the_square_of_the_volume_share() -> None:
    # 10 of 100 lots is a share of 0.1: 1000 bps * 0.01 = 10 bps.
    model = FillModel(slippage_bps=0.0, impact_bps=1000.0)
    assert on_bar(order(), (100.0, 101.0, 99.0), 100.0, model) == Execution(10, 10_010, maker=False)


def test_participation_caps_the_fill() -> None:
    model = FillModel(slippage_bps=0.0, participation_max=0.1)
    assert on_bar(order(lots=10), (100.0, 101.0, 99.0), 55.0, model) == Execution(5, 10_000, maker=False)
    assert on_bar(order(lots=10), (100.0, 101.0, 99.0), 9.0, model) is None


@pytest.mark.parametrize(("sign", "limit", "low", "high"), [(1, 99.0, 99.0, 101.0), (-1, 101.0, 99.0, 101.0)])
def test_a_limit_that_is_only_touched_does_not_fill(sign: int, limit: float, low: float, high: float) -> None:
    assert on_bar(order(sign, limit=limit), (100.0, high, low), 1e6, FREE) is None


@pytest.mark.parametrize(("sign", "limit"), [(1, 99.0), (-1, 101.0)])
def test_a_limit_that_is_traded_through_fills_at_its_price_as_maker(sign: int, limit: float) -> None:
    filled = on_bar(order(sign, limit=limit), (100.0, 101.01, 98.99), 1e6, FillModel(slippage_bps=50.0))
    assert filled == Execution(10, CONTRACT.ticks.exact(limit), maker=True)


def test_a_resting_limit_that_the_market_gaps_over_fills_at_the_open() -> None:
    assert on_bar(order(1, limit=99.0, seen=True), (95.0, 96.0, 94.0), 1e6, FREE) == Execution(10, 9_500, maker=True)


def test_a_new_limit_that_is_marketable_takes_the_open_but_never_beyond_its_limit() -> None:
    slipped = FillModel(slippage_bps=200.0)
    assert on_bar(order(1, limit=101.0), (100.0, 102.0, 99.0), 1e6, slipped) == Execution(10, 10_100, maker=False)


def test_trade_rules() -> None:
    def match(o: RestingOrder, price: float) -> Execution | None:
        return match_trade(o, price, 3.0, capacity(3.0, FREE), CONTRACT, FREE)

    assert match(order(), 100.0) == Execution(10, 10_000, maker=False)
    assert match(order(limit=100.0), 100.0) is None
    assert match(order(limit=100.0), 99.5) == Execution(10, 9_950, maker=False)  # marketable on arrival
    assert match(order(limit=100.0, seen=True), 99.5) == Execution(10, 10_000, maker=True)


prices = st.floats(1.0, 1e5)


@settings(max_examples=300, deadline=None)
@given(prices, st.lists(prices, min_size=2, max_size=2), st.sampled_from([1, -1]), prices, st.booleans())
def test_a_limit_order_never_fills_worse_than_its_limit(
    open_: float, others: list[float], sign: int, limit: float, seen: bool
) -> None:
    low, high = min(open_, *others), max(open_, *others)
    ticks = CONTRACT.ticks.down(limit)
    resting = RestingOrder("1", sign, 10, ticks, SENT, seen_market=seen)
    model = FillModel(slippage_bps=20.0, impact_bps=100.0, participation_max=0.5)
    filled = match_bar(resting, open_, high, low, 15.0, capacity(15.0, model), CONTRACT, model)
    if filled is not None:
        assert (filled.ticks - ticks) * sign <= 0
        assert 0 < filled.lots <= 7


@pytest.mark.parametrize(
    "bad",
    [{"slippage_bps": -1.0}, {"slippage_bps": float("nan")}, {"impact_bps": 1e9}, {"participation_max": 0.0}],
)
def test_impossible_fill_models_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must lie in"):
        FillModel(**bad)
