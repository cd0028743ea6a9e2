"""Blocking work beside a loop, and several works as one."""

import asyncio
import threading

import pytest

from feeds.tasks import all_of, in_thread


def test_blocking_work_gives_its_value_or_its_exception_and_the_loop_goes_on() -> None:
    async def work() -> None:
        go_on = threading.Event()
        blocked = asyncio.create_task(in_thread(lambda: go_on.wait(30.0)))
        await asyncio.sleep(0)
        go_on.set()  # the loop is free to do this
        assert await blocked is True
        assert await in_thread(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)

    asyncio.run(work())


def test_work_that_hangs_holds_up_neither_its_canceller_nor_the_process() -> None:
    go_on, workers = threading.Event(), list[threading.Thread]()

    def hang() -> None:
        workers.append(threading.current_thread())
        go_on.wait(30.0)

    async def work() -> None:
        hanging = asyncio.create_task(in_thread(hang))
        async with asyncio.timeout(30.0):
            while not workers:
                await asyncio.sleep(0.001)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    asyncio.run(work())  # ends, and closes its loop, while the work hangs
    (worker,) = workers
    assert worker.is_alive()
    assert worker.daemon
    go_on.set()
    worker.join(30.0)
    assert not worker.is_alive()  # what it tells a loop that is closed is lost, and no error


def test_the_first_failure_comes_out_as_it_is_and_the_others_are_stopped() -> None:
    stopped = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a farewell takes its time
            stopped.append("for_ever")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(all_of(for_ever(), fail()))
    assert stopped == ["for_ever"]


def test_all_are_stopped_together() -> None:
    stopped = []

    async def for_ever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            stopped.append(name)

    async def work() -> None:
        both = asyncio.create_task(all_of(for_ever("a"), for_ever("b")))
        await asyncio.sleep(0.01)
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both
        assert sorted(stopped) == ["a", "b"]

    asyncio.run(work())
