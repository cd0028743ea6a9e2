"""What passes between a strategy and a venue."""

from dataclasses import dataclass
from datetime import datetime

import csp
from csp import ts

from feeds.events import Side

NEVER = datetime(2200, 1, 1)  # `expires` of an order that no clock ends


class OrderType(csp.Enum):
    MARKET = 1
    LIMIT = 2
    STOP = 3  # a market order once the market has reached `stop_price`, above for a buy and below for a sale
    STOP_LIMIT = 4  # a limit order once it has
    TRAILING_STOP = 5  # a stop that follows the best price at a distance of `trail` or `trail_bps`
    MARKET_IF_TOUCHED = 6  # a market order once the market has come to `stop_price`, below for a buy, above for a sale


class TimeInForce(csp.Enum):
    GTC = 1  # good till cancelled
    IOC = 2  # immediate or cancel: takes what it gets from its first market event, the rest expires
    FOK = 3  # fill or kill: all of it from its first market event, or nothing
    DAY = 4  # to the end of the running session, or of the next one while the market is closed
    GTD = 5  # good till `expires`


class OrderState(csp.Enum):
    """Which changes are possible is said in `brokers.orders`."""

    NEW = 1  # made by the strategy, not sent
    PENDING = 2  # sent, not acknowledged
    ACCEPTED = 3
    PARTLY_FILLED = 4
    FILLED = 5
    CANCEL_PENDING = 6  # still working, its cancel is on the way
    CANCELLED = 7
    REJECTED = 8
    EXPIRED = 9  # ended by its time in force


class Liquidity(csp.Enum):
    MAKER = 1
    TAKER = 2


class OrderRequest(csp.Struct, strict=True):
    """An order as the strategy wants it. A price of 0.0 and a name of "" mean that there is none.

    Orders of one `group` share a quantity: what one of them fills is taken off the others (OCO). An order with a
    `parent` sleeps until its parent fills, and works for as much as the parent has filled; so a bracket is an entry
    and two children, a stop and a target, of one group. An order that `replaces` another cancels it and takes its
    place in one step at the venue; its `quantity` includes what the other has filled.
    """

    order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: float  # base units or contracts, positive
    limit_price: float = 0.0  # of LIMIT and STOP_LIMIT
    stop_price: float = 0.0  # trigger of STOP, STOP_LIMIT and MARKET_IF_TOUCHED
    trail: float = 0.0  # distance of a TRAILING_STOP, quote currency
    trail_bps: float = 0.0  # the same as a part of the best price; one of the two is set
    time_in_force: TimeInForce = TimeInForce.GTC
    expires: datetime = NEVER  # of GTD
    post_only: bool = False  # refused rather than taking liquidity
    reduce_only: bool = False  # never opens or enlarges a position, nor turns it
    group: str = ""
    parent: str = ""
    replaces: str = ""
    strategy: str = ""  # whose order it is; "" for the netted order of all strategies


class CancelRequest(csp.Struct, strict=True):
    order_id: str
    symbol: str


class OrderUpdate(csp.Struct, strict=True):
    """A change of state of one order. `code` is stable, `reason` a sentence; both are "" where there is nothing to
    explain."""

    order_id: str
    symbol: str
    state: OrderState
    remaining: float  # quantity still open
    code: str
    reason: str


class Fill(csp.Struct, strict=True):
    """One execution. Price and quantity are exact multiples of tick and lot; a fee is positive when paid.

    What the fill cost against the price at which it was decided, quote currency a unit, in three parts that add up to
    (price - decision_price) * sign (implementation shortfall; Perold, Journal of Portfolio Management 14(3), 1988):

        delay     (market_price - decision_price) * sign
        spread    half_spread
        slippage  (price - market_price) * sign - half_spread
    """

    market_time: datetime  # when the market traded there; on bars the open of the bar
    symbol: str
    side: Side
    quantity: float
    price: float
    fee: float  # quote currency
    order_id: str
    liquidity: Liquidity
    base_fee: float = 0.0  # base units, where the venue takes its fee out of what was bought
    decision_price: float = 0.0  # the last price when the order was sent; 0.0 where there was none
    market_price: float = 0.0  # what the market traded at, before spread and slippage
    half_spread: float = 0.0  # quote currency a unit, what a taker paid of it


class CashFlow(csp.Struct, strict=True):
    """Money that comes or goes without a trade. Positive is received."""

    symbol: str  # the position it belongs to
    amount: float  # quote currency of the symbol, a multiple of its unit
    kind: str  # "funding", "borrow" or "dividend"


class CorporateAction(csp.Struct, strict=True):
    """A split or a cash dividend of one instrument, known at the start of its ex-date."""

    symbol: str
    split: str = "1"  # new units for one old, a fraction such as "2" or "1/10"
    dividend: str = "0"  # quote currency a unit held before the split, a decimal


@dataclass(frozen=True, slots=True)
class Answers:
    """What comes back from a venue: edges."""

    update: ts[OrderUpdate]
    fill: ts[Fill]
