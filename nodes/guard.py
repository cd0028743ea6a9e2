"""Calculations that may fail without taking the graph down: an error is a tick."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import csp
from csp import ts

from nodes.events import Alert, AlertLevel, NodeError, Signal

T = TypeVar("T")
U = TypeVar("U")

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_TEXT_MAX = 200  # characters of an exception's own text
_ALERTS_MAX = 1024  # kinds of error that `error_alert` remembers


def error_text(exc: BaseException) -> str:
    """One line "Type: text" that is the same in every run: no traceback, no memory address, no line break.

    What else differs between runs, such as a wall clock or the order of a set, must not be put into a text at all.
    """
    try:
        text = str(exc)
    except Exception:  # a broken __str__ must not replace the failure that it was to describe
        text = ""
    text = " ".join(_ADDRESS.sub("0x?", text).split())
    if len(text) > _TEXT_MAX:
        text = text[: _TEXT_MAX - 3] + "..."
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


@csp.node
def guarded(x: ts["T"], fn: Callable[[Any], Any], name: str, symbol: str, out_type: "U") -> csp.Outputs(
    value=ts["U"], error=ts[NodeError]
):
    """Apply `fn` to each tick of `x`; whatever it raises, and a result of another type, becomes a NodeError.

    Args:
        fn: takes the value of `x` and returns an `out_type`, or None for no tick. It must not change its argument.
        name: what to call the calculation in the error.
        symbol: what it is about, "" for no one symbol.
        out_type: the type of the result, checked on each tick as csp checks every output.

    Ticks:
        value: the result. NaN is a float; a `fn` for which it is a failure has to raise.
        error: in place of the value, at each failure. Only subclasses of Exception: an interrupt still interrupts.
    """
    if csp.ticked(x):
        try:
            result = fn(x)
            if result is not None:
                csp.output(value=result)
        except Exception as exc:
            csp.output(error=NodeError(node=name, symbol=symbol, error=error_text(exc)))


@csp.node
def error_alert(error: ts[NodeError], repeat_after_s: float = 3600.0) -> ts[Alert]:
    """Tell a person that a calculation fails, without repeating it at every tick.

    Args:
        error: of any number of nodes, for example collected by `csp.flatten`.
        repeat_after_s: engine seconds after which the same failure is worth another alert; 0.0 alerts on each.

    Ticks:
        WARNING on an error whose node, symbol and type (the text before the first colon) last alerted
        `repeat_after_s` ago or never. The 1024 kinds that alerted last are remembered.

    Raises:
        ValueError: `repeat_after_s` is negative or not a number.
    """
    with csp.state():
        s_told_at: dict[tuple[str, str, str], datetime] = {}

    with csp.start():
        if not repeat_after_s >= 0.0:
            raise ValueError(f"repeat_after_s must not be negative, was {repeat_after_s}")

    if csp.ticked(error):
        kind = (error.node, error.symbol, error.error.partition(":")[0])
        told_at = s_told_at.get(kind)
        if told_at is None or (csp.now() - told_at).total_seconds() >= repeat_after_s:
            s_told_at.pop(kind, None)  # so that the order of the dict is the order of the alerts
            s_told_at[kind] = csp.now()
            if len(s_told_at) > _ALERTS_MAX:
                del s_told_at[next(iter(s_told_at))]
            return Alert(
                level=AlertLevel.WARNING,
                source=error.node,
                symbol=error.symbol,
                message=f"{error.node} failed: {error.error}",
                value=0.0,
            )


@csp.node
def degraded(error: ts[NodeError], source: str) -> ts[Signal]:
    """The signal of a source that cannot be trusted now: score 0, confidence 0, so that fusion leaves it out.

    Ticks:
        With each error.
    """
    if csp.ticked(error):
        return Signal(
            symbol=error.symbol,
            source=source,
            score=0.0,
            confidence=0.0,
            horizon_s=1.0,  # of no consequence at confidence 0, but positive as in every signal
            asof=csp.now(),
        )


@csp.node
def _first_failures(value: ts["T"], error: ts[NodeError]) -> ts[NodeError]:
    """The first error of each episode; a value ends an episode."""
    with csp.state():
        s_failing = False

    if csp.ticked(value):
        s_failing = False
    if csp.ticked(error) and not s_failing:
        s_failing = True
        return error


@dataclass(frozen=True, slots=True)
class _Checked:
    """`fn`, refusing signals that no consumer could use."""

    fn: Callable[[Any], Signal | None]
    source: str
    symbol: str

    def __call__(self, x: Any) -> Signal | None:
        signal = self.fn(x)
        if not isinstance(signal, Signal):
            return signal  # None is no tick; any other type is refused by the output
        if (signal.source, signal.symbol) != (self.source, self.symbol):
            raise ValueError(
                f"want a signal of {self.source!r} on {self.symbol!r}, was {signal.source!r} on {signal.symbol!r}"
            )
        if not -1.0 <= signal.score <= 1.0:
            raise ValueError(f"score must lie in [-1, 1], was {signal.score}")
        if not 0.0 <= signal.confidence <= 1.0:
            raise ValueError(f"confidence must lie in [0, 1], was {signal.confidence}")
        if not 0.0 < signal.horizon_s < math.inf:
            raise ValueError(f"horizon_s must be positive and finite, was {signal.horizon_s}")
        return signal


@csp.graph
def guarded_signal(x: ts["T"], fn: Callable[[Any], Signal | None], source: str, symbol: str) -> csp.Outputs(
    signal=ts[Signal], error=ts[NodeError], alert=ts[Alert]
):
    """A signal from a calculation that may fail: while it fails the source stands at confidence 0.

    Args:
        fn: takes the value of `x` and returns a Signal of this `source` and `symbol` with score, confidence and
            horizon within their bounds, or None for no tick. Anything else is a failure.

    Ticks:
        signal: each good signal, and one degraded signal at the first failure of an episode. The first good signal
            afterwards ends the episode; None does not.
        error: at each failure.
        alert: as `error_alert`.
    """
    result = guarded(x, _Checked(fn, source, symbol), source, symbol, Signal)
    fallback = degraded(_first_failures(result.value, result.error), source)
    # Never both in one cycle: `guarded` ticks either value or error.
    signal = csp.merge(result.value, fallback)
    return csp.output(signal=signal, error=result.error, alert=error_alert(result.error))
