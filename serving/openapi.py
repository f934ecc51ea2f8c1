"""What the service says of itself: the refusals of every operation, the token, pages that need no other server."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.routing import APIRoute

from serving.contracts import Refusal, Rejection
from serving.middleware.auth_and_timing import is_open_to_all

DOCS, STYLE, SCRIPT = "/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)
_SECONDS = {"schema": {"type": "integer", "minimum": 1}}
_RETRY = {"Retry-After": {"description": "Seconds to wait before the request is sent again.", **_SECONDS}}
_REFUSAL = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
_SCHEME = {"Bearer": {"type": "http", "scheme": "bearer", "description": "The service's ADSEQ_TOKEN."}}


def _refused(description: str, **more: Any) -> dict[str, Any]:
    """Describe a refusal. The content is spelt out: a route's own content type must not become the refusal's."""
    return {"description": description, "content": _REFUSAL, **more}


EVERYWHERE: dict[int | str, dict[str, Any]] = {
    400: _refused(
        "The body cannot be parsed, or the Host header is not a name of this machine (as text).",
        content=_REFUSAL | {"text/plain": {"schema": {"type": "string"}}},
    ),
    411: _refused("A body does not say its length (Content-Length)."),
    413: _refused("The body is too large."),
}
"""Refusals of all operations."""

UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: _refused(
        "Nothing is published, the store does not answer, the landing zone cannot be written, or more requests came "
        "than can be answered in time.",
        headers=_RETRY,
    )
}

ASKED: dict[int | str, dict[str, Any]] = {
    **EVERYWHERE,
    **UNAVAILABLE,
    408: _refused("The body did not arrive in time."),
    422: {"model": Rejection, "description": "Fields of the body break rules; each is named, none is repeated."},
    429: _refused("More requests a second than the service allows.", headers=_RETRY),
}
"""Refusals of the operations that take a body."""

WITHOUT_A_QUEUE: dict[int | str, dict[str, Any]] = {404: _refused("No day has made a labelling queue with a pair.")}
"""The refusal of the operations for raters."""

PLAIN_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def describe(app: FastAPI, asks_for_token: bool) -> None:
    """Make ``/openapi.json`` describe the answers of the routes and of the middleware, and serve ``/docs``."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=list(app.routes)
            )
            schema["components"]["schemas"]["Refusal"] = Refusal.model_json_schema()
            app.openapi_schema = _secured(schema, _open_paths(app)) if asks_for_token else schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    _serve_docs(app)


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation, which is the operation's path: generated clients use that name."""
    return route.path.strip("/").replace("/", "_")


def _open_paths(app: FastAPI) -> set[str]:
    return {route.path for route in app.routes if isinstance(route, APIRoute) and is_open_to_all(route.endpoint)}


def _secured(schema: dict[str, Any], open_paths: Collection[str]) -> dict[str, Any]:
    """Add the token to every operation that needs the token."""
    schema["components"]["securitySchemes"] = _SCHEME
    challenge = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    without = _refused("The service's token is missing or wrong.", headers=challenge)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in open_paths else [{"Bearer": []}]
            if path not in open_paths:
                operation["responses"]["401"] = without
    return schema


def _serve_docs(app: FastAPI) -> None:
    """Serve Swagger UI from an installed package: the page asks no other server for anything."""
    static = Path(str(files("fastapi_offline"))) / "static"

    @app.get(DOCS, include_in_schema=False)
    async def docs() -> HTMLResponse:
        """Return the interactive documentation."""
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url=SCRIPT.lstrip("/"),
            swagger_css_url=STYLE.lstrip("/"),
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"validatorUrl": None},  # no badge, which another server would draw
        )
        page.headers["Content-Security-Policy"] = DOCS_POLICY
        return page

    @app.get(SCRIPT, include_in_schema=False)
    def script() -> FileResponse:
        return FileResponse(static / "swagger-ui-bundle.js", media_type="text/javascript")

    @app.get(STYLE, include_in_schema=False)
    def style() -> FileResponse:
        return FileResponse(static / "swagger-ui.css", media_type="text/css")
