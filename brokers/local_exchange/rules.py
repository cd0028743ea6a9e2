"""What the exchange lets one order be: the parameters that each type wants, and the filters of its symbol.

Source: Binance spot API, "New order (TRADE)" and "Filters".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from brokers.ledger import Contract
from brokers.local_exchange.amounts import ATOMS, exact, parsed
from brokers.local_exchange.config import Listing
from brokers.local_exchange.errors import ApiError, filter_failure, illegal, missing
from feeds.instruments import Instrument

_ATOM = "0.00000001"
_CLIENT_ID = re.compile(r"[\.A-Z\:/a-z0-9_-]{1,36}")
_LEGAL_ID = r"^[\.A-Z\:/a-z0-9_-]{1,36}$"
_FORCES = ("GTC", "IOC", "FOK")

# Which of timeInForce, price and stopPrice a type wants; beside a quantity.
_WANTS = {
    "LIMIT": ("timeInForce", "price"),
    "MARKET": (),
    "LIMIT_MAKER": ("price",),
    "STOP_LOSS": ("stopPrice",),
    "STOP_LOSS_LIMIT": ("timeInForce", "price", "stopPrice"),
    "TAKE_PROFIT": ("stopPrice",),
    "TAKE_PROFIT_LIMIT": ("timeInForce", "price", "stopPrice"),
}
ORDER_TYPES = tuple(_WANTS)


class Terms:
    """One listed symbol, in atoms of 1e-8.

    Raises:
        ValueError: the value of one lot at one tick is no multiple of 1e-8 of the quote currency: its money could not
            add up in what the exchange counts.
    """

    __slots__ = (
        "base",
        "contract",
        "instrument",
        "least",
        "lot",
        "price_max",
        "quantity_max",
        "quantity_max_market",
        "quote",
        "symbol",
        "tick",
        "tick_lot",
    )

    def __init__(self, listing: Listing, maker_bps: float, taker_bps: float) -> None:
        self.base, self.quote, self.symbol = listing.base, listing.quote, listing.id
        self.tick, self.lot = exact(listing.tick), exact(listing.lot)
        self.least, self.price_max = exact(listing.min_notional), exact(listing.price_max)
        self.quantity_max = exact(listing.quantity_max)
        self.quantity_max_market = exact(listing.market_quantity_max)
        if self.tick * self.lot % ATOMS:
            raise ValueError(
                f"{listing.symbol}: tick {listing.tick} times lot {listing.lot} must be a multiple of {_ATOM}"
            )
        self.tick_lot = self.tick * self.lot // ATOMS  # what a lot costs at one tick
        # As Binance does, the fee is taken out of what is received, to 8 decimals.
        self.instrument = Instrument(
            symbol=listing.id,
            tick=listing.tick,
            lot=listing.lot,
            currency=listing.quote,
            currency_unit=_ATOM,
            maker_bps=maker_bps,
            taker_bps=taker_bps,
            fees_in="received",
            base_unit=_ATOM,
            min_notional=listing.min_notional,
        )
        self.contract = Contract(self.instrument)

    def check_price(self, price: int) -> None:
        """Raises ApiError where `price` breaks PRICE_FILTER."""
        if not self.tick <= price <= self.price_max or price % self.tick:
            raise filter_failure("PRICE_FILTER")

    def check_quantity(self, quantity: int, *, market: bool) -> None:
        """Raises ApiError where `quantity` breaks LOT_SIZE, or MARKET_LOT_SIZE of a market order."""
        if not self.lot <= quantity <= self.quantity_max or quantity % self.lot:
            raise filter_failure("LOT_SIZE")
        if market and quantity > self.quantity_max_market:
            raise filter_failure("MARKET_LOT_SIZE")

    def check_worth(self, price: int, quantity: int) -> None:
        """Raises ApiError where the order is worth less than the symbol's least."""
        if price * quantity < self.least * ATOMS:
            raise filter_failure("NOTIONAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An order as its request words it. Amounts in atoms, 0 where there is none."""

    side: str
    kind: str  # Binance's type
    force: str  # time in force
    quantity: int
    quote_quantity: int  # of a MARKET order that names what to spend or to receive
    price: int
    stop: int
    client_id: str  # "": the exchange names it

    @property
    def buys(self) -> bool:
        return self.side == "BUY"

    @property
    def triggered_by(self) -> int:
        """+1: a last price at or above `stop` sets it off; -1: one at or below; 0: it waits for none."""
        if not self.stop:
            return 0
        return 1 if self.buys == self.kind.startswith("STOP_LOSS") else -1


def ticket(params: Mapping[str, str], terms: Terms) -> Ticket:
    """The order that `params` ask for.

    Raises:
        ApiError: a parameter is missing, malformed or not the type's, or the price or quantity breaks a filter.
    """
    side, kind = params.get("side", ""), params.get("type", "")
    if side not in ("BUY", "SELL"):
        raise ApiError(-1117, "Invalid side.") if side else missing("side")
    if kind not in _WANTS:
        raise ApiError(-1116, "Invalid orderType.") if kind else missing("type")
    _refuse_unsupported(params)
    wanted = _WANTS[kind]
    for name in ("timeInForce", "price", "stopPrice"):
        if name in wanted and not params.get(name):
            raise missing(name)
        if name not in wanted and params.get(name):
            raise ApiError(-1106, f"Parameter '{name}' sent when not required.")
    force = params.get("timeInForce") or "GTC"
    if force not in _FORCES:
        raise ApiError(-1115, "Invalid timeInForce.")
    quantity, quote_quantity = _amounts(params, kind)
    price, stop = (parsed(name, params[name]) if name in wanted else 0 for name in ("price", "stopPrice"))
    for name, amount in (("price", price), ("stopPrice", stop)):
        if name in wanted:
            terms.check_price(amount)
    if not quote_quantity:
        terms.check_quantity(quantity, market=kind == "MARKET")
    if price:
        terms.check_worth(price, quantity)
    return Ticket(
        side=side,
        kind=kind,
        force=force,
        quantity=quantity,
        quote_quantity=quote_quantity,
        price=price,
        stop=stop,
        client_id=client_id(params, "newClientOrderId"),
    )


def client_id(params: Mapping[str, str], name: str) -> str:
    """An order id of the client's making, "" where there is none. Raises ApiError where it has other characters."""
    value = params.get(name, "")
    if value and not _CLIENT_ID.fullmatch(value):
        raise illegal(name, _LEGAL_ID)
    return value


def whole(params: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """A parameter that is a whole number from 0. Raises ApiError where it is something else."""
    value = params.get(name, "")
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise illegal(name, "^[0-9]{1,20}$")
    return int(value)


def _amounts(params: Mapping[str, str], kind: str) -> tuple[int, int]:
    """Quantity, and quantity in the quote currency: exactly one of them."""
    in_base, in_quote = params.get("quantity", ""), params.get("quoteOrderQty", "")
    if in_quote and kind != "MARKET":
        raise ApiError(-1106, "Parameter 'quoteOrderQty' sent when not required.")
    if in_base and in_quote:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if not in_base and not in_quote:
        raise missing("quantity")
    name = "quantity" if in_base else "quoteOrderQty"
    amount = parsed(name, in_base or in_quote)
    if amount == 0:
        raise ApiError(-1013, "Invalid quantity.") if in_base else ApiError(-1013, "Invalid quote order qty.")
    return (amount, 0) if in_base else (0, amount)


def _refuse_unsupported(params: Mapping[str, str]) -> None:
    if params.get("icebergQty"):
        raise ApiError(-2010, "Iceberg orders are not supported for this symbol.")
    if params.get("trailingDelta"):
        raise filter_failure("TRAILING_DELTA")
