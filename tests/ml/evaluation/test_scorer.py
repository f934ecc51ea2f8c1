"""adseq's metrics equal those of the independent scorer on the same lists."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from ml.evaluation.metrics import evaluate
from ml.retrieval.lists import Positives, RankedLists

OUR_NAME = {name: name for name in ("queries", "positives", "ndcg@10", "coverage@10", "diversity90")} | {
    f"{theirs}@{k}": f"{ours}@{k}"
    for k in (10, 50, 100)
    for theirs, ours in {
        "recall": "recall",
        "macro_recall": "macro_recall",
        "hr": "hit_rate",
        "advertiser_recall": "advertiser_hit",
    }.items()
}


@pytest.mark.parametrize("seed", range(6))
def test_every_common_figure_is_the_same(scorer: ModuleType, seed: int) -> None:
    generator = np.random.default_rng(seed)
    queries, items = 80, 400
    popularity = generator.dirichlet(np.full(items, 0.2)) + 1e-9  # skewed, so that diversity and hits are not flat
    popularity /= popularity.sum()
    lengths = generator.integers(0, 160, queries)  # empty, short and over-long lists
    rows = [generator.choice(items, length, replace=False, p=popularity).tolist() for length in lengths]
    pairs = sorted(
        {(int(generator.integers(queries // 2)), int(generator.choice(items, p=popularity))) for _ in range(250)}
    )
    brands = generator.integers(-1, 40, items)

    found = evaluate(
        RankedLists.from_rows(rows, depth=160),
        Positives.from_pairs([query for query, _ in pairs], [item for _, item in pairs], queries),
        catalogue_size=items,
        advertisers=brands,
    ).figures()
    theirs = scorer.score(
        recs=pd.DataFrame(
            [(f"u{q}", rank, f"i{item}") for q, row in enumerate(rows) for rank, item in enumerate(row, 1)],
            columns=["query_id", "rank", "item_id"],
        ),
        queries=pd.DataFrame({"query_id": [f"u{q}" for q in range(queries)], "context_item": None}),
        history=pd.DataFrame({"query_id": ["u0"], "item_id": ["an item nobody retrieves"]}),
        targets=pd.DataFrame([(f"u{q}", f"i{item}") for q, item in pairs], columns=["query_id", "item_id"]),
        catalogue=pd.DataFrame(
            {
                "item_id": [f"i{item}" for item in range(items)],
                "warm": True,
                "brand": [None if brand < 0 else f"b{brand}" for brand in brands],
            }
        ),
    )
    common = {name: theirs[name] for name in OUR_NAME if name in theirs}
    assert len(common) == len(OUR_NAME)
    # The scorer rounds to five digits.
    assert {name: found[OUR_NAME[name]] for name in common} == pytest.approx(common, abs=1e-5)
