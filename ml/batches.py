"""Training batches: one cut-off a batch, so that every as-of feature in it agrees.

A batch is a uniform draw of its cut-off's users, whatever their lengths; only inside the batch are sequences sorted
by length and cut into trimmed chunks for the encoder. So sorting saves the padding and cannot bias p_i.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ml.crossfit import CrossFit
from ml.encoders import EventBatch
from ml.items import DAY
from ml.objectives import instants, window_positives
from ml.prepared import Prepared, training_context
from ml.sequences import length_buckets, newest, pad, within_lookback
from ml.tensors import CatalogueTensors
from ml.towers import ContextBatch, ItemBatch
from settings import Objective, Settings

ENCODER_TOKENS = 2048  # padded positions a chunk: small enough to trim well, large enough to keep the cores busy


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
    corpus: NDArray[np.int64]  # items available before the end of the label windows
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
        share = min(1.0, settings.training.epoch_examples / max(len(self.examples), 1))
        self._steps = max(1, round(share * sum(self._batches_of(cell) for cell in self.cells)))

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[TrainingBatch]:
        random = np.random.default_rng([self.settings.training.seed, self.epoch])
        plan = [(cell, rows) for cell in self.cells for rows in self._drawn(cell, random)]
        for number in random.permutation(len(plan))[: self._steps]:
            cell, rows = plan[number]
            yield self._batch(cell, rows, random)

    def _cells(self, folds: CrossFit, window_days: float) -> list[Cell]:
        catalogue = CatalogueTensors(self.dataset.features)
        views = [catalogue.under(*content) for content in zip(folds.content, folds.cold_content, strict=True)]
        fold = folds.fold_of_user[self.examples.user]
        cells = []
        for instant in np.unique(self.examples.cutoff):
            at = np.flatnonzero(self.examples.cutoff == instant)
            cutoff = self._cutoff(float(instant), at, window_days)
            for number, view in enumerate(views):
                rows = at[fold[at] == number]
                counts = np.bincount(self.examples.item[rows], minlength=len(self.dataset.features))
                cells.append(Cell(rows, (counts / max(len(rows), 1)).astype(np.float32), cutoff, view))
        return [cell for cell in cells if len(cell.rows)]

    def _batches_of(self, cell: Cell) -> int:
        return max(1, round(len(cell.rows) / self.settings.training.batch_size))

    def _drawn(self, cell: Cell, random: np.random.Generator) -> list[NDArray[np.int64]]:
        """A cell's batches: users in random order, each with all of their positives, so that a history is encoded once;
        a batch ends with the user that fills it. Only a user of more positives than a batch holds is cut: there are
        always as many batches as ``_batches_of`` says, because Lightning relies on ``__len__``."""
        users, user = np.unique(self.examples.user[cell.rows], return_inverse=True)
        order = np.argsort(random.permutation(len(users))[user], kind="stable")
        rows, owner = cell.rows[order], user[order]
        begins = np.flatnonzero(np.diff(owner, prepend=-1))
        steps = self._batches_of(cell)
        full = np.ceil(len(rows) * np.arange(1, steps + 1) / steps).astype(np.int64)
        ends = np.append(begins, len(rows))[np.searchsorted(begins, full)]
        within_a_user = np.flatnonzero(np.diff(ends) == 0)
        ends[within_a_user] = full[within_a_user]
        ends = np.minimum(ends, full + self.settings.training.batch_size)
        return np.split(rows, ends)[:steps]

    def _cutoff(self, instant: float, rows: NDArray[np.int64], window_days: float) -> CutoffData:
        examples, log = self.examples.take(rows), self.dataset.log
        end = float(instants(log, examples).max()) + window_days * DAY
        every = self.settings.examples.objective is Objective.all_action
        return CutoffData(
            statistics=self.dataset.statistics.at(instant),
            corpus=np.flatnonzero(self.dataset.statistics.first_seen < end),
            positives=(examples.user, examples.item) if every else window_positives(log, examples, end),
        )

    def _batch(self, cell: Cell, rows: NDArray[np.int64], random: np.random.Generator) -> TrainingBatch:
        cutoff, catalogue = cell.cutoff, cell.catalogue
        training, dropout = self.settings.training, self.settings.model.content_dropout
        part = self.examples.take(rows)
        users, group = np.unique(part.user, return_inverse=True)
        # A user has one history at a cut-off, and others where the objective asks at events between cut-offs, too.
        keys = part.user * (self.dataset.log.events + 1) + part.history_end
        _, first, history = np.unique(keys, return_index=True, return_inverse=True)
        encoded, sequences = part.user[first], self.settings.sequences
        newest_events = newest(self.dataset.log, encoded, part.history_end[first], sequences.length)
        since = float(part.cutoff[0]) - sequences.lookback_days * DAY
        slices = within_lookback(self.dataset.log, encoded, newest_events, since)
        buckets = list(length_buckets(slices.lengths, ENCODER_TOKENS))
        position = np.empty(len(encoded), np.int64)
        position[np.concatenate(buckets)] = np.arange(len(encoded))
        negatives = random.choice(cutoff.corpus, training.corpus_negatives) if len(cutoff.corpus) else cutoff.corpus
        candidates = np.concatenate([part.item, negatives])
        context = self.context.take(rows)
        context = context.without(random.random(len(rows)) < self.settings.context.dropout)
        return TrainingBatch(
            chunks=[catalogue.events(pad(self.dataset.log, slices.take(bucket)), dropout) for bucket in buckets],
            state_of_row=torch.from_numpy(position[history]),
            context=catalogue.context(context),
            demographics=torch.from_numpy(self.dataset.demographics[part.user]),
            candidates=catalogue.item_batch(candidates, cutoff.statistics[candidates], dropout),
            candidate_rows=torch.from_numpy(candidates),
            share=torch.from_numpy(cell.share[candidates]),
            group=torch.from_numpy(group),
            positive_keys=torch.from_numpy(self._positive_keys(cutoff, users)),
            weight=torch.from_numpy(part.weight),
            corpus=len(cutoff.corpus),
        )

    def _positive_keys(self, cutoff: CutoffData, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sorted keys of all the positives that these users have at this cut-off, not only those in the batch."""
        user, item = cutoff.positives
        group = np.searchsorted(users, user)
        among = (group < len(users)) & (users[np.minimum(group, len(users) - 1)] == user)
        return np.sort(group[among] * len(self.dataset.features) + item[among])
