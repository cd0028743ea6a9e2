"""What an order must pass, rule by rule. Plain Python; the gate asks it once an order.

A refusal is a stable code and one sentence with the figures. The codes are listed in docs/concepts/risk.md.
"""

import math
from collections import deque
from datetime import datetime, timedelta

from brokers.events import OrderRequest, OrderType
from brokers.figures import apart
from feeds.events import Session
from feeds.instruments import Instrument
from feeds.sessions import ALWAYS_OPEN, SessionClock
from nodes.exposure import Exposure
from nodes.feed_status import FeedStates
from nodes.in_flight import Holding, Sent
from nodes.risk import RiskConfig, TradingState

Refusal = tuple[str, str]  # a stable code and a sentence
Terms = tuple[object, ...]
Marks = dict[str, tuple[float, float]]  # by symbol: last price, worth of a unit in the currency of the account

# Bound once: looking a member up on its class costs more than comparing it.
_ACTIVE, _HALTED = TradingState.ACTIVE, TradingState.HALTED
_MARKET, _LIMIT, _STOP = OrderType.MARKET, OrderType.LIMIT, OrderType.STOP
_STOP_LIMIT, _TRAILING = OrderType.STOP_LIMIT, OrderType.TRAILING_STOP
_OPEN = Session.MARKET_HOURS
_SECOND = timedelta(seconds=1)
_CLOSE = 1e-12  # what is exactly at a limit passes, however its floats were rounded
_ROUNDING = 1.0 + _CLOSE
_IDS_MAX = 65_536  # about 8 MB
_AHEAD_MAX = 1_024
_RECENT_MAX = 65_536

# What comes back to the gate with the venue's updates although no venue said it.
CODES = frozenset(
    {
        "cash", "closed_session", "duplicate", "duplicate_id", "frozen", "gross_exposure", "halted", "link",
        "net_exposure", "no_price", "order_lots", "order_notional", "order_rate", "position_notional", "price",
        "price_collar", "quantity", "reducing", "short", "stale_feed", "stale_quote", "stopping", "symbol_halted",
        "unknown_symbol",
    }
)  # fmt: skip


class SeenIds:
    """Which order ids were used, in bounded memory.

    Of ids that end in `-` and a number, the first part is kept once, with the number up to which all were seen and the
    few beyond it. Of 1,024 of those the lowest are given up: a number that was skipped for so long counts as used, and
    so does 0 where 1 came first. Of other ids, and of first parts, the last 65,536 are kept.
    """

    __slots__ = ("_ahead", "_next", "_others")

    def __init__(self) -> None:
        self._next: dict[str, int] = {}  # by first part: the lowest number that was not seen
        self._ahead: dict[str, set[int]] = {}  # by first part: the numbers seen beyond it
        self._others: dict[str, None] = {}

    def __contains__(self, order_id: str) -> bool:
        first, number = _parts(order_id)
        if number is None:
            return order_id in self._others
        return number < self._next.get(first, 0) or number in self._ahead.get(first, ())

    def add(self, order_id: str) -> bool:
        """Note an id; False when it was used before."""
        first, dash, last = order_id.rpartition("-")
        expected = self._next.get(first)
        if dash and expected is not None and last == str(expected) and first not in self._ahead:  # nearly every id
            self._next[first] = expected + 1
            return True
        return self._add_any(order_id)

    def _add_any(self, order_id: str) -> bool:
        first, number = _parts(order_id)
        if number is None:
            if order_id in self._others:
                return False
            self._others[order_id] = None
            if len(self._others) > _IDS_MAX:
                del self._others[next(iter(self._others))]
            return True
        expected = self._next.get(first)
        if expected is None:
            expected = min(number, 1)
            if len(self._next) >= _IDS_MAX:
                oldest = next(iter(self._next))
                del self._next[oldest]
                self._ahead.pop(oldest, None)
            self._next[first] = expected
        if number != expected:
            return number > expected and self._add_ahead(first, number)
        ahead = self._ahead.get(first, ())
        while number + 1 in ahead:
            number += 1
            self._ahead[first].remove(number)
        self._next[first] = number + 1
        if not ahead:
            self._ahead.pop(first, None)
        return True

    def _add_ahead(self, first: str, number: int) -> bool:
        ahead = self._ahead.setdefault(first, set())
        if number in ahead:
            return False
        ahead.add(number)
        if len(ahead) > _AHEAD_MAX:
            lowest = min(ahead)
            ahead.remove(lowest)
            self._next[first] = lowest + 1
        return True


def _parts(order_id: str) -> tuple[str, int | None]:
    """An id as its first part and its number; None where it does not end in one."""
    first, dash, last = order_id.rpartition("-")
    if not dash or not last.isdecimal() or not last.isascii() or len(last) > 15 or (last[0] == "0" and last != "0"):
        return order_id, None
    return first, int(last)


class OrderChecks:
    """The rules. `refusal` is to be asked once an order; one that passes is in flight from then on."""

    def __init__(self, exposure: Exposure, instruments: tuple[Instrument, ...], config: RiskConfig) -> None:
        self._exposure, self._config = exposure, config
        self.seen = SeenIds()
        for order_id in exposure.orders:  # those that work at the start
            self.seen.add(order_id)
        self.feeds = FeedStates()
        self.stopping = False  # a person asked to stop: nothing passes any more
        self._sent = deque[datetime](maxlen=config.orders_per_second_max or 1)  # engine times
        self._recent: dict[Terms, datetime] = {}  # what passed, the oldest first
        self._window = timedelta(seconds=config.duplicate_window_s or 0.0)
        self._clocks = {
            i.symbol: SessionClock(i.calendar)
            for i in instruments
            if config.session_check and i.calendar != ALWAYS_OPEN
        }
        self._multipliers = {i.symbol: float(i.multiplier) for i in instruments}
        self.halted_until: dict[str, datetime] = {}  # by symbol
        self.quote_age_max = None if config.quote_age_max_s is None else timedelta(seconds=config.quote_age_max_s)
        self._timed = self.quote_age_max is not None or bool(self._clocks)
        limits = (config.position_notional_max, config.gross_exposure_max, config.net_exposure_max)
        self.marks_all = config.cash_only or any(limit is not None for limit in limits)

    def _malformed(self, order: OrderRequest, symbol: str) -> Refusal | None:
        """What no market could change. The id counts as used from now on."""
        if not self.seen.add(order.order_id):
            return "duplicate_id", f"an order of this id came before: {order.order_id}"
        holding = self._exposure.holdings.get(symbol)
        if holding is None:
            return "unknown_symbol", f"{symbol!r} is none of {', '.join(self._exposure.holdings)}"
        if not 0.0 < order.quantity <= holding.quantity_max:
            if 0.0 < order.quantity < math.inf:
                return "quantity", f"a quantity must be at most 2**63 lots, was {order.quantity}"
            return "quantity", f"a quantity must be positive and finite, was {order.quantity}"
        kind = order.order_type
        if kind is _MARKET:
            return None
        most = holding.price_max
        if kind is _TRAILING:
            trail, bps = order.trail, order.trail_bps
            if (0.0 < trail <= most and bps == 0.0) or (0.0 < bps < 10_000.0 and trail == 0.0):
                return None
            return "price", f"a trailing stop wants a positive trail or trail_bps below 10000, was {trail} and {bps}"
        for name, price in (("limit", order.limit_price), ("stop", order.stop_price)):
            wanted = kind is _STOP_LIMIT or (kind is _LIMIT) == (name == "limit")
            if wanted and most < price < math.inf:
                return "price", f"the {name} price of a {kind.name} order must be at most 2**63 ticks, was {price}"
            if wanted and not 0.0 < price < math.inf:
                return "price", f"the {name} price of a {kind.name} order must be positive and finite, was {price}"
        return None

    def refusal(
        self,
        order: OrderRequest,
        now: datetime,
        state: TradingState,
        quoted: datetime,
        marks: Marks,
        equity: float,
        cash: float,
    ) -> Refusal | None:
        """Why an order does not pass; None when it does, and is counted as in flight.

        Args:
            quoted: engine time of the last price of the symbol.
            marks: of the symbol, and of every other in which something is held or on its way.
            equity, cash: of the account, in its currency; NaN where it is not known.
        """
        symbol, exposure = order.symbol, self._exposure
        found = self._malformed(order, symbol)
        if found is not None:
            return found
        if self.stopping:
            return "stopping", "a person asked to stop: no order is sent any more"
        last, unit = marks.get(symbol, (math.nan, math.nan))
        if not (0.0 < last <= exposure.holdings[symbol].price_max and 0.0 < unit < math.inf and equity == equity):
            return "no_price", f"no order of {symbol} can be judged by a price of {last:g} and an equity of {equity:g}"
        if exposure.unpriced:
            for known, (price, _) in marks.items():
                if 0.0 < price < math.inf:
                    exposure.price(known, price)
        sent = exposure.prepare(order, last)
        if sent is None:
            lot = exposure.holdings[symbol].instrument.lot
            return "quantity", f"of {order.quantity} less than one lot of {lot} is left to fill"
        halted = self.halted_until.get(symbol)
        free = state is _ACTIVE and (halted is None or now >= halted)
        in_doubt = self.feeds.unreliable and self.feeds.fault(symbol) is not None
        reducing = exposure.reduces(sent, free, certain=in_doubt)
        if sent.linked:
            wrong = exposure.misled(sent)
            if wrong:
                return "link", wrong
        if not free:
            found = self._stopped(state, symbol, now, reducing)
            if found is not None:
                return found
        terms = _terms(order, sent) if self._window else ()
        if free:  # what risk itself closes is never held up by these
            if not reducing and (self._timed or self.feeds.unreliable):
                found = self._untimely(symbol, now, quoted)
            if found is None and terms:
                found = self._repeated(terms, now)
            if found is not None:
                return found
        found = self._far(order, sent, last) if self._config.price_collar is not None else None
        if found is None and not reducing:
            found = self._large(sent, marks[symbol], now)
        if found is not None:
            return found
        exposure.add(sent)
        if self.marks_all and (not reducing or (sent.reduce_only and free and self._turns(sent))):
            found = self._exposed(sent, marks, equity, cash)
        if found is None and self._config.cash_only and sent.sign < 0:
            found = self._short(sent, free)
        if found is not None:
            exposure.remove(sent.order_id)
            return found
        self._sent.append(now)
        if terms:
            self._recent.pop(terms, None)  # to stand at the end: the oldest first
            self._recent[terms] = now
        return None

    def unsent(self, sent: Sent) -> None:
        """An order that passed did not reach the venue: the same again repeats nothing."""
        self._recent.pop(_terms(sent.request, sent), None)

    def _stopped(self, state: TradingState, symbol: str, now: datetime, reducing: bool) -> Refusal | None:
        if state is _HALTED and not self._config.flatten:
            return "frozen", "trading is halted and frozen: nothing passes until a person resets it"
        if reducing:
            return None
        if state is _HALTED:
            return "halted", "trading is halted: only orders that reduce a position pass"
        if state is not _ACTIVE:
            return "reducing", "risk is being reduced: only orders that reduce a position pass"
        until = self.halted_until[symbol]
        return "symbol_halted", f"{symbol} is halted until {until}: only orders that reduce its position pass"

    def _untimely(self, symbol: str, now: datetime, quoted: datetime) -> Refusal | None:
        config = self._config
        fault = self.feeds.fault(symbol) if self.feeds.unreliable else None
        if fault is not None:
            what = f"{fault.feed} is {fault.state.name} for {symbol} ({fault.detail})"
            return "stale_feed", f"{what}: only orders that reduce its position pass"
        if self.quote_age_max is not None and now - quoted > self.quote_age_max:
            age_s, most_s = (now - quoted).total_seconds(), config.quote_age_max_s
            return "stale_quote", f"the last price of {symbol} is {age_s:g} s old, the limit {most_s:g}"
        clock = self._clocks.get(symbol)
        if clock is not None and clock.at(now) is not _OPEN:
            return "closed_session", f"{clock.calendar} is not open at {now}: {clock.at(now).name}"
        return None

    def _repeated(self, terms: Terms, now: datetime) -> Refusal | None:
        recent = self._recent
        while recent:
            oldest = next(iter(recent))
            if now - recent[oldest] < self._window and len(recent) < _RECENT_MAX:
                break
            del recent[oldest]
        if terms not in recent:
            return None
        ago_s, window_s = (now - recent[terms]).total_seconds(), self._window.total_seconds()
        return "duplicate", f"the same order came {ago_s:g} s ago, the window is {window_s:g} s"

    def _far(self, order: OrderRequest, sent: Sent, last: float) -> Refusal | None:
        """A limit that gives too much away, or a trigger on the wrong side of the market."""
        kind = order.order_type
        if kind is _MARKET or kind is _TRAILING:
            return None
        if sent.parent:  # it wakes where its parent fills
            parent = self._exposure.orders.get(sent.parent)
            if parent is not None:
                last = self._exposure.holdings[sent.symbol].ticks.value(parent.ticks)
        sign = sent.sign
        limit, stop = order.limit_price, order.stop_price
        beyond = 0.0  # by which part of the last price it is too far, in the harmful direction
        if kind is _LIMIT:
            beyond, price, name = sign * (limit / last - 1.0), limit, "limit"
        elif kind is _STOP:
            beyond, price, name = sign * (1.0 - stop / last), stop, "stop"
        elif kind is _STOP_LIMIT:
            beyond, price, name = sign * (1.0 - stop / last), stop, "stop"
            reached = max(last, stop) if sign > 0 else min(last, stop)
            if sign * (limit / reached - 1.0) > beyond:
                beyond, price, name, last = sign * (limit / reached - 1.0), limit, "limit", reached
        else:
            beyond, price, name = sign * (stop / last - 1.0), stop, "touch"
        collar = self._config.price_collar
        if collar is not None and not beyond <= collar + _CLOSE:
            return (
                "price_collar",
                f"the {name} price {price:g} is {beyond:.2%} on the wrong side of {last:g}, the limit {collar:.2%}",
            )
        return None

    def _large(self, sent: Sent, mark: tuple[float, float], now: datetime) -> Refusal | None:
        """Too much at once, or too often."""
        config = self._config
        most = config.order_lots_max
        if most is not None and sent.lots > most:
            return "order_lots", f"the order is of {sent.lots} lots, more than {most}"
        if config.order_notional_max is not None:
            last, unit = mark
            worth = sent.lots * sent.ticks * self._exposure.holdings[sent.symbol].tick_lot * unit / last
            if not worth <= config.order_notional_max * _ROUNDING:
                was, limit = apart(worth, config.order_notional_max, 2)
                return "order_notional", f"the order is worth {was}, more than {limit}"
        often = config.orders_per_second_max
        if often is not None and len(self._sent) == often and self._sent[0] > now - _SECOND:
            return "order_rate", f"{often} orders went out within the last second, the limit is the same"
        return None

    def _exposed(self, sent: Sent, marks: Marks, equity: float, cash: float) -> Refusal | None:
        """What the account could come to hold, this order included."""
        config = self._config
        gross = longs = shorts = costs = 0.0
        for symbol, holding in self._exposure.holdings.items():
            if not (holding.held or holding.buys or holding.sells):
                continue
            if symbol not in marks:
                return "no_price", f"there is no price of {symbol}, which is held or on its way"
            last, unit = marks[symbol]
            most, least = holding.worst(unit, last)
            worst = max(most, -least)
            most_held = config.position_notional_max
            if most_held is not None and symbol == sent.symbol and not worst <= most_held * _ROUNDING:
                was, limit = apart(worst, most_held, 2)
                return "position_notional", f"{symbol} would be worth {was}, more than {limit}"
            gross += worst
            longs += most
            shorts += least
            if config.cash_only and holding.buys:
                costs += self._cost(holding, last, unit)
        ratio = config.gross_exposure_max
        if ratio is not None and not gross <= ratio * equity * _ROUNDING:
            return (
                "gross_exposure",
                f"exposure would be {gross:.2f}, more than {ratio:g} times the equity of {equity:.2f}",
            )
        ratio = config.net_exposure_max
        net = max(longs, -shorts)
        if ratio is not None and not net <= ratio * equity * _ROUNDING:
            return (
                "net_exposure",
                f"net exposure would be {net:.2f}, more than {ratio:g} times the equity of {equity:.2f}",
            )
        if config.cash_only and sent.sign > 0 and not costs <= cash * _ROUNDING:
            cost, there = apart(costs, cash, 2)
            return "cash", f"all that is being bought would cost {cost} with fees, the cash is {there}"
        return None

    def _cost(self, holding: Holding, last: float, unit: float) -> float:
        """What the orders in flight of one symbol would pay if every buy filled, fees included."""
        instrument = holding.instrument
        worth = holding.buys_value * holding.tick_lot * unit / last
        if instrument.fees_in == "received":
            return worth
        rate = unit / last / self._multipliers[instrument.symbol]  # of the quote currency
        fees = holding.buys * holding.lot * float(instrument.fee_per_unit) * rate
        if instrument.fee_min != "0":
            count = sum(1 for s in self._exposure.orders.values() if s.symbol == instrument.symbol and s.sign > 0)
            fees += count * float(instrument.fee_min) * rate
        return worth * (1.0 + max(instrument.taker_bps, instrument.maker_bps, 0.0) / 10_000.0) + fees

    def _turns(self, sent: Sent) -> bool:
        """Whether other orders of the side of a reduce-only order would cross zero if it fills before them."""
        holding = self._exposure.holdings[sent.symbol]
        return holding.sells > holding.held > 0 if sent.sign < 0 else holding.buys > -holding.held > 0

    def _short(self, sent: Sent, free: bool) -> Refusal | None:
        """What is being cancelled counts too, but where risk itself closes."""
        holding = self._exposure.holdings[sent.symbol]
        if free:
            lots = holding.sells + max(0, min(holding.closing_sells, holding.held))
        else:
            lots = 0 if sent.reduce_only else holding.firm_sells
        if lots <= holding.held or (sent.parent and not holding.closing_sells) or not lots:
            return None
        selling, held = holding.lots.value(lots), holding.lots.value(holding.held)
        return "short", f"{selling:g} {sent.symbol} would be for sale, {held:g} are held: cash_only allows no shorts"


def _terms(order: OrderRequest, sent: Sent) -> Terms:
    """What makes two orders the same but for their ids."""
    kind = order.order_type
    whose = (sent.symbol, sent.sign, sent.quantity, kind, order.strategy, sent.parent, sent.replaces)
    if kind is _MARKET:
        return whose
    return *whose, order.limit_price, order.stop_price, order.trail, order.trail_bps
