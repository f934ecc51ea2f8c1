"""What the service answers, against what the tables and the network say."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.examples.context import no_context, subject_context
from ml.features.dataset import demographic_buckets
from ml.models.batched_forward import embed_users
from ml.models.daily_inference import states_of_sequences
from ml.retrieval.index import stored_vectors
from serving.contracts import Demographics, Source
from serving.explain import explain
from serving.generators import Query, Scored
from serving.publication import Served
from serving.users import KnownUser
from tests.assets.world import DAYS
from tests.flow import Ran
from tests.serving.stored import sequence_of
from warehouse.as_of import users_as_of

pytestmark = pytest.mark.slow


def asked(client: TestClient, **request: Any) -> dict[str, Any]:
    response = client.post("/candidates", json=request)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [candidate["item_id"] for candidate in answer["candidates"]]


def subject_of(catalogue: pl.DataFrame, category: str) -> str:
    return str(catalogue.filter(pl.col("category_path").str.starts_with(category))["item_id"][0])


def categories(catalogue: pl.DataFrame) -> list[str]:
    return catalogue["category_path"].str.split(" > ").list.first().unique().sort().to_list()


def test_beside_another_item_the_same_user_gets_other_ads(
    client: TestClient, catalogue: pl.DataFrame, user: str
) -> None:
    answers = [
        asked(client, user_id=user, surface="related_pins", subject_item_id=subject_of(catalogue, category), k=20)
        for category in categories(catalogue)[:2]
    ]
    first, second = (set(ids(answer)) for answer in answers)
    assert len(first & second) < 10
    assert {answer["basis"] for answer in answers} == {"history_and_context"}
    for category, answer in zip(categories(catalogue)[:2], answers, strict=True):
        shown = [candidate["category"].split(" > ")[0] for candidate in answer["candidates"]]
        assert shown.count(category) > 6, shown  # of twenty, with three departments


def test_the_state_that_is_stored_and_the_head_are_the_whole_model(
    client: TestClient, ran: Ran, served: Served, catalogue: pl.DataFrame
) -> None:
    """Of every user who was active on the newest day: one pass over the sequence, and the score of what came back."""
    sequences = ran.tables.read("user_sequences", {"day": DAYS[-1]}).sort("user_id")
    users = ran.ids(sequences["user_id"])
    artifact, features = served.artifact, served.catalogue.features
    states = states_of_sequences(artifact, features, sequences, artifact.settings.inference)
    matrix = np.array(states["state"].to_list(), np.float32)
    row = served.catalogue.row_of[subject_of(catalogue, categories(catalogue)[0])]
    demographics = demographic_buckets(users_as_of(ran.tables, DAYS[-1]), sequences["user_id"])
    for subject, request in (
        (row, {"surface": "related_pins", "subject_item_id": catalogue["item_id"][row]}),
        (None, {}),
    ):
        many = len(sequences)
        context = no_context(many, 4) if subject is None else subject_context(np.full(many, subject), features)
        whole = embed_users(
            artifact.network, served.catalogue.tensors, matrix, context=context, demographics=demographics
        )
        for at in range(0, many, 7):
            answer = asked(client, user_id=users[at], k=10, **request)
            rows = served.catalogue.index_row_of[[served.catalogue.row_of[item] for item in ids(answer)]]
            expected = stored_vectors(served.index, rows) @ whole[at]
            found = [candidate["score"] for candidate in answer["candidates"]]
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_neighbours_are_those_of_brute_force(client: TestClient, ran: Ran, served: Served, user: str) -> None:
    """Without a context, what the item neighbours bring is the head of the whole ranking less the user's own items."""
    answer = asked(client, user_id=user, k=50, explain=True)
    neighbours = [c["item_id"] for c in answer["candidates"] if c["source"] == "item_neighbours"]
    store = served.publication.states
    assert store.startswith("states-")
    everything = asked(client, user_id=user, k=500)
    scores = {c["item_id"]: c["score"] for c in everything["candidates"]}
    best = sorted(scores, key=lambda item: -scores[item])
    lists = {c["item_id"] for c in answer["candidates"] if c["source"] == "advertiser_lists"}
    assert neighbours == [item for item in best if item not in lists][: len(neighbours)]


def test_both_generators_have_their_share(client: TestClient, user: str) -> None:
    sources = [candidate["source"] for candidate in asked(client, user_id=user, k=50)["candidates"]]
    assert sources.count("advertiser_lists") == 10  # a fifth
    assert sources[:5].count("advertiser_lists") == 1


def test_nobody_sees_their_own_history_again(client: TestClient, ran: Ran, user: str) -> None:
    """The world's manifest says that repeats do not count."""
    events = ran.tables.scan("user_sequences").filter(pl.col("user_id") == ran.key(user).decode()).collect().sort("day")
    own = {item for item in events["item_id"][-1].to_list() if item is not None}
    assert own
    assert not own & set(ids(asked(client, user_id=user, k=500)))


def test_the_subject_is_not_its_own_candidate(client: TestClient, catalogue: pl.DataFrame) -> None:
    subject = catalogue["item_id"][0]
    answer = asked(client, user_id="nobody", surface="related_pins", subject_item_id=subject, k=500)
    assert subject not in ids(answer)


@pytest.mark.parametrize(
    ("request_", "basis"),
    [
        ({"surface": "related_pins", "subject_item_id": "SUBJECT"}, "context"),
        ({"surface": "related_pins", "subject_item_id": "no such item"}, "popularity"),
        ({"interests": {"Home": 0.5}}, "context"),
        ({}, "popularity"),
        ({"surface": "search", "query": "0000"}, "popularity"),
    ],
)
def test_an_unknown_user_falls_back_to_what_is_known(
    client: TestClient, catalogue: pl.DataFrame, request_: dict[str, Any], basis: str
) -> None:
    filled = {name: catalogue["item_id"][0] if value == "SUBJECT" else value for name, value in request_.items()}
    answer = asked(client, user_id="nobody at all", k=20, **filled)
    assert answer["basis"] == basis
    assert len(answer["candidates"]) == 20
    assert {candidate["source"] for candidate in answer["candidates"]} == {
        "popularity" if basis == "popularity" else "item_neighbours"
    }


def test_an_unknown_subject_falls_back_to_the_history(client: TestClient, user: str) -> None:
    answer = asked(client, user_id=user, surface="related_pins", subject_item_id="no such item", k=20)
    assert (answer["basis"], answer["subject_known"]) == ("history", False)
    assert ids(answer) == ids(asked(client, user_id=user, k=20))


def test_a_query_is_taken_for_the_category_that_it_names(client: TestClient, catalogue: pl.DataFrame) -> None:
    leaf = catalogue["category_path"].drop_nulls().unique().sort()[0]
    answer = asked(client, user_id="nobody", surface="search", query=leaf.split(" > ")[-1].lower(), k=5)
    assert next(iter(answer["interests"])) == leaf


@pytest.mark.parametrize("by", ["query", "interests"])
def test_what_is_searched_for_is_found(client: TestClient, catalogue: pl.DataFrame, user: str, by: str) -> None:
    """Also by somebody with a history of other things, and by a home feed that names the interest itself."""
    paths = catalogue["category_path"].drop_nulls()
    shares = []
    for path in paths.unique().sort().to_list()[::7]:
        place = {"surface": "search", "query": path.split(" > ")[-1]} if by == "query" else {"interests": {path: 1.0}}
        for asking in ("nobody", user):
            neighbours = [
                candidate["category"]
                for candidate in asked(client, user_id=asking, k=5, **place)["candidates"]
                if candidate["source"] == "item_neighbours"
            ][: (paths == path).sum() // 2]  # no more than the half of what there is
            shares += [category == path for category in neighbours]
    assert np.mean(shares) > 0.8


KNOWN_EVENTS = st.lists(
    st.tuples(st.none() | st.just("gone") | st.integers(0, 250), st.sampled_from(["checkout", "search", "signup"])),
    max_size=4,
)


@given(
    history=KNOWN_EVENTS,
    subject=st.none() | st.integers(0, 250),
    interests=st.sampled_from([{}, {"no such interest": 0.5}]),
    source=st.sampled_from(list(Source)),
    wanted=st.integers(0, 5),
)
@settings(max_examples=60)
def test_everybody_can_be_told_why(
    served: Served,
    history: list[tuple[int | str | None, str]],
    subject: int | None,
    interests: dict[str, float],
    source: Source,
    wanted: int,
) -> None:
    """Whoever asks, from wherever: also somebody of whom no event, or none with an item of the catalogue, is known."""
    ids = served.catalogue.attributes.item_id
    named = [(ids[item] if isinstance(item, int) else item, name) for item, name in history]
    vector = np.ones(served.index.width, np.float32)
    query = Query(
        KnownUser(None, False, [], sequence_of(named), Demographics()), vector, np.ones(len(served.index), bool), None
    )
    found = [Scored(row, 0.5, source) for row in range(wanted)]
    reasons = explain(served, query, subject, interests=interests, found=found)
    assert len(reasons) == wanted
    for reason in reasons:
        assert {event.item_id for event in reason.events} <= {item for item, _ in named} & set(ids)
        assert bool(reason.events) == any(item in set(ids) for item, _ in named)
        assert (reason.subject_similarity is None) == (subject is None)
        assert bool(reason.parts) == (source is not Source.popularity)


@pytest.mark.parametrize(
    "place",
    [{}, {"surface": "related_pins", "subject_item_id": "no such item"}, {"interests": {"Home": 0.5}}, {"k": 500}],
)
def test_an_unknown_user_is_answered_with_explanations(client: TestClient, place: dict[str, Any]) -> None:
    answer = asked(client, user_id="nobody at all", explain=True, **place)
    assert answer["candidates"]
    assert all(candidate["explanation"]["events"] == [] for candidate in answer["candidates"])
    assert ids(answer) == ids(asked(client, user_id="nobody at all", **place))


def test_explanations_add_up(client: TestClient, ran: Ran, catalogue: pl.DataFrame, user: str) -> None:
    subject = subject_of(catalogue, categories(catalogue)[0])
    answer = asked(client, user_id=user, surface="related_pins", subject_item_id=subject, k=10, explain=True)
    history = (
        ran.tables.scan("user_sequences")
        .filter(pl.col("user_id") == ran.key(user).decode())
        .collect()
        .sort("day")["item_id"][-1]
    )
    for candidate in answer["candidates"]:
        reason = candidate["explanation"]
        assert sum(reason["parts"].values()) == pytest.approx(candidate["score"], abs=1e-3)
        near = [event["similarity"] for event in reason["events"]]
        assert near == sorted(near, reverse=True)
        assert {event["item_id"] for event in reason["events"]} <= set(history.to_list())
        assert -1 <= reason["subject_similarity"] <= 1
