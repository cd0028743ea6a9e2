"""Requests and streams of one account at one venue through ccxt: what goes out as `Terms`, what comes back as
snapshots and executions, what fails as one `VenueError`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeVar

import structlog

from brokers.venue_errors import Trouble, trouble
from brokers.venue_messages import Execution, Market, MessageError, Snapshot, execution, snapshot
from brokers.venue_quick import QuickOrders
from brokers.venue_terms import Drafter, Terms, offer
from feeds.errors import FeedError
from feeds.exchange import ExchangeConfig, connect, disconnect, hang_up, instrument, market, retry_after_s, urgent
from feeds.instruments import Instrument

_PAGE = 1_000  # trades a request, Binance's most
_PAGES = 100  # of one poll; what is beyond comes with the next one
_PING_MS = 5_000  # a user stream is silent most of the time, so only a ping tells a dead one

_Item = TypeVar("_Item", Snapshot, Execution)
_log = structlog.get_logger()


class VenueError(Exception):
    """A request that failed, or may have."""

    def __init__(self, what: Trouble) -> None:
        super().__init__(f"{what.code}: {what.reason}")
        self.trouble = what


class Link:
    """One client of the venue. Nothing is opened before `open`.

    Args:
        at: which venue, and where its keys are.
        recv_window_ms: for how long after its time stamp the venue may still take a request.

    Raises:
        FeedError: a key is not there.
    """

    def __init__(self, at: ExchangeConfig, recv_window_ms: int) -> None:
        self._at = at
        self._exchange = connect(at, private=True)
        self._exchange.options["recvWindow"] = recv_window_ms
        self._exchange.options.setdefault("ws", {})["keepAlive"] = _PING_MS
        self._exchange.enableLastResponseHeaders = True
        self._quick = QuickOrders(self._exchange)
        self.markets: dict[str, Market] = {}
        self.drafters: dict[str, Drafter] = {}
        self.quarantined = 0  # messages that could not be read

    async def open(self, instruments: Iterable[Instrument]) -> None:
        """Load the markets and set the clock.

        Raises:
            VenueError: the venue could not be asked.
            FeedError: it does not trade an instrument, or not as that is described.
        """
        await self._ask(self._exchange.load_markets)
        await self.set_clock()
        for wanted in instruments:
            self._describe(wanted)

    async def close(self) -> None:
        await disconnect(self._exchange)

    async def set_clock(self) -> None:
        """Learn by how much the venue's clock differs, so that its time stamps are right."""
        await self._ask(self._exchange.load_time_difference)

    async def server_ms(self) -> int:
        """The venue's clock, by its own word."""
        return int(await self._ask(self._exchange.fetch_time))

    def stamp_ms(self) -> int:
        """The time stamp of a request that is signed now."""
        return int(self._exchange.nonce())

    async def place(self, terms: Terms) -> list[Snapshot | Execution]:
        """Send an order; return what the answer tells of it, executions first."""
        with urgent():
            if self._quick.takes(terms):
                answer = await self._ask(self._quick.place, terms)
            else:
                answer = await self._ask(
                    self._exchange.create_order,
                    terms.symbol,
                    terms.kind,
                    terms.side,
                    terms.quantity,
                    terms.limit_price,
                    dict(terms.params),
                )
        order = self._read([answer], snapshot)
        if not order:
            raise VenueError(Trouble("no_answer", "the answer to the order could not be read", certain=False))
        stamp = answer.get("lastTradeTimestamp") or answer.get("timestamp")
        beside = {"order": answer.get("id"), "symbol": answer.get("symbol"), "side": answer.get("side")}
        fills = [
            {**beside, "timestamp": stamp, **{name: value for name, value in fill.items() if value is not None}}
            for fill in answer.get("trades") or []
            if fill.get("id")
        ]
        return [*self._read(fills, execution), *order]

    async def find(self, client_id: str, symbol: str) -> Snapshot | None:
        """An order by its client id; None where the venue does not know it."""
        try:
            order = await self._ask(self._exchange.fetch_order, "", symbol, {"clientOrderId": client_id})
        except VenueError as error:
            if error.trouble.code == "unknown_order":
                return None
            raise
        found = self._read([order], snapshot)
        if not found:
            raise VenueError(Trouble("no_answer", f"what the venue says of order {client_id} cannot be read", False))
        return found[0]

    async def cancel(self, venue_id: str, symbol: str) -> list[Snapshot]:
        """Cancel an order; what the answer says of it, which may be nothing."""
        with urgent():
            order = await self._ask(self._exchange.cancel_order, venue_id, symbol)
        return self._read([order], snapshot)

    async def open_orders(self, symbol: str) -> list[Snapshot]:
        return self._read(await self._ask(self._exchange.fetch_open_orders, symbol), snapshot)

    async def trades(self, symbol: str, since_ms: int) -> list[Execution]:
        """Our trades from a time on, the oldest first."""
        found: dict[str, Execution] = {}
        for _ in range(_PAGES):
            page = await self._ask(self._exchange.fetch_my_trades, symbol, since_ms, _PAGE)
            new = [trade for trade in self._read(page, execution) if trade.trade_id not in found]
            found |= {trade.trade_id: trade for trade in new}
            if len(page) < _PAGE:
                break
            last_ms = max(int(trade.get("timestamp") or 0) for trade in page)
            since_ms = last_ms if new and last_ms > since_ms else since_ms + 1
        return list(found.values())

    async def order_trades(self, venue_id: str, symbol: str) -> list[Execution]:
        """The trades of one order."""
        if self._exchange.has.get("fetchOrderTrades"):
            return self._read(await self._ask(self._exchange.fetch_order_trades, venue_id, symbol), execution)
        return self._read(await self._ask(self._exchange.fetch_my_trades, symbol), execution)

    async def watch_orders(self) -> list[Snapshot]:
        """What the user stream says of orders next."""
        return self._read(await self._watch(self._exchange.watch_orders), snapshot)

    async def watch_trades(self) -> list[Execution]:
        """What the user stream says of trades next."""
        return self._read(await self._watch(self._exchange.watch_my_trades), execution)

    @property
    def listening(self) -> bool:
        """Whether a socket to the venue is open."""
        return any(not client.closed() for client in (self._exchange.clients or {}).values())

    async def hang_up(self) -> None:
        """Drop the sockets; who watches hears of it, and dials again."""
        await hang_up(self._exchange, *(self._exchange.clients or {}))

    def _describe(self, wanted: Instrument) -> None:
        found = market(self._exchange, wanted.symbol)
        venue = instrument(self._exchange, found)
        for name in ("tick", "lot", "multiplier"):
            ours, theirs = getattr(wanted, name), getattr(venue, name)
            if Fraction(ours) != Fraction(theirs):  # a fill between coarser steps could not be booked
                raise FeedError(f"{name} of {wanted.symbol} must be {self._at.name}'s, {theirs}, was {ours}")
        if venue.fees_in == "received" and Fraction(venue.base_unit or venue.lot) < Fraction(
            wanted.base_unit or wanted.lot
        ):
            raise FeedError(
                f"{self._at.name} takes fees of {wanted.symbol} out of what is bought: its base_unit must be"
                f" {venue.base_unit}, was {wanted.base_unit!r}"
            )
        if Fraction(wanted.min_notional) < Fraction(venue.min_notional):
            wanted = replace(wanted, min_notional=venue.min_notional)
        made = Market.of(wanted, found["base"], found["quote"])
        self.markets[wanted.symbol] = made
        self.drafters[wanted.symbol] = Drafter(wanted, made.contract, offer(self._exchange, wanted.symbol))

    async def _watch(self, watch: Callable[[], Awaitable[Any]]) -> Any:
        """The next messages of the user stream. What fails once is begun anew: on a socket whose subscription was
        refused, ccxt 4.5.90 waits for ever for one that it never asks for again."""
        try:
            return await self._ask(watch)
        except VenueError:
            await self.hang_up()
            raise

    async def _ask(self, request: Callable[..., Awaitable[Any]], *values: Any) -> Any:
        try:
            return await request(*values)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # ccxt cancels what waits for a socket that it closes.
            raise VenueError(Trouble("no_answer", "its socket was closed", certain=False)) from None
        except FeedError:
            raise
        except Exception as error:
            raise VenueError(trouble(error, self._at, retry_after_s(self._exchange))) from None

    def _read(
        self, messages: Iterable[Any], reader: Callable[[Mapping[str, Any], Mapping[str, Market]], _Item | None]
    ) -> list[_Item]:
        found = []
        for message in messages:
            try:
                item = reader(message, self.markets)
            except MessageError as error:
                self.quarantined += 1
                _log.warning("venue_message", venue=self._at.name, error=str(error))
                continue
            if item is not None:
                found.append(item)
        return found
