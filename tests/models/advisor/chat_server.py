"""A server that speaks /v1/chat/completions on this machine, and can be told to misbehave."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Fault = Callable[[web.Request], Any]  # an awaitable response


class ChatServer:
    """Answers by the words of a headline: "up" and "down" in it. `faults` are used up first, one a request."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Fault] = []
        self.logprobs = False
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        if self.faults:
            response: web.StreamResponse = await self.faults.pop(0)(request)
            return response
        told = json.loads(body["messages"][1]["content"])["headline"]
        action = "BUY_SIGNAL" if "up" in told else "SELL_SIGNAL" if "down" in told else "HOLD"
        return web.json_response(self.answer(action, 0.9))

    def answer(self, action: str, confidence: float) -> dict[str, Any]:
        content = json.dumps({"action": action, "confidence": confidence})
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": content}}
        if self.logprobs:
            choice["logprobs"] = {"content": list(_tokens(action, confidence))}
        return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 120}}


def _tokens(action: str, confidence: float) -> Iterator[dict[str, Any]]:
    """`{"action": "BUY_SIGNAL", ...` as a tokenizer may cut it, with what else might have been said."""
    others = [("BUY", -0.5), ("SE", -1.5), ("HOLD", -2.0), ("The", -6.0)]
    for piece in ('{"', "action", '":', ' "', action[:3], action[3:], '",', ' "confidence": ', f"{confidence}}}"):
        alternatives = others if piece == action[:3] else [(piece, -0.01)]
        top = [{"token": token, "logprob": logprob} for token, logprob in alternatives]
        yield {"token": piece, "logprob": -0.5, "top_logprobs": top}


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """The server, in a thread of its own, on a free port of this machine."""
    server, started, loop = ChatServer(), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await stop.wait()
        await runner.cleanup()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10.0)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10.0)
