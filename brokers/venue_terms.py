"""What an order is at a real venue: its client id, ccxt's words for type and time in force, exact decimal strings; or
why the venue cannot do it, known before anything is sent."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from brokers.events import OrderRequest, OrderType, TimeInForce
from brokers.ledger import Contract
from brokers.matching import Order
from brokers.terms import Refusal, Translator
from brokers.venue_ids import VENUES, client_id
from feeds.events import Side
from feeds.instruments import Instrument

_BUY = Side.BUY
_MARKET, _LIMIT, _STOP_LIMIT = OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT
_TRAILING, _TOUCHED = OrderType.TRAILING_STOP, OrderType.MARKET_IF_TOUCHED
_GTC, _IOC, _FOK = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK
_DAY, _GTD = TimeInForce.DAY, TimeInForce.GTD


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a venue can do in one market."""

    stops: bool = True  # stop and stop-limit orders
    touches: bool = True  # market-if-touched orders
    post_only: bool = True
    immediate: tuple[str, ...] = ("FOK", "IOC")  # which of them
    market_buys: bool = True  # False: only by what they cost
    reduce_only: bool = False  # the venue itself sees to it; spot markets have no such thing
    id_prefix: str = ""  # of client ids


class Terms(NamedTuple):
    """An order as it is sent."""

    client_id: str
    symbol: str
    kind: str  # ccxt's type: "market" or "limit"
    side: str  # "buy" or "sell"
    lots: int  # that are sent; less than was asked for where a reduce-only order was cut to what is held
    lots_asked: int
    quantity: str  # base units, a decimal that is exactly `lots` lots
    limit_price: str | None  # quote currency, exactly on a tick
    stop_price: str | None
    time_in_force: str
    params: dict[str, Any]  # of create_order


class Drafter:
    """Makes the terms of orders for one instrument.

    Args:
        instrument: in the venue's own ticks and lots.
        offer: what the venue can do.
    """

    __slots__ = ("_contract", "_instrument", "_offer", "_translator")

    def __init__(self, instrument: Instrument, contract: Contract, offer: Offer) -> None:
        self._instrument, self._contract, self._offer = instrument, contract, offer
        self._translator = Translator(instrument, contract)

    @property
    def contracts(self) -> bool:
        """Whether it is a market of contracts, which can be sold short."""
        return self._offer.reduce_only

    def terms(self, request: OrderRequest, now: datetime, reducible: int) -> Terms | Refusal:
        """What to send for a request, or why nothing can be.

        Quantities and prices are rounded as at the simulated venue: never in the order's favour.

        Args:
            now: naive UTC.
            reducible: lots by which an order of this side can bring the position nearer to zero.
        """
        refusal = self._unknown(request)
        if refusal is not None:
            return refusal
        order = self._translator.order(request, now, now, 0.0)
        if not isinstance(order, Order):
            return order
        lots = order.lots
        if request.reduce_only and not self._offer.reduce_only:
            lots = min(lots, reducible)
            if lots < 1:
                return "reduce_only", "there is no position to reduce"
        limit = stop = None
        quantity = decimals(lots, self._instrument.lot)
        if order.limit is not None:
            limit = decimals(order.limit, self._instrument.tick)
            worth, least = Decimal(limit) * Decimal(quantity), self._instrument.min_notional
            if worth < Decimal(least):
                return "filter", f"the order is worth {worth:f} {self._instrument.currency}, the venue wants {least}"
        if order.stop is not None:
            stop = decimals(order.stop, self._instrument.tick)
        client = client_id(request.order_id, self._offer.id_prefix)
        return Terms(
            client_id=client,
            symbol=request.symbol,
            kind="limit" if limit is not None else "market",
            side="buy" if request.side is _BUY else "sell",
            lots=lots,
            lots_asked=order.lots,
            quantity=quantity,
            limit_price=limit,
            stop_price=stop,
            time_in_force=request.time_in_force.name,
            params=self._params(request, client, stop),
        )

    def _unknown(self, request: OrderRequest) -> Refusal | None:
        """What the venue has no order for."""
        offer, kind, force = self._offer, request.order_type, request.time_in_force
        waits = kind is not _MARKET and kind is not _LIMIT
        if request.group or request.parent:
            return _unsupported("orders of a group or with a parent")
        if request.replaces:
            return _unsupported("orders that replace another")
        if kind is _TRAILING:
            return _unsupported("trailing stops")
        if waits and not (offer.touches if kind is _TOUCHED else offer.stops):
            return _unsupported(f"{kind.name} orders")
        if kind is _MARKET and request.side is _BUY and not offer.market_buys:
            return _unsupported("market orders that buy a quantity")
        if force is _DAY or force is _GTD:  # `in` would compare, which takes a microsecond each in csp's enums
            return _unsupported(f"time in force {force.name}")
        if (force is _IOC or force is _FOK) and force.name not in offer.immediate:
            return _unsupported(f"time in force {force.name}")
        if request.post_only and not offer.post_only:
            return _unsupported("post-only orders")
        if request.reduce_only and not offer.reduce_only:
            # Cut to the position when it is sent; one that rests could outlive the position.
            if not (kind is _MARKET or (kind is _LIMIT and force is not _GTC)):
                return _unsupported("reduce-only orders that rest")
        return None

    def _params(self, request: OrderRequest, client: str, stop: str | None) -> dict[str, Any]:
        params: dict[str, Any] = {"clientOrderId": client}
        kind = request.order_type
        if (kind is _LIMIT or kind is _STOP_LIMIT) and not request.post_only:
            params["timeInForce"] = request.time_in_force.name
        if request.post_only:
            params["postOnly"] = True
        if stop is not None:
            params["takeProfitPrice" if kind is _TOUCHED else "stopLossPrice"] = stop
        if request.reduce_only and self._offer.reduce_only:
            params["reduceOnly"] = True
        return params


def offer(exchange: Any, symbol: str) -> Offer:
    """What a venue can do in one market, out of what ccxt says of it. The markets have been loaded."""

    def says(name: str) -> Any:
        return exchange.feature_value(symbol, "createOrder", name)

    forces = says("timeInForce") or {}
    market = exchange.market(symbol)
    types = market["info"].get("orderTypes") if isinstance(market.get("info"), dict) else None  # Binance's own list

    def takes(kind: str) -> bool:
        return types is None or kind in types

    return Offer(
        stops=bool(says("stopLossPrice")) and takes("STOP_LOSS") and takes("STOP_LOSS_LIMIT"),
        touches=bool(says("takeProfitPrice")) and takes("TAKE_PROFIT"),
        post_only=bool(forces.get("PO")) and takes("LIMIT_MAKER"),
        immediate=tuple(name for name in ("FOK", "IOC") if forces.get(name)),
        market_buys=not says("marketBuyRequiresPrice"),
        reduce_only=bool(market.get("contract")),
        id_prefix=VENUES[exchange.id],
    )


def decimals(count: int, step: str) -> str:
    """`count` steps as a decimal without an exponent, exactly."""
    return f"{Decimal(count) * Decimal(step):f}"


def _unsupported(what: str) -> Refusal:
    return "unsupported", f"the venue does not take {what}"
