"""What to do at the start of a run so that the journal, the venue and the books agree. Pure: views in, a plan out.

The venue is the truth. For each asset, always and exactly,

    balance at the venue = baseline + what the fills of our orders add up to

The baseline is what is not ours to trade: what the account held before the first run, and whatever came or went since
without an order of ours. So nothing that a person does with the account is ever traded with; only where more is gone
than the baseline held, the position, or the cash, is what is left.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from brokers.journal import NOT_SENT, Journal, KeptFill, KeptOrder
from brokers.ledger import METHODS, Ledger
from brokers.opening import ORDER_TYPES, Note, Opening, OpeningOrder, plain
from brokers.restore import (
    START_CASH,
    ReconcileError,
    began_with,
    books,
    decimal,
    ledger_cash,
    one_currency,
    opening_cash,
    opening_position,
    paper_opening,
)
from brokers.venue_ids import is_ours
from brokers.views import SETTLED_FILL, JournalView, VenueOrder, VenueTrade, VenueView, journal_view
from feeds.instruments import Instrument

__all__ = [
    "NEVER_ARRIVED",
    "Cancel",
    "JournalView",
    "Mark",
    "Plan",
    "ReconcileConfig",
    "ReconcileError",
    "VenueOrder",
    "VenueTrade",
    "VenueView",
    "journal_view",
    "paper_opening",
    "reconcile",
    "write",
]

NEVER_ARRIVED = "never_arrived"  # code of an order that the venue does not know, and can no longer take
_POLICIES = ("adopt", "cancel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileConfig:
    """What is done with orders that are found working. An order whose cancel was under way is cancelled in any case."""

    initial_cash: float = 10_000.0  # quote currency, what the first run may trade with; later ones go on from there
    working: str = "adopt"  # or "cancel": orders that the journal knows
    strays: str = (
        "cancel"  # or "adopt": orders with our client id that it does not know; one that has filled is cancelled
    )
    method: str = "average"  # of what a position cost, see `brokers.ledger`

    def __post_init__(self) -> None:
        if not 0.0 <= self.initial_cash < math.inf:
            raise ValueError(f"initial_cash must be finite and not negative, was {self.initial_cash}")
        for name in ("working", "strays"):
            if getattr(self, name) not in _POLICIES:
                raise ValueError(f"{name} must be one of {', '.join(_POLICIES)}, was {getattr(self, name)!r}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, was {self.method!r}")


@dataclass(frozen=True, slots=True)
class Cancel:
    """An order that is to be cancelled, and the code of the note that tells of it."""

    order: VenueOrder
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A change of an order that the journal is to write."""

    client_id: str
    state: str
    venue_id: str
    filled: str
    code: str
    revive: bool  # it had ended in the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do. Where there is something to cancel or to wait for, do that, look again, and make a new one."""

    cancels: tuple[Cancel, ...]
    waits: tuple[str, ...]  # what the views leave open, in sentences
    adopted: tuple[KeptOrder, ...]  # to be written as new
    marks: tuple[Mark, ...]
    fills: tuple[KeptFill, ...]
    baselines: Mapping[str, Decimal]
    start_cash: Decimal
    opening: Opening

    @property
    def final(self) -> bool:
        return not self.cancels and not self.waits


def write(journal: Journal, plan: Plan, now_ns: int) -> None:
    """Put a plan into the journal, all of it or nothing."""
    with journal.transaction():
        for order in plan.adopted:
            journal.order_sent(order)
        for fill in plan.fills:
            journal.fill(fill)
        for mark in plan.marks:
            journal.order_changed(
                mark.client_id,
                mark.state,
                changed_ns=now_ns,
                venue_id=mark.venue_id,
                filled=mark.filled,
                code=mark.code,
                revive=mark.revive,
            )
        for asset, amount in plan.baselines.items():
            journal.set_baseline(asset, plain(amount))
        journal.keep_fact(START_CASH, plain(plan.start_cash))
        if plan.baselines:  # the books agree
            newest = journal.fills()[-1:]
            journal.keep_fact(SETTLED_FILL, str(newest[0].number if newest else 0))


def reconcile(
    journal: JournalView,
    venue: VenueView,
    config: ReconcileConfig,
    instruments: tuple[Instrument, ...],
    *,
    patient: bool = True,
    done: tuple[Note, ...] = (),
) -> Plan:
    """Make the plan.

    Args:
        patient: what cannot be explained is waited for, because a venue may tell of its parts one after the other.
            False: it is told as CRITICAL, and the run starts unclean.
        done: notes of what earlier plans have done.

    Raises:
        ReconcileError: instruments that cannot share an account, fills of a symbol that is not among them, or less cash
            at the venue than the first run is to have.
    """
    currency = one_currency(instruments)
    _refuse_shared(instruments, venue.bases)
    _refuse_strange(journal.orders, venue.bases)
    start_cash, notes = began_with(journal.start_cash, config.initial_cash, currency)
    work = _Orders(journal, venue, config)
    work.known()
    work.strays()
    if not venue.steady:
        work.waits.append("the balances keep changing: somebody else trades on the account")
    ledger = books((*journal.fills, *work.fills), journal.flows, instruments, start_cash, config.method)
    agreement = _Agreement(journal, venue, work)
    contracts = Ledger(instruments, 0.0).contracts
    positions = []
    for symbol, contract in contracts.items():
        position = ledger.positions[symbol]
        units = position.units * position.contract.units.step
        held = opening_position(position, contract, agreement.base(symbol, units))
        if held is not None:
            positions.append(held)
    missing = agreement.quote(currency, ledger_cash(ledger), Fraction(instruments[0].currency_unit))
    unsettled = () if patient else tuple(_note("unsettled", "", wait, level="CRITICAL") for wait in work.waits)
    notes = (*done, *notes, *work.notes, *unsettled, *agreement.notes)
    return Plan(
        cancels=tuple(work.cancels),
        waits=(*work.waits, *agreement.differences) if patient else (),
        adopted=tuple(work.adopted),
        marks=tuple(work.marks),
        fills=tuple(work.fills),
        baselines=agreement.baselines,
        start_cash=decimal(start_cash),
        opening=Opening(
            cash=plain(opening_cash(ledger, contracts[instruments[0].symbol], missing)),
            positions=tuple(positions),
            orders=tuple(work.orders),
            equity_peak=journal.risk.equity_peak,
            day=journal.risk.day,
            day_start=journal.risk.day_start,
            clean=all(note.level != "CRITICAL" for note in notes),
            notes=notes,
        ),
    )


class _Orders:
    """What becomes of each order."""

    def __init__(self, journal: JournalView, venue: VenueView, config: ReconcileConfig) -> None:
        self.cancels: list[Cancel] = []
        self.waits: list[str] = []
        self.adopted: list[KeptOrder] = []
        self.marks: list[Mark] = []
        self.fills: list[KeptFill] = []
        self.orders: list[OpeningOrder] = []
        self.notes: list[Note] = []
        self._journal, self._venue, self._config = journal, venue, config
        self._told = {order.client_id: order for order in venue.orders if order.client_id}
        self._known = {order.client_id for order in journal.orders}
        booked = {(fill.symbol, fill.trade_id) for fill in journal.fills}
        self._trades: dict[tuple[str, str], list[VenueTrade]] = {}
        for trade in venue.trades:
            if (trade.symbol, trade.trade_id) not in booked:
                booked.add((trade.symbol, trade.trade_id))
                self._trades.setdefault((trade.symbol, trade.venue_id), []).append(trade)

    def known(self) -> None:
        """Orders of the journal: the fills and the state that the venue tells, or that it knows nothing."""
        for order in self._journal.orders:
            told = self._told.get(order.client_id)
            if told is not None:
                self._catch_up(order, told)
            elif not self._venue.late:
                self.waits.append(f"order {order.order_id} is not known at the venue, and may still arrive there")
                if not order.ended:
                    self._works(order, Decimal(order.booked))
            else:
                self._forget(order)

    def strays(self) -> None:
        """Orders that work at the venue and are not in the journal: a person's are left alone."""
        for told in self._venue.orders:
            if told.client_id in self._known or not told.working:
                continue
            if not is_ours(told.client_id):
                self._say(
                    "foreign_order", told.symbol, f"order {told.venue_id} is not of this program: it is left alone"
                )
                continue
            order = _stray(told)
            if self._config.strays == "adopt" and order is not None:
                self.adopted.append(order)
                self._works(order, told.filled)
                message = f"order {told.client_id}, which the journal did not know, works on as {order.order_id}"
                self._say("stray_adopted", told.symbol, message, told.quantity, "WARNING")
            else:
                self.cancels.append(Cancel(told, "stray_cancelled"))

    def _catch_up(self, order: KeptOrder, told: VenueOrder) -> None:
        missed = [_kept(trade, order) for trade in self._trades.get((told.symbol, told.venue_id), ())]
        self.fills += missed
        more = sum((Decimal(fill.quantity) for fill in missed), Decimal())
        booked = Decimal(order.booked) + more
        if missed:
            message = f"order {order.order_id} filled {more:f} in {len(missed)} trades that the journal had missed"
            self._say("fills_booked", order.symbol, message, more)
        if booked != told.filled:
            self.waits.append(
                f"order {order.order_id} has filled {told.filled:f} at the venue, its trades add up to {booked:f}"
            )
        cancelling = told.working and order.state == "CANCEL_PENDING"
        if told.working:
            if cancelling or self._config.working == "cancel":
                self.cancels.append(Cancel(told, "order_cancelled"))
            else:
                self._works(order, told.filled)
                code = "order_revived" if order.ended else "order_adopted"
                message = f"order {order.order_id} works on, {told.quantity - told.filled:f} of it is open"
                self._say(code, order.symbol, message, told.quantity, "WARNING" if order.ended else "INFO")
        state = order.state if cancelling else told.state
        if state != order.state or order.code == NOT_SENT:
            self._mark(order, state, told, "rejected" if state == "REJECTED" else "")
            if not told.working:
                self._say("order_ended", order.symbol, f"order {order.order_id} has ended meanwhile: {state}")
        elif (told.venue_id, told.filled) != (order.venue_id, Decimal(order.filled)):
            self._mark(order, state, told, order.code)

    def _forget(self, order: KeptOrder) -> None:
        """The venue does not know the order, and can no longer take it."""
        acknowledged = order.venue_id or Decimal(order.filled) or Decimal(order.booked)
        if not acknowledged:
            self._mark(order, "REJECTED", None, NEVER_ARRIVED)
            if not order.ended:
                message = f"order {order.order_id} never arrived at the venue; it is not sent again"
                self._say(NEVER_ARRIVED, order.symbol, message, Decimal(order.quantity), "WARNING")
        else:
            lost = Decimal(order.filled) - Decimal(order.booked)
            if not order.ended:
                self._mark(order, "EXPIRED", None, "unknown_order")
            message = f"order {order.order_id} is no longer known at the venue"
            if lost:
                message += f", and {lost:f} that it filled cannot be found"
            self._say("unknown_order", order.symbol, message, lost, "CRITICAL" if lost else "WARNING")

    def _works(self, order: KeptOrder, filled: Decimal) -> None:
        if filled >= Decimal(order.quantity):
            return  # the venue has yet to say that it has ended
        self.orders.append(
            OpeningOrder(
                order_id=order.order_id,
                symbol=order.symbol,
                side=order.side,
                order_type=order.order_type,
                quantity=order.quantity,
                remaining=plain(Decimal(order.quantity) - filled),
                limit_price=order.limit_price,
                stop_price=order.stop_price,
                time_in_force=order.time_in_force,
                reduce_only=order.reduce_only,
                strategy=order.strategy,
            )
        )

    def _mark(self, order: KeptOrder, state: str, told: VenueOrder | None, code: str) -> None:
        self.marks.append(
            Mark(
                client_id=order.client_id,
                state=state,
                venue_id=told.venue_id if told else "",
                filled=plain(told.filled) if told else "",
                code=code,
                revive=order.ended,
            )
        )

    def _say(self, code: str, symbol: str, message: str, value: Decimal = Decimal(), level: str = "INFO") -> None:
        self.notes.append(_note(code, symbol, message, value, level))


class _Agreement:
    """Whether balances are what baselines and books add up to, and whose the difference is."""

    def __init__(self, journal: JournalView, venue: VenueView, work: _Orders) -> None:
        self.baselines: dict[str, Decimal] = {}
        self.differences: list[str] = []
        self.notes: list[Note] = []
        self._journal, self._venue = journal, venue
        # While fills may be missing, nobody knows whose a difference is: the baselines stay.
        self._complete = not work.waits
        self._fresh = len(work.fills) + sum(fill.number > journal.settled_fill for fill in journal.fills)

    def base(self, symbol: str, held: Fraction) -> Fraction:
        """Base units of `held`, the position of the books, that are gone; not positive."""
        asset = self._venue.bases[symbol]
        if self._complete and asset not in self._journal.baselines and self._total(asset) > held:
            kept = decimal(self._total(asset) - held)
            message = f"{kept:f} {asset} that the account held before are left alone"
            self.notes.append(_note("baseline_set", symbol, message, kept))
        return self._missing(asset, symbol, held, Fraction(0))

    def quote(self, asset: str, held: Fraction, unit: Fraction) -> Fraction:
        """Cash of `held`, the cash of the books, that is gone; not positive.

        Args:
            unit: to which the venue rounds the money of a fill, and the books a fee.
        """
        if asset not in self._journal.baselines and self._total(asset) < held:
            raise ReconcileError(
                f"the account has {decimal(self._total(asset)):f} {asset}, the first run is to begin with"
                f" {decimal(held):f}: pay in, or lower initial_cash"
            )
        return self._missing(asset, "", held, 2 * self._fresh * unit)

    def _missing(self, asset: str, symbol: str, held: Fraction, slack: Fraction) -> Fraction:
        kept = self._journal.baselines.get(asset)
        if not self._complete:
            return Fraction(min(kept or 0, 0))
        left = self._total(asset) - held
        self.baselines[asset] = decimal(left)
        change = left - Fraction(left if kept is None else kept)
        if abs(change) > slack:
            message = (
                f"the account has {decimal(abs(change)):f} {asset} {'more' if change > 0 else 'less'} than its orders"
                " explain; what was added is left alone, what is gone is taken off"
            )
            self.differences.append(message)
            self.notes.append(_note("balance_differs", symbol, message, decimal(change), "CRITICAL"))
        return min(left, Fraction(0))

    def _total(self, asset: str) -> Fraction:
        return Fraction(self._venue.balances.get(asset, Decimal()))


def _refuse_strange(orders: tuple[KeptOrder, ...], bases: Mapping[str, str]) -> None:
    strange = sorted({order.symbol for order in orders} - set(bases))
    if strange:
        raise ReconcileError(
            f"the journal holds orders of {', '.join(strange)} that may work, which this run does not trade: want it"
            " among the symbols"
        )


def _refuse_shared(instruments: tuple[Instrument, ...], bases: Mapping[str, str]) -> None:
    """Each asset must belong to one symbol, or nobody could say whose a balance is."""
    assets = [*(bases[i.symbol] for i in instruments), instruments[0].currency]
    shared = sorted({asset for asset in assets if assets.count(asset) > 1})
    if shared:
        raise ReconcileError(f"want each asset in one symbol alone, {', '.join(shared)} is in several")


def _kept(trade: VenueTrade, order: KeptOrder) -> KeptFill:
    return KeptFill(
        symbol=trade.symbol,
        trade_id=trade.trade_id,
        order_id=order.order_id,
        client_id=order.client_id,
        side=trade.side,
        quantity=plain(trade.quantity),
        price=plain(trade.price),
        fee=plain(trade.fee),
        base_fee=plain(trade.base_fee),
        liquidity=trade.liquidity,
        time_ns=trade.time_ns,
        strategy=order.strategy,
    )


def _stray(told: VenueOrder) -> KeptOrder | None:
    """A stray as the journal takes it in; None where what it filled before cannot be told from what was held before, or
    it is of a type that we have not."""
    if told.filled or told.order_type not in ORDER_TYPES:
        return None
    return KeptOrder(
        client_id=told.client_id,
        order_id=told.client_id,  # which is all that is known of its own
        symbol=told.symbol,
        side=told.side,
        order_type=told.order_type,
        quantity=plain(told.quantity),
        limit_price=plain(told.limit_price),
        stop_price=plain(told.stop_price),
        time_in_force=told.time_in_force,
        sent_ns=told.time_ns,
        state=told.state,
        venue_id=told.venue_id,
    )


def _note(code: str, symbol: str, message: str, value: Decimal = Decimal(), level: str = "INFO") -> Note:
    return Note(code=code, symbol=symbol, message=message, value=float(value), level=level)
