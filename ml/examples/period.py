"""A training period, and the data for a model in it: examples, their contexts, and the content of each fold.

The training period ends at an instant; this module reads no event at or after that instant. The models of the reports
repeat the whole preparation on the period up to one window before its end, so the graph, the statistics and the context
hold nothing of the window that is reported on. The deployed model learns from the whole period, because the newest
conversions tell most about the near future.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.context import NO_SUBJECT, Context, subject_context, synthetic_subjects
from ml.examples.logged_requests import CUTOFF_DAYS, SHOWN, repeated, request_examples
from ml.examples.named_interests import Searches
from ml.examples.objectives import build_examples
from ml.examples.pairs import Examples, LabelRule, joined, training_cutoffs
from ml.features.content import ContentBasis
from ml.features.cross_fit import CrossFit, cross_fit, deal_folds, uncrossed
from ml.features.dataset import Dataset, build_dataset
from ml.features.event_log import EventLog, build_event_log, row_numbers, to_seconds
from ml.features.items import DAY, ItemStatistics
from settings import ContextRecipe, Settings

SUBJECT, QUERY = "subject_item_id", "query"
ORDER = ("cutoff", "user_id", "item_id", "history_events")


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
    requests: pl.DataFrame | None = None  # whose contexts are learnt, see ``with_logged_requests``; all before ``end``

    def until(self, end: float) -> TrainingPeriod:
        """Return the same period ended earlier: events and requests before ``end``, and the catalogue as of ``end``.

        The rows of the catalogue stay the same. If the earlier catalogue lacks an item, only the id and ``listed_from``
        of the item are known.
        """
        events = self.events.filter(pl.Series(to_seconds(self.events["event_time"]) < end))
        requests = self.requests
        if requests is not None:
            requests = requests.filter(pl.Series(to_seconds(requests["request_time"]) < end))
        items = self.items if self.items_at is None else _in_rows_of(self.items, self.items_at(end))
        return replace(self, events=events, items=items, end=end, requests=requests)

    @property
    def window(self) -> float:
        """Return K in seconds."""
        return self.rule.window_days * DAY


def with_logged_requests(period: TrainingPeriod, requests: pl.DataFrame, settings: Settings) -> TrainingPeriod:
    """Return the period with the logged requests that a model can learn from, or without any if these are too few.

    A model can learn from a request of the last ``examples.span_days`` by a user with an earlier event, if the subject
    and the shown item are in the catalogue; a request with a query and no subject is a search. There have to be
    ``context.minimum_requests`` before the two newest windows, which the comparison and a search for settings hold
    back: so every fit learns contexts in the same way. Requests beside an item count by themselves, because they take
    the place of synthetic contexts; searches count together with them.

    Args:
        requests: of ``shown_in_context``, before the period's end.
    """
    first = period.events.group_by("user_id").agg(known_from=pl.col("event_time").min())
    known = period.items.select("item_id")
    seconds = pl.Series(to_seconds(requests["request_time"]))
    usable = (
        requests.filter(seconds >= period.end - settings.examples.span_days * DAY)
        .join(first, on="user_id")
        .filter(pl.col("known_from") < pl.col("request_time"))
        .drop("known_from")
        .join(known, on="item_id", how="semi")
        .sort("request_time", "request_id", "item_id")
    )
    beside = usable.join(known, left_on=SUBJECT, right_on="item_id", how="semi", maintain_order="left")
    searches = usable.filter(pl.col(SUBJECT).is_null() & pl.col(QUERY).is_not_null())
    every = pl.concat([beside, searches]).sort("request_time", "request_id", "item_id")
    if not _are_enough(every, period, settings):
        return replace(period, requests=None)
    return replace(period, requests=every if _are_enough(beside, period, settings) else searches)


def _are_enough(requests: pl.DataFrame, period: TrainingPeriod, settings: Settings) -> bool:
    held_back = pl.Series(to_seconds(requests["request_time"])) >= period.end - 2 * period.window
    return requests.filter(~held_back)["request_id"].n_unique() >= settings.context.minimum_requests


@dataclass(frozen=True)
class Prepared:
    """The input of a fit."""

    dataset: Dataset
    examples: Examples
    subjects: NDArray[np.int64]  # [examples] catalogue row of the logged or synthetic context, -1 = none
    folds: CrossFit
    queries: pl.Series | None = None  # [examples] what was typed in a logged search, else null; None: no searches


def training_context(prepared: Prepared, recipe: ContextRecipe) -> Context:
    """Return the context of every example, searches apart; ``recipe``: of the synthetic contexts."""
    context = subject_context(prepared.subjects, prepared.dataset.features)
    if recipe is ContextRecipe.own_interests:
        logged = prepared.examples.name == SHOWN
        return replace(context, subject=np.where(logged, context.subject, NO_SUBJECT))
    return context


def training_searches(prepared: Prepared, period: TrainingPeriod, settings: Settings) -> Searches | None:
    """Return the contexts of the logged searches among the examples, a view for each fold; None without a search.

    A search is understood by the catalogue as of the period's end, under the content that its fold learns under.
    """
    if prepared.queries is None or not prepared.queries.count():
        return None
    dataset, items = prepared.dataset, period.items.sort("item_id")
    views = [replace(dataset.features, content=content) for content in prepared.folds.content]
    buckets = settings.features.category_buckets
    return Searches.of(prepared.queries, items, views, basis=dataset.basis, buckets=buckets)


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
    return cross_fitted(with_contexts(prepare_examples(period, settings, basis), period, settings), period, settings)


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
    return examples.take(np.flatnonzero(are_listed(examples, statistics, window)))


def are_listed(examples: Examples, statistics: ItemStatistics, window: float) -> NDArray[np.bool_]:
    """Return whether the positive of each example is listed as ``on_listed`` wants it [examples]."""
    listed = np.zeros(len(examples), bool)
    for cutoff in np.unique(examples.cutoff):
        at = examples.cutoff == cutoff
        listed[at] = statistics.listed_in_window(float(cutoff), float(cutoff) + window)[examples.item[at]]
    return listed


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


def with_contexts(prepared: Prepared, period: TrainingPeriod, settings: Settings) -> Prepared:
    """Return the examples with the subjects that users may look at, from the log's requests or by the recipe.

    Where the period has logged requests, they become examples of their own, ``context.request_share`` of all. Where
    there are requests beside an item among them, the conversions are learnt without a context. Else the recipe draws a
    synthetic subject for each conversion. Under the recipe ``none`` there are no contexts at all.
    """
    if period.requests is None or settings.context.recipe is ContextRecipe.none:
        return _with_synthetic_subjects(prepared, settings)
    if not period.requests[SUBJECT].count():
        prepared = _with_synthetic_subjects(prepared, settings)
    return _with_requests(prepared, period.requests, period, settings)


def _with_requests(prepared: Prepared, requests: pl.DataFrame, period: TrainingPeriod, settings: Settings) -> Prepared:
    """Return the conversions as they are, and the logged requests with their subjects and queries."""
    dataset, conversions, seed = prepared.dataset, prepared.examples, settings.training.seed
    share = settings.context.request_share
    wanted = min(max(1, round(share / (1 - share) * len(conversions))), settings.examples.maximum_examples)
    step_days = min(CUTOFF_DAYS, period.rule.window_days)
    shown = request_examples(requests, dataset, period.end, step_days=step_days, maximum=wanted, seed=seed)
    listed = np.flatnonzero(are_listed(shown.examples, dataset.statistics, period.window))
    if not len(listed):
        return _with_synthetic_subjects(prepared, settings)
    shown = shown.take(listed[repeated(len(listed), wanted, seed)])
    examples = joined([conversions, shown.examples])
    subjects = np.concatenate([prepared.subjects, shown.subject])
    queries = pl.concat([pl.repeat(None, len(conversions), dtype=pl.String, eager=True), shown.query])
    order = np.lexsort((examples.user, examples.cutoff))
    return replace(prepared, examples=examples.take(order), subjects=subjects[order], queries=queries.gather(order))


def _with_synthetic_subjects(prepared: Prepared, settings: Settings) -> Prepared:
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
            SUBJECT: subject,
            QUERY: prepared.queries,
        },
        schema_overrides={QUERY: pl.String},
    )


def examples_of_frame(
    period: TrainingPeriod, frame: pl.DataFrame, settings: Settings, basis: ContentBasis | None = None
) -> Prepared:
    """Return the examples that ``examples_to_frame`` has turned into a table, under the same period.

    There are no subjects and no queries where the table has none.
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
    by = [name for name in (*ORDER, SUBJECT, QUERY) if name in frame.columns]
    frame = frame.sort(by)
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
    subjects = row_numbers(ids, frame[SUBJECT]) if SUBJECT in frame.columns else none
    queries = frame[QUERY] if QUERY in frame.columns else None
    return Prepared(dataset, examples, subjects, uncrossed(dataset.features, dataset.log.users), queries)
