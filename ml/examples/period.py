"""A training period, and the data for a model in it: examples, their contexts, and the content of each fold.

The training period ends at an instant; this module reads no event at or after that instant. Selection repeats the whole
preparation on the period up to one window before its end, so the graph, the statistics and the context hold nothing of
the validation slice. The final fit then learns from the whole period for the chosen number of epochs, because the
newest conversions tell most about the near future.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.context import NO_SUBJECT, Context, interests_context, subject_context, synthetic_subjects
from ml.examples.objectives import build_examples
from ml.examples.pairs import Examples, LabelRule, training_cutoffs
from ml.features.content import ContentBasis
from ml.features.cross_fit import CrossFit, cross_fit, deal_folds, uncrossed
from ml.features.dataset import Dataset, build_dataset
from ml.features.event_log import EventLog, build_event_log, row_numbers, to_seconds
from ml.features.items import DAY, ItemStatistics
from settings import ContextRecipe, Settings


@dataclass(frozen=True)
class TrainingPeriod:
    """All data that a model may learn from."""

    events: pl.DataFrame  # sorted by user_id, event_time, event_id; all before ``end``; onsite events among them
    items: pl.DataFrame  # the catalogue as of ``end``
    users: pl.DataFrame
    end: float  # seconds since 1970 UTC, exclusive
    rule: LabelRule
    event_names: list[str]
    # The catalogue as of an instant; None: it never changed. No lambda where a process is handed the period.
    items_at: Callable[[float], pl.DataFrame] | None = None

    def until(self, end: float) -> TrainingPeriod:
        """Return the same period ended earlier: events before ``end``, and the catalogue as of ``end``.

        The rows of the catalogue stay the same. If the earlier catalogue lacks an item, only the id and ``listed_from``
        of the item are known.
        """
        events = self.events.filter(pl.Series(to_seconds(self.events["event_time"]) < end))
        items = self.items if self.items_at is None else _in_rows_of(self.items, self.items_at(end))
        return replace(self, events=events, items=items, end=end)

    @property
    def window(self) -> float:
        """Return K in seconds."""
        return self.rule.window_days * DAY


@dataclass(frozen=True)
class Prepared:
    """The input of a fit."""

    dataset: Dataset
    examples: Examples
    subjects: NDArray[np.int64]  # [examples] catalogue row of the synthetic context, -1 = none
    folds: CrossFit


def training_context(prepared: Prepared, recipe: ContextRecipe) -> Context:
    """Return the synthetic context of every example."""
    features = prepared.dataset.features
    if recipe is ContextRecipe.own_interests:
        return interests_context(prepared.subjects, features)
    return subject_context(prepared.subjects, features)


def _in_rows_of(items: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """Return the ``earlier`` catalogue in the rows of ``items``.

    An item that the earlier catalogue lacks keeps its id and its ``listed_from``, and nothing else.
    """
    lacking = items.select("item_id", "listed_from").join(earlier, on="item_id", how="anti")
    known = earlier.select(items.columns).join(items, on="item_id", how="semi")
    return items.select("item_id").join(
        pl.concat([known, lacking], how="diagonal"), on="item_id", how="left", maintain_order="left"
    )


def prepare(period: TrainingPeriod, settings: Settings, basis: ContentBasis | None = None) -> Prepared:
    """Prepare everything that a fit reads of a training period."""
    return cross_fitted(with_subjects(prepare_examples(period, settings, basis), settings), period, settings)


def prepare_examples(period: TrainingPeriod, settings: Settings, basis: ContentBasis | None = None) -> Prepared:
    """Prepare the features and examples of a training period, still without contexts, under the content that serves."""
    dataset = build_dataset(
        period.events,
        period.items,
        period.users,
        settings=settings.features,
        event_names=period.event_names,
        basis=basis,
        seed=settings.training.seed,
    )
    examples = period_examples(period, dataset, settings)
    return Prepared(
        dataset, examples, np.full(len(examples), NO_SUBJECT), uncrossed(dataset.features, dataset.log.users)
    )


def cross_fitted(prepared: Prepared, period: TrainingPeriod, settings: Settings) -> Prepared:
    """Return the same examples, each of which is learnt under a graph without the example's own user."""
    return replace(prepared, folds=content_folds(prepared.dataset, period, settings))


def content_folds(dataset: Dataset, period: TrainingPeriod, settings: Settings) -> CrossFit:
    """Return the content that each fold of the users learns under."""
    folds = settings.features.cross_fit_folds
    if folds == 1:
        return uncrossed(dataset.features, dataset.log.users)
    items, seed = period.items.sort("item_id"), settings.training.seed
    return cross_fit(items, dataset.log.offsite, dataset.basis, folds=folds, seed=seed)


def period_examples(period: TrainingPeriod, dataset: Dataset, settings: Settings) -> Examples:
    """Return examples at evenly spaced cut-offs whose windows end within the period, on items listed in the window."""
    first = float(dataset.log.seconds.min()) if dataset.log.events else period.end
    cutoffs = training_cutoffs(
        period.end,
        first,
        settings.examples.span_days,
        window_days=period.rule.window_days,
        count=settings.examples.cutoffs,
    )
    examples = build_examples(
        dataset.log,
        cutoffs,
        period.rule,
        event_names=period.event_names,
        settings=settings.examples,
        seed=settings.training.seed,
    )
    return on_listed(examples, dataset.statistics, period.window)


def on_listed(examples: Examples, statistics: ItemStatistics, window: float) -> Examples:
    """Return the examples whose positive is listed as of their cut-off, or by the feed in the ``window`` seconds after.

    The other examples are on items that become known only through their own sale. No unsold item resembles them, and a
    model would learn that an item without a past is a positive.
    """
    kept = np.zeros(len(examples), bool)
    for cutoff in np.unique(examples.cutoff):
        at = examples.cutoff == cutoff
        kept[at] = statistics.listed_in_window(float(cutoff), float(cutoff) + window)[examples.item[at]]
    return examples.take(np.flatnonzero(kept))


def whole_log(period: TrainingPeriod, settings: Settings) -> EventLog:
    """Build the period's event log in the rows of the catalogue."""
    features = settings.features
    return build_event_log(
        period.events,
        period.items["item_id"].sort(),
        period.event_names,
        advertiser_buckets=features.advertiser_buckets,
        advertiser_hashes=features.advertiser_hashes,
    )


def with_subjects(prepared: Prepared, settings: Settings) -> Prepared:
    """Return the same examples with synthetic subjects drawn anew under the settings' recipe."""
    log, seed = prepared.dataset.log, settings.training.seed
    subjects = synthetic_subjects(
        prepared.examples,
        log.offsite,
        prepared.dataset.features,
        recipe=settings.context.recipe,
        fold_of_user=deal_folds(log.users, settings.features.cross_fit_folds, seed),
        seed=seed,
    )
    return replace(prepared, subjects=subjects)


def examples_to_frame(prepared: Prepared, event_names: list[str]) -> pl.DataFrame:
    """Return the examples as the warehouse keeps them, with ids instead of rows."""
    dataset, examples = prepared.dataset, prepared.examples
    item_ids, names = dataset.features.item_ids, pl.Series([None, *event_names], dtype=pl.String)
    subject = item_ids.gather(np.maximum(prepared.subjects, 0)).set(pl.Series(prepared.subjects < 0), None)
    return pl.DataFrame(
        {
            "cutoff": pl.Series((examples.cutoff * 1e6).astype(np.int64)).cast(pl.Datetime("us", "UTC")),
            "user_id": dataset.log.user_ids.gather(examples.user),
            "history_events": examples.history_end - dataset.log.offsets[examples.user],
            "item_id": item_ids.gather(examples.item),
            "event_name": names.gather(examples.name),
            "weight": examples.weight,
            "subject_item_id": subject,
        }
    )


def examples_of_frame(
    period: TrainingPeriod, frame: pl.DataFrame, settings: Settings, basis: ContentBasis | None = None
) -> Prepared:
    """Return the examples that ``examples_to_frame`` has turned into a table, under the same period.

    There are no subjects where the table has none.
    """
    dataset = build_dataset(
        period.events,
        period.items,
        period.users,
        settings=settings.features,
        event_names=period.event_names,
        basis=basis,
        seed=settings.training.seed,
    )
    frame = frame.sort("cutoff", "user_id", "item_id", "history_events")
    user, ids = dataset.log.user_rows(frame["user_id"]), dataset.features.item_ids
    names = pl.Series(list(period.event_names))
    examples = Examples(
        cutoff=to_seconds(frame["cutoff"]),
        user=user,
        history_end=dataset.log.offsets[user] + frame["history_events"].to_numpy(),
        item=row_numbers(ids, frame["item_id"]),
        weight=frame["weight"].to_numpy().astype(np.float32),
        name=row_numbers(names, frame["event_name"]) + 1,
    )
    none = np.full(len(frame), NO_SUBJECT)
    subjects = row_numbers(ids, frame["subject_item_id"]) if "subject_item_id" in frame.columns else none
    return Prepared(dataset, examples, subjects, uncrossed(dataset.features, dataset.log.users))
