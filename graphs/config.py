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
from nodes.alerts import PriceAlertConfig
from nodes.fuse import FuseConfig
from nodes.macro import MacroConfig
from nodes.news import NewsSignalConfig
from nodes.orders import SizingConfig
from nodes.risk import RiskConfig
from nodes.technical import TechnicalConfig

_SIGNAL_SOURCES = ("technical", "adaptive", "macro", "news", "price_alert")
_YEARS = (1700, 2200)  # well inside csp's range, as the feeds have it


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsConfig:
    """Which sources speak, and how each is set. Macro and news speak only where there is such a feed."""

    use: tuple[str, ...] = _SIGNAL_SOURCES  # sources that speak
    plugins: tuple[str, ...] = ()  # "module:function", each (ts[Bar], symbol, sources) -> ts[Signal]
    technical: TechnicalConfig = field(default_factory=TechnicalConfig)
    market: MarketStateConfig = field(default_factory=MarketStateConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    macro: MacroConfig = field(default_factory=MacroConfig)
    news: NewsSignalConfig = field(default_factory=NewsSignalConfig)
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
class TradingConfig:
    """Everything between the feeds and the venue; the same in every life."""

    instruments: tuple[Instrument, ...]
    initial_cash: float = 100_000.0  # quote currency
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    fuse: FuseConfig = field(default_factory=FuseConfig)
    sizing: SizingConfig = field(default_factory=SizingConfig)
    risk: RiskConfig = field(default_factory=RiskConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestConfig:
    """One backtest. A TOML file under configs/backtest/ overrides these; a flag overrides the file."""

    name: str = "backtest"  # part of the output folder's name and of every order id
    symbols: tuple[str, ...] = ()  # trade only these; empty: all that the feeds hold
    start: datetime | None = None  # UTC unless it carries an offset; None: the first event
    end: datetime | None = None  # as `start`, inclusive; None: the last event
    initial_cash: float = 100_000.0  # quote currency, a multiple of its unit
    bar: str = "1m"  # length of the bars that are built from trades
    sample: str = "Not stated."  # what was fitted on which data; printed in the report
    trials: int = 1  # variants tried, this one included; the Sharpe ratio is deflated for them
    feeds: tuple[Source, ...] = ()  # market data
    macro: tuple[Source, ...] = ()  # point-in-time series
    news: tuple[NewsConfig, ...] = ()
    instruments: tuple[Instrument, ...] = ()  # a symbol that is not listed trades unrounded and free of fees
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    fuse: FuseConfig = field(default_factory=FuseConfig)
    sizing: SizingConfig = field(default_factory=SizingConfig)
    risk: RiskConfig = field(default_factory=RiskConfig)
    broker: PaperConfig = field(default_factory=PaperConfig)

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, _naive_utc(name, getattr(self, name)))
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start must lie before end, was {self.start} and {self.end}")
        if not 0.0 < self.initial_cash <= 1e13:  # beyond it a float does not hold cents
            raise ValueError(f"initial_cash must lie in (0, 1e13], was {self.initial_cash}")
        if not 0 < len(self.name.strip()) <= 100 or "/" in self.name or not self.name.isprintable():
            raise ValueError(f"name must be 1 to 100 printable characters without '/', was {self.name!r}")
        if not 1 <= self.trials <= 1_000_000:
            raise ValueError(f"trials must lie in [1, 1000000], was {self.trials}")
        bar_length(self.bar)
        symbols = [instrument.symbol for instrument in self.instruments]
        if len(set(symbols)) != len(symbols):
            raise ValueError(f"want each instrument once, was {symbols}")


def _naive_utc(name: str, when: datetime | None) -> datetime | None:
    """As csp wants it: an offset is taken away, a time without one is UTC already."""
    if when is None:
        return None
    if not _YEARS[0] <= when.year < _YEARS[1]:
        raise ValueError(f"{name} must lie from {_YEARS[0]} to {_YEARS[1] - 1}, was {when}")
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo is not None else when
