"""The config of a live run: which feeds, and where orders go."""

from dataclasses import dataclass, field

from brokers.venue_config import VenueConfig
from configs.load import nearest
from feeds.crypto import CryptoConfig
from feeds.macro_live import MacroLiveConfig
from feeds.news_live import FollowConfig, RssConfig, UniverseConfig, YahooNewsConfig
from feeds.yahoo_live import YahooLiveConfig
from graphs.config import RunConfig

_PLACES = ("paper", "venue")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveConfig(RunConfig):
    """One live run. A TOML file under configs/live/ overrides these; a flag overrides the file."""

    name: str = "live"  # part of the output folder's name and of every order id
    journal: str = ""  # file that keeps positions, orders and stops from run to run; "": a run starts with cash alone
    orders: str = "paper"  # where they go: paper, or the venue below
    warmup_bars: int = 500  # of history, fetched before the run, for the signals to start with
    stop_timeout_s: float = 5.0  # for the venue's answers, after a request to stop
    watch: tuple[str, ...] = ()  # symbols of the feeds that are not traded, such as the rate of a currency
    crypto: tuple[CryptoConfig, ...] = ()  # feeds of crypto exchanges
    yahoo: tuple[YahooLiveConfig, ...] = ()  # feeds of Yahoo Finance
    macro: tuple[MacroLiveConfig, ...] = ()  # polled series
    rss: tuple[RssConfig, ...] = ()  # news by RSS or Atom
    yahoo_news: tuple[YahooNewsConfig, ...] = ()  # news by symbol
    follow: tuple[FollowConfig, ...] = ()  # news that another program writes to a file
    universe: UniverseConfig = field(default_factory=UniverseConfig)  # which words in a headline mean which symbol
    venue: VenueConfig = field(default_factory=VenueConfig)  # read where `orders` is "venue"

    def __post_init__(self) -> None:
        if self.orders not in _PLACES:
            raise ValueError(f"orders must be one of {', '.join(_PLACES)}, was {self.orders!r}")
        if not 0 <= self.warmup_bars <= 100_000:
            raise ValueError(f"warmup_bars must lie in [0, 100000], was {self.warmup_bars}")
        if not 0.0 < self.stop_timeout_s <= 60.0:
            raise ValueError(f"stop_timeout_s must lie in (0, 60], was {self.stop_timeout_s}")
        sources: list[CryptoConfig | YahooLiveConfig] = [*self.crypto, *self.yahoo]
        symbols = [s for crypto in self.crypto for s in crypto.symbols]
        symbols += [s.upper() for yahoo in self.yahoo for s in yahoo.symbols]
        if len(set(symbols)) != len(symbols):
            raise ValueError(f"want each symbol in one feed, was {symbols}")
        for symbol in (*self.watch, *(c.symbol for c in self.conversions), *(i.symbol for i in self.instruments)):
            if symbol not in symbols:
                raise ValueError(f"no feed brings {symbol!r}{nearest(symbol, symbols, 'symbols')}")
        for source in sources:
            if "bars" not in source.streams and "trades" not in source.streams:
                raise ValueError(f"streams of {source.symbols} must have bars or trades, was {source.streams}")
        if self.orders == "venue" and not self.journal:
            raise ValueError('orders = "venue" needs a journal, which knows after a crash what was sent')
        if self.orders == "venue" and not self.risk.cash_only:
            raise ValueError(
                'orders = "venue" needs cash_only = true under [risk]: a spot market lends nothing, and what is bought'
                " beyond the cash of the account would be paid with what else its owner has there"
            )
        RunConfig.__post_init__(self)
