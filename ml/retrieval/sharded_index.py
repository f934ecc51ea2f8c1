"""The index of a large catalogue: lists of vectors around centroids (IVF), filled shard by shard and merged.

The centroids come from a sample. A shard is a range of rows, which becomes an index file of its own: the centroids, and
the vectors of the range in the lists of their centroids. The merged index has the rows of each list in ascending order,
so that the shards may be filled in any order, anywhere, and it equals to the bit the index that is filled at once. All
work runs on one thread: matrix products of several threads are rounded in other ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

# A multiple of the rows that FAISS assigns at a time (65,536, in products of 4,096): the products of a shard are those
# of the whole. A part of an engine holds the vectors of a shard three times.
SHARD_ITEMS = 1 << 17
LISTS_A_ROOT = 4  # lists, over the square root of the number of items
TRAINING_ITEMS = 39  # of the sample, over the number of lists: what FAISS asks for
TRAINING_ROUNDS = 5  # of k-means; twice as many find .0001 more of the true 100
PROBED_A_ROOT = 2  # lists that a search reads at least, over the square root of their number: .99 of the true 100
COMPARED_A_PLACE = 24  # vectors that a search compares at least, over the length of its list
SEED = 20_260_101

Lists = Any
"""``faiss.IndexIVFFlat``, of whose lists the type stubs know nothing."""


def shard_ranges(items: int, shard_items: int = SHARD_ITEMS) -> list[range]:
    """Return the ranges of the rows of the shards."""
    return [range(begin, min(begin + shard_items, items)) for begin in range(0, items, shard_items)]


def list_count(items: int) -> int:
    """Return the number of lists of an index over so many items."""
    return max(1, min(int(LISTS_A_ROOT * np.sqrt(items)), items // TRAINING_ITEMS))


def sample_rows(items: int) -> NDArray[np.int64]:
    """Return the rows of a uniform sample for the centroids, ascending; the same for the same number of items."""
    size = min(items, TRAINING_ITEMS * list_count(items))
    return np.sort(np.random.default_rng(SEED).choice(items, size, replace=False))


def trained_index(sample: NDArray[np.float32], items: int) -> Lists:
    """Return an index for so many items that holds no vector yet: its centroids are those of ``sample`` [rows, width].

    Raises:
        ValueError: the sample is empty, or not of the rows ``sample_rows``.
    """
    if not items or len(sample) != len(sample_rows(items)):
        raise ValueError(f"the centroids of {items} items cannot be made from {len(sample)} vectors")
    width = sample.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, list_count(items), faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = TRAINING_ROUNDS
    index.cp.min_points_per_centroid = 1  # no warning where one list has a few items
    with one_thread():
        index.train(np.ascontiguousarray(sample, np.float32))
    return index


def write_empty(index: Lists, file: Path) -> None:
    """Write an index, such as ``trained_index`` returns, for ``write_shard`` in another process."""
    faiss.write_index(index, str(file))


def write_shard(empty: Path, vectors: NDArray[np.float32], *, first: int, file: Path) -> None:
    """Write the shard of ``vectors`` [rows, width], whose rows begin with ``first``, to ``file``."""
    shard = faiss.read_index(str(empty))
    _fill(shard, vectors, first)
    faiss.write_index(shard, str(file))


def merged_index(empty: Lists, files: Sequence[Path]) -> Lists:
    """Return ``empty`` with the vectors of the shards of the files, which are in the order of their rows.

    The files are mapped and each list is made at its full length, so that the memory is about that of the index.

    Raises:
        ValueError: the shards do not have each of the rows 0, 1, ... once.
    """
    library: Any = faiss
    shards = [library.read_index(str(file), library.IO_FLAG_MMAP | library.IO_FLAG_READ_ONLY) for file in files]
    lists = empty.invlists
    for number in range(empty.nlist):
        sizes = [shard.invlists.list_size(number) for shard in shards]
        lists.resize(number, sum(sizes))
        begin = 0
        for shard, size in zip(shards, sizes, strict=True):
            if size:
                source = shard.invlists
                lists.update_entries(number, begin, size, source.get_ids(number), source.get_codes(number))
            begin += size
    empty.ntotal = sum(shard.ntotal for shard in shards)
    return _with_map(empty)


def filled_index(vectors: NDArray[np.float32]) -> Lists:
    """Return the index of ``vectors`` [items, width], made in this process: to the bit the one that shards give."""
    index = trained_index(vectors[sample_rows(len(vectors))], len(vectors))
    _fill(index, vectors, 0)
    return _with_map(index)


def compared(index: Lists, depth: int) -> int:
    """Return the number of vectors, centroids included, that a search for a list of ``depth`` compares, about."""
    return int(index.nlist + _probed(index, depth) * index.ntotal / index.nlist)


def list_parameters(index: Lists, depth: int) -> Any:
    """Return the search parameters for lists of ``depth``: the lists around the query are searched."""
    library: Any = faiss
    return library.SearchParametersIVF(nprobe=_probed(index, depth))


def exact_parameters(index: Lists, selector: Any) -> Any:
    """Return the search parameters that compare all vectors, or those of a FAISS selector where there is one."""
    library: Any = faiss
    selected = {} if selector is None else {"sel": selector}
    return library.SearchParametersIVF(nprobe=index.nlist, **selected)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS, and its matrix products, run on one thread within the context."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _fill(index: Lists, vectors: NDArray[np.float32], first: int) -> None:
    with one_thread():
        rows = np.arange(first, first + len(vectors), dtype=np.int64)
        index.add_with_ids(np.ascontiguousarray(vectors, np.float32), rows)


def _with_map(index: Lists) -> Lists:
    """Return the index with a map from rows to lists, 8 bytes an item, which its file holds as well.

    Without the map, a vector could not be read by its row.

    Raises:
        ValueError: the index does not have each of the rows 0, 1, ... once.
    """
    try:
        index.make_direct_map()
    except RuntimeError as error:
        raise ValueError("the shards of an index have a row that they should not have, or lack one") from error
    if (faiss.vector_to_array(index.direct_map.array) < 0).any():
        raise ValueError("the shards of an index have one row twice, and lack another")
    return index


def _probed(index: Lists, depth: int) -> int:
    """Return the number of lists to search for ``depth`` items: the items at the end of a long list lie far apart."""
    long = index.nlist * COMPARED_A_PLACE * depth / max(1, index.ntotal)
    return min(index.nlist, round(max(PROBED_A_ROOT * np.sqrt(index.nlist), long)))
