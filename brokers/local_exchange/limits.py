"""What stands before every request: who may ask, how much, what a fault answers instead, and a log of it all."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from brokers.local_exchange.config import HOST
from brokers.local_exchange.errors import ApiError

if TYPE_CHECKING:
    from brokers.local_exchange.server import LocalExchange

_LOG_MAX = 100_000
_MINUTE_MS = 60_000
_WEIGHTS = {
    "/api/v3/exchangeInfo": 20,
    "/api/v3/klines": 2,
    "/api/v3/trades": 25,
    "/api/v3/historicalTrades": 25,
    "/api/v3/aggTrades": 4,
    "/api/v3/ticker/bookTicker": 2,
    "/api/v3/ticker/24hr": 2,
    "/api/v3/ticker/price": 2,
    "/api/v3/account": 20,
    "/api/v3/allOrders": 20,
    "/api/v3/myTrades": 20,
    "/api/v3/openOrders": 6,
    "/api/v3/rateLimit/order": 40,
}
_ALL_SYMBOLS = {"/api/v3/ticker/24hr": 80, "/api/v3/ticker/bookTicker": 4, "/api/v3/ticker/price": 4}
_GET_ORDER = 4
_DEPTH = ((100, 5), (500, 25), (1000, 50))  # levels up to -> weight
_DEPTH_MOST = 250

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Request(NamedTuple):
    """One line of the log of requests."""

    wall_ms: int
    method: str
    path: str
    query: dict[str, str]
    status: int


class Requests:
    """The log, the latest last, and the weight of this minute."""

    def __init__(self, exchange: "LocalExchange") -> None:
        self._exchange = exchange
        self._minute = 0
        self.weight = 0
        self.log: deque[Request] = deque(maxlen=_LOG_MAX)

    def count(self, path: str) -> int:
        """How many answered requests the log has for a path."""
        return sum(request.path == path for request in self.log)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request."""
        answer = await self._answered(request, handler)
        if not request.path.startswith("/control/"):
            wall_ms = self._exchange.clock.wall_ms()
            self.log.append(Request(wall_ms, request.method, request.path, dict(request.query), answer.status))
        return answer

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host.partition(":")[0] not in (HOST, "localhost"):
            return web.json_response({"error": f"want {HOST}, was {request.host}"}, status=403)  # a page's doing
        if request.path.startswith("/control/"):
            return await handler(request)
        fault = self._exchange.faults.http_answer(request.path)
        if fault is not None:
            return fault
        if not request.path.startswith("/api/"):
            return await handler(request)
        wait_s = self._weigh(_weight(request))
        if wait_s:
            most = self._exchange.config.weight_per_minute
            return web.json_response(
                {"code": -1003, "msg": f"Too much request weight used; current limit is {most} per 1 MINUTE."},
                status=429,
                headers={"Retry-After": str(wait_s), "X-MBX-USED-WEIGHT-1M": str(self.weight)},
            )
        try:
            answer = await handler(request)
        except ApiError as exc:
            answer = web.json_response(exc.body(), status=exc.status)
        answer.headers["X-MBX-USED-WEIGHT-1M"] = str(self.weight)
        return answer

    def _weigh(self, weight: int) -> int:
        """Count a request; seconds to wait where it is too many."""
        minute, passed_ms = divmod(self._exchange.clock.wall_ms(), _MINUTE_MS)
        if minute != self._minute:
            self._minute, self.weight = minute, 0
        self.weight += weight
        if self.weight <= self._exchange.config.weight_per_minute:
            return 0
        return -(-(_MINUTE_MS - passed_ms) // 1000)


def _weight(request: web.Request) -> int:
    if request.path == "/api/v3/order" and request.method == "GET":
        return _GET_ORDER
    if "symbol" not in request.query and request.path in _ALL_SYMBOLS:
        return _ALL_SYMBOLS[request.path]
    if request.path == "/api/v3/depth":
        levels = request.query.get("limit", "100")
        asked = int(levels) if levels.isascii() and levels.isdigit() and len(levels) <= 18 else 0
        return next((weight for most, weight in _DEPTH if asked <= most), _DEPTH_MOST)
    return _WEIGHTS.get(request.path, 1)
