"""A new version takes over only through the gate, completely, and never for days that another one has served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest

from assets.steps.versions import item_versions
from ml.versions.tracking import Tracking
from tests.assets.compare import TOLERANCE, arrived_events, assert_same_day, largest_difference_to_full
from tests.assets.test_publication import assert_store_is
from tests.assets.world import DAYS, LATER, PUBLISHED, Step, adseq, copy_of, days_of, execute
from tests.flow import Ran
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.online import LmdbStore
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
TO_CHAMPION = ("content_basis", "training_examples", "contextual_examples", "item_model", "champion")
EVERYTHING_PASSES = {"gate": {"recall_tolerance": 1.0, "diversity_tolerance": 1.0}}
SHORT = {"training": {"epoch_examples": 500}}


@dataclass(frozen=True)
class Retrained:
    """A home with two more trainings, then a new day, then an old day again."""

    home: Home
    first: dict[str, Any]  # what `champion` said of the version trained after three more days
    second: dict[str, Any]  # and of the one trained on the very same data
    day: dict[str, dict[str, Any]]  # what each daily asset said of the new day

    @property
    def tables(self) -> Tables:
        return Tables(self.home.tables)


@pytest.fixture(scope="module")
def retrained(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    home = copy_of(ran.home, tmp_path_factory.mktemp("retrained") / "home", with_day=LATER)
    retrain = Step("retrain", assets=TO_CHAMPION, settings=EVERYTHING_PASSES | SHORT)
    days = days_of([LATER, DAYS[1]], ("events", "impressions", *PUBLISHED, "daily_recall"))
    first, second, day, _ = execute(home, [retrain, retrain, *days])
    return Retrained(home, first["champion"], second["champion"], day)


def test_after_more_days_a_retrain_is_judged_on_their_conversions(retrained: Retrained) -> None:
    found = re.search(
        r"Recall@100 0\.\d+ against 0\.\d+ .* on (\d+) conversions of 3\.0 days", retrained.first["reason"]
    )
    assert found, retrained.first["reason"]
    assert int(found[1]) >= 30
    assert (retrained.first["candidate"], retrained.first["champion"]) == ("item-2", "item-2")
    assert retrained.first["promoted"]


def test_a_retrain_on_the_same_data_is_not_promoted_whatever_the_tolerance(retrained: Retrained) -> None:
    assert "no conversion has arrived since the champion was trained" in retrained.second["reason"]
    assert (retrained.second["candidate"], retrained.second["champion"]) == ("item-3", "item-2")
    assert not retrained.second["promoted"]
    versions = item_versions(retrained.tables, retrained.home).all()
    assert [version.name for version in versions] == [
        "item-1",
        "item-2",
        "item-3",
    ]
    assert Tracking(retrained.home.tracking_uri, retrained.home.artifacts).champion() == "item-2"
    assert set(retrained.tables.scan("user_states").select("model_version").collect()["model_version"]) == {
        "item-1",
        "item-2",
    }


def test_the_store_serves_the_new_champion_also_after_an_old_day_was_run_again(retrained: Retrained) -> None:
    now = assert_store_is(retrained.home, "item-2", LATER)
    kept = LmdbStore(retrained.home.online)
    assert {now.states, "states-item-1"} <= set(kept.namespaces())  # a reader may still be on the one before
    kept.close()


def test_a_promotion_infers_everyone_once(retrained: Retrained) -> None:
    arrived = arrived_events(retrained.tables, Landing(retrained.home.landing))
    everyone = arrived.filter(pl.col("arrival_date") <= DAYS[-1])
    inferred = retrained.tables.read("user_states", {"model_version": "item-2", "day": DAYS[-1]})["user_id"]
    assert set(inferred) == set(everyone["user_id"])
    assert retrained.first["full_inference_users"] == everyone["user_id"].n_unique()
    assert retrained.tables.days("user_states", "day", {"model_version": "item-2"}) == [DAYS[-1], LATER]


def test_days_after_a_promotion_use_it_and_an_old_day_keeps_its_own(ran: Ran, retrained: Retrained) -> None:
    deployed = dict(retrained.tables.scan("deployments").select("day", "model_version").collect().rows())
    assert deployed == {DAYS[0]: "item-1", DAYS[1]: "item-1", DAYS[2]: "item-1", LATER: "item-2"}
    assert_same_day(ran.tables, retrained.tables, DAYS[1], ["item-1"])
    for name in ("item_features", "item_embeddings", "user_states"):
        assert retrained.tables.days(name, "day", {"model_version": "item-1"})[-1] == DAYS[-1], name
    log = dict(retrained.tables.scan("inference_log").select("day", "model_version").collect().rows())
    assert (log[DAYS[1]], log[LATER]) == ("item-1", "item-2")


def test_the_day_after_is_incremental_again_and_versions_do_not_mix(retrained: Retrained) -> None:
    _, version, _ = item_versions(retrained.tables, retrained.home).all()
    difference, stored = largest_difference_to_full(retrained.tables, Landing(retrained.home.landing), version, LATER)
    assert difference <= TOLERANCE
    assert stored["day"].equals(stored["expected_day"], check_names=False)
    assert set(stored["day"]) == {DAYS[-1], LATER}


def test_the_new_day_is_measured_on_what_the_old_version_had_prepared(retrained: Retrained) -> None:
    """Prequential: the day's conversions meet what served the day before, here the version that was replaced since."""
    assert retrained.day["user_states"]["model_version"] == "item-2"
    assert retrained.day["daily_recall"]["served_by"] == "item-1"
    assert retrained.day["daily_recall"]["positives"] > 0


@pytest.fixture(scope="module")
def rolled_back(retrained: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home after item-2 was taken back, and its day was run again."""
    home = copy_of(retrained.home, tmp_path_factory.mktemp("rolled-back") / "home")
    done = adseq(home, "rollback")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "item-1 is champion again, in the place of item-2" in " ".join(done.stdout.split())
    execute(home, days_of([LATER], PUBLISHED))
    return home


def test_a_rollback_serves_the_champion_before_with_its_states_caught_up(rolled_back: Home) -> None:
    """Also after the day that item-2 served was run again."""
    assert Tracking(rolled_back.tracking_uri, rolled_back.artifacts).champion() == "item-1"
    assert_store_is(rolled_back, "item-1", LATER)
    tables = Tables(rolled_back.tables)
    active = tables.read("user_sequences", {"day": LATER})["user_id"].sort().to_list()
    caught_up = tables.read("user_states", {"model_version": "item-1", "day": LATER})
    assert caught_up["user_id"].sort().to_list() == active
    first = item_versions(tables, rolled_back).all()[0]
    difference, _ = largest_difference_to_full(tables, Landing(rolled_back.landing), first, LATER)
    assert difference <= TOLERANCE


def test_there_is_nothing_before_the_first_champion(rolled_back: Home) -> None:
    again = adseq(rolled_back, "rollback")
    assert again.returncode == 2
    assert "There is no champion before item-1" in again.stderr
    unknown = adseq(rolled_back, "rollback", "--to", "item-3")
    assert unknown.returncode == 2
    assert "Were champion: item-1, item-2" in " ".join(unknown.stderr.split())
