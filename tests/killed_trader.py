"""A process that trades at a local exchange and is made to be killed: forked from one that has imported all, in
milliseconds."""

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from brokers.journal import Journal, KeptOrder
from brokers.settle import SettleConfig, settle
from brokers.venue_ids import client_id
from feeds.exchange import ExchangeConfig, connect, disconnect
from feeds.instruments import Instrument

BTC = Instrument(
    symbol="BTC/USDT",
    tick="0.01",
    lot="0.00001",
    currency="USDT",
    currency_unit="0.00000001",
    fees_in="received",
    base_unit="0.00000001",
)
SETTLE = SettleConfig(recv_window_ms=300, patience_s=10.0)
# What a killed trader had sent is taken for so long, and the start after it must wait for as long; a busy machine takes
# longer than SETTLE says from the signature of an order to its arrival.
AFTER_KILL = replace(SETTLE, recv_window_ms=2_000)
_DEADLINE_S = 60.0
_FLIGHT_S = 0.05  # an order is on its way for about that long


def at(url: str) -> ExchangeConfig:
    return ExchangeConfig(url=url, key_env="TEST_KEY", secret_env="TEST_SECRET")


def killed(
    url: str, path: Path, keys: Mapping[str, str], source: random.Random, due: Callable[[], bool] | None = None
) -> list[str]:
    """Let one begin a run and trade, kill it as soon as `due`, else at a moment that `source` draws; all that it said.

    It says "begun", "settled", and then of each order that it is "sending" it and that it was "sent".
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["brokers.settle"])  # which takes seconds
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_trade, args=(url, path, dict(keys), source.randrange(4), theirs))
    process.start()
    theirs.close()
    said: list[str] = []
    with ours:
        for _ in range(3 if due else 1 + source.randrange(12)):
            assert ours.poll(_DEADLINE_S), f"the trader said nothing after {said}"
            said.append(ours.recv())
        until = time.monotonic() + (_DEADLINE_S if due else source.random() * _FLIGHT_S)
        while time.monotonic() < until and not (due and due()):
            time.sleep(0)
        process.kill()
        process.join(_DEADLINE_S)
        assert process.exitcode == -9, f"the trader ended by itself after {said}"
        while ours.poll():
            try:
                said.append(ours.recv())
            except EOFError:
                break
    process.close()
    return said


def _trade(url: str, path: Path, keys: Mapping[str, str], seed: int, say: Connection) -> None:
    os.environ.update(keys)
    asyncio.run(_run(url, path, seed, say))


async def _run(url: str, path: Path, seed: int, say: Connection) -> None:
    """Settle, then send orders one after the other, each journaled first; say before and after each what is done."""
    journal = Journal(path, durable=False)
    name = f"k{len(journal.runs())}"
    journal.begin_run(name, "local")
    say.send("begun")
    await settle(at(url), journal, SETTLE, (BTC,))
    client = connect(at(url), private=True)
    client.enableRateLimit = False
    client.options["recvWindow"] = AFTER_KILL.recv_window_ms
    try:
        await client.load_markets()
        say.send("settled")
        for number in count():
            order_id, kind = f"{name}-{number}", (seed + number) % 4
            side, price = ("sell" if kind == 1 else "buy"), ("50000" if kind > 1 else None)
            journal.order_sent(
                KeptOrder(
                    client_id=client_id(order_id),
                    order_id=order_id,
                    symbol="BTC/USDT",
                    side=side.upper(),
                    order_type="LIMIT" if price else "MARKET",
                    quantity="0.001",
                    limit_price=price or "0",
                    sent_ns=time.time_ns(),
                )
            )
            say.send(f"sending {order_id}")
            params = {"clientOrderId": client_id(order_id)}
            answer = await client.create_order("BTC/USDT", "limit" if price else "market", side, "0.001", price, params)
            say.send(f"sent {order_id}")
            journal.order_changed(client_id(order_id), "ACCEPTED", changed_ns=time.time_ns(), venue_id=answer["id"])
            if kind == 3:
                journal.order_changed(client_id(order_id), "CANCEL_PENDING", changed_ns=time.time_ns())
                say.send(f"cancelling {order_id}")
                await client.cancel_order(answer["id"], "BTC/USDT")
    finally:
        await disconnect(client)
