"""Training of the advertiser model: in-batch negatives and a few from the corpus, corrected by log-Q.

The loss is that of ``ml.training.loss``: an advertiser is expected E_i = (B - 1) p_i + M / N times among a row's
negatives, p_i its share of the positives of the cell that the batch is drawn from (``ml.training.sampling``). In-batch
negatives alone (M = 0, as in the post) never show an advertiser that nobody converts with, and nothing says that it
should not be listed to whoever remembers it. Each batch draws its own from the cell's pool: the whole corpus, or an
even sample of it where it is large, which bounds the profiles that are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ml.evaluation.advertiser_queries import AdvertiserQueries, query_lists
from ml.evaluation.metrics import evaluate, usable_ks
from ml.examples.advertiser_period import AdvertiserData
from ml.examples.nothing_to_learn import NothingToLearn
from ml.examples.pairs import Examples
from ml.features.advertisers import Profiles
from ml.models.advertiser_model import AdvertiserBatch, AdvertiserNetwork, advertiser_batch
from ml.models.encoders import EventBatch, ModelShape
from ml.models.tensors import CatalogueTensors
from ml.training.fit import Course, RetrievalModule, optimise
from ml.training.loss import batch_loss
from ml.training.sampling import EpochPlan, batch_histories, catalogue_views, positive_keys, split_into_cells
from settings import Settings, TrainingSettings

POOL = 4  # advertisers that a cell keeps for its corpus negatives, in multiples of a batch's
VALIDATION_KS = (10, 100)


@dataclass(frozen=True)
class AdvertiserTrainingBatch:
    """One step: B rows, B + M candidates."""

    chunks: list[EventBatch]  # distinct histories of the batch, in trimmed chunks
    state_of_row: Tensor  # [B] which encoded history (in chunk order) each row has
    demographics: Tensor  # [B, 3]
    candidates: AdvertiserBatch  # [B + M], the first B are the positives
    candidate_rows: Tensor  # [B + M]
    share: Tensor  # [B + M] p_i
    group: Tensor  # [B] the user at the cut-off
    positive_keys: Tensor  # sorted group * advertisers + advertiser of every positive of these users
    weight: Tensor  # [B]
    corpus: int  # advertisers that the corpus negatives are drawn from


@dataclass(frozen=True)
class AdvertiserCell:
    """The examples of one cut-off and one fold of users; of the advertisers those that are somebody's positive, and a
    pool of the corpus."""

    rows: NDArray[np.int64]
    candidates: NDArray[np.int64]  # distinct advertisers, ascending
    profiles: Profiles  # [candidates] as of the cut-off, with the content that the fold learns under
    share: NDArray[np.float32]  # [candidates] p_i
    pool: NDArray[np.int64]  # [pool] distinct advertisers of the corpus, that negatives are drawn from
    corpus: int
    catalogue: CatalogueTensors  # with the content that the fold learns under


def validation_metric(validation: AdvertiserQueries) -> str:
    """Return the name of the figure that chooses the epochs: recall at the smallest K, since of a few hundred
    advertisers a hundred hold nearly everything."""
    return f"validation_recall_at_{min(usable_ks(VALIDATION_KS, len(validation.index)))}"


class AdvertiserBatches(IterableDataset[AdvertiserTrainingBatch]):
    """An epoch of examples in a random order that depends on (seed, epoch) only: all of them, or as many batches as
    hold ``epoch_examples``; one cut-off a batch."""

    def __init__(self, data: AdvertiserData, examples: Examples, settings: Settings) -> None:
        self.data, self.examples, self.settings = data, examples, settings
        self.epoch = 0
        self.cells = self._cells()
        self.plan = EpochPlan(examples.user, [cell.rows for cell in self.cells], settings.training)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[AdvertiserTrainingBatch]:
        random = np.random.default_rng([self.settings.training.seed, self.epoch])
        for number, rows in self.plan.epoch(random):
            yield self._batch(self.cells[number], rows, random)

    def _cells(self) -> list[AdvertiserCell]:
        folds = self.data.folds
        views = catalogue_views(self.data.dataset.features, folds)
        advertisers = [self.data.advertisers.under(content) for content in folds.content]
        random = np.random.default_rng(self.settings.training.seed)
        cells = []
        for cell in split_into_cells(self.examples, folds):
            positives = self.examples.item[cell.rows]
            corpus = self.data.advertisers.known(cell.cutoff)
            size = min(POOL * self.settings.training.corpus_negatives, len(corpus))
            pool = random.choice(corpus, size, replace=False)
            candidates = np.union1d(positives, pool)
            counts = np.bincount(np.searchsorted(candidates, positives), minlength=len(candidates))
            cells.append(
                AdvertiserCell(
                    rows=cell.rows,
                    candidates=candidates,
                    profiles=advertisers[cell.fold].at(cell.cutoff).take(candidates),
                    share=(counts / len(cell.rows)).astype(np.float32),
                    pool=pool,
                    corpus=len(corpus),
                    catalogue=views[cell.fold],
                )
            )
        return cells

    def _batch(
        self, cell: AdvertiserCell, rows: NDArray[np.int64], random: np.random.Generator
    ) -> AdvertiserTrainingBatch:
        dataset, part, settings = self.data.dataset, self.examples.take(rows), self.settings
        known = batch_histories(part, dataset.log, cell.catalogue, settings.sequences, settings.model.content_dropout)
        of_cell = self.examples.user[cell.rows], self.examples.item[cell.rows]  # all of a user's are in one cell
        candidates = np.concatenate([part.item, random.choice(cell.pool, settings.training.corpus_negatives)])
        place = np.searchsorted(cell.candidates, candidates)
        return AdvertiserTrainingBatch(
            chunks=known.chunks,
            state_of_row=known.state_of_row,
            demographics=torch.from_numpy(dataset.demographics[part.user]),
            candidates=advertiser_batch(cell.profiles.take(place)),
            candidate_rows=torch.from_numpy(candidates),
            share=torch.from_numpy(cell.share[place]),
            group=torch.from_numpy(known.group),
            positive_keys=torch.from_numpy(positive_keys(known.users, of_cell, len(self.data.advertisers))),
            weight=torch.from_numpy(part.weight),
            corpus=cell.corpus,
        )


def advertiser_loss(
    network: AdvertiserNetwork, batch: AdvertiserTrainingBatch, settings: TrainingSettings, advertisers: int
) -> Tensor:
    """The sampled softmax of one batch. ``advertisers``: how many there are, for the keys of accidental hits."""
    states = torch.cat([network.encoder(chunk) for chunk in batch.chunks])[batch.state_of_row]
    users = network.head(states, batch.demographics)
    scores = users @ network.advertiser_tower(batch.candidates).T
    return batch_loss(scores, network.temperature, batch, settings, advertisers, batch.corpus)


class AdvertiserModule(RetrievalModule):
    """The loss of an ``AdvertiserNetwork`` and its validation recall."""

    network: AdvertiserNetwork

    def __init__(
        self,
        network: AdvertiserNetwork,
        advertisers: int,
        settings: Settings,
        validation: AdvertiserQueries | None,
        steps: int,
    ) -> None:
        super().__init__(network, settings, steps)
        self.advertisers, self.validation = advertisers, validation

    def training_step(self, batch: AdvertiserTrainingBatch, _: int) -> Tensor:
        loss = advertiser_loss(self.network, batch, self.settings.training, self.advertisers)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.weight))
        self.log("temperature", self.network.temperature, batch_size=len(batch.weight))
        return loss

    def validation_step(self, _batch: Any, _: int) -> None:
        assert self.validation is not None
        lists, size = query_lists(self.network, self.validation, self.settings, 100), len(self.validation.index)
        metrics = evaluate(lists, self.validation.positives, size, ks=usable_ks(VALIDATION_KS, size))
        self.log("validation_diversity90", metrics.diversity90, batch_size=1)
        decisive = validation_metric(self.validation)
        for k, recall in metrics.recall.items():
            name = f"validation_recall_at_{k}"
            self.log(name, recall, prog_bar=name == decisive, batch_size=1)


@dataclass(frozen=True)
class AdvertiserFit(Course):
    """A trained network and how the training went."""

    network: AdvertiserNetwork


def new_advertiser_network(data: AdvertiserData, settings: Settings) -> AdvertiserNetwork:
    """An untrained network of the right shape, the same for the same seed, that knows the scale of the profiles as of
    the log's end."""
    torch.manual_seed(settings.training.seed)
    basis, statistics = data.dataset.basis, data.advertisers.statistics
    shape = ModelShape(basis.graph_width, basis.given_width, statistics.width, settings.sequences.length)
    network = AdvertiserNetwork(shape, settings.model, settings.features, settings.training.temperature)
    end = data.dataset.log.end
    known = data.advertisers.at(end).take(data.advertisers.known(end))
    network.advertiser_tower.standardise.learn(advertiser_batch(known).levels)
    return network


def fit_advertisers(
    data: AdvertiserData,
    examples: Examples,
    settings: Settings,
    epochs: int,
    directory: Path,
    validation: AdvertiserQueries | None = None,
    logger: Logger | None = None,
    progress: bool = True,
    resume: Path | None = None,
) -> AdvertiserFit:
    """Train for ``epochs``, or until the validation recall stops rising.

    Args:
        settings: those of ``advertiser_settings``. directory, resume: of checkpoints, see ``ml.training.fit.fit``.

    Raises:
        NothingToLearn: there is no example.
        ValueError: ``resume`` is of a fit under other settings.
        FileNotFoundError: there is no checkpoint at ``resume``.
    """
    if not len(examples):
        raise NothingToLearn(
            "no example for the advertiser model: no user has events before a cut-off and a positive event with a "
            "known advertiser after it. Check that events or items name their advertiser_id, and the manifest's "
            "positive_events and prediction_window_days."
        )
    lightning.seed_everything(settings.training.seed, verbose=False)
    batches = AdvertiserBatches(data, examples, settings)
    network = new_advertiser_network(data, settings)
    module = AdvertiserModule(network, len(data.advertisers), settings, validation, epochs * len(batches))
    monitor = validation_metric(validation) if validation is not None else None
    course = optimise(module, batches, epochs, directory, monitor, logger, progress, resume)
    return AdvertiserFit(**vars(course), network=network.cpu().eval())
