"""What the books count in: steps of price and quantity, quanta of money. Plain integers and fractions."""

import re
from collections.abc import Iterable
from fractions import Fraction
from math import gcd

_NEAR = 1e-6  # of a step
# Bounded, because "1e999999999" is a number too, and would fill the memory.
_RATIO = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12}|/[0-9]{1,12})?")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,18})?")


def half_up(value: Fraction) -> int:
    """The nearest whole number; a half goes up, towards +inf: floor(value + 1/2)."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def exactly(value: float) -> Fraction:
    """A float as the shortest decimal that reads back as it: 0.1 is 1/10. Raises ValueError when it is not finite."""
    try:
        return Fraction(str(value))
    except ValueError:
        raise ValueError(f"want a finite number, was {value!r}") from None


def common_quantum(amounts: Iterable[Fraction]) -> Fraction:
    """The largest amount of which all of `amounts` are whole multiples."""
    result = Fraction(0)
    for amount in amounts:
        result = Fraction(
            gcd(result.numerator * amount.denominator, amount.numerator * result.denominator),
            result.denominator * amount.denominator,
        )
    return result


def split_ratio(text: str) -> Fraction:
    """New units for one old, from "2", "1.5" or "1/10".

    Raises:
        ValueError: it is no positive number of that form.
    """
    if _RATIO.fullmatch(text):
        numerator, _, denominator = text.partition("/")
        if Fraction(numerator) > 0 and Fraction(denominator or 1) > 0:
            return Fraction(text)
    raise ValueError(f"a split must be a positive ratio such as '2' or '1/10', was {text!r}")


def dividend_amount(text: str) -> Fraction:
    """Quote currency a unit, from a decimal such as "0.24".

    Raises:
        ValueError: it is no decimal from 0.
    """
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    raise ValueError(f"a dividend must be a decimal from 0 such as '0.24', was {text!r}")


def _tolerance(scaled: float) -> float:
    """How far `scaled` may lie from a whole number and still be meant as it: a millionth of a step, and the rounding
    of a float of its size and of the multiplication that made it (2**-53 each, relative)."""
    return _NEAR + abs(scaled) * 2**-51


class Steps:
    """Whole multiples of a step (a tick or a lot) from floats and back, without drift."""

    __slots__ = ("_denominator", "_name", "_numerator", "_per_unit")

    def __init__(self, step: str | Fraction, name: str) -> None:
        fraction = Fraction(step)
        self._numerator, self._denominator = fraction.numerator, fraction.denominator
        self._per_unit = self._denominator / self._numerator
        self._name = name

    def exact(self, value: float) -> int:
        """The count of steps in `value`. Raises ValueError when `value` is no multiple of the step."""
        scaled = value * self._per_unit
        try:
            count = round(scaled)
        except (OverflowError, ValueError):
            raise self._not_finite(value) from None
        error = scaled - count
        if not -_NEAR < error < _NEAR and abs(error) > _tolerance(scaled):
            raise ValueError(f"want a multiple of the {self._name} {self.step}, was {value!r}")
        return count

    def nearest(self, value: float) -> int:
        """The count nearest to `value`, the even one of two. Raises ValueError when `value` is not finite."""
        try:
            return round(value * self._per_unit)
        except (OverflowError, ValueError):
            raise self._not_finite(value) from None

    def down(self, value: float) -> int:
        """The largest count whose value does not exceed `value` (a hair below a step counts as on it)."""
        scaled = value * self._per_unit
        nearest = round(scaled)
        error = scaled - nearest
        if -_NEAR < error < _NEAR or abs(error) <= _tolerance(scaled):
            return nearest
        return int(scaled // 1)

    def up(self, value: float) -> int:
        """The smallest count whose value is not below `value`."""
        return -self.down(-value)

    def value(self, count: int) -> float:
        """The float nearest to `count` steps."""
        return count * self._numerator / self._denominator

    @property
    def step(self) -> Fraction:
        return Fraction(self._numerator, self._denominator)

    def _not_finite(self, value: float) -> ValueError:
        return ValueError(f"want a finite multiple of the {self._name} {self.step}, was {value!r}")


class Money:
    """One currency in integers.

    Args:
        unit: its smallest unit, to which every payment is rounded, such as "0.01".
        quantum: what is counted; it divides the unit.
    """

    __slots__ = ("_denominator", "_numerator", "_steps", "currency", "quantum", "unit")

    def __init__(self, currency: str, unit: str, quantum: Fraction) -> None:
        self.currency = currency
        self.quantum = quantum
        self._numerator, self._denominator = quantum.numerator, quantum.denominator
        self._steps = Steps(unit, f"unit of {currency}")
        self.unit = int(self._steps.step / quantum)  # in quanta

    def quanta(self, amount: float) -> int:
        """Currency as quanta. Raises ValueError when it is no multiple of the currency's unit."""
        return self._steps.exact(amount) * self.unit

    def amount(self, quanta: int) -> float:
        """Quanta as the nearest float in currency."""
        return quanta * self._numerator / self._denominator

    def rounded(self, quanta: Fraction) -> int:
        """A payment in quanta, rounded half up to the currency's unit."""
        return half_up(quanta / self.unit) * self.unit
