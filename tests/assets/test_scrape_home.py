"""The scrape of a home: the service's answers to logged requests, with a relevance model, without one, and odd logs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.choose_pairs import write_queue
from assets.steps.relevance_report import funnel_of, measure_week
from assets.steps.relevance_scrape import GAP, RELEVANCE_SCRAPE, scrape_relevance
from assets.steps.score_candidates import SCORED_CANDIDATES, score_candidates
from assets.steps.service_lists import ASKED, service_lists
from assets.steps.train_relevance import labels_by
from ml.relevance.candidates import CANDIDATES, HOLDOUT, PRODUCTION
from settings import RelevanceSettings, Settings
from tests.assets.world import DAYS, copy_of
from tests.flow import Ran
from warehouse.contracts import LandingTable
from warehouse.online import open_store
from warehouse.online.publication import served_whole
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
DAY = DAYS[-1]
PROBES = 150


@pytest.fixture
def workspace(ran: Ran, tmp_path: Path) -> Workspace:
    """A copy of the home of the tiny world, with few probes."""
    home = copy_of(ran.home, tmp_path / "home")
    return Workspace(Settings(home=home.root, relevance=RelevanceSettings(probes=PROBES)))


def withdraw_relevance(workspace: Workspace) -> None:
    """Publish the newest day without its relevance model, as before the first one."""
    with closing(open_store(workspace.settings.online.store, workspace.home)) as store:
        published = served_whole(store)
        assert published is not None
        assert published.relevance is not None
        store.switch(replace(published, relevance=None).to_bytes())


def add_rows(tables: Tables, table: LandingTable, rows: pl.DataFrame) -> None:
    """Add rows to the arrival of the newest day; what they do not say is as in a row of the table."""
    stored = tables.read(table.value, {"arrival_date": DAY})
    tables.write(
        table.value, pl.concat([stored, rows.select(stored.columns).cast(stored.schema)]), {"arrival_date": DAY}
    )


def impressions(tables: Tables, places: pl.DataFrame, user: str) -> pl.DataFrame:
    """Shown candidates of places, each a request of its own."""
    like = tables.read("impressions", {"arrival_date": DAY}).filter(stage="impressed").head(1)
    return (
        like.drop(places.columns)
        .join(places, how="cross")
        .with_columns(user_id=pl.lit(user), request_id=pl.format("odd-{}", pl.int_range(pl.len())))
    )


def figures(workspace: Workspace) -> dict[str, float | None]:
    lists = service_lists(workspace, DAY)
    assert lists is not None
    measured = scrape_relevance(workspace, DAY, lists)
    assert measured is not None
    assert abs(measured.probes - PROBES) < 0.7 * PROBES  # the strata take two each
    assert workspace.tables.read(RELEVANCE_SCRAPE, {"day": DAY}).height == measured.probes
    return dict(measured.figures.filter(segment="all").select("metric", "value").rows())


def test_with_a_relevance_model_production_is_more_relevant_than_the_holdout(workspace: Workspace) -> None:
    found = figures(workspace)
    assert found[GAP] is not None
    assert found[GAP] > 0
    detectable, power = found["aa.smallest_detectable_change"], found["aa.power_at_3_percent"]
    assert detectable is not None
    assert detectable > 0
    assert power is not None
    assert 0 < power <= 1
    assert found == figures(workspace)  # a day that runs again finds the same


def test_without_a_relevance_model_both_arms_are_equal_and_say_nothing_of_their_precision(
    workspace: Workspace,
) -> None:
    withdraw_relevance(workspace)
    found = figures(workspace)
    assert found[GAP] == 0.0
    assert found[f"fraction_relevant@10.{PRODUCTION}"] == found[f"fraction_relevant@10.{HOLDOUT}"]
    assert found["aa.smallest_detectable_change"] is None
    assert found["aa.power_at_3_percent"] is None
    assert found["aa.within_1_percent"] is not None


@pytest.mark.parametrize("with_model", [True, False])
def test_whoever_asks_where_nothing_is_known_gets_popular_items_in_both_arms(
    workspace: Workspace, with_model: bool
) -> None:
    """One list answers then, whatever the number of generators."""
    if not with_model:
        withdraw_relevance(workspace)
    item = workspace.items_as_of(DAY)["item_id"][0]
    places = {
        "surface": ["search", "related_pins"],
        "subject_item_id": [None, item],
        "query": ["0000", None],
        "user_id": "nobody",
    }
    lists = service_lists(workspace, DAY)
    assert lists is not None
    found = lists(pl.DataFrame(places))
    assert set(found) == {PRODUCTION, HOLDOUT}
    for arm in found.values():
        assert 0 < len(arm[0]) <= ASKED
    popular, beside = found[HOLDOUT]
    assert len(popular) == len(beside) == ASKED  # nothing is trimmed
    dropped = set(popular) - set(found[PRODUCTION][0])
    assert (found[PRODUCTION][0] == popular) or (with_model and dropped)


def test_a_request_that_the_service_would_refuse_is_no_probe_and_no_pair_for_raters(workspace: Workspace) -> None:
    tables, item = workspace.tables, workspace.items_as_of(DAY)["item_id"][0]
    refused = [
        ("home_feed", None, "a lamp"),
        ("home_feed", item, None),
        ("search", item, "a lamp"),
        ("search", None, ""),
        ("search", None, "lamp" * 126),
        ("related_pins", item, "a lamp"),
        ("related_pins", None, "a lamp"),
        ("related_pins", None, None),
    ]
    taken = [("search", None, "lamp" * 125), ("search", None, "ü" * 500), ("related_pins", item, None)]
    schema = {"surface": pl.String, "subject_item_id": pl.String, "query": pl.String}
    before = score_candidates(workspace, DAY)
    places = pl.DataFrame(refused + taken, schema=schema, orient="row")
    add_rows(tables, LandingTable.impressions, impressions(tables, places, "nobody"))
    everything = Workspace(workspace.settings.with_value("relevance.probes", 100_000))
    lists = service_lists(everything, DAY)
    assert lists is not None
    assert scrape_relevance(everything, DAY, lists) is not None
    scraped = tables.read(RELEVANCE_SCRAPE, {"day": DAY}).select(*schema)
    assert set(taken) <= set(scraped.rows())
    assert not set(refused) & set(scraped.rows())
    scored = score_candidates(workspace, DAY)
    assert len(scored) == len(before) + len(taken)
    tables.write(SCORED_CANDIDATES, scored, {"day": DAY})
    assert not set(refused) & set(write_queue(workspace, DAY).select(*schema).rows())


def test_an_invented_subject_breaks_no_report_and_no_training(workspace: Workspace) -> None:
    """Whoever asks the service may name any subject, and the sample keeps it."""
    tables, items = workspace.tables, workspace.items_as_of(DAY)["item_id"]
    sample = pl.DataFrame(
        {
            "sample_id": ["s1", "s1", "s2"],
            "sampled_at": pl.Series([None] * 3, dtype=pl.Datetime("us", "UTC")),
            "surface": "related_pins",
            "subject_item_id": ["no item of this world", "no item of this world", items[0]],
            "item_id": [items[1], "nor is this", items[1]],
            "source": "item_neighbours",
            "stage": ["trimmed", "ranked", "auctioned"],
            "arm": [PRODUCTION, PRODUCTION, HOLDOUT],
            "inclusion_probability": 0.01,
        }
    )
    stored = tables.read("funnel_sample", {"arrival_date": DAY})
    absent = [pl.lit(None, kind).alias(name) for name, kind in stored.schema.items() if name not in sample.columns]
    add_rows(tables, LandingTable.funnel_sample, sample.with_columns(absent))
    labels = tables.read("relevance_labels", {"arrival_date": DAY}).head(1)
    invented = labels.with_columns(
        surface=pl.lit("related_pins"),
        subject_item_id=pl.lit("no item of this world"),
        query=pl.lit(None, pl.String),
        item_id=pl.lit(items[1]),
    )
    add_rows(tables, LandingTable.relevance_labels, invented)
    scored = score_candidates(workspace, DAY)
    assert scored.schema == CANDIDATES
    assert (
        dict(scored.group_by("log").len().rows())["funnel_sample"] == 2
    )  # an item that no catalogue has is no candidate
    tables.write(SCORED_CANDIDATES, scored, {"day": DAY})
    funnel = funnel_of(workspace, DAY).filter(segment="surface", group="related_pins")
    assert "retrieved" in funnel["stage"]
    assert not measure_week(workspace, DAY).is_empty()
    truth = labels_by(workspace, DAY).filter(subject_item_id="no item of this world")["true_relevance"]
    assert np.isnan(truth.to_list()).tolist() == [True]
