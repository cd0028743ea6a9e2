"""What is quicker here than in ccxt does what ccxt does: its limiter, its reading of trades, its turns of the loop."""

import asyncio
from collections.abc import Coroutine
from itertools import accumulate
from typing import Any

import ccxt.pro
import pytest
from exchange_process import exchange_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.local_exchange.config import ExchangeConfig as LocalConfig
from brokers.local_exchange.config import Listing
from feeds.crypto import CryptoConfig, CryptoFeed
from feeds.events import Trade
from feeds.exchange import ExchangeConfig, Window, connect

KEYS = ("id", "timestamp", "symbol", "side", "price", "amount")


class NoTime(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to what it waits for."""

    now_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        ready = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            self.now_s += timeout or 0.0
            return ready(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s


def without_time(work: Coroutine[Any, Any, None]) -> None:
    loop = NoTime()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def let_go(costs: list[float], gaps_s: list[float], cost_max: float, window_s: float) -> list[tuple[int, float]]:
    """(which request, when it went), where each is made so long after the one before."""
    went: list[tuple[int, float]] = []

    async def ask(window: Window, number: int) -> None:
        await window(costs[number])
        went.append((number, asyncio.get_running_loop().time()))

    async def run() -> None:
        window = Window(cost_max, window_s)
        async with asyncio.TaskGroup() as tasks:
            for number, gap_s in enumerate(gaps_s):
                await asyncio.sleep(gap_s)
                tasks.create_task(ask(window, number))

    without_time(run())
    return went


def test_requests_go_at_once_until_the_window_is_full_and_then_as_it_empties() -> None:
    went = let_go([1.0] * 5, [0.0, 1.0, 0.0, 0.0, 0.0], cost_max=2.0, window_s=60.0)
    assert went == [(0, 0.0), (1, 1.0), (2, 60.0), (3, 61.0), (4, 120.0)]


def test_one_that_costs_more_than_all_may_goes_alone() -> None:
    assert let_go([1.0, 5.0, 1.0], [0.0] * 3, cost_max=2.0, window_s=10.0) == [(0, 0.0), (1, 10.0), (2, 20.0)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((0.2, 1.0, 4.0)), st.sampled_from((0.0, 0.5, 7.0))), min_size=1, max_size=40))
def test_no_window_ever_holds_more_than_it_may_and_nobody_overtakes(asked: list[tuple[float, float]]) -> None:
    costs, gaps_s = [cost for cost, _ in asked], [gap_s for _, gap_s in asked]
    went = let_go(costs, gaps_s, cost_max=6.0, window_s=10.0)
    assert [number for number, _ in went] == list(range(len(costs)))
    for _, end_s in went:
        inside = sum(costs[number] for number, at_s in went if end_s - 10.0 < at_s <= end_s)
        assert inside <= 6.0 + 1e-9
    for (number, at_s), made_s in zip(went, accumulate(gaps_s), strict=True):
        if sum(costs[: number + 1]) <= 6.0:
            assert at_s == pytest.approx(made_s)


@pytest.fixture(scope="module")
def readers() -> Any:
    """(our reading, ccxt's own, the market) of a trade."""
    exchange = connect(ExchangeConfig())
    market = exchange.safe_market_structure({"id": "BTCUSDT", "symbol": "BTC/USDT", "spot": True, "option": False})
    return exchange.parse_ws_trade, lambda *values: ccxt.pro.binance.parse_ws_trade(exchange, *values), market


def told(**changes: Any) -> dict[str, Any]:
    trade = {
        "e": "aggTrade", "E": 1_700_000_000_001, "s": "BTCUSDT", "a": 26129, "p": "60000.10000000",
        "q": "0.01000000", "f": 100, "l": 105, "T": 1_700_000_000_000, "m": True, "M": True,
    }  # fmt: skip
    return {name: value for name, value in (trade | changes).items() if value is not ...}


@settings(max_examples=100, deadline=None)
@given(
    number=st.integers(1, 10**17),
    ms=st.integers(10**12, 4 * 10**12),
    price=st.decimals("0.00000001", "1e9", places=8),
    size=st.decimals("0.00000001", "1e9", places=8),
    sells=st.booleans(),
)
def test_a_trade_is_read_as_ccxt_reads_it(
    readers: Any, number: int, ms: int, price: Any, size: Any, sells: bool
) -> None:
    ours, theirs, market = readers
    trade = told(a=number, T=ms, p=f"{price:f}", q=f"{size:f}", m=sells)
    assert [ours(trade, market)[key] for key in KEYS] == [theirs(trade, market)[key] for key in KEYS]


@pytest.mark.parametrize(
    "changes",
    [{"a": ...}, {"p": ...}, {"p": None}, {"p": "much"}, {"q": 1.0}, {"T": "soon"}, {"m": ...}, {"e": "trade", "t": 7}],
)
def test_what_is_no_whole_trade_is_left_to_ccxt(readers: Any, changes: dict[str, Any]) -> None:
    ours, theirs, market = readers
    try:
        wanted = theirs(told(**changes), market)
    except Exception as error:
        with pytest.raises(type(error)):
            ours(told(**changes), market)
    else:
        assert ours(told(**changes), market) == wanted


def test_a_bug_behind_a_socket_ends_the_feed_and_is_raised() -> None:
    # ccxt calls what takes the trades; an exception there must not be taken for one of its own and be lost.
    def push(output: str, value: Any) -> None:
        if isinstance(value, Trade):
            raise ZeroDivisionError("a bug")

    with exchange_thread(LocalConfig(listings=(Listing(trades_per_s=50.0),))) as running:
        feed = CryptoFeed(CryptoConfig(at=ExchangeConfig(url=running.url), symbols=("BTC/USDT",)))
        with pytest.raises(ZeroDivisionError, match="a bug"):
            asyncio.run(asyncio.wait_for(feed.run(push), 60.0))
