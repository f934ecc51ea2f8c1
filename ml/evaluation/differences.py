"""Paired differences between one model and every other model: the ground of every claim of a lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.metrics import paired_difference
from ml.evaluation.report_rows import ReportRow, Segment, less
from ml.retrieval.lists import Positives, RankedLists

Model = TypeVar("Model", bound=str)


def differences(
    ours: Model,
    lists: Mapping[Model, RankedLists],
    positives: Positives,
    *,
    ks: Sequence[int],
    samples: int,
    seed: int,
    owners: NDArray[np.int64] | None = None,
    surface: str = "",
) -> list[ReportRow]:
    """Return the recall of one model less that of every other model, with paired intervals over queries.

    Args:
        ours: the model's name.
        owners: [queries] the user of each query, where a user has several.
        samples: of the bootstrap.
        surface: the surface of the queries; empty where they are of no surface.
    """
    if ours not in lists:
        return []
    segment = Segment.surface if surface else Segment.all
    return [
        ReportRow.of(
            ours,
            less(k, other),
            paired_difference(lists[ours], ranked, positives, k=k, owners=owners, samples=samples, seed=seed),
            segment=segment,
            group=surface,
        )
        for other, ranked in lists.items()
        if other != ours
        for k in ks
    ]
