"""The client of a crypto exchange, through ccxt.pro: made, aimed, described, and its errors told in one line.

What ccxt.pro does by itself and must not: it keeps 1000 trades and loses the rest of a burst in silence; it lets one
message that it cannot read end a socket's reading for ever; it reaches addresses beside the one that was given.

Source: ccxt 4.5.90, `async_support/base/ws/client.py` and `pro/binance.py`.
"""

import asyncio
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import ccxt
import ccxt.pro
import structlog

from feeds.errors import FeedError, OfflineError, RateLimitError, UnknownSymbolError
from feeds.instruments import Instrument

_HERE = ("127.0.0.1", "localhost", "::1")
_KEEP_TRADES = 200_000  # a socket's whole backlog is read before what waits for it runs: a burst must fit
_KEEP_ORDERS = 10_000  # of one's own; ccxt searches them from the oldest on at each change of an order
_UNIT = "0.00000001"  # what crypto exchanges keep books in, where ccxt does not say
_CLOSE_S = 1.0  # for the closing handshake; a dead peer would take aiohttp's 10 s
_TELL = 240  # characters of what an exchange says
# ccxt's leaky bucket makes each request wait for the one before, however long ago that was: half a second after a book
# of 1000 levels. Binance counts by the minute; of the others ccxt knows no window. ccxt's own window reads all the
# requests of a minute for each one, in a task: 120 us an order at 20 orders a second, where `Window` takes 3.
_BY_WINDOW = ("binance",)
# A pasted key has small letters or more characters, so that it is refused and never shown as "not set".
_ENV_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_SIGNATURE = re.compile(r"(?i)(signature|apikey|api_key|secret|passphrase|listenkey)(=|%3D|\"?\s*:\s*\"?)[^&\s\"',}]+")

_KEPT = 0.1  # of the window, for orders and cancels: 600 a minute at Binance

_dialled: ContextVar["Dials | None"] = ContextVar("dialled", default=None)
_urgent: ContextVar[bool] = ContextVar("urgent", default=False)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConfig:
    """Which exchange, and where its keys are. It holds the names of environment variables and never a secret."""

    exchange: str = "binance"  # as ccxt names it
    url: str = ""  # of a local exchange that speaks Binance's protocol, such as "http://127.0.0.1:8080"
    sandbox: bool = False  # the exchange's own test system
    key_env: str = ""  # environment variable that holds the API key
    secret_env: str = ""  # environment variable that holds its secret
    password_env: str = ""  # environment variable that holds its passphrase, where an exchange has one
    timeout_s: float = 10.0  # of a request

    def __post_init__(self) -> None:
        if self.exchange not in ccxt.pro.exchanges:
            near = get_close_matches(self.exchange, ccxt.pro.exchanges, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(
                f"exchange must be one that ccxt.pro has a websocket client for, was {self.exchange!r}{hint}"
            )
        for name in ("key_env", "secret_env", "password_env"):
            value = getattr(self, name)
            if value and not _ENV_NAME.fullmatch(value):  # the value may be the secret itself: it is not shown
                raise ValueError(f"{name} must name an environment variable such as BINANCE_KEY, and never hold a key")
        if not (math.isfinite(self.timeout_s) and 0.0 < self.timeout_s <= 300.0):
            raise ValueError(f"timeout_s must lie in (0, 300], was {self.timeout_s}")
        if self.url:
            self._refuse_elsewhere()

    def _refuse_elsewhere(self) -> None:
        if self.exchange != "binance":
            raise ValueError(
                f"url is of a local exchange that speaks Binance's protocol, exchange was {self.exchange!r}"
            )
        if self.sandbox:
            raise ValueError("url and sandbox exclude each other: a local exchange has no test system beside it")
        parts = urlsplit(self.url)
        try:
            local = parts.scheme == "http" and parts.hostname in _HERE and parts.port is not None
        except ValueError:  # a port that is none
            local = False
        if not local or parts.username or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"url must be like http://127.0.0.1:8080, on this machine, was {scrub(self.url, self)!r}")

    @property
    def name(self) -> str:
        """Of the source, as feed status and logs show it."""
        return "local exchange" if self.url else f"{self.exchange} sandbox" if self.sandbox else self.exchange


def connect(config: ExchangeConfig, *, private: bool = False) -> Any:
    """A ccxt.pro client; nothing is opened before its first request, which must come from a running loop.

    Args:
        private: give it the keys, for orders and balances. Market data needs none, and gets none.

    Returns:
        The ccxt.pro exchange, with `bad_messages` and `on_bad` of `Dialled` beside ccxt's own.

    Raises:
        FeedError: a key is wanted and its variable is unset or empty, or the exchange has no sandbox.
    """
    options: dict[str, Any] = {
        "defaultType": "spot",
        "tradesLimit": _KEEP_TRADES,
        "ordersLimit": _KEEP_ORDERS,
        "myTradesLimit": _KEEP_ORDERS,
    }
    if config.exchange == "binance":
        options |= {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
    settings = {
        "enableRateLimit": True,
        "newUpdates": True,
        "timeout": int(config.timeout_s * 1000),
        "options": options,
        **(keys(config) if private else {}),
    }
    exchange = _client_class(config.exchange)(settings)
    # Its own wait before a dial, up to 30 s the longer an outage lasts, would come on top of the caller's, and after
    # the user stream's subscription has been signed: the venue would refuse that for its age.
    exchange.ws_dial_delay = lambda url: 0.0
    if config.exchange in _BY_WINDOW:
        most, window_s = exchange.rollingWindowSize / exchange.rateLimit, exchange.rollingWindowSize / 1000.0
        exchange.window = Window(most, window_s, kept=_KEPT * most if private else 0.0)
    exchange.turn = asyncio.Lock()
    if config.sandbox:
        if not exchange.urls.get("test"):
            raise FeedError(f"{config.exchange} has no sandbox; leave `sandbox` out and stay on paper")
        exchange.set_sandbox_mode(True)
    if config.url:
        _stay_here(exchange, config.url)
    return exchange


async def disconnect(exchange: Any) -> None:
    """Close every socket and session of a client within seconds, answered or not."""
    try:
        await hang_up(exchange, *(exchange.clients or {}))
    finally:
        await exchange.close()  # also where a socket does not end well, or who waits for it is cancelled


async def hang_up(exchange: Any, *urls: str) -> None:
    """Drop the sockets of these addresses; who waits for one gets a NetworkError, and the next watch dials again."""
    known = exchange.clients or {}
    # One that is still dialling would open its socket all the same, with nobody left to close it.
    clients = [known.pop(url) for url in urls if url in known and not known[url].connecting]
    for client in clients:
        error = ccxt.NetworkError("hung up")
        # With an error of its own, its late end does not remove the client that has taken its place.
        client.error = client.error or error
        client.reject(error)  # `close` would cancel them, which looks like a task being stopped
    await asyncio.gather(*(_close(client) for client in clients))


class Dials(NamedTuple):
    """The sockets that a task's watch calls use."""

    urls: set[str]  # grows as they dial
    heard: Callable[[], None] | None  # called after each message of theirs


def watch_dials(heard: Callable[[], None] | None = None) -> set[str]:
    """The addresses that this task's watch calls use from now on: a set that grows as they dial.

    Args:
        heard: called as soon as a message of one of them has been read, which is two turns of the loop before the watch
            call returns. It must not raise.
    """
    dials = Dials(set(), heard)
    _dialled.set(dials)
    return dials.urls


def instrument(exchange: Any, market: dict[str, Any]) -> Instrument:
    """A market of `load_markets` as an instrument.

    Raises:
        FeedError: it is not spot or linear, or ccxt does not know its tick or lot.
    """
    symbol = market["symbol"]
    if market.get("option") or market.get("inverse"):
        raise FeedError(f"{symbol}: want a spot or linear market, was {market.get('type')}")
    precision = market.get("precision") or {}
    tick, lot = (_step(exchange, precision.get(name)) for name in ("price", "amount"))
    if not tick or not lot:
        raise FeedError(f"{symbol}: {exchange.id} does not say its {'lot' if tick else 'tick'}")
    base_unit = _step(exchange, precision.get("base")) or _UNIT
    if Decimal(lot) % Decimal(base_unit):
        base_unit = ""
    side = market.get("feeSide") or exchange.safe_string(exchange.safe_dict(exchange.fees, "trading"), "feeSide")
    least = exchange.safe_dict(market.get("limits") or {}, "cost", {}).get("min")
    try:
        return Instrument(
            symbol=symbol,
            tick=tick,
            lot=lot,
            multiplier=_decimal(market.get("contractSize") or 1),
            currency=market["quote"],
            currency_unit=_step(exchange, precision.get("quote")) or _UNIT,
            maker_bps=_bps(market.get("maker")),
            taker_bps=_bps(market.get("taker")),
            fees_in="received" if side == "get" else "quote",
            base_unit=base_unit,
            min_notional=_decimal(least or 0),
        )
    except ValueError as error:
        raise FeedError(f"{symbol}: {exchange.id} describes a market that cannot be: {error}") from None


def market(exchange: Any, symbol: str) -> dict[str, Any]:
    """The market of a symbol, once `load_markets` has run.

    Raises:
        UnknownSymbolError: there is none, or it does not trade now.
    """
    known = exchange.markets.get(symbol)
    if known is None:
        near = get_close_matches(symbol, list(exchange.markets), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UnknownSymbolError(f"{symbol}: {exchange.id} has no such market{hint}")
    if known.get("active") is False:
        raise UnknownSymbolError(f"{symbol}: {exchange.id} does not trade it now")
    return known


def feed_error(error: BaseException, config: ExchangeConfig) -> FeedError:
    """What ccxt raised, as ours, in one line and without a secret. Raise it `from None`: the original may hold one."""
    words = scrub(str(error).removeprefix(f"{config.exchange} "), config) or type(error).__name__  # ccxt's own name
    name = config.name
    if isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
        return RateLimitError(f"{name} refuses for now, it was asked too often: {words}")
    if isinstance(error, ccxt.BadSymbol):
        return UnknownSymbolError(f"{name} has no such market: {words}")
    if isinstance(error, ccxt.InvalidNonce) and not isinstance(error, ccxt.ChecksumError):
        return FeedError(f"{name} refuses this machine's clock: {words}")
    if isinstance(error, (ccxt.OperationFailed, OSError)):
        cause = getattr(error.__cause__, "strerror", None)  # ccxt says which address, and not what was wrong with it
        return OfflineError(f"{name} could not be reached: {words}" + (f" ({cause})" if cause else ""))
    if isinstance(error, ccxt.AuthenticationError):
        return FeedError(f"{name} refuses the key: {words}")
    return FeedError(f"{name} answers: {words}")


def retry_after_s(exchange: Any) -> float:
    """Seconds that the answer to the last request asked to wait; 0.0 where it asked for none."""
    for key, value in (exchange.last_response_headers or {}).items():
        if key.lower() == "retry-after":
            try:
                asked = float(value)
            except ValueError:  # a date, which no exchange sends
                return 0.0
            return asked if 0.0 <= asked <= 86_400.0 else 0.0
    return 0.0


def scrub(text: str, config: ExchangeConfig) -> str:
    """`text` in one short line, without the config's secrets, signatures and keys in addresses."""
    for name in (config.key_env, config.secret_env, config.password_env):
        secret = os.environ.get(name, "").strip() if name else ""
        if secret:
            for form in (secret, quote(secret, safe=""), quote(secret)):
                text = text.replace(form, "***")
    text = " ".join(_SIGNATURE.sub(r"\1\2***", text).split())
    return text if len(text) <= _TELL else text[: _TELL - 3] + "..."


@contextmanager
def urgent() -> Iterator[None]:
    """Requests that this task makes inside do not wait behind others."""
    before = _urgent.set(True)
    try:
        yield
    finally:
        _urgent.reset(before)


class Window:
    """Lets requests go as long as those of the last `window_s` cost no more than `cost_max` together; the others wait,
    each in its turn. Urgent ones have a turn of their own.

    Args:
        kept: of `cost_max`, for urgent requests alone.
    """

    def __init__(self, cost_max: float, window_s: float, kept: float = 0.0) -> None:
        self._cost_max, self._window_s, self._kept = cost_max, window_s, kept
        self._recent: deque[tuple[float, float]] = deque()  # (loop time, cost)
        self._cost = 0.0  # of them
        self._turn, self._urgent_turn = asyncio.Lock(), asyncio.Lock()

    async def __call__(self, cost: float, *, urgent: bool = False) -> None:
        """Wait until a request of this cost may go. One that costs more than all may goes alone."""
        turn, cost_max = self._turn, self._cost_max - self._kept
        if urgent:
            turn, cost_max = self._urgent_turn, self._cost_max
        async with turn:
            while (wait_s := self._wait_s(cost, cost_max)) > 0.0:
                await asyncio.sleep(wait_s)
            self._recent.append((asyncio.get_running_loop().time(), cost))
            self._cost += cost

    def _wait_s(self, cost: float, cost_max: float) -> float:
        """Until the oldest request leaves the window; 0.0 where this one may go."""
        recent, since_s = self._recent, asyncio.get_running_loop().time() - self._window_s
        while recent and recent[0][0] <= since_s:
            self._cost -= recent.popleft()[1]
        if not recent:
            self._cost = 0.0  # no rounding adds up for ever
        elif self._cost + cost > cost_max:
            return recent[0][0] - since_s
        return 0.0


class Dialled:
    """What is laid over ccxt's client of every exchange."""

    clients: dict[str, Any]
    bad_messages = 0  # that could not be read, and were dropped
    on_bad: Callable[[str, str], None] | None = None  # told (address, what was wrong with it) of each
    window: Window | None = None  # of its requests; None: ccxt's leaky bucket
    turn: asyncio.Lock  # of requests that are not urgent

    async def throttle(self, cost: float | None = None) -> None:
        """Wait until a request of this cost may go; an urgent one waits behind one other at most."""
        if self.window is not None:
            await self.window(1.0 if cost is None else cost, urgent=_urgent.get())
        elif _urgent.get():
            await super().throttle(cost)  # type: ignore[misc] # of the ccxt class that it is laid over
        else:
            async with self.turn:
                await super().throttle(cost)  # type: ignore[misc]

    def client(self, url: str) -> Any:
        """The socket of an address. Dialling is noted for `watch_dials`; a message that fails is dropped alone."""
        dials = _dialled.get()
        if dials is not None:
            dials.urls.add(url)
        if self.clients and url in self.clients:
            client = self.clients[url]
        else:
            client = super().client(url)  # type: ignore[misc] # of the ccxt class that it is laid over
            client.hearers = {}  # who is told of each message; keys, in the order in which they came
            client.handle_message = self._guarded(client.handle_message, url, client.hearers)
        if dials is not None and dials.heard is not None:
            client.hearers[dials.heard] = None
        return client

    def _guarded(
        self, handle: Callable[[Any], None], url: str, hearers: dict[Callable[[], None], None]
    ) -> Callable[[Any], None]:
        def guarded(message: Any) -> None:
            try:
                handle(message)
                for heard in hearers:
                    heard()
            except Exception as error:  # it would leave the socket open and never read again
                self.bad_messages += 1
                if self.on_bad is not None:
                    self.on_bad(url, f"{type(error).__name__}: {error}")
                else:
                    _log.warning("bad_message", exchange=getattr(self, "id", ""), error=type(error).__name__)

        return guarded


class QuickTrades:
    """Binance's aggregate trades, read from its sockets without ccxt's detour over exact sums and fees: half the time
    of a message."""

    def parse_ws_trade(self, trade: dict[str, Any], market: dict[str, Any] | None = None) -> dict[str, Any]:
        """What `feeds.crypto_parse` asks of a trade; ccxt's own reading of any other message, and of a broken one."""
        match trade:
            case {"e": "aggTrade", "a": int(number), "T": int(ms), "p": str(price), "q": str(size), "m": bool(sells)}:
                with suppress(ValueError):
                    return {
                        "id": str(number),
                        "timestamp": ms,
                        "symbol": market and market["symbol"],
                        "side": "sell" if sells else "buy",  # the buyer's order was the one that rested
                        "price": float(price),
                        "amount": float(size),
                    }
        return super().parse_ws_trade(trade, market)  # type: ignore[misc] # of the ccxt class below


_QUICK = ("binance", "binanceus")


@cache
def _client_class(name: str) -> Any:
    quick = (QuickTrades,) if name in _QUICK else ()
    return type(name, (Dialled, *quick, getattr(ccxt.pro, name)), {})


async def _close(client: Any) -> None:
    with suppress(TimeoutError, OSError, ccxt.BaseError):  # the peer is gone: aiohttp has dropped the connection
        await asyncio.wait_for(client.close(), _CLOSE_S)


def keys(config: ExchangeConfig) -> dict[str, str]:
    """The keys of an account, by ccxt's names for them.

    Raises:
        FeedError: a key has no variable, or its variable is unset or empty.
    """
    found = {}
    for field, name in (("apiKey", config.key_env), ("secret", config.secret_env), ("password", config.password_env)):
        if not name and field == "password":
            continue
        if not name:
            raise FeedError(f"orders at {config.name} want key_env and secret_env: the variables that hold the keys")
        found[field] = os.environ.get(name, "").strip()
        if not found[field]:
            raise FeedError(f"the environment variable {name} is not set; it must hold the {field} for {config.name}")
    return found


def _stay_here(exchange: Any, url: str) -> None:
    """Aim every address of the client at the local exchange, those that nobody uses too."""
    rest = url.rstrip("/")
    socket = "ws" + rest.removeprefix("http")

    def local(addresses: Any) -> Any:
        if isinstance(addresses, dict):
            return {key: local(value) for key, value in addresses.items()}
        path = urlsplit(addresses).path
        if not addresses.startswith("ws"):
            return rest + path
        # ccxt takes a market's address without "/stream" for one of futures, and waits for ever.
        return socket + (path if path.startswith("/ws-api") else "/stream/ws")

    exchange.urls["api"] = local(exchange.urls["api"])
    for other in ("test", "demo", "apiBackup"):
        exchange.urls.pop(other, None)


def _step(exchange: Any, precision: Any) -> str:
    """A precision of ccxt as a step; "" where there is none, or none that is a step."""
    if precision is None or exchange.precisionMode == ccxt.SIGNIFICANT_DIGITS:
        return ""
    if exchange.precisionMode == ccxt.DECIMAL_PLACES:
        return _decimal(Decimal(1).scaleb(-int(precision)))
    return _decimal(precision) if Decimal(str(precision)) > 0 else ""


def _decimal(value: Any) -> str:
    return format(Decimal(str(value)).normalize(), "f")


def _bps(fraction: Any) -> float:
    return float(Decimal(str(fraction or 0)) * 10_000)
