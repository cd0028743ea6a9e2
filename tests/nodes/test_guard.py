import math
from datetime import timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, ticks, values

from nodes.events import Alert, AlertLevel, NodeError, Signal
from nodes.guard import degraded, error_alert, error_text, guarded, guarded_signal

SECOND = timedelta(seconds=1)


def inverse(x: float) -> float:
    return 1.0 / x


def signal_of(score: Any, confidence: float = 0.5, symbol: str = "A", source: str = "model") -> Signal:
    return Signal(symbol=symbol, source=source, score=score, confidence=confidence, horizon_s=60.0, asof=T0)


def failing_below_zero(x: float) -> Signal:
    if x < 0.0:
        raise ValueError(f"no root of {x}")
    return signal_of(x)


def failure(error: str, node: str = "model", symbol: str = "A") -> NodeError:
    return NodeError(node=node, symbol=symbol, error=error)


def guard(fn: Any, *xs: Any, out_type: type = float) -> Any:
    def system() -> Any:
        out = guarded(ticks(*xs), fn, "inverse", "A", out_type)
        return {"value": out.value, "error": out.error}

    return run(system)


def guard_signal(fn: Any, *xs: float) -> Any:
    def system() -> Any:
        out = guarded_signal(ticks(*xs), fn, "model", "A")
        return {"signal": out.signal, "error": out.error, "alert": out.alert}

    return run(system)


def second(ticked: Any) -> list[int]:
    return [round((when - T0).total_seconds()) for when, _ in ticked]


# ---- guarded


def test_a_failure_ticks_as_an_error_in_place_of_a_value() -> None:
    out = guard(inverse, 2.0, 0.0, 4.0)

    assert out["value"] == [(T0, 0.5), (T0 + 2 * SECOND, 0.25)]
    assert out["error"] == [
        (T0 + SECOND, failure("ZeroDivisionError: float division by zero", node="inverse")),
    ]


@pytest.mark.parametrize(
    ("result", "out_type", "found"),
    [("0.5", float, "str"), ([0.5], float, "list"), (object(), Signal, "object"), (1.0, Signal, "float")],
)
def test_a_result_of_another_type_is_an_error(result: Any, out_type: type, found: str) -> None:
    out = guard(lambda x: result, 1.0, out_type=out_type)

    assert out["value"] == []
    (error,) = values(out["error"])
    assert error.error.startswith("TypeError: ")
    assert f'got type "{found}"' in error.error
    assert "0x7" not in error.error


def test_none_is_no_tick() -> None:
    assert guard(lambda x: x if x > 1.0 else None, 1.0, 2.0) == {"value": [(T0 + SECOND, 2.0)], "error": []}


def test_an_interrupt_still_interrupts() -> None:
    class Interrupt(BaseException):
        pass

    def interrupted(x: float) -> float:
        raise Interrupt

    with pytest.raises(Interrupt):
        guard(interrupted, 1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_every_tick_gives_a_value_or_an_error(xs: list[float]) -> None:
    out = guard(lambda x: math.sqrt(x) if x != 4.0 else "four", *xs)

    assert sorted(second(out["value"]) + second(out["error"])) == list(range(len(xs)))


# ---- error_text


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (ValueError("two\nlines\tand  more"), "ValueError: two lines and more"),
        (TypeError("got <object at 0x7f3a2c>, want 0xFF"), "TypeError: got <object at 0x?>, want 0x?"),
        (ValueError("x" * 300), "ValueError: " + "x" * 197 + "..."),
        (UnprintableError(), "UnprintableError"),
    ],
)
def test_an_error_text_is_one_line_that_repeats_in_every_run(exc: Exception, text: str) -> None:
    assert error_text(exc) == text


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_an_error_text_is_short_and_has_no_line_break(text: str) -> None:
    line = error_text(ValueError(text))

    assert len(line) <= len("ValueError: ") + 200
    assert len(line.splitlines()) == 1


def test_two_runs_give_equal_errors() -> None:
    def confused(x: float) -> float:
        raise ValueError(f"cannot use {object()} with {x}")

    assert guard(confused, 1.0, 2.0) == guard(confused, 1.0, 2.0)


# ---- error_alert


def alerts(*errors: tuple[float, NodeError], **kwargs: float) -> Any:
    return run(lambda: error_alert(at(*errors), **kwargs))


def test_a_failure_alerts_once_until_it_is_worth_repeating() -> None:
    broken = failure("ValueError: 1")

    ticked = alerts((0.0, broken), (1.0, failure("ValueError: 2")), (59.9, broken), (60.0, broken), repeat_after_s=60.0)

    assert second(ticked) == [0, 60]
    assert ticked[0][1] == Alert(
        level=AlertLevel.WARNING, source="model", symbol="A", message="model failed: ValueError: 1", value=0.0
    )


def test_another_node_symbol_or_type_of_error_alerts_at_once() -> None:
    ticked = alerts(
        (0.0, failure("ValueError: 1")),
        (1.0, failure("KeyError: 1")),
        (2.0, failure("ValueError: 1", symbol="B")),
        (3.0, failure("ValueError: 1", node="other")),
        (4.0, failure("ValueError: 1")),
    )

    assert second(ticked) == [0, 1, 2, 3]


def test_no_pause_alerts_on_each_error() -> None:
    broken = failure("ValueError")

    assert second(alerts((0.0, broken), (1.0, broken), repeat_after_s=0.0)) == [0, 1]


def test_errors_at_one_time_are_told_apart() -> None:
    def system() -> Any:
        both = csp.flatten([at((0.0, failure("ValueError"))), at((0.0, failure("KeyError")))])
        return error_alert(both)

    assert [alert.message for alert in values(run(system))] == [
        "model failed: ValueError",
        "model failed: KeyError",
    ]


def test_what_alerts_remembers_is_bounded() -> None:
    # 1025 kinds push the first one out, so it alerts again; the last one does not.
    kinds = [failure(f"Error{i}") for i in range(1025)]
    points = [(float(i), kind) for i, kind in enumerate([*kinds, kinds[-1], kinds[0]])]

    assert second(alerts(*points)) == [*range(1025), 1026]


@pytest.mark.parametrize("repeat_after_s", [-1.0, math.nan])
def test_an_impossible_pause_is_refused(repeat_after_s: float) -> None:
    with pytest.raises(ValueError, match="repeat_after_s must not be negative"):
        alerts((0.0, failure("ValueError")), repeat_after_s=repeat_after_s)


# ---- degraded and guarded_signal


def test_a_degraded_signal_has_no_score_and_no_confidence() -> None:
    ticked = run(lambda: degraded(at((3.0, failure("ValueError"))), "model"))

    now = T0 + 3 * SECOND
    assert ticked == [
        (now, Signal(symbol="A", source="model", score=0.0, confidence=0.0, horizon_s=1.0, asof=now)),
    ]


def test_a_failing_source_degrades_once_and_comes_back_with_its_next_good_signal() -> None:
    out = guard_signal(failing_below_zero, 0.5, -1.0, -2.0, 0.25, -3.0)

    assert [(t, s.score, s.confidence) for t, s in zip(second(out["signal"]), values(out["signal"]), strict=True)] == [
        (0, 0.5, 0.5),
        (1, 0.0, 0.0),
        (3, 0.25, 0.5),
        (4, 0.0, 0.0),
    ]
    assert [signal.source for signal in values(out["signal"])] == ["model"] * 4
    assert second(out["error"]) == [1, 2, 4]
    assert values(out["error"])[0] == failure("ValueError: no root of -1.0")
    assert second(out["alert"]) == [1]


def test_none_does_not_end_an_episode() -> None:
    def sometimes(x: float) -> Signal | None:
        return None if x == 0.0 else failing_below_zero(x)

    assert second(guard_signal(sometimes, -1.0, 0.0, -1.0, 0.5)["signal"]) == [0, 3]


@pytest.mark.parametrize(
    ("signal", "error"),
    [
        (signal_of(math.nan), "ValueError: score must lie in [-1, 1], was nan"),
        (signal_of(-1.5), "ValueError: score must lie in [-1, 1], was -1.5"),
        (signal_of(0.5, confidence=math.nan), "ValueError: confidence must lie in [0, 1], was nan"),
        (signal_of(0.5, confidence=2.0), "ValueError: confidence must lie in [0, 1], was 2.0"),
        (signal_of(0.5, symbol="B"), "ValueError: want a signal of 'model' on 'A', was 'model' on 'B'"),
        (signal_of(0.5, source="x"), "ValueError: want a signal of 'model' on 'A', was 'x' on 'A'"),
    ],
)
def test_a_signal_that_nobody_could_use_is_a_failure(signal: Signal, error: str) -> None:
    out = guard_signal(lambda x: signal, 1.0)

    assert values(out["error"]) == [failure(error)]
    assert [(s.score, s.confidence) for s in values(out["signal"])] == [(0.0, 0.0)]


def test_a_signal_without_a_horizon_is_a_failure() -> None:
    endless = Signal(symbol="A", source="model", score=0.5, confidence=0.5, horizon_s=math.inf, asof=T0)

    (error,) = values(guard_signal(lambda x: endless, 1.0)["error"])

    assert error.error == "ValueError: horizon_s must be positive and finite, was inf"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_whatever_comes_in_only_usable_signals_go_out(xs: list[float]) -> None:
    out = guard_signal(lambda x: signal_of(math.sqrt(x)), *xs)

    usable = [i for i, x in enumerate(xs) if 0.0 <= x <= 1.0]
    good = [t for t, s in zip(second(out["signal"]), values(out["signal"]), strict=True) if s.confidence > 0.0]
    assert good == usable
    assert all(-1.0 <= signal.score <= 1.0 for signal in values(out["signal"]))
    first_failures = [i for i in range(len(xs)) if i not in usable and (i == 0 or i - 1 in usable)]
    assert second(out["signal"]) == sorted(usable + first_failures)
