"""Make journal and venue agree before a run: ask the venue, carry out what `brokers.reconcile` plans, ask again.

opening = asyncio.run(settle(at, journal, config, instruments))   # before csp.run, on a journal whose run has begun
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import structlog

from brokers.journal import Journal
from brokers.opening import SIDES, TIMES_IN_FORCE, Note, Opening
from brokers.reconcile import (
    Cancel,
    JournalView,
    ReconcileConfig,
    ReconcileError,
    VenueOrder,
    VenueTrade,
    VenueView,
    journal_view,
    reconcile,
    write,
)
from brokers.venue_errors import trouble
from brokers.venue_messages import Execution, Market, MessageError, execution
from brokers.venue_terms import decimals
from feeds.backoff import Backoff
from feeds.errors import FeedError, OfflineError
from feeds.exchange import ExchangeConfig, connect, disconnect, market, retry_after_s
from feeds.instruments import Instrument

_PASSING = ("rate_limit", "venue_down", "no_answer", "clock")  # codes of what another try may mend
_PAGE = 1_000  # trades of one order, Binance's most
_FIRST_S, _MOST_S = 0.1, 5.0  # between tries
_LOOK_MOST_S = 1.0  # between looks, of which each is some hundred of the 6,000 that Binance allows a minute
_PROCESSING_MS = 500  # that a venue may take to show an order that it took in time
_ENDS = {"closed": "FILLED", "canceled": "CANCELLED", "rejected": "REJECTED", "expired": "EXPIRED"}
# ccxt's types, as they are with a trigger price and without.
_PLAIN_TYPES = {"market": "MARKET", "limit": "LIMIT"}
_TRIGGERED_TYPES = {
    "stop_loss": "STOP",
    "stop_loss_limit": "STOP_LIMIT",
    "take_profit": "MARKET_IF_TOUCHED",
}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleConfig:
    """How long a start may take, and what becomes of what it finds."""

    found: ReconcileConfig = field(default_factory=ReconcileConfig)
    recv_window_ms: int = 5_000  # for which the venue may still take a request of the last run
    patience_s: float = 15.0  # for which the venue may be out of reach, or disagree with itself

    def __post_init__(self) -> None:
        if not 1 <= self.recv_window_ms <= 60_000:
            raise ValueError(f"recv_window_ms must lie in [1, 60000], was {self.recv_window_ms}")
        if not 0.0 < self.patience_s < math.inf:
            raise ValueError(f"patience_s must be positive and finite, was {self.patience_s}")


async def settle(
    at: ExchangeConfig, journal: Journal, config: SettleConfig, instruments: tuple[Instrument, ...], *, seed: int = 0
) -> Opening:
    """Make journal and venue agree, and return what the run starts with.

    An order of which the venue knows nothing is given up only when the venue's own clock says that it could no longer
    take it. So a start takes moments, and up to `recv_window_ms` more where a crash left such an order.

    Args:
        journal: a run has begun on it, so that nobody else trades on the account.
        instruments: what the run may trade; one currency, and each asset in one symbol.
        seed: of the jitter between tries.

    Raises:
        ReconcileError: the account cannot be gone on with; a person must see to it.
        OfflineError: the venue was out of reach for `patience_s`; try again.
        FeedError: a key is not there or is refused, or the venue does not trade an instrument.
    """
    exchange = connect(at, private=True)
    try:
        return await _Settler(exchange, at, journal, config, instruments, seed).run()
    finally:
        await disconnect(exchange)


class _Settler:
    def __init__(
        self,
        exchange: Any,
        at: ExchangeConfig,
        journal: Journal,
        config: SettleConfig,
        instruments: tuple[Instrument, ...],
        seed: int,
    ) -> None:
        self._exchange, self._at, self._journal, self._config = exchange, at, journal, config
        self._instruments = instruments
        self._backoff = Backoff(_FIRST_S, _MOST_S, random.Random(seed))
        self._looks = Backoff(_FIRST_S, _LOOK_MOST_S, random.Random(seed))
        self._markets: dict[str, Market] = {}
        self._told = ""  # code of the trouble that was logged last
        self._sent_ms = 0  # no request of an earlier run was signed later, by any clock
        self._done: dict[str, Note] = {}  # by the venue's id of the order

    async def run(self) -> Opening:
        exchange = self._exchange
        exchange.options["recvWindow"] = self._config.recv_window_ms
        await self._ask(exchange.load_markets)
        await self._ask(exchange.load_time_difference)
        for one in self._instruments:
            found = market(exchange, one.symbol)
            self._markets[one.symbol] = Market.of(one, found["base"], found["quote"])
        # The last run is dead, for its lock is ours; its stamps were this machine's clock, or the venue's.
        now_ms = await self._ask(exchange.fetch_time)
        self._sent_ms = max(now_ms, exchange.milliseconds())
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._config.patience_s + (self._late_ms() - now_ms) / 1000.0
        while True:
            patient = loop.time() < give_up  # before the look: a long one may be out of date at its end
            known, view = await self._look()
            plan = reconcile(
                known,
                view,
                self._config.found,
                self._instruments,
                patient=patient,
                done=tuple(self._done.values()),
            )
            if plan.final:
                write(self._journal, plan, time.time_ns())
                return plan.opening
            if plan.cancels and not patient:
                stuck = ", ".join(cancel.order.venue_id for cancel in plan.cancels)
                raise ReconcileError(f"orders {stuck} at {self._at.name} could not be cancelled")
            for cancel in plan.cancels:
                await self._cancel(cancel)
            if not plan.cancels:
                await asyncio.sleep(self._looks.next_s())

    def _late_ms(self) -> int:
        """By the venue's clock, when it can no longer take what was signed before this start."""
        return self._sent_ms + self._config.recv_window_ms + _PROCESSING_MS

    async def _look(self) -> tuple[JournalView, VenueView]:
        """Ask for everything once, the balances before and after: where they moved, nobody knows what they include."""
        late = await self._ask(self._exchange.fetch_time) > self._late_ms()
        before = await self._balances()
        orders = {
            order.venue_id: order
            for symbol in self._markets
            for order in map(_order, await self._ask(self._exchange.fetch_open_orders, symbol))
        }
        told = {order.client_id: order for order in orders.values()}
        known = journal_view(self._journal, told)
        trades: list[VenueTrade] = []
        for kept in known.orders:
            if kept.symbol not in self._markets:
                continue  # which `reconcile` refuses
            order = told.get(kept.client_id) or await self._find(kept.client_id, kept.symbol)
            if order is not None:
                orders[order.venue_id] = order
                if order.filled != Decimal(kept.booked):
                    trades += await self._trades_of(order)
        after = await self._balances()
        return known, VenueView(
            orders=tuple(orders.values()),
            trades=tuple(trades),
            balances=after,
            bases={symbol: one.base for symbol, one in self._markets.items()},
            late=late,
            steady=before == after,
        )

    async def _balances(self) -> dict[str, Decimal]:
        assets = {asset for one in self._markets.values() for asset in (one.base, one.quote)}
        with _exact(self._exchange):
            total = (await self._ask(self._exchange.fetch_balance))["total"]
        return {asset: Decimal(total.get(asset) or "0") for asset in sorted(assets)}

    async def _find(self, client_id: str, symbol: str) -> VenueOrder | None:
        """An order by its client id; None where the venue does not know it."""
        answer = await self._ask(
            self._exchange.fetch_order, "", symbol, {"clientOrderId": client_id}, missing="unknown_order"
        )
        return None if answer is None else _order(answer)

    async def _trades_of(self, order: VenueOrder) -> list[VenueTrade]:
        if self._exchange.has.get("fetchOrderTrades"):
            answer = await self._ask(self._exchange.fetch_order_trades, order.venue_id, order.symbol, None, _PAGE)
        else:
            since_ms = order.time_ns // 1_000_000
            answer = await self._ask(self._exchange.fetch_my_trades, order.symbol, since_ms, _PAGE)
        try:
            read = [execution(trade, self._markets) for trade in answer]
        except MessageError as error:
            raise ReconcileError(f"a trade of {order.symbol} at {self._at.name} cannot be booked: {error}") from None
        return [_trade(one, self._markets[one.symbol]) for one in read if one is not None]

    async def _cancel(self, cancel: Cancel) -> None:
        """Ask for it; the next look shows what became of it."""
        order = cancel.order
        await self._ask(self._exchange.cancel_order, order.venue_id, order.symbol, missing="unknown_order")
        message = f"order {order.client_id} of an earlier run was cancelled, {order.filled:f} of it had filled"
        self._done[order.venue_id] = Note(
            code=cancel.code,
            symbol=order.symbol,
            message=message,
            value=float(order.quantity - order.filled),
            level="WARNING" if cancel.code == "stray_cancelled" else "INFO",
        )

    async def _ask(self, request: Callable[..., Awaitable[Any]], *values: Any, missing: str = "") -> Any:
        """The answer to a request, however often it takes; None where the venue refuses it with the code `missing`."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._config.patience_s
        while True:
            try:
                answer = await request(*values)
            except FeedError:
                raise
            except Exception as error:
                what = trouble(error, self._at, retry_after_s(self._exchange))
            else:
                self._backoff.reset()
                return answer
            if what.code == missing:
                return None
            if what.code not in _PASSING:
                raise FeedError(f"{self._at.name} refuses ({what.code}): {what.reason}")
            if loop.time() >= give_up:
                raise OfflineError(f"{self._at.name} could not be asked for the account ({what.code}): {what.reason}")
            if what.code != self._told:  # once a reason, not once a try
                self._told = what.code
                _log.warning("settle_again", venue=self._at.name, code=what.code, reason=what.reason)
            await asyncio.sleep(self._backoff.next_s(what.wait_s))


@contextmanager
def _exact(exchange: Any) -> Iterator[None]:
    """Numbers come as the text that was sent: a balance may have more digits than a float."""
    number, exchange.number = exchange.number, str
    try:
        yield
    finally:
        exchange.number = number


def _order(told: Mapping[str, Any]) -> VenueOrder:
    """An order structure of ccxt."""
    filled, status = _decimal(told.get("filled")), told.get("status") or "open"
    trigger, kind = _decimal(told.get("triggerPrice")), told.get("type") or ""
    side, force = (told.get("side") or "").upper(), told.get("timeInForce") or "GTC"
    order_type = (_TRIGGERED_TYPES if trigger else _PLAIN_TYPES).get(kind, "")
    understood = side in SIDES and force in TIMES_IN_FORCE
    return VenueOrder(
        client_id=str(told.get("clientOrderId") or ""),
        venue_id=str(told["id"]),
        symbol=told["symbol"],
        side=side,
        order_type=order_type if understood else "",
        quantity=_decimal(told.get("amount")),
        filled=filled,
        state=_ENDS.get(status, "PARTLY_FILLED" if filled else "ACCEPTED"),
        limit_price=_decimal(told.get("price")) if order_type in ("LIMIT", "STOP_LIMIT") else Decimal(),
        stop_price=trigger,
        time_in_force=force,
        time_ns=int(told.get("timestamp") or 0) * 1_000_000,
    )


def _trade(told: Execution, at: Market) -> VenueTrade:
    instrument = at.instrument
    return VenueTrade(
        symbol=told.symbol,
        trade_id=told.trade_id,
        venue_id=told.venue_id,
        side=told.side.name,
        quantity=Decimal(decimals(told.lots, instrument.lot)),
        price=Decimal(decimals(told.ticks, instrument.tick)),
        time_ns=told.time_ms * 1_000_000,
        fee=Decimal(decimals(at.unit.nearest(told.fee), instrument.currency_unit)),
        base_fee=Decimal(decimals(at.contract.units.nearest(told.base_fee), instrument.base_unit or instrument.lot)),
        liquidity="MAKER" if told.maker else "TAKER",
    )


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value or 0))
