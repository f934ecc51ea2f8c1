"""How many places do items take that nobody has ever bought, and what does their presence cost?

``python -m benchmarks.unsold --split SPLITS/sports-temporal --landing LANDING`` or ``--home HOME`` takes the training
period of a split or of a home, adds copies of items under new ids, which nobody buys, and trains with and without them
until the period's last window. Both models are asked for the conversions of that window, over all items that are listed
as of its beginning. Targets: the copies take at most 2 % of the first 100 places, and recall is not lower with them by
more than .003.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import Table, at_most
from benchmarks.training_period import parser_of, period_of
from ml.evaluation.intervals import confidence_interval
from ml.evaluation.metrics import evaluate
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import EvaluationSet, validation_slice
from ml.examples.period import TrainingPeriod
from ml.features.items import DAY
from ml.retrieval.lists import NO_ITEM
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from settings import Settings

PREFIX = "unsold-"
OTHER_ADVERTISER = 0.25  # share of the copies that take the advertiser of another item
NEW_DAYS = 7
KS = (10, 100)
MOST, COST = 0.02, 0.003


@dataclass(frozen=True)
class Figures:
    """A model on the conversions of the newest window."""

    name: str
    recall: dict[int, float]
    diversity90: float
    unsold_items: float  # share of the candidates that are copies
    unsold: float  # share of the first 100 places that copies take
    never_engaged: float  # share of these places on items without an event, the copies included
    new_positives: int  # conversions with items that were listed in the last days before the window
    new_recall: float  # Recall@100 on these


def with_unsold(period: TrainingPeriod, count: int, dated: bool, seed: int) -> TrainingPeriod:
    """Return the period with copies of ``count`` items, drawn evenly, that have no events.

    One in four takes the advertiser of another item. Where ``dated`` is false the copies have no date and so have been
    listed always; else the copies have the dates of their originals.
    """
    random, items = np.random.default_rng(seed), period.items
    source = items[random.integers(len(items), size=count)]
    other = items["advertiser_id"].gather(random.integers(len(items), size=count))
    changed = pl.Series(random.random(count) < OTHER_ADVERTISER)
    named = source.select(
        "item_id",
        copy=pl.Series([f"{PREFIX}{number:06d}" for number in range(count)]),
        other=pl.when(changed).then(other).otherwise("advertiser_id"),
    )
    earlier = period.items_at or (lambda _: items)

    def together(catalogue: pl.DataFrame) -> pl.DataFrame:
        copies = catalogue.join(named, on="item_id").with_columns(item_id="copy", advertiser_id="other")
        if not dated:
            copies = copies.with_columns(available_from=None, listed_from=None)
        return pl.concat([catalogue, copies.select(catalogue.columns)], how="vertical_relaxed").sort("item_id")

    return replace(period, items=together(items), items_at=lambda seconds: together(earlier(seconds)))


def measure(name: str, period: TrainingPeriod, settings: Settings) -> Figures:
    """Train until the period's last window, and ask for the conversions of that window."""
    earlier, prepared, asked = validation_slice(period, settings)
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        task = ItemTask.of(earlier, prepared, settings)
        fitted = fit(task, settings.training.epochs, Path(directory))
    lists, queries, dataset = trained_lists(fitted.network, asked, settings, max(KS)), asked.queries, prepared.dataset
    ever = np.bincount(dataset.statistics.item, minlength=len(dataset.features))[queries.candidates]
    found = evaluate(lists, queries.positives, len(queries.candidates), ks=KS, popularity=ever)
    copies = dataset.features.item_ids.gather(queries.candidates).str.starts_with(PREFIX).to_numpy()
    slots = lists.items[lists.items != NO_ITEM]
    new = queries.positives.where(_newly_listed(asked)[queries.positives.items])
    return Figures(
        name=name,
        recall=found.recall,
        diversity90=found.diversity90,
        unsold_items=float(copies.mean()),
        unsold=float(copies[slots].mean()),
        never_engaged=found.never_engaged or 0.0,
        new_positives=len(new.items),
        new_recall=confidence_interval(lists, new, max(KS), samples=0).estimate if len(new.items) else float("nan"),
    )


def _newly_listed(asked: EvaluationSet) -> NDArray[np.bool_]:
    """Return which candidates were listed in the last days before the queries' instant [candidates]."""
    queries, statistics = asked.queries, asked.dataset.statistics
    return ~statistics.listed(queries.as_of - NEW_DAYS * DAY)[queries.candidates]


def table_of(found: list[Figures]) -> Table:
    """Return one row a training, the one without the copies first."""
    plain, *others = found

    def cost(other: Figures) -> float:
        return plain.recall[100] - other.recall[100]

    notes = tuple(
        f"{each.name}: {each.unsold:.2%} of the places, {at_most(each.unsold, MOST)}; "
        f"Recall@100 lower by {cost(each):.4f}, {at_most(cost(each), COST)}"
        for each in others
    )
    new = f"recall@100 of items new in {NEW_DAYS} days"
    columns = ("", "recall@10", "recall@100", "diversity90", "copies", "their places", "never engaged with", new)
    rows = tuple(
        (
            each.name,
            f"{each.recall[10]:.4f}",
            f"{each.recall[100]:.4f}",
            f"{each.diversity90:.3f}",
            f"{each.unsold_items:.1%}",
            f"{each.unsold:.2%}",
            f"{each.never_engaged:.2%}",
            f"{each.new_recall:.3f} ({each.new_positives})",
        )
        for each in found
    )
    return Table("Items that nobody has ever bought", columns, rows, notes)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, epochs=4)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--dated", action="store_true", help="also with copies that have the dates of their originals")
    given = parser.parse_args()
    period, settings = period_of(given)
    found = [
        measure("without copies", period, settings),
        measure("undated copies", with_unsold(period, given.count, False, given.seed), settings),
    ]
    if given.dated:
        found.append(measure("dated copies", with_unsold(period, given.count, True, given.seed), settings))
    table_of(found).show(Console(width=140))


if __name__ == "__main__":
    main()
