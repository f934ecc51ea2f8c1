"""The labelling queue of the flow: made of each day's candidates, and of what raters and reporters have sent."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from assets.common.workspace import Workspace
from assets.steps.choose_pairs import candidates_of, described_pairs
from ml.relevance.judgements import PAIR
from ml.relevance.labelling_queue import CHOSEN_BY, QUEUE
from serving.app import create_app
from serving.service import Service
from settings import RelevanceSettings, Settings
from tests.assets.world import DAYS, LATER, copy_of, days_of, execute
from tests.flow import Ran
from warehouse.queued_pairs import LABELLING_QUEUE
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
PAIRS = RelevanceSettings().queue_pairs


def queue_of(tables: Tables, day: date) -> pl.DataFrame:
    return tables.read(LABELLING_QUEUE, {"day": day}).sort("position")


def test_every_day_has_a_queue_of_its_candidates(ran: Ran) -> None:
    assert ran.tables.days(LABELLING_QUEUE, "day") == DAYS
    workspace = Workspace(Settings(home=ran.home.root))
    for day in DAYS:
        queue, candidates = queue_of(ran.tables, day), candidates_of(workspace, day)
        assert candidates.schema == CHOSEN_BY
        pool = candidates.unique(PAIR)
        assert 0 < queue.height == min(PAIRS, queue.join(pool, on=PAIR, nulls_equal=True).height)
        assert queue["position"].to_list() == list(range(queue.height))
        assert queue.filter(pl.col("subject_item_id").is_null() & pl.col("query").is_null()).is_empty()
        assert set(queue["surface"]) == {"related_pins", "search"}
        assert queue["title"].null_count() == 0
        assert queue["inclusion_probability"].is_between(0, 1, closed="right").all()
        beside = queue.filter(pl.col("subject_item_id").is_not_null())
        assert beside["subject_title"].null_count() == 0


def test_labels_and_reports_of_the_service_are_in_the_next_days_queue(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    noon = datetime.combine(LATER, time(12), UTC)
    monkeypatch.setattr(Service, "now", lambda service: noon)
    items = ran.tables.scan("items").select("item_id").unique().sort("item_id").head(2).collect()["item_id"].to_list()
    report = {"surface": "search", "query": "something that nobody has shown", "item_id": items[0]}
    invented = {"surface": "related_pins", "subject_item_id": items[0], "item_id": "invented"}
    with TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1") as client:
        for rater in ("ann", "bob"):
            for label in range(1, 6):
                pair = client.post("/labels/next", json={"rater_id": rater}).json()["pair"]
                place = {"subject_item_id": pair["subject"]["item_id"]} if pair["subject"] else {"query": pair["query"]}
                row = {"surface": pair["surface"], **place, "item_id": pair["candidate"]["item_id"], "label": label}
                taken = client.post("/labels", json={"rater_id": rater, "labels": [row]})
                assert taken.json()["accepted"] == 1
        assert client.post("/feedback", json=report | {"feedback_id": "f1"}).status_code == 200
        for number in range(3):
            assert client.post("/feedback", json=invented | {"feedback_id": f"g{number}"}).status_code == 200
    execute(home, days_of([LATER], ["items", "impressions", "relevance_labels", "feedback", "labelling_queue"]))
    tables = Tables(home.tables)
    labels = tables.scan("relevance_labels").filter(pl.col("rater_id").is_in(["ann", "bob"])).collect()
    assert labels.height == 10
    before, queue = queue_of(tables, DAYS[-1]), queue_of(tables, LATER)
    assert set(labels.select(PAIR).rows()) == set(before.head(5).select(PAIR).rows())
    first = queue.row(0, named=True)
    assert (first["reason"], first["query"], first["item_id"]) == ("reported", report["query"], items[0])
    assert (first["inclusion_probability"], first["stage"]) == (None, None)
    assert first["title"] is not None
    assert queue.filter(reason="reported").height == 1  # the catalogue lacks the other item
    assert not set(queue.select(PAIR).rows()) & set(labels.select(PAIR).rows())


def test_a_day_that_has_scored_nothing_has_no_candidates(ran: Ran) -> None:
    before = DAYS[0] - timedelta(days=1)
    found = candidates_of(Workspace(Settings(home=ran.home.root)), before)
    assert (found.height, found.schema) == (0, CHOSEN_BY)


def test_what_the_catalogue_does_not_know_is_null() -> None:
    pair = {"surface": "related_pins", "subject_item_id": "gone", "item_id": "a", "rater_ids": []}
    text = dict.fromkeys(("item_id", "title", "category", "currency", "content_type"), pl.String())
    items = pl.DataFrame([("a", "A", "video", 1.5)], ["item_id", "title", "content_type", "price"], orient="row")
    items = items.with_columns(pl.lit(None, kind).alias(name) for name, kind in text.items() if name not in items)
    row = described_pairs(pl.DataFrame([pair], schema=QUEUE), items).row(0, named=True)
    assert (row["title"], row["content_type"], row["subject_title"]) == ("A", "video", None)
