"""One seam to a model: the same answers from history, from a worker beside a live engine, and from a recording."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run

import nodes.infer
from feeds.clock import utc_now
from feeds.record import Inputs, Recorder, RecordingInputs, ReplayedInputs
from nodes.events import NodeError
from nodes.infer import InferConfig, Request, Worker, infer

FAR = timedelta(seconds=60)
LATENCY = timedelta(milliseconds=50)


class Ask(Request):
    numbers: list[int]


class Sum(csp.Struct):
    symbol: str
    asof: datetime
    value: int
    batch: int  # requests that were answered together


class Adder:
    """Adds up what it is asked; refuses a 13. It may be made to wait."""

    name = "adder"

    def __init__(self, open_gate: bool = True) -> None:
        self.gate = threading.Event()
        self.calls: list[list[str]] = []
        self.closed = 0
        if open_gate:
            self.gate.set()

    def predict(self, requests: Sequence[Any]) -> list[Sum]:
        self.calls.append([request.key for request in requests])
        assert self.gate.wait(60.0)
        if any(13 in request.numbers for request in requests):
            raise ValueError("want no 13")
        return [Sum(symbol=r.key, asof=r.asof, value=sum(r.numbers), batch=len(requests)) for r in requests]

    def close(self) -> None:
        self.closed += 1

    def merge(self, waiting: Ask, newer: Ask) -> Ask:
        return Ask(key=newer.key, asof=newer.asof, numbers=[*waiting.numbers, *newer.numbers])


def ask(key: str, *numbers: int, asof: datetime = T0) -> Ask:
    return Ask(key=key, asof=asof, numbers=list(numbers))


def in_history(*edges: Any, config: InferConfig | None = None) -> dict[str, list[tuple[datetime, Any]]]:
    def graph() -> dict[str, Any]:
        done = infer(edges, Adder(), Sum, config or InferConfig(latency_ms=50.0), live=None, inputs=Inputs())
        return {"answer": done.answer, "error": done.error}

    return run(graph)


def test_requests_of_one_instant_are_answered_together_after_the_latency() -> None:
    out = in_history(at((0.0, ask("A", 1)), (1.0, ask("A", 2))), at((0.0, ask("B", 5))))

    told = [(when, s.symbol, s.value, s.batch) for when, s in out["answer"]]
    first, second = T0 + LATENCY, T0 + timedelta(seconds=1) + LATENCY
    assert told == [(first, "A", 1, 2), (first, "B", 5, 2), (second, "A", 2, 1)]
    assert out["error"] == []


def test_requests_that_come_one_by_one_in_an_instant_are_one_batch() -> None:
    out = in_history(at((0.0, ask("A", 1)), (0.0, ask("B", 2)), (0.0, ask("A", 3))))

    assert [(s.symbol, s.value, s.batch) for _, s in out["answer"]] == [("A", 4, 2), ("B", 2, 2)]


def test_a_failure_is_an_error_of_each_request_and_ends_nothing() -> None:
    out = in_history(at((0.0, ask("A", 13)), (1.0, ask("A", 1))), at((0.0, ask("B", 2))))

    failed = [(when, e.node, e.symbol, e.error) for when, e in out["error"]]
    text = "ValueError: want no 13"
    assert failed == [(T0 + LATENCY, "adder", "A", text), (T0 + LATENCY, "adder", "B", text)]
    assert [(when, s.value) for when, s in out["answer"]] == [(T0 + timedelta(seconds=1) + LATENCY, 1)]


def test_a_model_that_answers_too_few_has_failed() -> None:
    class Short(Adder):
        def predict(self, requests: Sequence[Any]) -> list[Sum]:
            return super().predict(requests)[1:]

    def graph() -> dict[str, Any]:
        done = infer([at((0.0, ask("A", 1)))], Short(), Sum, InferConfig(latency_ms=50.0), live=None, inputs=Inputs())
        return {"answer": done.answer, "error": done.error}

    out = run(graph)

    assert out["answer"] == []
    assert [e.error for _, e in out["error"]] == ["ValueError: want 1 answers, was 0"]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("AB"), st.integers(0, 9)), max_size=30))
@settings(max_examples=40, deadline=None)
def test_nothing_is_lost_and_each_instant_is_one_batch(asked: list[tuple[int, str, int]]) -> None:
    points = sorted(asked, key=lambda each: each[0])
    edge = at(*((float(when), ask(key, n)) for when, key, n in points), typ=Ask)

    out = in_history(edge)

    want: dict[tuple[int, str], int] = {}
    for when, key, n in points:
        want[when, key] = want.get((when, key), 0) + n
    due = {(T0 + timedelta(seconds=when) + LATENCY, key): n for (when, key), n in want.items()}
    assert {(when, s.symbol): s.value for when, s in out["answer"]} == due
    assert len(out["answer"]) == len(due)


def test_the_latency_is_one_setting() -> None:
    quick = in_history(at((0.0, ask("A", 1))), config=InferConfig(latency_ms=0.001))

    assert [when for when, _ in quick["answer"]] == [T0 + timedelta(microseconds=1)]


@pytest.mark.parametrize("wrong", [{"latency_ms": 0.0}, {"settle_ms": -1.0}, {"stale_after_s": float("nan")}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        InferConfig(**wrong)


# --- live: a worker beside the engine ---


@csp.node
def _note(answer: ts[Sum], error: ts[NodeError], told: object, done: object) -> ts[bool]:
    if csp.ticked(answer):
        told.append(("answer", answer.symbol, answer.value, answer.batch))
    if csp.ticked(error):
        told.append(("error", error.symbol, error.error))
    if done():
        return True


@csp.node
def _release(asked: ts[Ask], after: int, model: object) -> None:
    """Let the model answer once so many requests were handed over."""
    with csp.state():
        s_count = 0

    if csp.ticked(asked):
        s_count += 1
        if s_count == after:
            model.gate.set()


def in_a_run(
    points: list[Ask],
    model: Adder,
    enough: Callable[[list[Any]], bool],
    inputs: Inputs,
    *,
    began: timedelta = timedelta(),
) -> list[Any]:
    """Ask, in a cycle each, in an engine that runs live; until `enough` was told."""
    told: list[Any] = []
    start = utc_now() - began

    def graph() -> None:
        edge = csp.curve(Ask, [(timedelta(0), each) for each in points])
        config = InferConfig(settle_ms=20.0, stale_after_s=10.0)
        done = infer([edge], model, Sum, config, live=csp.const(True), inputs=inputs)
        _release(csp.delay(edge, timedelta(milliseconds=1)), len(points), model)
        csp.stop_engine(_note(done.answer, done.error, told, lambda: enough(told)))

    csp.run(graph, starttime=start, endtime=began + FAR, realtime=True)
    return told


def test_what_waits_for_the_worker_is_taken_in_by_what_comes_later() -> None:
    model, now = Adder(open_gate=False), utc_now()
    asked = [ask("A", 1, asof=now), ask("B", 2, asof=now), ask("A", 3, asof=now), ask("A", 4, asof=now)]

    told = in_a_run(asked, model, lambda told: sum(each[2] for each in told) >= 10, Inputs())

    total = {key: sum(each[2] for each in told if each[1] == key) for key in "AB"}
    assert total == {"A": 8, "B": 2}  # nothing is lost
    assert sum(map(len, model.calls)) < len(asked)  # and not each was asked for itself


def test_a_failure_of_the_worker_is_an_error_and_not_the_end() -> None:
    told = in_a_run([ask("A", 13, asof=utc_now())], Adder(), lambda told: bool(told), Inputs())

    assert told == [("error", "A", "ValueError: want no 13")]


def test_an_old_answer_is_refused() -> None:
    old = utc_now() - timedelta(minutes=1)

    (told,) = in_a_run([ask("A", 1, asof=old)], Adder(), bool, Inputs(), began=timedelta(minutes=1))

    assert told[:2] == ("error", "A")
    assert told[2].endswith("s old, 10 s are allowed")


def test_what_history_asked_is_old_only_when_the_run_has_been_live_for_long() -> None:
    old = utc_now() - timedelta(days=1)

    assert in_a_run([ask("A", 1, asof=old)], Adder(), bool, Inputs()) == [("answer", "A", 1, 1)]


def test_a_full_worker_gives_up_the_oldest_key_and_each_is_an_error() -> None:
    model, pushed = Adder(), []

    async def drive() -> None:
        worker = Worker(model, InferConfig(settle_ms=0.0), 2)
        running = asyncio.ensure_future(worker.run(lambda output, value: pushed.append((output, value))))
        await asyncio.sleep(0.0)  # a loop runs before it takes
        for key in "ABCDEA":
            worker.take("request", ask(key, 1))
        while len(pushed) < 6:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(drive(), 60.0))

    dropped = [(output, each.symbol, each.error) for output, each in pushed[:4]]
    text = "BufferError: dropped, as 2 newer requests of others waited"
    assert dropped == [("errors", key, text) for key in "ABCD"]  # at once, and none is forgotten
    assert [(output, each.symbol) for output, each in pushed[4:]] == [("answers", "E"), ("answers", "A")]


def test_one_key_an_edge_is_never_dropped_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def worker(model: Any, config: InferConfig, room: int) -> Worker:
        made.append(room)
        return Worker(model, config, room)

    monkeypatch.setattr(nodes.infer, "Worker", worker)

    def graph(count: int) -> None:
        edges = [csp.null_ts(Ask) for _ in range(count)]
        infer(edges, Adder(), Sum, InferConfig(), live=csp.const(True), inputs=Inputs())

    for count in (2, 4_100):
        csp.build_graph(graph, count, starttime=T0, endtime=T0)
    assert made == [4_096, 4_100]


class Panic(BaseException):
    """As foreign code raises: no subclass of Exception."""


@pytest.mark.parametrize("failure", [Panic("all is lost"), SystemExit("all is lost")])
def test_a_model_whose_code_panics_is_an_error_and_is_asked_again(failure: BaseException) -> None:
    class Panics(Adder):
        def predict(self, requests: Sequence[Any]) -> list[Sum]:
            answers = super().predict(requests)
            if len(self.calls) == 1:
                raise failure
            return answers

    now = utc_now()
    told: list[Any] = []

    def graph() -> None:
        edge = csp.curve(Ask, [(timedelta(0), ask("A", 1, asof=now)), (timedelta(seconds=1), ask("A", 2, asof=now))])
        done = infer([edge], Panics(), Sum, InferConfig(settle_ms=0.0), live=csp.const(True), inputs=Inputs())
        csp.stop_engine(_note(done.answer, done.error, told, lambda: len(told) == 2))

    csp.run(graph, starttime=now, endtime=FAR, realtime=True)

    assert told == [("error", "A", f"{type(failure).__name__}: all is lost"), ("answer", "A", 2, 1)]


def test_a_model_that_hangs_is_told_and_does_not_keep_the_process() -> None:
    told: list[Any] = []
    model = Adder(open_gate=False)

    def graph() -> None:
        edge = csp.curve(Ask, [(timedelta(0), ask("A", 1, asof=utc_now()))])
        config = InferConfig(settle_ms=0.0, stale_after_s=0.1)
        done = infer([edge], model, Sum, config, live=csp.const(True), inputs=Inputs())
        csp.stop_engine(_note(done.answer, done.error, told, lambda: bool(told)))

    csp.run(graph, starttime=utc_now(), endtime=FAR, realtime=True)

    hanging = [thread for thread in threading.enumerate() if thread.name == "adder-model"]
    assert told == [("error", "A", "TimeoutError: no answer for 0.1 s")]
    assert [thread.daemon for thread in hanging] == [True]  # an interpreter waits for no daemon
    model.gate.set()
    hanging[0].join(60.0)


@csp.node
def _keep(answer: ts[Sum], error: ts[NodeError], told: object) -> None:
    if csp.ticked(answer):
        told.append(("answer", answer.symbol, answer.value, answer.batch))
    if csp.ticked(error):
        told.append(("error", error.symbol, error.error))


def test_a_worker_is_given_so_many_at_once_the_oldest_first() -> None:
    model = Adder(open_gate=False)
    pushed: list[tuple[str, Any]] = []

    async def scenario() -> None:
        worker = Worker(model, InferConfig(settle_ms=0.0, batch_max=2), 10)
        running = asyncio.create_task(worker.run(lambda name, value: pushed.append((name, value))))
        await asyncio.sleep(0)
        for number in range(5):
            worker.take("request", ask(f"k{number}", number))
        model.gate.set()
        async with asyncio.timeout(60.0):
            while len(pushed) < 5:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())

    assert model.calls == [["k0", "k1"], ["k2", "k3"], ["k4"]]
    assert [value.value for _, value in pushed] == [0, 1, 2, 3, 4]


def test_a_model_is_closed_when_the_run_has_ended() -> None:
    model = Adder()
    run(lambda: infer([at((0.0, ask("A", 1)))], model, Sum, InferConfig(), live=None, inputs=Inputs()).answer)
    assert model.closed == 1

    async def scenario() -> None:
        running = asyncio.create_task(Worker(model, InferConfig(), 1).run(lambda name, value: None))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    assert model.closed == 2


def test_a_replay_gives_the_recorded_answers_and_asks_no_model(tmp_path: Path) -> None:
    asked = [ask("A", 1, asof=utc_now()), ask("B", 13, asof=utc_now() - timedelta(minutes=1))]
    live = in_a_run(asked, Adder(), lambda told: len(told) >= 2, RecordingInputs(Recorder(tmp_path / "run")))

    class Never(Adder):
        def predict(self, requests: Sequence[Any]) -> list[Sum]:
            raise AssertionError("a replay asks no model")

    told: list[Any] = []

    def graph() -> None:
        edge = csp.curve(Ask, [(timedelta(0), each) for each in asked])
        config = InferConfig(settle_ms=20.0, stale_after_s=10.0)
        done = infer([edge], Never(), Sum, config, live=csp.const(True), inputs=ReplayedInputs(tmp_path / "run"))
        _keep(done.answer, done.error, told)

    csp.run(graph, starttime=utc_now() - timedelta(minutes=1), endtime=utc_now() + timedelta(minutes=1))

    assert told == live
    assert len(told) == 2
