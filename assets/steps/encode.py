"""One day of inference for one model version: the same steps, whether daily, caught up or in full."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from assets.common.workspace import Workspace
from assets.steps.index_shards import StoredEmbeddings, build_sharded, shards_of
from assets.steps.item_features import stored_features
from assets.steps.versions import ModelVersion
from engine.engine import StageRun, Work
from settings import IndexKind
from warehouse.as_of import engaged_items, items_of_users, users_as_of
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.day_records import unsettled_days
from warehouse.days import day_end
from warehouse.onsite_events import days_with_arrivals
from warehouse.sequences import (
    SEQUENCE_SCHEMA,
    SequenceSource,
    active_sequences,
    all_sequences,
    gathered,
    of_all_buckets,
)
from warehouse.states import USER_STATES, inferred_days, outdated_days, snapshot_of, state_days, write_states
from warehouse.stored_sequences import day_sequences
from warehouse.tables import Tables, vector_column, vectors
from warehouse.user_buckets import UserBucket

if TYPE_CHECKING:
    from ml.models.artifact import ModelArtifact
    from ml.models.tensors import CatalogueTensors
    from ml.retrieval.lists import Ragged

ITEM_EMBEDDINGS = "item_embeddings"
CHECKED_USERS = 200
RECALL_QUERIES = 500
SLOTS = 100  # of each user, that are looked at


@dataclass(frozen=True)
class BuiltIndex:
    """An index as it was written."""

    items: int
    kind: str
    bytes: int
    seconds: float
    recall: float  # Recall@100 against brute force
    best_scores: NDArray[np.float32]  # [users]: what the first item of each of a sample of users scores
    never_engaged: float | None  # share of these users' first 100 slots on items without an event; None without a user
    never_engaged_items: float  # share of the index on items without an event
    directory: str
    users: pl.Series  # the sample of users that the index was measured with
    queries: NDArray[np.float32]  # [users, width] their embeddings on the home feed


def missing_days(workspace: Workspace, version: ModelVersion, day: date) -> list[date]:
    """Return the ingested days between the version's full inference and ``day`` that must be encoded.

    The active users of such a day were not encoded, or were encoded from other arrivals than there are now.
    """
    tables = workspace.tables
    done = set(state_days(tables, version.name)) - set(outdated_days(tables, USER_STATES, version.name))
    arrived = days_with_arrivals(tables, workspace.landing)
    return [each for each in arrived if version.trained_day < each < day and each not in done]


def encode_day(workspace: Workspace, version: ModelVersion, day: date) -> int:
    """Encode and write the states of the users who were active on ``day``, as of its end. Returns how many."""
    shape = workspace.item_model(version.deployed).settings.sequences
    data = workspace.settings.data
    sequences = day_sequences(workspace.tables, workspace.landing, day, shape=shape, data=data)
    return _encode(workspace, version, day, sequences)


def encode_everyone(workspace: Workspace, version: ModelVersion) -> int:
    """Run a version's full inference, some users at a time. Returns the number of users.

    Every user is encoded as of the user's last active day, under the catalogue of the version's training day.
    """
    day = version.trained_day
    shape = workspace.item_model(version.deployed).settings.sequences
    data = workspace.settings.data
    sequences = all_sequences(workspace.tables, workspace.landing, day, settings=shape, data=data)
    return _encode(workspace, version, day, sequences)


def renew_full_inference(workspace: Workspace, version: ModelVersion) -> bool:
    """Repeat a version's full inference if data that had arrived by its training day have changed.

    Returns:
        Whether the inference was repeated.
    """
    if version.trained_day not in outdated_days(workspace.tables, USER_STATES, version.name):
        return False
    encode_everyone(workspace, version)
    write_item_embeddings(workspace, version, version.trained_day)
    return True


def _encode(workspace: Workspace, version: ModelVersion, day: date, sequences: SequenceSource) -> int:
    stage = partial(_states, workspace, version, day, sequences)
    run = StageRun(workspace.engine, stage, sequences.buckets)
    return write_states(workspace.tables, version.name, day, run)


def _states(workspace: Workspace, version: ModelVersion, day: date, sequences: SequenceSource) -> Work[UserBucket]:
    """Return the function from a bucket to the states of its users under the catalogue of ``day``."""
    from ml.models.daily_inference import state_encoder

    features, _ = stored_features(workspace, version, day)
    encoded = state_encoder(workspace.item_model(version.deployed), features, workspace.settings.inference)
    return lambda bucket: encoded(gathered(sequences.batches(bucket)))


def largest_difference_to_full(workspace: Workspace, version: ModelVersion, day: date) -> float:
    """Return the largest difference between stored states and states re-encoded from the event log.

    The users are a sample of one earlier day: another day each time, and none that waits to run again because of
    earlier arrivals; 0 before there is such a day. Another day's batches have other shapes, so the difference also
    shows whether a state depends on the other users of its batch.
    """
    from ml.models.daily_inference import states_of_sequences

    tables = workspace.tables
    settled = set(state_days(tables, version.name)) - unsettled_days(tables)
    days = sorted(each for each in settled if version.trained_day < each < day)
    if not days:
        return 0.0
    random = np.random.default_rng(day.toordinal())
    earlier = days[int(random.integers(len(days)))]
    artifact = workspace.item_model(version.deployed)
    shape, data = artifact.settings.sequences, workspace.settings.data
    sample, drawn = pl.DataFrame(schema=SEQUENCE_SCHEMA), pl.col("user_id").hash(seed=day.toordinal())
    sequences = active_sequences(tables, workspace.landing, [earlier], settings=shape, data=data)
    for batch in of_all_buckets(sequences):
        sample = pl.concat([sample, batch]).bottom_k(CHECKED_USERS, by=drawn)
    features, _ = stored_features(workspace, version, earlier)
    fresh = states_of_sequences(artifact, features, sample, workspace.settings.inference)
    partition = (pl.col("model_version") == version.name) & (pl.col("day") == earlier)
    mine = pl.col("user_id").is_in(sample["user_id"].implode())
    stored = tables.scan(USER_STATES).filter(partition, mine).collect()
    both = fresh.join(stored, on="user_id", how="left", suffix="_stored", maintain_order="left")
    if both["state_stored"].null_count():
        return float("inf")
    return float(np.abs(vectors(both["state"]) - vectors(both["state_stored"])).max(initial=0.0))


@dataclass(frozen=True)
class EmbeddedItems:
    """The item embeddings of a day, in figures."""

    items: int
    width: int
    popularity_weight: float  # 0 for a model from before there was one


def write_item_embeddings(workspace: Workspace, version: ModelVersion, day: date) -> EmbeddedItems:
    """Embed the items that are listed as of the end of ``day``.

    The popularity offsets are those of a sample of the users who have a state as of the day.
    """
    from ml.features.items import is_listed
    from ml.models.batched_forward import item_ranges, popularity_weight, with_popularity_offsets
    from ml.retrieval.exposure import USERS

    features, _ = stored_features(workspace, version, day)
    artifact, manifest = workspace.item_model(version.deployed), workspace.landing.manifest
    listed = is_listed(features.listed_from, day_end(day, manifest.time_zone).timestamp())
    nothing = np.zeros((0, artifact.network.embedding_width), np.float32)
    stage = partial(_embedded, workspace, version, day)
    with closing(workspace.engine.run(stage, item_ranges(len(features)))) as parts:
        embeddings = np.concatenate([nothing, *(vectors(part["embedding"]) for part in parts)])[listed]
    weight = popularity_weight(artifact.network, workspace.settings.index)
    if weight:
        sample = _sample(workspace.tables, version, day, USERS)
        _, users = snapshot_embeddings(workspace, version, day, sample)
        embeddings = with_popularity_offsets(artifact.network, embeddings, users, weight)
    item_ids = features.item_ids.filter(pl.Series(listed))
    frame = pl.DataFrame([item_ids.alias("item_id"), vector_column("embedding", embeddings)])
    workspace.tables.write(ITEM_EMBEDDINGS, frame, {"model_version": version.name, "day": day})
    return EmbeddedItems(len(frame), embeddings.shape[1], weight)


def _embedded(workspace: Workspace, version: ModelVersion, day: date) -> Work[range]:
    """Return the function from a range of the catalogue's rows to their embeddings as of ``day``."""
    from ml.models.batched_forward import embed_some_items
    from ml.models.tensors import CatalogueTensors

    features, statistics = stored_features(workspace, version, day)
    network, catalogue = workspace.item_model(version.deployed).network, CatalogueTensors(features)

    def of_range(rows: range) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame([vector_column("embedding", embed_some_items(network, catalogue, statistics, rows))])

    return of_range


def embedded_as_of(workspace: Workspace, version: ModelVersion, day: date) -> date:
    """Return the newest ingested day on or before ``day``; embed the catalogue of that day if the day has not run.

    Days without arrivals have no partition: the day before such a day stands for the day.
    """
    newest = max(each for each in workspace.tables.days("events", "arrival_date") if each <= day)
    if newest not in workspace.tables.days(ITEM_EMBEDDINGS, "day", {"model_version": version.name}):
        write_item_embeddings(workspace, version, newest)
    return newest


def read_item_embeddings(tables: Tables, version: ModelVersion, day: date) -> tuple[pl.Series, NDArray[np.float32]]:
    """Return the item ids (sorted) and the embeddings [items, W] of a day."""
    frame = tables.read(ITEM_EMBEDDINGS, {"model_version": version.name, "day": day}).sort("item_id")
    return frame["item_id"], vectors(frame["embedding"])


def index_day(workspace: Workspace, version: ModelVersion, day: date) -> BuiltIndex:
    """Build and write the day's index, and measure the index against brute force."""
    from ml.evaluation.metrics import share_never_engaged
    from ml.retrieval.index import recall_by_blocks, search_index
    from ml.retrieval.index_files import load_index

    started = time.perf_counter()
    directory = workspace.home.indexes / version.name / day.isoformat()
    item_ids, blocks = _write_index(workspace, version, day, directory=directory)
    seconds = time.perf_counter() - started
    loaded = load_index(directory)
    users, queries = snapshot_embeddings(
        workspace, version, day, _sample(workspace.tables, version, day, RECALL_QUERIES)
    )
    depth = min(SLOTS, len(item_ids))
    searched = len(queries) and len(item_ids)
    ever, own = _engagement(workspace, day, users, item_ids)
    shown = search_index(loaded.index, queries, depth, exclude=own).items if searched else None
    return BuiltIndex(
        items=len(item_ids),
        kind=str(loaded.manifest.kind),
        bytes=sum(path.stat().st_size for path in directory.iterdir()),
        seconds=seconds,
        recall=recall_by_blocks(loaded.index, queries, blocks, depth) if len(queries) else 1.0,
        best_scores=search_index(loaded.index, queries, 1).scores[:, 0] if searched else np.zeros(0, np.float32),
        never_engaged=None if shown is None else share_never_engaged(shown, ever),
        never_engaged_items=float(np.mean(~ever)) if len(ever) else 0.0,
        directory=str(directory),
        users=users,
        queries=queries,
    )


def _write_index(
    workspace: Workspace, version: ModelVersion, day: date, *, directory: Path
) -> tuple[pl.Series, Iterable[NDArray[np.float32]]]:
    """Build and write the day's index. Return the ids of its items, and their embeddings in blocks [rows, width].

    The embeddings of a large catalogue are read again, block by block.
    """
    from ml.retrieval.index import build_index, chosen_kind
    from ml.retrieval.index_files import save_index
    from ml.retrieval.sharded_index import SHARD_ITEMS

    stored = StoredEmbeddings(workspace.tables.newest(ITEM_EMBEDDINGS), version.name, day)
    item_ids = stored.item_ids()
    blocks: Iterable[NDArray[np.float32]]
    if chosen_kind(len(item_ids), workspace.settings.index) is IndexKind.ivf:
        shards = shards_of(item_ids, SHARD_ITEMS)
        index = build_sharded(workspace.engine, stored, shards, directory=directory)
        blocks = map(stored.of, shards)
    else:
        item_ids, embeddings = read_item_embeddings(workspace.tables, version, day)
        index, blocks = build_index(embeddings, workspace.settings.index), [embeddings]
    save_index(directory, index, item_ids.to_list(), model_version=version.name, day=day)
    return item_ids, blocks


def _engagement(
    workspace: Workspace, day: date, users: pl.Series, item_ids: pl.Series
) -> "tuple[NDArray[np.bool_], Ragged | None]":
    """Return a mask [items] of the items with any engagement by the end of ``day``, and each user's own items.

    The user's own items are rows of ``item_ids``, which the user isn't shown; None where repeats count.
    """
    from ml.features.event_log import row_numbers
    from ml.retrieval.lists import Ragged

    tables, landing = workspace.tables, workspace.landing
    ever = item_ids.is_in(engaged_items(tables, landing, day).implode()).to_numpy()
    if landing.manifest.repeats_count:
        return ever, None
    pairs = items_of_users(tables, landing, day, users)
    user, mine = row_numbers(users, pairs["user_id"]), row_numbers(item_ids, pairs["item_id"])
    return ever, Ragged.from_pairs(user[mine >= 0], mine[mine >= 0], len(users))


def _sample(tables: Tables, version: ModelVersion, day: date, size: int) -> pl.Series:
    """Return ``size`` users of the snapshot as of ``day``, or all of fewer, by user_id.

    The sample depends on the day only, and reads no state.
    """
    users = inferred_days(tables, version.name, day)
    if len(users) > size:
        users = users.sample(size, seed=day.toordinal()).sort("user_id")
    return users["user_id"]


@dataclass(frozen=True)
class HomeFeed:
    """The head of a version on the home feed as of a day: from states to embeddings."""

    artifact: "ModelArtifact"
    catalogue: "CatalogueTensors"  # of no item: the home feed has no subject
    people: pl.DataFrame  # users as of the day

    @classmethod
    def of(cls, workspace: Workspace, version: ModelVersion, day: date) -> "HomeFeed":
        from ml.features.items import build_item_features
        from ml.models.tensors import CatalogueTensors

        artifact, columns = workspace.item_model(version.deployed), pl.Schema(SCHEMAS[LandingTable.items])
        nothing = pl.DataFrame(schema={**columns, "listed_from": pl.Datetime("us", "UTC")})
        features = build_item_features(nothing, artifact.basis, artifact.settings.features)
        return cls(artifact, CatalogueTensors(features), users_as_of(workspace.tables, day))

    def embeddings(self, states: pl.DataFrame) -> NDArray[np.float32]:
        """Return the embeddings [users, W] of rows of a snapshot."""
        from ml.features.dataset import demographic_buckets
        from ml.models.daily_inference import user_embeddings

        users = states["user_id"]
        known = self.people.filter(pl.col("user_id").is_in(users.implode()))
        demographics = demographic_buckets(known, users)
        return user_embeddings(self.artifact, self.catalogue, vectors(states["state"]), demographics)


def snapshot_embeddings(
    workspace: Workspace, version: ModelVersion, day: date, users: pl.Series
) -> tuple[pl.Series, NDArray[np.float32]]:
    """Return those of ``users`` who have a state as of ``day``, and their embeddings [users, W] on the home feed.

    The states of others are not held in memory.
    """
    states = snapshot_of(workspace.tables, version.name, day, users)
    return states["user_id"], HomeFeed.of(workspace, version, day).embeddings(states)
