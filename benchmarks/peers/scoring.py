"""Lists of any system on a split, as ``adseq evaluate`` scores its own: the warm catalogue, adseq's metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ml.evaluation.metrics import Metrics
from ml.features.event_log import row_numbers
from ml.retrieval.lists import NO_ITEM, Ragged, RankedLists
from pipelines.evaluate.scoring import SCORED_DEPTH, Catalogue, Scoring
from pipelines.evaluate.split import Split

COLUMNS = ("query_id", "rank", "item_id")
UNKNOWN_BRAND = -1


class ListsRefused(ValueError):
    """A file of lists breaks a rule of the split; the message names the file, the rule and an example."""


def score(lists: Path, split: Split) -> Metrics:
    """Return the metrics of the lists in a Parquet file, on the items seen in training.

    Items outside the catalogue are dropped and the rest moves up, queries outside the split are ignored, a query
    without a list has missed everything.

    Raises:
        ListsRefused: a column is missing, an item or a rank occurs twice in a list, a list holds an item of its query's
            history or its context item, or no list is for a query of this split.
    """
    frame = read_lists(lists, split)
    query_ids, item_ids = split.queries["query_id"], split.catalogue["item_id"]
    known = frame.filter(pl.col("item_id").is_in(item_ids.implode())).sort("query_id", "rank")
    place = known.select(pl.int_range(pl.len()).over("query_id")).to_series().to_numpy()
    items = np.full((len(query_ids), max(SCORED_DEPTH, int(place.max(initial=-1)) + 1)), NO_ITEM, np.int64)
    items[row_numbers(query_ids, known["query_id"]), place] = row_numbers(item_ids, known["item_id"])
    # Ranks are all that is known of the scores.
    scores = np.where(items == NO_ITEM, -np.inf, -np.arange(items.shape[1])).astype(np.float32)
    asked = row_numbers(query_ids, split.targets["query_id"])
    targets = row_numbers(item_ids, split.targets["item_id"])
    positives = Ragged.from_pairs(asked[asked >= 0], targets[asked >= 0], len(query_ids))
    scoring = Scoring(positives, brand_codes(split), split.catalogue["warm"].to_numpy())
    return scoring.measure(RankedLists(items, scores), Catalogue.warm)


def read_lists(path: Path, split: Split) -> pl.DataFrame:
    """Return query_id, rank, item_id of the split's queries, ids as text, checked; raises as ``score`` does."""
    if not path.is_file():
        raise ListsRefused(f"{path} does not exist: give a Parquet file of {', '.join(COLUMNS)}.")
    frame = pl.read_parquet(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ListsRefused(f"{path} lacks the column {missing[0]!r}; lists have {', '.join(COLUMNS)}.")
    frame = frame.select(pl.col("query_id").cast(pl.String), "rank", pl.col("item_id").cast(pl.String))
    frame = frame.filter(pl.col("query_id").is_in(split.queries["query_id"].implode()))
    if frame.is_empty():
        raise ListsRefused(f"{path} holds no list for a query of {split.name}: are the query ids those of the split?")
    for name in ("item_id", "rank"):
        _refuse(frame.filter(pl.struct("query_id", name).is_duplicated()), path, f"a list holds one {name} twice")
    contexts = split.queries.select("query_id", item_id="context_item").drop_nulls()
    forbidden = pl.concat([split.history.select("query_id", "item_id"), contexts])
    rule = "a list holds an item of its query's history, or its context item; leave them out"
    _refuse(frame.join(forbidden, on=["query_id", "item_id"], how="semi"), path, rule)
    return frame


def brand_codes(split: Split) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return [catalogue] a code for each brand, -1 where the split names no brand."""
    brand = split.catalogue["brand"].cast(pl.String)
    codes = brand.rank("dense").cast(pl.Int64) - 1
    return codes.fill_null(UNKNOWN_BRAND).to_numpy()


def _refuse(broken: pl.DataFrame, path: Path, rule: str) -> None:
    if not broken.is_empty():
        row = broken.row(0, named=True)
        raise ListsRefused(
            f"{path}: {rule}; {len(broken):,} rows, such as query {row['query_id']}, item {row['item_id']}."
        )
