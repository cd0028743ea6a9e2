"""Emergency stops that outlive the run."""

import csp
from csp import ts

from brokers.journal import Journal
from nodes.events import RiskAction, RiskActionKind

_STOP = RiskActionKind.EMERGENCY_STOP


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
            f"{action.code} is {action.value:.4f}, the limit {action.limit:.4f}",
            csp.now(),
            value=action.value,
            limit=action.limit,
            equity=equity if csp.valid(equity) else float("nan"),
        )
