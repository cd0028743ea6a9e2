"""A publisher of RSS and Atom on 127.0.0.1: conditional answers as in RFC 9110, and the ways in which it fails."""

from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from xml.sax.saxutils import escape

from aiohttp import web
from aiohttp.test_utils import TestServer


def rss(*items: str, head: str = "") -> str:
    """A whole RSS 2.0 document of `item`s, the newest first as publishers list them."""
    return f'<?xml version="1.0"?>{head}<rss version="2.0"><channel><title>T</title>{"".join(items)}</channel></rss>'


def item(title: str | None, when: datetime | None = None, guid: str = "", **fields: str) -> str:
    """One item; the title and the other fields are escaped, and so may hold HTML."""
    parts = {} if title is None else {"title": title}
    if guid:
        parts["guid"] = guid
    if when is not None:
        parts["pubDate"] = format_datetime(when.replace(tzinfo=UTC))
    tags = [f"<category>{escape(tag)}</category>" for tag in fields.pop("tags", "").split("|") if tag]
    texts = [f"<{name}>{escape(text)}</{name}>" for name, text in (parts | fields).items()]
    return f"<item>{''.join(texts + tags)}</item>"


class NewsServer:
    """Use as an async context manager. Change any of its fields at any time.

    text: the document; it is answered with an ETag and a Last-Modified, and with 304 to who has it already.
    raw: answered as it is instead, if it is not empty.
    asked: the headers of each question, oldest first.
    """

    def __init__(self, text: str = "") -> None:
        self.text, self.raw = text, b""
        self.status, self.headers = 200, dict[str, str]()
        self.validates = True  # sends ETag and Last-Modified
        self.asked: list[dict[str, str]] = []
        self.paths: list[str] = []
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._server = TestServer(app)

    async def __aenter__(self) -> "NewsServer":
        await self._server.start_server()
        self.url = str(self._server.make_url("/feed.xml"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.headers))
        self.paths.append(request.path_qs)
        if self.status != 200 or self.raw:
            return web.Response(status=self.status, headers=self.headers, body=self.raw)
        tag = f'"{sha256(self.text.encode()).hexdigest()[:8]}"'
        if self.validates and request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        stamp = {"ETag": tag, "Last-Modified": "Tue, 02 Jul 2024 15:00:00 GMT"} if self.validates else {}
        return web.Response(text=self.text, content_type="application/rss+xml", headers=stamp | self.headers)
