"""Raters get pairs and give labels; reporters report: validated, durable, each once, whichever process takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.label_routes import LABEL_PAGE
from serving.service import Service
from serving.take_labels import HELD_SECONDS
from settings import DataSettings, Settings
from tests.serving.queues import BESIDE_LAMP, BESIDE_RUG, DAY, SEARCHED, home_with_queue, queue
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.live_rows import LIVE_FILES
from warehouse.queued_pairs import GUIDELINES, LABELLING_QUEUE
from warehouse.tables import Tables

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day after the queue was made; each look at the clock is a second later."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(Service, "now", lambda service: NOON + timedelta(seconds=next(seconds)))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_with_queue(tmp_path / "home")


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    with service(home) as client:
        yield client


def service(home: Home, token: str | None = None) -> TestClient:
    return TestClient(create_app(Settings(home=home.root), token), base_url="http://127.0.0.1")


def post(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def judge(client: TestClient, rater_id: str, *labels: dict[str, Any]) -> tuple[int, int, int]:
    """How many labels were accepted, known, and corrections."""
    told = post(client, "/labels", {"rater_id": rater_id, "labels": list(labels)})
    assert told["arrival_day"] == "2026-03-04"
    return told["accepted"], told["known"], told["corrected"]


def next_of(client: TestClient, rater_id: str, *skipped: int, of: date = DAY) -> tuple[str | None, int, int]:
    """The candidate, and how many pairs the rater has judged and can still get."""
    asked = {"rater_id": rater_id, "skipped": skipped, "skipped_of": of.isoformat()}
    told = post(client, "/labels/next", asked)
    return told["pair"] and told["pair"]["candidate"]["item_id"], told["judged"], told["left"]


def rows(home: Home, table: LandingTable = LandingTable.relevance_labels) -> list[dict[str, Any]]:
    files = sorted((home.landing / table).glob(f"date=2026-03-04/{LIVE_FILES}"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_rater_sees_the_subject_or_the_query_beside_the_candidate_and_nothing_that_sways(client: TestClient) -> None:
    told = post(client, "/labels/next", {"rater_id": "ann"})
    assert told["day"] == DAY.isoformat()
    assert told["pair"] == {
        "position": 0,
        "surface": "related_pins",
        "subject": {
            "item_id": "chair",
            "title": "Rustic Armchair",
            "category": "Home > Furniture",
            "price": 120.0,
            "currency": "EUR",
        },
        "query": None,
        "candidate": {
            "item_id": "lamp",
            "title": "Floor Lamp <b>",
            "category": "Home > Lighting",
            "price": 45.5,
            "currency": "EUR",
        },
    }
    judge(client, "ann", BESIDE_LAMP | {"label": 4})
    searched = post(client, "/labels/next", {"rater_id": "ann"})["pair"]
    assert (searched["subject"], searched["query"], searched["candidate"]["title"]) == (None, "red “chair”", None)


def test_a_rater_gets_each_pair_once_until_two_have_judged_it(client: TestClient) -> None:
    assert next_of(client, "ann") == ("lamp", 0, 3)
    assert judge(client, "ann", BESIDE_LAMP | {"label": 4}) == (1, 0, 0)
    assert next_of(client, "ann") == ("mystery", 1, 2)
    assert next_of(client, "ann", 1) == ("rug", 1, 2)
    assert next_of(client, "ann", 1, 2) == (None, 1, 2)
    assert next_of(client, "ann", 1, 2, of=DAY - timedelta(days=1)) == ("mystery", 1, 2)  # of another queue
    assert next_of(client, "bob") == ("lamp", 0, 3)
    assert judge(client, "bob", BESIDE_LAMP | {"label": 2}) == (1, 0, 0)
    assert next_of(client, "eve") == ("mystery", 0, 2)
    for rater in ("ann", "bob"):
        judge(client, rater, SEARCHED | {"label": 1}, BESIDE_RUG | {"label": 5})
    assert next_of(client, "ann") == (None, 3, 0)
    assert next_of(client, "eve") == (None, 0, 0)


def test_raters_at_the_same_time_get_different_pairs(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    raters = ("ann", "bob", "eve", "dan", "zoe")
    assert [next_of(client, rater)[0] for rater in raters] == ["lamp", "lamp", "mystery", "mystery", "rug"]
    assert [next_of(client, rater)[0] for rater in raters] == ["lamp", "lamp", "mystery", "mystery", "rug"]  # reloaded
    assert next_of(client, "kim") == ("rug", 0, 3)
    assert next_of(client, "lee") == (
        "lamp",
        0,
        3,
    )  # all are on enough screens: rather a third label than an idle rater
    judge(client, "zoe", BESIDE_RUG | {"label": 2})
    assert next_of(client, "max") == ("lamp", 0, 3)
    later = NOON + timedelta(seconds=HELD_SECONDS + 60)
    monkeypatch.setattr(Service, "now", lambda service: later)
    assert [next_of(client, rater)[0] for rater in ("una", "ida", "tom")] == ["lamp", "lamp", "mystery"]


def test_a_skip_passes_over_no_pair_that_others_had_on_their_screens(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [next_of(client, rater)[0] for rater in ("ann", "bob", "eve")] == ["lamp", "lamp", "mystery"]
    assert next_of(client, "eve", 1)[0] == "rug"
    later = NOON + timedelta(seconds=HELD_SECONDS + 60)  # ann and bob have gone
    monkeypatch.setattr(Service, "now", lambda service: later)
    assert next_of(client, "eve", 1, 2)[0] == "lamp"


def test_raters_of_earlier_days_count(tmp_path: Path) -> None:
    rows_of_day = queue([BESIDE_LAMP | {"rater_ids": ["ann"]}, BESIDE_RUG | {"rater_ids": ["ann", "bob"]}])
    with service(home_with_queue(tmp_path / "home", rows_of_day)) as client:
        assert next_of(client, "ann") == (None, 2, 0)
        assert next_of(client, "eve") == ("lamp", 0, 1)


def test_a_label_is_a_row_of_the_contract_and_the_next_day_takes_it_in(client: TestClient, home: Home) -> None:
    judge(client, "ann", BESIDE_LAMP | {"label": 4}, SEARCHED | {"label": 1})
    first, second = rows(home)
    assert first == BESIDE_LAMP | {
        "query": None,
        "label": 4,
        "rater_id": "ann",
        "template": "guidelines-1",
        "labelled_at": NOON.isoformat(),
        "stage": "ranked",
        "inclusion_probability": 0.25,
    }
    assert (second["query"], second["subject_item_id"]) == ("red “chair”", None)
    tables = Tables(home.root / "ingested")
    report = ingest(
        Landing(home.landing), tables, LandingTable.relevance_labels, day=NOON.date(), settings=DataSettings()
    )
    assert (report.rows_written, report.rows_quarantined) == (2, 0)
    stored = tables.scan("relevance_labels").collect()
    assert stored["labelled_at"].to_list() == [NOON, NOON]


def test_a_label_that_is_sent_again_is_known_and_another_one_corrects_it(client: TestClient, home: Home) -> None:
    assert judge(client, "ann", BESIDE_LAMP | {"label": 4}) == (1, 0, 0)
    assert judge(client, "ann", BESIDE_LAMP | {"label": 4}) == (0, 1, 0)
    assert judge(client, "ann", BESIDE_LAMP | {"label": 2}, BESIDE_RUG | {"label": 3}) == (2, 0, 1)
    assert judge(client, "ann", BESIDE_LAMP | {"label": 2}) == (0, 1, 0)
    assert judge(client, "ann", BESIDE_LAMP | {"label": 4}) == (1, 0, 1)
    given = [(row["item_id"], row["label"]) for row in rows(home)]
    assert given == [("lamp", 4), ("lamp", 2), ("rug", 3), ("lamp", 4)]
    times = [row["labelled_at"] for row in rows(home)]
    assert times == sorted(times)
    assert next_of(client, "bob") == ("lamp", 0, 3)  # corrections are of one rater


def test_of_two_labels_for_a_pair_in_a_request_the_last_counts(client: TestClient, home: Home) -> None:
    assert judge(client, "ann", BESIDE_LAMP | {"label": 4}, BESIDE_LAMP | {"label": 1}) == (1, 0, 0)
    assert [row["label"] for row in rows(home)] == [1]


def test_two_processes_know_of_each_other_and_lose_nothing(client: TestClient, home: Home) -> None:
    with service(home) as other:
        judge(client, "ann", BESIDE_LAMP | {"label": 4})
        assert next_of(other, "ann") == ("mystery", 1, 2)
        assert judge(other, "ann", BESIDE_LAMP | {"label": 4}) == (0, 1, 0)
        assert judge(other, "ann", BESIDE_LAMP | {"label": 5}) == (1, 0, 1)
        assert judge(client, "ann", BESIDE_LAMP | {"label": 5}) == (0, 1, 0)
        judge(other, "bob", BESIDE_LAMP | {"label": 3})
        assert next_of(client, "eve") == ("mystery", 0, 2)
        assert judge(client, "eve", BESIDE_LAMP | {"label": 1}) == (1, 0, 0)  # handed out before: kept all the same
    assert {(row["rater_id"], row["label"]) for row in rows(home)} == {("ann", 4), ("eve", 1), ("ann", 5), ("bob", 3)}


def test_labels_from_all_sides_are_all_there(client: TestClient, home: Home) -> None:
    with service(home) as other, ThreadPoolExecutor(8) as pool:
        raters = [f"rater-{number}" for number in range(24)]
        labels = [BESIDE_LAMP | {"label": 3}, SEARCHED | {"label": 2}]
        told = list(pool.map(lambda each: judge((client, other)[len(each) % 2], each, *labels), raters))
    assert set(told) == {(2, 0, 0)}
    assert {(row["rater_id"], row["item_id"]) for row in rows(home)} == {
        (rater, item) for rater in raters for item in ("lamp", "mystery")
    }


def test_a_new_queue_takes_the_place_of_the_last_one_and_pairs_handed_out_are_still_taken(
    client: TestClient, home: Home
) -> None:
    judge(client, "ann", BESIDE_LAMP | {"label": 4})
    newer = queue([BESIDE_RUG, BESIDE_LAMP | {"rater_ids": ["ann"]}], stage="impressed")
    Tables(home.tables).write(LABELLING_QUEUE, newer, {"day": DAY + timedelta(days=1)})
    assert next_of(client, "ann") == ("rug", 1, 1)
    assert judge(client, "ann", SEARCHED | {"label": 2}) == (1, 0, 0)  # of the queue before
    assert rows(home)[-1]["stage"] == "ranked"


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"label": 6}, "labels.0.label", "less than or equal to 5"),
        ({"label": 0}, "labels.0.label", "greater than or equal to 1"),
        ({"item_id": ""}, "labels.0.item_id", "at least 1 character"),
        ({"item_id": "é" * 300}, "labels.0.item_id", "at most 512 bytes"),
        ({"query": "lamp"}, "labels.0", "query belongs to the surface search"),
        ({"subject_item_id": None}, "labels.0", "related_pins, which needs it"),
        ({"surface": "home_feed", "subject_item_id": None}, "labels.0", "no labelling queue has this pair"),
        ({"item_id": "chair"}, "labels.0", "no labelling queue has this pair"),
        ({"mood": "good"}, "labels.0.mood", "Extra inputs are not permitted"),
    ],
)
def test_a_bad_label_is_refused_by_field_and_rule_and_none_of_the_request_is_taken(
    client: TestClient, home: Home, changed: dict[str, Any], field: str, rule: str
) -> None:
    body = {"rater_id": "ann", "labels": [BESIDE_LAMP | {"label": 3} | changed, BESIDE_RUG | {"label": 3}]}
    response = client.post("/labels", json=body)
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["field"] == field
    assert rule in problem["rule"]
    assert rows(home) == []


def test_without_a_queue_the_service_says_what_to_do(tmp_path: Path) -> None:
    with service(Home(tmp_path)) as client:
        for path, body in (
            ("/labels/next", {"rater_id": "ann"}),
            ("/labels", {"rater_id": "ann", "labels": [BESIDE_LAMP | {"label": 3}]}),
        ):
            response = client.post(path, json=body)
            assert response.status_code == 404
            assert "run a day (adseq run), which materializes labelling_queue" in response.json()["detail"]
        home_with_queue(tmp_path)
        assert next_of(client, "ann") == ("lamp", 0, 3)  # the service follows


def test_an_empty_queue_says_what_it_is_made_of(tmp_path: Path) -> None:
    with service(home_with_queue(tmp_path, queue([]))) as client:
        response = client.post("/labels/next", json={"rater_id": "ann"})
        assert response.status_code == 404
        assert "a subject item or a query" in response.json()["detail"]


def test_what_cannot_be_written_is_not_taken(client: TestClient, home: Home) -> None:
    for table in ("relevance_labels", "feedback"):
        (home.landing / table).mkdir(parents=True)
        (home.landing / table / "date=2026-03-04").write_text("in the way")
    label = {"rater_id": "ann", "labels": [BESIDE_LAMP | {"label": 3}]}
    report = BESIDE_LAMP | {"feedback_id": "f1"}
    for path, body, named in (("/labels", label, "labels"), ("/feedback", report, "reports")):
        response = client.post(path, json=body)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert f"none of the {named} was taken" in response.json()["detail"]
    for table in ("relevance_labels", "feedback"):
        (home.landing / table / "date=2026-03-04").unlink()
    assert next_of(client, "ann") == ("lamp", 0, 3)
    assert judge(client, "ann", BESIDE_LAMP | {"label": 3}) == (1, 0, 0)


def test_a_damaged_queue_is_said_and_named_in_the_log(
    client: TestClient, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    (log,) = (home.tables / LABELLING_QUEUE / "_delta_log").glob("*.json")
    log.write_text("{")
    response = client.post("/labels/next", json={"rater_id": "ann"})
    assert (response.status_code, "adseq check" in response.json()["detail"]) == (503, True)
    assert LABELLING_QUEUE in caplog.text


def test_the_token_decides_who_may(home: Home) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/labels/next", {"rater_id": "ann"}),
        ("/labels", {"rater_id": "ann", "labels": [BESIDE_LAMP | {"label": 3}]}),
        ("/feedback", BESIDE_LAMP | {"feedback_id": "f1"}),
    ]
    with service(home, "let me in") as client:
        page = client.get("/label")
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for path, body in calls:
            assert client.post(path, json=body).status_code == 401
        assert rows(home) == rows(home, LandingTable.feedback) == []
        client.headers["Authorization"] = "Bearer let me in"
        for path, body in calls:
            assert client.post(path, json=body).status_code == 200


def test_a_report_is_kept_once_and_names_nobody(client: TestClient, home: Home) -> None:
    report = BESIDE_LAMP | {"feedback_id": "tap-1", "reason": "not_relevant"}
    told = post(client, "/feedback", report)
    assert told == {"accepted": 1, "known": 0, "arrival_day": "2026-03-04"}
    assert post(client, "/feedback", report | {"reason": None})["known"] == 1
    assert (
        post(client, "/feedback", {"feedback_id": "tap-2", "surface": "home_feed", "item_id": "rug"})["accepted"] == 1
    )
    assert client.post("/feedback", json=report | {"user_id": "u1"}).status_code == 422
    kept = rows(home, LandingTable.feedback)
    assert [row["feedback_id"] for row in kept] == ["tap-1", "tap-2"]
    assert kept[0] == report | {"query": None, "given_at": NOON.isoformat()}
    tables = Tables(home.root / "ingested")
    taken = ingest(Landing(home.landing), tables, LandingTable.feedback, day=NOON.date(), settings=DataSettings())
    assert (taken.rows_written, taken.rows_quarantined) == (2, 0)


def test_what_raters_do_is_counted(client: TestClient) -> None:
    judge(client, "ann", BESIDE_LAMP | {"label": 4})
    judge(client, "ann", BESIDE_LAMP | {"label": 4}, BESIDE_RUG | {"label": 1})
    judge(client, "ann", BESIDE_LAMP | {"label": 5})
    post(client, "/feedback", SEARCHED | {"feedback_id": "f1"})
    counted = client.get("/metrics").text
    for line in (
        'adseq_labels_total{outcome="accepted"} 2.0',
        'adseq_labels_total{outcome="known"} 1.0',
        'adseq_labels_total{outcome="corrected"} 1.0',
        'adseq_feedback_total{surface="search"} 1.0',
    ):
        assert line in counted, line


def test_a_file_that_was_replaced_is_read_from_its_start(client: TestClient, home: Home) -> None:
    judge(client, "ann", BESIDE_LAMP | {"label": 4})
    assert next_of(client, "ann") == ("mystery", 1, 2)
    (file,) = (home.landing / "relevance_labels" / "date=2026-03-04").glob(LIVE_FILES)
    copy = file.with_name("copy")
    copy.write_text(file.read_text())
    copy.replace(file)
    judge(client, "bob", BESIDE_LAMP | {"label": 2})
    assert next_of(client, "eve") == ("mystery", 0, 2)


def test_the_queue_has_what_the_table_says() -> None:
    assert queue()["content_type"].to_list() == ["video", None, "shopping"]
    assert queue().select(pl.col("subject_title").null_count()).item() == 1


def test_the_page_and_the_document_have_the_same_guidelines() -> None:
    page, document = LABEL_PAGE.read_text(), (PROJECT / "docs" / "relevance.md").read_text()
    assert f'id="template">{GUIDELINES}<' in page
    assert GUIDELINES in document
    points = re.findall(r"<dt>(\d)</dt><dd><b>([^<]+)</b>([^<]+)</dd>", page)
    assert [int(point) for point, _, _ in points] == [5, 4, 3, 2, 1]
    for point, name, meaning in points:
        assert f"| {point} | {name.lower()} | {meaning} |" in document
