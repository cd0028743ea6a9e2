"""Between tracker, journal and graph: what is new is written down, then told; and what a restart goes on with."""

import time
from collections.abc import Mapping

import structlog

from brokers.events import OrderRequest, OrderState
from brokers.journal import Journal, KeptFill, KeptOrder
from brokers.venue_messages import Market
from brokers.venue_terms import Terms, decimals
from brokers.venue_tracker import Booked, Change, Tracked, Tracker
from feeds.events import Side
from feeds.loop import Push

_PARTLY_FILLED = OrderState.PARTLY_FILLED

_log = structlog.get_logger()


class Keeper:
    """Takes the news of a tracker to the journal and to the graph, in this order.

    Args:
        push: to the outputs "updates" and "fills".
    """

    def __init__(self, journal: Journal, push: Push) -> None:
        self._journal, self._push = journal, push
        self._told_fees = False
        self.quiet = False  # the graph has ended: write only

    def tell(self, tracker: Tracker) -> None:
        """Take all that is new."""
        news, tracker.news = tracker.news, []
        for item in news:
            if isinstance(item, Booked):
                if self._journal.fill(kept_fill(item)) and not self.quiet:
                    self._push("fills", item.fill)
                if item.execution.other_fee and not self._told_fees:
                    self._told_fees = True
                    _log.warning("fee_not_booked", symbol=item.order.symbol, fee=item.execution.other_fee)
                continue
            if item.update.state is not _PARTLY_FILLED or item.update.code:  # its fill has written that
                self._change(item)
            if not self.quiet:
                self._push("updates", item.update)

    def _change(self, change: Change) -> None:
        order, update = change
        self._journal.order_changed(
            order.client_id,
            update.state.name,
            changed_ns=time.time_ns(),
            venue_id=order.venue_id,
            filled=decimals(order.filled, order.market.instrument.lot),
            code=update.code,
        )


def kept_order(request: OrderRequest, terms: Terms) -> KeptOrder:
    """An order as the journal keeps it: what is sent, not what was asked for."""
    return KeptOrder(
        client_id=terms.client_id,
        order_id=request.order_id,
        symbol=request.symbol,
        side=request.side.name,
        order_type=request.order_type.name,
        quantity=terms.quantity,
        sent_ns=time.time_ns(),
        limit_price=terms.limit_price or "0",
        stop_price=terms.stop_price or "0",
        time_in_force=terms.time_in_force,
        reduce_only=request.reduce_only,
        strategy=request.strategy,
    )


def kept_fill(booked: Booked) -> KeptFill:
    """An execution as the journal keeps it."""
    order, said, fill = booked
    contract, instrument = order.market.contract, order.market.instrument
    unit = order.market.unit
    return KeptFill(
        symbol=said.symbol,
        trade_id=said.trade_id,
        order_id=order.order_id,
        side=said.side.name,
        quantity=decimals(said.lots, instrument.lot),
        price=decimals(said.ticks, instrument.tick),
        time_ns=said.time_ms * 1_000_000,
        client_id=order.client_id,
        fee=decimals(unit.nearest(said.fee), instrument.currency_unit),
        base_fee=decimals(contract.units.nearest(said.base_fee), instrument.base_unit or instrument.lot),
        liquidity=fill.liquidity.name,
        strategy=order.strategy,
    )


def adopted(journal: Journal, markets: Mapping[str, Market]) -> tuple[Tracker, dict[str, int]]:
    """A tracker that goes on where the journal stands, and the venue's time of the last fill of each symbol, in ms.

    Raises:
        ValueError: a quantity in the journal that is no multiple of the lot.
    """
    held = {}
    for symbol, quantity in journal.positions().items():
        if symbol in markets:
            held[symbol] = markets[symbol].contract.units.exact(float(quantity))
    trades: dict[str, set[str]] = {}
    since_ms: dict[str, int] = {}
    for fill in journal.fills():
        trades.setdefault(fill.client_id, set()).add(fill.trade_id)
        since_ms[fill.symbol] = max(since_ms.get(fill.symbol, 0), fill.time_ns // 1_000_000)
    tracker = Tracker(held)
    for kept in journal.open_orders():
        market = markets.get(kept.symbol)
        if market is None:
            continue
        steps = market.contract.lots
        lots, booked = steps.exact(float(kept.quantity)), steps.exact(float(kept.booked))
        side = Side.BUY if kept.side == "BUY" else Side.SELL
        order = Tracked(kept.order_id, kept.client_id, market, side, lots, lots)
        order.reduce_only, order.strategy = kept.reduce_only, kept.strategy
        order.immediate = kept.time_in_force in ("IOC", "FOK")
        tracker.adopt(order, kept.venue_id, lots - booked, trades.get(kept.client_id, set()))
    return tracker, since_ms
