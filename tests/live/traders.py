"""Traders that always have something on its way: a signal that keeps changing its mind, and a desk of limit orders.

python tests/live/traders.py FLAGS of run_live.py    the desk of limit orders, as a run of its own
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import csp
from csp import ts

from brokers.events import CancelRequest, OrderRequest, OrderType, OrderUpdate
from brokers.ledger import Contract
from brokers.opening import Opening
from brokers.orders import ENDED
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument
from graphs.account import Account
from graphs.config import TradingConfig
from graphs.edges import AccountStreams, Feeds, Venue
from graphs.live_cli import live_main
from graphs.live_run import replay
from nodes.events import PositionUpdate, Signal

_SCORES = (1.0, 0.0, 0.6, 0.2, 0.8)
_OPEN_MAX = 6  # orders that the desk has at once


@csp.node
def _fresh(trade: ts[Trade], live: ts[bool]) -> ts[Trade]:
    """What traded since the run is live: nothing is done about what was missed, so that a run in a market that stands
    still does nothing."""
    with csp.state():
        s_since = datetime.max  # noqa: DTZ901 - naive UTC

    if csp.ticked(live):
        s_since = csp.now()
    if csp.ticked(trade) and trade.event_time > s_since:
        return trade


@csp.node
def _flips(trade: ts[Trade], symbol: str) -> ts[Signal]:
    """Another opinion with every fifth trade."""
    number = int(trade.trade_id)
    if number % 5 == 0:
        score = _SCORES[number // 5 % len(_SCORES)]
        return Signal(symbol=symbol, source="flips", score=score, confidence=1.0, horizon_s=60.0, asof=csp.now())


def flips(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """A signal plugin."""
    assert feeds.live is not None
    return _flips(_fresh(feeds.trades[symbol], feeds.live), symbol)


@csp.node
def _limits(
    trade: ts[Trade],
    update: ts[OrderUpdate],
    position: ts[PositionUpdate],
    instrument: Instrument,
    run_id: str,
    opening: Opening | None,
) -> csp.Outputs(order=ts[OrderRequest], cancel=ts[CancelRequest]):
    """With every second trade an order around its price, or the cancel of the oldest: what follows from its id."""
    with csp.state():
        s_contract = Contract(instrument)
        # By order id the lots that it may sell. Those of the run before are gone on with.
        s_open = {
            order.order_id: s_contract.lots.exact(float(order.remaining)) if order.side == "SELL" else 0
            for order in ([] if opening is None else opening.orders)
        }
        s_count = 0
    with csp.start():
        csp.make_passive(position)

    if csp.ticked(update) and update.state in ENDED:
        s_open.pop(update.order_id, None)
    if csp.ticked(trade) and int(trade.trade_id) % 2 == 0:
        drawn = int(trade.trade_id) * 2654435761 >> 7  # Knuth's multiplicative hash
        kind, lots, away = drawn % 8, 10 * (1 + drawn // 8 % 250), drawn // 2000 % 4
        held = s_contract.whole_lots(s_contract.units.exact(position.quantity)) if csp.valid(position) else 0
        sells = kind % 2 == 1 and lots <= held - sum(s_open.values())
        if len(s_open) >= _OPEN_MAX or (kind >= 6 and s_open):
            csp.output(cancel=CancelRequest(order_id=next(iter(s_open)), symbol=instrument.symbol))
        else:
            s_count += 1
            order_id = f"{run_id}-{s_count}"
            s_open[order_id] = lots if sells else 0
            ticks = s_contract.ticks.exact(trade.price) + (away if sells else -away)
            market = kind < 2
            csp.output(
                order=OrderRequest(
                    order_id=order_id,
                    symbol=instrument.symbol,
                    side=Side.SELL if sells else Side.BUY,
                    order_type=OrderType.MARKET if market else OrderType.LIMIT,
                    quantity=s_contract.lots.value(lots),
                    limit_price=0.0 if market else s_contract.ticks.value(ticks),
                )
            )


def limits(
    feeds: Feeds, venue: Venue, config: TradingConfig, *, run_id: str, opening: Opening | None, **rest: Any
) -> AccountStreams:
    """A system that sends orders of its own: market orders, limits that rest and fill in parts, and cancels."""
    account = Account(feeds, config, opening)
    (instrument,) = config.instruments
    symbol = instrument.symbol
    assert feeds.live is not None
    trade = _fresh(feeds.trades[symbol], feeds.live)
    sent = _limits(trade, account.updates[symbol], account.positions[symbol], instrument, run_id, opening)
    return account.trade(
        sent.order, sent.cancel, venue, actions=rest["actions"], flatten_as=f"{run_id}-x", halted=rest["halted"]
    )


def main(argv: Sequence[str]) -> int:
    """A run of the desk, with the flags of run_live.py."""
    return live_main(argv, limits)


def again(argv: Sequence[str]) -> int:
    """The replay of such a run: the folder of its recording, and one for that of the replay."""
    compared = replay(Path(argv[0]), Path(argv[1]), system=limits)
    print("identical" if compared.identical else f"NOT IDENTICAL: {compared.first}")
    return 0 if compared.identical else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
