"""What a venue says of orders and executions, out of ccxt's dictionaries into lots and ticks."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from brokers.ledger import Contract
from brokers.units import Steps
from feeds.events import Side
from feeds.instruments import Instrument

# ccxt's words. An order of a venue that answers with an id alone works.
_STATES = {None: "open", "open": "open", "canceling": "open"}
_ENDS = ("closed", "canceled", "expired", "rejected")
_LATEST_MS = 4_102_444_800_000  # 2100
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}


class MessageError(ValueError):
    """A message that cannot be: the sentence says what was wrong with it."""


class Snapshot(NamedTuple):
    """One order as the venue knows it at some moment."""

    client_id: str  # "" where the venue does not say
    venue_id: str
    symbol: str
    state: str  # open, closed, canceled, expired or rejected
    filled: int | None  # lots so far; None where it does not say


class Execution(NamedTuple):
    """One trade of ours."""

    trade_id: str
    venue_id: str  # of its order
    symbol: str
    side: Side
    lots: int
    ticks: int
    fee: float  # quote currency
    base_fee: float  # base units
    other_fee: str  # a fee in a third currency, which the books do not hold: "0.0001 BNB", or ""
    maker: bool
    time_ms: int  # the venue's, UTC


class Market(NamedTuple):
    """An instrument at a venue."""

    instrument: Instrument
    contract: Contract
    base: str  # ccxt's currency codes
    quote: str
    unit: Steps  # of fees in the quote currency

    @classmethod
    def of(cls, instrument: Instrument, base: str, quote: str) -> "Market":
        unit = Steps(instrument.currency_unit, f"unit of {instrument.currency}")
        return cls(instrument, Contract(instrument), base, quote, unit)


def snapshot(order: Mapping[str, Any], markets: Mapping[str, Market]) -> Snapshot | None:
    """An order structure of ccxt; None where it is of a symbol that is not ours.

    Raises:
        MessageError: it has no id, an unknown state, or a filled quantity that is no multiple of the lot.
    """
    market = markets.get(order.get("symbol") or "")
    if market is None:
        return None
    venue_id, client = order.get("id"), order.get("clientOrderId")
    if not venue_id and not client:
        raise MessageError(f"want an order with an id, was {_short(order)}")
    status = order.get("status")
    state = status if status in _ENDS else _STATES.get(status)
    if state is None:
        raise MessageError(f"want a state of {', '.join(_ENDS)} or open, was {status!r} of order {venue_id}")
    filled = order.get("filled")
    lots = None if filled is None else _steps(market.contract.lots, filled, "filled quantity", venue_id)
    return Snapshot(str(client or ""), str(venue_id or ""), market.instrument.symbol, state, lots)


def execution(trade: Mapping[str, Any], markets: Mapping[str, Market]) -> Execution | None:
    """A trade structure of ccxt; None where it is of a symbol that is not ours.

    Raises:
        MessageError: a field is missing, or is no positive multiple of its step.
    """
    market = markets.get(trade.get("symbol") or "")
    if market is None:
        return None
    trade_id, venue_id, side = trade.get("id"), trade.get("order"), _SIDES.get(trade.get("side") or "")
    stamp = trade.get("timestamp")
    if not trade_id or not venue_id or side is None or not isinstance(stamp, int) or not 0 <= stamp <= _LATEST_MS:
        raise MessageError(f"want a trade with id, order, side and time, was {_short(trade)}")
    lots = _steps(market.contract.lots, trade.get("amount"), "quantity", trade_id)
    ticks = _steps(market.contract.ticks, trade.get("price"), "price", trade_id)
    if lots < 1 or ticks < 1:
        raise MessageError(f"want a positive price and quantity, was {_short(trade)}")
    fee, base_fee, other = _fees(trade, market)
    return Execution(
        trade_id=str(trade_id),
        venue_id=str(venue_id),
        symbol=market.instrument.symbol,
        side=side,
        lots=lots,
        ticks=ticks,
        fee=fee,
        base_fee=base_fee,
        other_fee=other,
        maker=trade.get("takerOrMaker") == "maker",
        time_ms=stamp,
    )


def _fees(trade: Mapping[str, Any], market: Market) -> tuple[float, float, str]:
    """Fees in quote and base currency, to the nearest of their units, and what there is in another."""
    quote = base = 0.0
    others = []
    fees = trade.get("fees") or [trade.get("fee")]
    for fee in fees:
        cost, currency = (fee.get("cost"), fee.get("currency")) if isinstance(fee, dict) else (None, None)
        if not cost:
            continue
        if not isinstance(cost, int | float) or not math.isfinite(cost):
            raise MessageError(f"want a fee in numbers, was {cost!r} of trade {trade.get('id')}")
        if currency == market.quote:
            quote += cost
        elif currency == market.base:
            base += cost
        else:
            others.append(f"{cost:g} {currency}")
    units = market.contract.units
    return market.unit.value(market.unit.nearest(quote)), units.value(units.nearest(base)), ", ".join(others)


def _steps(steps: Steps, value: Any, what: str, key: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MessageError(f"want a {what} in numbers, was {value!r} of {key}")
    try:
        count = steps.exact(float(value))
    except ValueError as exc:
        raise MessageError(f"{what} of {key}: {exc}") from None
    if count < 0:
        raise MessageError(f"want a {what} from 0, was {value} of {key}")
    return count


def _short(message: Mapping[str, Any]) -> str:
    """What can be told of a message; not its raw form, which may hold anything."""
    names = ("id", "clientOrderId", "order", "symbol", "side", "price", "amount", "status", "timestamp")
    return str({name: message[name] for name in names if message.get(name) is not None})[:200]
