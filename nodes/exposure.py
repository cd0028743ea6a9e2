"""What an account holds and what is on its way, in the worst case. Plain Python, O(1) an event; the gate asks it.

In flight is counted so that no mix of fills can surprise: all buys may fill and no sale, or the other way round.

- Orders that can only fill instead of each other count once, with the largest: a group (OCO), and an order with the one
  that replaces it.
- The child of a bracket can sell no more than its parent has bought: it counts for as much as the parent has filled.
- A reduce-only order fills for what is held at most. It uses up what other orders of its side would have closed, so
  those open as much more.
- An order is worth its own price where it has one, else the last price when it was sent. One that the market has
  already reached, such as a sale with a limit below the last price, is worth at least the last price.
"""

import math

from brokers.events import Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.ledger import Contract
from brokers.opening import Opening
from brokers.orders import TransitionError
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.in_flight import NONE, Claim, Holding, Sent, own_price
from nodes.opening import as_request, held_units, open_lots

# Bound once: looking a member up on its class costs more than comparing it.
_BUY = Side.BUY
_ACCEPTED, _FILLED, _CANCEL_PENDING = OrderState.ACCEPTED, OrderState.FILLED, OrderState.CANCEL_PENDING
_PARTLY_FILLED = OrderState.PARTLY_FILLED
_MARKET, _LIMIT, _STOP = OrderType.MARKET, OrderType.LIMIT, OrderType.STOP
_STOP_LIMIT, _TOUCHED = OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED


def _asks_no_more(sent: Sent, old: Sent) -> bool:
    """Whether an order that replaces another is the same or less, and no nearer to the market."""
    new, was, sign = sent.request, old.request, sent.sign
    kind = new.order_type
    if kind is not was.order_type or sign != old.sign or old.cancelling or old.reduce_only:
        return False
    if sent.lots > old.open_lots or sent.lots * sent.ticks > old.open_lots * old.ticks:
        return False
    if (kind is _LIMIT or kind is _STOP_LIMIT) and sign * (new.limit_price - was.limit_price) > 0.0:
        return False
    if (kind is _STOP or kind is _STOP_LIMIT) and sign * (new.stop_price - was.stop_price) < 0.0:
        return False
    if kind is _TOUCHED and sign * (new.stop_price - was.stop_price) > 0.0:
        return False
    return new.trail == was.trail and new.trail_bps == was.trail_bps


def _instead(old: Sent, sign: int) -> int:
    """Lots meant to fill on a side that a replacement of `old` could only fill instead of."""
    claim = old.claim
    if claim is not None:
        return claim.firm_buys if sign > 0 else claim.firm_sells
    return 0 if old.cancelling or old.reduce_only or old.sign != sign else old.open_lots


class Exposure:
    """Positions and orders in flight of an account.

    Lots are counted by fills alone, states by updates alone, whichever comes first. What cannot be is told, as a
    sentence, and counted as said; nothing is dropped in silence.

    Args:
        opening: what is held and works at the start. Its orders are counted at their own prices until `price` knows the
            market's.

    Raises:
        ValueError: an order or position of the opening of a symbol that is not traded, or off its steps.
    """

    __slots__ = ("_claims", "holdings", "orders", "unpriced")

    def __init__(self, instruments: tuple[Instrument, ...], opening: Opening | None = None) -> None:
        self.holdings = {i.symbol: Holding(i) for i in instruments}
        self.orders: dict[str, Sent] = {}
        self._claims: dict[str, Claim] = {}
        self.unpriced: dict[str, list[Sent]] = {}  # orders of the opening that wait for `price`, by symbol
        if opening is not None:
            self._begin(opening)

    def price(self, symbol: str, last: float) -> None:
        """Count the orders of the opening at what they are worth now that there is a price; later ones change nothing.

        Args:
            last: quote currency, positive.
        """
        holding = self.holdings[symbol]
        for sent in self.unpriced.pop(symbol, ()):
            ticks = round(own_price(sent.request, last) * holding.ticks_per_unit)
            if sent.reduce_only or sent.order_id not in self.orders:
                continue
            lots = sent.open_lots
            self._count(sent, 0)
            sent.ticks = ticks
            self._count(sent, lots)

    def prepare(self, order: OrderRequest, last: float) -> Sent | None:
        """The order in lots and ticks; None where it is of less than a lot, or asks for no more than was filled."""
        holding = self.holdings[order.symbol]
        quantity = order.quantity
        lots = holding.lots.down(quantity)
        market = order.order_type is _MARKET
        price = last if market else own_price(order, last)
        ticks = round(price * holding.ticks_per_unit)
        sent = Sent(order, quantity, 1 if order.side is _BUY else -1, lots, ticks, market)
        if sent.linked:
            self._link(sent)
        return sent if sent.lots >= 1 else None

    def misled(self, sent: Sent) -> str:
        """What is wrong with the orders that an order names, or ""."""
        request = sent.request
        for key, what in ((request.replaces, "replaces"), (request.parent, "is a child of")):
            other = self.orders.get(key) if key else None
            if other is not None and other.symbol != sent.symbol:
                return f"the order {key} that it {what} is of {other.symbol}, not of {sent.symbol}"
        old = self.replaced(sent)
        if old is not None and (request.group not in {"", old.group} or request.parent not in {"", old.named}):
            return (
                f"a replacement keeps the group {old.group!r} and the parent {old.named!r} of what it replaces, "
                f"was of {request.group!r} and {request.parent!r}"
            )
        return ""

    def replaced(self, sent: Sent) -> Sent | None:
        """The order that an order replaces, where it works."""
        old = self.orders.get(sent.replaces) if sent.replaces else None
        return old if old is not None and old.symbol == sent.symbol else None

    def reduces(self, sent: Sent, children: bool = True, certain: bool = False) -> bool:
        """Whether an order can only bring positions nearer to zero.

        - a reduce-only order;
        - a child, which with its siblings takes back no more than their parent takes on, unless `children` is false;
        - a replacement that asks for no more than what it replaces: of the same type, no nearer to the market, of no
          more lots and worth;
        - any other that, with all on its side that is meant to fill, brings what is held nearer to zero without
          crossing it. Market orders against it, which wait for no price, count as if they had filled, as long as the
          position cannot become larger than it could get without the order; not where it must be `certain`, because
          a market order whose fate is not known may never have been sent. A replacement counts for what it asks for
          beyond what it replaces.
        """
        if sent.reduce_only:
            return True
        holding, lots = self.holdings[sent.symbol], sent.lots
        if sent.linked:
            old = self.replaced(sent)
            if old is not None and _asks_no_more(sent, old):
                return True
            if sent.parent and (children or old is None):
                return children
            if old is not None:
                lots = max(0, lots - _instead(old, sent.sign))
        if sent.sign < 0:
            held, ahead, against = holding.held, holding.firm_sells, holding.market_buys
        else:
            held, ahead, against = -holding.held, holding.firm_buys, holding.market_sells
        after = ahead + lots - held  # how far it would cross zero if it filled, and nothing against it
        if certain:
            return after <= 0 < held
        return after <= against and after <= max(abs(held), held + against)

    def add(self, sent: Sent) -> None:
        """Count an order as in flight; `remove` takes it back."""
        self.orders[sent.order_id] = sent
        if sent.reduce_only:
            self.holdings[sent.symbol].close(sent, sent.lots)
            return
        old = self.replaced(sent) if sent.linked else None
        if sent.parent:
            if old is not None:
                sent.family = old.family
            else:
                parent = self.orders[sent.parent]
                if parent.children is NONE:
                    parent.children = []
                sent.family = parent.children
            sent.family.append(sent)
        if sent.group or sent.parent or old is not None:
            self._join(sent, f"{sent.symbol} {sent.group}" if sent.group else "", old)
            return
        self.holdings[sent.symbol].add(sent, sent.lots)

    def remove(self, order_id: str) -> None:
        """Forget an order: it has ended, or did not pass after all."""
        sent = self.orders.pop(order_id)
        if sent.claim is None and not sent.open_lots:
            return  # it stood alone, and counts no more
        if sent.parent:
            sent.family.remove(sent)
            parent = self.orders.get(sent.parent)
            if parent is not None:
                parent.returned += sent.lots - sent.open_lots
        self._count(sent, 0)

    def filled(self, fill: Fill) -> str:
        """Book an execution; what was impossible about it, or ""."""
        holding = self.holdings.get(fill.symbol)
        if holding is None:
            raise ValueError(f"want a fill of one of {', '.join(self.holdings)}, was of {fill.symbol!r}")
        sign = 1 if fill.side is _BUY else -1
        sent = self.orders.get(fill.order_id)
        quantity = fill.quantity
        if sent is not None and quantity == sent.quantity and sent.open_lots == sent.lots:
            lots = sent.lots  # nearly every order fills as it was sent
        else:
            lots = holding.lots.exact(quantity)
        holding.move(sign * lots, fill.base_fee)
        if sent is None or sent.symbol != fill.symbol or sent.sign != sign:
            return (
                f"{fill.side.name} {fill.quantity} {fill.symbol} filled for order {fill.order_id}, which does not work"
            )
        wrong = ""
        if lots > sent.open_lots:
            left = holding.lots.value(sent.open_lots)
            wrong = f"{fill.quantity} {fill.symbol} filled for order {fill.order_id}, of which {left} were open"
            lots = sent.open_lots
        self._count(sent, sent.open_lots - lots, shared=True)
        for child in sent.children:
            child.awake += lots
            self._recount(child)
        if sent.ended and not sent.open_lots:
            self.remove(sent.order_id)
        return wrong

    def updated(self, update: OrderUpdate) -> str:
        """Take the state that the venue tells; what was impossible about it, or ""."""
        sent = self.orders.get(update.order_id)
        state = update.state
        if sent is None:
            return f"order {update.order_id} of {update.symbol} is {state.name} at the venue, but does not work"
        old = sent.state
        if state is _FILLED and not sent.open_lots and old is not _FILLED:  # nearly every order ends so
            self.remove(sent.order_id)
            return ""
        if state is old and not sent.ended:
            return ""  # triggered, or cut by another of its group: fills tell the rest
        try:
            sent.to(state)
        except TransitionError as exc:
            return str(exc)
        if old is _CANCEL_PENDING and state is _ACCEPTED:
            self._firm(sent, cancelling=False)
            return f"the venue did not cancel order {update.order_id} of {update.symbol}"
        if sent.ended:
            due = 0  # lots whose fills are still on their way
            if state is _FILLED:
                due = sent.open_lots
            elif sent.reduce_only and (sent.group or sent.named):
                pass  # it may have been cut
            elif sent.claim is None and 0.0 < update.remaining < math.inf:
                due = max(0, sent.open_lots - self.holdings[sent.symbol].lots.down(update.remaining))
            if due:
                self._count(sent, due)
            else:
                self.remove(sent.order_id)
        return ""

    def cancel(self, order_id: str) -> bool:
        """Note that a cancel goes out; False where there is nothing to cancel. A second one may: the first may fail."""
        sent = self.orders.get(order_id)
        if sent is None or sent.ended or not sent.open_lots:
            return False
        if not sent.cancelling:
            self._firm(sent, cancelling=True)
        return True

    def cancel_all(self, symbol: str = "") -> list[Sent]:
        """Note that all orders, or those of one symbol, are cancelled; return those that were not already."""
        working = [s for s in self.orders.values() if not s.cancelling and (not symbol or s.symbol == symbol)]
        return [sent for sent in working if self.cancel(sent.order_id)]

    def _begin(self, opening: Opening) -> None:
        named = {position.symbol for position in opening.positions} | {order.symbol for order in opening.orders}
        unknown = named - set(self.holdings)
        if unknown:
            raise ValueError(
                f"the account starts with {', '.join(sorted(unknown))}, which is none of {', '.join(self.holdings)}"
            )
        for holding in self.holdings.values():
            holding.begin(held_units(opening, Contract(holding.instrument)))
        for order in opening.orders:
            holding = self.holdings[order.symbol]
            still = abs(open_lots(order, Contract(holding.instrument)))
            request = as_request(order)
            sent = self.prepare(request, request.limit_price or request.stop_price)
            if sent is None:
                raise ValueError(f"want an order {order.order_id} of at least one lot, was of {order.quantity}")
            sent.state = _ACCEPTED if still == sent.lots else _PARTLY_FILLED
            self.add(sent)
            self._count(sent, still)
            self.unpriced.setdefault(order.symbol, []).append(sent)

    def _link(self, sent: Sent) -> None:
        """Settle what an order belongs to: what it replaces hands its place on, with group and parent."""
        parent = self.orders.get(sent.parent)
        awake = sent.lots
        if sent.replaces:
            sent.group = sent.parent = ""
            old = self.replaced(sent)
            if old is None:
                return  # the venue will refuse it; until then it is an order of its own
            done = old.lots - old.open_lots
            sent.lots = sent.open_lots = sent.awake = sent.lots - done
            sent.group, sent.named = old.group, old.named
            parent = self.orders.get(old.parent)
            awake = old.awake - done
            if not old.parent or old.sign != sent.sign or (parent is None and sent.lots > old.open_lots):
                return
            sent.parent = old.parent
            known = True
        else:
            known = parent is not None
        if parent is not None:
            known = not (
                parent.symbol != sent.symbol
                or parent.cancelling
                or parent.sign == sent.sign
                or self._promised(parent, sent) > parent.lots
            )
            awake = awake if sent.replaces else parent.lots - parent.open_lots
        if sent.reduce_only or not known:
            sent.parent = ""  # not known to take back what its parent takes on and no more: an order of its own
        else:
            sent.awake = awake

    def _promised(self, parent: Sent, sent: Sent) -> int:
        """Lots that the children of an order could take back with `sent` among them; a group counts once."""
        largest: dict[str, int] = {}
        for child in [*(c for c in parent.children if c.order_id != sent.replaces), sent]:
            key = f"group {child.group}" if child.group else f"order {child.order_id}"
            largest[key] = max(largest.get(key, 0), child.lots)
        return parent.returned + sum(largest.values())

    def _join(self, sent: Sent, key: str, old: Sent | None) -> None:
        """Make an order one of a claim."""
        claim = old.claim if old is not None else None
        if claim is None and key:
            claim = self._claims.get(key)
        if claim is None:
            claim = Claim(key)
            if key:
                self._claims[key] = claim
            if old is not None and not old.reduce_only:
                open_lots = old.open_lots
                self._count(old, 0)
                old.open_lots, old.claim = open_lots, claim
                claim.orders.append(old)
        sent.claim = claim
        claim.orders.append(sent)
        if old is not None:
            sent.children, sent.returned = old.children, old.returned
        self._recount(sent)

    def _count(self, sent: Sent, open_lots: int, *, shared: bool = False) -> None:
        """Set what is open of an order. `shared`: by a fill, which is taken off the others of its claim too."""
        lots = sent.open_lots - open_lots
        sent.open_lots = open_lots
        if sent.reduce_only:
            self.holdings[sent.symbol].close(sent, -lots)
            return
        if not (lots or sent.claim):
            return
        claim = sent.claim
        if claim is None:
            self.holdings[sent.symbol].add(sent, -lots)
            return
        if shared:
            for other in claim.orders:
                if other is not sent:
                    other.open_lots = max(0, other.open_lots - lots)
        if sent.order_id not in self.orders:
            claim.orders.remove(sent)
            if not claim.orders:
                self._claims.pop(claim.key, None)
        self._recount(sent)

    def _recount(self, sent: Sent) -> None:
        """Count the claim of an order anew."""
        claim, holding = sent.claim, self.holdings[sent.symbol]
        if claim is None:
            return
        before = claim.buys, claim.buys_value, claim.sells, claim.sells_value, claim.firm_buys, claim.firm_sells
        claim.recount()
        holding.buys += claim.buys - before[0]
        holding.buys_value += claim.buys_value - before[1]
        holding.sells += claim.sells - before[2]
        holding.sells_value += claim.sells_value - before[3]
        holding.firm_buys += claim.firm_buys - before[4]
        holding.firm_sells += claim.firm_sells - before[5]

    def _firm(self, sent: Sent, *, cancelling: bool) -> None:
        """An order that is being cancelled is no longer meant to fill, though it still may."""
        sent.cancelling = cancelling
        if sent.claim is not None:
            self._recount(sent)
        else:
            self.holdings[sent.symbol].firm(sent, -sent.open_lots if cancelling else sent.open_lots)
