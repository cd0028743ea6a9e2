"""One asyncio loop on a thread of its own, and the edges between it and the graph. Every live adapter is one of these.

What runs on the loop never sees the engine, and the engine never waits for the loop: ticks are handed over both ways.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

from csp import ts
from csp.impl.adaptermanager import AdapterManagerImpl
from csp.impl.outputadapter import OutputAdapter
from csp.impl.pushadapter import PushGroup, PushInputAdapter
from csp.impl.wiring import py_output_adapter_def, py_push_adapter_def

_STOP_S = 5.0  # what a service may take to close its connections

Push = Callable[[str, Any], None]  # (output, value): one tick, from the loop's thread


class Service(Protocol):
    """What runs on the loop. It is made when the graph is built, and opens nothing before `run`."""

    async def run(self, push: Push) -> None:
        """Work until cancelled; close everything on the way out. An exception stops the engine and is raised there."""

    def take(self, name: str, value: Any) -> None:
        """One tick of an edge that `LoopAdapter.send` was given, on the loop's thread; must not block."""


class LoopAdapter:
    """A service as edges of a graph that runs in realtime.

    Args:
        name: of the thread.
        service: what runs.
        outputs: the type of each stream that it pushes, by name.
    """

    def __init__(self, name: str, service: Service, outputs: Mapping[str, type]) -> None:
        self._name, self._service, self._outputs = name, service, dict(outputs)
        self._order = PushGroup()

    def edge(self, output: str) -> Any:
        """The ticks that the service pushes to one of its outputs; none is dropped.

        All outputs of an adapter tick in the order in which they were pushed, a cycle each: what says that a feed is
        whole again does not overtake what was missing.
        """
        return _loop_out(self, self._outputs[output], output, push_group=self._order)

    def send(self, name: str, edge: Any) -> None:
        """Hand every tick of `edge` to the service's `take`."""
        _loop_in(self, edge, name)

    def _create(self, engine: Any, memo: Any) -> "_Loop":
        return _Loop(engine, self._name, self._service)


class _Loop(AdapterManagerImpl):  # type: ignore[misc] # csp ships no types
    def __init__(self, engine: Any, name: str, service: Service) -> None:
        super().__init__(engine)
        self._service = service
        self._stopping = False
        self.outputs: dict[str, _LoopOut] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, starttime: datetime, endtime: datetime) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_lost)
        self._task = self._loop.create_task(self._service.run(self._push))
        self._thread.start()

    def stop(self) -> None:
        if self._thread.ident is None:  # the engine did not get as far as starting it
            return
        self._stopping = True
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it ended, and closed its loop, just now
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout=_STOP_S)

    def process_next_sim_timeslice(self, now: datetime) -> None:
        return None

    def take(self, port: str, value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, port, value)
        except RuntimeError:  # the service has failed and the engine is being stopped for it
            if not self._loop.is_closed():
                raise

    def _deliver(self, port: str, value: Any) -> None:
        try:
            self._service.take(port, value)
        except Exception as exc:
            self.shutdown_engine(exc)

    def _push(self, output: str, value: Any) -> None:
        adapter = self.outputs.get(output)
        if adapter is not None:  # an output that no node listens to has no adapter
            adapter.push_tick(value)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        # A thread that dies in silence would look like a market at rest.
        except asyncio.CancelledError:
            if not self._stopping:  # something within cancelled what it waited for
                self.shutdown_engine(RuntimeError(f"{self._thread.name} was cancelled, and was not asked to stop"))
        except Exception as exc:
            self.shutdown_engine(exc)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _lost(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell what nobody waited for, but for bare futures: ccxt leaves one behind for each dial that fails, which who
    dialled has heard of already, and asyncio would print a traceback of each."""
    future = context.get("future")
    if future is None or isinstance(future, asyncio.Task):
        loop.default_exception_handler(context)


class _LoopOut(PushInputAdapter):  # type: ignore[misc]
    def __init__(self, manager: _Loop, typ: type, output: str) -> None:
        manager.outputs[output] = self
        super().__init__()


class _LoopIn(OutputAdapter):  # type: ignore[misc]
    def __init__(self, manager: _Loop, port: str) -> None:
        self._manager, self._port = manager, port
        super().__init__()

    def on_tick(self, time: datetime, value: Any) -> None:
        self._manager.take(self._port, value)


_ANY: Any = ts["T"]  # type: ignore[misc, name-defined]
_loop_out = py_push_adapter_def("loop_out", _LoopOut, _ANY, LoopAdapter, typ="T", output=str)
_loop_in = py_output_adapter_def("loop_in", _LoopIn, LoopAdapter, input=_ANY, port=str)
