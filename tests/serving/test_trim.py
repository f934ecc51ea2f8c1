"""The relevance trim of the service: whom it spares, what it drops, and what the sample says of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from ml.relevance.pair_features import FEATURE_NAMES
from serving.answer import Answered, answer_under, propose_under
from serving.app import create_app
from serving.contracts import CandidateRequest
from serving.funnel_sample import sampled_rows
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.propose import Proposers
from serving.publication import Served
from serving.relevance_scorer import Arm, arm_of
from serving.trim import irrelevant_of
from settings import DataSettings, RelevanceSettings, Settings
from tests.assets.world import copy_of
from tests.flow import Ran
from warehouse.contracts import STAGES, LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.online import OnlineStore, open_store
from warehouse.surfaces import Surface
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
K = 20


@pytest.fixture(scope="module")
def store(ran: Ran) -> Iterator[OnlineStore]:
    opened = open_store("lmdb", ran.home)
    yield opened
    opened.close()


def asked(served: Served, store: OnlineStore, user: str, arm: Arm, **place: str) -> Answered:
    request = CandidateRequest.model_validate({"user_id": user, "k": K, **place})
    watch, key = Stopwatch(ServiceMetrics()), served.keys.key(user).encode()
    proposers = Proposers.of(Settings().serving)
    return answer_under(served, store, request, key=key, arm=arm, proposers=proposers, watch=watch)


def places(served: Served) -> list[dict[str, str]]:
    subjects = [{"surface": "related_pins", "subject_item_id": item} for item in served.catalogue.frame["item_id"][:10]]
    return [*subjects, {"surface": "search", "query": "rustic armchair"}, {"surface": "search", "query": "rug"}]


def test_the_tiny_world_has_a_relevance_model(served: Served) -> None:
    assert served.relevance is not None


def test_the_share_of_users_in_the_holdout_is_what_is_asked_for_and_never_changes() -> None:
    keys = [f"key-{number}".encode() for number in range(4000)]
    spared = [arm_of(key, 0.05) is Arm.holdout for key in keys]
    assert np.mean(spared) == pytest.approx(0.05, abs=0.015)
    assert spared == [arm_of(key, 0.05) is Arm.holdout for key in keys]
    # Who is spared at a smaller share is spared at a larger one: a change of the share moves as few users as it can.
    assert all(arm_of(key, 0.2) is Arm.holdout for key, is_spared in zip(keys, spared, strict=True) if is_spared)


def test_production_answers_hold_no_candidate_that_the_trim_drops_and_the_holdout_is_whole(
    served: Served, store: OnlineStore, user: str
) -> None:
    dropped = 0
    for place in places(served):
        production = asked(served, store, user, Arm.production, **place)
        holdout = asked(served, store, user, Arm.holdout, **place)
        assert production.judged is not None
        assert not production.judged.irrelevant() & {each.row for each in production.found}
        assert [each.row for each in holdout.found] == [
            each.row for each in Proposers.of(Settings().serving).blend(holdout.lists, K)
        ]
        dropped += len(production.judged.irrelevant())
    assert dropped  # the trim has something to do


def test_requests_that_are_scored_together_lose_what_each_loses_alone(
    served: Served, store: OnlineStore, user: str
) -> None:
    proposers, watch = Proposers.of(Settings().serving), Stopwatch(ServiceMetrics())
    nowhere = {"surface": "home_feed"}
    asked_for = [{"surface": "search", "query": "0000"}, *places(served), nowhere]
    requests = [CandidateRequest.model_validate({"user_id": user, "k": K, **place}) for place in asked_for]
    key = served.keys.key(user).encode()
    proposed = [
        propose_under(served, store, each, key=key, arm=Arm.production, proposers=proposers, watch=watch)
        for each in requests
    ]
    together = irrelevant_of([each.trim for each in proposed], [each.lists for each in proposed])
    alone = [each.trim.judge(each.lists).irrelevant() if each.trim else set() for each in proposed]
    assert together == alone
    assert together[0] == together[-1] == set()
    assert any(together)
    assert irrelevant_of([None], [proposed[0].lists]) == [set()]


def test_what_stays_keeps_its_order_and_others_come_up(served: Served, store: OnlineStore, user: str) -> None:
    for place in places(served):
        production = asked(served, store, user, Arm.production, **place)
        first = [each.row for each in production.lists[0]]
        shown = [each.row for each in production.found if each.source == production.lists[0][0].source]
        assert shown == sorted(shown, key=first.index)


def test_a_home_feed_has_no_relevance_and_no_trim(served: Served, store: OnlineStore, user: str) -> None:
    found = asked(served, store, user, Arm.production)
    assert found.judged is None
    assert {each.relevance for each in found.response.candidates} == {None}


def test_a_query_without_a_known_word_trims_nothing(served: Served, store: OnlineStore, user: str) -> None:
    found = asked(served, store, user, Arm.production, surface="search", query="0000")
    assert found.judged is None
    assert len(found.found) == K


def test_every_candidate_beside_an_item_says_its_calibrated_relevance(
    client: TestClient, catalogue: pl.DataFrame
) -> None:
    asked_for = {"user_id": "nobody", "surface": "related_pins", "subject_item_id": catalogue["item_id"][0], "k": K}
    found = client.post("/candidates", json=asked_for).json()
    assert found["relevance_version"].startswith("relevance-")
    assert found["candidates"]
    assert all(0 <= each["relevance"] <= 1.001 for each in found["candidates"])


def test_the_sample_names_each_candidate_once_with_its_stage_and_no_user(
    served: Served, store: OnlineStore, user: str
) -> None:
    for arm in Arm:
        found = asked(served, store, user, arm, surface="search", query="rug")
        request = CandidateRequest(user_id=user, k=K, surface=Surface.search, query="rug")
        rows = sampled_rows(served, request, found, now=datetime(2026, 3, 4, tzinfo=UTC), share=0.01)
        every = {each.row for proposed in found.lists for each in proposed}
        assert len(rows) == len({row["item_id"] for row in rows}) == len(every)
        assert user not in json.dumps(rows)
        assert served.keys.key(user) not in json.dumps(rows)
        assert len({row["sample_id"] for row in rows}) == 1
        stages = [row["stage"] for row in rows]
        assert set(stages) <= set(STAGES)
        assert stages.count("auctioned") == len(found.found)
        assert ("trimmed" in stages) == (arm is Arm.production)
        assert all((row["drop_reason"] is None) == (row["stage"] == "auctioned") for row in rows)


def test_a_score_that_is_not_finite_is_null_in_the_sample(served: Served, store: OnlineStore, user: str) -> None:
    found = asked(served, store, user, Arm.holdout, surface="search", query="rug")
    lists = [[each._replace(score=math.nan) for each in proposed] for proposed in found.lists]
    assert found.judged is not None
    judged = replace(found.judged, trim_score=np.full_like(found.judged.trim_score, np.inf))
    request = CandidateRequest(user_id=user, k=K, surface=Surface.search, query="rug")
    broken = replace(found, lists=lists, judged=judged)
    rows = sampled_rows(served, request, broken, now=datetime(2026, 3, 4, tzinfo=UTC), share=0.01)
    assert {(row["score"], row["trim_score"]) for row in rows} == {(None, None)}
    json.dumps(rows, allow_nan=False)


def test_a_sample_that_fails_in_an_unforeseen_way_is_counted_and_the_log_has_nothing_of_the_request(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("rug")

    monkeypatch.setattr("serving.service.sampled_rows", fail)
    settings = Settings(home=ran.home.root, relevance=RelevanceSettings(sample_share=1.0))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        answered = client.post("/candidates", json={"user_id": "u1", "surface": "search", "query": "rug", "k": K})
        assert answered.status_code == 200
        assert "adseq_lost_samples_total 1.0" in client.get("/metrics").text
    assert "a sample of candidates cannot be written: KeyError" in caplog.text
    assert "rug" not in caplog.text


def test_a_sampled_request_is_in_the_landing_zone_and_is_ingested(ran: Ran, tmp_path: Path) -> None:
    home = copy_of(ran.home, tmp_path / "home")
    for of_another_test in (home.landing / "funnel_sample").glob("date=*"):
        shutil.rmtree(of_another_test)
    settings = Settings(home=home.root, relevance=RelevanceSettings(sample_share=1.0))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        answered = client.post("/candidates", json={"user_id": "u1", "surface": "search", "query": "rug", "k": K})
        assert answered.status_code == 200
    landing, tables = Landing(home.landing), Tables(home.tables)
    [folder] = [path.name for path in (landing.root / "funnel_sample").iterdir() if path.name.startswith("date=")]
    day = date.fromisoformat(folder.removeprefix("date="))
    report = ingest(landing, tables, LandingTable.funnel_sample, day=day, settings=DataSettings())
    assert report.rows_quarantined == 0
    assert report.rows_written == report.rows_read > K
    kept = tables.scan("funnel_sample").collect()
    assert kept["inclusion_probability"].to_list() == [1.0] * len(kept)
    assert set(kept["features"].list.len()) == {len(FEATURE_NAMES)}
