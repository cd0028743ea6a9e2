"""Finished runs to judge, built from a few numbers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.run import DataDescription, Market, RunRecord

DAY_NS = 86_400_000_000_000
HOUR_NS = 3_600_000_000_000
START_NS = 1_704_067_200_000_000_000  # 2024-01-01 00:00 UTC, a Monday

Row = tuple[int, str, str, float, float, float]  # time, symbol, side, quantity, price, fee


def equity_table(times: Sequence[int], equity: Sequence[float], position: Sequence[float] | None = None) -> pa.Table:
    position = [0.0] * len(equity) if position is None else position
    return pa.table(
        {
            "time": pa.array([int(time) for time in times], pa.int64()),
            "equity": pa.array(equity, pa.float64()),
            "cash": pa.array([a - b for a, b in zip(equity, position, strict=True)], pa.float64()),
            "position_value": pa.array(position, pa.float64()),
        }
    )


def fills_table(*rows: Row) -> pa.Table:
    return pa.table(
        {
            "time": pa.array([row[0] for row in rows], pa.int64()),
            "market_time": pa.array([row[0] for row in rows], pa.int64()),
            "symbol": pa.array([row[1] for row in rows], pa.string()),
            "side": pa.array([row[2] for row in rows], pa.string()),
            "quantity": pa.array([row[3] for row in rows], pa.float64()),
            "price": pa.array([row[4] for row in rows], pa.float64()),
            "fee": pa.array([row[5] for row in rows], pa.float64()),
            "order_id": pa.array([f"o-{i}" for i in range(len(rows))], pa.string()),
            "liquidity": pa.array(["TAKER"] * len(rows), pa.string()),
        }
    )


def market(times: Sequence[int], closes: Sequence[float], *, symbol: str = "X", **changes: Any) -> Market:
    fields = {"first_price": float(closes[0]), "last_price": float(closes[-1])} | changes
    return Market(symbol=symbol, times=np.array(times), closes=np.array(closes), **fields)


def record(
    times: Sequence[int],
    values: Sequence[float],
    /,
    *fills: Row,
    position: Sequence[float] | None = None,
    **changes: Any,
) -> RunRecord:
    """A run with one mark a time, its market flat at 100 unless given."""
    fields: dict[str, Any] = {
        "title": "A run",
        "data": DataDescription(
            path="data/x.parquet", sha256="ab" * 32, rows=3, start=datetime(2024, 1, 1), end=datetime(2024, 3, 1)
        ),
        "costs": ("Fees: 10 bps of notional.",),
        "initial_cash": 100.0,
        "equity": equity_table(times, values, position),
        "fills": fills_table(*fills),
        "markets": (market([times[0]] if len(times) else [START_NS], [100.0]),),
        "days_per_year": 365,
    }
    return RunRecord(**(fields | changes))


def daily_times(count: int) -> list[int]:
    """The closes of `count` days from the start."""
    return [START_NS + (i + 1) * DAY_NS for i in range(count)]


def compounded(returns: Sequence[float], initial: float = 100.0) -> list[float]:
    return list(initial * np.cumprod(1.0 + np.asarray(returns)))
