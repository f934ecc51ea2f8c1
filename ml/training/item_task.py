"""The item model as a task of the trainer: its examples, its batches, its scores, its validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.evaluation.metrics import Metrics, evaluate, usable_ks
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import EvaluationSet
from ml.examples.context import Context
from ml.examples.logged_requests import SHOWN
from ml.examples.named_interests import Searches
from ml.examples.objectives import instants, window_positives
from ml.examples.period import Prepared, TrainingPeriod, training_context, training_searches
from ml.features.dataset import Dataset
from ml.features.items import DAY
from ml.models.encoders import ModelShape
from ml.models.item_model import POPULARITY_WIDTH, ContextBatch, ItemBatch, TwoTower
from ml.training.fit import VALIDATION_DEPTH, VALIDATION_KS, monitored
from ml.training.sampling import Batches, Cell, SampledBatch, catalogue_views, history_states, split_into_cells
from settings import Objective, Settings


@dataclass(frozen=True)
class ItemTask:
    """The task to learn which item a user converts with next.

    Attributes:
        prepared: the examples to learn from. settings: the settings of the training.
        window_days: K, the days after a cut-off in which a conversion counts.
        validation: the queries that are asked after each epoch; None: there is no validation.
        searches: the contexts of the examples that are logged searches; None: there are none.
    """

    prepared: Prepared
    settings: Settings
    window_days: float
    validation: EvaluationSet | None = None
    searches: Searches | None = None

    @classmethod
    def of(
        cls, period: TrainingPeriod, prepared: Prepared, settings: Settings, validation: EvaluationSet | None = None
    ) -> ItemTask:
        """Return the task of examples that were ``prepared`` from a period."""
        searches = training_searches(prepared, period, settings)
        return cls(prepared, settings, period.rule.window_days, validation, searches)

    @property
    def candidates(self) -> int:
        """Return the number of items of the catalogue."""
        return len(self.prepared.dataset.features)

    @property
    def monitor(self) -> str | None:
        """Return the name of recall at 100, or at the largest K below a smaller catalogue."""
        if self.validation is None:
            return None
        return monitored(max(usable_ks(VALIDATION_KS, len(self.validation.queries.candidates))))

    def network(self) -> TwoTower:
        """Return an untrained network."""
        return new_network(self.prepared.dataset, self.settings)

    def batches(self) -> Batches[ItemBatch]:
        """Return the batches of an epoch.

        Raises:
            ValueError: there is no example.
        """
        if not len(self.prepared.examples):
            raise ValueError(
                "no training example: no user has events before a cut-off and a positive after it. Check the "
                "manifest's positive_events and prediction_window_days against the log."
            )
        inputs = _ItemInputs(self)
        return Batches(
            self.prepared.examples,
            self._cells(),
            self.prepared.dataset,
            settings=self.settings,
            candidates=self.candidates,
            features=inputs,
        )

    def users(self, network: TwoTower, batch: SampledBatch[ItemBatch]) -> Tensor:
        """Return the embeddings of the rows over the temperature [R, W]."""
        assert batch.context is not None
        users = network.head(history_states(network.encoder, batch), batch.context, batch.demographics)
        return users / network.temperature

    def scores(self, network: TwoTower, users: Tensor, candidates: ItemBatch) -> Tensor:
        """Return the scores of candidates for ``users`` [R, W]: [R, candidates]."""
        items = network.item_tower(candidates)
        # The traits of items are not learned. They are most of the width: their gradient would be a third of the cost.
        learned = network.encoder.layout.width
        of_traits = users[:, learned:] @ items[:, learned:].detach().T
        return torch.addmm(of_traits, users[:, :learned], items[:, :learned].T)

    def validate(self, network: TwoTower) -> Metrics:
        """Return the figures of the lists for the validation queries."""
        assert self.validation is not None
        queries, size = self.validation.queries, len(self.validation.queries.candidates)
        # The offsets come after the training, and would cost a sample of users every epoch.
        settings = self.settings.with_value("index.popularity_weight", 0.0)
        lists = trained_lists(network, self.validation, settings, VALIDATION_DEPTH)
        return evaluate(lists, queries.positives, size, ks=usable_ks(VALIDATION_KS, size))

    def _cells(self) -> list[Cell]:
        examples, dataset, folds = self.prepared.examples, self.prepared.dataset, self.prepared.folds
        views, every = catalogue_views(dataset.features, folds), np.arange(self.candidates)
        cutoffs = {float(instant): self._cutoff(float(instant)) for instant in np.unique(examples.cutoff)}
        cells = []
        for cell in split_into_cells(examples, folds):
            share = np.bincount(examples.item[cell.rows], minlength=self.candidates) / len(cell.rows)
            corpus, positives = cutoffs[cell.cutoff]
            cells.append(
                Cell(
                    cutoff=cell.cutoff,
                    fold=cell.fold,
                    rows=cell.rows,
                    candidates=every,
                    share=share.astype(np.float32),
                    pool=corpus,
                    corpus=len(corpus),
                    positives=positives,
                    catalogue=views[cell.fold],
                )
            )
        return cells

    def _cutoff(self, instant: float) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return the corpus of a cut-off, and the pairs (user, item) that are no negatives.

        The corpus consists of the items that are listed as of the cut-off, or by the feed before the label windows of
        the cut-off end.
        """
        every, dataset = self.prepared.examples, self.prepared.dataset
        examples = every.take(np.flatnonzero(every.cutoff == instant))
        end = float(instants(dataset.log, examples).max()) + self.window_days * DAY
        corpus = np.flatnonzero(dataset.statistics.listed_in_window(instant, end))
        if self.settings.examples.objective is Objective.all_action:
            return corpus, (examples.user, examples.item)
        shown = examples.take(np.flatnonzero(examples.name == SHOWN))
        converted = examples.take(np.flatnonzero(examples.name != SHOWN))
        users, items = window_positives(dataset.log, converted, end) if len(converted) else (shown.user, shown.item)
        return corpus, (np.concatenate([users, shown.user]), np.concatenate([items, shown.item]))


class _ItemInputs:
    """Contexts and items of a batch."""

    def __init__(self, task: ItemTask) -> None:
        self.statistics, self.settings = task.prepared.dataset.statistics, task.settings
        self.context: Context = training_context(task.prepared, task.settings.context.recipe)
        self.searches = task.searches
        self._as_of: dict[float, NDArray[np.float32]] = {}  # statistics [items, width] of each cut-off

    def context_of(self, cell: Cell, rows: NDArray[np.int64], random: np.random.Generator) -> ContextBatch:
        """Return the context of the examples, some of it dropped or perturbed."""
        augmentation, context = self.settings.context, self.context.take(rows)
        if self.searches is not None:
            context = self.searches.over(context, rows, view=cell.fold)
        context = context.without(random.random(len(rows)) < augmentation.dropout)
        context = context.perturbed(random, augmentation.interest_dropout, augmentation.confidence_jitter)
        return cell.catalogue.context(context)

    def features_of(self, cell: Cell, candidates: NDArray[np.int64]) -> ItemBatch:
        """Return the items with the statistics as of the cut-off."""
        if cell.cutoff not in self._as_of:
            self._as_of[cell.cutoff] = self.statistics.at(cell.cutoff)
        statistics = self._as_of[cell.cutoff][candidates]
        return cell.catalogue.item_batch(candidates, statistics, self.settings.model.content_dropout)


def new_network(dataset: Dataset, settings: Settings) -> TwoTower:
    """Return an untrained network of the right shape, the same for the same seed.

    The network already knows the scale of the statistics as of the log's end.
    """
    torch.manual_seed(settings.training.seed)
    basis, statistics = dataset.basis, dataset.statistics
    length = settings.sequences.length
    shape = ModelShape.of(basis, statistics.width, length, popularity=POPULARITY_WIDTH)
    network = TwoTower(shape, settings.model, settings.features, settings.training.temperature)
    listed = statistics.listed(dataset.log.end)
    network.item_tower.standardise.learn(torch.from_numpy(statistics.at(dataset.log.end)[listed]))
    return network
