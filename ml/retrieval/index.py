"""The nearest-neighbour index: building it, and searching it with and without filters.

All indexes rank by inner product. Embeddings may differ in length: an item with an unknown trait has a shorter one.
``ml.retrieval.index_files`` keeps an index on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ml.retrieval.lists import NO_ITEM, Ragged, RankedLists, search
from ml.retrieval.sharded_index import compared, exact_parameters, filled_index, list_parameters, one_thread
from settings import IndexKind, IndexSettings

HNSW_LINKS = 32  # edges a node; 64 at the bottom
HNSW_BUILD_BREADTH = 200
HNSW_SEARCH_BREADTH = 512
REQUEST_BREADTH = 150  # 100,000 items: .997 of the true 50 in 0.4 ms
COMPARISONS_A_BREADTH = 16  # allowed vectors that an exact search compares in the time of one step of the graph's
PQ_BITS = 8
PQ_TRAINING_ITEMS = 39 << PQ_BITS  # FAISS wants 39 training vectors for each of the 2 ** 8 centroids
PQ_REFINE_FACTOR = 8  # candidates scored again with the full vectors, over the list length
IVF_PROBED_SHARE = 0.5
TIE = 1e-6  # scores this near to each other count as equal: they differ by rounding
SHORT_EXCLUSION = 32  # excluding fewer items than this costs the same
SLOTS_IN_MEMORY = 1 << 22  # retrieved items held at once, in a search of many queries
MARKS_IN_MEMORY = 1 << 24  # bytes: which items of the catalogue some queries exclude

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows and their scores."""


@dataclass(frozen=True)
class ItemIndex:
    """Vectors that can be searched, and the items that have them.

    Equal vectors stand once in an HNSW graph. More equal vectors than a node has links would be linked only with each
    other, and the search would not find its way past them.

    Attributes:
        vectors: V vectors.
        items: the item rows of each vector, ascending; every item is in one of the V lists.
        vector_of: [items] the vector of each item row.
    """

    vectors: faiss.Index
    items: Ragged
    vector_of: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: faiss.Index, vector_of: NDArray[np.int64]) -> ItemIndex:
        """Return the index of the items whose vectors are the rows ``vector_of`` [items] of ``vectors``.

        Raises:
            ValueError: an item has no vector.
        """
        if len(vector_of) and not 0 <= vector_of.min() <= vector_of.max() < vectors.ntotal:
            raise ValueError(f"an item names a vector outside the {vectors.ntotal} that there are")
        return cls(vectors, Ragged.from_pairs(vector_of, np.arange(len(vector_of)), vectors.ntotal), vector_of)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.vector_of)

    @property
    def width(self) -> int:
        """Return the width of a vector."""
        return int(self.vectors.d)

    @property
    def is_distinct(self) -> bool:
        """Return whether no two items share a vector; item rows are then vector rows."""
        return len(self) == self.vectors.ntotal

    def allowed_vectors(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the vectors [V] that at least one allowed item [items] has."""
        if self.is_distinct:
            return allowed
        found = np.zeros(self.vectors.ntotal, bool)
        found[self.vector_of[allowed]] = True
        return found

    def expanded(self, found: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
        """Return the items of the found vectors, each with its vector's score; -1 is no vector."""
        known = found != NO_ITEM
        found, scores = found[known].astype(np.int64), scores[known]
        if self.is_distinct:
            return found, scores
        lists = self.items.take(found)
        return lists.items, np.repeat(scores, lists.counts)


def chosen_kind(items: int, settings: IndexSettings) -> IndexKind:
    """Return the family of an index over so many items: that of the settings, or the one that ``auto`` takes."""
    if settings.kind is not IndexKind.auto:
        return settings.kind
    if items < settings.exact_below:
        return IndexKind.exact
    return IndexKind.hnsw if items < settings.sharded_from else IndexKind.ivf


def finite_rows(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return whether each row of ``embeddings`` [items, width] holds finite numbers only."""
    return np.asarray(np.isfinite(embeddings).all(axis=1))


def require_finite(finite: NDArray[np.bool_]) -> None:
    """Check that embeddings are finite, whose ``finite_rows`` [items] are given.

    Raises:
        ValueError: a row holds a number that is not finite.
    """
    wrong = np.flatnonzero(~finite)
    if len(wrong):
        raise ValueError(
            f"row {wrong[0]} of the embeddings is not finite, and {len(wrong) - 1} others: the training diverged, or "
            "an item feature is not finite. No index was built; train again with a lower learning rate."
        )


def build_index(embeddings: NDArray[np.float32], settings: IndexSettings) -> ItemIndex:
    """Return an index over ``embeddings`` [items, width], one row an item. The same input gives the same index.

    Raises:
        ValueError: no item, a number that is not finite, or too few items to train the product quantiser of IVF-PQ.
    """
    vectors = np.ascontiguousarray(embeddings, np.float32)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"an index needs embeddings [items, width] of at least one item, got {vectors.shape}")
    require_finite(finite_rows(vectors))
    kind, vector_of = chosen_kind(len(vectors), settings), np.arange(len(vectors))
    if kind is IndexKind.ivf:
        return ItemIndex.of(filled_index(vectors), vector_of)
    if kind is IndexKind.hnsw:
        first, vector_of = _first_of_equals(vectors)
        vectors = vectors[first]
    # Threads that insert side by side may do so in another order each time, which gives another graph.
    with one_thread():
        index = _empty_index(kind, vectors)
        index.add(vectors)
    return ItemIndex.of(index, vector_of)


def index_kind(index: ItemIndex) -> IndexKind:
    """Return the family of an index."""
    kinds = {
        faiss.IndexFlat: IndexKind.exact,
        faiss.IndexHNSW: IndexKind.hnsw,
        faiss.IndexIVFFlat: IndexKind.ivf,
        faiss.IndexRefine: IndexKind.ivf_pq,
    }
    return next(kind for family, kind in kinds.items() if isinstance(index.vectors, family))


def search_index(
    index: ItemIndex,
    queries: NDArray[np.float32],
    depth: int,
    *,
    exclude: Ragged | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> RankedLists:
    """Return lists of ``depth`` for many queries, without the excluded items of each query.

    Queries with about as many excluded items are searched together. For each of these queries the search retrieves
    ``depth`` items, and as many more as the longest exclusion among them has. So one user with a long history does not
    slow down the lists of the others.

    Args:
        queries: [queries, width]. exclude: item rows by query; -1 is ignored. allowed: [items], the same for all.
    """
    own = exclude or Ragged.from_pairs([], [], len(queries))
    if allowed is not None:
        return _search_among(index, queries, depth, own=own, allowed=allowed)
    lists = _no_lists(len(queries), depth)
    for rows in _alike(own.counts, depth):
        found = _retrieved(index, queries[rows], depth, own.take(rows))
        lists.items[rows], lists.scores[rows] = found.items, found.scores
    ended = np.flatnonzero(lists.items[:, -1] == NO_ITEM)
    short = ended[[len(index) - len(_distinct(own, query)) > _held(lists, query) for query in ended.tolist()]]
    return _searched_singly(index, queries, own, allowed=np.ones(len(index), bool), lists=lists, chosen=short)


def search_allowed(index: ItemIndex, query: NDArray[np.float32], depth: int, allowed: NDArray[np.bool_]) -> Found:
    """Return the best of the allowed items for one query, best first: ``depth`` items, or all where fewer are allowed.

    An approximate index is first searched without the filter, and this answer counts if enough of the nearest items are
    allowed. Otherwise all allowed vectors are compared. So a filter that removes the neighbourhood of the query costs
    time, and no recall.

    Args:
        query: [width]. allowed: [items].
    """
    usable = int(np.count_nonzero(allowed))
    wanted = min(depth, usable)
    if not wanted:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    vector = np.ascontiguousarray(query[None], np.float32)
    found = _nearby(index, vector, wanted, usable=usable)
    if found is not None:
        rows, scores = _allowed_of(index, found, allowed)
    if found is None or len(rows) < wanted:
        rows, scores = _allowed_of(index, _compared(index, vector, wanted, allowed), allowed)
    order = np.lexsort((rows, -scores))[:wanted]
    return rows[order], scores[order]


def stored_vectors(index: ItemIndex, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the embeddings [rows, width] that an index holds; IVF-PQ holds them in half precision."""
    return np.asarray(_flat(index).reconstruct_batch(np.ascontiguousarray(index.vector_of[rows], np.int64)))


def stored_products(index: ItemIndex, rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inner products [rows] of ``query`` [width] with the embeddings that an index holds.

    Embeddings in full are read where they are: to copy them out takes four times as long as to multiply them.
    """
    flat = _flat(index)
    if not isinstance(flat, faiss.IndexFlat) or not len(rows):
        return stored_vectors(index, rows) @ query
    library: Any = faiss
    vectors, asked = np.ascontiguousarray(index.vector_of[rows], np.int64), np.ascontiguousarray(query, np.float32)
    products, pointer = np.empty(len(vectors), np.float32), library.swig_ptr
    library.fvec_inner_products_by_idx(
        pointer(products), pointer(asked), flat.get_xb(), pointer(vectors), flat.d, 1, len(vectors)
    )
    return products


def ann_recall(index: ItemIndex, queries: NDArray[np.float32], embeddings: NDArray[np.float32], k: int = 100) -> float:
    """Return the share of the true ``k`` nearest items (brute force) that the index finds, over all queries.

    As ``recall_by_blocks`` does, of embeddings [items, width] that are all in memory.

    Raises:
        ValueError: there are no queries to check with.
    """
    return recall_by_blocks(index, queries, [embeddings], k)


def recall_by_blocks(
    index: ItemIndex, queries: NDArray[np.float32], blocks: Iterable[NDArray[np.float32]], k: int = 100
) -> float:
    """Return the share of the true ``k`` nearest items (brute force) that the index finds, over all queries.

    The embeddings of the items come block by block [rows, width], in the order of the rows. A found item counts when
    its score is as high as the score of the k-th true item. Items that look alike (new ones of one category) tie, and
    the index may return any of them.

    Raises:
        ValueError: there are no queries to check with.
    """
    if not len(queries):
        raise ValueError("the recall of an index needs at least one query")
    wanted = min(k, len(index))
    found = search_index(index, queries, wanted).items
    best = np.full((len(queries), wanted), -np.inf, np.float32)
    scores, first = np.full(found.shape, -np.inf, np.float32), 0
    for block in blocks:
        here = search(queries, block, min(wanted, len(block))).scores
        best = -np.sort(-np.concatenate([best, here], axis=1), axis=1)[:, :wanted]
        query, place = np.nonzero((found >= first) & (found < first + len(block)))
        scores[query, place] = np.einsum("fd,fd->f", queries[query], block[found[query, place] - first])
        first += len(block)
    return float(np.mean((found != NO_ITEM) & (scores >= best[:, -1:] - TIE)))


def allowed_recall(
    index: ItemIndex,
    query: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    *,
    allowed: NDArray[np.bool_],
    k: int = 100,
) -> float:
    """Return the share of the true ``k`` nearest allowed items that ``search_allowed`` finds, as ``ann_recall`` counts.

    The share is 1 where no item is allowed.
    """
    wanted = min(k, int(np.count_nonzero(allowed)))
    if not wanted:
        return 1.0
    scores = np.where(allowed, embeddings @ query, -np.inf)
    last_true_score = -np.partition(-scores, wanted - 1)[wanted - 1]
    found, _ = search_allowed(index, query, wanted, allowed)
    return float((scores[found] >= last_true_score - TIE).sum() / wanted)


def _nearby(index: ItemIndex, vector: NDArray[np.float32], wanted: int, *, usable: int) -> Found | None:
    """Return vector rows and scores of the approximate search for ``vector`` [1, width], without a filter.

    None where the exact search costs less. There is no wider approximate search before the exact one: beyond the
    cluster of the query, a graph reaches enough items but not the best ones (recall .77 on 100,000 items with twenty of
    two hundred clusters blocked).

    Args:
        usable: number of allowed items.
    """
    kind, breadth = index_kind(index), max(REQUEST_BREADTH, int(3 * wanted * len(index) / usable))
    # The farther half of what a breadth reaches is less complete than the nearer one.
    depth = min(breadth // 2, index.vectors.ntotal)
    cost = compared(index.vectors, depth) if kind is IndexKind.ivf else breadth * COMPARISONS_A_BREADTH
    if kind is IndexKind.exact or cost >= usable:
        return None
    scores, found = index.vectors.search(vector, depth, params=_search_parameters(index, depth, breadth))
    return found[0], scores[0]


def _compared(index: ItemIndex, vector: NDArray[np.float32], wanted: int, allowed: NDArray[np.bool_]) -> Found:
    """Return vector rows and scores of the exact search for ``vector`` [1, width]: all allowed vectors are compared."""
    library: Any = faiss
    chosen = index.allowed_vectors(allowed)
    bits = np.packbits(chosen, bitorder="little")
    selector = library.IDSelectorBitmap(len(bits), library.swig_ptr(bits))
    if index_kind(index) is IndexKind.ivf:
        exact = exact_parameters(index.vectors, None if chosen.all() else selector)
    else:
        exact = None if chosen.all() else library.SearchParameters(sel=selector)
    scores, found = _flat(index).search(vector, min(wanted, int(np.count_nonzero(chosen))), params=exact)
    return found[0], scores[0]


def _allowed_of(index: ItemIndex, found: Found, allowed: NDArray[np.bool_]) -> Found:
    """Return the allowed items of the found vectors."""
    rows, scores = index.expanded(*found)
    kept = allowed[rows]
    return rows[kept], scores[kept]


def _alike(counts: NDArray[np.int64], depth: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows of queries whose exclusions ``counts`` [queries] differ at most by a factor of two.

    A group has at most as many queries as memory has room for their lists.
    """
    size = np.ceil(np.log2(np.maximum(counts, SHORT_EXCLUSION))).astype(np.int64)
    for each in np.unique(size):
        rows = np.flatnonzero(size == each)
        some = max(1, SLOTS_IN_MEMORY // (depth + (1 << int(each))))
        for start in range(0, len(rows), some):
            yield rows[start : start + some]


def _retrieved(index: ItemIndex, queries: NDArray[np.float32], depth: int, exclude: Ragged) -> RankedLists:
    """Return lists of ``depth``: longer lists, from which the items that each query excludes are dropped."""
    wanted = min(depth + int(exclude.counts.max(initial=0)), len(index))
    deep = min(wanted, index.vectors.ntotal)
    vectors = np.ascontiguousarray(queries, np.float32)
    scores, items = index.vectors.search(
        vectors, deep, params=_search_parameters(index, deep, max(HNSW_SEARCH_BREADTH, 2 * deep))
    )
    items, scores = _items_of(index, items.astype(np.int64), scores, wanted)
    return _first_kept(items, scores, depth, exclude)


def _first_kept(items: NDArray[np.int64], scores: NDArray[np.float32], depth: int, exclude: Ragged) -> RankedLists:
    """Return the first ``depth`` of lists [queries, deep], best first, without the items that each query excludes."""
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):  # the stated tie rule: higher score, then lower row
        order = np.lexsort((items[tied], -scores[tied]), axis=1)
        items[tied] = np.take_along_axis(items[tied], order, 1)
        scores[tied] = np.take_along_axis(scores[tied], order, 1)
    kept = items != NO_ITEM
    if len(exclude.items):
        kept &= ~_member(items, exclude)
    place = np.cumsum(kept, axis=1, dtype=np.int32) - 1
    kept &= place < depth
    query, column = np.nonzero(kept)
    lists, to = _no_lists(len(items), depth), place[query, column]
    lists.items[query, to], lists.scores[query, to] = items[query, column], scores[query, column]
    return lists


def _items_of(
    index: ItemIndex, found: NDArray[np.int64], scores: NDArray[np.float32], wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first ``wanted`` items [queries, wanted] of the found vectors [queries, deep], best first."""
    if index.is_distinct:
        return found, scores
    items = np.full((len(found), wanted), NO_ITEM, np.int64)
    item_scores = np.full((len(found), wanted), -np.inf, np.float32)
    for query in range(len(found)):
        rows, row_scores = index.expanded(found[query], scores[query])
        items[query, : len(rows[:wanted])] = rows[:wanted]
        item_scores[query, : len(rows[:wanted])] = row_scores[:wanted]
    return items, item_scores


def _search_among(
    index: ItemIndex, queries: NDArray[np.float32], depth: int, *, own: Ragged, allowed: NDArray[np.bool_]
) -> RankedLists:
    """Return the lists of ``search_index`` among the allowed items.

    For an exact index, the allowed items get an exact index of their own. With another, the queries are searched one
    after the other.
    """
    lists, kept = _no_lists(len(queries), depth), np.flatnonzero(allowed)
    if len(kept) == len(allowed):
        return search_index(index, queries, depth, exclude=own)
    if not len(kept):
        return lists
    if index_kind(index) is not IndexKind.exact:
        return _searched_singly(index, queries, own, allowed=allowed, lists=lists, chosen=np.arange(len(queries)))
    narrow = faiss.IndexFlatIP(index.width)
    narrow.add(stored_vectors(index, kept))
    place = np.full(len(index) + 1, NO_ITEM)  # the last is the place of -1
    place[kept] = np.arange(len(kept))
    among = ItemIndex.of(narrow, np.arange(len(kept)))
    found = search_index(among, queries, depth, exclude=Ragged(own.offsets, place[own.items]))
    return RankedLists(np.where(found.items == NO_ITEM, NO_ITEM, kept[found.items]), found.scores)


def _searched_singly(
    index: ItemIndex,
    queries: NDArray[np.float32],
    own: Ragged,
    *,
    allowed: NDArray[np.bool_],
    lists: RankedLists,
    chosen: NDArray[np.int64],
) -> RankedLists:
    """Search the chosen queries anew, without the items that each query excludes, and return all lists."""
    for query in chosen.tolist():
        mine = allowed.copy()
        mine[_distinct(own, query)] = False
        rows, scores = search_allowed(index, queries[query], lists.depth, mine)
        lists.items[query, : len(rows)], lists.scores[query, : len(rows)] = rows, scores
    return lists


def _no_lists(queries: int, depth: int) -> RankedLists:
    return RankedLists(np.full((queries, depth), NO_ITEM, np.int64), np.full((queries, depth), -np.inf, np.float32))


def _distinct(own: Ragged, query: int) -> NDArray[np.int64]:
    """Return the distinct rows that a query excludes."""
    rows = np.unique(own.items[own.offsets[query] : own.offsets[query + 1]])
    return rows[rows != NO_ITEM]


def _held(lists: RankedLists, query: int) -> int:
    return int(np.count_nonzero(lists.items[query] != NO_ITEM))


def _first_of_equals(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row of the first of equal vectors, ascending, and for each vector the place of its first [items]."""
    plain = np.ascontiguousarray(vectors + np.float32(0.0))  # -0.0 becomes 0.0
    _, first, group = np.unique(plain.view(f"V{plain.shape[1] * 4}").ravel(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first))
    return first[order], place[group.ravel()]


def _empty_index(kind: IndexKind, vectors: NDArray[np.float32]) -> faiss.Index:
    """Return an index that is ready for ``add``; trained on ``vectors`` where the family needs training."""
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


def _search_parameters(index: ItemIndex, depth: int, breadth: int) -> Any:
    """Return the search parameters of an index for lists of ``depth``; a graph is searched in ``breadth``.

    Exact search has no parameters: None.
    """
    library: Any = faiss  # its type stubs do not know the arguments of these classes
    kind = index_kind(index)
    if kind is IndexKind.hnsw:
        return _graph_parameters(breadth)
    if kind is IndexKind.ivf:
        return list_parameters(index.vectors, depth)
    if kind is IndexKind.ivf_pq:
        lists = library.extract_index_ivf(library.downcast_index(index.vectors).base_index).nlist
        probed = library.SearchParametersIVF(nprobe=max(1, round(lists * IVF_PROBED_SHARE)))
        return library.IndexRefineSearchParameters(k_factor=PQ_REFINE_FACTOR, base_index_params=probed)
    return None


@lru_cache
def _graph_parameters(breadth: int) -> Any:
    library: Any = faiss
    return library.SearchParametersHNSW(efSearch=breadth)


def _flat(index: ItemIndex) -> Any:
    """Return the vectors of an index, to be compared one by one: in full, or those of IVF-PQ in half precision.

    Those of IVF are the index itself, all of whose lists are searched.
    """
    library: Any = faiss
    kind, vectors = index_kind(index), library.downcast_index(index.vectors)
    if kind is IndexKind.hnsw:
        return library.downcast_index(vectors.storage)
    if kind is IndexKind.ivf_pq:
        return library.downcast_index(vectors.refine_index)
    return vectors


def _member(items: NDArray[np.int64], exclude: Ragged) -> NDArray[np.bool_]:
    """Return whether each of ``items`` [queries, depth] is among the excluded items of its query."""
    size = 2 + max(int(items.max(initial=0)), int(exclude.items.max(initial=0)))  # the last stands for -1
    found, at_once = np.zeros(items.shape, bool), max(1, min(len(items), MARKS_IN_MEMORY // size))
    marked = np.zeros((at_once, size), bool)
    for begin in range(0, len(items), at_once):
        some, mine = items[begin : begin + at_once], exclude.slice(begin, min(begin + at_once, len(items)))
        rows = mine.query_rows
        marked[rows, mine.items] = True
        found[begin : begin + at_once] = np.take_along_axis(marked[: len(some)], some, 1)
        marked[rows, mine.items] = False
    return found
