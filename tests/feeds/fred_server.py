"""FRED's chart CSV on 127.0.0.1: one GET of a series from a date on, and the ways in which it fails."""

from aiohttp import web
from aiohttp.test_utils import TestServer


class FredServer:
    """Use as an async context manager. Change `series`, `status`, `headers` or `body` at any time.

    series: id -> {date: value as text}; "." is a missing value.
    """

    def __init__(self, **series: dict[str, str]) -> None:
        self.series = series
        self.status, self.headers, self.body = 200, dict[str, str](), b""
        self.asked: list[dict[str, str]] = []
        app = web.Application()
        app.router.add_get("/graph/fredgraph.csv", self._answer)
        self._server = TestServer(app)

    async def __aenter__(self) -> "FredServer":
        await self._server.start_server()
        self.url = str(self._server.make_url("/graph/fredgraph.csv"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        if self.status != 200 or self.body:
            return web.Response(status=self.status, headers=self.headers, body=self.body)
        series, start = request.query["id"], request.query["cosd"]
        if series not in self.series:
            return web.Response(status=404, text="<html>not found</html>", content_type="text/html")
        rows = [f"{day},{value}" for day, value in sorted(self.series[series].items()) if day >= start]
        return web.Response(text="\n".join([f"observation_date,{series}", *rows, ""]), content_type="text/csv")
