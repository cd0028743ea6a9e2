"""From a target to an order: what to send to get there."""

from fractions import Fraction

import csp
from csp import ts

from brokers.events import CorporateAction, Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.ledger import Contract
from brokers.opening import Opening
from brokers.orders import ENDED
from brokers.units import split_ratio
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import RiskAction, RiskActionKind, TargetPosition
from nodes.opening import held_units, open_lots, working_orders

# Bound once: looking a member up on its class costs more than comparing it.
_BUY, _SELL, _MARKET = Side.BUY, Side.SELL, OrderType.MARKET
_FILLED, _CANCELLED = OrderState.FILLED, OrderState.CANCELLED
_REJECTED, _EXPIRED = OrderState.REJECTED, OrderState.EXPIRED
_EMERGENCY_STOP, _HALT_SYMBOL = RiskActionKind.EMERGENCY_STOP, RiskActionKind.HALT_SYMBOL


class Flight:
    """What is held of one symbol and what is on its way to it.

    Orders are whole lots. The position is counted in units, the smallest quantity of the instrument: they are lots,
    but for a venue that takes its fee out of what was bought.

    Args:
        opening: what is held at the start.
        orders: whether its orders are counted on too.

    Raises:
        ValueError: an opening off the steps of the instrument.
    """

    __slots__ = ("_contract", "_open", "_units_per_lot", "coming", "units")

    def __init__(self, instrument: Instrument, opening: Opening | None = None, *, orders: bool = True) -> None:
        self._contract = Contract(instrument)
        self._units_per_lot = self._contract.units_per_lot
        self._open: dict[str, tuple[int, float, bool]] = {}  # order id -> signed lots, |quantity|, closes a position
        self.units = held_units(opening, self._contract)
        self.coming = 0  # signed lots of all open orders
        for order in working_orders(opening, instrument.symbol) if orders else ():
            self.sent(order.order_id, open_lots(order, self._contract), closes=order.reduce_only)

    def lots(self, quantity: float) -> int:
        """Signed lots of a quantity. Raises ValueError when it is no multiple of the lot."""
        return self._contract.lots.exact(quantity)

    def sent(self, order_id: str, lots: int, *, closes: bool) -> float:
        """Take an order of signed `lots` into account; return its quantity."""
        quantity = self._contract.lots.value(abs(lots))
        self._open[order_id] = (lots, quantity, closes)
        self.coming += lots
        return quantity

    def order(self, order_id: str, lots: int, *, closes: bool) -> OrderRequest:
        """A market order of signed `lots`, taken into account."""
        return OrderRequest(
            order_id=order_id,
            symbol=self._contract.instrument.symbol,
            side=_BUY if lots > 0 else _SELL,
            order_type=_MARKET,
            quantity=self.sent(order_id, lots, closes=closes),
            reduce_only=closes,
        )

    def filled(self, fill: Fill) -> bool:
        """Book an execution; return whether its order was still counted on."""
        order_id, quantity, buys = fill.order_id, fill.quantity, fill.side is _BUY
        lots, whole, closes = self._open.pop(order_id, (0, 0.0, False))
        counted = lots != 0
        done = lots
        if quantity != whole or buys is not (lots > 0):  # nearly every order fills as it was sent
            done = self.lots(quantity if buys else -quantity)
            left = lots - done
            if left * lots > 0:
                self._open[order_id] = (left, self._contract.lots.value(abs(left)), closes)
                lots = done
        self.coming -= lots
        self.units += done * self._units_per_lot
        if fill.base_fee:
            self.units -= self._contract.units.exact(fill.base_fee)
        return counted

    def ended(self, order_id: str) -> tuple[int, bool]:
        """Count on an order no more; return the signed lots that it left, 0 where it was not counted on, and whether it
        was to close a position."""
        lots, _, closes = self._open.pop(order_id, (0, 0.0, False))
        self.coming -= lots
        return lots, closes

    def forget(self) -> None:
        """Count on nothing that is on its way."""
        self._open.clear()
        self.coming = 0

    def split(self, ratio: Fraction) -> None:
        """Turn each unit held into `ratio` units, as the ledger does. What is on its way stays as it was ordered."""
        self.units = int(self.units * ratio)

    @property
    def open(self) -> set[str]:
        """The ids of what is on its way."""
        return set(self._open)

    def missing(self, target: int) -> int:
        """Signed lots between position plus flight and a target in lots, towards zero."""
        if self._units_per_lot == 1:
            return target - self.units - self.coming
        gap = (target - self.coming) * self._units_per_lot - self.units
        lots = abs(gap) // self._units_per_lot
        return lots if gap > 0 else -lots

    def owing_nothing(self, lots: int) -> int:
        """What of an order of signed `lots` can be sent where nothing is sold that is only being bought, and nothing
        bought with the proceeds of what is only being sold."""
        selling = sum(n for n, _, _ in self._open.values() if n < 0)
        if lots > 0:
            return 0 if selling else lots
        if self.coming == selling:  # nothing is being bought
            return lots
        return max(lots, min(0, -(self.units // self._units_per_lot) - selling))

    def beyond(self, target: int) -> int:
        """The part of what is missing that brings position and flight nearer to zero without crossing it."""
        lots, flat = self.missing(target), self.missing(0)
        if lots * flat <= 0:
            return 0
        return lots if abs(lots) < abs(flat) else flat

    def closing(self, lots: int) -> int:
        """What closes position and flight, where an order of signed `lots` would have gone on to the other side; else
        0."""
        flat = self.missing(0)
        return flat if flat * lots > 0 and abs(flat) < abs(lots) else 0


@csp.node
def _generate_orders(
    target: ts[TargetPosition],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    action: ts[RiskAction],
    corporate: ts[CorporateAction],
    again: ts[list[str]],
    instrument: Instrument,
    run_id: str,
    opening: Opening | None,
    cash_only: bool,
) -> ts[OrderRequest]:
    with csp.state():
        s_flight = Flight(instrument, opening)
        s_symbol = instrument.symbol
        s_prefix = f"{run_id}-{instrument.symbol}-"
        s_target = -s_flight.missing(0)  # lots; what is held and on its way at the start is what was wanted
        s_count = 0
        s_rest = False  # a part of what is missing waits for what is on its way the other way
        s_old = set[str]()  # orders from before a split, which the venue takes back or refuses
        s_stopped = False
        s_halted_until = csp.now()

    lots = 0
    closes = False
    if csp.ticked(fill) and not s_flight.filled(fill):
        lots = s_flight.beyond(s_target)
    if csp.ticked(update) and update.state in ENDED:
        lost, closed = s_flight.ended(update.order_id)
        if lost and not closed and update.state is _REJECTED:
            half = s_flight.closing(lost)
            if half:
                lots, closes = half, True
        if s_old:
            s_old.discard(update.order_id)
            if not s_old:
                lots, closes = s_flight.missing(s_target), False
    if s_rest and not lots:
        rest = s_flight.missing(s_target)
        if s_flight.owing_nothing(rest) == rest:
            lots, s_rest = rest, False
    if csp.ticked(action):
        kind, cancelled = action.kind, False
        if kind is _EMERGENCY_STOP:
            cancelled, s_stopped = not s_stopped, True
        elif kind is _HALT_SYMBOL and action.symbol == s_symbol and not s_stopped:  # a stop has cancelled it all
            cancelled = csp.now() >= s_halted_until  # one that only prolongs a halt cancels nothing
            s_halted_until = max(s_halted_until, action.until)
        if cancelled:
            s_flight.forget()
            s_target = -s_flight.missing(0)  # where nothing flattens it, the position stays as it is
            lots, s_rest = 0, False
    if csp.ticked(corporate) and corporate.symbol == s_symbol:
        ratio = split_ratio(corporate.split)
        if ratio != 1:
            s_old |= s_flight.open
            s_flight.forget()
            s_flight.split(ratio)
            s_target = int(s_target * ratio)
    if csp.ticked(target):
        s_target = s_flight.lots(target.quantity)
    if csp.ticked(target) or (csp.ticked(again) and s_symbol in again):
        lots, closes = s_flight.missing(s_target), False
    if lots and cash_only:
        whole, lots = lots, s_flight.owing_nothing(lots)
        s_rest = lots != whole
    if lots:
        s_count += 1
        return s_flight.order(f"{s_prefix}{s_count}", lots, closes=closes)


def generate_orders(
    target: ts[TargetPosition],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    action: ts[RiskAction],
    instrument: Instrument,
    run_id: str,
    corporate: ts[CorporateAction] | None = None,
    opening: Opening | None = None,
    again: ts[list[str]] | None = None,
    cash_only: bool = False,
) -> ts[OrderRequest]:
    """Order the difference between the target and the position plus what is in flight.

    An order that is rejected and would have turned the position through zero is followed by its closing half, once:
    what may not be opened may still be closed. Nothing follows a closing half that is rejected too.

    After an EMERGENCY_STOP, or a HALT_SYMBOL of this symbol, what was in flight is being cancelled and no longer
    counts. Should some of it fill after all, what goes beyond the target is ordered back: a stop that flattens ends
    flat.

    With `cash_only` nothing is sent that the gate, or a spot market, could only refuse because of what is on its way
    the other way. A sale goes out for what is held, and for the rest once nothing is being bought any more; a purchase
    waits until nothing is being sold.

    Args:
        target: the wanted position of this symbol.
        fill: its executions.
        update: what became of its orders; one that has ended is no longer in flight.
        action: what the risk monitor asks; only stops and halts of this symbol are read.
        run_id: first part of every order id; the rest is the symbol and a counter.
        corporate: splits, of all symbols. They scale position and target a microsecond later, as in the account's
            books; what is on its way counts no more.
        opening: what is held and on its way at the start. Until the first target that is what is wanted.
        again: symbols of which an order was refused for a reason that has ended since: what the latest target misses
            of this one is ordered once more.
        cash_only: nothing may be owed.

    Ticks:
        A market order with each target that position and flight do not reach, in the target's own cycle; with `again`,
        where they still do not; with a fill, beyond the target, of an order that was given up; with the fill or end of
        what the rest of an order had to wait for; and with a rejection as told above. So there are at most two orders a
        target, fill or `again`. What was on its way at a split is ordered anew, in the new units, once the venue has
        taken back or refused the last of it.

    Raises:
        ValueError: a target or fill that is no multiple of the lot, or an opening off the steps of the instrument.
    """
    splits = csp.null_ts(CorporateAction) if corporate is None else csp.delay(corporate, SETTLE)
    asked = csp.null_ts(list[str]) if again is None else again
    orders: ts[OrderRequest] = _generate_orders(
        target, fill, update, action, splits, asked, instrument, run_id, opening, cash_only
    )
    return orders


@csp.node
def unfilled(update: ts[OrderUpdate]) -> ts[OrderUpdate]:
    """What changes an order without a fill: its end, or a cut. Who counts by fills needs to hear of nothing else."""
    state = update.state
    if state is _CANCELLED or state is _REJECTED or state is _EXPIRED or (update.code and state is not _FILLED):
        return update
