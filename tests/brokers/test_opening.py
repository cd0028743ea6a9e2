"""What an account starts a run with: its JSON form loses nothing, and what cannot be is refused."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.opening import (
    LEVELS,
    ORDER_TYPES,
    SIDES,
    TIMES_IN_FORCE,
    Note,
    Opening,
    OpeningOrder,
    OpeningPosition,
    decimal_of,
    plain,
)

texts = st.text(min_size=1, max_size=12)
decimals = st.decimals(min_value=-(10**15), max_value=10**15, allow_nan=False, allow_infinity=False, places=12)
positive = st.decimals(min_value="0.00000001", max_value=10**15, places=8)
positions = st.builds(
    OpeningPosition, symbol=texts, quantity=decimals.filter(bool).map(plain), cost=decimals.map(plain)
)


@st.composite
def orders(draw: st.DrawFn) -> OpeningOrder:
    quantity = draw(positive)
    return OpeningOrder(
        order_id=draw(texts),
        symbol=draw(texts),
        side=draw(st.sampled_from(SIDES)),
        order_type=draw(st.sampled_from(ORDER_TYPES)),
        quantity=plain(quantity),
        remaining=plain(min(quantity, draw(positive))),
        limit_price=plain(draw(positive)),
        time_in_force=draw(st.sampled_from(TIMES_IN_FORCE)),
        reduce_only=draw(st.booleans()),
        strategy=draw(st.text(max_size=5)),
    )


notes = st.builds(
    Note,
    code=texts,
    symbol=st.text(max_size=5),
    message=st.text(max_size=20),
    value=st.floats(allow_nan=False, allow_infinity=False),
    level=st.sampled_from(LEVELS),
)
openings = st.builds(
    Opening,
    cash=decimals.map(plain),
    positions=st.lists(positions, max_size=3, unique_by=lambda p: p.symbol).map(tuple),
    orders=st.lists(orders(), max_size=3, unique_by=lambda o: o.order_id).map(tuple),
    equity_peak=st.floats(0, 1e15),
    day=st.dates().map(lambda day: day.isoformat()),
    day_start=st.floats(-1e15, 1e15),
    clean=st.booleans(),
    notes=st.lists(notes, max_size=3).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(openings)
def test_an_opening_read_back_from_json_is_the_same(opening: Opening) -> None:
    assert Opening.from_json(opening.to_json()) == opening


@settings(max_examples=100, deadline=None)
@given(decimals)
def test_a_plain_decimal_has_the_same_value_and_no_exponent_and_one_form(value: Decimal) -> None:
    text = plain(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert text == plain(value.normalize()) == plain(Decimal(text))


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-Infinity", "1e999999999", "0e-999999", "1" * 65, "sNaN"])
def test_what_is_no_bounded_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cash must be a decimal"):
        decimal_of(text, "cash")
    with pytest.raises(ValueError, match="cash must be a decimal"):
        Opening(cash=text)


def an_order(**changed: object) -> OpeningOrder:
    values = {"order_id": "o", "symbol": "A", "side": "BUY", "order_type": "LIMIT", "quantity": "2", "remaining": "1"}
    return OpeningOrder(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"side": "buy"}, "side of order o must be one of BUY, SELL"),
        ({"order_type": "FANCY"}, "order_type of order o"),
        ({"time_in_force": ""}, "time_in_force of order o"),
        ({"remaining": "0"}, "0 < remaining <= quantity"),
        ({"remaining": "2.1"}, "0 < remaining <= quantity"),
        ({"remaining": "nan"}, "remaining must be a decimal"),
        ({"limit_price": "-1"}, "want prices from 0"),
        ({"order_id": ""}, "with an id and a symbol"),
    ],
)
def test_an_order_that_cannot_work_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        an_order(**changed)


def test_what_occurs_twice_or_is_not_finite_is_refused() -> None:
    position = OpeningPosition(symbol="A", quantity="1", cost="2")
    with pytest.raises(ValueError, match="want each symbol of an opening once"):
        Opening(cash="0", positions=(position, position))
    with pytest.raises(ValueError, match="want each order of an opening once"):
        Opening(cash="0", orders=(an_order(), an_order()))
    with pytest.raises(ValueError, match="want a finite equity peak"):
        Opening(cash="0", equity_peak=float("nan"))
    with pytest.raises(ValueError, match="want a finite equity peak"):
        Opening(cash="0", day_start=float("inf"))
    with pytest.raises(ValueError, match="Invalid isoformat"):
        Opening(cash="0", day="yesterday")
    with pytest.raises(ValueError, match="quantity other than zero"):
        OpeningPosition(symbol="A", quantity="0.0", cost="0")
    with pytest.raises(ValueError, match="value of note x must be finite"):
        Note(code="x", symbol="", message="", value=float("nan"))
    with pytest.raises(ValueError, match="a level out of"):
        Note(code="x", symbol="", message="", level="LOUD")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "want an opening as JSON"),
        ("[]", "want Opening with cash"),
        ("{}", "want Opening with cash"),
        ('{"cash": 1}', "cash of Opening must be of type str"),
        ('{"cash": "1", "clean": 1}', "clean of Opening must be of type bool"),
        ('{"cash": "1", "debt": "2"}', "want Opening with cash"),
        ('{"cash": "1", "positions": [1]}', "want OpeningPosition with symbol"),
        ('{"cash": "1", "notes": [{"code": "x"}]}', "want Note with code"),
    ],
)
def test_json_that_is_no_opening_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Opening.from_json(text)


def test_lists_of_the_wrong_kind_are_told() -> None:
    values = json.loads(Opening(cash="1").to_json())
    for name in ("positions", "orders", "notes"):
        with pytest.raises(ValueError, match=f"{name} of Opening must be"):
            Opening.from_json(json.dumps({**values, name: "none"}))
