"""Help for tests of the local exchange's accounts: a market that moves only when told to, and the real client."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import ccxt.pro
from exchange_process import KEY, SECRET

from brokers.local_exchange.accounts import Account, Accounts
from brokers.local_exchange.amounts import ATOMS
from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.market import Market
from brokers.local_exchange.orders import AccountOrder, Json
from brokers.local_exchange.rules import ticket
from brokers.local_exchange.tape import Tape, tape

SYMBOL = "BTCUSDT"
# One trade has happened at the start; the next is more than a quarter of an hour away, unless a burst brings it.
LISTING = Listing(trades_per_s=0.001, history_s=10.0)
CONFIG = ExchangeConfig(listings=(LISTING,), balances=("USDT=100000", "BTC=2"), taker_bps=10.0, maker_bps=5.0)


def trades(*prices: float, size: float = 0.05) -> Tape:
    """A tape of these prices, quote currency."""
    return tape(LISTING, [float(i) for i in range(len(prices))], prices, [size] * len(prices))


class Venue:
    """Accounts and a market without a server, in one step each."""

    def __init__(self, *prices: float, config: ExchangeConfig = CONFIG) -> None:
        self.market = Market(config.listings[0], trades(*prices), seed=0, now_ms=1_000_000)
        self.accounts = Accounts(config, {SYMBOL: self.market}, {"key": "secret"})
        owner = self.accounts.of("key")
        assert owner is not None
        self.account: Account = owner[0]
        self.events: list[Json] = []
        self.account.listeners["test"] = self.events.append
        self.now_ms = 1_000_000

    def step(self) -> None:
        """The next trade happens, and the quote after it, as the exchange tells the accounts."""
        self.now_ms += 1000
        trade, quote = self.market.emit(), self.market.quote()
        self.accounts.on_trade(SYMBOL, trade.price, trade.size, self.now_ms)
        self.accounts.on_quote(SYMBOL, *quote[:4], self.now_ms)

    def place(self, side: str, kind: str, quantity: object = "", **params: object) -> AccountOrder:
        """An order as its request words it; what is not named is not sent."""
        self.now_ms += 1
        asked = {"side": side, "type": kind, "quantity": str(quantity)} | {k: str(v) for k, v in params.items()}
        return self.account.place(SYMBOL, ticket(asked, self.accounts.terms[SYMBOL]), self.now_ms)

    def limit(self, side: str, quantity: object, price: object, force: str = "GTC", **params: object) -> AccountOrder:
        return self.place(side, "LIMIT", quantity, price=price, timeInForce=force, **params)

    def cancel(self, order: AccountOrder) -> Json:
        self.now_ms += 1
        return self.account.cancel(order, self.now_ms)

    def held(self, asset: str) -> tuple[int, int]:
        """Free and locked, atoms."""
        balance = self.account.balances[asset]
        return balance.free, balance.locked


def atoms(amount: str) -> int:
    """A decimal in 1e-8, for what a test expects."""
    whole, _, part = amount.partition(".")
    return int(whole) * ATOMS + int(part.ljust(8, "0"))


@asynccontextmanager
async def trader(url: str, key: str = KEY, secret: str = SECRET) -> AsyncIterator[Any]:
    """The unmodified ccxt.pro client of Binance, aimed at a local exchange."""
    ws = url.replace("http://", "ws://")
    exchange = ccxt.pro.binance(
        {
            "apiKey": key,
            "secret": secret,
            "enableRateLimit": False,
            "newUpdates": True,
            "urls": {
                "api": {
                    "public": f"{url}/api/v3",
                    "private": f"{url}/api/v3",
                    "ws": {"spot": f"{ws}/stream/ws", "ws-api": {"spot": f"{ws}/ws-api/v3"}},
                }
            },
            "options": {
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
                "fetchMargins": False,
            },
        }
    )
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


def signed(params: Mapping[str, object], secret: str = SECRET, *, at_ms: int | None = None) -> str:
    """A query with its timestamp and signature, as Binance's documents make it."""
    stamped = {**params, "timestamp": time.time_ns() // 1_000_000 if at_ms is None else at_ms}
    query = urlencode(stamped)
    return f"{query}&signature={hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()}"


def shown(events: Sequence[Json], *names: str) -> list[tuple[object, ...]]:
    """Of each executionReport, the fields named."""
    return [tuple(event[name] for name in names) for event in events if event["e"] == "executionReport"]
