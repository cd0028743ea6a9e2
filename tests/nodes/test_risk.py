"""Risk: the config, the monitor that is made of the limits, and the last word on a target."""

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from feeds.instruments import Instrument
from nodes.events import AlertLevel, PositionUpdate, RiskAction, RiskActionKind, TargetPosition
from nodes.portfolio import Books
from nodes.risk import RiskConfig, action_alert, limit_target, risk_monitor

A = Instrument(symbol="A", tick="0.01", lot="0.1")
OFF = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None)


def monitored(config: RiskConfig, multiplier: str = "1") -> list[Any]:
    """The actions on an account that buys 100 A at 100 with 1,000 of equity, sees 90, and sells them there."""

    def graph() -> Any:
        close = at((0.0, 100.0), (10.0, 90.0))
        held = [(1.0, 100.0, 100.0, 0.0), (20.0, 0.0, 0.0, -1_000.0)]
        position = at(
            *((s, PositionUpdate(symbol="A", quantity=q, average_price=p, realised=r, fees=0.0)) for s, q, p, r in held)
        )
        value = csp.default(position.quantity * float(multiplier) * close, 0.0)
        fields = dict.fromkeys(Books.__dataclass_fields__, csp.null_ts(float))
        books = Books(
            **fields
            | {"position": position, "values": {"A": value}, "equity": ticks(1_000.0), "gross_exposure": csp.abs(value)}
        )
        return risk_monitor(books, {"A": close}, (replace(A, multiplier=multiplier),), config)

    return [((when - T0).total_seconds(), a.kind.name, a.code, a.value) for when, a in run(graph)]


def test_the_monitor_watches_what_the_config_asks_for_and_nothing_else() -> None:
    assert monitored(OFF) == []
    assert monitored(replace(OFF, gross_exposure_max=5.0))[0] == (1.0, "REDUCE_POSITIONS", "gross_exposure", 10.0)
    assert monitored(replace(OFF, concentration_max=5.0)) == [(10.0, "REDUCE_POSITIONS", "concentration", 9.0)]
    assert monitored(replace(OFF, losses_in_row_max=1)) == [(20.0, "HALT_SYMBOL", "cool_down", 1.0)]
    assert monitored(replace(OFF, symbol_loss_max=0.5)) == [(10.0, "HALT_SYMBOL", "symbol_loss", 1.0)]


def test_a_contracts_multiplier_is_part_of_its_loss() -> None:
    assert monitored(replace(OFF, symbol_loss_max=0.5), multiplier="2") == [(10.0, "HALT_SYMBOL", "symbol_loss", 2.0)]


def test_every_limit_on_at_once() -> None:
    config = RiskConfig(
        gross_exposure_max=5.0, concentration_max=5.0, symbol_loss_max=0.5, losses_in_row_max=1, daily_loss_max=0.1,
        var_ewma_max=0.1, es_max=0.1,
    )  # fmt: skip
    assert [(when, code) for when, _, code, _ in monitored(config)] == [
        (1.0, "gross_exposure"), (10.0, "symbol_loss"), (10.0, "concentration"), (20.0, "cool_down"),
    ]  # fmt: skip


def action(kind: RiskActionKind, value: float = 2.0, limit: float = 1.0) -> RiskAction:
    return RiskAction(kind=kind, code="gross_exposure", value=value, limit=limit)


def limited(wanted: Any, actions: Any, config: RiskConfig, held: Any = ()) -> list[tuple[Any, float]]:
    points = [(s, TargetPosition(symbol="A", quantity=q, asof=T0)) for s, q in wanted]
    positions = [
        (s, PositionUpdate(symbol="A", quantity=q, average_price=1.0, realised=0.0, fees=0.0)) for s, q in held
    ]

    def graph() -> Any:
        return limit_target(at(*points), at(*positions, typ=PositionUpdate), at(*actions, typ=RiskAction), A, config)

    out = run(graph)
    return [(t, target.quantity) for t, target in out]


def test_a_stop_flattens_once_and_silences_the_strategy() -> None:
    stop = [(1.0, action(RiskActionKind.EMERGENCY_STOP)), (3.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, 5.0), (2.0, -5.0)], stop, RiskConfig()) == [(T0, 5.0), (T0 + SECOND, 0.0)]
    assert limited([(0.0, 5.0), (2.0, -5.0)], stop, RiskConfig(flatten=False)) == [(T0, 5.0)]


def test_risk_has_the_last_word_in_a_cycle_that_both_speak_in() -> None:
    stop, reduce = [(1.0, action(RiskActionKind.EMERGENCY_STOP))], [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(1.0, 5.0)], stop, RiskConfig()) == [(T0 + SECOND, 0.0)]
    assert limited([(1.0, 5.0)], reduce, RiskConfig(), [(0.0, 4.0)]) == [(T0 + SECOND, 2.0)]


def test_a_target_of_nothing_in_the_cycle_of_a_reduction_is_not_lost() -> None:
    reduce = [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, -5.0), (1.0, 0.0)], reduce, RiskConfig(), [(0.5, -5.0)]) == [(T0, -5.0), (T0 + SECOND, 0.0)]


@pytest.mark.parametrize(("held", "scaled"), [(5.0, 2.5), (-5.0, -2.5), (0.1, 0.0)])
def test_a_reduction_scales_the_position_towards_zero(held: float, scaled: float) -> None:
    reduce = [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, held)], reduce, RiskConfig(), [(0.5, held)]) == [(T0, held), (T0 + SECOND, scaled)]


def test_a_reduction_never_asks_for_more_because_a_target_was_refused() -> None:
    # -1 is held, a target of -2.5 was refused: half of what is held, not half of what was wanted.
    reduce = [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, -2.5)], reduce, RiskConfig(), [(0.5, -1.0)])[1:] == [(T0 + SECOND, -0.5)]


def test_a_stop_is_critical_and_a_reduction_a_warning() -> None:
    out = run(
        lambda: action_alert(
            at((0.0, action(RiskActionKind.EMERGENCY_STOP)), (1.0, action(RiskActionKind.REDUCE_POSITIONS)))
        )
    )
    assert [a.level for a in values(out)] == [AlertLevel.CRITICAL, AlertLevel.WARNING]
    assert values(out)[0].message == "EMERGENCY_STOP: gross_exposure is 2.0000, the limit 1.0000"


def halt(symbol: str, seconds: float) -> RiskAction:
    until = T0 + timedelta(seconds=seconds)
    return RiskAction(
        kind=RiskActionKind.HALT_SYMBOL, code="symbol_loss", value=0.06, limit=0.05, symbol=symbol, until=until
    )


def test_a_halted_symbol_is_closed_once_and_its_targets_wait_for_the_end() -> None:
    wanted = [(0.0, 5.0), (2.0, 6.0), (6.0, 7.0), (9.0, 8.0)]
    halts = [(1.0, halt("A", 5.0)), (3.0, halt("A", 8.0)), (4.0, halt("A", 5.0))]
    assert limited(wanted, halts, RiskConfig()) == [(T0, 5.0), (T0 + SECOND, 0.0), (T0 + 9 * SECOND, 8.0)]


def test_the_halt_of_another_symbol_or_a_strategy_changes_nothing() -> None:
    strategy = RiskAction(kind=RiskActionKind.HALT_STRATEGY, code="x", value=2.0, limit=1.0, strategy="trend")
    assert limited([(0.0, 5.0), (1.0, 6.0)], [(1.0, halt("B", 5.0)), (2.0, strategy)], RiskConfig()) == [
        (T0, 5.0),
        (T0 + SECOND, 6.0),
    ]


def test_a_reduction_of_a_halted_symbol_asks_for_nothing() -> None:
    reduce = action(RiskActionKind.REDUCE_POSITIONS)
    assert limited([(0.0, 5.0)], [(1.0, halt("A", 9.0)), (2.0, reduce)], RiskConfig(), [(0.5, 5.0)])[1:] == [
        (T0 + SECOND, 0.0)
    ]


def test_a_stop_closes_a_halted_symbol_again_because_it_cancelled_what_closed_it() -> None:
    stop = action(RiskActionKind.EMERGENCY_STOP)
    assert limited([(0.0, 5.0)], [(1.0, halt("A", 9.0)), (2.0, stop), (3.0, stop)], RiskConfig())[1:] == [
        (T0 + SECOND, 0.0),
        (T0 + 2 * SECOND, 0.0),
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 10), st.sampled_from(("REDUCE_POSITIONS", "EMERGENCY_STOP", "A"))), max_size=5),
)
def test_risk_never_asks_for_more_than_the_strategy_wants(wanted: list[int], acts: list[tuple[int, str]]) -> None:
    actions = [
        (second + 0.5, halt("A", second + 3.0) if kind == "A" else action(RiskActionKind[kind]))
        for second, kind in sorted(acts)
    ]
    most = max(abs(w) for w in wanted) / 10
    targets = limited(
        [(float(i), w / 10) for i, w in enumerate(wanted)], actions, RiskConfig(), [(0.2, wanted[0] / 10)]
    )
    assert all(abs(quantity) <= most + 1e-9 for _, quantity in targets)
    stops = [T0 + timedelta(seconds=s) for s, a in actions if a.kind is RiskActionKind.EMERGENCY_STOP]
    assert all(when <= stops[0] for when, _ in targets) if stops else True


def test_halts_say_whom_they_concern_and_until_when() -> None:
    strategy = RiskAction(
        kind=RiskActionKind.HALT_STRATEGY,
        code="drawdown",
        value=0.21,
        limit=0.2,
        strategy="trend",
        until=datetime(2024, 2, 1),
    )
    out = run(lambda: action_alert(at((0.0, halt("A", 60.0)), (1.0, strategy))))
    assert [(a.level, a.symbol, a.message) for a in values(out)] == [
        (AlertLevel.ALERT, "A", "HALT_SYMBOL A until 2024-01-02 14:31:00: symbol_loss is 0.0600, the limit 0.0500"),
        (AlertLevel.ALERT, "", "HALT_STRATEGY trend until 2024-02-01 00:00:00: drawdown is 0.2100, the limit 0.2000"),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"drawdown_max": 1.0},
        {"gross_exposure_max": -1.0},
        {"var_max": math.nan},
        {"var_window": 5},
        {"orders_per_second_max": 0},
        {"cancels_per_second_max": 2_000_000},
        {"daily_loss_max": 0.0},
        {"symbol_loss_max": 1.0},
        {"price_collar": -0.1},
        {"net_exposure_max": math.inf},
        {"position_notional_max": 0.0},
        {"es_max": math.nan},
        {"var_ewma_max": -0.1},
        {"order_lots_max": 0},
        {"losses_in_row_max": 0},
        {"cool_down_s": 0.0},
        {"quote_age_max_s": math.nan},
        {"duplicate_window_s": 1e10},
        {"reduce_hold_s": -1.0},
    ],
)
def test_impossible_limits_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        RiskConfig(**bad)
