"""The one seam between the graph and a model. What lies behind it never makes the engine wait while a run is live.

Three fillings, one contract: a request goes in, an answer comes out later and says of when it is.

- history: the model runs when the requests of an instant are all in, and its answers come after a fixed latency;
- live: a worker beside the engine; what waits for it is bounded, and a later request of a key takes the place of an
  earlier one, or takes it in;
- a replay: the recorded answers, in the cycles in which they came.
"""

import asyncio
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import csp
from csp import ts

from feeds.loop import LoopAdapter, Push
from feeds.record import Inputs
from feeds.streams import SETTLE, together
from feeds.tap import Tap
from nodes.events import NodeError
from nodes.guard import error_text

T = TypeVar("T", bound=Any)
U = TypeVar("U", bound=Any)

_Done = tuple[list[Any], list[NodeError]]  # of one batch

_END_S = 4.0  # for a call to end when the run stops; less than a loop is given
_DAY_MS = 86_400_000.0


class Request(csp.Struct):
    """What a model is asked. Its own fields are those of a subclass."""

    key: str  # what the answer is about: a symbol, or one item of many
    asof: datetime  # engine time of the newest data in it


class Model(Protocol):
    """Something that answers requests. `predict` is never called while an earlier call runs; `merge` may be, live."""

    name: str  # in errors and recordings: lower-case letters, digits, "_" and "-"

    def predict(self, requests: Sequence[Any]) -> Sequence[Any]:
        """One answer a request, in their order: Structs with `symbol` and `asof`. An exception fails all of them."""

    def merge(self, waiting: Any, newer: Any) -> Any:
        """What a request that waits becomes when a newer one of its key comes: the newer one, or both in one."""

    def close(self) -> None:
        """Let go of what it holds: the run has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferConfig:
    """When answers come, and when they are too old."""

    latency_ms: float = 0.001  # engine time to an answer in a backtest; with more, orders miss the next open of a bar
    settle_ms: float = 5.0  # wall time that a live worker waits for the other symbols of an instant
    stale_after_s: float = 30.0  # engine time after which a live answer is refused
    waiting_max: int = 4096  # keys that may wait for a live worker; of more the oldest is dropped
    batch_max: int = 4096  # requests that a live worker is given at once

    def __post_init__(self) -> None:
        if not 0.001 <= self.latency_ms <= _DAY_MS:  # a model cannot answer before all of an instant is in
            raise ValueError(f"latency_ms must lie in [0.001, 86400000], was {self.latency_ms}")
        if not 0.0 <= self.settle_ms <= 1_000.0:
            raise ValueError(f"settle_ms must lie in [0, 1000], was {self.settle_ms}")
        if not 0.0 < self.stale_after_s < math.inf:
            raise ValueError(f"stale_after_s must be positive and finite, was {self.stale_after_s}")
        for name in ("waiting_max", "batch_max"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise ValueError(f"{name} must lie in [1, 1000000], was {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Inferred:
    """What comes back: for each request an answer or an error, except where a newer request took its place."""

    answer: Any  # ts of the answers' type
    error: ts[NodeError]


def infer(
    requests: Sequence[Any], model: Model, answer: type, config: InferConfig, *, live: ts[bool] | None, inputs: Inputs
) -> Inferred:
    """Ask a model.

    Args:
        requests: edges of Requests, in a fixed order.
        model: what answers.
        answer: the type of its answers: a Struct of what can be recorded, with `symbol` and `asof`.
        live: ticks once, when history is over: a worker answers, or, where `inputs` are replayed, the recording. None:
            it is all history.
        inputs: of the graph.

    Ticks:
        `answer` with each answer, `error` with each request that failed, or that found no room where one edge asks
        about many keys. Live, an answer about data older than `stale_after_s` is an error too; what history asked may
        take as long from `live` on.
    """
    asked = together(list(requests))
    if live is None:
        done = _in_history(asked, model, answer, timedelta(milliseconds=config.latency_ms))
        return Inferred(csp.unroll(done.answers), csp.unroll(done.errors))
    room = max(config.waiting_max, len(requests))  # where each edge has one key, none is ever dropped
    tap = Tap(model.name, lambda: _worker(model, answer, config, room), inputs)
    tap.send("request", asked)
    fresh = _fresh(tap.edge("answers", answer), live, model.name, timedelta(seconds=config.stale_after_s), answer)
    return Inferred(fresh.answer, together([tap.edge("errors", NodeError), fresh.error]))


def _ask(model: Model, requests: Sequence[Any], failure: type[BaseException] = Exception) -> _Done:
    """Answers, or one error a request: a failure is data."""
    try:
        answers = list(model.predict(requests))
        if len(answers) != len(requests):
            raise ValueError(f"want {len(requests)} answers, was {len(answers)}")
    except failure as exc:
        text = error_text(exc)
        return [], [NodeError(node=model.name, symbol=request.key, error=text) for request in requests]
    return answers, []


@csp.node
def _in_history(request: ts["T"], model: Any, answer: "U", latency: timedelta) -> csp.Outputs(
    answers=ts[list["U"]], errors=ts[list[NodeError]]
):
    with csp.alarms():
        a_asked = csp.alarm(bool)
        a_answers = csp.alarm(object)
    with csp.state():
        s_waiting: dict[str, Any] = {}  # by key

    with csp.stop():
        model.close()

    if csp.ticked(request):
        if not s_waiting:
            csp.schedule_alarm(a_asked, SETTLE, True)
        key = request.key
        s_waiting[key] = model.merge(s_waiting[key], request) if key in s_waiting else request
    if csp.ticked(a_asked):
        batch = list(s_waiting.values())
        s_waiting.clear()
        csp.schedule_alarm(a_answers, latency - SETTLE, _ask(model, batch))
    if csp.ticked(a_answers):
        answers, errors = a_answers
        if answers:
            csp.output(answers=answers)
        if errors:
            csp.output(errors=errors)


@csp.node
def _fresh(given: ts["T"], live: ts[bool], name: str, most: timedelta, answer: "T") -> csp.Outputs(
    answer=ts["T"], error=ts[NodeError]
):
    with csp.state():
        s_live: datetime | None = None

    if csp.ticked(live):
        s_live = csp.now()
    if csp.ticked(given):
        age = timedelta() if s_live is None else csp.now() - max(given.asof, s_live)
        if age <= most:
            csp.output(answer=given)
        else:
            allowed = f"{most.total_seconds():g} s are allowed"
            late = f"TimeoutError: the answer is {age.total_seconds():.3g} s old, {allowed}"
            csp.output(error=NodeError(node=name, symbol=given.symbol, error=late))


def _worker(model: Model, answer: type, config: InferConfig, room: int) -> LoopAdapter:
    outputs = {"answers": answer, "errors": NodeError}
    return LoopAdapter(model.name, Worker(model, config, room), outputs)


class Worker:
    """A model on a thread of its own, with at most one waiting request a key.

    Args:
        config: `settle_ms`, `stale_after_s` and `batch_max` are read.
        room: keys that may wait; of one more the oldest is dropped, which is an error.
    """

    def __init__(self, model: Model, config: InferConfig, room: int) -> None:
        self._model, self._config, self._room = model, config, room
        self._waiting: dict[str, Any] = {}
        self._asked = asyncio.Event()

    async def run(self, push: Push) -> None:
        self._push, loop = push, asyncio.get_running_loop()
        batches: SimpleQueue[tuple[list[Any], Future[_Done]] | None] = SimpleQueue()
        # A daemon: a model that hangs must not keep a process alive that was asked to stop.
        name = f"{self._model.name}-model"
        thread = threading.Thread(target=_answer, args=(self._model, batches), name=name, daemon=True)
        thread.start()
        try:
            while True:
                await self._asked.wait()
                # Symbols of one instant come one by one, and go as one batch.
                await asyncio.sleep(self._config.settle_ms * 1e-3)
                done: Future[_Done] = Future()
                batch = self._next()
                batches.put((batch, done))
                late = loop.call_later(self._config.stale_after_s, self._late, batch)
                answers, errors = await asyncio.wrap_future(done)
                late.cancel()
                for given in answers:
                    push("answers", given)
                for error in errors:
                    push("errors", error)
        finally:
            batches.put(None)
            thread.join(_END_S)

    def take(self, name: str, value: Any) -> None:
        waiting = self._waiting
        if value.key in waiting:
            waiting[value.key] = self._model.merge(waiting[value.key], value)
        else:
            if len(waiting) >= self._room:
                oldest = next(iter(waiting))
                del waiting[oldest]
                self._error(oldest, f"BufferError: dropped, as {self._room} newer requests of others waited")
            waiting[value.key] = value
        self._asked.set()

    def _next(self) -> list[Any]:
        """What waits longest, at most `batch_max` of it."""
        keys = list(islice(self._waiting, self._config.batch_max))
        if len(keys) == len(self._waiting):
            self._asked.clear()
        return [self._waiting.pop(key) for key in keys]

    def _late(self, batch: Sequence[Any]) -> None:
        """Tell of a call whose answers will be refused: it may never end."""
        for request in batch:
            self._error(request.key, f"TimeoutError: no answer for {self._config.stale_after_s:g} s")

    def _error(self, key: str, text: str) -> None:
        self._push("errors", NodeError(node=self._model.name, symbol=key, error=text))


def _answer(model: Model, batches: "SimpleQueue[tuple[list[Any], Future[_Done]] | None]") -> None:
    """The thread of a model. Nothing that it raises ends it, a panic of foreign code neither."""
    while (given := batches.get()) is not None:
        batch, done = given
        if done.set_running_or_notify_cancel():
            done.set_result(_ask(model, batch, BaseException))
    model.close()
