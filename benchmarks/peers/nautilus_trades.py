"""One-second VWAP and its threshold signal in NautilusTrader: prepared trade ticks, a strategy that sums them."""

import sys

import numpy as np
import pandas as pd
from contest import Stopwatch, report
from nautilus_bars import engine, instrument
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import TradeTick
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.persistence.wranglers import TradeTickDataWrangler
from nautilus_trader.trading.strategy import Strategy

SECOND_NS = 1_000_000_000


class VwapConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    level: float


class OneSecondVwap(Strategy):  # type: ignore[misc]
    """A window opens with its first trade and holds those of the second after it. It is closed by the next trade."""

    def __init__(self, config: VwapConfig) -> None:
        super().__init__(config)
        self.level = config.level
        self.end_ns = 0
        self.notional = self.volume = self.side = 0.0
        self.vwaps: list[float] = []
        self.signals = 0

    def on_start(self) -> None:
        self.subscribe_trade_ticks(self.config.instrument_id)

    def on_trade_tick(self, tick: TradeTick) -> None:
        now = tick.ts_event
        if now >= self.end_ns:
            if self.end_ns:
                self.close_window()
            self.end_ns = now + SECOND_NS
            self.notional = self.volume = 0.0
        size = tick.size.as_double()
        self.notional += tick.price.as_double() * size
        self.volume += size

    def on_stop(self) -> None:
        self.close_window()

    def close_window(self) -> None:
        vwap = self.notional / self.volume
        self.vwaps.append(vwap)
        side = 1.0 if vwap > self.level else -1.0
        if side != self.side:
            self.side = side
            self.signals += 1


def main(path: str, level: float, series: str) -> None:
    traded = instrument(size_precision=3)
    data = pd.read_parquet(path, columns=["time", "price", "size"]).set_index("time")
    data.columns = ["price", "quantity"]
    data["trade_id"] = np.arange(len(data))
    made = engine()
    made.add_instrument(traded)
    made.add_data(TradeTickDataWrangler(traded).process(data))
    strategy = OneSecondVwap(VwapConfig(instrument_id=traded.id, level=level))
    made.add_strategy(strategy)
    watch = Stopwatch()
    watch.time(made.run)
    made.dispose()
    np.save(series, np.array(strategy.vwaps))
    windows, signals = len(strategy.vwaps), strategy.signals
    report(watch, ("nautilus_trader", "numpy", "pandas"), windows=windows, signals=signals)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[sys.argv.index("--series") + 1])
