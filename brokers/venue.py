"""A real venue: orders out through ccxt, updates and fills back, and the journal before both.

What it promises, whatever the network does:

- An order is in the journal before it is sent, is sent once, under a client id of its own, and is never sent again.
- When it is not known what became of an order, the venue is asked by that id, until it says; and only when it has not
  known the order for longer than a request may take is the order told as never sent.
- Each fill is told once, by the venue's trade id, whichever of stream, poll and answer brings it first.

The user stream is fast and may lose anything; polls are slow and complete. `brokers.venue_tracker` makes one story of
both. What a person must know of the line itself is a `FeedStatus`: STALE while neither stream nor poll gets through, or
an order could not be sent, GAP while the state of an order is not known. Each of them ends with RECOVERED, after which
what did not get through can be asked for again.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from brokers.events import Fill, OrderRequest, OrderState, OrderUpdate
from brokers.journal import Journal, JournalError, KnownError
from brokers.venue_config import VenueConfig
from brokers.venue_errors import Trouble
from brokers.venue_keeper import Keeper, adopted, kept_order
from brokers.venue_link import Link, VenueError
from brokers.venue_messages import Execution, Market, Snapshot
from brokers.venue_terms import Terms
from brokers.venue_tracker import Tracked
from brokers.venue_watch import Watch
from feeds.backoff import Backoff
from feeds.clock import utc_now
from feeds.events import FeedState, FeedStatus, Side
from feeds.instruments import Instrument
from feeds.loop import Push

OUTPUTS = {"updates": OrderUpdate, "fills": Fill, "status": FeedStatus}  # of VenueService, for a LoopAdapter

_STOP_S = 4.0  # the loop that this runs on is given 5 to stop
_AHEAD_MS = 1_000  # of its own clock, that Binance takes a request
_NOT_FOUND = 2  # times, before an order counts as never sent
_CANCELS = 8  # tries of a cancel of an order that works, and that the venue says it does not know
_PASSING = ("rate_limit", "venue_down", "clock")  # what does not refuse a cancel for good
_PAUSE_S = 1.0  # after a rate limit, at least
_CANCEL_PENDING = OrderState.CANCEL_PENDING

_log = structlog.get_logger()


class VenueService:
    """The venue under a `feeds.loop.LoopAdapter`: takes "order" and "cancel", pushes `OUTPUTS`.

    Args:
        instruments: what may be traded, in the venue's own ticks and lots.
        journal: of the account; a run has begun on it, and `brokers.settle` has made it agree with the venue. What is
            open in it is gone on with.
        live_money: a person has said that this may be real money.

    Raises:
        ValueError: it would be real money, and nobody has said so.
        FeedError: a key is not there. `run` raises it too, when the venue does not trade an instrument, or trades it
            in other steps.
    """

    def __init__(
        self,
        config: VenueConfig,
        instruments: tuple[Instrument, ...],
        journal: str | Path,
        *,
        live_money: bool = False,
    ) -> None:
        if config.real_money and not live_money:
            raise ValueError(
                f"{config.at.exchange} without a sandbox is real money: want live_money, a url of a local exchange, or"
                " sandbox = true"
            )
        self._config, self._instruments, self._path = config, instruments, journal
        self._feed = f"{config.at.name} orders"
        self._link = Link(config.at, config.recv_window_ms)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsure: dict[str, str] = {}  # order id -> symbol, of what may or may not be at the venue
        self._laid: set[str] = set()  # order ids of those that were told as never sent, and are being cancelled
        self._unanswered: set[str] = set()  # order ids
        self._to_cancel: set[str] = set()  # order ids whose cancel waits for the venue to know the order
        self._paused_until = 0.0  # loop time, after a rate limit
        self._ready = self._stopping = False
        self._stale: bool | None = None  # None: before the first word
        self._failure: BaseException | None = None

    async def run(self, push: Push) -> None:
        """Trade until cancelled; then cancel or keep what works, by policy."""
        self._push = push
        self._random = random.Random(self._config.seed)
        self._loop = asyncio.get_running_loop()
        self._failed, self._emptied = asyncio.Event(), asyncio.Event()
        with Journal(self._path, create=False, durable=self._config.real_money) as journal:
            self._keeper = Keeper(journal, push)
            self._journal = journal
            try:
                self._spawn(self._work())
                await self._failed.wait()
                assert self._failure is not None
                raise self._failure
            finally:
                try:
                    await self._wind_down()
                finally:
                    await self._end_tasks()
                    await self._link.close()

    def take(self, name: str, value: Any) -> None:
        """An OrderRequest of "order", or a CancelRequest of "cancel"."""
        if name == "order":
            self._order(value)
        elif name == "cancel":
            self._cancel(value.order_id)
        else:
            raise ValueError(f"want a tick of order or cancel, was of {name!r}")

    # Orders

    def _order(self, request: OrderRequest) -> None:
        """Check an order, write it down, and let it go; or refuse it."""
        refusal = self._not_now(request)
        if refusal is None:
            market = self._link.markets[request.symbol]
            reducible = 0
            if request.reduce_only:
                reducible = self._tracker.reducible(request.symbol, request.side, market)
            terms = self._link.drafters[request.symbol].terms(request, utc_now(), reducible)
            if isinstance(terms, Terms):
                refusal = self._not_ours(request, terms, market) or self._send(request, terms, market)
            else:
                refusal = terms
        if refusal is None:
            return
        code, reason = refusal
        state = OrderState.REJECTED
        self._push(
            "updates",
            OrderUpdate(
                order_id=request.order_id, symbol=request.symbol, state=state, remaining=0.0, code=code, reason=reason
            ),
        )

    def _send(self, request: OrderRequest, terms: Terms, market: Market) -> tuple[str, str] | None:
        """Write an order down, and let it go; or say why it may not be sent."""
        try:
            self._journal.order_sent(kept_order(request, terms))
        except KnownError:
            return "duplicate_order_id", f"an order {request.order_id} has been sent before"
        order = self._tracker.send(request, terms, market)
        self._unanswered.add(order.order_id)
        self._spawn(self._place(order, terms))
        return None

    def _not_now(self, request: OrderRequest) -> tuple[str, str] | None:
        name = self._config.at.name
        if self._stopping:
            return "stopping", "the run is being stopped"
        if not self._ready:
            return "venue_down", f"{name} has not been reached yet"
        if request.symbol not in self._link.markets:
            return "bad_symbol", f"{name} is not asked to trade {request.symbol}"
        if self._loop.time() < self._paused_until:
            return "rate_limit", f"{name} wants to be left alone for {self._paused_until - self._loop.time():.1f} s"
        if len(self._unanswered) >= self._config.in_flight_max:
            return "rate_limit", f"{len(self._unanswered)} orders wait for an answer of {name}"
        return None

    def _not_ours(self, request: OrderRequest, terms: Terms, market: Market) -> tuple[str, str] | None:
        """Refuse to sell at a spot market what no order of ours has bought: the venue would take it, out of what the
        account held before."""
        if request.reduce_only or request.side is Side.BUY or self._link.drafters[request.symbol].contracts:
            return None
        most = self._tracker.sellable(request.symbol, market, self._to_cancel)
        if terms.lots <= most:
            return None
        lots = market.contract.lots
        return "not_held", f"{lots.value(terms.lots):g} {request.symbol} would be sold, {lots.value(most):g} are ours"

    async def _place(self, order: Tracked, terms: Terms) -> None:
        doubt = self._loop.call_later(self._config.ack_timeout_s, self.doubt, order)
        began_s, stamp_ms = self._loop.time(), self._link.stamp_ms()
        try:
            said = await self._link.place(terms)
        except VenueError as error:
            # The latest time stamp that the request can have had, the clock having been set in between or not.
            stamp_ms += math.ceil(1_000.0 * (self._loop.time() - began_s))
            await self._not_placed(order, error.trouble, max(stamp_ms, self._link.stamp_ms()))
        else:
            self.hear(said)
        finally:
            doubt.cancel()
            self._unanswered.discard(order.order_id)
        self._let_go(order)

    async def _not_placed(self, order: Tracked, what: Trouble, stamp_ms: int) -> None:
        """An order was refused, or its answer was lost."""
        self.heed(what)
        if what.certain and self._tracker.refused(order, what.code, what.reason):
            self._tell()
            if what.code == "venue_down":
                self.lost(what.reason)
                self._watch.missed()  # the next poll tells when it is back
            return
        self._unanswered.discard(order.order_id)
        self.doubt(order)
        await self._resolve(order, stamp_ms + self._config.recv_window_ms + _AHEAD_MS)

    async def _resolve(self, order: Tracked, deadline_ms: int) -> None:
        """Ask the venue for an order until it is known, or cannot come any more.

        Args:
            deadline_ms: the venue's time after which it does not take the request that was sent.
        """
        backoff, missing = self._backoff(), 0
        while not order.known:
            try:
                late = await self._link.server_ms() > deadline_ms
                found = await self._link.find(order.client_id, order.symbol)
            except VenueError as error:
                self.heed(error.trouble)
                await asyncio.sleep(backoff.next_s(error.trouble.wait_s))
                continue
            if found is not None:
                self.hear([found])
                return
            missing = missing + 1 if late else 0
            if missing >= _NOT_FOUND:
                self._tracker.refused(order, "not_sent", f"it never reached {self._config.at.name}")
                self._tell()
                return
            await asyncio.sleep(min(self._config.poll_s, 0.5))

    def doubt(self, order: Tracked) -> None:
        """Say that the state of an order is not known, where it is not."""
        if order.working.ended or (order.known and not order.short) or order.order_id in self._unsure:
            return
        what = "which fills it has had" if order.known else "whether it is at the venue"
        self._gap(order, f"it is not known of {order.order_id} {what}")
        self._watch.nudge()

    # Cancels

    def _cancel(self, order_id: str) -> None:
        if not self._ready:  # it may be of an earlier run
            self._to_cancel.add(order_id)
            return
        order = self._tracker.orders.get(order_id)
        if order is None or order.working.ended or order.working.state is _CANCEL_PENDING:
            return
        self._to_cancel.add(order_id)
        self._let_go(order)

    def _let_go(self, order: Tracked) -> None:
        """Send the cancel that waits for an order, once the venue has given the order a name."""
        if order.working.ended:
            self._to_cancel.discard(order.order_id)
        elif order.order_id in self._to_cancel and order.venue_id:
            self._to_cancel.discard(order.order_id)
            self._tracker.cancelling(order)
            self._tell()
            self._spawn(self._take_off(order))

    async def _take_off(self, order: Tracked) -> None:
        """Cancel an order; again, as long as it is not known that the venue did or would not."""
        backoff, unknown = self._backoff(), 0
        while not (order.working.ended or order.end):
            try:
                self.hear(await self._link.cancel(order.venue_id, order.symbol))
                wait_s = 0.0
            except VenueError as error:
                what, wait_s = error.trouble, error.trouble.wait_s
                self.heed(what)
                unknown += what.code == "unknown_order"
                if what.code == "unknown_order" and unknown < _CANCELS:
                    await self._try(lambda: self._watch.look_at(order))  # it may have ended just now
                elif what.certain and what.code not in _PASSING:
                    self._tracker.uncancelled(order, "cancel_refused", what.reason)
                    self._tell()
                    return
            if not (order.working.ended or order.end):
                await asyncio.sleep(backoff.next_s(wait_s))
        if not order.working.ended:
            self._watch.nudge()  # its last fills are still to be told

    # What the venue says

    def hear(self, said: Iterable[Snapshot | Execution]) -> None:
        """Take what the venue says, and tell what is new in it."""
        for item in said:
            if isinstance(item, Snapshot):
                self._tracker.snapshot(item)
            else:
                self._tracker.execution(item)
        self._tell()

    def _tell(self) -> None:
        """Journal and push what is new, and see what it settles."""
        tracker = self._tracker
        self._keeper.tell(tracker)
        while tracker.ghosts:
            order = tracker.ghosts.pop()
            _log.error("order_turned_up", venue=self._config.at.name, order=order.order_id)
            self._laid.add(order.order_id)
            self._gap(order, f"{order.order_id} was told as never sent, and is at the venue: it is cancelled")
            self._spawn(self._lay(order))
        for order_id in list(self._unsure):
            doubted = tracker.orders.get(order_id)
            if order_id in self._laid:
                continue
            if doubted is None or doubted.working.ended or (doubted.known and not doubted.short):
                self._sure(order_id)
        for order_id in list(self._to_cancel):
            waiting = tracker.orders.get(order_id)
            if waiting is None:
                self._to_cancel.discard(order_id)  # it was refused before it was sent
            else:
                self._let_go(waiting)
        if self._stopping and not tracker.working():
            self._emptied.set()

    async def _lay(self, ghost: Tracked) -> None:
        """Take off an order that was told as never sent."""
        backoff = self._backoff()
        while True:
            try:
                await self._link.cancel(ghost.venue_id, ghost.symbol)
            except VenueError as error:
                if not error.trouble.certain or error.trouble.code in ("rate_limit", "venue_down"):
                    await asyncio.sleep(backoff.next_s(error.trouble.wait_s))
                    continue
            break
        await self._try(lambda: self._watch.poll_symbol(ghost.symbol))
        self._laid.discard(ghost.order_id)
        self._sure(ghost.order_id)

    # The line itself

    async def _work(self) -> None:
        """Reach the venue, go on with what works there, and listen."""
        backoff = self._backoff()
        while True:
            try:
                await self._link.open(self._instruments)
                now_ms = await self._link.server_ms()
                break
            except VenueError as error:
                self.lost(error.trouble.reason)
                await asyncio.sleep(backoff.next_s(error.trouble.wait_s))
        self._tracker, last_ms = adopted(self._journal, self._link.markets)
        since_ms = {symbol: min(last_ms.get(symbol, now_ms), now_ms) for symbol in self._link.markets}
        self._watch = Watch(self._link, self._tracker, self, since_ms, self._config.poll_s, self._backoff)
        self._ready = True
        for order in self._tracker.working():
            if not order.known:  # it was on its way when the last run was killed
                self.doubt(order)
                self._spawn(self._resolve(order, self._link.stamp_ms() + self._config.recv_window_ms + _AHEAD_MS))
        for work in (self._watch.orders(), self._watch.trades(), self._watch.polls()):
            self._spawn(work)

    def heed(self, what: Trouble) -> None:
        """Leave the venue alone for as long as it asks, and set the clock where that was wrong."""
        if what.code == "rate_limit":
            self._paused_until = max(self._paused_until, self._loop.time() + max(_PAUSE_S, what.wait_s))
        elif what.code == "clock" and not self._stopping:
            self._spawn(self._try(self._link.set_clock))

    def lost(self, reason: str) -> None:
        if self._stale is not True:
            self._stale = True
            self._status(FeedState.STALE, "", f"{self._config.at.name} is not reached: {reason}", 0.0)

    def reached(self) -> None:
        if self._stale is not False:
            state = FeedState.CONNECTED if self._stale is None else FeedState.RECOVERED
            self._stale = False
            self._status(state, "", f"{self._config.at.name} takes orders", 0.0)
            for symbol in dict.fromkeys(self._unsure.values()):  # that was about the line, not about its orders
                self._status(FeedState.GAP, symbol, "the state of an order is not known", 1.0)

    def _gap(self, order: Tracked, detail: str) -> None:
        if order.symbol not in self._unsure.values():
            self._status(FeedState.GAP, order.symbol, detail, 1.0)
        self._unsure[order.order_id] = order.symbol

    def _sure(self, order_id: str) -> None:
        symbol = self._unsure.pop(order_id)
        # While the line is STALE for all, a symbol's own word would count before that; `reached` ends both.
        if symbol not in self._unsure.values() and not self._stale:
            self._status(FeedState.RECOVERED, symbol, "the state of every order is known", 0.0)

    def _status(self, state: FeedState, symbol: str, detail: str, value: float) -> None:
        if not self._stopping:
            self._push("status", FeedStatus(feed=self._feed, symbol=symbol, state=state, detail=detail, value=value))

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        """Something that helps where it can be done, and is done again elsewhere where it cannot."""
        try:
            await work()
        except VenueError as error:
            self.heed(error.trouble)

    def _backoff(self) -> Backoff:
        return Backoff(min(0.2, self._config.backoff_max_s), self._config.backoff_max_s, self._random)

    # Life

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._failure = error  # a bug, or a journal that cannot be written: the engine must stop
            self._failed.set()
            self._emptied.set()  # nothing will tell any more

    async def _wind_down(self) -> None:
        """Cancel what works, where that is the policy, and wait for the venue to say so."""
        self._stopping = True
        if not self._ready:
            return
        self._keeper.quiet = True
        working = self._tracker.working()
        if self._config.on_stop == "cancel" and working:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._config.ack_timeout_s, _STOP_S)):
                    await self._cancel_all(working)
        left = [order.order_id for order in self._tracker.working()]
        if left:
            _log.warning("orders_left", venue=self._config.at.name, orders=left)

    async def _cancel_all(self, working: list[Tracked]) -> None:
        """Cancel, and hear of it. When the journal is what fails, at least cancel: the venue tells the next start."""
        if self._failure is None:
            with suppress(JournalError):
                for order in working:
                    self._cancel(order.order_id)
                await self._emptied.wait()
                if self._failure is None:
                    return
        known = [order for order in working if order.venue_id]
        await asyncio.gather(*(self._try(partial(self._off, order)) for order in known))

    async def _off(self, order: Tracked) -> None:
        await self._link.cancel(order.venue_id, order.symbol)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
