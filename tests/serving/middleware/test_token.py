"""Without the token nobody reaches a protected endpoint, however the path is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from serving.app import create_app
from serving.prometheus import ServiceMetrics
from settings import Settings

TOKEN = "let me in"
OPEN = {"/", "/label", "/health", "/ready"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"]
ENCODED = ["%0A", "%0a", "%0D%0A", "%00", "%20", "%09", "%2F", "%2f", "%5C", "%252F", "%25", "%C0%AF", "%E2%80%A8"]
PLAIN = [
    "/",
    "//",
    "/.",
    "/..",
    "/../",
    "/./",
    "\\",
    ";a=b",
    "?",
    "#",
    " ",
    "\n",
    "\r",
    "\0",
    "\u2028",
    "\x85",
    ".json",
    "*",
]


class Spied:
    """The service's application with endpoints that say when they are reached."""

    def __init__(self, app: FastAPI) -> None:
        self.app, self.reached, self.loop = app, list[str](), asyncio.new_event_loop()
        app.state.service = SimpleNamespace(metrics=ServiceMetrics())
        for route in app.routes:
            self._spy(route)

    def _spy(self, route: Any) -> None:
        async def spying(scope: Scope, receive: Receive, send: Send) -> None:
            self.reached.append(route.path)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        route.app = route.handle = spying

    def ask(self, path: str, method: str = "GET", kind: str = "http", **headers: str) -> int | None:
        """Return the status, or the code a socket was closed with."""
        codes: list[int] = []
        scope = {
            "type": kind,
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"x"), *((name.encode(), value.encode()) for name, value in headers.items())],
            "state": {},
            **(dict[str, Any](method=method) if kind == "http" else dict[str, Any](subprotocols=[])),
        }

        async def receive() -> Message:
            return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

        async def send(message: Message) -> None:
            code = message.get("status", message.get("code"))
            codes.extend([code] if code else [])

        self.reached.clear()
        self.loop.run_until_complete(self.app(scope, receive, send))
        return codes[0] if codes else None


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spied]:
    spied = Spied(create_app(Settings(home=tmp_path_factory.mktemp("nothing")), token=TOKEN))
    yield spied
    spied.loop.close()


PATHS = [
    "/candidates",
    "/events",
    "/labels",
    "/labels/next",
    "/feedback",
    "/history",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/redoc",
    *sorted(OPEN),
]
decorated = st.lists(st.sampled_from(ENCODED + PLAIN) | st.text(max_size=3), max_size=3).map("".join)
written = st.builds(
    lambda before, path, inside, after: before + path[: inside[0]] + inside[1] + path[inside[0] :] + after,
    st.just("") | decorated,
    st.sampled_from(PATHS) | st.sampled_from(PATHS).map(str.upper) | st.text(max_size=20).map("/".__add__),
    st.tuples(st.integers(0, 14), st.just("") | decorated),
    decorated,
)


@example("/history%0A", "POST", "http")
@example("/docs", "GET", "http")
@example("/history", "", "websocket")
@example("http://127.0.0.1/history", "POST", "http")
@settings(max_examples=100, deadline=None)
@given(written, st.sampled_from(METHODS), st.sampled_from(["http", "http", "http", "websocket"]))
def test_no_way_of_writing_a_path_reaches_a_protected_endpoint(spied: Spied, path: str, method: str, kind: str) -> None:
    """The path as it is, and as a server decodes it."""
    for seen in (path, unquote(path)):
        code = spied.ask(seen, method, kind)
        assert set(spied.reached) <= OPEN
        if not spied.reached:
            assert code in ((401, 411) if kind == "http" else (1008,))


def test_every_route_that_is_not_open_is_reached_with_the_token_and_not_without(spied: Spied) -> None:
    for route in spied.app.routes:
        method = next(iter(sorted(getattr(route, "methods", ["GET"]))))
        path, length = route.path, {"content-length": "0"}  # type: ignore[attr-defined]
        code = spied.ask(path, method, **length)
        assert (code == 200) == (path in OPEN), path
        assert spied.ask(path, method, authorization=f"Bearer {TOKEN}", **length) == 200, path
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN):
            assert spied.ask(path, method, authorization=wrong, **length) == code


def test_a_route_added_later_needs_the_token(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path), token=TOKEN)

    @app.get("/new/{name}")
    def new(name: str) -> str:
        return name

    assert Spied(app).ask("/new/one") == 401


def test_an_unknown_path_says_nothing_without_the_token(spied: Spied) -> None:
    assert spied.ask("/nothing") == 401
    assert spied.ask("/nothing", authorization=f"Bearer {TOKEN}") == 404
