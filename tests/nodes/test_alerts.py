import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from nodes.alerts import PriceAlertConfig, price_change_alert
from nodes.events import Alert, AlertLevel


def test_price_change_alerts_up_and_warns_down_from_the_last_alerted_price() -> None:
    # Base 100; 104 is too little; 105 alerts and is the new base; 100 is less than 5 % below it; 99.75 is 5 %.
    price = ticks(100.0, 104.0, 105.0, 100.0, 99.75)

    got = run(lambda: price_change_alert(price, "A", PriceAlertConfig(change_min=0.05)))

    assert [when for when, _ in got] == [T0 + 2 * SECOND, T0 + 4 * SECOND]
    assert [alert.level for alert in values(got)] == [AlertLevel.ALERT, AlertLevel.WARNING]
    assert [alert.value for alert in values(got)] == pytest.approx([0.05, -0.05])


def test_price_change_alert_says_what_moved_how_far_and_where_to() -> None:
    (got,) = values(run(lambda: price_change_alert(ticks(100.0, 112.5), "BTC-USD", PriceAlertConfig())))

    assert got == Alert(
        level=AlertLevel.ALERT,
        source="price_change",
        symbol="BTC-USD",
        message="BTC-USD moved +12.50% to 112.5",
        value=0.125,
    )


def test_a_move_of_exactly_the_threshold_alerts() -> None:
    got = run(lambda: price_change_alert(ticks(100.0, 125.0, 93.75), "A", PriceAlertConfig(change_min=0.25)))

    assert [alert.value for alert in values(got)] == [0.25, -0.25]


def test_the_first_price_is_a_base_and_no_alert() -> None:
    assert run(lambda: price_change_alert(ticks(100.0), "A", PriceAlertConfig())) == []


def test_a_slow_drift_alerts_once_it_adds_up() -> None:
    # 1 % a step never reaches 5 % in one step, but does in five: 1.01**5 = 1.051.
    price = ticks(*[100.0 * 1.01**i for i in range(11)])

    got = run(lambda: price_change_alert(price, "A", PriceAlertConfig(change_min=0.05)))

    assert [when for when, _ in got] == [T0 + 5 * SECOND, T0 + 10 * SECOND]


def test_prices_that_share_a_timestamp_are_judged_one_by_one() -> None:
    price = at((0, 100.0), (1, 110.0), (1, 100.0), (1, 100.0))

    got = run(lambda: price_change_alert(price, "A", PriceAlertConfig(change_min=0.05)))

    assert [when for when, _ in got] == [T0 + SECOND, T0 + SECOND]
    assert [alert.level for alert in values(got)] == [AlertLevel.ALERT, AlertLevel.WARNING]


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30), st.floats(0.001, 2.0))
@settings(max_examples=50, deadline=None)
def test_alerted_prices_are_the_first_to_leave_their_base(prices: list[float], change_min: float) -> None:
    got = run(lambda: price_change_alert(ticks(*prices), "A", PriceAlertConfig(change_min=change_min)))

    bases = [0, *[(when - T0) // SECOND for when, _ in got]]  # the first price, then every alerted one
    for base, alerted in pairwise(bases):
        assert abs(prices[alerted] / prices[base] - 1.0) >= change_min
    for base, following in pairwise([*bases, len(prices)]):
        assert all(abs(price / prices[base] - 1.0) < change_min for price in prices[base + 1 : following])
    assert all((alert.level == AlertLevel.ALERT) == (alert.value > 0.0) for alert in values(got))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_an_impossible_price_stops_the_engine_and_names_symbol_and_time(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"price of A must be positive and finite, was {bad} at 2024-01-02 14:30:01"):
        run(lambda: price_change_alert(ticks(100.0, bad), "A", PriceAlertConfig()))


@pytest.mark.parametrize("change_min", [0.0, -0.1, math.nan, math.inf])
def test_config_refuses_an_impossible_change(change_min: float) -> None:
    with pytest.raises(ValueError, match=f"change_min must be positive and finite, was {change_min}"):
        PriceAlertConfig(change_min=change_min)
