"""The parts of a stage fill the shards of an index: the same however it is cut, and nothing of it on a failure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from assets.common.workspace import Workspace
from assets.steps.encode import ITEM_EMBEDDINGS, index_day
from assets.steps.filtered_recall import recall_under_filters
from assets.steps.index_shards import StoredEmbeddings, build_sharded, shards_of
from assets.steps.versions import item_versions
from engine.engine import Part, Rows, Stage
from engine.local import LocalEngine
from ml.retrieval.index import build_index, search_index, stored_vectors
from ml.retrieval.index_files import load_index, save_index
from settings import IndexKind, IndexSettings, Settings
from tests.assets.world import SETTINGS, copy_of
from tests.flow import DAYS, Ran
from warehouse.tables import Tables, vector_column

DAY, ITEMS = date(2024, 3, 1), 9000


class DiesAfterOne(LocalEngine):
    """An engine whose second part fails; the first has written its file."""

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Rows:
        yield next(super().run(stage, parts))
        raise MemoryError("a node has no memory left")


def embeddings(seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(30, 8))[random.integers(0, 30, ITEMS)] + 0.5 * random.normal(size=(ITEMS, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def stored_in(root: Path, matrix: NDArray[np.float32], order: NDArray[np.int64] | None = None) -> StoredEmbeddings:
    """Write embeddings [items, width] as a day's, in ``order`` [items], and another version's and another day's."""
    tables, rows = Tables(root / "tables"), np.arange(len(matrix)) if order is None else order
    ids = pl.Series("item_id", [f"item {row:05}" for row in rows], pl.String)
    frame = pl.DataFrame([ids, vector_column("embedding", matrix[rows])])
    for version, day in (("1", date(2024, 2, 29)), ("1", DAY), ("2", DAY)):
        scale = 1.0 if (version, day) == ("1", DAY) else 2.0
        mine = frame.with_columns(vector_column("embedding", scale * matrix[rows]))
        tables.write(ITEM_EMBEDDINGS, mine, {"model_version": version, "day": day})
    return StoredEmbeddings(tables.newest(ITEM_EMBEDDINGS), "1", DAY)


def written(stored: StoredEmbeddings, directory: Path, shard_items: int) -> bytes:
    """Build and save the index; return the bytes of its file."""
    item_ids = stored.item_ids()
    index = build_sharded(LocalEngine(), stored, shards_of(item_ids, shard_items), directory=directory)
    assert not list(directory.parent.glob("**/*.tmp"))
    manifest = save_index(directory, index, item_ids.to_list(), model_version="1", day=DAY)
    assert (manifest.kind, manifest.size, manifest.dimension) == ("ivf", len(item_ids), 8)
    assert len(list(directory.iterdir())) == 3
    return (directory / manifest.index_file).read_bytes()


def test_neither_the_shards_nor_the_order_of_the_table_change_a_byte(tmp_path: Path) -> None:
    matrix = embeddings()
    ordered = stored_in(tmp_path / "ordered", matrix)
    shuffled = stored_in(tmp_path / "shuffled", matrix, np.random.default_rng(1).permutation(ITEMS))
    expected = written(ordered, tmp_path / "index", 1 << 17)
    assert written(ordered, tmp_path / "index of three", 4096) == expected
    assert written(shuffled, tmp_path / "index of an unordered table", 4096) == expected
    loaded = load_index(tmp_path / "index of three")
    assert loaded.item_ids == [f"item {row:05}" for row in range(ITEMS)]
    np.testing.assert_array_equal(stored_vectors(loaded.index, np.arange(ITEMS)), matrix)
    here = build_index(matrix, IndexSettings(kind=IndexKind.ivf))
    found, lists = (search_index(each, matrix[:50], 20) for each in (loaded.index, here))
    np.testing.assert_array_equal(found.items, lists.items)
    np.testing.assert_array_equal(found.scores, lists.scores)


def test_a_part_that_fails_leaves_the_index_of_before_and_no_file(tmp_path: Path) -> None:
    stored, directory = stored_in(tmp_path, embeddings()), tmp_path / "indexes" / "index"
    shards = shards_of(stored.item_ids(), 4096)
    with pytest.raises(MemoryError, match="no memory left"):
        build_sharded(DiesAfterOne(), stored, shards, directory=directory)
    assert not directory.exists()
    before = build_index(embeddings(1)[:50], IndexSettings())
    save_index(directory, before, [str(row) for row in range(50)], model_version="0", day=DAY)
    files = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(MemoryError, match="no memory left"):
        build_sharded(DiesAfterOne(), stored, shards, directory=directory)
    assert {path: path.read_bytes() for path in directory.iterdir()} == files
    assert len(load_index(directory).index) == 50


def test_no_index_of_numbers_that_are_not_finite_or_of_no_item(tmp_path: Path) -> None:
    matrix = embeddings()
    matrix[[8000, 8500], 3] = np.nan
    stored = stored_in(tmp_path, matrix)
    with pytest.raises(ValueError, match="row 8000 of the embeddings is not finite, and 1 others"):
        build_sharded(LocalEngine(), stored, shards_of(stored.item_ids(), 4096), directory=tmp_path / "index")
    with pytest.raises(ValueError, match="at least one item"):
        build_sharded(LocalEngine(), stored, [], directory=tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.slow
def test_a_day_of_many_items_has_a_sharded_index(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lists are those of the day's exact index, and its checks pass."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    home, day = copy_of(ran.home, tmp_path / "home"), DAYS[-1]
    lists = []
    for kind, exact_below in ((IndexKind.exact, 1000), (IndexKind.ivf, 0)):
        monkeypatch.setenv("ADSEQ_INDEX__EXACT_BELOW", str(exact_below))
        monkeypatch.setenv("ADSEQ_INDEX__SHARDED_FROM", "50")
        workspace = Workspace(Settings(home=home.root))
        [version] = item_versions(workspace.tables, workspace.home).all()
        built = index_day(workspace, version, day)
        assert built.kind == kind.value
        assert built.recall > 0.98
        assert all(each.recall > 0.98 for each in recall_under_filters(workspace, version, day, built))
        lists.append(search_index(load_index(Path(built.directory)).index, built.queries, 20))
    exact, sharded = lists
    assert (exact.items == sharded.items).mean() > 0.98
    np.testing.assert_allclose(exact.scores[:, 0], sharded.scores[:, 0], atol=1e-4)
