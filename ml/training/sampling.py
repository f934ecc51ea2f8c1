"""Training batches of every model: the draw of the examples, the histories to encode, the pairs that are no negatives.

A cell holds the examples of one cut-off and one fold of users, and a batch is drawn from one cell. The batch is a
uniform draw of the cell's users, whatever the lengths of their histories. Only inside the batch do sequences stand in
order of length, which the encoder's attention needs; the order cannot bias p_i.

Processes that train together draw the same batches. Each process makes all candidates of a batch, and the histories and
contexts of its share of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ml.examples.pairs import Examples
from ml.features.cross_fit import CrossFit
from ml.features.dataset import Dataset
from ml.features.event_log import EventLog, newest, pack, within_lookback
from ml.features.items import DAY, ItemFeatures
from ml.models.encoders import EventBatch
from ml.models.item_model import ContextBatch
from ml.models.tensors import CatalogueTensors
from settings import SequenceSettings, Settings, TrainingSettings


@dataclass(frozen=True)
class CellRows:
    """The examples of one cut-off and one fold of users."""

    cutoff: float  # seconds
    fold: int
    rows: NDArray[np.int64]


def split_into_cells(examples: Examples, folds: CrossFit) -> list[CellRows]:
    """Return all cells with any example, by cut-off, then fold."""
    fold = folds.fold_of_user[examples.user]
    cells = []
    for cutoff in np.unique(examples.cutoff):
        at = np.flatnonzero(examples.cutoff == cutoff)
        cells += [CellRows(float(cutoff), number, at[fold[at] == number]) for number in range(folds.folds)]
    return [cell for cell in cells if len(cell.rows)]


def catalogue_views(features: ItemFeatures, folds: CrossFit) -> list[CatalogueTensors]:
    """Return the catalogue under the content of each fold."""
    catalogue = CatalogueTensors(features)
    return [catalogue.under(*content) for content in zip(folds.content, folds.cold_content, strict=True)]


@dataclass(frozen=True)
class EpochPlan:
    """The examples of an epoch's batches: all of them, or as many batches as hold ``epoch_examples``."""

    user: NDArray[np.int64]  # [examples]
    cells: list[NDArray[np.int64]]  # the examples of each cell
    training: TrainingSettings

    def __len__(self) -> int:
        share = min(1.0, self.training.epoch_examples / max(sum(len(rows) for rows in self.cells), 1))
        return max(1, round(share * sum(self._batches_of(rows) for rows in self.cells)))

    def epoch(self, random: np.random.Generator) -> list[tuple[int, NDArray[np.int64]]]:
        """Draw the batches of an epoch in a random order: the number of the cell, and the examples of the batch."""
        plan = [(cell, batch) for cell, rows in enumerate(self.cells) for batch in self.draw(rows, random)]
        return [plan[number] for number in random.permutation(len(plan))[: len(self)]]

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> list[NDArray[np.int64]]:
        """Draw a cell's batches: users in random order, each with all of their positives.

        So a history is encoded once. A batch ends with the user that fills it. Only a user with more positives than a
        batch holds is cut: the number of batches has to equal ``_batches_of``, because Lightning relies on ``__len__``.
        Batches of 4:

            position  0 1 2 3 4 5 6 7
            ordered   c c c a a a b b     the positives of users a, b and c in the random order c, a, b
            full      4, 8                8 positives make two batches
            begins    0, 3, 6             where each user begins
            ends      6, 8                the first begin at or behind each of ``full``, or the end
            batches   c c c a a a | b b
        """
        users, user = np.unique(self.user[rows], return_inverse=True)
        order = np.argsort(random.permutation(len(users))[user], kind="stable")
        ordered, owner = rows[order], user[order]
        begins = np.flatnonzero(np.diff(owner, prepend=-1))
        steps = self._batches_of(rows)
        full = np.ceil(len(ordered) * np.arange(1, steps + 1) / steps).astype(np.int64)
        ends = np.append(begins, len(ordered))[np.searchsorted(begins, full)]
        within_a_user = np.flatnonzero(np.diff(ends) == 0)
        ends[within_a_user] = full[within_a_user]
        ends = np.minimum(ends, full + self.training.batch_size)
        return np.split(ordered, ends)[:steps]

    def _batches_of(self, rows: NDArray[np.int64]) -> int:
        return max(1, round(len(rows) / self.training.batch_size))


@dataclass(frozen=True)
class Histories:
    """The distinct histories of a batch, ready to be encoded."""

    users: NDArray[np.int64]  # [users] rows of the event log, sorted
    group: NDArray[np.int64]  # [B] which of the users each row is
    events: EventBatch  # of the distinct histories, in order of length
    state_of_row: Tensor  # [B] which of the histories each row has


def batch_histories(
    part: Examples, log: EventLog, catalogue: CatalogueTensors, *, settings: SequenceSettings, cold_share: float
) -> Histories:
    """Prepare the histories of ``part``, the examples of one batch.

    ``cold_share`` of the events show the content of a cold item.
    """
    users, group = np.unique(part.user, return_inverse=True)
    # A user has one history at a cut-off, and others where the objective asks at events between cut-offs, too.
    keys = part.user * (log.events + 1) + part.history_end
    _, first, history = np.unique(keys, return_index=True, return_inverse=True)
    encoded = part.user[first]
    newest_events = newest(log, encoded, part.history_end[first], settings.length)
    slices = within_lookback(log, encoded, newest_events, float(part.cutoff[0]) - settings.lookback_days * DAY)
    order = np.argsort(slices.lengths, kind="stable")
    position = np.empty(len(encoded), np.int64)
    position[order] = np.arange(len(encoded))
    events = catalogue.events(pack(log, slices.take(order)), cold_share)
    return Histories(users, group, events, torch.from_numpy(position[history]))


def positive_keys(
    users: NDArray[np.int64], positives: tuple[NDArray[np.int64], NDArray[np.int64]], candidates: int
) -> NDArray[np.int64]:
    """Return the sorted ``position in users * candidates + candidate`` of all positives of ``users`` (sorted).

    Args:
        positives: (user, candidate) pairs of a cut-off, not only the pairs in the batch. candidates: their number.

    Of the users 7 and 9 the second has the candidates 3 and 4; user 8 is not asked for:

    >>> positive_keys(np.array([7, 9]), (np.array([8, 9, 9]), np.array([3, 4, 3])), candidates=10).tolist()
    [13, 14]
    """
    user, candidate = positives
    group = np.searchsorted(users, user)
    among = (group < len(users)) & (users[np.minimum(group, len(users) - 1)] == user)
    return np.sort(group[among] * candidates + candidate[among])


@dataclass(frozen=True)
class Place:
    """The place of a process among those that share each batch."""

    rank: int = 0
    processes: int = 1

    def rows(self, count: int) -> slice:
        """Return the neighbouring rows of ``count`` that this process takes; two shares differ by one row at most.

        The share is empty for some processes of more than there are rows.

        >>> [Place(rank, 3).rows(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        return slice(count * self.rank // self.processes, count * (self.rank + 1) // self.processes)


FeaturesType = TypeVar("FeaturesType", covariant=True)
"""Features of candidates, as the tower reads them."""

NEGATIVES_AT_ONCE = 1 << 13  # corpus negatives of a step whose features and scores are in memory at once


@dataclass(frozen=True)
class Block(Generic[FeaturesType]):
    """S more corpus negatives of a step. Their features are made when they are scored, and not kept."""

    candidate_rows: Tensor  # [S]
    share: Tensor  # [S] p_i
    features: Callable[[], FeaturesType]


@dataclass(frozen=True)
class SampledBatch(Generic[FeaturesType]):
    """One step of a process: R of the batch's B rows, all B + M candidates. R is B where no other process shares it."""

    events: EventBatch  # of the distinct histories of the R rows
    state_of_row: Tensor  # [R] which of the histories each row has
    context: ContextBatch | None  # [R]; None: the model has no context
    demographics: Tensor  # [R, 3]
    candidates: FeaturesType  # [B + M'], the first B are the positives; M' is M, or NEGATIVES_AT_ONCE of more
    candidate_rows: Tensor  # [B + M']
    share: Tensor  # [B + M'] p_i
    blocks: list[Block[FeaturesType]]  # the other corpus negatives
    corpus_negatives: int  # M
    group: Tensor  # [R] the user at the cut-off
    positive_keys: Tensor  # sorted group * candidates + candidate of every positive of these users
    weight: Tensor  # [R]
    corpus: int  # candidates that the corpus negatives are drawn from
    first: int  # the place of the first of the R rows among the B
    whole_weight: Tensor  # [B]
    processes: int  # that share the batch


@dataclass(frozen=True)
class Cell:
    """The examples of one cut-off and one fold of users; a batch is drawn from one cell."""

    cutoff: float  # seconds
    fold: int
    rows: NDArray[np.int64]  # of the examples
    candidates: NDArray[np.int64]  # rows of the candidates that a batch may hold, ascending
    share: NDArray[np.float32]  # [candidates] p_i
    pool: NDArray[np.int64]  # candidates that corpus negatives are drawn from
    corpus: int  # that the pool stands for
    positives: tuple[NDArray[np.int64], NDArray[np.int64]]  # (user, candidate) of all that are no negatives
    catalogue: CatalogueTensors  # with the content that the fold learns under


class Encoder(Protocol):
    """Encodes histories."""

    def __call__(self, events: EventBatch, /) -> Tensor:
        """Return the states of the histories [histories, state_width]."""


class CandidateFeatures(Protocol[FeaturesType]):
    """The part of a task that makes the inputs that differ from model to model."""

    def context_of(self, cell: Cell, rows: NDArray[np.int64], random: np.random.Generator) -> ContextBatch | None:
        """Return the context of the examples ``rows`` [B], or None."""

    def features_of(self, cell: Cell, candidates: NDArray[np.int64]) -> FeaturesType:
        """Return the features of ``candidates`` [B + M] as of the cut-off of the cell."""


class Batches(IterableDataset[SampledBatch[FeaturesType]], Generic[FeaturesType]):
    """An epoch of examples in a random order that depends on (seed, epoch) only.

    The epoch holds all examples, or as many batches as hold ``epoch_examples``. A batch has one cut-off, so every as-of
    feature in the batch agrees.

    Attributes:
        place: of this process among those that share the batches.
    """

    def __init__(
        self,
        examples: Examples,
        cells: Sequence[Cell],
        dataset: Dataset,
        *,
        settings: Settings,
        candidates: int,
        features: CandidateFeatures[FeaturesType],
    ) -> None:
        self.examples, self.cells, self.dataset, self.settings = examples, cells, dataset, settings
        self.candidates, self.features = candidates, features
        self.epoch, self.place = 0, Place()
        self.plan = EpochPlan(examples.user, [cell.rows for cell in cells], settings.training)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[SampledBatch[FeaturesType]]:
        random = np.random.default_rng([self.settings.training.seed, self.epoch])
        for number, rows in self.plan.epoch(random):
            yield self._batch(self.cells[number], rows, random)

    def _batch(self, cell: Cell, rows: NDArray[np.int64], random: np.random.Generator) -> SampledBatch[FeaturesType]:
        settings, whole_weight = self.settings, self.examples.weight[rows]
        cold_share = settings.model.content_dropout
        own = self.place.rows(len(rows))
        weight = whole_weight[own]
        if not len(weight):  # a network that computes nothing would have no gradient to add to that of the others
            own, weight = slice(0, 1), np.zeros_like(whole_weight[:1])
        part = self.examples.take(rows[own])
        known = batch_histories(
            part, self.dataset.log, cell.catalogue, settings=settings.sequences, cold_share=cold_share
        )
        negatives = random.choice(cell.pool, settings.training.corpus_negatives) if len(cell.pool) else cell.pool
        candidates = np.concatenate([self.examples.item[rows], negatives[:NEGATIVES_AT_ONCE]])
        others = range(NEGATIVES_AT_ONCE, len(negatives), NEGATIVES_AT_ONCE)
        context = self.features.context_of(cell, rows, random)  # drawn for all rows, so that all processes draw alike
        return SampledBatch(
            events=known.events,
            state_of_row=known.state_of_row,
            context=context and context.take(own),
            demographics=torch.from_numpy(self.dataset.demographics[part.user]),
            candidates=self.features.features_of(cell, candidates),
            candidate_rows=torch.from_numpy(candidates),
            share=_share(cell, candidates),
            blocks=[self._block(cell, negatives[begin : begin + NEGATIVES_AT_ONCE]) for begin in others],
            corpus_negatives=len(negatives),
            group=torch.from_numpy(known.group),
            positive_keys=torch.from_numpy(positive_keys(known.users, cell.positives, self.candidates)),
            weight=torch.from_numpy(weight),
            corpus=cell.corpus,
            first=own.start,
            whole_weight=torch.from_numpy(whole_weight),
            processes=self.place.processes,
        )

    def _block(self, cell: Cell, negatives: NDArray[np.int64]) -> Block[FeaturesType]:
        features = partial(self.features.features_of, cell, negatives)
        return Block(torch.from_numpy(negatives), _share(cell, negatives), features)


def _share(cell: Cell, candidates: NDArray[np.int64]) -> Tensor:
    """Return p_i of each candidate [candidates]."""
    return torch.from_numpy(cell.share[np.searchsorted(cell.candidates, candidates)])


def history_states(encoder: Encoder, batch: SampledBatch[FeaturesType]) -> Tensor:
    """Return the encoded history of each row of a process [R, state_width]."""
    return encoder(batch.events)[batch.state_of_row]
