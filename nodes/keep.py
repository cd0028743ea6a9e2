"""What an account on paper writes to its journal, so that the next run goes on from there."""

from datetime import datetime, timedelta
from decimal import Decimal

import csp
from csp import ts

from brokers.events import CashFlow, Fill
from brokers.journal import Halt, Journal, KeptFill, KeptFlow
from brokers.ledger import Contract
from brokers.opening import Opening, plain
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.loss_limits import next_midnight

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


def nanoseconds(time: datetime) -> int:
    """Naive UTC as nanoseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND * 1_000


def kept_fill(fill: Fill, contract: Contract, trade_id: str) -> KeptFill:
    """A fill as the journal has it, in decimals that are exact multiples of its steps.

    Raises:
        ValueError: the fill is off the steps of its instrument.
    """
    instrument, fee = contract.instrument, contract.denomination.quanta(fill.fee) // contract.fee_unit
    return KeptFill(
        symbol=fill.symbol,
        trade_id=trade_id,
        order_id=fill.order_id,
        side=fill.side.name,
        quantity=plain(Decimal(instrument.lot) * contract.lots.exact(fill.quantity)),
        price=plain(Decimal(instrument.tick) * contract.ticks.exact(fill.price)),
        fee=plain(Decimal(instrument.currency_unit) * fee),
        base_fee=plain(Decimal(instrument.base_unit or instrument.lot) * contract.units.exact(fill.base_fee)),
        liquidity=fill.liquidity.name,
        time_ns=nanoseconds(fill.market_time),
    )


@csp.node
def keep_fills(fill: ts[Fill], instruments: tuple[Instrument, ...], journal_path: str) -> None:
    """Write every fill of a simulated venue to the journal in its own cycle.

    Args:
        fill: of the account; the ids of its orders were used in no earlier run, as those of runs with an id of their
            own are.
        journal_path: of the account's journal, where the run has begun.

    Raises:
        JournalError: the journal cannot be opened or written.
        ValueError: a fill off the steps of its instrument.
    """
    with csp.state():
        s_journal = None
        s_contracts = {i.symbol: Contract(i) for i in instruments}
        s_count = 0
    with csp.start():
        s_journal = Journal(journal_path, durable=False)
    with csp.stop():
        if s_journal is not None:
            s_journal.close()

    if csp.ticked(fill):
        s_count += 1
        s_journal.fill(kept_fill(fill, s_contracts[fill.symbol], f"{fill.order_id}/{s_count}"))


@csp.node
def keep_flows(flow: ts[CashFlow], instruments: tuple[Instrument, ...], journal_path: str) -> None:
    """Write what was paid or received without a trade to the journal in its own cycle.

    Args:
        flow: funding, borrow and dividends.
        journal_path: of the account's journal, where the run has begun.

    Raises:
        JournalError: the journal cannot be opened or written.
        ValueError: an amount that is no multiple of the currency's unit.
    """
    with csp.state():
        s_journal = None
        s_contracts = {i.symbol: Contract(i) for i in instruments}
    with csp.start():
        s_journal = Journal(journal_path, durable=False)
    with csp.stop():
        if s_journal is not None:
            s_journal.close()

    if csp.ticked(flow):
        contract = s_contracts[flow.symbol]
        units = contract.denomination.quanta(flow.amount) // contract.fee_unit
        amount = plain(Decimal(contract.instrument.currency_unit) * units)
        time_ns = nanoseconds(csp.now())
        s_journal.flow(KeptFlow(symbol=flow.symbol, amount=amount, kind=flow.kind, time_ns=time_ns))


@csp.node
def keep_risk(equity: ts[float], journal_path: str, opening: Opening | None) -> None:
    """Write what drawdown and daily loss are measured from to the journal: the peak, and the start of the day.

    Both are what `nodes.loss_limits.account_limits` goes by. They are written a second after they have changed, so at
    most once a second, and at the end of the run; a run that is killed loses the last second of them. A run that risk
    has stopped writes nothing more: once a person has reset that, losses are measured anew.

    Args:
        equity: marked account value, from the moment on at which the run is live.
        journal_path: of the account's journal, where the run has begun.
        opening: what was written before.

    Raises:
        JournalError: the journal cannot be opened or written.
    """
    with csp.alarms():
        a_write = csp.alarm(bool)
    with csp.state():
        s_journal = None
        s_peak = 0.0 if opening is None else opening.equity_peak
        s_day = "" if opening is None else opening.day
        s_start = 0.0 if opening is None else opening.day_start
        s_last = 0.0
        s_due = datetime.min  # noqa: DTZ901 - the first mark from then on is of a new day, or of the first one
        s_heard = s_changed = False
        s_halts: list[Halt] = []  # those that have been reset; another one is of this run, or holds for it
    with csp.start():
        s_journal = Journal(journal_path, durable=False)
        s_halts = [halt for halt in s_journal.history() if halt.reset_by]
    with csp.stop():
        if s_journal is not None:
            if s_changed and len(s_journal.history()) == len(s_halts):
                s_journal.save_risk(s_peak, s_day, s_start)
            s_journal.close()

    if csp.ticked(equity):
        if equity > s_peak or csp.now() >= s_due:
            before = csp.now() - 2 * SETTLE  # midnight's own marks are of the day that ends
            today = before.date().isoformat()
            s_due = next_midnight(before) + 2 * SETTLE
            if not s_changed and (equity > s_peak or today > s_day):
                s_changed = True
                csp.schedule_alarm(a_write, _SECOND, True)
            s_peak = max(s_peak, equity)
            if today > s_day:
                s_day, s_start = today, s_last if s_heard else equity
        s_last = equity
        s_heard = True
    if csp.ticked(a_write):
        s_changed = False
        if len(s_journal.history()) == len(s_halts):
            s_journal.save_risk(s_peak, s_day, s_start)
