"""A local exchange for tests: on a thread of this process, or as a process of its own.

with exchange_thread(config) as running:
    running.url                          # http://127.0.0.1:PORT
    running.exchange                     # the LocalExchange; read it through `call` alone
    running.call(lambda: running.exchange.faults.outage(2.0))
with exchange_process("--listing.speed", "20") as url: ...
"""

import asyncio
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from brokers.local_exchange.config import ExchangeConfig
from brokers.local_exchange.server import LocalExchange
from brokers.local_exchange.tape import Tape

KEY, SECRET = "test-key", "test-secret"
ROOT = Path(__file__).parent.parent
DEADLINE_S = 30.0


class Running:
    """An exchange on its own loop, and the way to it."""

    def __init__(self, exchange: LocalExchange, loop: asyncio.AbstractEventLoop) -> None:
        self.exchange = exchange
        self._loop = loop

    @property
    def url(self) -> str:
        return self.exchange.url

    @property
    def faults(self) -> Any:
        """The faults, each called on the exchange's loop."""
        return _Calls(self, self.exchange.faults)

    def call(self, work: Callable[[], Any]) -> Any:
        """Run a function, or what it awaits, on the exchange's loop; return its result."""

        async def on_loop() -> Any:
            result = work()
            return await result if isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(DEADLINE_S)


class _Calls:
    def __init__(self, running: Running, target: Any) -> None:
        self._running, self._target = running, target

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        return lambda *args, **kwargs: self._running.call(lambda: method(*args, **kwargs))


@contextmanager
def exchange_thread(
    config: ExchangeConfig | None = None,
    *,
    tapes: Mapping[str, Tape] | None = None,
    keys: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """An exchange on a thread of its own, with one account (KEY, SECRET) unless `keys` says otherwise."""
    exchange = LocalExchange(config or ExchangeConfig(), tapes=tapes, keys={KEY: SECRET} if keys is None else keys)
    ready: queue.Queue[Any] = queue.Queue()
    thread = threading.Thread(target=_serve, args=(exchange, ready), name="exchange")
    thread.start()
    try:
        answer = ready.get(timeout=DEADLINE_S)
        if isinstance(answer, BaseException):
            raise answer
        loop, ended = answer
        try:
            yield Running(exchange, loop)
        finally:
            loop.call_soon_threadsafe(ended.set)
    finally:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the exchange did not stop"
    failure = ready.get(timeout=DEADLINE_S)
    if failure is not None:
        raise failure


def _serve(exchange: LocalExchange, ready: "queue.Queue[Any]") -> None:
    """Puts (loop, the event that ends it), then None; or, instead of either, what went wrong."""

    async def serve() -> None:
        ended = asyncio.Event()
        try:
            await exchange.start()
            ready.put((asyncio.get_running_loop(), ended))
            await ended.wait()
        finally:
            await exchange.stop()

    try:
        asyncio.run(serve())
    except BaseException as exc:
        ready.put(exc)
    else:
        ready.put(None)


@contextmanager
def exchange_process(*flags: str) -> Iterator[str]:
    """An exchange in a process of its own; gives its URL. It must end with 0 when it is asked to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "brokers.local_exchange", *flags],
        cwd=ROOT,
        env=os.environ | {"LOCAL_EXCHANGE_KEY": KEY, "LOCAL_EXCHANGE_SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), f"the exchange said {line!r} and ended with {process.poll()}"
        yield line.split()[-1]
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()
    assert process.returncode == 0, f"the exchange ended with {process.returncode}"
