"""Training of the advertiser model: in-batch negatives and a few from the corpus, corrected by log-Q.

The loss is the one of ``ml.training.loss``: an advertiser is expected E_i = (B - 1) p_i + M / N times among a row's
negatives, where p_i is the advertiser's share of the positives of the cell that the batch is drawn from
(``ml.training.sampling``). With in-batch negatives alone (M = 0, as in the post that README.md names), an advertiser
that nobody converts with is never a negative, so the loss does not keep this advertiser out of the lists of users who
remember it. Each batch draws its corpus negatives from the cell's pool: the whole corpus, or an even sample of a large
corpus, which bounds the number of profiles in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.evaluation.advertiser_queries import AdvertiserQueries, query_lists
from ml.evaluation.metrics import Metrics, evaluate, usable_ks
from ml.examples.advertiser_period import (
    AdvertiserData,
)
from ml.examples.nothing_to_learn import NothingToLearn
from ml.examples.pairs import Examples
from ml.features.advertisers import Profiles
from ml.models.advertiser_model import AdvertiserBatch, AdvertiserNetwork, advertiser_batch
from ml.models.encoders import ModelShape
from ml.models.item_model import ContextBatch
from ml.training.fit import VALIDATION_DEPTH, VALIDATION_KS, monitored
from ml.training.sampling import Batches, Cell, SampledBatch, catalogue_views, history_states, split_into_cells
from settings import Settings

POOL = 4  # advertisers that a cell keeps for its corpus negatives, in multiples of a batch's


@dataclass(frozen=True)
class AdvertiserTask:
    """The task to learn which advertiser a user converts with next.

    Attributes:
        data, examples: the data to learn from. settings: those of ``advertiser_settings``.
        validation: the queries that are asked after each epoch; None: there is no validation.
    """

    data: AdvertiserData
    examples: Examples
    settings: Settings
    validation: AdvertiserQueries | None = None

    @property
    def candidates(self) -> int:
        """Return the number of advertisers."""
        return len(self.data.advertisers)

    @property
    def monitor(self) -> str | None:
        """Return the name of recall at the smallest K.

        Of a few hundred advertisers, lists of a hundred hold nearly every positive.
        """
        if self.validation is None:
            return None
        return monitored(min(usable_ks(VALIDATION_KS, len(self.validation.index))))

    def network(self) -> AdvertiserNetwork:
        """Return an untrained network."""
        return new_advertiser_network(self.data, self.settings)

    def batches(self) -> Batches[AdvertiserBatch]:
        """Return the batches of an epoch.

        Raises:
            NothingToLearn: there is no example.
        """
        if not len(self.examples):
            raise NothingToLearn(
                "no example for the advertiser model: no user has events before a cut-off and a positive event with a "
                "known advertiser after it. Check that events or items name their advertiser_id, and the manifest's "
                "positive_events and prediction_window_days."
            )
        cells = self._cells()
        return Batches(
            self.examples,
            cells,
            self.data.dataset,
            settings=self.settings,
            candidates=self.candidates,
            features=_AdvertiserInputs(self.data, cells),
        )

    def users(self, network: AdvertiserNetwork, batch: SampledBatch[AdvertiserBatch]) -> Tensor:
        """Return the embeddings of the rows over the temperature [R, W]."""
        return network.head(history_states(network.encoder, batch), batch.demographics) / network.temperature

    def scores(self, network: AdvertiserNetwork, users: Tensor, candidates: AdvertiserBatch) -> Tensor:
        """Return the scores of candidates for ``users`` [R, W]: [R, candidates]."""
        return users @ network.advertiser_tower(candidates).T

    def validate(self, network: AdvertiserNetwork) -> Metrics:
        """Return the figures of the lists for the validation queries."""
        assert self.validation is not None
        size = len(self.validation.index)
        lists = query_lists(network, self.validation, self.settings, VALIDATION_DEPTH)
        return evaluate(lists, self.validation.positives, size, ks=usable_ks(VALIDATION_KS, size))

    def _cells(self) -> list[Cell]:
        folds = self.data.folds
        views = catalogue_views(self.data.dataset.features, folds)
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
                Cell(
                    cutoff=cell.cutoff,
                    fold=cell.fold,
                    rows=cell.rows,
                    candidates=candidates,
                    share=(counts / len(cell.rows)).astype(np.float32),
                    pool=pool,
                    corpus=len(corpus),
                    positives=(self.examples.user[cell.rows], positives),  # all of a user's are in one cell
                    catalogue=views[cell.fold],
                )
            )
        return cells


class _AdvertiserInputs:
    """Advertisers of a batch; the model has no context."""

    def __init__(self, data: AdvertiserData, cells: list[Cell]) -> None:
        advertisers = [data.advertisers.under(content) for content in data.folds.content]
        # As of the cut-off, with the content that the fold learns under, of the candidates only.
        self._profiles: dict[tuple[float, int], Profiles] = {
            (cell.cutoff, cell.fold): advertisers[cell.fold].at(cell.cutoff).take(cell.candidates) for cell in cells
        }

    def context_of(self, cell: Cell, rows: NDArray[np.int64], random: np.random.Generator) -> ContextBatch | None:
        """Return None."""
        return None

    def features_of(self, cell: Cell, candidates: NDArray[np.int64]) -> AdvertiserBatch:
        """Return the profiles of the advertisers as of the cut-off."""
        place = np.searchsorted(cell.candidates, candidates)
        return advertiser_batch(self._profiles[cell.cutoff, cell.fold].take(place))


def new_advertiser_network(data: AdvertiserData, settings: Settings) -> AdvertiserNetwork:
    """Return an untrained network of the right shape, the same for the same seed.

    The network already knows the scale of the profiles as of the log's end.
    """
    torch.manual_seed(settings.training.seed)
    basis, statistics = data.dataset.basis, data.advertisers.statistics
    length = settings.sequences.length
    shape = ModelShape.of(basis, statistics.width, length, remembers_newest=True)
    network = AdvertiserNetwork(shape, settings.model, settings.features, settings.training.temperature)
    end = data.dataset.log.end
    known = data.advertisers.at(end).take(data.advertisers.known(end))
    network.advertiser_tower.standardise.learn(advertiser_batch(known).levels)
    return network
