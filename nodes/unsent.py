"""A dry run: what would have been sent is told, and nothing is."""

from datetime import timedelta

import csp
from csp import ts

from brokers.events import CancelRequest, OrderRequest, OrderState, OrderUpdate

CODE = "dry_run"
_ANSWER = timedelta(milliseconds=1)  # no order is answered in its own cycle
_EXPIRED = OrderState.EXPIRED


@csp.node
def unsent(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> ts[OrderUpdate]:
    """Answer every order as one that expired before it was sent.

    Args:
        order: as it would have been sent.
        cancel: of nothing that works.

    Ticks:
        EXPIRED with code "dry_run", a millisecond after each order.
    """
    with csp.alarms():
        a_answer = csp.alarm(OrderRequest)
    with csp.start():
        csp.make_passive(cancel)

    if csp.ticked(order):
        csp.schedule_alarm(a_answer, _ANSWER, order)
    if csp.ticked(a_answer):
        return OrderUpdate(
            order_id=a_answer.order_id,
            symbol=a_answer.symbol,
            state=_EXPIRED,
            remaining=a_answer.quantity,
            code=CODE,
            reason="a dry run sends no order",
        )
