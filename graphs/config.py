"""The configs of the graphs, composed from those of the nodes, brokers and feeds."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from brokers.paper import PaperConfig
from configs.load import nearest
from feeds.files import Source
from feeds.instruments import Instrument
from feeds.news import NewsConfig
from feeds.times import bar_length
from nodes.adaptive import AdaptiveConfig, MarketStateConfig
from nodes.advise import AdvisorConfig
from nodes.alerts import PriceAlertConfig
from nodes.forecast import ForecastConfig
from nodes.fuse import FuseConfig
from nodes.macro import MacroConfig
from nodes.risk import RiskConfig
from nodes.sizing import SizingConfig
from nodes.strategies import StrategyLimits
from nodes.technical import TechnicalConfig

_SIGNAL_SOURCES = ("technical", "adaptive", "forecast", "macro", "advisor", "price_alert")
MAIN = "main"  # the strategy of a config that names none
_COST_BASES = ("average", "fifo")
_YEARS = (1700, 2200)  # well inside csp's range, as the feeds have it


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsConfig:
    """Which sources speak, and how each is set. Forecast, macro and advisor speak only where there is such a thing."""

    use: tuple[str, ...] = _SIGNAL_SOURCES  # sources that speak
    plugins: tuple[str, ...] = ()  # "module:function", each (ts[Bar], symbol, Feeds) -> ts[Signal]
    technical: TechnicalConfig = field(default_factory=TechnicalConfig)
    market: MarketStateConfig = field(default_factory=MarketStateConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    macro: MacroConfig = field(default_factory=MacroConfig)
    price_alert: PriceAlertConfig = field(default_factory=PriceAlertConfig)

    def __post_init__(self) -> None:
        for name in self.use:
            if name not in _SIGNAL_SOURCES:
                raise ValueError(f"unknown signal source {name!r} in use{nearest(name, _SIGNAL_SOURCES, 'sources')}")
        for plugin in self.plugins:
            module, _, function = plugin.partition(":")
            if not module or not function:
                raise ValueError(f"a plugin is named 'module:function', was {plugin!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """One strategy: its own signals, sizing and books inside the account. Orders of all strategies are netted.

    Its tables `signals`, `fuse` and `sizing` have the keys of the tables of that name above.
    """

    name: str  # in tables, fills and alerts
    allocation: float = 1.0  # of the account's equity, what its sizing sees
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    fuse: FuseConfig = field(default_factory=FuseConfig)
    sizing: SizingConfig = field(default_factory=SizingConfig)
    limits: StrategyLimits = field(default_factory=StrategyLimits)

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"name of a strategy must be printable and not blank, was {self.name!r}")
        if not 0.0 < self.allocation <= 100.0:
            raise ValueError(f"allocation of {self.name} must lie in (0, 100], was {self.allocation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Where the rate of a foreign currency comes from: the last price of a symbol of the feeds."""

    currency: str  # such as "EUR"
    symbol: str  # such as "EUR/USD": units of the account's currency for one of it
    inverse: bool = False  # the symbol is the other way round, such as "USD/JPY" for "JPY"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """What is traded, with which money, and what risk tolerates; the same in every life."""

    instruments: tuple[Instrument, ...]
    initial_cash: float = 100_000.0  # account currency
    currency: str = ""  # of the account; "": that of the instruments, which then have one
    cost_basis: str = "average"
    risk: RiskConfig = field(default_factory=RiskConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingConfig(AccountConfig):
    """Everything between the feeds and the venue; the same in every life."""

    strategies: tuple[StrategyConfig, ...]
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)

    def __post_init__(self) -> None:
        names = [strategy.name for strategy in self.strategies]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"want at least one strategy, each name once, was {names}")


_UNSET = {"signals": SignalsConfig(), "fuse": FuseConfig(), "sizing": SizingConfig()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a run is, in whichever life: the account, its strategies, risk and the simulated venue."""

    name: str = "run"  # part of the output folder's name and of every order id
    initial_cash: float = 100_000.0  # account currency, a multiple of its unit
    currency: str = ""  # of the account; "": that of the instruments, which then have one
    cost_basis: str = "average"  # of realised profit: average or fifo
    journal: str = ""  # file that outlives the run; "": nothing does
    bar: str = "1m"  # length of the bars that are built from trades
    instruments: tuple[Instrument, ...] = ()  # a symbol that is not listed trades unrounded and free of fees
    conversions: tuple[Conversion, ...] = ()  # rates of foreign currencies
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    fuse: FuseConfig = field(default_factory=FuseConfig)
    sizing: SizingConfig = field(default_factory=SizingConfig)
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)
    risk: RiskConfig = field(default_factory=RiskConfig)
    broker: PaperConfig = field(default_factory=PaperConfig)
    strategies: tuple[StrategyConfig, ...] = ()  # empty: one, of the signals, fuse and sizing above

    def __post_init__(self) -> None:
        if not 0.0 < self.initial_cash <= 1e13:  # beyond it a float does not hold cents
            raise ValueError(f"initial_cash must lie in (0, 1e13], was {self.initial_cash}")
        if not 0 < len(self.name.strip()) <= 100 or "/" in self.name or not self.name.isprintable():
            raise ValueError(f"name must be 1 to 100 printable characters without '/', was {self.name!r}")
        if self.cost_basis not in _COST_BASES:
            raise ValueError(f"cost_basis must be one of {', '.join(_COST_BASES)}, was {self.cost_basis!r}")
        bar_length(self.bar)
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) != len(names):
            raise ValueError(f"want each strategy once, was {names}")
        unused = [name for name in ("signals", "fuse", "sizing") if names and getattr(self, name) != _UNSET[name]]
        if unused:
            raise ValueError(
                f"[{unused[0]}] beside [[strategies]] would be read by none of them: write [strategies.{unused[0]}]"
            )
        symbols = [instrument.symbol for instrument in self.instruments]
        if len(set(symbols)) != len(symbols):
            raise ValueError(f"want each instrument once, was {symbols}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestConfig(RunConfig):
    """One backtest. A TOML file under configs/backtest/ overrides these; a flag overrides the file."""

    name: str = "backtest"  # part of the output folder's name and of every order id
    symbols: tuple[str, ...] = ()  # trade only these; empty: all that the feeds hold
    start: datetime | None = None  # UTC unless it carries an offset; None: the first event
    end: datetime | None = None  # as `start`, inclusive; None: the last event
    journal: str = ""  # file that keeps an emergency stop until a person resets it; "": a stop ends with the run
    sample: str = "Not stated."  # what was fitted on which data; printed in the report
    allow_in_sample: bool = False  # run also where the price model was trained; the report marks and shades it
    trials: int = 1  # variants tried, this one included; the Sharpe ratio is deflated for them
    feeds: tuple[Source, ...] = ()  # market data
    macro: tuple[Source, ...] = ()  # point-in-time series
    news: tuple[NewsConfig, ...] = ()

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, _naive_utc(name, getattr(self, name)))
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start must lie before end, was {self.start} and {self.end}")
        if not 1 <= self.trials <= 1_000_000:
            raise ValueError(f"trials must lie in [1, 1000000], was {self.trials}")
        RunConfig.__post_init__(self)  # super() does not work in a dataclass with slots


def _naive_utc(name: str, when: datetime | None) -> datetime | None:
    """As csp wants it: an offset is taken away, a time without one is UTC already."""
    if when is None:
        return None
    if not _YEARS[0] <= when.year < _YEARS[1]:
        raise ValueError(f"{name} must lie from {_YEARS[0]} to {_YEARS[1] - 1}, was {when}")
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo is not None else when


def all_strategies(config: RunConfig) -> tuple[StrategyConfig, ...]:
    """Those of a config; the one of its top level where it names none."""
    if config.strategies:
        return config.strategies
    return (StrategyConfig(name=MAIN, signals=config.signals, fuse=config.fuse, sizing=config.sizing),)
