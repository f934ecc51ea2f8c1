"""Next advertiser prediction in the flow: each day stands alone, and a day without a model is no fault."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from assets.steps.versions import advertiser_versions, serving_advertisers
from ml.models.advertiser_artifact import AdvertiserArtifact, advertiser_embeddings, user_vectors
from ml.versions.tracking import ADVERTISER_MODEL, REPORTS, TRAINING, Tracking
from tests.assets.world import ARRIVED, DAYS, LATER, TRAINED, Step, copy_of, execute
from tests.warehouse.whole_sequences import all_user_sequences, user_sequences
from warehouse.as_of import events_as_of, items_as_of, users_as_of
from warehouse.days import day_end
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.states import candidates_snapshot
from warehouse.tables import Tables, vectors

pytestmark = pytest.mark.slow
MODEL = ("content_basis", "advertiser_model", "advertiser_recall_report")
DAY = (*ARRIVED, "user_sequences", "advertiser_embeddings", "advertiser_candidates")
BEFORE, *SERVED = DAYS
"""The day that the first version is trained on, and the days after it."""

SHORT = {"advertisers": {"epoch_examples": 500}}
"""Settings of a training that takes seconds."""


def day_of(day: date) -> Step:
    return Step("daily", day.isoformat(), DAY)


class Ran:
    """A home with an advertiser model and its days; what each asset said."""

    def __init__(self, home: Home, said: list[dict[str, dict[str, Any]]]) -> None:
        self.home, (_, self.without, self.training, self.again, *_) = home, said
        self.tables, self.landing = Tables(home.tables), Landing(home.landing)
        (self.version,) = advertiser_versions(self.tables, home).all()


@pytest.fixture(scope="module")
def advertised(landing: Landing, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A day without a model, a training on that day, the day again, and two days more."""
    home = Home(tmp_path_factory.mktemp("advertisers")).create()
    home.use_landing(landing.root)
    history, training = Step("bootstrap", assets=["history"]), Step("retrain", assets=MODEL, settings=SHORT)
    return Ran(home, execute(home, [history, day_of(BEFORE), training, *map(day_of, DAYS)]))


@pytest.fixture(scope="module")
def retrained(advertised: Ran, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A copy with one more training, then one more day, then the earlier days again."""
    home = copy_of(advertised.home, tmp_path_factory.mktemp("retrained") / "home", with_day=LATER)
    training = Step("retrain", assets=("content_basis", "advertiser_model"), settings=SHORT)
    execute(home, [training, *map(day_of, (LATER, *SERVED))])
    return Tables(home.tables)


def test_a_day_equals_a_computation_from_scratch(advertised: Ran) -> None:
    """Embeddings and lists, from the event log and a search in plain numpy."""
    day, tables, landing = SERVED[0], advertised.tables, advertised.landing
    artifact = AdvertiserArtifact.load(advertised.version.deployed)
    items = items_as_of(tables, landing, day)
    events = events_as_of(tables, landing, day)
    end = day_end(day, landing.manifest.time_zone).timestamp()
    index = advertiser_embeddings(artifact, events, items, end)
    where: dict[str, str | date] = {"model_version": "advertiser-1", "day": day}
    stored = tables.read("advertiser_embeddings", where).sort("advertiser_id")
    assert_frame_equal(index, stored, abs_tol=1e-5)

    sequences = user_sequences(tables, landing, day, settings=artifact.settings.sequences)
    people, settings = users_as_of(tables, day), artifact.settings.inference
    users = user_vectors(artifact, items, sequences, users=people, settings=settings)
    scores = users @ vectors(index["embedding"]).T
    found = tables.read("advertiser_candidates", where).sort("user_id")
    assert found["user_id"].equals(sequences["user_id"])
    order = np.sort(scores, axis=1)[:, ::-1][:, : len(index)]
    np.testing.assert_allclose(np.array(found["scores"].to_list()), order[:, :100], atol=1e-5)
    column = {name: row for row, name in enumerate(index["advertiser_id"])}
    for row, names in enumerate(found["advertiser_ids"].to_list()):
        assert len(set(names)) == len(names) == min(100, len(index))
        np.testing.assert_allclose(scores[row, [column[name] for name in names]], order[row, : len(names)], atol=1e-5)


def test_the_snapshot_holds_everybody_as_of_their_last_active_day(advertised: Ran) -> None:
    tables, landing = advertised.tables, advertised.landing
    shape = AdvertiserArtifact.load(advertised.version.deployed).settings.sequences
    first, second = SERVED
    everyone = all_user_sequences(tables, landing, second, settings=shape)["user_id"]
    active = {day: user_sequences(tables, landing, day, settings=shape)["user_id"] for day in SERVED}
    newest = candidates_snapshot(tables, "advertiser-1", second)
    assert newest["user_id"].equals(everyone.sort())
    assert set(newest.filter(day=second)["user_id"]) == set(active[second])
    assert set(newest.filter(day=first)["user_id"]) == set(active[first]) - set(active[second])
    before = candidates_snapshot(tables, "advertiser-1", first)
    assert before["day"].max() == first
    assert BEFORE in set(before["day"])


def test_a_day_run_again_and_out_of_order_has_the_same_rows(advertised: Ran, retrained: Tables) -> None:
    """Also after another version was trained, which the day does not use."""
    for name, key in (("advertiser_embeddings", "advertiser_id"), ("advertiser_candidates", "user_id")):
        where: dict[str, str | date] = {"model_version": "advertiser-1", "day": SERVED[0]}
        one, other = (tables.read(name, where).sort(key) for tables in (advertised.tables, retrained))
        assert len(one)
        assert_frame_equal(one, other, abs_tol=1e-5)


def test_a_retrained_version_takes_over_after_the_days_that_another_served(advertised: Ran, retrained: Tables) -> None:
    """It was trained on the newest ingested day, which the first version keeps."""
    served = dict(retrained.scan("advertiser_deployments").select("day", "model_version").collect().rows())
    assert served == {**dict.fromkeys(DAYS, "advertiser-1"), LATER: "advertiser-2"}
    newest = SERVED[-1]
    assert retrained.days("advertiser_candidates", "day", {"model_version": "advertiser-2"}) == [newest, LATER]
    shape = AdvertiserArtifact.load(advertised.version.deployed).settings.sequences
    everyone = all_user_sequences(retrained, advertised.landing, newest, settings=shape)["user_id"]
    first = retrained.read("advertiser_candidates", {"model_version": "advertiser-2", "day": newest})
    assert first["user_id"].sort().equals(everyone.sort())


def test_a_home_without_a_model_skips_its_days_and_says_so(advertised: Ran) -> None:
    for asset in ("advertiser_embeddings", "advertiser_candidates"):
        assert advertised.without[asset]["dagster/row_count"] == 0
        assert f"No advertiser model had been trained by {BEFORE}" in advertised.without[asset]["why"]
    trained = advertised.training["advertiser_model"]
    assert trained["model_version"] == "advertiser-1"
    assert advertised.again["advertiser_candidates"]["dagster/row_count"] == trained["users_predicted"]
    first = serving_advertisers(advertised.tables, advertised.home, BEFORE)
    assert first is not None
    assert first.name == "advertiser-1"
    assert serving_advertisers(advertised.tables, advertised.home, TRAINED) is None


def test_the_report_states_its_index_and_has_every_model(advertised: Ran) -> None:
    said = advertised.training["advertiser_recall_report"]
    assert 10 < said["index"] <= said["known_advertisers"] <= 30
    table = advertised.tables.read("model_metrics", {"report": "advertiser_recall"})
    models = {"popularity", "recent_popularity", "recent_advertisers", "mean_pooling", "advertiser_model"}
    assert set(table["model"]) == models
    metrics = set(table["metric"])
    assert {"recall@10", "macro_recall@10", "diversity90", "recall@10.less.recent_advertisers"} <= metrics
    of_model = table.filter(model="advertiser_model", metric="recall@10")
    assert {("all", ""), ("novelty", "known"), ("novelty", "new")} <= set(of_model.select("segment", "group").rows())
    low, value, high = of_model.filter(segment="all").select("low", "value", "high").row(0)
    assert low <= value <= high
    assert ("conversion", "checkout") in of_model.select("segment", "group").rows()
    assert "recall@50" not in metrics  # of thirty advertisers that says nothing
    assert table.filter(pl.col("metric").str.contains(r"recall@\d+$"))["value"].is_between(0, 1).all()


def test_mlflow_has_the_training_the_registered_version_and_the_report(advertised: Ran) -> None:
    tracking = Tracking(advertised.home.tracking_uri, advertised.home.artifacts)
    client = tracking.client
    runs = {
        run.info.run_name: run
        for experiment in (TRAINING, REPORTS)
        for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    }
    training = runs[f"advertiser_model {BEFORE}"]
    assert training.data.params["training.epoch_examples"] == "500"
    assert training.data.params["training.corpus_negatives"] == "256"
    assert {"train_loss", "epochs", "validation_recall_at_10"} <= set(training.data.metrics)
    assert {f"advertiser_recall_report {BEFORE}", "advertiser mean_pooling"} <= set(runs)
    version = client.get_model_version(ADVERTISER_MODEL, "1")
    assert version.run_id == training.info.run_id
