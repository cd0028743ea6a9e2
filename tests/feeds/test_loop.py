"""One loop beside the engine: what it pushes arrives whole and in its order, over all outputs."""

import asyncio
import gc
from datetime import timedelta
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.clock import utc_now
from feeds.loop import LoopAdapter, Push

FAR = timedelta(seconds=60)
END = ("b", -1)


class Script:
    """A service that pushes what it was given, all at once."""

    def __init__(self, ticks: list[tuple[str, int]]) -> None:
        self._ticks = ticks

    async def run(self, push: Push) -> None:
        for output, value in self._ticks:
            push(output, value)
        await asyncio.Event().wait()

    def take(self, name: str, value: Any) -> None:
        raise AssertionError(f"nothing is sent to it, was {name}")


@csp.node
def _note(a: ts[int], b: ts[int], heard: object) -> ts[bool]:
    if csp.ticked(a):
        heard.append(("a", a))
    if csp.ticked(b):
        heard.append(("b", b))
        if b == END[1]:
            return True


def heard(ticks: list[tuple[str, int]]) -> list[tuple[str, int]]:
    told: list[tuple[str, int]] = []

    def graph() -> None:
        loop = LoopAdapter("script", Script([*ticks, END]), {"a": int, "b": int})
        csp.stop_engine(_note(loop.edge("a"), loop.edge("b"), told))

    csp.run(graph, starttime=utc_now(), endtime=FAR, realtime=True)
    return told


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=60))
@settings(max_examples=15, deadline=None)
def test_no_output_overtakes_another(ticks: list[tuple[str, int]]) -> None:
    assert heard(ticks) == [*ticks, END]


def test_a_word_after_a_burst_is_heard_after_it() -> None:
    # Each tick is a cycle of its own, so a second output that did not wait would be heard after the first of them.
    burst = [("a", i) for i in range(5_000)]
    assert heard([*burst, ("b", 7)]) == [*burst, ("b", 7), END]


class Abandoned:
    """A service under which a library cancels what it waits for."""

    async def run(self, push: Push) -> None:
        loop = asyncio.get_running_loop()
        waited_for = loop.create_future()
        loop.call_soon(waited_for.cancel)
        await waited_for

    def take(self, name: str, value: Any) -> None:
        raise AssertionError(f"nothing is sent to it, was {name}")


def test_a_service_that_is_cancelled_from_within_stops_the_engine() -> None:
    # Nobody hears a thread that ends so: the feed would look like a market at rest.
    def graph() -> None:
        csp.stop_engine(LoopAdapter("abandoned", Abandoned(), {"a": bool}).edge("a"))

    with pytest.raises(RuntimeError, match="abandoned was cancelled, and was not asked to stop"):
        csp.run(graph, starttime=utc_now(), endtime=FAR, realtime=True)


class Careless:
    """A service that leaves a failed future and a failed task to the garbage."""

    async def run(self, push: Push) -> None:
        loop = asyncio.get_running_loop()
        loop.create_future().set_exception(OSError("of a future"))
        task = loop.create_task(self._fail())
        await asyncio.sleep(0.01)
        del task
        gc.collect()
        push("a", 1)
        await asyncio.Event().wait()

    async def _fail(self) -> None:
        raise OSError("of a task")

    def take(self, name: str, value: Any) -> None:
        raise AssertionError(f"nothing is sent to it, was {name}")


def test_a_future_that_a_library_leaves_behind_is_no_news_but_a_task_is(caplog: pytest.LogCaptureFixture) -> None:
    def graph() -> None:
        csp.stop_engine(LoopAdapter("careless", Careless(), {"a": int}).edge("a"))

    csp.run(graph, starttime=utc_now(), endtime=FAR, realtime=True)
    assert "Task exception was never retrieved" in caplog.text
    assert "Future exception was never retrieved" not in caplog.text
