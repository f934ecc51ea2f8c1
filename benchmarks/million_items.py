"""What does the index of a million items cost here and on a Ray cluster, and what does a request find in it?

The embeddings are unit vectors whose variance falls by direction, as that of learnt embeddings does. Every part runs on
one thread. Times of requests are CPU times, which other work on the machine disturbs less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from assets.steps.encode import ITEM_EMBEDDINGS
from assets.steps.index_shards import StoredEmbeddings, build_sharded, shards_of
from benchmarks.ray_cluster import running
from benchmarks.report import Table, at_least
from engine.engine import Engine, Work
from engine.local import LocalEngine
from ml.retrieval.index import ItemIndex, recall_by_blocks, search_allowed
from ml.retrieval.index_files import load_index, save_index
from ml.retrieval.sharded_index import SHARD_ITEMS
from warehouse.tables import Tables, vector_column

ITEMS, WIDTH, QUERIES, PLACES = 1_000_000, 128, 200, 50
NEAREST = 200_000
DAY = date(2026, 3, 10)
MEBIBYTE = 2**20


def run(console: Console) -> tuple[dict[str, float], Table]:
    """Measure and print."""
    faiss.omp_set_num_threads(1)
    with TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Path(directory)
        stored, queries = written(home), embeddings(QUERIES, 2)
        seconds = {"this process": built(LocalEngine(), stored, home / "local")}
        with running(2) as (_, engine):
            list(engine.run(_nothing, range(4)))  # the processes have imported the libraries
            seconds["Ray, two nodes"] = built(engine, stored, home / "ray")
        [file] = (home / "local").glob("index-*")
        assert (home / "ray" / file.name).exists(), "the checksum in the name says that the files differ"
        index, size = load_index(home / "local").index, file.stat().st_size / MEBIBYTE
        blocks = map(stored.of, shards_of(stored.item_ids(), SHARD_ITEMS))
        recall = recall_by_blocks(index, queries, blocks)
    rows = [(f"build and save, {name}, s", f"{each:.0f}", "") for name, each in seconds.items()]
    asked = requests(index, queries)
    rows += [(f"a request, {name}, CPU ms", f"{each:.1f}", "") for name, each in asked.items()]
    rows += [
        (f"recall@100 of {QUERIES} queries", f"{recall:.4f}", at_least(recall, 0.97)),
        ("the file, MiB", f"{size:.0f}", ""),
        ("its vectors, MiB", f"{4 * ITEMS * WIDTH / MEBIBYTE:.0f}", ""),
    ]
    table = Table(
        f"The index of {ITEMS:,} items of width {WIDTH}",
        ("", "measured", "target"),
        tuple(rows),
        (f"{PLACES} candidates a request, on one thread. Both engines wrote the same bytes.",),
    )
    table.show(console)
    return seconds | asked, table


def embeddings(size: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors [size, WIDTH] whose variance falls by direction."""
    scale = (1 / np.arange(1, WIDTH + 1) ** 0.75).astype(np.float32)
    vectors = np.random.default_rng(seed).standard_normal((size, WIDTH), np.float32) * scale
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def written(home: Path) -> StoredEmbeddings:
    """Write the embeddings of a day."""
    tables = Tables(home / "tables")
    ids = pl.Series("item_id", [f"item-{number:07}" for number in range(ITEMS)])
    frame = pl.DataFrame([ids, vector_column("embedding", embeddings(ITEMS, 1))])
    tables.write(ITEM_EMBEDDINGS, frame, {"model_version": "1", "day": DAY})
    return StoredEmbeddings(tables.newest(ITEM_EMBEDDINGS), "1", DAY)


def built(engine: Engine, stored: StoredEmbeddings, directory: Path) -> float:
    """Build and save the index; return the seconds."""
    begun = time.perf_counter()
    item_ids = stored.item_ids()
    index = build_sharded(engine, stored, shards_of(item_ids, SHARD_ITEMS), directory=directory)
    save_index(directory, index, item_ids.to_list(), model_version="1", day=DAY)
    return time.perf_counter() - begun


def requests(index: ItemIndex, queries: NDArray[np.float32]) -> dict[str, float]:
    """Return the mean CPU time of a request under each filter, in milliseconds."""
    drawn, everything = np.random.default_rng(0).random(ITEMS), np.ones(ITEMS, bool)
    blocked = everything.copy()
    blocked[search_allowed(index, queries[0], NEAREST, everything)[0]] = False
    filters = {
        "no filter": everything,
        "a tenth allowed": drawn < 0.1,
        "one in a hundred allowed": drawn < 0.01,
    }
    ask = partial(search_allowed, index, depth=PLACES)
    found = {
        name: milliseconds([partial(ask, query=query, allowed=allowed) for query in queries[:50]])
        for name, allowed in filters.items()
    }
    again = partial(ask, query=queries[0], allowed=blocked)
    return found | {f"its nearest {NEAREST:,} blocked": milliseconds([again] * 5)}


def milliseconds(calls: list[Callable[[], object]]) -> float:
    """Return the mean CPU time of the calls in milliseconds; the first call is made twice."""
    calls[0]()
    begun = time.thread_time()
    for call in calls:
        call()
    return (time.thread_time() - begun) * 1e3 / len(calls)


def _nothing() -> Work[int]:
    return lambda _: iter(())
