"""What passes between a strategy and a venue."""

from datetime import datetime

import csp

from feeds.events import Side


class OrderType(csp.Enum):
    MARKET = 1
    LIMIT = 2


class OrderState(csp.Enum):
    NEW = 1
    ACCEPTED = 2
    PARTLY_FILLED = 3
    FILLED = 4
    CANCELLED = 5
    REJECTED = 6


class Liquidity(csp.Enum):
    MAKER = 1
    TAKER = 2


class OrderRequest(csp.Struct, strict=True):
    """An order as the strategy wants it. `quantity` is positive; `limit_price` is 0.0 for a market order."""

    order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: float
    limit_price: float


class CancelRequest(csp.Struct, strict=True):
    order_id: str
    symbol: str


class OrderUpdate(csp.Struct, strict=True):
    """A change of state of one order. `code` is stable, `reason` is a sentence; both are "" unless it was refused."""

    order_id: str
    symbol: str
    state: OrderState
    remaining: float  # quantity still open
    code: str
    reason: str


class Fill(csp.Struct, strict=True):
    """One execution. Price and quantity are exact multiples of tick and lot; the fee is positive when paid."""

    market_time: datetime  # when the market traded there; on bars the open of the bar
    symbol: str
    side: Side
    quantity: float
    price: float
    fee: float
    order_id: str
    liquidity: Liquidity
