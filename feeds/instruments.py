"""What is traded: tick, lot, contract size, fees and trading calendar."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

# Of any step: a wei of ether, and more than a float can count by ones.
_SMALLEST, _LARGEST = Decimal("1e-18"), Decimal("1e18")
_FEES_IN = ("quote", "received")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One tradable symbol. Steps are decimal strings, because 0.1 has no exact binary form.

    An instrument that a config does not describe trades unrounded, in steps of 1e-8, without fees of its own.
    """

    symbol: str  # as the feeds name it
    tick: str = "0.00000001"  # quote currency
    lot: str = "0.00000001"  # base units or contracts
    multiplier: str = "1"  # quote currency per point and unit; 50 for the E-mini S&P 500
    currency: str = "USD"  # of prices and fees
    currency_unit: str = "0.01"  # fees are rounded to it
    maker_bps: float = 0.0  # of notional
    taker_bps: float = 0.0  # of notional
    fee_per_unit: str = "0"  # quote currency a unit or contract, beside the basis points
    fee_min: str = "0"  # quote currency an order that fills
    fees_in: str = "quote"  # "quote", or "received": a buyer pays its fee in base units, out of what it bought
    borrow_bps: float = 0.0  # a year, of the value of what is sold short
    base_unit: str = ""  # smallest unit of the base currency, such as "0.00000001"; "": the lot
    min_notional: str = "0"  # quote currency, the least that an order may be worth; checked by venues alone
    calendar: str = "24/7"  # a pandas_market_calendars name, or "24/7"

    def __post_init__(self) -> None:
        if not self.symbol.strip():
            raise ValueError(f"symbol of an instrument must not be blank, was {self.symbol!r}")
        for name in ("tick", "lot", "multiplier", "currency_unit"):
            text = getattr(self, name)
            try:
                possible = Decimal(text).is_finite() and _SMALLEST <= Decimal(text) <= _LARGEST
            except InvalidOperation:
                possible = False
            if not possible:
                raise ValueError(f"{name} of {self.symbol} must be a positive decimal such as '0.01', was {text!r}")
        for name in ("fee_per_unit", "fee_min", "min_notional"):
            text = getattr(self, name)
            try:
                possible = Decimal(text).is_finite() and 0 <= Decimal(text) <= _LARGEST
            except InvalidOperation:
                possible = False
            if not possible:
                raise ValueError(f"{name} of {self.symbol} must be a decimal from 0 such as '0.005', was {text!r}")
        if self.fees_in not in _FEES_IN:
            raise ValueError(f"fees_in of {self.symbol} must be one of {', '.join(_FEES_IN)}, was {self.fees_in!r}")
        if self.base_unit:
            _refuse_uneven(self.symbol, self.lot, self.base_unit)
        if not 0.0 <= self.borrow_bps <= 100_000.0:
            raise ValueError(f"borrow_bps of {self.symbol} must lie in [0, 100000], was {self.borrow_bps}")
        for name in ("maker_bps", "taker_bps"):
            fee_bps = getattr(self, name)
            if not -100.0 <= fee_bps <= 1000.0:
                raise ValueError(f"{name} of {self.symbol} must lie in [-100, 1000], was {fee_bps}")


def _refuse_uneven(symbol: str, lot: str, base_unit: str) -> None:
    try:
        even = Decimal(base_unit) >= _SMALLEST and (Fraction(lot) / Fraction(base_unit)).denominator == 1
    except (InvalidOperation, ValueError):
        even = False
    if not even:
        raise ValueError(f"base_unit of {symbol} must be a decimal that divides the lot {lot}, was {base_unit!r}")
