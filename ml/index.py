"""The approximate nearest-neighbour index: building, searching, checking and keeping it on disk.

All indexes rank by inner product. Embeddings may differ in length: that of an item of which a trait is unknown is
shorter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.retrieval import NO_ITEM, Ragged, RankedLists, search
from ml.unreadable import Unreadable
from settings import IndexKind, IndexSettings

HNSW_LINKS = 32  # edges a node; 64 at the bottom
HNSW_BUILD_BREADTH = 200
HNSW_SEARCH_BREADTH = 512
REQUEST_BREADTH = 150
PQ_BITS = 8
PQ_TRAINING_ITEMS = 39 << PQ_BITS  # FAISS wants 39 training vectors for each of the 2 ** 8 centroids
FEW_ALLOWED_SHARE = 0.05  # below it, comparing all allowed vectors is as fast as walking the graph
PQ_REFINE_FACTOR = 8  # candidates scored again with the full vectors, over the list length
IVF_PROBED_SHARE = 0.5
MANIFEST = "manifest.json"
TIE = 1e-6  # scores this near to each other count as equal: they differ by rounding


class UnreadableIndexError(Unreadable):
    """An index on disk is missing, incomplete or damaged."""


@dataclass(frozen=True)
class Manifest:
    """What an index directory holds; written last, so a directory with a manifest is complete."""

    kind: str
    size: int
    dimension: int
    model_version: str
    day: str
    index_file: str
    index_sha256: str
    items_file: str
    items_sha256: str


@dataclass(frozen=True)
class LoadedIndex:
    """An index with the item ids of its rows, in order."""

    index: faiss.Index
    item_ids: list[str]
    manifest: Manifest


def build_index(embeddings: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """An index over ``embeddings`` [items, width], one row an item. The same input gives the same index.

    Raises:
        ValueError: no item, a number that is none, or too few items to train the product quantiser of IVF-PQ.
    """
    vectors = np.ascontiguousarray(embeddings, np.float32)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"an index needs embeddings [items, width] of at least one item, got {vectors.shape}")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"row {wrong[0]} of the embeddings is not finite, and {len(wrong) - 1} others: the training diverged, or "
            "an item feature is not finite. No index was built; train again with a lower learning rate."
        )
    kind = settings.kind
    if kind is IndexKind.auto:
        kind = IndexKind.exact if len(vectors) < settings.exact_below else IndexKind.hnsw
    # Threads that insert side by side may do so in another order each time, which gives another graph.
    with _one_thread():
        index = _empty_index(kind, vectors)
        index.add(vectors)
    return index


def index_kind(index: faiss.Index) -> IndexKind:
    """The family an index belongs to."""
    kinds = {faiss.IndexFlat: IndexKind.exact, faiss.IndexHNSW: IndexKind.hnsw, faiss.IndexRefine: IndexKind.ivf_pq}
    return next(kind for family, kind in kinds.items() if isinstance(index, family))


def search_index(
    index: faiss.Index, queries: NDArray[np.float32], depth: int, exclude: Ragged | None = None
) -> RankedLists:
    """Lists of ``depth`` from the index, without the excluded items of each query.

    So many more are retrieved as the longest exclusion has items; the excluded are then dropped and the rest moves up.
    """
    vectors = np.ascontiguousarray(queries, np.float32)
    extra = int(exclude.counts.max(initial=0)) if exclude is not None else 0
    wanted = min(depth + extra, index.ntotal)
    scores, items = index.search(vectors, wanted, params=_search_parameters(index, wanted))
    items, scores = items.astype(np.int64), np.where(items == NO_ITEM, -np.inf, scores).astype(np.float32)
    if exclude is not None and len(exclude.items):
        hidden = _member(items, exclude, index.ntotal)
        items, scores = np.where(hidden, NO_ITEM, items), np.where(hidden, np.float32(-np.inf), scores)
    # The stated tie rule: higher score, then lower row; ended slots last.
    order = np.lexsort((items, -scores), axis=1)[:, :depth]
    ended = depth - order.shape[1]
    return RankedLists(
        np.pad(np.take_along_axis(items, order, 1), ((0, 0), (0, ended)), constant_values=NO_ITEM),
        np.pad(np.take_along_axis(scores, order, 1), ((0, 0), (0, ended)), constant_values=-np.inf),
    )


def search_allowed(
    index: faiss.Index, query: NDArray[np.float32], depth: int, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best of the allowed items for one query: rows and scores, best first; ``depth`` of them where so many are.

    The filter goes into the search. Where it leaves few items, or the graph or the lists do not lead to enough of them,
    all allowed vectors are compared.

    Args:
        query: [width]. allowed: [items].
    """
    wanted = min(depth, int(allowed.sum()))
    if not wanted:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    bits = np.packbits(allowed, bitorder="little")
    library: Any = faiss
    selector = library.IDSelectorBitmap(len(allowed), library.swig_ptr(bits))
    vector = np.ascontiguousarray(query[None], np.float32)
    exact = library.SearchParameters(sel=selector)
    if allowed.mean() < FEW_ALLOWED_SHARE or index_kind(index) is IndexKind.exact:
        scores, rows = _flat(index).search(vector, wanted, params=exact)
    else:
        scores, rows = index.search(
            vector, wanted, params=_filtered_parameters(index, wanted, selector, allowed.mean())
        )
        if (rows == NO_ITEM).any():
            scores, rows = _flat(index).search(vector, wanted, params=exact)
    order = np.lexsort((rows[0], -scores[0]))
    return rows[0][order].astype(np.int64), scores[0][order].astype(np.float32)


def stored_vectors(index: faiss.Index, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The embeddings [rows, width] that an index holds; of IVF-PQ those in half precision."""
    return np.asarray(_flat(index).reconstruct_batch(np.ascontiguousarray(rows, np.int64)))


def _flat(index: faiss.Index) -> Any:
    """The vectors of an index, to be compared one by one: in full, or of IVF-PQ those in half precision."""
    library: Any = faiss
    kind = index_kind(index)
    if kind is IndexKind.hnsw:
        return library.downcast_index(library.downcast_index(index).storage)
    if kind is IndexKind.ivf_pq:
        return library.downcast_index(library.downcast_index(index).refine_index)
    return index


def ann_recall(
    index: faiss.Index, queries: NDArray[np.float32], embeddings: NDArray[np.float32], k: int = 100
) -> float:
    """The share of the true ``k`` nearest items (brute force) that the index finds, over all queries.

    A found item counts when it scores as high as the k-th true one: items that look alike (new ones of one category)
    tie, and which of them is returned is no fault of the index.

    Raises:
        ValueError: there are no queries to check with.
    """
    if not len(queries):
        raise ValueError("the recall of an index needs at least one query")
    wanted = min(k, index.ntotal)
    last_true_score = search(queries, embeddings, wanted).scores[:, -1:]
    found = search_index(index, queries, wanted).items
    scores = np.einsum("qd,qkd->qk", queries, embeddings[np.maximum(found, 0)])
    return float(np.mean((found != NO_ITEM) & (scores >= last_true_score - TIE)))


def save_index(
    directory: Path, index: faiss.Index, item_ids: Sequence[str], model_version: str, day: date | str
) -> Manifest:
    """Write the index into ``directory``, replacing the one there in one atomic step.

    The files carry their checksum in their names and the manifest names the files, so replacing the manifest is the
    moment at which the new index takes over; a crash before it leaves the old index as it was.

    Raises:
        ValueError: not one item id a row.
    """
    if len(item_ids) != index.ntotal:
        raise ValueError(f"the index has {index.ntotal} rows but {len(item_ids)} item ids were given")
    directory.mkdir(parents=True, exist_ok=True)
    unnamed = directory / f".index.{os.getpid()}.tmp"
    faiss.write_index(index, str(unnamed))
    index_file, index_sha256 = _named_by_checksum(unnamed, "index", "faiss")
    pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)}).write_parquet(unnamed)
    items_file, items_sha256 = _named_by_checksum(unnamed, "items", "parquet")
    manifest = Manifest(
        kind=index_kind(index).value,
        size=index.ntotal,
        dimension=index.d,
        model_version=model_version,
        day=str(day),
        index_file=index_file,
        index_sha256=index_sha256,
        items_file=items_file,
        items_sha256=items_sha256,
    )
    unnamed.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    _flush(unnamed)
    os.replace(unnamed, directory / MANIFEST)
    _flush(directory)
    for file in directory.iterdir():
        if file.name not in (MANIFEST, index_file, items_file):
            file.unlink()
    return manifest


def load_index(directory: Path) -> LoadedIndex:
    """The index that ``save_index`` wrote.

    Raises:
        UnreadableIndexError: no complete index there, or a file does not match its checksum.
    """
    manifest = verify_index(directory)
    index = faiss.read_index(str(directory / manifest.index_file))
    item_ids = pl.read_parquet(directory / manifest.items_file)["item_id"].to_list()
    return LoadedIndex(index, item_ids, manifest)


def verify_index(directory: Path) -> Manifest:
    """Check the files of an index against the checksums of its manifest; return the manifest. Loads no vector.

    Raises:
        UnreadableIndexError: no complete index there, or a file does not match its checksum.
    """
    again = f"run its day again (adseq run --days {directory.name} --again)"
    try:
        manifest = Manifest(**json.loads((directory / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UnreadableIndexError(f"{directory / MANIFEST} is no index manifest ({error}): {again}") from error
    checksums = {manifest.index_file: manifest.index_sha256, manifest.items_file: manifest.items_sha256}
    for name, expected in checksums.items():
        if not (directory / name).is_file():
            raise UnreadableIndexError(f"{directory / name} is missing: {again}")
        if _sha256(directory / name) != expected:
            raise UnreadableIndexError(f"{directory / name} does not match the checksum in {MANIFEST}: {again}")
    return manifest


def _empty_index(kind: IndexKind, vectors: NDArray[np.float32]) -> faiss.Index:
    """An index that is ready for ``add``; trained on ``vectors`` where the family needs it."""
    size, width = vectors.shape
    if kind is IndexKind.exact:
        return faiss.IndexFlatIP(width)
    if kind is IndexKind.hnsw:
        graph = faiss.IndexHNSWFlat(width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = HNSW_BUILD_BREADTH
        return graph
    if size < PQ_TRAINING_ITEMS:
        raise ValueError(
            f"IVF-PQ needs at least {PQ_TRAINING_ITEMS:,} items to train its {1 << PQ_BITS} centroids a code, there "
            f"are {size:,}: set index.kind to auto (exact at this size), exact or hnsw"
        )
    # About four dimensions a code; FAISS wants codes of equal width.
    codes = next(codes for codes in range(max(1, width // 4), 0, -1) if width % codes == 0)
    lists = min(int(4 * np.sqrt(size)), size // 39)
    # The codes find the candidates, the vectors kept beside them (in half precision) put them in order.
    index = faiss.index_factory(width, f"IVF{lists},PQ{codes}x{PQ_BITS}np,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    return index


def _search_parameters(index: faiss.Index, depth: int, selector: Any = None) -> Any:
    """How broadly to search an index for lists of ``depth``, among the rows that ``selector`` lets through; None for
    exact search of all, which has nothing to choose."""
    library: Any = faiss  # its type stubs do not know the arguments of these classes
    kind = index_kind(index)
    chosen = {} if selector is None else {"sel": selector}
    if kind is IndexKind.hnsw:
        return library.SearchParametersHNSW(efSearch=max(HNSW_SEARCH_BREADTH, 2 * depth), **chosen)
    if kind is IndexKind.ivf_pq:
        lists = library.extract_index_ivf(library.downcast_index(index).base_index).nlist
        probed = library.SearchParametersIVF(nprobe=max(1, round(lists * IVF_PROBED_SHARE)), **chosen)
        return library.IndexRefineSearchParameters(k_factor=PQ_REFINE_FACTOR, base_index_params=probed)
    return None


def _filtered_parameters(index: faiss.Index, depth: int, selector: Any, share: float) -> Any:
    """As ``_search_parameters``, for one request that waits: of a graph three times the list is explored, and as much
    more as the filter takes away (100,000 items: .997 of the true 50 in 0.4 ms; in a report's breadth .998 in 1.2)."""
    library: Any = faiss
    if index_kind(index) is IndexKind.hnsw:
        breadth = max(REQUEST_BREADTH, 3 * depth)
        return library.SearchParametersHNSW(efSearch=int(breadth / share), sel=selector)
    return _search_parameters(index, depth, selector)


def _member(items: NDArray[np.int64], exclude: Ragged, size: int) -> NDArray[np.bool_]:
    """Whether each of ``items`` [queries, depth] is among its query's excluded items."""
    offset = np.arange(len(items), dtype=np.int64) * size
    known = exclude.items != NO_ITEM
    hidden = (exclude.items + offset[exclude.query_rows])[known]
    return np.isin(np.where(items == NO_ITEM, NO_ITEM, items + offset[:, None]), hidden)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _named_by_checksum(file: Path, stem: str, suffix: str) -> tuple[str, str]:
    """Make ``file`` durable under a name that holds its checksum; the name and the checksum."""
    _flush(file)
    checksum = _sha256(file)
    name = f"{stem}-{checksum[:12]}.{suffix}"
    os.replace(file, file.with_name(name))
    return name, checksum


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
