"""The index finds what brute force finds, is the same twice, and survives what happens to files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from ml.retrieval.index import (
    ItemIndex,
    ann_recall,
    build_index,
    index_kind,
    search_allowed,
    search_index,
    stored_products,
    stored_vectors,
)
from ml.retrieval.index_files import UnreadableIndexError, load_index, save_index
from ml.retrieval.lists import Ragged, search
from settings import IndexKind, IndexSettings


def embeddings(size: int, width: int = 16, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around 50 centres, as catalogues are."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(50, width))[generator.integers(0, 50, size)]
    vectors = vectors + 0.6 * generator.normal(size=(size, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@lru_cache
def filtered_index(kind: IndexKind) -> ItemIndex:
    return build_index(embeddings(12_000), IndexSettings(kind=kind))


def test_the_size_chooses_the_kind() -> None:
    settings = IndexSettings(exact_below=300, sharded_from=400)
    expected = {299: IndexKind.exact, 300: IndexKind.hnsw, 399: IndexKind.hnsw, 400: IndexKind.ivf}
    for size, kind in expected.items():
        assert index_kind(build_index(embeddings(size), settings)) is kind
    assert index_kind(build_index(embeddings(400), IndexSettings(exact_below=401, sharded_from=400))) is IndexKind.exact


def test_exact_equals_brute_force_with_exclusions() -> None:
    vectors, queries = embeddings(200), embeddings(20, seed=1)
    generator = np.random.default_rng(2)
    exclude = Ragged.from_pairs(generator.integers(0, 20, 200), generator.integers(-1, 200, 200), 20)
    index = build_index(vectors, IndexSettings())
    found, expected = search_index(index, queries, 30, exclude=exclude), search(queries, vectors, 30, exclude=exclude)
    assert np.array_equal(found.items, expected.items)
    assert np.allclose(found.scores, expected.scores, atol=1e-6)
    assert ann_recall(index, queries, vectors) == 1


def test_equal_scores_are_in_the_order_of_the_catalogue() -> None:
    """Whole numbers: no score is rounded, and many are equal."""
    generator = np.random.default_rng(3)
    vectors, queries = (generator.integers(-1, 2, (count, 4)).astype(np.float32) for count in (60, 40))
    exclude = Ragged.from_pairs(generator.integers(0, 40, 400), generator.integers(-1, 60, 400), 40)
    allowed = generator.random(60) < 0.7
    index = build_index(vectors, IndexSettings())
    hidden = Ragged.from_pairs(np.repeat(np.arange(40), (~allowed).sum()), np.tile(np.flatnonzero(~allowed), 40), 40)
    both = Ragged.from_pairs(
        np.r_[exclude.query_rows, hidden.query_rows], np.r_[exclude.items, hidden.items], exclude.queries
    )
    for found, expected in (
        (search_index(index, queries, 60, exclude=exclude), search(queries, vectors, 60, exclude=exclude)),
        (
            search_index(index, queries, 60, exclude=exclude, allowed=allowed),
            search(queries, vectors, 60, exclude=both),
        ),
    ):
        assert np.array_equal(found.items, expected.items)
        assert np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("kind", [IndexKind.exact, IndexKind.hnsw, IndexKind.ivf, IndexKind.ivf_pq])
@pytest.mark.parametrize("share", [0.9, 0.3, 0.01, 0.0005])
def test_a_filter_leaves_as_many_as_there_are(kind: IndexKind, share: float) -> None:
    """Nothing that is not allowed comes back, and no fewer than asked for where so many are allowed."""
    vectors, random = embeddings(12_000), np.random.default_rng(4)
    index, allowed = filtered_index(kind), random.random(12_000) < share
    true = 0.0
    for query in embeddings(20, seed=1):
        rows, scores = search_allowed(index, query, 50, allowed)
        assert len(rows) == len(set(rows.tolist())) == min(50, allowed.sum())
        assert allowed[rows].all()
        assert (np.diff(scores) <= 0).all()
        best = np.sort(np.where(allowed, vectors @ query, -np.inf))[::-1][: len(rows)]
        true += float((vectors[rows] @ query >= best[-1] - 1e-3).mean()) / 20
    assert true > (0.9999 if kind is IndexKind.exact else 0.97)


@pytest.mark.parametrize("kind", [IndexKind.exact, IndexKind.hnsw, IndexKind.ivf, IndexKind.ivf_pq])
def test_products_with_some_items_are_those_of_their_vectors(kind: IndexKind) -> None:
    """In any order, some twice, none at all; in a graph, where equal vectors stand once, too."""
    index, random = filtered_index(kind), np.random.default_rng(1)
    twice = build_index(np.repeat(embeddings(100), 2, axis=0), IndexSettings(kind=IndexKind.hnsw))
    for built in (index, twice):
        for count in (0, 1, 77):
            rows = random.integers(0, len(built), count)
            query = random.standard_normal(built.width).astype(np.float32)
            found = stored_products(built, rows, query)
            np.testing.assert_allclose(found, stored_vectors(built, rows) @ query, atol=1e-5)


def test_nothing_allowed_gives_nothing() -> None:
    index = build_index(embeddings(200), IndexSettings())
    rows, scores = search_allowed(index, embeddings(1)[0], 10, np.zeros(200, bool))
    assert len(rows) == len(scores) == 0


def test_items_that_look_alike_count_as_found_whichever_is_returned() -> None:
    vectors = np.repeat(embeddings(20), 30, axis=0)  # thirty copies of each: the 100th of a list is always in a tie
    shuffled = vectors[np.random.default_rng(0).permutation(len(vectors))]
    assert ann_recall(build_index(shuffled, IndexSettings()), embeddings(40, seed=3), shuffled) == 1


@pytest.mark.parametrize("kind", [IndexKind.exact, IndexKind.hnsw, IndexKind.ivf])
def test_items_of_unknown_traits_are_found_by_inner_product(kind: IndexKind) -> None:
    """An item without a category or an advertiser has a shorter embedding; it is indexed and ranked all the same."""
    vectors, queries = embeddings(2000), 3 * embeddings(40, seed=1)
    vectors[::3] *= 0.7
    assert ann_recall(build_index(vectors, IndexSettings(kind=kind)), queries, vectors) > 0.98


def test_lists_end_where_the_index_ends() -> None:
    vectors = embeddings(5)
    index = build_index(vectors, IndexSettings())
    exclude = Ragged.from_pairs([0, 0], [1, 2], 2)
    found, expected = (
        search_index(index, vectors[:2], 8, exclude=exclude),
        search(vectors[:2], vectors, 8, exclude=exclude),
    )
    assert np.array_equal(found.items, expected.items)
    assert (found.items[0] != -1).sum() == 3


def test_hnsw_recall_is_high_and_a_damaged_graph_shows() -> None:
    vectors, queries = embeddings(4000), embeddings(50, seed=3)
    index = build_index(vectors, IndexSettings(kind=IndexKind.hnsw))
    assert ann_recall(index, queries, vectors) >= 0.98
    other = build_index(embeddings(4000, seed=9), IndexSettings(kind=IndexKind.hnsw))
    assert ann_recall(other, queries, vectors) < 0.5


def test_ivf_pq_recall_is_high_and_too_few_items_are_explained() -> None:
    vectors, queries = embeddings(10_000), embeddings(50, seed=4)
    index = build_index(vectors, IndexSettings(kind=IndexKind.ivf_pq))
    assert index_kind(index) is IndexKind.ivf_pq
    assert ann_recall(index, queries, vectors) >= 0.98
    with pytest.raises(ValueError, match=r"at least 9,984 items .* there are 500: set index.kind to auto"):
        build_index(vectors[:500], IndexSettings(kind=IndexKind.ivf_pq))


@pytest.mark.parametrize("kind", [IndexKind.hnsw, IndexKind.ivf])
def test_building_gives_the_same_bytes_whatever_the_threads(kind: IndexKind) -> None:
    vectors, settings = embeddings(3000), IndexSettings(kind=kind)
    threads = faiss.omp_get_max_threads()
    built = []
    try:
        for count in (1, 4):
            faiss.omp_set_num_threads(count)
            built.append(faiss.serialize_index(build_index(vectors, settings).vectors).tobytes())
            assert faiss.omp_get_max_threads() == count
    finally:
        faiss.omp_set_num_threads(threads)
    assert built[0] == built[1]


@pytest.mark.parametrize("kind", [IndexKind.exact, IndexKind.hnsw, IndexKind.ivf])
def test_what_is_saved_is_loaded(tmp_path: Path, kind: IndexKind) -> None:
    vectors = embeddings(300)
    index = build_index(vectors, IndexSettings(kind=kind))
    ids = [f"item {row}" for row in range(300)]
    written = save_index(tmp_path / "index", index, ids, model_version="7", day="2024-03-01")
    loaded = load_index(tmp_path / "index")
    assert loaded.manifest == written
    assert (written.kind, written.size, written.dimension) == (kind.value, 300, 16)
    assert (written.model_version, written.day) == ("7", "2024-03-01")
    assert loaded.item_ids == ids
    assert np.array_equal(search_index(loaded.index, vectors, 10).items, search_index(index, vectors, 10).items)


def test_saving_again_replaces_the_index_and_leaves_nothing_else(tmp_path: Path) -> None:
    for size in (40, 30):
        save_index(
            tmp_path,
            build_index(embeddings(size), IndexSettings()),
            [str(i) for i in range(size)],
            model_version="1",
            day="d",
        )
    assert len(load_index(tmp_path).index) == 30
    assert len(list(tmp_path.iterdir())) == 3
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    save_index(
        tmp_path, build_index(embeddings(30), IndexSettings()), [str(i) for i in range(30)], model_version="1", day="d"
    )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_crash_before_the_manifest_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_index(
        tmp_path, build_index(embeddings(40), IndexSettings()), [str(i) for i in range(40)], model_version="1", day="d"
    )
    monkeypatch.setattr("ml.retrieval.index_files.IndexManifest", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_index(
            tmp_path,
            build_index(embeddings(30), IndexSettings()),
            [str(i) for i in range(30)],
            model_version="2",
            day="d",
        )
    monkeypatch.undo()
    loaded = load_index(tmp_path)
    assert (len(loaded.index), loaded.manifest.model_version) == (40, "1")


def test_damage_is_found_on_loading(tmp_path: Path) -> None:
    with pytest.raises(UnreadableIndexError, match=r"manifest.json is no index manifest"):
        load_index(tmp_path)
    manifest = save_index(
        tmp_path, build_index(embeddings(40), IndexSettings()), [str(i) for i in range(40)], model_version="1", day="d"
    )
    for name in (manifest.index_file, manifest.items_file):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UnreadableIndexError, match=f"{name} does not match the checksum"):
            load_index(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(UnreadableIndexError, match=f"{name} is missing"):
            load_index(tmp_path)
        (tmp_path / name).write_bytes(content)
    assert len(load_index(tmp_path).index) == 40
    (tmp_path / "manifest.json").write_text('{"kind": "exact"}')
    with pytest.raises(UnreadableIndexError, match="run its day again"):
        load_index(tmp_path)


def test_bad_embeddings_and_ids_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 1 of the embeddings is not finite, and 0 others"):
        build_index(np.array([[1, 0], [0, np.nan]], np.float32), IndexSettings())
    with pytest.raises(ValueError, match="at least one item"):
        build_index(np.zeros((0, 4), np.float32), IndexSettings())
    with pytest.raises(ValueError, match="3 rows but 2 item ids"):
        save_index(
            tmp_path, build_index(np.eye(3, dtype=np.float32), IndexSettings()), ["a", "b"], model_version="1", day="d"
        )
    with pytest.raises(ValueError, match="at least one query"):
        ann_recall(build_index(np.eye(3, dtype=np.float32), IndexSettings()), embeddings(0, 3), embeddings(3, 3))
