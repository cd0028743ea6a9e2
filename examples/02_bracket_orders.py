"""Brackets, a trailing stop and DAY orders on every trade of the E-mini S&P 500, through the gate to the paper venue.

python examples/02_bracket_orders.py

When a one-minute bar closes above the highest high of the last `window_bars`, or below the lowest low, two entries go
out in that direction, one contract each:

- a limit order `pullback` points back, good for the DAY, with a stop and a target of one group as its children: the
  one that fills takes the other away, and an entry that is not filled when the day ends takes both with it;
- a market order whose child is a trailing stop.

Nothing new is sent while anything is held or works.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta

import csp
import tyro
from csp import ts

from brokers.costs import FillModel
from brokers.events import Answers, CancelRequest, OrderRequest, OrderType, OrderUpdate, TimeInForce
from brokers.orders import ENDED
from brokers.paper import Market, PaperConfig, paper_venue
from feeds import replay
from feeds.events import Bar, Side
from feeds.files import Source, describe
from feeds.instruments import Instrument
from graphs.account import Account
from graphs.config import AccountConfig
from graphs.edges import Feeds
from graphs.sinks import print_streams
from nodes.bars import bar_aggregator

ES = Instrument(symbol="ES", tick="0.25", lot="1", multiplier="50", taker_bps=0.3)  # days end at UTC midnight
MINUTE = timedelta(minutes=1)
CASH = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakoutConfig:
    """When to enter, and where to leave. Distances in index points."""

    window_bars: int = 60  # whose highest high and lowest low count
    pullback: float = 1.5  # from the close to the limit of the entry
    stop: float = 3.0  # from that limit
    target: float = 4.5  # from that limit
    trail: float = 4.0  # of the trailing stop

    def __post_init__(self) -> None:
        if self.window_bars < 2:
            raise ValueError(f"window_bars must be at least 2, was {self.window_bars}")
        for name in ("pullback", "stop", "target", "trail"):
            if not 0.0 < getattr(self, name) < 1_000.0:
                raise ValueError(f"{name} must lie in (0, 1000), was {getattr(self, name)}")


def entries(number: int, close: float, up: bool, config: BreakoutConfig) -> list[OrderRequest]:
    """The two entries of one breakout and what protects them."""
    sign = 1.0 if up else -1.0
    limit = close - sign * config.pullback
    buy, sell = (Side.BUY, Side.SELL) if up else (Side.SELL, Side.BUY)
    bracket, runner = f"bracket-{number}", f"runner-{number}"

    def order(name: str, side: Side, kind: OrderType, **terms: object) -> OrderRequest:
        return OrderRequest(order_id=name, symbol="ES", side=side, order_type=kind, quantity=1.0, **terms)

    leave = {"parent": bracket, "group": bracket}
    return [
        order(bracket, buy, OrderType.LIMIT, limit_price=limit, time_in_force=TimeInForce.DAY),
        order(f"{bracket}-stop", sell, OrderType.STOP, stop_price=limit - sign * config.stop, **leave),
        order(f"{bracket}-target", sell, OrderType.LIMIT, limit_price=limit + sign * config.target, **leave),
        order(runner, buy, OrderType.MARKET),
        order(f"{runner}-trail", sell, OrderType.TRAILING_STOP, trail=config.trail, parent=runner),
    ]


@csp.node
def breakout(bar: ts[Bar], update: ts[OrderUpdate], config: BreakoutConfig) -> ts[list[OrderRequest]]:
    """Send two entries when the range of the last bars is left, and wait until all their orders have ended.

    Args:
        bar: one-minute bars.
        update: of its own orders.

    Ticks:
        Five orders in the cycle of the close that leaves the range.
    """
    with csp.state():
        s_highs = deque[float](maxlen=config.window_bars)
        s_lows = deque[float](maxlen=config.window_bars)
        s_working = set[str]()
        s_number = 0

    if csp.ticked(update) and update.state in ENDED:
        s_working.discard(update.order_id)
    if csp.ticked(bar):
        full = len(s_highs) == config.window_bars
        if full and not s_working and not min(s_lows) <= bar.close <= max(s_highs):
            s_number += 1
            orders = entries(s_number, bar.close, bar.close > max(s_highs), config)
            s_working.update(order.order_id for order in orders)
            csp.output(orders)
        s_highs.append(bar.high)
        s_lows.append(bar.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Brackets, trailing stops and DAY orders on the ES sample."""

    breakout: BreakoutConfig = field(default_factory=BreakoutConfig)
    broker: PaperConfig = field(default_factory=lambda: PaperConfig(fills=FillModel(slippage_bps=0.0)))


def day_trading(source: Source, options: Options) -> None:
    trade = replay.trades(source, ["ES"], ("ES",))["ES"]
    bar = bar_aggregator(trade.price, trade.size, "ES", MINUTE)
    feeds = Feeds(bars={"ES": bar}, bar_lengths={"ES": MINUTE}, trades={"ES": trade})
    account = Account(feeds, AccountConfig(instruments=(ES,), initial_cash=CASH))

    def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
        return paper_venue(order, cancel, Market(trades=feeds.trades), (ES,), options.broker)

    orders = csp.unroll(breakout(bar, account.updates["ES"], options.breakout))
    done = account.trade(orders, csp.null_ts(CancelRequest), venue, flatten_as="es")
    print_streams(done, ("orders", "updates", "fills", "alerts"))
    csp.add_graph_output("equity", done.equity, tick_count=1)


def main() -> None:
    options = tyro.cli(Options)
    source = Source(path="feeds/sample/es_trades_2013-09.parquet", symbol="ES", time_zone="UTC")
    known = describe(source)
    ended = csp.run(day_trading, source, options, starttime=known.first, endtime=known.last)
    print(f"equity at the end: {ended['equity'][-1][1]:,.2f} of {CASH:,.2f}")


if __name__ == "__main__":
    main()
