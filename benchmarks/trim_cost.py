"""What does the relevance trim cost a request? ``python -m benchmarks.trim_cost HOME`` asks what a home has published.

Random subject items and queries, 50 random candidates each. Of a request only the relevance is timed: the description
of the place, and the features, both scores and the verdict of the candidates.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from ml.relevance.pair_features import pair_features
from serving.publication import Served
from serving.relevance_scorer import RelevanceScorer
from settings import Settings
from warehouse.home import Home
from warehouse.online import open_store
from warehouse.surfaces import Surface

REQUESTS, CANDIDATES = 2_000, 50


def main(directory: str) -> int:
    """Print the times of a home's trim. Returns the exit code."""
    home = Home(Path(directory))
    torch.set_num_threads(1)
    with threadpool_limits(1), closing(open_store(Settings().online.store, home)) as store:
        served = Served.newest(home.root, store)
        if served.relevance is None:
            Console().print(f"{home.root} publishes no relevance model: it has too few labels.", highlight=False)
            return 1
        Console().print(_table(served, served.relevance))
    return 0


def _table(served: Served, scorer: RelevanceScorer) -> Table:
    random, attributes = np.random.default_rng(0), served.catalogue.attributes
    table = Table(title=f"{REQUESTS:,} requests, {CANDIDATES} candidates, milliseconds", title_justify="left")
    for column in ("surface", "part", "median", "99th percentile", "largest"):
        table.add_column(column, justify="right" if "e" in column[-2:] else "left")
    words = sorted({path.split(" > ")[-1].lower() for path in attributes.category_path if path})
    for surface in (Surface.related_pins, Surface.search):
        places, trims, verdicts = [], [], []
        for _ in range(REQUESTS):
            subject, query = int(random.integers(len(served.catalogue))), words[int(random.integers(len(words)))]
            rows = random.choice(len(served.catalogue.listed), CANDIDATES, replace=False).tolist()
            begin = time.perf_counter()
            place = scorer.place(surface, subject, query)
            described = time.perf_counter()
            assert place is not None
            scorer.judge(surface, place, rows)
            places.append(described - begin)
            judged = time.perf_counter()
            items = scorer.listed[np.array(rows)]
            features = pair_features(place, scorer.catalogue.items.take(items))
            scorer.model.trim.of_codes(features, scorer.cells[surface], scorer.cell[items])
            trims.append(time.perf_counter() - judged)
            verdicts.append(judged - described)
        for part, seconds in (
            ("place", places),
            ("trim alone: features and classifier", trims),
            ("place, trim and the score for the auction", np.add(places, verdicts).tolist()),
        ):
            times = np.percentile(np.array(seconds) * 1e3, (50, 99, 100))
            table.add_row(surface.value, part, *(f"{each:.2f}" for each in times))
    return table


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.trim_cost HOME")
    sys.exit(main(sys.argv[1]))
