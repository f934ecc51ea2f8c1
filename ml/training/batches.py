"""Training batches of the item model: one cut-off a batch, so that every as-of feature in it agrees.

What is drawn: ``ml.training.sampling``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ml.examples.objectives import instants, window_positives
from ml.examples.period import Prepared, training_context
from ml.features.cross_fit import CrossFit
from ml.features.items import DAY
from ml.models.encoders import EventBatch
from ml.models.item_model import ContextBatch, ItemBatch
from ml.models.tensors import CatalogueTensors
from ml.training.sampling import EpochPlan, batch_histories, catalogue_views, positive_keys, split_into_cells
from settings import Objective, Settings


@dataclass(frozen=True)
class TrainingBatch:
    """One step: B rows, B + M candidates."""

    chunks: list[EventBatch]  # distinct histories of the batch, in trimmed chunks
    state_of_row: Tensor  # [B] which encoded history (in chunk order) each row has
    context: ContextBatch  # [B]
    demographics: Tensor  # [B, 3]
    candidates: ItemBatch  # [B + M], the first B are the positives
    candidate_rows: Tensor  # [B + M]
    share: Tensor  # [B + M] p_i
    group: Tensor  # [B] the user at the cut-off
    positive_keys: Tensor  # sorted group * items + item of every positive of these users
    weight: Tensor  # [B]
    corpus: int  # items that the corpus negatives are drawn from


@dataclass(frozen=True)
class CutoffData:
    """What all batches of one cut-off share."""

    statistics: NDArray[np.float32]  # [items, width]
    corpus: NDArray[np.int64]  # items listed as of the cut-off, or by the feed before the end of the label windows
    positives: tuple[NDArray[np.int64], NDArray[np.int64]]  # (user, item) of all that are no negatives


@dataclass(frozen=True)
class Cell:
    """The examples of one cut-off and one fold of users: what a batch is drawn from."""

    rows: NDArray[np.int64]
    share: NDArray[np.float32]  # [items] p_i
    cutoff: CutoffData
    catalogue: CatalogueTensors  # with the content that the fold learns under


class TrainingBatches(IterableDataset[TrainingBatch]):
    """An epoch of examples in a random order that depends on (seed, epoch) only: all of them, or as many batches as
    hold ``epoch_examples``."""

    def __init__(self, prepared: Prepared, settings: Settings, window_days: float) -> None:
        self.dataset, self.examples, self.settings = prepared.dataset, prepared.examples, settings
        self.context = training_context(prepared, settings.context.recipe)
        self.epoch = 0
        self.cells = self._cells(prepared.folds, window_days)
        self.plan = EpochPlan(self.examples.user, [cell.rows for cell in self.cells], settings.training)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[TrainingBatch]:
        random = np.random.default_rng([self.settings.training.seed, self.epoch])
        for number, rows in self.plan.epoch(random):
            yield self._batch(self.cells[number], rows, random)

    def _cells(self, folds: CrossFit, window_days: float) -> list[Cell]:
        views, items = catalogue_views(self.dataset.features, folds), len(self.dataset.features)
        cutoffs = {
            float(instant): self._cutoff(float(instant), window_days) for instant in np.unique(self.examples.cutoff)
        }
        cells = []
        for cell in split_into_cells(self.examples, folds):
            share = np.bincount(self.examples.item[cell.rows], minlength=items) / len(cell.rows)
            cells.append(Cell(cell.rows, share.astype(np.float32), cutoffs[cell.cutoff], views[cell.fold]))
        return cells

    def _cutoff(self, instant: float, window_days: float) -> CutoffData:
        examples, log = self.examples.take(np.flatnonzero(self.examples.cutoff == instant)), self.dataset.log
        end = float(instants(log, examples).max()) + window_days * DAY
        every = self.settings.examples.objective is Objective.all_action
        return CutoffData(
            statistics=self.dataset.statistics.at(instant),
            corpus=np.flatnonzero(self.dataset.statistics.listed_in_window(instant, end)),
            positives=(examples.user, examples.item) if every else window_positives(log, examples, end),
        )

    def _batch(self, cell: Cell, rows: NDArray[np.int64], random: np.random.Generator) -> TrainingBatch:
        cutoff, catalogue = cell.cutoff, cell.catalogue
        training, dropout = self.settings.training, self.settings.model.content_dropout
        part = self.examples.take(rows)
        known = batch_histories(part, self.dataset.log, catalogue, self.settings.sequences, dropout)
        keys = positive_keys(known.users, cutoff.positives, len(self.dataset.features))
        negatives = random.choice(cutoff.corpus, training.corpus_negatives) if len(cutoff.corpus) else cutoff.corpus
        candidates = np.concatenate([part.item, negatives])
        context = self.context.take(rows)
        augmentation = self.settings.context
        context = context.without(random.random(len(rows)) < augmentation.dropout)
        context = context.perturbed(random, augmentation.interest_dropout, augmentation.confidence_jitter)
        return TrainingBatch(
            chunks=known.chunks,
            state_of_row=known.state_of_row,
            context=catalogue.context(context),
            demographics=torch.from_numpy(self.dataset.demographics[part.user]),
            candidates=catalogue.item_batch(candidates, cutoff.statistics[candidates], dropout),
            candidate_rows=torch.from_numpy(candidates),
            share=torch.from_numpy(cell.share[candidates]),
            group=torch.from_numpy(known.group),
            positive_keys=torch.from_numpy(keys),
            weight=torch.from_numpy(part.weight),
            corpus=len(cutoff.corpus),
        )
