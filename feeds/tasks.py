"""Small tools for what runs on the loop of a live feed."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work beside the loop.

    Cancelled, it leaves the work to end by itself. The thread is a daemon, unlike those of `asyncio.to_thread`: a
    request that hangs must not keep a process alive that was asked to stop.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def body() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            if not loop.is_closed():
                raise

    threading.Thread(target=body, name="feed-call", daemon=True).start()
    return await done


async def all_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one fails, then stop the others and raise its exception as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
