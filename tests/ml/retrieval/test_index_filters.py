"""The index under filters: a filter costs time and no recall, and one user's long history costs that user's search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from ml.retrieval.index import (
    ItemIndex,
    allowed_recall,
    ann_recall,
    build_index,
    search_allowed,
    search_index,
    stored_vectors,
)
from ml.retrieval.index_files import load_index, save_index
from ml.retrieval.lists import Ragged, search
from settings import IndexKind, IndexSettings

ITEMS, WIDTH, CLUSTERS = 10_000, 8, 20
CATALOGUES = ("tight clusters", "loose clusters", "a third identical", "a third nearly identical", "twenty vectors")
FILTERS: dict[str, Callable[[Catalogue, int], NDArray[np.bool_]]] = {
    "nothing": lambda catalogue, cluster: np.ones(ITEMS, bool),
    "the query's own advertiser": lambda catalogue, cluster: catalogue.cluster != cluster,
    "the three nearest advertisers": lambda catalogue, cluster: ~np.isin(catalogue.cluster, catalogue.nearest(cluster)),
    "all but the farthest advertiser": lambda catalogue, cluster: catalogue.cluster == catalogue.farthest(cluster),
    "a price range": lambda catalogue, cluster: catalogue.vectors[:, 0] > catalogue.centres[cluster, 0],
    "nine of ten": lambda catalogue, cluster: catalogue.lot < 0.1,
    "all but one in a thousand": lambda catalogue, cluster: catalogue.lot < 0.001,
    "all but one": lambda catalogue, cluster: np.arange(ITEMS) == 17,
    "one in ten": lambda catalogue, cluster: catalogue.lot > 0.1,
}
"""What each filter takes away."""


@dataclass(frozen=True)
class Catalogue:
    """Unit vectors around centres, as those of advertisers."""

    vectors: NDArray[np.float32]  # [items, width]
    cluster: NDArray[np.int64]  # [items]
    centres: NDArray[np.float64]  # [clusters, width]
    lot: NDArray[np.float64]  # [items] uniform
    spread: float

    def nearest(self, cluster: int) -> NDArray[np.int64]:
        return np.argsort(-(self.centres @ self.centres[cluster]))[:3]

    def farthest(self, cluster: int) -> int:
        return int(np.argmin(self.centres @ self.centres[cluster]))

    def query(self, cluster: int, random: np.random.Generator) -> NDArray[np.float32]:
        return unit(self.centres[cluster] + self.spread * random.normal(size=WIDTH))


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def made(name: str) -> Catalogue:
    random = np.random.default_rng(1)
    centres, cluster = unit(random.normal(size=(CLUSTERS, WIDTH))), random.integers(0, CLUSTERS, ITEMS)
    spread = 0.15 if name == "tight clusters" else 0.3
    vectors = unit(centres[cluster] + spread * random.normal(size=(ITEMS, WIDTH)))
    third = ITEMS // 3
    if name == "a third identical":
        vectors[:third] = vectors[0]
    if name == "a third nearly identical":
        vectors[:third] = unit(vectors[0] + 1e-4 * random.normal(size=(third, WIDTH)))
    if name == "twenty vectors":
        vectors = unit(centres.astype(np.float64))[cluster]
    return Catalogue(vectors, cluster, centres.astype(np.float64), random.random(ITEMS), spread)


@lru_cache
def indexed(name: str, kind: IndexKind) -> tuple[Catalogue, ItemIndex]:
    catalogue = made(name)
    return catalogue, build_index(catalogue.vectors, IndexSettings(kind=kind))


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in CATALOGUES for kind in (IndexKind.hnsw, IndexKind.ivf)),
        ("tight clusters", IndexKind.ivf_pq),
    ],
)
def test_a_filter_takes_away_no_recall(name: str, kind: IndexKind, filter_: str) -> None:
    catalogue, index = indexed(name, kind)
    random, recalls = np.random.default_rng(2), []
    for asked in range(CLUSTERS):
        query, allowed = catalogue.query(asked, random), FILTERS[filter_](catalogue, asked)
        rows, scores = search_allowed(index, query, 50, allowed)
        assert len(rows) == len(set(rows.tolist())) == min(50, allowed.sum())
        assert allowed[rows].all()
        np.testing.assert_allclose(
            scores, catalogue.vectors[rows] @ query, atol=1e-2 if kind is IndexKind.ivf_pq else 1e-5
        )
        recalls.append(allowed_recall(index, query, catalogue.vectors, allowed=allowed, k=50))
    assert np.mean(recalls) >= 0.98
    assert min(recalls) >= 0.9


def test_an_index_of_other_vectors_shows_under_a_filter() -> None:
    catalogue, _ = indexed("loose clusters", IndexKind.exact)
    other = build_index(catalogue.vectors[::-1], IndexSettings())
    query, allowed = catalogue.query(3, np.random.default_rng(7)), catalogue.lot < 0.5
    assert allowed_recall(other, query, catalogue.vectors, allowed=allowed, k=50) < 0.5
    assert allowed_recall(other, query, catalogue.vectors, allowed=np.zeros(ITEMS, bool), k=50) == 1


@pytest.mark.parametrize("kind", [IndexKind.hnsw, IndexKind.ivf])
@pytest.mark.parametrize("name", CATALOGUES)
def test_lists_of_many_queries_find_what_brute_force_finds(name: str, kind: IndexKind) -> None:
    catalogue, index = indexed(name, kind)
    random = np.random.default_rng(3)
    queries = np.stack([catalogue.query(cluster, random) for cluster in range(CLUSTERS)])
    assert ann_recall(index, queries, catalogue.vectors, 50) >= 0.98


@pytest.mark.parametrize("kind", [IndexKind.exact, IndexKind.hnsw, IndexKind.ivf])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.004, 0.0])
def test_lists_among_the_allowed_are_those_of_each_query_alone(kind: IndexKind, share: float) -> None:
    """With histories of any length, also of everything that is allowed."""
    catalogue, index = indexed("a third identical", kind)
    random = np.random.default_rng(4)
    allowed = random.random(ITEMS) < share
    owners = np.repeat(np.arange(6), [0, 3, 40, 1000, ITEMS, 1])
    own = [random.permutation(ITEMS)[:count] for count in (0, 3, 40, 1000, ITEMS)]
    exclude = Ragged.from_pairs(owners, np.concatenate([*own, [-1]]), 6)
    queries = np.stack([catalogue.query(cluster, random) for cluster in range(6)])
    found = search_index(index, queries, 20, exclude=exclude, allowed=allowed)
    hidden = [np.union1d(np.flatnonzero(~allowed), np.asarray(each, np.int64)) for each in [*own, []]]
    pairs = np.repeat(np.arange(6), [len(each) for each in hidden]), np.concatenate(hidden).astype(np.int64)
    expected = search(queries, catalogue.vectors, 20, exclude=Ragged.from_pairs(*pairs, 6))
    assert np.array_equal(found.items == -1, expected.items == -1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6 if kind is IndexKind.exact else 1e-3)
    for query in range(6):
        rows = found.items[query][found.items[query] >= 0]
        assert not np.isin(rows, hidden[query]).any()
        np.testing.assert_allclose(
            catalogue.vectors[rows] @ queries[query], found.scores[query][: len(rows)], atol=1e-5
        )


def test_a_long_history_is_searched_for_its_own_user_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in retrieved slots: the lists of everybody else stay as short as without that user."""
    catalogue, index = indexed("loose clusters", IndexKind.exact)
    random, users = np.random.default_rng(6), 300
    queries = np.stack([catalogue.query(user % CLUSTERS, random) for user in range(users)])
    retrieved: list[int] = []
    whole = faiss.IndexFlatIP.search

    def counted(self: faiss.IndexFlatIP, x: NDArray[np.float32], k: int, **rest: Any) -> object:
        retrieved.append(len(x) * k)
        return whole(self, x, k, **rest)

    monkeypatch.setattr(faiss.IndexFlatIP, "search", counted)
    for giant in (20, 4000):
        user = np.concatenate([np.zeros(giant, np.int64), np.repeat(np.arange(1, users), 20)])
        item = np.concatenate([random.permutation(ITEMS)[:giant], random.integers(0, ITEMS, 20 * (users - 1))])
        search_index(index, queries, 50, exclude=Ragged.from_pairs(user, item, users))
    ordinary = users * (50 + 20)
    assert ordinary <= sum(retrieved[:1])
    assert sum(retrieved) <= 2 * ordinary + 50 + 2 * 4000


def test_equal_vectors_come_back_from_disk(tmp_path: Path) -> None:
    catalogue, index = indexed("twenty vectors", IndexKind.hnsw)
    save_index(tmp_path, index, [f"item {row}" for row in range(ITEMS)], model_version="1", day="2024-03-01")
    loaded = load_index(tmp_path)
    assert (len(loaded.index), loaded.manifest.size, loaded.index.vectors.ntotal) == (ITEMS, ITEMS, CLUSTERS)
    rows = np.array([0, 17, ITEMS - 1])
    np.testing.assert_array_equal(stored_vectors(loaded.index, rows), catalogue.vectors[rows])
    query = catalogue.query(3, np.random.default_rng(0))
    one, other = (search_allowed(each, query, 30, np.ones(ITEMS, bool)) for each in (index, loaded.index))
    assert np.array_equal(one[0], other[0])
    assert (np.diff(one[0])[np.diff(one[1]) == 0] > 0).all()  # of equal scores the lower row comes first


def test_an_index_without_the_column_of_vectors_has_one_a_row(tmp_path: Path) -> None:
    import polars as pl

    vectors = made("loose clusters").vectors[:50]
    manifest = save_index(
        tmp_path, build_index(vectors, IndexSettings()), [str(row) for row in range(50)], model_version="1", day="d"
    )
    items = tmp_path / manifest.items_file
    pl.read_parquet(items).select("item_id").write_parquet(items)
    changed = (tmp_path / "manifest.json").read_text().replace(manifest.items_sha256, checksum(items))
    (tmp_path / "manifest.json").write_text(changed)
    assert np.array_equal(stored_vectors(load_index(tmp_path).index, np.arange(50)), vectors)


def checksum(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
