"""Item-kNN of the library implicit, with BM25 weights or cosine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.peers.matrices import sequence_matrix, session_matrix, user_matrix
from benchmarks.peers.tasks import Codes, Task
from benchmarks.peers.tuning import Fitted

NEIGHBOURS = (100, 500)
BM25 = ((1.2, 0.75), (1.2, 0.25), (0.4, 0.1), (1.2, 0.0))  # K1, B


@dataclass(frozen=True)
class KnnSetting:
    """``recent``: fitted on the newest window only (news); ``by_session``: items are alike that share sessions."""

    neighbours: int
    by_session: bool
    recent: bool


@dataclass(frozen=True)
class Bm25Setting(KnnSetting):
    """The two parameters of BM25."""

    k1: float
    b: float


@dataclass(frozen=True)
class KnnModel:
    """A query's score of an item: the sum of the similarities of the query's items to the item, as in implicit."""

    similarity: csr_matrix  # [items, items]

    def scores(self, sequences: list[Codes]) -> NDArray[np.float32]:
        query = sequence_matrix(sequences, self.similarity.shape[0])
        scores: NDArray[np.float32] = (query @ self.similarity).toarray().astype(np.float32)
        scores[scores == 0] = -np.inf  # no neighbour of any of the query's items
        return scores


class Cosine:
    """Grid: neighbours × users or sessions × what is fitted on."""

    title = "cosine item-kNN"
    note = (
        f"Item-kNN of implicit: grid of {' and '.join(map(str, NEIGHBOURS))} neighbours, alike by users or by "
        f"sessions, fitted on all events or on the newest window; BM25 with (K1, B) of {', '.join(map(str, BM25))}."
    )
    settings: tuple[KnnSetting, ...] = tuple(
        KnnSetting(neighbours, by_session, recent)
        for recent in (False, True)
        for by_session in (False, True)
        for neighbours in NEIGHBOURS
    )
    patience = None

    def fitted(self, task: Task, wanted: Sequence[KnnSetting], seed: int) -> Iterator[Fitted[KnnSetting]]:
        for setting in wanted:
            started = time.perf_counter()
            log = task.recent() if setting.recent else task.log
            matrix = session_matrix(log) if setting.by_session else user_matrix(log)
            model = self.recommender(setting)
            with warnings.catch_warnings():
                # implicit weights the matrix into COO itself, and then warns that it is COO.
                warnings.filterwarnings("ignore", category=ParameterWarning, message="Method expects CSR input")
                # float64, because cosine divides in place by float64 norms.
                model.fit(matrix.astype(np.float64), show_progress=False)
            yield Fitted(setting, KnnModel(model.similarity), time.perf_counter() - started)

    def recommender(self, setting: KnnSetting) -> CosineRecommender:
        """Return implicit's model of a setting."""
        return CosineRecommender(K=setting.neighbours)

    def words(self, setting: KnnSetting) -> str:
        alike = "sessions" if setting.by_session else "users"
        return f"{setting.neighbours} neighbours by {alike}, {'newest window' if setting.recent else 'all events'}"


class Bm25(Cosine):
    """Grid: that of cosine × (K1, B)."""

    title = "BM25 item-kNN"
    settings: tuple[KnnSetting, ...] = tuple(
        Bm25Setting(base.neighbours, base.by_session, base.recent, k1, b) for base in Cosine.settings for k1, b in BM25
    )

    def recommender(self, setting: KnnSetting) -> BM25Recommender:
        assert isinstance(setting, Bm25Setting)
        return BM25Recommender(K=setting.neighbours, K1=setting.k1, B=setting.b)

    def words(self, setting: KnnSetting) -> str:
        assert isinstance(setting, Bm25Setting)
        return f"{super().words(setting)}, K1 {setting.k1:g}, B {setting.b:g}"
