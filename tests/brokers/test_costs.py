"""What trading costs. Tests that bear a number such as E26 are the worked examples of docs/concepts/fills.md."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.costs import Fees, FillModel, TakerPrices
from brokers.ledger import Contract
from feeds.instruments import Instrument

CENTS = Contract(Instrument(symbol="A", tick="0.01", lot="1"))


@dataclass
class Payer:
    """As much of an order as its fee knows."""

    sign: int = 1
    fee_total: int = 0
    fee_paid: int = 0


def paid(sign: int = 1, price: float = 100.0, lots: int = 10, volume: float = 0.0, **model: Any) -> tuple[int, float]:
    model.setdefault("slippage_bps", 0.0)
    return TakerPrices(CENTS, FillModel(**model)).price(sign, None, price, lots, volume)


def charged(fills: list[tuple[int, int]], maker: bool = False, sign: int = 1, **terms: Any) -> list[tuple[int, int]]:
    """What each of (lots, ticks) of one order pays: hundredths of the currency, and base units."""
    contract = Contract(Instrument(symbol="A", **({"tick": "0.01", "lot": "1"} | terms)))
    fees, order = Fees(contract), Payer(sign)
    amounts = [fees.charge(order, lots, ticks, maker) for lots, ticks in fills]
    assert all(quanta % contract.fee_unit == 0 for quanta, _ in amounts)
    return [(quanta // contract.fee_unit, base) for quanta, base in amounts]


# The price of a taker


@pytest.mark.parametrize(("sign", "ticks"), [(1, 10_006), (-1, 9_994)])
def test_slippage_moves_the_price_against_the_order_and_rounds_away(sign: int, ticks: int) -> None:
    # E26: 5.5 bps of 100.00 are 0.055.
    assert paid(sign, slippage_bps=5.5) == (ticks, 0.0)


def test_impact_grows_with_the_square_of_the_volume_share() -> None:
    # E27: a share of 0.1, so 1000 x 0.01 = 10 bps.
    assert paid(lots=10, volume=100.0, impact_bps=1000.0) == (10_010, 0.0)


def test_the_volume_share_is_one_at_most_and_none_where_the_volume_is_unknown() -> None:
    assert paid(lots=10, volume=5.0, impact_bps=100.0) == (10_100, 0.0)
    assert paid(lots=10, volume=0.0, impact_bps=100.0) == (10_000, 0.0)


def test_a_taker_pays_half_the_spread() -> None:
    # E28, E29: 0.05 of half spread and 0.02 of slippage.
    assert paid(spread_bps=10.0, slippage_bps=2.0) == (10_007, pytest.approx(0.05))
    assert paid(-1, spread_bps=10.0, slippage_bps=2.0) == (9_993, pytest.approx(0.05))


def test_a_limit_cuts_the_price_and_then_the_spread() -> None:
    prices = TakerPrices(CENTS, FillModel(slippage_bps=100.0, spread_bps=100.0))
    assert prices.price(1, 10_020, 100.0, 1, 0.0) == (10_020, pytest.approx(0.20))
    assert prices.price(-1, 9_980, 100.0, 1, 0.0) == (9_980, pytest.approx(0.20))


def test_a_price_is_at_least_one_tick() -> None:
    assert paid(-1, price=0.01, slippage_bps=9000.0) == (1, 0.0)


@given(st.sampled_from([1, -1]), st.floats(0.01, 1e6), st.integers(1, 1000), st.floats(0.0, 1e4), st.integers(1, 10**8))
def test_a_taker_never_gains_and_never_pays_more_than_its_limit(
    sign: int, price: float, lots: int, volume: float, limit: int
) -> None:
    prices = TakerPrices(CENTS, FillModel(slippage_bps=3.0, impact_bps=500.0, spread_bps=7.0))
    free, half = prices.price(sign, None, price, lots, volume)
    assert (free - price * 100.0) * sign >= -2e-6 * max(1.0, price) or free == 1
    assert 0.0 <= half <= abs(free / 100.0 - price)
    cut, half = prices.price(sign, limit, price, lots, volume)
    assert cut == (min(free, limit) if sign > 0 else max(free, limit))
    assert 0.0 <= half <= abs(cut / 100.0 - price)


# Volume


def test_capacity_is_in_whole_lots_rounded_down() -> None:
    capped = FillModel(participation_max=0.29)
    assert capped.bar_lots(100.0) == 29  # 0.29 * 100.0 is 28.999999999999996
    assert capped.bar_lots(99.9) == 28
    assert capped.shown_lots(3.4) == 0
    assert FillModel().bar_lots(0.0) == math.inf
    assert FillModel().shown_lots(3.7) == 3


@pytest.mark.parametrize("size", [math.nan, math.inf, -math.inf])
def test_a_volume_that_is_not_finite_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match="want a finite volume, was"):
        FillModel(participation_max=0.5).bar_lots(size)


@pytest.mark.parametrize(
    "bad",
    [
        {"slippage_bps": -1.0},
        {"slippage_bps": math.nan},
        {"impact_bps": 1e9},
        {"spread_bps": math.inf},
        {"participation_max": 0.0},
        {"participation_max": math.nan},
    ],
)
def test_impossible_fill_models_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must lie in"):
        FillModel(**bad)


# Fees


def test_tiny_fills_cannot_make_a_fee_vanish() -> None:
    # E48: a lot of 0.001 at 10.00 owes 0.00001.
    tiny = charged([(1, 1000)] * 3000, taker_bps=10.0, lot="0.001")
    assert tiny.index((1, 0)) == 499
    assert sum(cents for cents, _ in tiny) == 3
    assert charged([(300, 1000)], taker_bps=10.0, lot="0.001") == [(0, 0)]
    assert charged([(3000, 1000)], taker_bps=10.0, lot="0.001") == [(3, 0)]


def test_the_minimum_is_of_the_order_and_comes_with_its_first_fill() -> None:
    # E49
    per_share = {"fee_per_unit": "0.005", "fee_min": "1.00"}
    assert charged([(100, 5000)], **per_share) == [(100, 0)]
    assert charged([(50, 5000), (50, 5000)], **per_share) == [(100, 0), (0, 0)]
    assert charged([(100, 5000), (400, 5000)], **per_share) == [(100, 0), (150, 0)]


@pytest.mark.parametrize(("bps", "cents"), [(0.5, 1), (0.4, 0), (-0.5, 0), (-0.6, -1)])
def test_fees_are_rounded_half_up_towards_infinity(bps: float, cents: int) -> None:
    # E50: of 100.00, half a basis point is 0.005.
    assert charged([(1, 10_000)], taker_bps=bps) == [(cents, 0)]


def test_a_rebate_stays_one_where_there_is_no_minimum_and_yields_to_one() -> None:
    assert charged([(1, 10_000)], maker=True, maker_bps=-10.0) == [(-10, 0)]
    assert charged([(1, 10_000)], maker=True, maker_bps=-10.0, fee_min="0.05") == [(5, 0)]


def test_maker_and_taker_fills_of_one_order_add_up_before_rounding() -> None:
    contract = Contract(Instrument(symbol="A", tick="0.01", lot="1", taker_bps=0.3, maker_bps=0.2))
    fees, order = Fees(contract), Payer()
    assert fees.charge(order, 1, 10_000, False) == (0, 0)  # 0.003
    assert fees.charge(order, 1, 10_000, True) == (contract.fee_unit, 0)  # 0.005 in all


def test_a_buyer_pays_out_of_what_it_receives_where_the_venue_takes_fees_there() -> None:
    # E51: 0.5 at 10 bps.
    terms: dict[str, Any] = {"lot": "0.5", "base_unit": "0.00000001", "fees_in": "received", "taker_bps": 10.0}
    terms |= {"fee_per_unit": "1", "fee_min": "5"}
    assert charged([(1, 10_000)], **terms) == [(0, 50_000)]
    assert charged([(1, 10_000)], sign=-1, **terms) == [(500, 0)]  # 0.05 and 0.50, at least 5.00


def test_base_units_are_rounded_on_the_running_total() -> None:
    terms: dict[str, Any] = {"lot": "0.001", "base_unit": "0.0001", "fees_in": "received", "taker_bps": 100.0}
    assert charged([(1, 10_000)] * 20, **terms).count((0, 1)) == 2  # 20 * 0.00001


money = st.sampled_from(["0", "0.005", "0.35", "1", "0.0001"])
rates = st.sampled_from([0.0, 10.0, 0.5, -0.5, 7.3, 1e-05])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6), st.booleans()), min_size=1, max_size=8),
    st.tuples(rates, rates, money, money),
    st.sampled_from(["1", "0.001", "0.00000001"]),
    st.sampled_from(["1", "50"]),
)
def test_the_fees_of_an_order_add_up_to_that_of_its_total(
    fills: list[tuple[int, int, bool]], terms: tuple[float, float, str, str], lot: str, multiplier: str
) -> None:
    maker_bps, taker_bps, per_unit, least = terms
    instrument = Instrument(
        symbol="A",
        tick="0.01",
        lot=lot,
        multiplier=multiplier,
        maker_bps=maker_bps,
        taker_bps=taker_bps,
        fee_per_unit=per_unit,
        fee_min=least,
    )
    contract, order = Contract(instrument), Payer()
    fees = Fees(contract)
    owed = Fraction(0)
    total = 0
    for lots, ticks, maker in fills:
        quanta, base = fees.charge(order, lots, ticks, maker)
        assert base == 0
        total += quanta
        quantity, rate = lots * Fraction(lot), Fraction(str(maker_bps if maker else taker_bps)) / 10_000
        owed += quantity * ticks * Fraction("0.01") * Fraction(multiplier) * rate + quantity * Fraction(per_unit)
        due = max(owed, Fraction(least)) if Fraction(least) > 0 else owed
        assert total == math.floor(due * 100 + Fraction(1, 2)) * contract.fee_unit
