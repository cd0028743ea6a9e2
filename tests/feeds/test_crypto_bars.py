"""Bars that do not come: a market at rest, or an exchange that has stopped to serve them."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from feeds import crypto_bars
from feeds.clock import utc_now
from feeds.crypto_bars import Bars
from feeds.crypto_link import CryptoConfig, Link
from feeds.crypto_parse import milliseconds


class Frozen:
    """An exchange that serves the bars of when it was made, for ever; it trades on, or it does not."""

    id = "frozen"
    last_response_headers = None
    has = {"fetchTrades": True}  # noqa: RUF012

    def __init__(self, *, trades: bool) -> None:
        self._newest = milliseconds(utc_now()) // 1000 * 1000
        self._trades = trades

    async def fetch_ohlcv(self, symbol: str, timeframe: str, since: int | None, limit: int) -> list[list[float]]:
        rows = [[self._newest - 1000 * back, 1.0, 1.0, 1.0, 1.0, 1.0] for back in range(5, -1, -1)]
        return [row for row in rows if since is None or row[0] >= since]

    async def fetch_trades(self, symbol: str, since: int | None, limit: int) -> list[dict[str, Any]]:
        return [{"timestamp": milliseconds(utc_now()) if self._trades else self._newest}]


@pytest.mark.parametrize(("trades", "states"), [(True, ["CONNECTED", "STALE"]), (False, ["CONNECTED"])])
def test_bars_that_freeze_while_the_market_trades_are_stale(
    monkeypatch: pytest.MonkeyPatch, trades: bool, states: list[str]
) -> None:
    monkeypatch.setattr(crypto_bars, "_SETTLED", timedelta(seconds=0.3))
    told: list[str] = []
    stale = asyncio.Event()

    def push(output: str, value: Any) -> None:
        if output == "status":
            told.append(value.state.name)
            if told[-1] == "STALE":
                stale.set()

    async def run() -> None:
        config = CryptoConfig(symbols=("A/B",), streams=("bars",), bar="1s", stale_after_s=0.3)
        work = asyncio.create_task(Bars(Link(Frozen(trades=trades), config, push), "A/B", None).run())
        with suppress(TimeoutError):
            await asyncio.wait_for(stale.wait(), 30.0 if trades else 5.0)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    asyncio.run(run())
    assert told == states
