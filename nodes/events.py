"""What nodes emit."""

from datetime import datetime

import csp
from csp.typing import NumpyNDArray

from brokers.events import NEVER
from feeds.events import Session, Side


class Signal(csp.Struct, strict=True):
    """An opinion about one symbol. A degraded source says so with confidence 0."""

    symbol: str
    source: str
    score: float  # [-1, 1]; sign is direction
    confidence: float  # [0, 1]
    horizon_s: float  # its weight decays with this time constant
    asof: datetime  # engine time of the data it rests on


class AdviceAction(csp.Enum):
    BUY_SIGNAL = 1
    SELL_SIGNAL = 2
    HOLD = 3


class Advice(csp.Struct, strict=True):
    """What the advisor makes of one headline: an opinion among others, never an order."""

    symbol: str  # whom the feed says it is about; "" for no one symbol
    action: AdviceAction
    score: float  # probability of a rise less that of a fall, [-1, 1]
    confidence: float  # probability of the likeliest of the two and neither, [0, 1]; 0 where nothing was read
    reason: str  # never words of the headline or of a model
    backend: str  # what answered; "guard" where the headline was not read
    model_id: str
    prompt_id: str
    item_id: str  # of the headline, its printable ASCII alone
    input_hash: str  # SHA-256 of text, symbol, model and question; "" where nobody was asked
    latency_ms: float  # engine time from the headline to this
    asof: datetime  # engine time at which the headline was known
    published: datetime
    expires: datetime  # engine time from which it counts no more


class TokenFrame(csp.Struct, strict=True):
    """One bar as a token of each price model."""

    symbol: str
    asof: datetime  # engine time of the bar
    tokens: list[int]  # a code of each model's tokenizer, in the order of the config
    hour: int  # of the week at the bar's close, UTC; Monday 00:00 is 0
    scale: float  # what the next bar's log return is measured by
    missing: int  # bars that should have come since the one before, counted up to one more than the models bridge


class Forecast(csp.Struct, strict=True):
    """The distribution of the next bar's log return, close to close, and how likely the bar that just came was."""

    symbol: str
    asof: datetime  # engine time of the last bar that the models have seen
    mean: float  # log return
    volatility: float  # its standard deviation
    quantiles: NumpyNDArray[float]  # of the log return, at the config's levels
    probability_up: float  # of a log return above 0; half of what is exactly 0 counts
    entropy: float  # bits of the next token; of several models the mean
    surprise: float  # bits of the bar that just came, -log2 of its probability, likewise; NaN where it had none
    token: int  # of the bar that just came, of the first model


class TargetPosition(csp.Struct, strict=True):
    """The position that the strategy wants, in signed base units, a multiple of the lot."""

    symbol: str
    quantity: float
    asof: datetime


class PositionUpdate(csp.Struct, strict=True):
    """One position after a fill."""

    symbol: str
    quantity: float  # signed
    average_price: float  # average cost; 0.0 when flat
    realised: float  # since the start, before fees, quote currency
    fees: float  # since the start, quote currency


class StrategyFill(csp.Struct, strict=True):
    """What one strategy got of an execution, or of a cross with another strategy inside the portfolio."""

    strategy: str  # "" for what no strategy wanted, such as an order that filled while it was being cancelled
    symbol: str
    side: Side
    quantity: float  # base units or contracts, a multiple of the lot
    price: float  # quote currency
    fee: float  # quote currency; 0.0 for a cross
    order_id: str  # "" for a cross
    base_fee: float = 0.0  # base units


class RiskActionKind(csp.Enum):
    REDUCE_POSITIONS = 1  # the whole account
    EMERGENCY_STOP = 2  # the whole account, until a person resets it
    HALT_SYMBOL = 3  # one symbol is closed and takes no new risk until `until`
    HALT_STRATEGY = 4  # the same for one strategy
    WIND_DOWN = 5  # a person asked to stop: no order is sent any more


class RiskAction(csp.Struct, strict=True):
    """What the risk monitor asks of everyone, and the figures that made it ask."""

    kind: RiskActionKind
    code: str  # stable: drawdown, daily_loss, gross_exposure, concentration, value_at_risk, symbol_loss, ...
    value: float
    limit: float
    symbol: str = ""  # of HALT_SYMBOL
    strategy: str = ""  # of HALT_STRATEGY
    until: datetime = NEVER  # engine time at which a halt of a symbol or strategy ends


class AlertLevel(csp.Enum):
    INFO = 1
    WARNING = 2
    ALERT = 3
    CRITICAL = 4


class Alert(csp.Struct, strict=True):
    """Something a person should see. `symbol` is "" where it concerns no one symbol."""

    level: AlertLevel
    source: str
    symbol: str
    message: str
    value: float


class NodeError(csp.Struct, strict=True):
    """A calculation that failed, as data: the graph goes on without it."""

    node: str
    symbol: str
    error: str


class Regime(csp.Enum):
    CALM = 1
    NORMAL = 2
    VOLATILE = 3


class Trend(csp.Enum):
    DOWN = 1
    FLAT = 2
    UP = 3


class VolumeProfile(csp.Enum):
    LOW = 1
    NORMAL = 2
    HIGH = 3


class MarketState(csp.Struct, strict=True):
    """What kind of market it is; it ticks only when one of the four enums changes."""

    symbol: str
    regime: Regime
    trend: Trend
    volume: VolumeProfile
    session: Session
    volatility: float  # standard deviation of log returns a bar, at the tick


class TradeWindow(csp.Struct, strict=True):
    """The trades of one window, emitted at its end."""

    start: datetime
    vwap: float
    volume: float
    count: int
    high: float
    low: float
