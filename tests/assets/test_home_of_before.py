"""A home that version 8ecf113 wrote: its models answer, and its days run on.

``home-of-8ecf113.tar.xz`` is the home of a synthetic world with two daily days: the deployed model of each kind,
tables, the newest index, the online store and the manifest. A change that breaks this test needs a new format of homes.
"""

from __future__ import annotations

import tarfile
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.encode import encode_day, read_item_embeddings, write_item_embeddings
from assets.steps.predict_advertisers import predict_day
from assets.steps.versions import ModelVersion, advertiser_versions, item_versions, serving, serving_advertisers
from ml.retrieval.index_files import verify_index
from pipelines.checks.fault import Checked
from pipelines.checks.tables import tables_part
from settings import Settings
from tests.assets.compare import TOLERANCE
from warehouse.as_of import ads_as_of, spend_as_of
from warehouse.days import day_end
from warehouse.online import LmdbStore
from warehouse.online.publication import check, served
from warehouse.open_home import open_for_writing
from warehouse.states import ADVERTISER_CANDIDATES, USER_STATES
from warehouse.stored_sequences import SHAPE_SCHEMA, TABLE
from warehouse.tables import vectors

DAY = date(2026, 3, 2)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("before")
    with tarfile.open(Path(__file__).with_name("home-of-8ecf113.tar.xz")) as archive:
        archive.extractall(root, filter="data")
    workspace = Workspace(Settings(home=root / "home"))
    open_for_writing(workspace.home)
    return workspace


@pytest.fixture(scope="module")
def version(workspace: Workspace) -> ModelVersion:
    return serving(workspace.tables, workspace.home, DAY, champion=None)


def test_its_versions_are_on_record(workspace: Workspace, version: ModelVersion) -> None:
    tables, home = workspace.tables, workspace.home
    assert [each.name for each in item_versions(tables, home).all()] == [version.name] == ["item-1"]
    advertisers = serving_advertisers(tables, home, DAY)
    assert advertisers is not None
    assert [each.name for each in advertiser_versions(tables, home).all()] == [advertisers.name] == ["advertiser-1"]


def test_its_item_model_gives_the_states_and_embeddings_that_it_gave(
    workspace: Workspace, version: ModelVersion
) -> None:
    tables = workspace.tables
    where: dict[str, str | date] = {"model_version": version.name, "day": DAY}
    assert not set(SHAPE_SCHEMA) & set(tables.read(TABLE, {"day": DAY}).columns)  # written before the shape was stored
    before, items_before = tables.read(USER_STATES, where).sort("user_id"), read_item_embeddings(tables, version, DAY)
    assert encode_day(workspace, version, DAY) == len(before) > 10
    after = tables.read(USER_STATES, where).sort("user_id")
    assert after["user_id"].equals(before["user_id"])
    assert np.abs(vectors(after["state"]) - vectors(before["state"])).max() <= TOLERANCE
    write_item_embeddings(workspace, version, DAY)
    ids, embeddings = read_item_embeddings(tables, version, DAY)
    assert ids.equals(items_before[0])
    assert np.abs(embeddings - items_before[1]).max() <= TOLERANCE


def test_its_advertiser_model_predicts_what_it_predicted(workspace: Workspace) -> None:
    tables = workspace.tables
    version = serving_advertisers(tables, workspace.home, DAY)
    assert version is not None
    where: dict[str, str | date] = {"model_version": version.name, "day": DAY}
    before = tables.read(ADVERTISER_CANDIDATES, where).sort("user_id")
    files = set(tables.files(ADVERTISER_CANDIDATES))
    assert predict_day(workspace, version, DAY).users.sort().equals(before["user_id"])
    assert len(before) > 10
    assert set(tables.files(ADVERTISER_CANDIDATES)) - files  # written again: the table is not compared with itself
    after = tables.read(ADVERTISER_CANDIDATES, where).sort("user_id")
    assert after["user_id"].equals(before["user_id"])
    scores = [frame["scores"].explode().cast(pl.Float64).to_numpy() for frame in (before, after)]
    assert np.abs(scores[0] - scores[1]).max() <= TOLERANCE


def test_it_has_no_ads_and_lacks_no_table_for_it(workspace: Workspace) -> None:
    assert not workspace.tables.exists("ads")
    assert ads_as_of(workspace.tables, DAY) is None
    assert spend_as_of(workspace.tables, workspace.landing, day_end(DAY, "UTC"), DAY).is_empty()
    assert not [fault for fault in tables_part(Checked(workspace.home, deep=False)).faults if "'ads'" in fault.what]


def test_its_index_and_store_are_whole(workspace: Workspace, version: ModelVersion) -> None:
    verify_index(workspace.home.indexes / version.name / DAY.isoformat())
    store = LmdbStore(workspace.home.online)
    try:
        publication = served(store)
        assert publication is not None
        check(store, publication)
    finally:
        store.close()
    assert (publication.model_version, publication.day) == (version.name, DAY)
