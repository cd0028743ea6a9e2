"""Faults on command: what a venue does on a bad day.

Each is a method of `Faults`, and the same over HTTP: POST /control/faults with {"fault": NAME, ...}, such as

    curl -d '{"fault": "outage", "seconds": 5}' http://127.0.0.1:PORT/control/faults

which answers {"fault": NAME, "result": ...}. GET /control/state is the truth to compare with: what was traded, what is
asked, every order and fill. Trades go on happening, and stay readable over REST, whatever is done to the sockets.

`kind` is whose sockets: "market", "user", or "all".
"""

import asyncio
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from brokers.local_exchange.errors import ApiError

if TYPE_CHECKING:
    from brokers.local_exchange.server import LocalExchange

T = TypeVar("T")
KINDS = ("market", "user", "all")
_MOST = 10_000_000


@dataclass(slots=True)
class HttpFault:
    """Answers of REST that are taken over."""

    status: int
    left: int  # answers; -1: until the end
    until_s: float  # loop time
    retry_after_s: int | None
    path: str  # prefix


class Faults:
    """The faults of one exchange. All are called on its event loop."""

    def __init__(self, exchange: "LocalExchange") -> None:
        self._exchange = exchange
        self._counts: dict[str, int] = {}  # what is left of a fault that counts
        self._held: dict[str, Any] = {}  # a message that the next one of its kind overtakes
        self._http: list[HttpFault] = []
        self._slow_s = 0.0
        self._outage_until_s = -math.inf
        self._malformed = itertools.cycle(range(len(_BROKEN)))

    # What a person or a test asks for.

    def abort(self, kind: str = "all") -> int:
        """Cut TCP connections without a word; return how many."""
        sockets = self._sockets(kind)
        for socket in sockets:
            socket.abort()
        return len(sockets)

    def close(self, kind: str = "all", code: int = 1001) -> int:
        """Say goodbye with a close frame; return to how many."""
        sockets = self._sockets(kind)
        for socket in sockets:
            self._exchange.spawn(socket.close(code))
        return len(sockets)

    def stall(self, seconds: float = math.inf, kind: str = "market", resume: bool = False) -> int:
        """The sockets open now fall silent while TCP lives; what they would have been sent is lost. Return how many.

        Args:
            seconds: for how long, with `resume`; without it a socket that has died stays dead.
        """
        if not seconds > 0.0:
            raise ValueError(f"seconds must be positive, was {seconds}")
        sockets = self._sockets(kind)
        for socket in sockets:
            socket.stall()
            if resume and seconds < math.inf:
                asyncio.get_running_loop().call_later(seconds, socket.resume)
        return len(sockets)

    def outage(self, seconds: float, refuse: bool = False) -> None:
        """Cut every socket, answer 503 to everything for a while, and open no socket.

        Args:
            refuse: do not even listen: connections are refused.
        """
        if not 0.0 < seconds < math.inf:
            raise ValueError(f"seconds must be positive, was {seconds}")
        self._outage_until_s = max(self._outage_until_s, asyncio.get_running_loop().time() + seconds)
        self.abort()
        if refuse:
            self._exchange.spawn(self._exchange.deaf(seconds))

    def burst(self, count: int, symbol: str = "") -> int:
        """The next trades of a symbol happen at once, those after them earlier; return how many there were."""
        return self._exchange.burst(_counted(count), symbol)

    def duplicate(self, count: int, kind: str = "market") -> None:
        """The next trades (or messages to users) are told twice."""
        self._add("duplicate", kind, count)

    def out_of_order(self, count: int, kind: str = "market") -> None:
        """The next trades (or messages to users) are each overtaken by the one that follows."""
        self._add("out_of_order", kind, count)

    def malformed(self, count: int) -> None:
        """The next trades are told as nonsense, each in another way: no JSON, a field missing, a price that is no
        number, a negative one, a wrong type, an empty message."""
        self._add("malformed", "market", count)

    def http(
        self,
        status: int,
        count: int | None = None,
        seconds: float | None = None,
        retry_after: int | None = None,
        path: str = "/api/",
    ) -> None:
        """REST answers an error.

        Args:
            status: 400 to 599; 429 and 418 say Retry-After.
            count: so many answers; None: no matter how many.
            seconds: so long; None: no matter how long. One of both is wanted.
            retry_after: seconds to be waited, as the answer says.
            path: only requests below it.
        """
        if not 400 <= status <= 599:
            raise ValueError(f"status must lie in [400, 599], was {status}")
        if count is None and seconds is None:
            raise ValueError("http wants a count or seconds, was neither")
        if seconds is not None and not seconds > 0.0:
            raise ValueError(f"seconds must be positive, was {seconds}")
        until_s = math.inf if seconds is None else asyncio.get_running_loop().time() + seconds
        self._http.append(HttpFault(status, -1 if count is None else _counted(count), until_s, retry_after, path))

    def skew(self, ms: int) -> None:
        """The exchange's clock is wrong by so much: its time, the times of its messages, its check of a request's
        timestamp. The times at which trades happened stay."""
        self._exchange.clock.skew_ms = int(ms)

    def slow_ack(self, ms: float, count: int = 1) -> None:
        """The next orders are answered late; they are taken at once."""
        if not 0.0 <= ms < math.inf:
            raise ValueError(f"ms must be 0 or more, was {ms}")
        self._slow_s = ms / 1000.0
        self._add("slow_ack", "user", count)

    def lost_ack(self, count: int = 1) -> None:
        """The next orders are taken, and the connection dies before the answer."""
        self._add("lost_ack", "user", count)

    def reject_next(self, count: int = 1) -> None:
        """The next orders are refused, for no reason that the client could know."""
        self._add("reject_next", "user", count)

    def clear(self) -> None:
        """No fault any more: counts, errors, outage, skew. Sockets that have died stay dead."""
        self._counts.clear()
        self._http.clear()
        self._outage_until_s = -math.inf
        self._exchange.clock.skew_ms = 0

    # What the rest of the exchange asks.

    @property
    def out(self) -> bool:
        """Whether an outage lasts."""
        return asyncio.get_running_loop().time() < self._outage_until_s

    def http_answer(self, path: str) -> web.Response | None:
        """The error to answer instead, if any."""
        if self.out:
            return _answer(HttpFault(503, -1, math.inf, None, ""))
        now_s = asyncio.get_running_loop().time()
        self._http = [fault for fault in self._http if fault.left != 0 and now_s < fault.until_s]
        for fault in self._http:
            if path.startswith(fault.path):
                fault.left -= fault.left > 0
                return _answer(fault)
        return None

    def disturbed(self, kind: str, message: T) -> list[T]:
        """What is told instead of one message: itself, itself twice, nothing yet, or after the one that overtook it."""
        told = [message, message] if self._take("duplicate", kind) else [message]
        if kind in self._held:
            return [*told, self._held.pop(kind)]
        if self._take("out_of_order", kind):
            self._held[kind] = message
            return []
        return told

    def tellings(self, trade: T) -> list[tuple[T, Callable[[str], str]]]:
        """What is told instead of one trade: which trades, and what becomes of their messages."""
        if not self._counts and not self._held:
            return [(trade, _whole)]
        return [
            (told, _BROKEN[next(self._malformed)] if self._take("malformed", "market") else _whole)
            for told in self.disturbed("market", trade)
        ]

    def ack_delay_s(self) -> float:
        """How late the answer to this order is; counts it."""
        return self._slow_s if self._take("slow_ack", "user") else 0.0

    def loses_ack(self) -> bool:
        """Whether the answer to this order is lost; counts it."""
        return self._take("lost_ack", "user")

    def rejects(self) -> ApiError | None:
        """The refusal of this order, if any; counts it."""
        return (
            ApiError(-1013, "This action is disabled on this account.") if self._take("reject_next", "user") else None
        )

    def state(self) -> dict[str, Any]:
        """What lasts."""
        return {
            "counts": {key: left for key, left in self._counts.items() if left},
            "http": [{"status": f.status, "left": f.left, "path": f.path} for f in self._http],
            "outage": self.out,
            "stalled": sum(socket.stalled for socket in self._exchange.sockets),
            "skew_ms": self._exchange.clock.skew_ms,
        }

    def _sockets(self, kind: str) -> list[Any]:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, was {kind!r}")
        return [socket for socket in self._exchange.sockets if kind in ("all", socket.kind)]

    def _add(self, fault: str, kind: str, count: int) -> None:
        if kind not in KINDS[:2]:
            raise ValueError(f"kind must be one of {', '.join(KINDS[:2])}, was {kind!r}")
        key = f"{fault} {kind}"
        self._counts[key] = self._counts.get(key, 0) + _counted(count)

    def _take(self, fault: str, kind: str) -> bool:
        key = f"{fault} {kind}"
        left = self._counts.get(key, 0)
        if left:
            self._counts[key] = left - 1
        return left > 0


_COMMANDS = (
    "abort", "close", "stall", "outage", "burst", "duplicate", "out_of_order", "malformed", "http", "skew", "slow_ack",
    "lost_ack", "reject_next", "clear",
)  # fmt: skip


def routes(exchange: "LocalExchange") -> list[web.RouteDef]:
    """POST /control/faults and GET /control/state."""

    async def command(request: web.Request) -> web.Response:
        try:
            arguments = await request.json()
            if not isinstance(arguments, dict):
                raise ValueError(f"want a JSON object, was {arguments!r}")
            name = arguments.pop("fault")
            if name not in _COMMANDS:
                raise ValueError(f"fault must be one of {', '.join(_COMMANDS)}, was {name!r}")
            result = getattr(exchange.faults, name)(**arguments)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            return web.json_response({"error": str(exc).removeprefix("Faults.") or repr(exc)}, status=400)
        return web.json_response({"fault": name, "result": result})

    async def state(request: web.Request) -> web.Response:
        return web.json_response(exchange.state())

    return [web.post("/control/faults", command), web.get("/control/state", state)]


def _counted(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
        raise ValueError(f"count must be a whole number from 1, was {count!r}")
    return count


def _answer(fault: HttpFault) -> web.Response:
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    if fault.status >= 500:  # what stands before the exchange answers, and speaks no JSON
        return web.Response(text=f"{fault.status} Service Unavailable", status=fault.status, headers=headers)
    code = -1003 if fault.status in (418, 429) else -1000
    message = "Too many requests." if code == -1003 else "An unknown error occurred while processing the request."
    return web.json_response({"code": code, "msg": message}, status=fault.status, headers=headers)


def _whole(message: str) -> str:
    return message


def _without(field: str) -> Callable[[str], str]:
    def change(message: str) -> str:
        data = json.loads(message)
        del data[field]
        return json.dumps(data)

    return change


def _with(field: str, value: Any) -> Callable[[str], str]:
    def change(message: str) -> str:
        return json.dumps(json.loads(message) | {field: value})

    return change


_BROKEN: tuple[Callable[[str], str], ...] = (
    lambda message: message[: len(message) // 2],
    _without("p"),
    _with("p", "NaN"),
    _with("p", "-1.00000000"),
    _with("q", [1, 2]),
    _with("T", "yesterday"),
    lambda message: "",
    _with("q", "0.00000000"),
)
