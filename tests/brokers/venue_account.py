"""An account at a local exchange for tests of the venue: what was asked, what was told, and what is true."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from exchange_process import KEY, Running

from brokers.events import CancelRequest, Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.journal import Journal
from brokers.local_exchange.config import ExchangeConfig as LocalConfig
from brokers.local_exchange.config import Listing
from brokers.local_exchange.tape import Tape, tape
from brokers.orders import ENDED, follow
from brokers.venue import VenueService
from brokers.venue_config import VenueConfig
from brokers.venue_ids import is_ours
from feeds.events import FeedStatus, Side
from feeds.exchange import ExchangeConfig
from feeds.instruments import Instrument

SYMBOL = "BTC/USDT"
KEY_ENV, SECRET_ENV = "VENUE_TEST_KEY", "VENUE_TEST_SECRET"
DEADLINE_S = 20.0
# It moves by `burst` alone, and its book is so thin that orders fill in parts.
LISTING = Listing(symbol=SYMBOL, trades_per_s=0.001, history_s=60.0, min_notional="5", level_trades=0.2)
LOCAL = LocalConfig(listings=(LISTING,), balances=("USDT=100000", "BTC=1"))
BTC = Instrument(
    symbol=SYMBOL,
    tick="0.01",
    lot="0.00001",
    currency="USDT",
    currency_unit="0.00000001",
    base_unit="0.00000001",
    fees_in="received",
    min_notional="5",
)


def market(*prices: float, size: float = 0.5) -> dict[str, Tape]:
    """One trade at 60000 that has happened, then a trade at each price for each `burst`."""
    every = (60_000.0, 60_000.0, *prices, *([prices[-1] if prices else 60_000.0] * 50))
    return {SYMBOL: tape(LISTING, [float(i) for i in range(len(every))], every, [size] * len(every))}


class Desk:
    """The service on the test's own loop, and everything that it pushed."""

    def __init__(self, service: VenueService, run_id: str) -> None:
        self.service, self._run_id = service, run_id
        self.updates: list[OrderUpdate] = []
        self.fills: list[Fill] = []
        self.statuses: list[FeedStatus] = []
        self.task: asyncio.Task[None]  # the run
        self._changed = asyncio.Event()
        self._count = 0

    def push(self, output: str, value: Any) -> None:
        getattr(self, {"updates": "updates", "fills": "fills", "status": "statuses"}[output]).append(value)
        self._changed.set()

    def order(self, side: Side = Side.BUY, quantity: float = 0.01, **fields: Any) -> str:
        """Send a market order, or what `fields` say; return its id."""
        self._count += 1
        wanted = {"order_id": f"{self._run_id}-{SYMBOL}-{self._count}", "order_type": OrderType.MARKET} | fields
        self.service.take("order", OrderRequest(symbol=SYMBOL, side=side, quantity=quantity, **wanted))
        return str(wanted["order_id"])

    def limit(self, price: float, side: Side = Side.BUY, quantity: float = 0.01, **fields: Any) -> str:
        return self.order(side, quantity, order_type=OrderType.LIMIT, limit_price=price, **fields)

    def cancel(self, order_id: str) -> None:
        self.service.take("cancel", CancelRequest(order_id=order_id, symbol=SYMBOL))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something pushed makes a condition true."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                with suppress(TimeoutError):  # what is asked may be true without a push
                    await asyncio.wait_for(self._changed.wait(), 0.05)

    async def ready(self) -> None:
        await self.until(lambda: self.states_of_feed())

    def states(self, order_id: str) -> list[OrderState]:
        return [update.state for update in self.updates if update.order_id == order_id]

    def state(self, order_id: str) -> OrderState | None:
        return (self.states(order_id) or [None])[-1]

    def code(self, order_id: str) -> str:
        return [update.code for update in self.updates if update.order_id == order_id][-1]

    def filled(self, order_id: str) -> Decimal:
        return sum((Decimal(str(fill.quantity)) for fill in self.fills if fill.order_id == order_id), Decimal())

    def states_of_feed(self, symbol: str = "") -> list[str]:
        return [status.state.name for status in self.statuses if status.symbol == symbol]

    def check_stories(self) -> None:
        """Every order's updates follow one another, end once, and end after the last fill."""
        for order_id in {update.order_id for update in self.updates}:
            state = OrderState.PENDING
            for update in (update for update in self.updates if update.order_id == order_id):
                assert state not in ENDED, f"{order_id} went on after {state.name}"
                state = update.state if update.state is state else follow(order_id, state, update.state)


def config(url: str, **fields: Any) -> VenueConfig:
    at = ExchangeConfig(url=url, key_env=KEY_ENV, secret_env=SECRET_ENV, timeout_s=fields.pop("timeout_s", 10.0))
    quick = {"poll_s": 0.3, "recv_window_ms": 1_000, "ack_timeout_s": 3.0, "backoff_max_s": 0.5}
    return VenueConfig(at=at, **(quick | fields))


@asynccontextmanager
async def trading(
    url: str, journal: Path, *, run_id: str = "r1", wait: bool = True, **fields: Any
) -> AsyncIterator[Desk]:
    """A run on the account: it begins one in the journal, and stops as an engine would stop it."""
    with Journal(journal, durable=False) as kept:
        kept.begin_run(run_id, "test")
        service = VenueService(config(url, **fields), (BTC,), journal)
        desk = Desk(service, run_id)
        task = desk.task = asyncio.create_task(service.run(desk.push))
        try:
            if wait:
                await desk.ready()
            yield desk
        finally:
            task.cancel()
            async with asyncio.timeout(DEADLINE_S):
                with suppress(asyncio.CancelledError):
                    await task
        kept.end_run()


def truth(running: Running) -> Any:
    """The account as the exchange has it; read on its loop."""
    return running.call(lambda: running.exchange.accounts.of(KEY)[0])


def sockets(running: Running) -> list[Any]:
    """What is connected to the exchange."""
    found: list[Any] = running.call(lambda: list(running.exchange.sockets))
    return found


def check_books(running: Running, desk: Desk, journal: Path) -> None:
    """Fills told, fills kept and fills at the exchange are the same; every client id was used once."""
    account = truth(running)
    there = {str(trade.trade_id) for _, trade in running.call(lambda: list(account.trades("BTCUSDT")))}
    with Journal(journal, durable=False) as kept:
        booked = kept.fills()
        assert {fill.trade_id for fill in booked} == there
        assert len(booked) == len(there)
        held = kept.positions().get(SYMBOL, Decimal())
    seen: Counter[str] = running.call(lambda: Counter(account.client_ids_seen))
    assert all(count == 1 for name, count in seen.items() if is_ours(name)), seen
    balance = running.call(lambda: account.balances["BTC"])
    assert held == Decimal(balance.free + balance.locked) / 10**8 - 1
    told = Counter((fill.order_id, fill.quantity, fill.price) for fill in desk.fills)
    kept_ones = Counter((fill.order_id, float(fill.quantity), float(fill.price)) for fill in booked)
    assert told == kept_ones
    desk.check_stories()
