"""What trading costs: the price that a taker pays beyond the market's, and the venue's fee."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from brokers.ledger import Contract
from brokers.units import exactly

_BPS = 1e-4
_HAIR = 1e-6  # of a lot; 29 % of 100 lots is 29, not 28.999999999999996


@dataclass(frozen=True, slots=True, kw_only=True)
class FillModel:
    """What a fill costs beyond the fee, and how much of the market one can be.

    Slippage, impact and spread are modelled where the market shows but one price: on bars and trades. Quotes and depth
    show what a taker pays. The shape of the impact is that of the volume-share model of Zipline.
    """

    slippage_bps: float = 1.0  # always paid by a taker
    impact_bps: float = 0.0  # paid in addition, times the square of the volume share
    spread_bps: float = 0.0  # from bid to ask; a taker pays half of it
    participation_max: float | None = None  # share of volume; None: any size on a bar, else what was traded or shown
    queue: bool = False  # a limit order waits behind the size that the quote or the depth shows at its price

    def __post_init__(self) -> None:
        for name in ("slippage_bps", "impact_bps", "spread_bps"):
            if not 0.0 <= getattr(self, name) < 10_000.0:
                raise ValueError(f"{name} must lie in [0, 10000), was {getattr(self, name)}")
        if self.participation_max is not None and not 0.0 < self.participation_max <= 1.0:
            raise ValueError(f"participation_max must lie in (0, 1], was {self.participation_max}")

    def shown_lots(self, size_lots: float) -> int:
        """How many lots all orders together may take of a trade or of a size shown.

        Raises:
            ValueError: the size is not finite.
        """
        if not -math.inf < size_lots < math.inf:
            raise ValueError(f"want a finite volume, was {size_lots} lots")
        return math.floor(size_lots * (self.participation_max or 1.0) + _HAIR)

    def bar_lots(self, volume_lots: float) -> float:
        """How many lots all orders together may take of a bar; infinite without `participation_max`."""
        return math.inf if self.participation_max is None else self.shown_lots(volume_lots)


class TakerPrices:
    """The price of a taker on a market that shows one price."""

    __slots__ = ("_half_spread", "_impact", "_slippage", "_ticks")

    def __init__(self, contract: Contract, model: FillModel) -> None:
        self._ticks = contract.ticks
        self._slippage = model.slippage_bps * _BPS
        self._impact = model.impact_bps * _BPS
        self._half_spread = model.spread_bps * _BPS / 2.0

    def price(self, sign: int, limit: int | None, price: float, lots: int, volume_lots: float) -> tuple[int, float]:
        """What a taker pays around `price`.

        Args:
            sign: +1 buys, -1 sells.
            limit: ticks; the price is never worse. None: no limit.
            price: of the market, quote currency.
            volume_lots: of the bar or the trade; 0.0 where unknown, then the share of it counts as 0.

        Returns:
            Ticks, at least 1, rounded against the taker; and the half spread in it, quote currency a unit.
        """
        paid, half = price * self._slippage, 0.0
        if self._impact and volume_lots > 0.0:
            share = min(1.0, lots / volume_lots)
            paid += price * (self._impact * share * share)
        if self._half_spread:
            half = price * self._half_spread
            paid += half
        if sign > 0:
            ticks = -self._ticks.down(-price - paid)  # up
            if limit is not None and ticks > limit:
                ticks = limit
        else:
            ticks = self._ticks.down(price - paid)
            if limit is not None and ticks < limit:
                ticks = limit
        if ticks < 1:
            ticks = 1
        if half:  # a limit cuts the spread too
            half = min(half, abs(self._ticks.value(ticks) - price))
        return ticks, half


class Charged(Protocol):
    """An order as its fee sees it. Both start at 0 and belong to `Fees`."""

    sign: int
    fee_total: int  # of all its executions, exact
    fee_paid: int  # rounded


class Fees:
    """The fee of one instrument, by the one rule: an order pays on its running total, in exact integers.

    The total is notional times rate plus the fee a unit, over all executions of the order so far, and at least the
    minimum of the instrument where it has one. It is rounded half up to the currency's unit, and an execution pays by
    how much it has grown, so that splitting an order into small executions changes nothing.

    Where the fee is taken out of what is received, a buyer pays quantity times rate in base units, by the same running
    total rounded half up to the base unit, without the fee a unit and the minimum.
    """

    __slots__ = ("_base", "_least", "_per_lot", "_rates", "_scale", "_unit_quanta")

    def __init__(self, contract: Contract) -> None:
        instrument = contract.instrument
        rates = exactly(instrument.taker_bps) / 10_000, exactly(instrument.maker_bps) / 10_000
        self._base: tuple[int, int, int] | None = None  # a lot's fee as taker and as maker, and what they count
        if instrument.fees_in == "received":
            taker, maker = (rate * contract.units_per_lot for rate in rates)
            scale = math.lcm(taker.denominator, maker.denominator)
            self._base = int(taker * scale), int(maker * scale), scale
        lot, unit = Fraction(instrument.lot), Fraction(instrument.currency_unit)
        tick_lot = Fraction(instrument.tick) * lot * Fraction(instrument.multiplier)
        amounts = rates[0] * tick_lot, rates[1] * tick_lot, Fraction(instrument.fee_per_unit) * lot
        exact = [amount / unit for amount in amounts]
        least = Fraction(instrument.fee_min) / unit
        self._scale = scale = math.lcm(least.denominator, *(amount.denominator for amount in exact))
        # In the smallest unit of the currency times `_scale`: of a lot at one tick as taker and as maker, of a lot.
        self._rates = int(exact[0] * scale), int(exact[1] * scale)
        self._per_lot = int(exact[2] * scale)
        self._least = int(least * scale)
        self._unit_quanta = contract.fee_unit

    def charge(self, order: Charged, lots: int, ticks: int, maker: bool) -> tuple[int, int]:
        """Book one execution of `order`.

        Returns:
            What it pays: quanta of the quote currency, and base units. Negative where the venue pays.
        """
        if self._base is not None and order.sign > 0:
            scale = self._base[2]
            order.fee_total = total = order.fee_total + lots * self._base[maker]
            due = (2 * total + scale) // (2 * scale)
            increase, order.fee_paid = due - order.fee_paid, due
            return 0, increase
        scale = self._scale
        order.fee_total = total = order.fee_total + lots * (ticks * self._rates[maker] + self._per_lot)
        if total < self._least and self._least:  # without a minimum a rebate stays one
            total = self._least
        due = (2 * total + scale) // (2 * scale)
        increase, order.fee_paid = due - order.fee_paid, due
        return increase * self._unit_quanta, 0
