"""A finished run of two markets and two strategies, its equity kept by books of its own: cash, units and prices."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from finished import HOUR_NS, START_NS, market, record

from evaluation.run import RunRecord

OWNERS = ("trend", "revert", "")
Build = Callable[..., RunRecord]


def busy_run(fills: int = 402, hours: int = 24 * 120, seed: int = 7, *, priced: bool = True) -> RunRecord:
    """Strategies trade BTC-USD, with fees in bitcoin, and FDAX in euros: two entries, their two exits, and again.

    Each fill belongs to one strategy, so the strategies' fills are the account's with a name. `fills` is a multiple of
    four; where it is two less than one, the last two entries stay open.
    """
    chance = np.random.default_rng(seed)
    times = START_NS + HOUR_NS * np.arange(1, hours + 1)  # (P,)
    prices = [100.0 * np.exp(np.cumsum(chance.normal(0.0002, 0.01, hours))) for _ in range(2)]  # (P,), (P,)
    markets = (
        market(times, prices[0], symbol="BTC-USD", lot=0.001, taker_bps=10.0),
        market(times, prices[1], symbol="FDAX", lot=1.0, multiplier=2.5, currency="EUR", rate=1.25, taker_bps=2.0),
    )
    hour = np.sort(chance.integers(0, hours, fills))  # (F,)
    pair = np.arange(fills) // 4 * 2 + np.arange(fills) % 2  # (F,) 0 1 0 1 2 3 2 3 ...
    place = chance.integers(0, 2, fills)[pair]  # (F,)
    buys = (chance.random(fills) < 0.6)[pair] ^ (np.arange(fills) // 2 % 2 == 1)  # (F,)
    sign = np.where(buys, 1.0, -1.0)
    quantity = np.where(place == 0, chance.integers(1, 4_000, fills) / 100, chance.integers(1, 20, fills))[pair]
    decided = np.stack(prices)[place, hour]  # (F,)
    seen = decided * (1.0 + chance.normal(0.0, 1e-4, fills))
    half_spread = np.full(fills, 0.01)
    price = np.round(seen + sign * 0.015, 2)
    base_fee = np.where(buys & (place == 0), np.round(quantity * 5e-4, 8), 0.0)
    fee = np.where(base_fee > 0.0, 0.0, np.round(quantity * price * 1e-3, 2))
    columns = {
        "time": pa.array(times[hour]),
        "market_time": pa.array(times[hour]),
        "symbol": pa.array([markets[p].symbol for p in place]),
        "side": pa.array(np.where(buys, "BUY", "SELL")),
        "quantity": pa.array(quantity),
        "price": pa.array(price),
        "fee": pa.array(fee),
        "base_fee": pa.array(base_fee),
        "order_id": pa.array([f"o-{i}" for i in range(fills)]),
        "liquidity": pa.array(["TAKER"] * fills),
    }
    costs = {"decision_price": decided, "market_price": seen, "half_spread": half_spread} if priced else {}
    cash, value, gross = np.full(hours, 1e5), np.zeros(hours), np.zeros(hours)  # (P,) each
    for p, one in enumerate(markets):
        own = place == p
        paid = (sign * quantity * price * one.multiplier + fee)[own] * one.rate
        np.subtract.at(cash, hour[own], paid)
        units = np.zeros(hours)
        np.add.at(units, hour[own], (sign * quantity - base_fee)[own])
        worth = np.cumsum(units) * prices[p] * one.multiplier * one.rate
        value += worth
        gross += np.abs(worth)
    cash = 1e5 + np.cumsum(cash - 1e5)
    equity = pa.table(
        {
            "time": pa.array(times),
            "equity": pa.array(cash + value),
            "cash": pa.array(cash),
            "position_value": pa.array(value),
            "gross_exposure": pa.array(gross),
        }
    )
    owners = [OWNERS[i] for i in chance.integers(0, len(OWNERS), fills)[pair]]
    owned = pa.table({"strategy": pa.array(owners)} | {n: c for n, c in columns.items() if n != "market_time"})
    return record(
        [],
        [],
        title="Two markets, two strategies",
        initial_cash=1e5,
        equity=equity,
        fills=pa.table(columns | {name: pa.array(values) for name, values in costs.items()}),
        strategy_fills=owned,
        markets=markets,
    )


@pytest.fixture(scope="session")
def busy() -> Build:
    """Builds such a run; see `busy_run`."""
    return busy_run
