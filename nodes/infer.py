"""The one seam between the graph and a model. What lies behind it never makes the engine wait while a run is live.

Three fillings, one contract: a request goes in, an answer comes out later and says of when it is.

- history: the model runs when the requests of an instant are all in, and its answers come after a fixed latency;
- live: a worker beside the engine; what waits for it is bounded, and a later request of a key takes the place of an
  earlier one, or takes it in;
- a replay: the recorded answers, in the cycles in which they came.
"""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
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

_WAITING_MAX = 4_096  # keys that may wait for a worker
_DAY_MS = 86_400_000.0


class Request(csp.Struct):
    """What a model is asked. Its own fields are those of a subclass."""

    key: str  # what the answer is about: a symbol, or one item of many
    asof: datetime  # engine time of the newest data in it


class Model(Protocol):
    """Something that answers requests. It is called by one thread at a time, never while an earlier call runs."""

    name: str  # in errors and recordings: lower-case letters, digits, "_" and "-"

    def predict(self, requests: Sequence[Any]) -> Sequence[Any]:
        """One answer a request, in their order: Structs with `symbol` and `asof`. An exception fails all of them."""

    def merge(self, waiting: Any, newer: Any) -> Any:
        """What a request that waits becomes when a newer one of its key comes: the newer one, or both in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferConfig:
    """When answers come, and when they are too old."""

    latency_ms: float = 0.001  # engine time to an answer in a backtest; with more, orders miss the next open of a bar
    settle_ms: float = 5.0  # wall time that a live worker waits for the other symbols of an instant
    stale_after_s: float = 30.0  # engine time after which a live answer is refused

    def __post_init__(self) -> None:
        if not 0.001 <= self.latency_ms <= _DAY_MS:  # a model cannot answer before all of an instant is in
            raise ValueError(f"latency_ms must lie in [0.001, 86400000], was {self.latency_ms}")
        if not 0.0 <= self.settle_ms <= 1_000.0:
            raise ValueError(f"settle_ms must lie in [0, 1000], was {self.settle_ms}")
        if not 0.0 < self.stale_after_s < math.inf:
            raise ValueError(f"stale_after_s must be positive and finite, was {self.stale_after_s}")


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
        `answer` with each answer, `error` with each request that failed. Live, an answer about
        data older than `stale_after_s` is an error too; what history asked may take as long from `live` on.
    """
    asked = together(list(requests))
    if live is None:
        done = _in_history(asked, model, answer, timedelta(milliseconds=config.latency_ms))
        return Inferred(csp.unroll(done.answers), csp.unroll(done.errors))
    tap = Tap(model.name, lambda: _worker(model, answer, config), inputs)
    tap.send("request", asked)
    fresh = _fresh(tap.edge("answers", answer), live, model.name, timedelta(seconds=config.stale_after_s), answer)
    return Inferred(fresh.answer, together([tap.edge("errors", NodeError), fresh.error]))


def _ask(model: Model, requests: Sequence[Any]) -> tuple[list[Any], list[NodeError]]:
    """Answers, or one error a request: a failure is data."""
    try:
        answers = list(model.predict(requests))
        if len(answers) != len(requests):
            raise ValueError(f"want {len(requests)} answers, was {len(answers)}")
    except Exception as exc:
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


def _worker(model: Model, answer: type, config: InferConfig) -> LoopAdapter:
    outputs = {"answers": answer, "errors": NodeError}
    return LoopAdapter(model.name, Worker(model, config.settle_ms * 1e-3), outputs)


class Worker:
    """A model on a thread of its own, with at most one waiting request a key."""

    def __init__(self, model: Model, settle_s: float, waiting_max: int = _WAITING_MAX) -> None:
        self._model, self._settle_s, self._waiting_max = model, settle_s, waiting_max
        self._waiting: dict[str, Any] = {}
        self._asked = asyncio.Event()
        self._dropped: list[str] = []  # keys of requests that found no room

    async def run(self, push: Push) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix=self._model.name) as thread:
            while True:
                await self._asked.wait()
                await asyncio.sleep(self._settle_s)  # symbols of one instant come one by one, and go as one batch
                self._asked.clear()
                batch, dropped = list(self._waiting.values()), self._dropped
                self._waiting, self._dropped = {}, []
                answers, errors = await loop.run_in_executor(thread, _ask, self._model, batch)
                for given in answers:
                    push("answers", given)
                for error in (*errors, *(self._no_room(key) for key in dropped)):
                    push("errors", error)

    def take(self, name: str, value: Any) -> None:
        waiting = self._waiting
        if value.key in waiting:
            waiting[value.key] = self._model.merge(waiting[value.key], value)
        else:
            if len(waiting) >= self._waiting_max:
                oldest = next(iter(waiting))
                del waiting[oldest]
                if len(self._dropped) < self._waiting_max:
                    self._dropped.append(oldest)
            waiting[value.key] = value
        self._asked.set()

    def _no_room(self, key: str) -> NodeError:
        error = f"BufferError: dropped, as {self._waiting_max} newer requests of others waited"
        return NodeError(node=self._model.name, symbol=key, error=error)
