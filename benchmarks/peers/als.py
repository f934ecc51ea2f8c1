"""ALS of the library implicit: weighted matrix factorisation (Hu, Koren and Volinsky 2008), users folded in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray

from benchmarks.peers.matrices import sequence_matrix, user_matrix
from benchmarks.peers.tasks import Codes, Task
from benchmarks.peers.tuning import Fitted

ITERATIONS, REGULARIZATION = 15, 0.01  # implicit's defaults
FACTORS = (
    64,
    128,
)  # 256 differed by less than the noise of the slice, found less afterwards, and took four times as long


@dataclass(frozen=True)
class AlsSetting:
    """``recent``: fitted on the newest window only (news)."""

    factors: int
    alpha: float
    recent: bool


@dataclass(frozen=True)
class AlsModel:
    """Item factors; a query is a user folded in by one least-squares step."""

    fitted: AlternatingLeastSquares
    unseen: NDArray[np.bool_]  # [items]

    def scores(self, sequences: list[Codes]) -> NDArray[np.float32]:
        users = self.fitted.recalculate_user(np.arange(len(sequences)), sequence_matrix(sequences, len(self.unseen)))
        scores: NDArray[np.float32] = users @ self.fitted.item_factors.T
        scores[:, self.unseen] = -np.inf
        # All of the query's items may be new to a model of the newest window.
        scores[~users.any(axis=1)] = -np.inf
        return scores


class Als:
    """Grid: factors × alpha × what is fitted on."""

    title = "ALS"
    note = (
        f"ALS of implicit: {ITERATIONS} iterations, regularisation {REGULARIZATION}; grid of 64 and 128 factors, "
        "α of 10, 40 and 100, fitted on all events or on the newest window."
    )
    settings = tuple(
        AlsSetting(factors, alpha, recent)
        for recent in (False, True)
        for factors in FACTORS
        for alpha in (10.0, 40.0, 100.0)
    )
    patience = None

    def fitted(self, task: Task, wanted: Sequence[AlsSetting], seed: int) -> Iterator[Fitted[AlsSetting]]:
        for setting in wanted:
            started = time.perf_counter()
            log = task.recent() if setting.recent else task.log
            model = AlternatingLeastSquares(
                factors=setting.factors,
                alpha=setting.alpha,
                regularization=REGULARIZATION,
                iterations=ITERATIONS,
                random_state=seed,
            )
            model.fit(user_matrix(log), show_progress=False)
            unseen = np.bincount(log.item, minlength=log.items) == 0
            yield Fitted(setting, AlsModel(model, unseen), time.perf_counter() - started)

    def words(self, setting: AlsSetting) -> str:
        period = "newest window" if setting.recent else "all events"
        return f"{setting.factors} factors, α {setting.alpha:g}, {period}"
