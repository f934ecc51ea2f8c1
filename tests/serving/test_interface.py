"""The service answers what its OpenAPI document says: a fuzzer of the document, and a client generated from it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType
from pydantic import TypeAdapter
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.app import create_app
from serving.contracts import CandidateResponse
from settings import Settings
from tests.assets.world import copy_of
from tests.flow import Ran

pytestmark = pytest.mark.slow
TOKEN = "let me in"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


TAKEN = ("/candidates", "/events", "/history", "/labels/next", "/feedback")
"""Paths whose examples are taken in every home with a model; a label is taken only for a queued pair."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]


@pytest.fixture(scope="module")
def document(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the fuzzer reads of a service with a token, on a home of its own: events are sent to it."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("interface") / "home")
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(home=home.root), TOKEN), headers=BEARER)
    shutdown_lifespans()


@pytest.fixture(scope="module")
def guarded(document: Any) -> TestClient:
    """The same service, which the fuzzer has started."""
    return TestClient(document.app, base_url="http://127.0.0.1", headers=BEARER)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("path", [*TAKEN, "/labels", "/health", "/ready", "/metrics"])
def test_every_answer_is_one_that_the_document_names(document: Any, path: str, mode: GenerationMode) -> None:
    """Of valid and of invalid requests: status, type, headers and body; and the token is asked for where it says so."""
    [operation] = document[path].values()

    @settings(max_examples=8, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=BEARER, checks=CHECKS)

    if operation.body or mode.is_positive:  # nothing of a request without a body can be invalid
        answers()


@pytest.fixture(scope="module")
def generated(guarded: TestClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A client package, made from the document."""
    root = tmp_path_factory.mktemp("generated")
    path = root / "openapi.json"
    path.write_text(json.dumps(guarded.get("/openapi.json").json()))
    config = Config.from_sources(
        ConfigFile(post_hooks=[]), MetaType.NONE, path, "utf-8", overwrite=True, output_path=root / "candidates_client"
    )
    problems = generate(config=config)
    assert not problems, [problem.detail or problem.header for problem in problems]
    sys.path.insert(0, str(root))
    try:
        yield importlib.import_module("candidates_client")
    finally:
        sys.path.remove(str(root))


def post(generated: ModuleType, http: TestClient, operation: str, body: dict[str, Any]) -> Any:
    """What the generated client makes of an answer."""
    module = importlib.import_module(f"{generated.__name__}.api.default.{operation}")
    models = importlib.import_module(f"{generated.__name__}.models")
    kinds = {"candidates": "CandidateRequest", "events": "EventsRequest", "history": "HistoryRequest"}
    client = generated.AuthenticatedClient(base_url="http://127.0.0.1", token=TOKEN).set_httpx_client(http)
    request = getattr(models, kinds[operation]).from_dict(body)
    return module.sync_detailed(client=client, body=request)


def test_a_generated_client_reads_candidates(generated: ModuleType, guarded: TestClient, user: str) -> None:
    asked = {"user_id": user, "k": 3, "explain": True}
    read = post(generated, guarded, "candidates", asked).parsed
    assert type(read).__name__ == "CandidateResponse"
    found, expected = (
        TypeAdapter(CandidateResponse).validate_python(answer | {"state_age_seconds": None})
        for answer in (read.to_dict(), guarded.post("/candidates", json=asked).json())
    )
    assert found == expected


def test_a_generated_client_reads_a_rejection(generated: ModuleType, guarded: TestClient) -> None:
    answer = post(generated, guarded, "candidates", {"user_id": "u", "k": 501})
    assert answer.status_code == 422
    assert [(problem.field, problem.rule) for problem in answer.parsed.detail] == [
        ("k", "Input should be less than or equal to 500")
    ]


def test_a_generated_client_reads_that_nothing_is_published(generated: ModuleType, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path), TOKEN), base_url="http://127.0.0.1", headers=BEARER) as http:
        answer = post(generated, http, "history", {"user_id": "u"})
    assert (answer.status_code, int(answer.headers["retry-after"])) == (503, 5)
    assert "nothing is published yet" in answer.parsed.detail


def test_the_document_shows_an_example_of_every_request_that_the_service_takes(guarded: TestClient) -> None:
    document = guarded.get("/openapi.json").json()
    for path in TAKEN:
        operation = document["paths"][path]["post"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for example in document["components"]["schemas"][name]["examples"]:
            assert guarded.post(path, json=example).status_code == 200, (path, example)


def test_the_pages_about_the_interface_ask_no_other_server(guarded: TestClient) -> None:
    page = guarded.get("/docs")
    assert page.status_code == 200
    asked = re.findall(r"""(?:src|href|url)["']?\s*[=:]\s*["']([^"']+)""", page.text)
    assert {"docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "openapi.json"} <= set(asked)
    for address in asked:
        assert address.startswith("data:") or guarded.get(f"/{address}").status_code == 200, address
    assert "default-src 'self'" in page.headers["content-security-policy"]
