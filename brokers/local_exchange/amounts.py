"""Prices, quantities and money as whole numbers of 1e-8, which is what Binance counts and prints."""

import re
from fractions import Fraction

from brokers.local_exchange.errors import ApiError, illegal

ATOMS = 10**8  # in 1
_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?")
_LEGAL = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"


def text(atoms: int) -> str:
    """Atoms as Binance prints them, with 8 decimals: 150000000 is "1.50000000"."""
    sign = "-" if atoms < 0 else ""
    whole, part = divmod(abs(atoms), ATOMS)
    return f"{sign}{whole}.{part:08d}"


def parsed(name: str, value: str) -> int:
    """A decimal of a request as atoms.

    Raises:
        ApiError: -1100 for what is no plain decimal, -1111 for more than 8 decimals.
    """
    match = _DECIMAL.fullmatch(value)
    if match is None:
        raise illegal(name, _LEGAL)
    whole, part = match.group(1), (match.group(2) or "").rstrip("0")
    if len(part) > 8:
        raise ApiError(-1111, f"Parameter '{name}' has too much precision.")
    return int(whole) * ATOMS + int(part.ljust(8, "0"))


def exact(value: str) -> int:
    """A decimal of a config as atoms.

    Raises:
        ValueError: it is no multiple of 1e-8.
    """
    atoms = Fraction(value) * ATOMS
    if atoms.denominator != 1:
        raise ValueError(f"want a multiple of 0.00000001, was {value!r}")
    return int(atoms)
