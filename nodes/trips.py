"""Round trips: what each earned, from the opening of a position to its end."""

from feeds.instruments import Instrument
from nodes.events import PositionUpdate

_FLAT = 1.0 - 1e-6  # of a lot: what is less cannot be traded away
_ROUNDING = 2.0**-50  # of the sums that a result is the difference of: a few roundings of a float


class Trips:
    """The round trips of some instruments, one after the other in each.

    A position has ended when less than a lot is left, or when it has turned; the fee of a fill that turns it counts to
    the trip that it ends.
    """

    __slots__ = ("_lots", "_net", "_sides")

    def __init__(self, instruments: tuple[Instrument, ...]) -> None:
        self._lots = {instrument.symbol: float(instrument.lot) * _FLAT for instrument in instruments}
        self._sides = dict.fromkeys(self._lots, 0)
        self._net = dict.fromkeys(self._lots, 0.0)  # realised less fees at the end of the last trip

    def ended(self, position: PositionUpdate) -> float | None:
        """What the trip earned that ended with this change of a position, quote currency after fees; None where none
        did. What is no more than the rounding of floats is 0.0: breaking even is no loss."""
        symbol, quantity = position.symbol, position.quantity
        before = self._sides[symbol]
        side = 0 if abs(quantity) < self._lots[symbol] else 1 if quantity > 0.0 else -1
        self._sides[symbol] = side
        if before == 0 or side == before:
            return None
        net = position.realised - position.fees
        earned = round(net - self._net[symbol], 9)
        self._net[symbol] = net
        return 0.0 if abs(earned) <= _ROUNDING * (abs(position.realised) + abs(position.fees)) else earned
