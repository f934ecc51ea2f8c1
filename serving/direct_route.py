"""A route whose body goes straight from JSON into the request's model, and whose answer is bytes already.

FastAPI parses a body into dictionaries, resolves dependencies and only then validates, which takes longer than the
rest of a request for candidates allows. The document of the interface is made from the endpoint's signature all the
same, and a refusal is the same to a client.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

JSON = "application/json"


class DirectRoute(APIRoute):
    """A route of an endpoint ``(request: MODEL, service) -> Response``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function from a request to the response."""
        endpoint, model = self.endpoint, get_type_hints(self.endpoint)["request"]

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(await _read(request, model), request.app.state.service)
            return response

        return handle


async def _read(request: Request, model: type[BaseModel]) -> BaseModel:
    """Return the body of a request.

    Raises:
        RequestValidationError: the body breaks a rule of the model, or is not said to be JSON.
    """
    if not _is_json(request.headers.get("content-type", "")):
        rule = f"Input should be JSON, sent with Content-Type: {JSON}"
        raise RequestValidationError([{"type": "json_type", "loc": ("body",), "msg": rule, "input": None}])
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from error


def _is_json(content_type: str) -> bool:
    """Return whether a content type is that of JSON: a page of another site can send other types without asking."""
    if content_type == JSON:
        return True
    message = Message()
    message["content-type"] = content_type
    kind, _, subtype = message.get_content_type().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
