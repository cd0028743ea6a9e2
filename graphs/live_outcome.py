"""What became of a live run: counted in the graph, told at its end."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import csp
from csp import ts

from brokers.events import Fill, OrderRequest, OrderState, OrderUpdate
from brokers.figures import passed
from feeds.clock import utc_now
from graphs.edges import AccountStreams
from nodes.events import Alert, PositionUpdate, RiskAction, RiskActionKind

_REJECTED = OrderState.REJECTED


@dataclass(slots=True, eq=False)  # compared by identity, so that csp can hash it
class LiveOutcome:
    """How a live run went."""

    began: datetime = field(default_factory=utc_now)  # wall clock
    reached: datetime | None = None  # engine time at its end
    orders: int = 0
    fills: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by code
    alerts: Counter[str] = field(default_factory=Counter)  # by level
    equity_first: float | None = None  # account currency
    equity: float | None = None
    positions: dict[str, float] = field(default_factory=dict)  # base units
    halted: str = ""  # when and why risk stopped it; "" when it did not
    settled: bool | None = None  # whether all orders had ended when it stopped; None: nobody asked it to stop
    at_once: bool = False  # a second request to stop did not wait


@csp.node
def _count(
    order: ts[OrderRequest],
    update: ts[OrderUpdate],
    fill: ts[Fill],
    alert: ts[Alert],
    risk: ts[RiskAction],
    equity: ts[float],
    position: ts[PositionUpdate],
    finished: ts[bool],
    outcome: LiveOutcome,
) -> None:
    with csp.stop():
        outcome.reached = csp.now()

    if csp.ticked(order):
        outcome.orders += 1
    if csp.ticked(update) and update.state is _REJECTED:
        outcome.refused[update.code] += 1
    if csp.ticked(fill):
        outcome.fills += 1
    if csp.ticked(alert):
        outcome.alerts[alert.level.name] += 1
    if csp.ticked(risk) and risk.kind is RiskActionKind.EMERGENCY_STOP:
        outcome.halted = passed(risk.code, risk.value, risk.limit, csp.now())
    if csp.ticked(equity):
        if outcome.equity_first is None:
            outcome.equity_first = equity
        outcome.equity = equity
    if csp.ticked(position):
        outcome.positions[position.symbol] = position.quantity
    if csp.ticked(finished):
        outcome.settled = finished


def remember(streams: AccountStreams, finished: ts[bool], outcome: LiveOutcome) -> None:
    """Note in `outcome` what the streams say."""
    _count(
        streams.orders,
        streams.updates,
        streams.fills,
        streams.alerts,
        streams.risk,
        streams.equity,
        streams.position,
        finished,
        outcome,
    )
