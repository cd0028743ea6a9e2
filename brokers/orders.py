"""The life of an order: which state may follow which. One machine for the gate, every venue and the journal."""

from brokers.events import OrderState

_NEW, _PENDING, _ACCEPTED = OrderState.NEW, OrderState.PENDING, OrderState.ACCEPTED
_PARTLY_FILLED, _FILLED, _CANCEL_PENDING = OrderState.PARTLY_FILLED, OrderState.FILLED, OrderState.CANCEL_PENDING
_CANCELLED, _REJECTED, _EXPIRED = OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED

ENDED = frozenset({_FILLED, _CANCELLED, _REJECTED, _EXPIRED})

# A fill or a cancel may be heard of before the acknowledgement: venues send them on different channels.
_FROM_VENUE = frozenset({_PARTLY_FILLED, _FILLED, _CANCEL_PENDING, _CANCELLED, _EXPIRED})

_NEXT: dict[OrderState, frozenset[OrderState]] = {
    _NEW: frozenset({_PENDING, _REJECTED}),
    _PENDING: _FROM_VENUE | {_ACCEPTED, _REJECTED},
    _ACCEPTED: _FROM_VENUE | {_ACCEPTED},  # again, when a stop was triggered or the quantity was cut
    _PARTLY_FILLED: _FROM_VENUE,
    # A cancel that the venue refuses leaves the order working as before; the order itself may be refused on arrival.
    _CANCEL_PENDING: _FROM_VENUE | {_ACCEPTED, _REJECTED},
    **dict.fromkeys(ENDED, frozenset()),
}


class TransitionError(ValueError):
    """An order was told to take a state that cannot follow the one it has: somebody's books are wrong."""

    def __init__(self, order_id: str, old: OrderState, new: OrderState) -> None:
        super().__init__(f"order {order_id} is {old.name}, which {new.name} cannot follow")
        self.order_id, self.old, self.new = order_id, old, new


def follow(order_id: str, old: OrderState, new: OrderState) -> OrderState:
    """`new`, where it may follow `old`.

    Raises:
        TransitionError: it may not; the message names the order and both states.
    """
    if new in _NEXT[old]:
        return new
    raise TransitionError(order_id, old, new)


class WorkingOrder:
    """One order as its sender knows it: its state and what is still open.

    A partial fill of an order whose cancel is on the way leaves it CANCEL_PENDING; `filled` sees to that.
    """

    __slots__ = ("lots", "open_lots", "order_id", "state")

    def __init__(self, order_id: str, lots: int, state: OrderState = OrderState.NEW) -> None:
        if lots <= 0:
            raise ValueError(f"order {order_id} must be of at least one lot, was of {lots}")
        self.order_id = order_id
        self.lots = self.open_lots = lots
        self.state = state

    def to(self, state: OrderState) -> None:
        """Take `state`. Raises TransitionError where it cannot follow."""
        self.state = follow(self.order_id, self.state, state)

    def filled(self, lots: int) -> None:
        """Book one execution.

        Raises:
            TransitionError: the order has ended.
            ValueError: `lots` are none, or more than are open.
        """
        if not 0 < lots <= self.open_lots:
            if self.state in ENDED:
                raise TransitionError(self.order_id, self.state, _PARTLY_FILLED)
            raise ValueError(f"order {self.order_id} has {self.open_lots} lots open, {lots} cannot fill")
        left = self.open_lots - lots
        if left and self.state is _CANCEL_PENDING:
            self.open_lots = left
            return
        self.to(_PARTLY_FILLED if left else _FILLED)
        self.open_lots = left

    def cut(self, lots: int) -> None:
        """Take `lots` off what is open without a fill, as another order of its group does.

        Raises:
            ValueError: `lots` are none, or all that are open: then the order is cancelled, not cut.
        """
        if not 0 < lots < self.open_lots:
            raise ValueError(f"order {self.order_id} has {self.open_lots} lots open, cannot be cut by {lots}")
        self.lots -= lots
        self.open_lots -= lots

    @property
    def ended(self) -> bool:
        return self.state in ENDED
