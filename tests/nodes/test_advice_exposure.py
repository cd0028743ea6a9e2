"""What advice may move: a share of equity, no faster than an hour allows, and nothing where it is silent."""

from datetime import datetime, timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run

from feeds.instruments import Instrument
from nodes.advice_exposure import cap_advice
from nodes.advise import AdvisorConfig
from nodes.events import Signal, TargetPosition

S = "BTC-USD"
INSTRUMENT = Instrument(symbol=S, lot="0.01")
CONFIG = AdvisorConfig(exposure_max=0.25, exposure_hour_max=0.25)
HOUR = 3600.0


def target(quantity: float, seconds: float) -> TargetPosition:
    return TargetPosition(symbol=S, quantity=quantity, asof=T0 + timedelta(seconds=seconds))


def signal(confidence: float, seconds: float) -> Signal:
    asof = T0 + timedelta(seconds=seconds)
    return Signal(symbol=S, source="advisor", score=0.5, confidence=confidence, horizon_s=60.0, asof=asof)


def capped(
    wanted: dict[float, float],
    without: dict[float, float],
    *,
    price: float | None = 100.0,
    equity: float | None = 1000.0,
    config: AdvisorConfig = CONFIG,
    held: float = 0.0,
    decide: bool = False,
    advice: dict[float, float] | None = None,
) -> list[tuple[float, float]]:
    """`advice`: confidence of the advisor's signal by seconds; sure from the start where nothing is said."""

    def edge(points: dict[float, float]) -> Any:
        return at(*((s, target(q, s)) for s, q in sorted(points.items())), typ=TargetPosition)

    def graph() -> Any:
        known = [csp.null_ts(float) if x is None else csp.const(x) for x in (price, equity)]
        said = at(*((s, signal(sure, s)) for s, sure in sorted((advice or {0.0: 1.0}).items())), typ=Signal)
        return cap_advice(edge(wanted), edge(without), said, *known, INSTRUMENT, config, held, decide)

    out: list[tuple[datetime, TargetPosition]] = run(graph)
    assert all((t.symbol, t.asof) == (S, when) for when, t in out)
    return [((when - T0).total_seconds(), t.quantity) for when, t in out]


def test_where_advice_changes_nothing_neither_does_the_cap() -> None:
    same = {0.0: 1.0, 5.0: -3.21, 9.0: 0.0}

    assert capped(same, same) == list(same.items())


def test_advice_adds_or_takes_off_a_share_of_equity_at_most() -> None:
    assert capped({0.0: 9.0}, {0.0: 1.0}) == [(0.0, 3.5)]  # 0.25 * 1000 / 100 is 2.5
    assert capped({0.0: -9.0}, {0.0: 1.0}) == [(0.0, -1.5)]
    assert capped({0.0: 2.0}, {0.0: 1.0}) == [(0.0, 2.0)]


def test_what_is_left_is_whole_lots_towards_the_target_without() -> None:
    assert capped({0.0: 9.0}, {0.0: 0.0}, price=333.0) == [(0.0, 0.75)]  # 0.7507...


def test_advice_alone_moves_it_from_what_is_held() -> None:
    assert capped({1.0: 3.0}, {}, held=2.0) == [(1.0, 3.0)]
    assert capped({1.0: 3.0}, {}) == [(1.0, 2.5)]


def test_the_target_without_goes_through_at_once() -> None:
    assert capped({0.0: 1.0}, {0.0: 1.0, 5.0: -4.0}) == [(0.0, 1.0), (5.0, -1.5)]


def test_within_an_hour_it_grows_by_what_the_hour_allows() -> None:
    config = AdvisorConfig(exposure_max=1.0, exposure_hour_max=0.2)
    wanted = {0.0: 1.0, 10.0: 5.0, HOUR - 1.0: 5.01, HOUR: 5.02, HOUR + 10.0: 5.03}

    assert capped(wanted, {0.0: 0.0}, config=config) == [(0.0, 1.0), (10.0, 2.0), (HOUR, 3.0), (HOUR + 10.0, 4.0)]


def test_it_may_always_become_less_and_coming_back_counts_as_growth() -> None:
    config = AdvisorConfig(exposure_max=1.0, exposure_hour_max=0.2)

    out = capped({0.0: 2.0, 1.0: 0.5, 2.0: 2.0}, {0.0: 0.0}, config=config)

    assert out == [(0.0, 2.0), (1.0, 0.5)]


def test_turning_round_is_growth_from_nothing() -> None:
    config = AdvisorConfig(exposure_max=1.0, exposure_hour_max=0.3)

    assert capped({0.0: 2.0, 1.0: -2.0}, {0.0: 0.0}, config=config) == [(0.0, 2.0), (1.0, -1.0)]


@pytest.mark.parametrize(("price", "equity"), [(None, 1000.0), (100.0, None), (100.0, 0.0), (100.0, -5.0)])
def test_without_a_price_or_equity_advice_moves_nothing(price: float | None, equity: float | None) -> None:
    assert capped({0.0: 9.0}, {0.0: 1.0}, price=price, equity=equity) == [(0.0, 1.0)]


def test_where_the_advisor_is_silent_advice_moves_nothing() -> None:
    wanted, without = {0.0: 9.0, 50.0: 8.0}, {0.0: 1.0, 40.0: 2.0}

    assert capped(wanted, without, advice={100.0: 0.0}) == [(0.0, 1.0), (40.0, 2.0)]


def test_what_advice_has_moved_is_taken_back_when_it_expires() -> None:
    out = capped({0.0: 9.0}, {0.0: 1.0}, advice={0.0: 0.3, 10.0: 0.2, 20.0: 0.0, 9000.0: 0.1})

    assert out == [(0.0, 3.5), (20.0, 1.0), (9000.0, 3.5)]
    assert capped({1.0: 3.0}, {}, held=2.0, advice={0.0: 0.3, 20.0: 0.0}) == [(1.0, 3.0), (20.0, 2.0)]


def test_advice_that_comes_back_within_the_hour_is_growth() -> None:
    assert capped({0.0: 9.0}, {0.0: 1.0}, advice={0.0: 0.3, 20.0: 0.0, 30.0: 0.3}) == [(0.0, 3.5), (20.0, 1.0)]


def test_the_advisors_word_alone_decides_nothing() -> None:
    assert capped({50.0: 0.0}, {50.0: 0.0}, decide=True, advice={0.0: 0.3, 1.0: 0.0}) == [(50.0, 0.0)]


def test_what_nobody_asked_for_is_decided_upon_once() -> None:
    assert capped({0.0: 0.0, 1.0: 0.0}, {0.0: 0.0}, decide=True) == [(0.0, 0.0)]
    assert capped({0.0: 0.0}, {0.0: 0.0}) == []


QUANTITIES = st.dictionaries(
    st.integers(0, 7200).map(float), st.integers(-2000, 2000).map(lambda n: n / 100), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(QUANTITIES, QUANTITIES, st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_it_never_moves_further_or_faster_than_it_may(
    wanted: dict[float, float], without: dict[float, float], most: float, hour: float
) -> None:
    config = AdvisorConfig(exposure_max=most, exposure_hour_max=hour)

    out = dict(capped(wanted, without, config=config))

    own = given_target = last = advised = 0.0
    grown: list[tuple[float, float]] = []
    for when in sorted({*wanted, *without}):
        given_target, own = wanted.get(when, given_target), without.get(when, own)
        last = out.get(when, last)
        share = (last - own) * 0.1  # of equity: 100 a unit, of 1000
        assert abs(share) <= most + 1e-9
        assert share * (given_target - own) >= -1e-9  # towards the target, and not beyond
        assert abs(last - own) <= abs(given_target - own) + 1e-9
        before = abs(advised) if share * advised > 0 else 0.0
        grown.append((when, max(0.0, abs(share) - before)))
        assert sum(size for then, size in grown if when - then < HOUR) <= hour + 1e-9
        advised = share


def test_values_are_exact_multiples_of_the_lot() -> None:
    out = capped({0.0: 0.3, 1.0: 0.1}, {0.0: 0.2})

    assert [q for _, q in out] == [0.3, 0.1]
