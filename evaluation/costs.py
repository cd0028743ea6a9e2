"""What trading cost against the prices at which it was decided, and where that went.

Implementation shortfall is what a fill fell short of a paper account that trades at once, free, at the price of the
decision. With sign +1 for a buy and -1 for a sale, a unit of it is (price - decision_price) * sign, in three parts,
and the fee comes on top:

    delay     (market_price - decision_price) * sign      the market moved before the order got there
    spread    half_spread                                 the middle was not where it traded
    slippage  (price - market_price) * sign - half_spread the rest: impact, and rounding to the tick

What was decided and never filled costs nothing here.

Source: Perold, "The implementation shortfall: paper versus reality", Journal of Portfolio Management 14(3), 1988.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.activity import fees_paid, notionals
from evaluation.figures import Figure, absent, measured
from evaluation.run import Fills, Floats, RunRecord, point_values

NOT_RECORDED = "not recorded"
PARTS = ("fees", "spread", "slippage", "delay")
COST_DEFINITIONS: dict[str, str] = {
    "notional": "Sum of quantity times price of all fills.",
    "fees": "Sum of the fees of all fills, rebates subtracted; fees in base units at the price of their fill.",
    "spread": "Half the spread where a fill took liquidity.",
    "slippage": "What fills were worse than the market's price and half the spread: impact, and rounding to the tick.",
    "delay": "What the market moved from the decision until the order was there; negative where it came closer.",
    "shortfall": "Implementation shortfall (Perold 1988): what fills were worse than the last price when their order "
    "was sent, and fees. The sum of the four parts. What was not filled costs nothing here.",
    "bps": "Hundredths of a percent of the traded notional.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One part of the costs. Both are absent where the prices were not recorded."""

    amount: Figure  # currency of the account, positive when paid
    bps: Figure  # of the notional


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """The costs of one symbol, or of all."""

    symbol: str | None  # None: all
    fills: int
    priced: int  # fills with a decision price; the others add their fee and nothing else
    notional: float  # currency of the account
    fees: Cost
    spread: Cost
    slippage: Cost
    delay: Cost
    shortfall: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    total: Breakdown
    symbols: tuple[Breakdown, ...]  # those that traded, in the order of the markets


def costs(record: RunRecord, fills: Fills) -> Costs:
    """Where the costs of all fills went. The parts add up to the shortfall, the symbols to the total."""
    traded, fees = notionals(record, fills), fees_paid(record, fills)  # (F,), (F,)
    parts, priced = _parts(record, fills)
    parts["fees"] = fees

    def breakdown(symbol: str | None, rows: npt.NDArray[np.bool_]) -> Breakdown:
        notional = float(traded[rows].sum())
        known = int(priced[rows].sum())
        sums = {name: float(parts[name][rows].sum()) for name in PARTS}
        sums["shortfall"] = sum(sums[name] for name in PARTS)
        figures = {name: _cost(value, notional) if name == "fees" or known else _ABSENT for name, value in sums.items()}
        return Breakdown(symbol=symbol, fills=int(rows.sum()), priced=known, notional=notional, **figures)

    everything = np.ones(len(fills), dtype=np.bool_)
    of = [(market.symbol, fills.places == place) for place, market in enumerate(record.markets)]
    return Costs(
        total=breakdown(None, everything),
        symbols=tuple(breakdown(symbol, rows) for symbol, rows in of if rows.any()),
    )


def _parts(record: RunRecord, fills: Fills) -> tuple[dict[str, Floats], npt.NDArray[np.bool_]]:
    """Spread, slippage and delay of each fill, 0.0 where they are not known, and whether they are. (F,)"""
    decided, market, spread = fills.decision_prices, fills.market_prices, fills.half_spreads
    none = np.zeros(len(fills))  # (F,)
    if decided is None or market is None or spread is None:
        return {"spread": none, "slippage": none, "delay": none}, none.astype(np.bool_)
    priced = (decided > 0.0) & (market > 0.0)  # (F,)
    size = np.where(priced, fills.quantities * point_values(record)[fills.places], 0.0)  # (F,)
    return {
        "spread": spread * size,
        "slippage": ((fills.prices - market) * fills.signs - spread) * size,
        "delay": (market - decided) * fills.signs * size,
    }, priced


def _cost(amount: float, notional: float) -> Cost:
    return Cost(
        amount=measured(amount), bps=measured(amount / notional * 1e4) if notional else absent("nothing was traded")
    )


_ABSENT = Cost(amount=absent(NOT_RECORDED), bps=absent(NOT_RECORDED))
