"""The local exchange as a process: python -m brokers.local_exchange --help"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.server import LocalExchange
from configs.load import ConfigError, load
from feeds.errors import FeedError

PROGRAM = "python -m brokers.local_exchange"
_ES = Listing(
    symbol="ES/USD", data="feeds/sample/es_trades_2013-09.parquet", speed=20.0, gap_max_s=60.0, tick="0.25", lot="1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """An exchange of play money on 127.0.0.1 that speaks Binance's spot protocol. It prints where it listens."""

    config: Path | None = None  # a TOML file with these keys and [[listings]]; the other flags then count for nothing
    listing: Listing = _ES  # the one symbol, unless a file lists more
    port: int = 0  # 0: any that is free
    seed: int = 0  # of invented markets and of the sizes in the book
    weight_per_minute: int = 6000  # of requests
    orders_per_10s: int = 100  # of an account
    maker_bps: float = 10.0  # of what is received
    taker_bps: float = 10.0  # of what is received
    balances: tuple[str, ...] = ("USD=1000000", "USDT=1000000")  # of each account at the start
    key_env: str = "LOCAL_EXCHANGE_KEY"  # the environment variable that holds the account's key
    secret_env: str = "LOCAL_EXCHANGE_SECRET"  # and its secret

    def exchange(self) -> ExchangeConfig:
        """What is to be run.

        Raises:
            ConfigError: the file cannot be used.
            ValueError: a flag is impossible.
        """
        if self.config is not None:
            return load(ExchangeConfig, self.config)
        return ExchangeConfig(
            port=self.port,
            listings=(self.listing,),
            seed=self.seed,
            weight_per_minute=self.weight_per_minute,
            orders_per_10s=self.orders_per_10s,
            maker_bps=self.maker_bps,
            taker_bps=self.taker_bps,
            balances=self.balances,
            key_env=self.key_env,
            secret_env=self.secret_env,
        )


def main(argv: list[str]) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code: 0, or 2 for what a user can get wrong."""
    try:
        config = tyro.cli(Command, args=argv, prog=PROGRAM).exchange()
        exchange = LocalExchange(config)
        asyncio.run(_serve(exchange))
    except (ConfigError, FeedError, ValueError, OSError) as exc:
        print(f"{PROGRAM}: error: {exc}", file=sys.stderr)
        return 2
    return 0


async def _serve(exchange: LocalExchange) -> None:
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    try:
        await exchange.start()
        for note in _notes(exchange):
            print(f"{PROGRAM}: {note}", file=sys.stderr, flush=True)
        print(f"listening on {exchange.url}", flush=True)
        await asked.wait()
    finally:
        await exchange.stop()


def _notes(exchange: LocalExchange) -> Iterator[str]:
    """What would puzzle who uses it."""
    config = exchange.config
    if not exchange.keys:
        yield f"{config.key_env} and {config.secret_env} are not both set: there is no account, and no order is taken"
    for market in exchange.markets.values():
        if market.next_ms is None:
            yield (
                f"the data of {market.listing.symbol} end before now, so nothing will be traded: lower speed or"
                " history_s, or set loop"
            )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(130)
