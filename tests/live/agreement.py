"""Whether a run, its journal and the exchange say the same of an account. Pure: what each says in, differences out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from brokers.journal import KeptFill, KeptOrder
from brokers.opening import Opening
from brokers.venue_ids import client_id, is_ours

_STATES = {
    "NEW": ("ACCEPTED", "CANCEL_PENDING"),
    "PARTIALLY_FILLED": ("PARTLY_FILLED", "CANCEL_PENDING"),
    "FILLED": ("FILLED",),
    "CANCELED": ("CANCELLED",),
    "EXPIRED": ("EXPIRED",),
}
_WORKING = ("NEW", "PARTIALLY_FILLED")


@dataclass(frozen=True, slots=True)
class Books:
    """One symbol's account: what is held, what it cost, and what works."""

    cash: Decimal  # quote currency
    position: Decimal  # base units
    working: Mapping[str, Decimal]  # what is open, by client id


def of_venue(account: Mapping[str, Any], began: Decimal) -> Books:
    """What the exchange's own list of orders and trades adds up to, from `began` in cash and nothing held."""
    ours = {order["orderId"] for order in account["orders"] if is_ours(order["clientOrderId"])}
    cash, position = began, Decimal()
    for trade in account["trades"]:
        if trade["orderId"] in ours:
            sign = 1 if trade["isBuyer"] else -1
            fee = Decimal(trade["commission"])
            position += sign * Decimal(trade["qty"]) - (fee if trade["isBuyer"] else 0)
            cash -= sign * Decimal(trade["qty"]) * Decimal(trade["price"]) + (0 if trade["isBuyer"] else fee)
    working = {
        order["clientOrderId"]: Decimal(order["origQty"]) - Decimal(order["executedQty"])
        for order in account["orders"]
        if order["status"] in _WORKING
    }
    return Books(cash, position, working)


def of_run(
    opening: Opening, fills: Iterable[Mapping[str, Any]] = (), working: Iterable[KeptOrder] | None = None
) -> Books:
    """What a run went on with, and what it has been told to have filled since.

    Args:
        fills: as recorded.
        working: orders that are open by now; None: those of the opening.
    """
    cash, position = Decimal(opening.cash), sum((Decimal(held.quantity) for held in opening.positions), Decimal())
    for fill in fills:
        sign = 1 if fill["side"] == "BUY" else -1
        quantity = sign * _exact(fill["quantity"])
        position += quantity - _exact(fill["base_fee"])
        cash -= quantity * _exact(fill["price"]) + _exact(fill["fee"])
    if working is None:
        return Books(cash, position, {client_id(o.order_id): Decimal(o.remaining) for o in opening.orders})
    return Books(cash, position, {o.client_id: Decimal(o.quantity) - Decimal(o.booked) for o in working})


def differences(run: Books, venue: Books) -> list[str]:
    """Where the books of a run are not the exchange's."""
    told = []
    for name in ("cash", "position"):
        ours, theirs = getattr(run, name), getattr(venue, name)
        if ours != theirs:
            told.append(f"{name} of the run is {ours}, at the exchange {theirs}")
    for client in sorted({*run.working, *venue.working}):
        mine, there = run.working.get(client), venue.working.get(client)
        if mine != there:
            told.append(f"order {client}: {mine} is open for the run, {there} at the exchange")
    return told


def journal_differences(
    orders: Iterable[KeptOrder], fills: Iterable[KeptFill], account: Mapping[str, Any]
) -> list[str]:
    """Where the journal is not what the exchange says: orders lost, doubled or unresolved, fills lost or doubled."""
    told = []
    there = {order["clientOrderId"]: order for order in account["orders"]}
    kept = {order.client_id: order for order in orders}
    told += [f"client id {key} came {n} times" for key, n in account["client_ids"].items() if n > 1]
    told += [f"order {key} is at the exchange alone" for key in there if key not in kept]
    for key, order in kept.items():
        venue = there.get(key)
        if venue is None:
            if order.state != "REJECTED":
                told.append(f"order {key} is {order.state} and never came to the exchange")
        elif order.state not in _STATES[venue["status"]]:
            told.append(f"order {key} is {order.state}, at the exchange {venue['status']}")
        elif Decimal(order.booked) != Decimal(venue["executedQty"]):
            told.append(f"order {key} has filled {order.booked}, at the exchange {venue['executedQty']}")
    clients = {order["orderId"]: order["clientOrderId"] for order in account["orders"]}
    booked = Counter(_fill(fill.trade_id, fill.client_id, fill.side, fill.quantity, fill.price) for fill in fills)
    traded = Counter(
        _fill(t["id"], clients[t["orderId"]], "BUY" if t["isBuyer"] else "SELL", t["qty"], t["price"])
        for t in account["trades"]
    )
    for fill in sorted({*booked, *traded}):
        if (booked[fill], traded[fill]) != (1, 1):
            told.append(f"trade {fill} is booked {booked[fill]} times, and happened {traded[fill]} times")
    return told


def _fill(
    trade_id: object, client: str, side: str, quantity: str, price: str
) -> tuple[int, str, str, Decimal, Decimal]:
    return int(str(trade_id)), client, side, Decimal(quantity), Decimal(price)


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))
