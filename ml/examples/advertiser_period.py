"""The path from a training period to the examples of the advertiser model.

Positives are distinct advertisers: every advertiser with a positive event of the user in the K days after a cut-off is
one example, even if the event has no item (a signup, for example). An advertiser of the user's own history may be a
positive again, whatever the manifest says of items: the model is to predict that a user buys at the same shop again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from ml.examples.objectives import build_examples
from ml.examples.pairs import Examples, LabelRule, training_cutoffs
from ml.examples.period import TrainingPeriod, content_folds, on_listed
from ml.features.advertisers import Advertisers, advertiser_ids, advertiser_of_event, build_advertisers
from ml.features.content import ContentBasis
from ml.features.cross_fit import CrossFit, uncrossed
from ml.features.dataset import Dataset, build_dataset
from ml.features.event_log import EventLog, offsite_events
from settings import Objective, Settings


@dataclass(frozen=True)
class AdvertiserPeriod:
    """A training period, and all advertisers that the period names; at an instant only some of these are known."""

    period: TrainingPeriod
    advertiser_ids: pl.Series

    @classmethod
    def of(cls, period: TrainingPeriod) -> AdvertiserPeriod:
        """Return the period with the advertisers of all its events and items."""
        return cls(period, advertiser_ids(offsite_events(period.events), period.items))

    def until(self, end: float) -> AdvertiserPeriod:
        """Return the same period ended earlier; the rows of the advertisers stay the same."""
        return replace(self, period=self.period.until(end))

    @property
    def rule(self) -> LabelRule:
        """Return the rule for positives: advertisers may repeat."""
        return replace(self.period.rule, repeats_count=True)


@dataclass(frozen=True)
class AdvertiserData:
    """Features, advertisers and event log of a period."""

    dataset: Dataset  # what the encoder reads: events with the features of their items
    advertisers: Advertisers
    log: EventLog  # the same events, but ``item`` is the row of the event's advertiser
    folds: CrossFit  # content of the items as each fold of the users learns under it


def advertiser_settings(settings: Settings) -> Settings:
    """Return the settings under which the advertiser model is trained.

    The model's own settings replace the general ones, and every advertiser of the window is a positive.
    """
    own = settings.advertisers
    examples = settings.examples.model_copy(update={"objective": Objective.all_action})
    training = settings.training.model_copy(
        update={
            "batch_size": own.batch_size,
            "corpus_negatives": own.corpus_negatives,
            "alpha_positive": own.alpha_positive,
            "alpha_negative": own.alpha_negative,
            "epoch_examples": own.epoch_examples,
            "epochs": own.epochs,
        }
    )
    model = settings.model.model_copy(update={"trait_dimensions": own.memory_dimensions})
    return settings.model_copy(update={"examples": examples, "training": training, "model": model})


def advertiser_data(
    known: AdvertiserPeriod, settings: Settings, event_names: list[str], basis: ContentBasis | None = None
) -> AdvertiserData:
    """Derive the features and advertisers of a period, and the content basis unless one is given.

    All users are under the content that serves.
    """
    period, seed = known.period, settings.training.seed
    dataset = build_dataset(
        period.events,
        period.items,
        period.users,
        settings=settings.features,
        event_names=event_names,
        basis=basis,
        seed=seed,
    )
    counted = offsite_events(period.events)
    advertisers = build_advertisers(
        dataset.features, counted, period.items, ids=known.advertiser_ids, settings=settings.features
    )
    log = by_advertiser(dataset.log, period.events, advertisers)
    return AdvertiserData(dataset, advertisers, log, uncrossed(dataset.features, dataset.log.users))


def cross_fitted(data: AdvertiserData, known: AdvertiserPeriod, settings: Settings) -> AdvertiserData:
    """Return the same data, in which each user is learnt from under a graph without that user.

    The content of the history's items and the centroids of the advertisers both come from that graph. ``known`` is the
    period that ``data`` was made of.
    """
    return replace(data, folds=content_folds(data.dataset, known.period, settings))


def advertiser_examples(known: AdvertiserPeriod, data: AdvertiserData, settings: Settings) -> Examples:
    """Return examples on advertisers known at the cut-off, at evenly spaced cut-offs.

    The windows of the cut-offs end within the period. ``item`` is the row of the advertiser.
    """
    period, log = known.period, data.log
    first = float(log.seconds.min()) if log.events else period.end
    cutoffs = training_cutoffs(
        period.end,
        first,
        settings.examples.span_days,
        window_days=period.rule.window_days,
        count=settings.examples.cutoffs,
    )
    examples = build_examples(
        log,
        cutoffs,
        known.rule,
        event_names=period.event_names,
        settings=settings.examples,
        seed=settings.training.seed,
    )
    return on_listed(examples, data.advertisers.statistics, window=0.0)


def by_advertiser(log: EventLog, events: pl.DataFrame, advertisers: Advertisers) -> EventLog:
    """Return the log with the row of each event's advertiser in the place of the item's row.

    ``events`` are the rows of the log.
    """
    row = advertiser_of_event(events["advertiser_id"], log.item, advertisers.of_item, advertisers.advertiser_ids)
    return replace(log, item=row)
