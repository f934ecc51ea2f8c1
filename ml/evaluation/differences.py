"""Paired differences between one model and every other model: what a claim of a lead rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

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
    surface: str = "",
) -> list[ReportRow]:
    """Return the recall of one model less that of every other model, with paired intervals over queries.

    Args:
        ours: the model's name.
        samples: of the bootstrap. surface: where the queries come from; empty where they are of no surface.
    """
    if ours not in lists:
        return []
    segment = Segment.surface if surface else Segment.all
    return [
        ReportRow.of(
            ours,
            less(k, other),
            paired_difference(lists[ours], ranked, positives, k=k, samples=samples, seed=seed),
            segment=segment,
            group=surface,
        )
        for other, ranked in lists.items()
        if other != ours
        for k in ks
    ]
