"""The crossover through the shipped graph: feed, rule, fusion, sizing, orders, gate, venue, ledger, risk monitor."""

import sys
from dataclasses import fields
from typing import Any

import csp
from contest import CASH, FAST, FEE, QUANTITY, SLOW, Stopwatch, report

from brokers.costs import FillModel
from brokers.paper import PaperConfig
from feeds.files import Source
from feeds.instruments import Instrument
from graphs.backtest import plan, replayed_feeds, simulated_venue
from graphs.config import BacktestConfig, SignalsConfig
from graphs.trading import trading_system
from nodes.risk import RiskConfig
from nodes.sizing import SizingConfig
from nodes.technical import SmaCrossConfig, TechnicalConfig

NO_LIMITS = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None)
# Every check that there is, each with room enough that none of them acts: the contest wants the same fills of all.
ALL_LIMITS = RiskConfig(
    drawdown_max=0.5,
    daily_loss_max=0.5,
    symbol_loss_max=0.5,
    losses_in_row_max=1_000_000,
    gross_exposure_max=2.0,
    concentration_max=1.0,
    var_max=0.5,
    var_ewma_max=0.5,
    es_max=0.5,
    order_lots_max=1_000,
    order_notional_max=1e6,
    position_notional_max=1e6,
    net_exposure_max=2.0,
    price_collar=0.5,
    quote_age_max_s=3_600.0,
    session_check=True,
    duplicate_window_s=1.0,
    orders_per_second_max=10,
    cancels_per_second_max=10,
)

# What a limit can be, and is not: short positions are part of the strategy.
_LEFT_OUT = ("cash_only",)


def everything_on(risk: RiskConfig) -> RiskConfig:
    """The same config, if it leaves no check out: a limit that is added later must be added here too."""
    off = [f.name for f in fields(risk) if getattr(risk, f.name) in (None, False) and f.name not in _LEFT_OUT]
    if off:
        raise ValueError(f"want every limit switched on, was without {', '.join(off)}")
    return risk


def config_of(path: str, risk: RiskConfig) -> BacktestConfig:
    # The currency of the contest has eight decimals, so that no fee is rounded.
    instrument = Instrument(
        symbol="SYN",
        tick="0.01",
        lot="1",
        maker_bps=FEE * 1e4,
        taker_bps=FEE * 1e4,
        currency="USDT",
        currency_unit="0.00000001",
    )
    cross = SmaCrossConfig(fast_bars=FAST, slow_bars=SLOW, confidence=1.0)
    return BacktestConfig(
        name="contest",
        feeds=(Source(path=path),),
        instruments=(instrument,),
        initial_cash=float(CASH),
        signals=SignalsConfig(use=("technical",), technical=TechnicalConfig(enabled=("sma_cross",), sma_cross=cross)),
        sizing=SizingConfig(mode="fixed", quantity=float(QUANTITY)),
        risk=risk,
        broker=PaperConfig(fills=FillModel(slippage_bps=0.0)),
    )


def main(path: str, risk: RiskConfig) -> None:
    config = config_of(path, risk)
    planned = plan(config)

    def graph() -> None:
        feeds = replayed_feeds(planned)
        streams = trading_system(feeds, simulated_venue(planned, feeds), planned.trading, run_id=config.name)
        csp.add_graph_output("fills", streams.fills)
        csp.add_graph_output("equity", streams.equity)

    def run() -> Any:
        return csp.run(graph, starttime=planned.start, endtime=planned.end)

    watch = Stopwatch()
    out = watch.time(run)
    fills = [fill for _, fill in out["fills"]]
    report(
        watch,
        ("csp", "numpy", "pyarrow"),
        equity=out["equity"][-1][1],
        fills=len(fills),
        volume=sum(fill.quantity for fill in fills),
    )


if __name__ == "__main__":
    main(sys.argv[1], NO_LIMITS if "--no-limits" in sys.argv else everything_on(ALL_LIMITS))
