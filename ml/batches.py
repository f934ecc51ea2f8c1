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

from ml.context import Context
from ml.dataset import Dataset
from ml.examples import Examples
from ml.items import DAY
from ml.sequences import EventLog, length_buckets, newest, pad, within_lookback
from ml.tensors import CatalogueTensors
from ml.towers import ContextBatch, EventBatch, ItemBatch
from settings import Settings

ENCODER_TOKENS = 2048  # padded positions a chunk: small enough to trim well, large enough to keep the cores busy


@dataclass(frozen=True)
class TrainingBatch:
    """One step: B rows, B + M candidates."""

    chunks: list[EventBatch]  # distinct users of the batch, in trimmed chunks
    state_of_row: Tensor  # [B] which encoded user (in chunk order) each row is
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

    rows: NDArray[np.int64]  # examples of the cut-off
    statistics: NDArray[np.float32]  # [items, width]
    share: NDArray[np.float32]  # [items] p_i
    corpus: NDArray[np.int64]  # items available before the end of the label window


@dataclass(frozen=True)
class EpochPlan:
    """Which examples make the batches of an epoch: all of them, or of each cut-off the same share where there are more
    than ``epoch_examples``."""

    examples: Examples
    epoch_examples: int
    batch_size: int

    def steps(self, rows: NDArray[np.int64]) -> int:
        """Batches of a cut-off whose examples are ``rows``."""
        share = min(1.0, self.epoch_examples / len(self.examples))
        return max(1, round(share * len(rows) / self.batch_size))

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> list[NDArray[np.int64]]:
        """The batches of one epoch of a cut-off: users in random order, each with all of their positives, so that a
        history is encoded once an epoch; a batch ends with the user that fills it. Only a user of more positives than a
        batch holds is cut: there are always as many batches as ``steps`` says, which Lightning relies on."""
        users, user = np.unique(self.examples.user[rows], return_inverse=True)
        order = np.argsort(random.permutation(len(users))[user], kind="stable")
        ordered, owner = rows[order], user[order]
        begins = np.flatnonzero(np.diff(owner, prepend=-1))
        steps = self.steps(rows)
        share = min(1.0, self.epoch_examples / len(self.examples))
        full = np.ceil(share * len(ordered) * np.arange(1, steps + 1) / steps).astype(np.int64)
        ends = np.append(begins, len(ordered))[np.searchsorted(begins, full)]
        within_a_user = np.flatnonzero(np.diff(ends) == 0)
        ends[within_a_user] = full[within_a_user]
        ends = np.minimum(ends, full + self.batch_size)
        return np.split(ordered, ends)[:steps]

    def positive_keys(self, rows: NDArray[np.int64], users: NDArray[np.int64], items: int) -> NDArray[np.int64]:
        """Sorted ``position in users * items + item`` of all the positives that ``users`` (sorted) have among ``rows``,
        the examples of a cut-off, not only of those in a batch."""
        user, item = self.examples.user[rows], self.examples.item[rows]
        group = np.searchsorted(users, user)
        among = (group < len(users)) & (users[np.minimum(group, len(users) - 1)] == user)
        return np.sort(group[among] * items + item[among])


@dataclass(frozen=True)
class BatchUsers:
    """The distinct users of a batch, ready to be encoded."""

    users: NDArray[np.int64]  # [users] rows of the event log, sorted
    group: NDArray[np.int64]  # [B] which of them each row is
    chunks: list[EventBatch]  # their histories, in trimmed chunks
    state_of_row: Tensor  # [B] position of each row's user in chunk order


def batch_users(
    part: Examples, log: EventLog, catalogue: CatalogueTensors, settings: Settings, cold_share: float
) -> BatchUsers:
    """Histories of the users of ``part``, the examples of one batch, all of one cut-off; ``cold_share`` of the events
    show the content of a cold item."""
    users, first, group = np.unique(part.user, return_index=True, return_inverse=True)
    newest_events = newest(log, users, part.history_end[first], settings.sequences.length)
    since = float(part.cutoff[0]) - settings.sequences.lookback_days * DAY
    slices = within_lookback(log, users, newest_events, since)
    buckets = list(length_buckets(slices.lengths, ENCODER_TOKENS))
    position = np.empty(len(users), np.int64)
    position[np.concatenate(buckets)] = np.arange(len(users))
    chunks = [catalogue.events(pad(log, slices.take(bucket)), cold_share) for bucket in buckets]
    return BatchUsers(users, group, chunks, torch.from_numpy(position[group]))


class TrainingBatches(IterableDataset[TrainingBatch]):
    """An epoch of examples in a random order that depends on (seed, epoch) only."""

    def __init__(
        self, dataset: Dataset, examples: Examples, context: Context, settings: Settings, window_days: float
    ) -> None:
        self.dataset, self.examples, self.context, self.settings = dataset, examples, context, settings
        self.plan = EpochPlan(examples, settings.training.epoch_examples, settings.training.batch_size)
        self.catalogue = CatalogueTensors(dataset.features)
        self.epoch = 0
        self.cutoffs = [self._cutoff(float(cutoff), window_days) for cutoff in np.unique(examples.cutoff)]

    def __len__(self) -> int:
        return sum(self.plan.steps(cutoff.rows) for cutoff in self.cutoffs)

    def __iter__(self) -> Iterator[TrainingBatch]:
        random = np.random.default_rng([self.settings.training.seed, self.epoch])
        plan = [(cutoff, rows) for cutoff in self.cutoffs for rows in self.plan.draw(cutoff.rows, random)]
        for number in random.permutation(len(plan)):
            cutoff, rows = plan[number]
            yield self._batch(cutoff, rows, random)

    def _cutoff(self, cutoff: float, window_days: float) -> CutoffData:
        rows = np.flatnonzero(self.examples.cutoff == cutoff)
        counts = np.bincount(self.examples.item[rows], minlength=len(self.dataset.features))
        return CutoffData(
            rows=rows,
            statistics=self.dataset.statistics.at(cutoff),
            share=(counts / len(rows)).astype(np.float32),
            corpus=np.flatnonzero(self.dataset.statistics.first_seen < cutoff + window_days * DAY),
        )

    def _batch(self, cutoff: CutoffData, rows: NDArray[np.int64], random: np.random.Generator) -> TrainingBatch:
        training, dropout = self.settings.training, self.settings.model.content_dropout
        part = self.examples.take(rows)
        known = batch_users(part, self.dataset.log, self.catalogue, self.settings, dropout)
        negatives = random.choice(cutoff.corpus, training.corpus_negatives) if len(cutoff.corpus) else cutoff.corpus
        candidates = np.concatenate([part.item, negatives])
        context = self.context.take(rows)
        context = context.without(random.random(len(rows)) < self.settings.context.dropout)
        return TrainingBatch(
            chunks=known.chunks,
            state_of_row=known.state_of_row,
            context=self.catalogue.context(context),
            demographics=torch.from_numpy(self.dataset.demographics[part.user]),
            candidates=self.catalogue.item_batch(candidates, cutoff.statistics[candidates], dropout),
            candidate_rows=torch.from_numpy(candidates),
            share=torch.from_numpy(cutoff.share[candidates]),
            group=torch.from_numpy(known.group),
            positive_keys=torch.from_numpy(
                self.plan.positive_keys(cutoff.rows, known.users, len(self.dataset.features))
            ),
            weight=torch.from_numpy(part.weight),
            corpus=len(cutoff.corpus),
        )
