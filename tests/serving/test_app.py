"""The service's manners: bad input, limits, the token, what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from serving.app import create_app
from serving.contracts import CandidateResponse
from serving.middleware.auth_and_timing import MAXIMUM_BODY
from settings import Settings
from tests.flow import Ran

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ({}, "user_id", "required"),
        ({"user_id": ""}, "user_id", "at least 1 character"),
        ({"user_id": "u", "k": 0}, "k", "greater than or equal to 1"),
        ({"user_id": "u", "k": 501}, "k", "less than or equal to 500"),
        ({"user_id": "u", "surface": "billboard"}, "surface", "related_pins"),
        ({"user_id": "u", "subject_item_id": "i"}, "body", "belongs to the surface related_pins"),
        ({"user_id": "u", "surface": "search"}, "body", "needs a query or interests"),
        ({"user_id": "u", "filter": {}}, "filter", "not permitted"),
        ({"user_id": "u", "filters": {"minimum_price": 3, "maximum_price": 2}}, "filters", "is above"),
        ({"user_id": "u", "interests": {"Home": 2}}, "interests.Home", "less than or equal to 1"),
        ({"user_id": "u", "demographics": {"age": -1}}, "demographics.age", "greater than or equal to 0"),
    ],
)
def test_bad_input_names_the_field_and_the_rule(client: TestClient, body: object, field: str, rule: str) -> None:
    response = client.post("/candidates", json=body)
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["field"] == field
    assert rule in problem["rule"]


def test_a_refusal_does_not_repeat_the_input(client: TestClient) -> None:
    response = client.post("/candidates", json={"user_id": "secret user", "k": "secret k"})
    assert response.status_code == 422
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "content", [b"{", b'"\xff"', '{"user_id": "nobody"}'.encode("utf-8-sig"), '{"user_id": "nobody"}'.encode("utf-16")]
)
def test_what_is_no_json_is_refused(client: TestClient, content: bytes) -> None:
    """JSON is UTF-8 without a byte order mark."""
    response = client.post("/candidates", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422


def test_only_what_is_said_to_be_json_is_read(client: TestClient) -> None:
    """A page of another site can send plain text without asking first, and JSON only after asking."""
    body = b'{"user_id": "nobody"}'
    for kind in ("application/json", "application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON"):
        assert client.post("/candidates", content=body, headers={"content-type": kind}).status_code == 200, kind
    for kind in ("text/plain", "application/x-www-form-urlencoded", "json", ""):
        response = client.post("/candidates", content=body, headers={"content-type": kind})
        assert (response.status_code, response.json()["detail"][0]["field"]) == (422, "body"), kind


def test_an_answer_is_the_one_of_the_contract(client: TestClient, user: str) -> None:
    """Its fields, in the contract's types, without those that say nothing."""
    response = client.post("/candidates", json={"user_id": user, "k": 7, "explain": True})
    answer = TypeAdapter(CandidateResponse).validate_json(response.content, strict=True)
    assert len(answer.candidates) == 7
    assert json.loads(answer.to_json()) == response.json()
    assert None not in [*response.json().values(), *response.json()["candidates"][0].values()]


def test_a_body_has_a_limit(client: TestClient) -> None:
    body = json.dumps({"user_id": "u", "query": "x" * MAXIMUM_BODY})
    assert client.post("/candidates", content=body).status_code == 413

    unknown = iter([b"{", b"}"])  # is sent in chunks, without a length
    assert client.post("/candidates", content=unknown).status_code == 411
    for method in ("GET", "PUT", "DELETE"):  # and so for every method
        assert client.request(method, "/", content=iter([b"x"])).status_code == 411
        assert client.request(method, "/", content=body).status_code == 413


def test_a_token_is_asked_for_where_there_is_one(ran: Ran) -> None:
    with TestClient(create_app(Settings(home=ran.home.root), token="let me in"), base_url="http://127.0.0.1") as client:
        request = {"user_id": "u"}
        assert client.post("/candidates", json=request).status_code == 401
        wrong = {"authorization": "Bearer let me out"}
        assert client.post("/candidates", json=request, headers=wrong).status_code == 401
        right = {"authorization": "Bearer let me in"}
        assert client.post("/candidates", json=request, headers=right).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 401


def test_without_a_token_it_is_reached_by_the_names_of_this_machine_only(client: TestClient) -> None:
    assert client.get("/health", headers={"host": "rebound.example"}).status_code == 400


def test_it_says_what_it_does(client: TestClient) -> None:
    client.post("/candidates", json={"user_id": "nobody"})
    text = client.get("/metrics").text
    assert 'adseq_answers_total{basis="popularity",surface="home_feed"}' in text
    assert 'adseq_stage_seconds_count{stage="search"}' in text
    assert 'adseq_served{day="2026-03-03",model_version="item-1"} 1.0' in text
    assert client.get("/ready").json() == {"status": "ready", "model_version": "item-1", "day": "2026-03-03"}
    assert "CandidateRequest" in client.get("/openapi.json").text


def test_before_the_first_publication_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path)), base_url="http://127.0.0.1") as client:
        assert client.get("/health").status_code == 200
        for response in (client.get("/ready"), client.post("/candidates", json={"user_id": "u"})):
            assert response.status_code == 503
            assert "nothing is published yet" in response.json()["detail"]
            assert response.headers["retry-after"]
