"""Emergency stops that outlive the run."""

import csp
from csp import ts

from brokers.figures import passed
from brokers.journal import Journal
from nodes.events import RiskAction, RiskActionKind

_STOP, _HALT_SYMBOL = RiskActionKind.EMERGENCY_STOP, RiskActionKind.HALT_SYMBOL


@csp.node
def keep_halt(action: ts[RiskAction], equity: ts[float], journal_path: str) -> None:
    """Write every EMERGENCY_STOP to the journal in its own cycle: it is on disk before the cycle ends.

    Args:
        action: what risk asks for.
        equity: account value, its currency; passive.
        journal_path: of the account's journal; opened at the start, so that one that cannot be used stops the run
            before it trades.

    Raises:
        JournalError: the journal cannot be opened or written.
    """
    with csp.state():
        s_journal = None
    with csp.start():
        csp.make_passive(equity)
        s_journal = Journal(journal_path)
    with csp.stop():
        if s_journal is not None:
            s_journal.close()

    if csp.ticked(action) and action.kind is _STOP:
        s_journal.halt(
            action.code,
            passed(action.code, action.value, action.limit),
            csp.now(),
            value=action.value,
            limit=action.limit,
            equity=equity if csp.valid(equity) else float("nan"),
        )


@csp.node
def close_halted(price: ts[float], symbol: str, held: float) -> ts[RiskAction]:
    """Ask for the end of what an earlier EMERGENCY_STOP has left of one symbol, where nobody has reset the stop.

    Args:
        price: of the symbol; without one no order can be judged.
        held: of it at the start, base units or contracts.

    Ticks:
        HALT_SYMBOL without an end, with the first price.
    """
    if csp.ticked(price):
        csp.make_passive(price)
        return RiskAction(kind=_HALT_SYMBOL, code="halted_position", value=held, limit=0.0, symbol=symbol)
