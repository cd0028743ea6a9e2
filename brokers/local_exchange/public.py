"""Market data over REST, as Binance's: /api/v3/... without a signature."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from brokers.local_exchange import messages
from brokers.local_exchange.amounts import exact, text
from brokers.local_exchange.config import Listing
from brokers.local_exchange.errors import ApiError, illegal, missing, unknown_symbol
from brokers.local_exchange.market import AGGREGATE_OFFSET, INTERVALS_MS, LEVELS, Market, Traded

if TYPE_CHECKING:
    from brokers.local_exchange.server import LocalExchange

ORDER_TYPES = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
LIMIT_MAX = 1000
_LIMIT = 500
_DEPTH_LIMIT = 100
_HOUR_MS = 3_600_000


def routes(exchange: "LocalExchange") -> list[web.RouteDef]:
    """GET /api/v3/{ping,time,exchangeInfo,klines,trades,historicalTrades,aggTrades,depth,ticker/...}."""
    answers = _Answers(exchange)
    return [
        web.get(f"/api/v3/{path}", _as_json(answer))
        for path, answer in (
            ("ping", answers.ping),
            ("time", answers.time),
            ("exchangeInfo", answers.info),
            ("klines", answers.klines),
            ("trades", answers.trades),
            ("historicalTrades", answers.historical),
            ("aggTrades", answers.aggregates),
            ("depth", answers.depth),
            ("ticker/bookTicker", answers.book_ticker),
            ("ticker/24hr", answers.day),
            ("ticker/price", answers.price),
        )
    ]


Query = dict[str, str]


def _as_json(answer: Callable[[Query], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(answer(dict(request.query)))

    return handle


def filters(listing: Listing) -> list[dict[str, Any]]:
    """The rules of a symbol's orders, as exchangeInfo states them."""
    tick, lot = text(exact(listing.tick)), text(exact(listing.lot))
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": text(exact(listing.price_max)),
            "tickSize": tick,
        },
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": text(exact(listing.quantity_max)), "stepSize": lot},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": text(0),
            "maxQty": text(exact(listing.market_quantity_max)),
            "stepSize": text(0),
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": text(exact(listing.min_notional)),
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
    ]


class _Answers:
    """One method a path."""

    def __init__(self, exchange: "LocalExchange") -> None:
        self._exchange = exchange

    def ping(self, query: Query) -> dict[str, Any]:
        return {}

    def time(self, query: Query) -> dict[str, Any]:
        return {"serverTime": self._exchange.clock.now_ms()}

    def info(self, query: Query) -> dict[str, Any]:
        config = self._exchange.config
        markets = [self._market(query)] if "symbol" in query else list(self._exchange.markets.values())
        return {
            "timezone": "UTC",
            "serverTime": self._exchange.clock.now_ms(),
            "rateLimits": [
                _limit("REQUEST_WEIGHT", "MINUTE", 1, config.weight_per_minute),
                _limit("ORDERS", "SECOND", 10, config.orders_per_10s),
            ],
            "exchangeFilters": [],
            "symbols": [_symbol(market.listing) for market in markets],
        }

    def klines(self, query: Query) -> list[Any]:
        market = self._market(query)
        interval = _wanted(query, "interval")
        if interval not in INTERVALS_MS:
            raise ApiError(-1120, "Invalid interval.")
        start, end = _whole(query, "startTime"), _whole(query, "endTime")
        bars = market.klines(interval, start, end, _limited(query), self._exchange.clock.wall_ms())
        return [messages.kline_row(bar) for bar in bars]

    def trades(self, query: Query) -> list[Any]:
        market = self._market(query)
        limit = _limited(query)
        return [_trade(trade) for trade in market.trades(market.emitted - limit + 1, limit)]

    def historical(self, query: Query) -> list[Any]:
        market = self._market(query)
        limit = _limited(query)
        first = _whole(query, "fromId")
        return [_trade(trade) for trade in market.trades(market.emitted - limit + 1 if first is None else first, limit)]

    def aggregates(self, query: Query) -> list[Any]:
        market = self._market(query)
        limit = _limited(query)
        first_id, start, end = (_whole(query, name) for name in ("fromId", "startTime", "endTime"))
        if first_id is not None:
            if start is not None or end is not None:
                raise ApiError(-1128, "Combination of optional parameters invalid.")
            chosen = market.trades(first_id - AGGREGATE_OFFSET, limit)
        else:
            first = market.first_id_at(start) if start is not None else None
            after = market.first_id_at(end + 1) if end is not None else market.emitted + 1
            first = max(after - limit, 1) if first is None else first
            chosen = market.trades(first, min(limit, max(after - first, 0)))
        return [_aggregate(trade) for trade in chosen]

    def depth(self, query: Query) -> dict[str, Any]:
        market = self._market(query)
        levels = _limited(query, usual=_DEPTH_LIMIT, most=5000)
        return messages.depth(self._exchange.streams.book(market), min(levels, LEVELS))

    def book_ticker(self, query: Query) -> Any:
        return self._each(query, _best)

    def day(self, query: Query) -> Any:
        now_ms = self._exchange.clock.wall_ms()
        return self._each(query, lambda market: messages.day_figures(market, market.day(now_ms)))

    def price(self, query: Query) -> Any:
        return self._each(query, lambda market: {"symbol": market.id, "price": text(market.last_price)})

    def _each(self, query: Query, figures: Callable[[Market], dict[str, Any]]) -> Any:
        """Of one symbol, or a list of all."""
        self._exchange.pump()
        if "symbol" in query:
            return figures(self._market(query))
        return [figures(market) for market in self._exchange.markets.values()]

    def _market(self, query: Query) -> Market:
        self._exchange.pump()  # what is due has happened before it is asked for
        market = self._exchange.markets.get(_wanted(query, "symbol"))
        if market is None:
            raise unknown_symbol()
        return market


def _symbol(listing: Listing) -> dict[str, Any]:
    return {
        "symbol": listing.id,
        "status": "TRADING",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(ORDER_TYPES),
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(listing),
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def _limit(kind: str, unit: str, count: int, most: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": unit, "intervalNum": count, "limit": most}


def _trade(trade: Traded) -> dict[str, Any]:
    return {
        "id": trade.id,
        "price": text(trade.price),
        "qty": text(trade.size),
        "quoteQty": messages.money(trade.price * trade.size),
        "time": trade.time_ms,
        "isBuyerMaker": trade.buyer_maker,
        "isBestMatch": True,
    }


def _aggregate(trade: Traded) -> dict[str, Any]:
    return {
        "a": trade.id + AGGREGATE_OFFSET,
        "p": text(trade.price),
        "q": text(trade.size),
        "f": trade.id,
        "l": trade.id,
        "T": trade.time_ms,
        "m": trade.buyer_maker,
        "M": True,
    }


def _best(market: Market) -> dict[str, Any]:
    quote = market.quote()
    return {
        "symbol": market.id,
        "bidPrice": text(quote.bid),
        "bidQty": text(quote.bid_size),
        "askPrice": text(quote.ask),
        "askQty": text(quote.ask_size),
    }


def _wanted(query: Query, name: str) -> str:
    if not query.get(name):
        raise missing(name)
    return query[name]


def _whole(query: Query, name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise illegal(name, "^[0-9]{1,20}$")
    return int(value)


def _limited(query: Query, usual: int = _LIMIT, most: int = LIMIT_MAX) -> int:
    limit = _whole(query, "limit")
    if limit is None:
        return usual
    if limit < 1:
        raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit, most)
