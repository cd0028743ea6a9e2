"""Steps, money and ratios: what goes in comes out, and what cannot be counted is refused."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.units import Money, Steps, common_quantum, dividend_amount, exactly, half_up, split_ratio


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["0.01", "0.25", "0.00000001", "1", "0.00005"]), st.integers(0, 10**14))
def test_steps_round_trip(step: str, count: int) -> None:
    steps = Steps(step, "tick")
    value = steps.value(count)
    assert steps.exact(value) == steps.nearest(value) == count
    assert steps.down(value) == count
    assert steps.up(value) == count
    assert value == float(Fraction(step) * count)


def test_down_and_up_bracket_a_value_between_steps() -> None:
    steps = Steps("0.25", "tick")
    assert (steps.down(1640.3), steps.nearest(1640.3), steps.up(1640.3)) == (6561, 6561, 6562)
    assert (steps.down(-0.3), steps.nearest(-0.3), steps.up(-0.3)) == (-2, -1, -1)


def test_a_value_off_the_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"want a multiple of the tick of ES 1/4, was 1640\.3"):
        Steps("0.25", "tick of ES").exact(1640.3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1.7e308])
def test_a_value_that_cannot_be_counted_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="want a finite multiple of the tick 1/100, was"):
        Steps("0.01", "tick").exact(value)


@pytest.mark.parametrize(
    ("value", "rounded"), [("1/2", 1), ("-1/2", 0), ("3/2", 2), ("-3/2", -1), ("0.4999", 0), ("-0.5001", -1), ("7", 7)]
)
def test_a_half_goes_up(value: str, rounded: int) -> None:
    assert half_up(Fraction(value)) == rounded


@settings(max_examples=200, deadline=None)
@given(st.fractions())
def test_half_up_is_the_floor_of_a_half_more(value: Fraction) -> None:
    assert half_up(value) == floor(value + Fraction(1, 2))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fractions(min_value=Fraction(1, 10**6), max_denominator=10**6), min_size=1, max_size=5))
def test_the_common_quantum_divides_every_amount_and_is_the_largest(amounts: list[Fraction]) -> None:
    quantum = common_quantum(amounts)
    counts = [amount / quantum for amount in amounts]
    assert all(count.denominator == 1 for count in counts)
    # Were there a larger one, the counts would share a factor.
    assert common_quantum(counts) == 1


def test_money_counts_in_its_quantum_and_rounds_to_its_unit() -> None:
    money = Money("USD", "0.01", Fraction(1, 10_000))
    assert money.unit == 100
    assert money.quanta(12.34) == 123_400
    assert money.amount(123_456) == 12.3456
    assert [money.rounded(Fraction(q)) for q in (149, 150, -150, -151)] == [100, 200, -100, -200]
    with pytest.raises(ValueError, match=r"multiple of the unit of USD 1/100, was 0\.001"):
        money.quanta(0.001)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_taken_as_the_decimal_that_it_prints(value: float) -> None:
    assert float(exactly(value)) == value
    assert exactly(0.1) == Fraction(1, 10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_has_no_exact_value(value: float) -> None:
    with pytest.raises(ValueError, match="want a finite number, was"):
        exactly(value)


@pytest.mark.parametrize(("text", "ratio"), [("2", 2), ("1/10", Fraction(1, 10)), ("1.5", Fraction(3, 2))])
def test_a_split_is_a_ratio(text: str, ratio: Fraction) -> None:
    assert split_ratio(text) == ratio


@pytest.mark.parametrize("text", ["", "0", "-2", "1/0", "0/3", "nan", "inf", "1e999999999", "2:1", "1/-10", " 2"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a split must be a positive ratio such as '2' or '1/10', was"):
        split_ratio(text)


@pytest.mark.parametrize("text", ["", "-0.1", "nan", "1e9", "0,24", "1/3"])
def test_what_is_no_dividend_is_refused(text: str) -> None:
    assert dividend_amount("0.24") == Fraction(24, 100)
    assert dividend_amount("0") == 0
    with pytest.raises(ValueError, match=r"a dividend must be a decimal from 0 such as '0\.24', was"):
        dividend_amount(text)
