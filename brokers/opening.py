"""What an account starts a run with: cash, positions and working orders, as text that loses no digit.

A recording keeps it (`to_json`), so that a replay starts from the same books.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar, get_origin

SIDES = ("BUY", "SELL")
ORDER_TYPES = ("MARKET", "LIMIT", "STOP", "STOP_LIMIT", "TRAILING_STOP", "MARKET_IF_TOUCHED")
TIMES_IN_FORCE = ("GTC", "IOC", "FOK", "DAY", "GTD")
LEVELS = ("INFO", "WARNING", "CRITICAL")
_LONGEST, _DIGITS = 64, 40  # characters of a number, and its power of ten: "1e999999999" is a number too
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningPosition:
    """What is held of one symbol."""

    symbol: str
    quantity: str  # base units, signed decimal, not zero
    cost: str  # what the open units cost before fees, quote currency; signed like `quantity` where prices are positive

    def __post_init__(self) -> None:
        decimal_of(self.cost, "cost")
        if not self.symbol or not decimal_of(self.quantity, "quantity"):
            raise ValueError(f"want a symbol and a quantity other than zero, was {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningOrder:
    """An order that works at the venue already. Names are those of `brokers.events`, a price of "0" is none."""

    order_id: str
    symbol: str
    side: str  # one of SIDES
    order_type: str  # one of ORDER_TYPES
    quantity: str  # base units, decimal
    remaining: str  # of it, still open
    limit_price: str = "0"  # quote currency
    stop_price: str = "0"  # quote currency
    time_in_force: str = "GTC"  # one of TIMES_IN_FORCE
    reduce_only: bool = False
    strategy: str = ""

    def __post_init__(self) -> None:
        if not (self.order_id and self.symbol):
            raise ValueError(f"want an order with an id and a symbol, was {self}")
        for name, value, possible in (
            ("side", self.side, SIDES),
            ("order_type", self.order_type, ORDER_TYPES),
            ("time_in_force", self.time_in_force, TIMES_IN_FORCE),
        ):
            if value not in possible:
                raise ValueError(f"{name} of order {self.order_id} must be one of {', '.join(possible)}, was {value!r}")
        if not 0 < decimal_of(self.remaining, "remaining") <= decimal_of(self.quantity, "quantity"):
            raise ValueError(f"want 0 < remaining <= quantity, was {self}")
        if decimal_of(self.limit_price, "limit_price") < 0 or decimal_of(self.stop_price, "stop_price") < 0:
            raise ValueError(f"want prices from 0, was {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that a person should know of how the run began."""

    code: str  # stable
    symbol: str  # "" where it concerns the account
    message: str
    value: float = 0.0
    level: str = "INFO"  # one of LEVELS

    def __post_init__(self) -> None:
        if not self.code or self.level not in LEVELS:
            raise ValueError(f"want a code, and a level out of {', '.join(LEVELS)}, was {self}")
        if not math.isfinite(self.value):
            raise ValueError(f"value of note {self.code} must be finite, was {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an account starts a run with. Each symbol and each order id occurs once."""

    cash: str  # decimal, account currency
    positions: tuple[OpeningPosition, ...] = ()
    orders: tuple[OpeningOrder, ...] = ()
    equity_peak: float = 0.0  # account currency; 0.0: there was none
    day: str = ""  # ISO date of the trading day that `day_start` belongs to; "": there was none
    day_start: float = 0.0  # equity at the start of that day, account currency
    clean: bool = True  # False: the books could not be made to agree, so the run starts REDUCING
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        decimal_of(self.cash, "cash")
        for name, keys in (
            ("symbol", [position.symbol for position in self.positions]),
            ("order", [order.order_id for order in self.orders]),
        ):
            if len(set(keys)) != len(keys):
                raise ValueError(f"want each {name} of an opening once, was {keys}")
        if not (0.0 <= self.equity_peak < math.inf and math.isfinite(self.day_start)):
            raise ValueError(
                f"want a finite equity peak from 0 and day start, was {self.equity_peak} and {self.day_start}"
            )
        if self.day:
            date.fromisoformat(self.day)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Opening":
        """Read what `to_json` wrote. Raises ValueError when it is anything else."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ValueError(f"want an opening as JSON, was {text[:40]!r}: {exc}") from None
        for name, kind in (("positions", OpeningPosition), ("orders", OpeningOrder), ("notes", Note)):
            if isinstance(values, dict) and isinstance(values.get(name), list):
                values[name] = tuple(_made(kind, value) for value in values[name])
        return _made(cls, values)


def decimal_of(text: str, name: str) -> Decimal:
    """A finite decimal. Raises ValueError when `text` is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if len(text) > _LONGEST or not value.is_finite() or abs(value.adjusted()) > _DIGITS:
        raise ValueError(f"{name} must be a decimal such as '0.015', was {text[:_LONGEST]!r}")
    return value


def plain(value: Decimal) -> str:
    """A decimal without an exponent and without zeros behind: "0.1", "100", "0"."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _made(kind: type[_T], values: Any) -> _T:
    """A dataclass from a mapping whose values have just the types of its fields."""
    wanted: dict[str, Any] = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict) or not set(values) <= set(wanted):
        raise ValueError(f"want {kind.__name__} with {', '.join(wanted)}, was {values!r}")
    for name, value in values.items():
        type_ = get_origin(wanted[name]) or wanted[name]
        if type(value) is not type_:
            raise ValueError(f"{name} of {kind.__name__} must be of type {type_.__name__}, was {value!r}")
    try:
        return kind(**values)
    except TypeError as exc:  # a field without a default is not there
        raise ValueError(f"want {kind.__name__} with {', '.join(wanted)}: {exc}") from None
