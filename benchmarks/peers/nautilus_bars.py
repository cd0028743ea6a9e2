"""The crossover in NautilusTrader: low-level engine, prepared bars, logging bypassed, its own indicators."""

import sys
from decimal import Decimal
from typing import Any

import pandas as pd
from contest import CASH, FAST, FEE, NEAR, QUANTITY, SLOW, Stopwatch, report
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("SIM")


def instrument(size_precision: int = 0) -> CryptoPerpetual:
    """Linear, settled in USDT, which has eight decimals: no fee of the contest is rounded."""
    return CryptoPerpetual(
        instrument_id=InstrumentId(Symbol("SYN"), VENUE),
        raw_symbol=Symbol("SYN"),
        base_currency=BTC,
        quote_currency=USDT,
        settlement_currency=USDT,
        is_inverse=False,
        price_precision=2,
        size_precision=size_precision,
        price_increment=Price(0.01, 2),
        size_increment=Quantity(10**-size_precision, size_precision),
        margin_init=Decimal("0.01"),
        margin_maint=Decimal("0.005"),
        maker_fee=Decimal(str(FEE)),
        taker_fee=Decimal(str(FEE)),
        ts_event=0,
        ts_init=0,
    )


def engine(risk: bool = True) -> BacktestEngine:
    made = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(bypass=not risk),
            run_analysis=False,
        )
    )
    made.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=USDT,
        starting_balances=[Money(CASH, USDT)],
    )
    return made


class CrossConfig(StrategyConfig, frozen=True):
    bar_type: BarType


class SmaCross(Strategy):  # type: ignore[misc]
    def __init__(self, config: CrossConfig) -> None:
        super().__init__(config)
        self.fast = SimpleMovingAverage(FAST)
        self.slow = SimpleMovingAverage(SLOW)
        self.side = 0

    def on_start(self) -> None:
        bar_type = self.config.bar_type
        self.register_indicator_for_bars(bar_type, self.fast)
        self.register_indicator_for_bars(bar_type, self.slow)
        self.subscribe_bars(bar_type)

    def on_bar(self, bar: Bar) -> None:
        if not self.slow.initialized:
            return
        fast, slow = self.fast.value, self.slow.value
        if fast > slow * (1.0 + NEAR):
            if self.side <= 0:
                self.turn(1, OrderSide.BUY)
        elif fast < slow * (1.0 - NEAR):
            if self.side >= 0:
                self.turn(-1, OrderSide.SELL)

    def turn(self, side: int, order_side: OrderSide) -> None:
        quantity = QUANTITY if self.side == 0 else 2 * QUANTITY
        self.side = side
        order = self.order_factory.market(self.config.bar_type.instrument_id, order_side, Quantity(quantity, 0))
        self.submit_order(order)


def result(made: BacktestEngine, traded: CryptoPerpetual) -> dict[str, Any]:
    """Final equity, fills and volume, read from the engine's own books after the run."""
    account = made.portfolio.account(VENUE)
    open_profit = made.portfolio.unrealized_pnl(traded.id)
    fills = [event for order in made.cache.orders() for event in order.events if type(event).__name__ == "OrderFilled"]
    return {
        "equity": float(account.balance_total(USDT)) + (0.0 if open_profit is None else float(open_profit)),
        "fills": len(fills),
        "volume": float(sum(event.last_qty.as_double() for event in fills)),
    }


def main(path: str, risk: bool) -> None:
    traded = instrument()
    bar_type = BarType.from_str(f"{traded.id}-1-MINUTE-LAST-EXTERNAL")
    data = pd.read_parquet(path, columns=["time", "open", "high", "low", "close", "volume"]).set_index("time")
    made = engine(risk)
    made.add_instrument(traded)
    made.add_data(BarDataWrangler(bar_type, traded).process(data))
    made.add_strategy(SmaCross(CrossConfig(bar_type=bar_type)))
    watch = Stopwatch()
    watch.time(made.run)
    found = result(made, traded)
    made.dispose()
    report(watch, ("nautilus_trader", "numpy", "pandas"), **found)


if __name__ == "__main__":
    main(sys.argv[1], risk="--no-risk" not in sys.argv)
