"""What the exchange lists, whose orders it takes, and how much it can be asked."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from brokers.local_exchange.amounts import exact
from feeds.files import Source

HOST = "127.0.0.1"

_SYMBOL = re.compile(r"([A-Z0-9]{2,12})/([A-Z0-9]{2,12})")
_BALANCE = re.compile(r"([A-Z0-9]{2,12})=([0-9]{1,12}(?:\.[0-9]{1,8})?)")
_STEPS = ("tick", "lot", "quantity_max", "market_quantity_max", "price_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One symbol, and where its market comes from.

    One mapping from the time of the data to the time of the day is fixed at the start: `speed` times faster, or
    `trades_per_s` trades at even distances whatever their times. `history_s` of it has already happened by then.
    Prices are rounded to the tick, sizes to the lot, of which a trade has one at least.
    """

    symbol: str = "BTC/USDT"
    data: str = ""  # a file of trades or bars, as in [[sources]]; "": an invented market
    kind: str = "auto"  # of the file: bars, trades
    bar: str = ""  # of a file of bars: the length of one, such as 1h
    stamp: str = "open"  # of a file of bars: what its time means
    rows: int = 500_000  # trades or bars read, or trades invented, at most
    loop: bool = False  # start again from the first price when the data end; otherwise the market falls silent
    speed: float = 1.0  # seconds of data a second
    gap_max_s: float | None = None  # longer times without a trade, in seconds of data, are cut to this
    trades_per_s: float | None = None  # None: as the data are timed
    history_s: float = 3600.0  # seconds of the wall clock
    tick: str = "0.01"  # quote currency
    lot: str = "0.00001"  # base units
    min_notional: str = "5"  # quote currency
    quantity_max: str = "9000000"  # base units an order
    market_quantity_max: str = "1000000"  # base units a market order
    price_max: str = "10000000"  # quote currency
    spread_ticks: int = 1  # between the best bid and the best ask
    level_trades: float = 10.0  # mean size of a level of the book, in mean trades
    price: float = 60_000.0  # of the first invented trade, quote currency
    size_mean: float = 0.05  # of an invented trade, base units
    gap_mean_s: float = 0.2  # between invented trades, seconds of data
    volatility_year: float = 0.6  # of an invented market's log returns

    def __post_init__(self) -> None:
        if not _SYMBOL.fullmatch(self.symbol):
            raise ValueError(f"symbol must be BASE/QUOTE in capitals, such as BTC/USDT, was {self.symbol!r}")
        if self.rows < 1:
            raise ValueError(f"rows of {self.symbol} must be at least 1, was {self.rows}")
        if self.spread_ticks < 1:
            raise ValueError(f"spread_ticks of {self.symbol} must be at least 1, was {self.spread_ticks}")
        for name in (
            "speed",
            "gap_max_s",
            "trades_per_s",
            "level_trades",
            "price",
            "size_mean",
            "gap_mean_s",
            "volatility_year",
        ):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} of {self.symbol} must be positive, was {value}")
        if not 0.0 <= self.history_s < math.inf:
            raise ValueError(f"history_s of {self.symbol} must be 0 or more, was {self.history_s}")
        for name in (*_STEPS, "min_notional"):
            text = getattr(self, name)
            try:
                atoms = exact(text)
            except (ValueError, ZeroDivisionError):
                atoms = -1
            if atoms < (1 if name in _STEPS else 0):
                raise ValueError(f"{name} of {self.symbol} must be a positive multiple of 0.00000001, was {text!r}")
        for name, step in (("price_max", "tick"), ("quantity_max", "lot"), ("market_quantity_max", "lot")):
            if (Fraction(getattr(self, name)) / Fraction(getattr(self, step))).denominator != 1:
                raise ValueError(
                    f"{name} of {self.symbol} must be a multiple of its {step}, was {getattr(self, name)!r}"
                )
        Source(path=self.data or "none", kind=self.kind, bar=self.bar, stamp=self.stamp)  # refuses what it cannot read

    @property
    def base(self) -> str:
        return self.symbol.split("/")[0]

    @property
    def quote(self) -> str:
        return self.symbol.split("/")[1]

    @property
    def id(self) -> str:
        """As the exchange names it: BTCUSDT."""
        return self.symbol.replace("/", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConfig:
    """One exchange. It listens on 127.0.0.1 and nowhere else."""

    host: str = HOST
    port: int = 0  # 0: any that is free
    listings: tuple[Listing, ...] = (Listing(),)
    seed: int = 0  # of invented markets and of the sizes in the book
    weight_per_minute: int = 6000  # of requests; Binance's
    orders_per_10s: int = 100  # of an account; Binance's
    maker_bps: float = 10.0  # of what is received
    taker_bps: float = 10.0
    balances: tuple[str, ...] = ("USDT=100000",)  # of each account at the start
    key_env: str = "LOCAL_EXCHANGE_KEY"  # the environment variable that holds the account's key
    secret_env: str = "LOCAL_EXCHANGE_SECRET"

    def __post_init__(self) -> None:
        if self.host != HOST:
            raise ValueError(
                f"host must be {HOST}: an exchange of play money has no business elsewhere, was {self.host!r}"
            )
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port must lie in [0, 65535], was {self.port}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, was {self.seed}")
        if not self.listings:
            raise ValueError("listings must name a symbol at least, was empty")
        ids = [listing.id for listing in self.listings]
        if len(set(ids)) < len(ids):
            raise ValueError(f"listings must name each symbol once, was {', '.join(ids)}")
        for name in ("weight_per_minute", "orders_per_10s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, was {getattr(self, name)}")
        for name in ("maker_bps", "taker_bps"):
            if not 0.0 <= getattr(self, name) <= 1000.0:
                raise ValueError(f"{name} must lie in [0, 1000], was {getattr(self, name)}")
        assets = []
        for text in self.balances:
            match = _BALANCE.fullmatch(text)
            if match is None:
                raise ValueError(f"balances must look like USDT=100000, was {text!r}")
            assets.append(match[1])
        if len(set(assets)) < len(assets):
            raise ValueError(f"balances must name each asset once, was {', '.join(self.balances)}")
