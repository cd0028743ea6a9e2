"""The end of a live run that a person asked for: nothing new is sent, and what works is awaited."""

import math
from datetime import timedelta

import csp
from csp import ts

from brokers.events import Fill, OrderRequest, OrderState, OrderUpdate
from brokers.opening import Opening
from brokers.orders import ENDED
from nodes.events import RiskAction, RiskActionKind
from nodes.order_checks import CODES

CANCEL, KEEP = "cancel", "keep"  # what becomes of the orders that work
_FILLED, _ACCEPTED, _REJECTED = OrderState.FILLED, OrderState.ACCEPTED, OrderState.REJECTED
_UNANSWERED = (OrderState.NEW, OrderState.PENDING, OrderState.CANCEL_PENDING)
_NOTHING = 1e-9  # of the quantity of an order: what rounding may leave of it


@csp.node
def wind_down(stop: ts[bool], on_stop: str) -> ts[RiskAction]:
    """Ask the gate to let nothing new pass, and to cancel what works or to leave it.

    Args:
        stop: a person asked for it.
        on_stop: "cancel" or "keep"; the code of the action.

    Ticks:
        WIND_DOWN with the first `stop`.

    Raises:
        ValueError: another `on_stop`.
    """
    with csp.start():
        if on_stop not in (CANCEL, KEEP):
            raise ValueError(f"on_stop must be {CANCEL} or {KEEP}, was {on_stop!r}")

    if csp.ticked(stop):
        csp.make_passive(stop)
        return RiskAction(kind=RiskActionKind.WIND_DOWN, code=on_stop, value=1.0, limit=0.0)


class Working:
    """What the venue still owes an answer: orders that have not ended, or, where they are kept, that it has not
    answered; and the fills that are still to come of those that have ended."""

    __slots__ = ("_asked", "_ended", "_keep", "_open")

    def __init__(self, opening: Opening | None, *, keep: bool) -> None:
        self._keep = keep
        self._asked = set[str]()  # order ids of what was sent or is being cancelled, and not answered
        working = () if opening is None else opening.orders
        # By order id: what is open of it, and what is so little that it is a matter of rounding.
        self._open = {o.order_id: (float(o.remaining), float(o.quantity) * _NOTHING) for o in working}
        self._ended: dict[str, tuple[float, float]] = {}  # the same, of what it has filled and not told yet

    def __len__(self) -> int:
        return len(self._asked if self._keep else self._open) + len(self._ended)

    def sent(self, order: OrderRequest) -> None:
        self._open[order.order_id] = (order.quantity, order.quantity * _NOTHING)
        self._asked.add(order.order_id)

    def filled(self, fill: Fill) -> None:
        order_id = fill.order_id
        if order_id in self._open:
            left, slack = self._open[order_id]
            self._open[order_id] = (left - fill.quantity, slack)
        elif order_id in self._ended:
            self._owe(order_id, *self._ended.pop(order_id), fill.quantity)

    def updated(self, update: OrderUpdate) -> None:
        order_id, state = update.order_id, update.state
        if order_id not in self._open or (state is _REJECTED and update.code in CODES):
            return  # a refusal of the gate may bear the id of an order that works
        if state in _UNANSWERED:
            self._asked.add(order_id)
        else:
            self._asked.discard(order_id)
        left, slack = self._open[order_id]
        if state not in ENDED:
            if state is _ACCEPTED or update.code:  # a replacement, or an order that was cut, has less open than asked
                self._open[order_id] = (min(left, update.remaining), slack)
            return
        del self._open[order_id]
        if state is _FILLED:
            self._owe(order_id, left, slack, 0.0)
        elif state is not _REJECTED and update.remaining > 0.0:
            self._owe(order_id, left, slack, update.remaining)

    def _owe(self, order_id: str, left: float, slack: float, less: float) -> None:
        if left - less > slack:
            self._ended[order_id] = (left - less, slack)


@csp.node
def finished(
    stop: ts[bool],
    approved: ts[OrderRequest],
    update: ts[OrderUpdate],
    fill: ts[Fill],
    on_stop: str,
    timeout_s: float,
    opening: Opening | None,
) -> ts[bool]:
    """Say when a run that winds down may end.

    Args:
        stop: a person asked for it.
        approved: orders that passed the gate.
        update: every change of state of every order.
        fill: executions. An order that is FILLED works until its last fill has come, whichever of the two is first.
        on_stop: "cancel", or "keep": then orders that work are not waited for, only the venue's answers.
        timeout_s: how long to wait, engine seconds.
        opening: orders that worked before the first of these.

    Ticks:
        Once: True when nothing is waited for any more, no earlier than `stop`; False when something still is after
        `timeout_s`.

    Raises:
        ValueError: a `timeout_s` that is not positive and finite.
    """
    with csp.alarms():
        a_late = csp.alarm(bool)
    with csp.state():
        s_working = Working(opening, keep=on_stop == KEEP)
        s_stopping = False
        s_told = False
    with csp.start():
        if not 0.0 < timeout_s < math.inf:
            raise ValueError(f"timeout_s must be positive and finite, was {timeout_s}")

    if csp.ticked(approved):
        s_working.sent(approved)
    if csp.ticked(update):
        s_working.updated(update)
    if csp.ticked(fill):
        s_working.filled(fill)
    if csp.ticked(stop) and not s_stopping:
        s_stopping = True
        csp.schedule_alarm(a_late, timedelta(seconds=timeout_s), True)
    if s_stopping and not s_told and (csp.ticked(a_late) or not s_working):
        s_told = True
        return not s_working
