"""When and at what price a simulated order fills. Pure rules on integers of ticks and lots; the venue keeps the clock.

The rules are those of docs/concepts/fills.md, chosen so that a backtest errs on the side of the market. They are in
`brokers.bar_matching` and `brokers.tape_matching`; what holds on every market, groups, brackets, replacements and times
in force, is in `brokers.lifecycle`; what it costs in `brokers.costs`.
"""

from datetime import datetime
from fractions import Fraction

from brokers.bar_matching import BarMatcher
from brokers.costs import Fees, FillModel, TakerPrices
from brokers.ledger import Contract
from brokers.lifecycle import Orders
from brokers.tape_matching import Levels, TapeMatcher
from brokers.working import Execution, Order, Report
from feeds.instruments import Instrument

__all__ = ["Book", "Execution", "Order", "Report"]


class Book:
    """The orders of one symbol at the venue, and the market that they wait for.

    It learns of the market and of time by its methods alone, in the order of their times, and each returns what has
    happened, in that order. An order sees the events after its submission.

    Args:
        bars: the market of the symbol is bars.
        quoted: it has quotes or depth; known from the first of them on in any case. Trades are then news for resting
            limit orders alone.
    """

    __slots__ = ("_bars", "_fees", "_on_bars", "_orders", "_rules", "_tape")

    def __init__(self, instrument: Instrument, model: FillModel, bars: bool, quoted: bool = False) -> None:
        contract = Contract(instrument)
        prices = TakerPrices(contract, model)
        self._on_bars = bars
        self._fees = Fees(contract)
        self._orders = Orders()
        self._bars = BarMatcher(self._orders, contract.ticks, prices, model)
        self._rules = contract.ticks, prices, model
        self._tape = TapeMatcher(self._orders, *self._rules, quoted=quoted)

    @property
    def orders(self) -> dict[str, Order]:
        """Working and sleeping orders by id, the oldest first."""
        return self._orders.orders

    @property
    def position(self) -> int:
        """Lots held, signed, of all executions so far; to be set where it did not start at none."""
        return self._orders.position

    @position.setter
    def position(self, lots: int) -> None:
        self._orders.position = lots

    @property
    def idle(self) -> bool:
        """Nothing waits for the market. Depth must be told all the same: the book is made of all its changes."""
        return not self._orders.orders

    @property
    def next_expiry(self) -> datetime | None:
        """When `expire` is due; None on bars, where orders end with a bar."""
        return None if self._on_bars else self._orders.next_expiry

    @property
    def mid(self) -> float:
        """The middle of the best bid and ask shown last; 0.0 where one of them is not shown."""
        return self._tape.mid

    def submit(self, order: Order, now: datetime) -> list[Report]:
        """Take an order, or refuse it.

        Refusals: `duplicate_order_id`, `replaced_gone`, `no_parent`, `child_type`, `nothing_left`, `reduce_only`,
        `post_only`.
        """
        return self._orders.submit(order, self._tape.crosses)

    def cancel(self, order_id: str, now: datetime) -> list[Report]:
        """End an order; nothing happens where it has ended or never was."""
        return self._orders.cancel(order_id)

    def split(self, ratio: Fraction) -> list[Report]:
        """Each unit has become `ratio` units: cancel all orders, scale the position to whole lots, towards zero, and
        forget what quotes and depth have shown."""
        self._tape = TapeMatcher(self._orders, *self._rules, quoted=self._tape.showing)
        return self._orders.split(ratio)

    def expire(self, now: datetime) -> list[Report]:
        """End what expires at or before `now`; nothing on bars."""
        self._orders.reports = []
        if not self._on_bars:
            self._orders.expire(now)
        return self._orders.reports

    def on_bar(
        self,
        open_: float,
        high: float,
        low: float,
        close: float,
        volume_lots: float,
        open_time: datetime,
        now: datetime,
    ) -> list[Report]:
        """One bar that opened at `open_time` and is known at `now`, its close."""
        reports: list[Report] = []
        self._orders.reports = reports
        if self._orders.orders:
            self._bars.on_bar(open_, high, low, close, volume_lots, open_time, now)
        return reports

    def on_trade(self, price: float, size_lots: float, time: datetime) -> list[Report]:
        """One trade at `time`."""
        reports: list[Report] = []
        self._orders.reports = reports
        if self._orders.orders:
            self._tape.on_trade(price, size_lots, time)
        return reports

    def on_quote(self, bid: float, ask: float, bid_lots: float, ask_lots: float, time: datetime) -> list[Report]:
        """The best bid and ask; a side without a positive price and size is not shown."""
        self._orders.reports = []
        self._tape.on_quote(bid, ask, bid_lots, ask_lots, time)
        return self._orders.reports

    def on_depth(self, bids: Levels, asks: Levels, snapshot: bool, time: datetime) -> list[Report]:
        """Levels as (price, size in lots), a size of 0.0 deletes one; a snapshot replaces the whole book."""
        self._orders.reports = []
        self._tape.on_depth(bids, asks, time, snapshot=snapshot)
        return self._orders.reports

    def fee(self, order: Order, execution: Execution) -> tuple[int, int]:
        """What the fee of `order` grows by with `execution`, which must be told once, in the order in which they came.

        Returns:
            Quanta of the quote currency, and base units.
        """
        return self._fees.charge(order, execution.lots, execution.ticks, execution.maker)
