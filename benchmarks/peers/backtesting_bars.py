"""The crossover in backtesting.py: indicators computed at once over the whole history, one exclusive order a flip."""

import sys
from typing import Any

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy
from contest import CASH, FAST, FEE, NEAR, QUANTITY, SLOW, Stopwatch, report


def sma(values: Any, bars: int) -> Any:
    return pd.Series(values).rolling(bars).mean()


class SmaCross(Strategy):  # type: ignore[misc]
    def init(self) -> None:
        close = self.data.Close
        self.fast = self.I(sma, close, FAST)
        self.slow = self.I(sma, close, SLOW)
        self.side = 0

    def next(self) -> None:
        fast, slow = self.fast[-1], self.slow[-1]
        if fast > slow * (1.0 + NEAR):
            if self.side <= 0:
                self.side = 1
                self.buy(size=QUANTITY)
        elif fast < slow * (1.0 - NEAR):
            if self.side >= 0:
                self.side = -1
                self.sell(size=QUANTITY)


def main(path: str) -> None:
    data = pd.read_parquet(path, columns=["time", "open", "high", "low", "close", "volume"]).set_index("time")
    data.columns = ["Open", "High", "Low", "Close", "Volume"]
    backtest = Backtest(data, SmaCross, cash=CASH, commission=FEE, exclusive_orders=True)
    watch = Stopwatch()
    stats = watch.time(backtest.run)
    # A flip closes one trade and opens the next, and so makes one trade of the list; the last one is still open.
    prices = np.asarray(stats["_trades"]["EntryPrice"], dtype=float)
    report(
        watch,
        ("backtesting", "numpy", "pandas"),
        equity=float(stats["Equity Final [$]"]),
        fills=len(prices) + len(stats["_strategy"].trades),
        volume=float(2 * len(prices) * QUANTITY + QUANTITY),
    )


if __name__ == "__main__":
    main(sys.argv[1])
