"""Recall with intervals, as rows: each model's own, and one model's less every other's, the ground of any claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.intervals import Interval, confidence_interval, paired_difference
from ml.evaluation.report_rows import ReportRow, Segment, less
from ml.retrieval.lists import Positives, RankedLists

Model = TypeVar("Model", bound=str)


def bounded_recalls(
    lists: Mapping[Model, RankedLists],
    positives: Positives,
    *,
    ks: Sequence[int],
    samples: int,
    seed: int,
    owners: NDArray[np.int64] | None = None,
    surface: str = "",
) -> list[ReportRow]:
    """Return the recall of every model with its interval; the arguments are those of ``differences``."""
    segment = Segment.surface if surface else Segment.all
    return [
        ReportRow.of(
            model,
            f"recall@{k}",
            confidence_interval(ranked, positives, k, owners=owners, samples=samples, seed=seed),
            segment=segment,
            group=surface,
        )
        for model, ranked in lists.items()
        for k in ks
    ]


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


def intervals_of(rows: Sequence[ReportRow], metric: str) -> dict[str, Interval]:
    """Return one figure of all queries, or of one surface, by model; a bound that no one asked for is NaN."""
    nothing = float("nan")
    return {
        row.model: Interval(
            row.value, nothing if row.low is None else row.low, nothing if row.high is None else row.high
        )
        for row in rows
        if row.metric == metric and row.segment in (Segment.all, Segment.surface) and row.value is not None
    }
