"""What an account can ask for: orders, cancels and questions, over REST and over the websocket API alike.

Source: Binance spot API, "Trading endpoints" and "Account endpoints".
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from brokers.local_exchange import signing
from brokers.local_exchange.accounts import Account
from brokers.local_exchange.amounts import text
from brokers.local_exchange.errors import ApiError, illegal, missing, unknown_order
from brokers.local_exchange.orders import Json, trade_row
from brokers.local_exchange.rules import client_id, ticket, whole

if TYPE_CHECKING:
    from brokers.local_exchange.server import LocalExchange

Params = Mapping[str, str]
Operation = Callable[["LocalExchange", Account, Params], object]
Row = TypeVar("Row")

_ANSWERS = ("ACK", "RESULT", "FULL")
_ORDERS_A_DAY = 200_000
_LIMIT, _LIMIT_MAX = 500, 1000  # rows
_DAY_MS = 86_400_000
_EVER = 1 << 62  # ms
_REASONS = {
    "Account has insufficient balance for requested action.": "INSUFFICIENT_BALANCES",
    "Stop price would trigger immediately.": "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
    "Order would immediately match and take.": "WOULD_MATCH_IMMEDIATELY",
}


def place(exchange: "LocalExchange", account: Account, params: Params) -> Json:
    """POST /api/v3/order."""
    symbol = _symbol(account, params)
    asked = ticket(params, account.terms(symbol))
    detail = _detail(params, asked.kind)
    now_ms = exchange.clock.now_ms()
    account.heard(asked.client_id)
    refusal = exchange.faults.rejects()
    if refusal is not None:
        raise refusal
    account.count_order(now_ms, exchange.config.orders_per_10s, _ORDERS_A_DAY)
    return account.place(symbol, asked, now_ms).answer(detail)


def test(exchange: "LocalExchange", account: Account, params: Params) -> Json:
    """POST /api/v3/order/test: refused as the order would be, or nothing."""
    symbol = _symbol(account, params)
    account.test(symbol, ticket(params, account.terms(symbol)), exchange.clock.now_ms())
    return {}


def cancel(exchange: "LocalExchange", account: Account, params: Params) -> Json:
    """DELETE /api/v3/order."""
    symbol = _symbol(account, params)
    order = account.cancellable(symbol, *_which(params, "orderId", "origClientOrderId"))
    only = params.get("cancelRestrictions", "")
    if only and only not in ("ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
        raise ApiError(-1145, "Invalid cancelRestrictions.")
    if only and only != f"ONLY_{order.status}":
        raise ApiError(-2011, "Order was not canceled due to cancel restrictions.")
    return account.cancel(order, exchange.clock.now_ms(), client_id(params, "newClientOrderId"))


def cancel_all(exchange: "LocalExchange", account: Account, params: Params) -> list[Json]:
    """DELETE /api/v3/openOrders."""
    orders = account.open_orders(_symbol(account, params))
    if not orders:
        raise unknown_order()
    now_ms = exchange.clock.now_ms()
    return [account.cancel(order, now_ms) for order in orders]


def replace(exchange: "LocalExchange", account: Account, params: Params) -> Json:
    """POST /api/v3/order/cancelReplace.

    Raises:
        HalfDoneError: one of both was refused; what its answer says.
    """
    symbol, mode = _symbol(account, params), params.get("cancelReplaceMode", "")
    if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
        raise missing("cancelReplaceMode")
    asked = ticket(params, account.terms(symbol))
    detail = _detail(params, asked.kind)
    which = _which(params, "cancelOrderId", "cancelOrigClientOrderId")
    now_ms = exchange.clock.now_ms()
    answer: dict[str, object] = {"cancelResult": "SUCCESS", "newOrderResult": "NOT_ATTEMPTED"}
    try:
        old = account.cancellable(symbol, *which)
        answer["cancelResponse"] = account.cancel(old, now_ms, client_id(params, "cancelNewClientOrderId"))
    except ApiError as exc:
        answer |= {"cancelResult": "FAILURE", "cancelResponse": exc.body(), "newOrderResponse": None}
        if mode == "STOP_ON_FAILURE":
            raise HalfDoneError(-2022, "Order cancel-replace failed.", answer) from exc
    try:
        answer["newOrderResponse"] = place(exchange, account, {**params, "newOrderRespType": detail})
        answer["newOrderResult"] = "SUCCESS"
    except ApiError as exc:
        answer |= {"newOrderResult": "FAILURE", "newOrderResponse": exc.body()}
        if answer["cancelResult"] == "SUCCESS":
            account.refuse(symbol, asked, _reason(exc), now_ms)
            raise HalfDoneError(-2021, "Order cancel-replace partially failed.", answer) from exc
        raise HalfDoneError(-2022, "Order cancel-replace failed.", answer) from exc
    if answer["cancelResult"] == "FAILURE":
        raise HalfDoneError(-2021, "Order cancel-replace partially failed.", answer)
    return answer


def query(exchange: "LocalExchange", account: Account, params: Params) -> Json:
    """GET /api/v3/order."""
    symbol = _symbol(account, params)
    return account.order(symbol, *_which(params, "orderId", "origClientOrderId")).state()


def open_orders(exchange: "LocalExchange", account: Account, params: Params) -> list[Json]:
    """GET /api/v3/openOrders: of one symbol, or of all."""
    symbol = _symbol(account, params) if params.get("symbol") else None
    return [order.state() for order in account.open_orders(symbol)]


def all_orders(exchange: "LocalExchange", account: Account, params: Params) -> list[Json]:
    """GET /api/v3/allOrders: the latest ones, or from an id or a time on."""
    orders = account.orders(_symbol(account, params))
    rows, from_start = _between(orders, params, lambda order: order.created_ms)
    first = whole(params, "orderId")
    if first is not None:
        rows, from_start = [order for order in rows if order.order_id >= first], True
    return [order.state() for order in _cut(rows, params, from_start=from_start)]


def my_trades(exchange: "LocalExchange", account: Account, params: Params) -> list[Json]:
    """GET /api/v3/myTrades: the latest ones, or from an id or a time on; of one order or of all."""
    trades = account.trades(_symbol(account, params))
    first, order_id = whole(params, "fromId"), whole(params, "orderId")
    if first is not None and (params.get("startTime") or params.get("endTime")):
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    rows, from_start = _between(trades, params, lambda row: row[1].time_ms)
    if order_id is not None:
        rows = [row for row in rows if row[1].order_id == order_id]
    if first is not None:
        rows, from_start = [row for row in rows if row[1].trade_id >= first], True
    return [trade_row(*row) for row in _cut(rows, params, from_start=from_start)]


def account_status(exchange: "LocalExchange", account: Account, params: Params) -> Json:
    """GET /api/v3/account."""
    config = exchange.config
    maker, taker = (f"{bps / 10_000:.8f}" for bps in (config.maker_bps, config.taker_bps))
    terse = params.get("omitZeroBalances", "").lower() == "true"
    return {
        "makerCommission": round(config.maker_bps),
        "takerCommission": round(config.taker_bps),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": text(0), "seller": text(0)},
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": account.updated_ms,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": text(balance.free), "locked": text(balance.locked)}
            for asset, balance in account.balances.items()
            if balance.free or balance.locked or not terse
        ],
        "permissions": ["SPOT"],
    }


def order_limits(exchange: "LocalExchange", account: Account, params: Params) -> list[Json]:
    """GET /api/v3/rateLimit/order."""
    in_10s, in_day = account.order_counts(exchange.clock.now_ms())
    return [
        {"rateLimitType": "ORDERS", "interval": interval, "intervalNum": number, "limit": limit, "count": count}
        for interval, number, limit, count in (
            ("SECOND", 10, exchange.config.orders_per_10s, in_10s),
            ("DAY", 1, _ORDERS_A_DAY, in_day),
        )
    ]


class HalfDoneError(ApiError):
    """A cancel-and-replace of which not both were done."""

    def __init__(self, code: int, message: str, data: Json) -> None:
        super().__init__(code, message, 400 if code == -2022 else 409)
        self.data = data

    def body(self) -> dict[str, object]:
        return super().body() | {"data": self.data}


# By the names that the websocket API has for them.
OPERATIONS: dict[str, Operation] = {
    "order.place": place,
    "order.test": test,
    "order.cancel": cancel,
    "order.cancelReplace": replace,
    "order.status": query,
    "openOrders.status": open_orders,
    "openOrders.cancelAll": cancel_all,
    "allOrders": all_orders,
    "myTrades": my_trades,
    "account.status": account_status,
    "account.rateLimits.orders": order_limits,
}
PLACING = frozenset({"order.place", "order.cancelReplace"})  # which slow and lost acknowledgements befall

_REST = (
    ("POST", "/api/v3/order", "order.place"),
    ("POST", "/api/v3/order/test", "order.test"),
    ("DELETE", "/api/v3/order", "order.cancel"),
    ("POST", "/api/v3/order/cancelReplace", "order.cancelReplace"),
    ("GET", "/api/v3/order", "order.status"),
    ("GET", "/api/v3/openOrders", "openOrders.status"),
    ("DELETE", "/api/v3/openOrders", "openOrders.cancelAll"),
    ("GET", "/api/v3/allOrders", "allOrders"),
    ("GET", "/api/v3/myTrades", "myTrades"),
    ("GET", "/api/v3/account", "account.status"),
    ("GET", "/api/v3/rateLimit/order", "account.rateLimits.orders"),
)


def routes(exchange: "LocalExchange") -> list[web.RouteDef]:
    """The signed REST endpoints."""
    return [web.route(method, path, _handler(exchange, name)) for method, path, name in _REST]


def _handler(exchange: "LocalExchange", name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    operation = OPERATIONS[name]

    async def handle(request: web.Request) -> web.Response:
        body = await request.text() if request.can_read_body else ""
        query = request.raw_path.partition("?")[2]  # as it was signed: not decoded, not put in order
        key = request.headers.get("X-MBX-APIKEY", "")
        exchange.pump()  # what is due has happened before it is asked about
        try:
            account, params = signing.of_rest(exchange.accounts, exchange.clock.now_ms(), key, query, body)
            answer = operation(exchange, account, params)
        except ApiError as exc:
            wait = {} if exc.retry_after_s is None else {"Retry-After": str(exc.retry_after_s)}
            return web.json_response(exc.body(), status=exc.status, headers=wait)
        if name in PLACING:
            await asyncio.sleep(exchange.faults.ack_delay_s())
            if exchange.faults.loses_ack() and request.transport is not None:
                request.transport.abort()
        in_10s, in_day = account.order_counts(exchange.clock.now_ms())
        headers = {"X-MBX-ORDER-COUNT-10S": str(in_10s), "X-MBX-ORDER-COUNT-1D": str(in_day)}
        return web.json_response(answer, headers=headers if request.path.startswith("/api/v3/order") else None)

    return handle


def _symbol(account: Account, params: Params) -> str:
    symbol = params.get("symbol", "")
    if not symbol:
        raise missing("symbol")
    return account.terms(symbol).symbol


def _which(params: Params, order_id: str, client: str) -> tuple[int | None, str]:
    """The order that is meant: by the exchange's id or the client's."""
    which = whole(params, order_id), client_id(params, client)
    if which == (None, ""):
        raise ApiError(-1102, f"Param '{client}' or '{order_id}' must be sent, but both were empty/null!")
    return which


def _detail(params: Params, kind: str) -> str:
    """How much of an order its answer tells: all of MARKET and LIMIT orders unless asked otherwise."""
    detail = params.get("newOrderRespType") or ("FULL" if kind in ("MARKET", "LIMIT") else "ACK")
    if detail not in _ANSWERS:
        raise illegal("newOrderRespType", "|".join(_ANSWERS))
    return detail


def _between(rows: Sequence[Row], params: Params, time_ms: Callable[[Row], int]) -> tuple[list[Row], bool]:
    """The rows between startTime and endTime, both included; and whether they are asked for from their start on."""
    start, end = whole(params, "startTime"), whole(params, "endTime")
    if start is not None and end is not None and end - start > _DAY_MS:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    kept = [row for row in rows if (start or 0) <= time_ms(row) <= (_EVER if end is None else end)]
    return kept, start is not None


def _cut(rows: list[Row], params: Params, *, from_start: bool) -> list[Row]:
    """As many as asked for: the first of them, or the last."""
    limit = whole(params, "limit", _LIMIT)
    assert limit is not None
    if not 1 <= limit <= _LIMIT_MAX:
        raise illegal("limit", f"1 to {_LIMIT_MAX}")
    return rows[:limit] if from_start else rows[-limit:]


def _reason(exc: ApiError) -> str:
    """Why an order was refused, as an executionReport says it."""
    return _REASONS.get(exc.message, "NONE")
