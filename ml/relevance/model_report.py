"""Measures of a relevance model on labels that it has not seen: ranking, calibration, and the trim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.relevance.calibration import UNKNOWN_TYPE, calibration_error, reliability
from ml.relevance.judged_pairs import JudgedPairs
from ml.relevance.relevance_model import RelevanceModel

Values = NDArray[np.float64]
K = 10
_CURVE = pl.List(pl.Struct({"score": pl.Float64, "target": pl.Float64, "labels": pl.Int64}))
_NUMBERS = ("ndcg", "ndcg_ceiling", "calibration_error", "trim_error")
MEASURES = pl.Schema(
    {
        "model": pl.String(),
        "segment": pl.String(),
        "group": pl.String(),
        "labels": pl.Int64(),
        "places": pl.Int64(),
        **{name: pl.Float64() for name in (*_NUMBERS, "irrelevant_trimmed", "relevant_trimmed")},
        "curve": _CURVE,
    }
)
"""Columns of ``measures_frame``, and of the table ``relevance_measures``."""
LEAST_PAIRS = 2
"""Judged candidates without which a subject or query has no order that could be right or wrong."""


@dataclass(frozen=True)
class CellMeasures:
    """The measures of one group of labels: a cell, a stage, or all.

    Attributes:
        labels: their number. places: subjects and queries with an order to measure.
        ndcg: nDCG@10 of the auction's score, mean over places; NaN without one.
        ndcg_ceiling: nDCG@10 of the true relevance, which noisy labels hold below 1; NaN where no truth is known.
        calibration_error: of the auction's score. trim_error: of the trim's score.
        curve: of the auction's score: score, target, labels.
    """

    labels: int
    places: int
    ndcg: float
    ndcg_ceiling: float
    calibration_error: float
    trim_error: float
    curve: pl.DataFrame


@dataclass(frozen=True)
class TrimMeasures:
    """The share of the labels that the trim drops, weighted: of label 1, and of the relevant labels."""

    irrelevant_trimmed: float
    relevant_trimmed: float


@dataclass(frozen=True)
class Verdicts:
    """The scores of the pairs of labels, and whether the trim drops them, [labels] each."""

    trim: Values
    relevance: Values
    dropped: NDArray[np.bool_]


@dataclass(frozen=True)
class ModelMeasures:
    """The measures of a model on labels: all together, by cell, by content type and by stage; and of the trim."""

    all: CellMeasures
    by_cell: Mapping[str, CellMeasures]
    by_content_type: Mapping[str, CellMeasures]
    by_stage: Mapping[str, CellMeasures]
    trim: TrimMeasures


def measure_model(model: RelevanceModel, judged: JudgedPairs) -> ModelMeasures:
    """Measure a model on labels that it has not learnt."""
    trim, relevance = model.trim.of(judged.features, judged.cell), model.auction.of(judged.features, judged.cell)
    verdicts = Verdicts(trim, relevance, trim < model.threshold_of(judged.content_type))
    return measure_verdicts(verdicts, judged, relevant_label=model.relevant_label)


def measure_verdicts(verdicts: Verdicts, judged: JudgedPairs, *, relevant_label: int) -> ModelMeasures:
    """Measure verdicts on labels. The true relevance, where it is known, gives the ceiling of nDCG."""
    trim, relevance, dropped = verdicts.trim, verdicts.relevance, verdicts.dropped
    relevant = judged.label >= relevant_label

    def measures(rows: NDArray[np.int64]) -> CellMeasures:
        own, weight = judged.take(rows), judged.weight[rows]
        ceiling = mean_ndcg(own.truth, own) if np.isfinite(own.truth).all() else float("nan")
        return CellMeasures(
            labels=len(rows),
            places=len(_lists(own)),
            ndcg=mean_ndcg(relevance[rows], own),
            ndcg_ceiling=ceiling,
            calibration_error=calibration_error(relevance[rows], own.relevance, weight),
            trim_error=calibration_error(trim[rows], relevant[rows].astype(np.float64), weight),
            curve=reliability(relevance[rows], own.relevance, weight),
        )

    return ModelMeasures(
        all=measures(np.arange(len(judged))),
        by_cell={cell: measures(rows) for cell, rows in _groups(judged.cell)},
        by_content_type={name: measures(rows) for name, rows in _groups(judged.content_type.fill_null(UNKNOWN_TYPE))},
        by_stage={stage: measures(rows) for stage, rows in _groups(judged.stage)},
        trim=TrimMeasures(
            irrelevant_trimmed=_share(dropped, judged.weight, judged.label == 1),
            relevant_trimmed=_share(dropped, judged.weight, relevant),
        ),
    )


def measures_frame(measured: Mapping[str, ModelMeasures]) -> pl.DataFrame:
    """Return the measures of models by name as a table, one row a model and group.

    Columns: model, segment (all, cell, content_type, stage), group, labels, places, ndcg, ndcg_ceiling,
    calibration_error, trim_error, curve (score, target, labels), irrelevant_trimmed and relevant_trimmed (segment all).
    """
    rows = []
    for model, measures in measured.items():
        segments = {
            "all": {"all": measures.all},
            "cell": measures.by_cell,
            "content_type": measures.by_content_type,
            "stage": measures.by_stage,
        }
        for segment, groups in segments.items():
            for group, own in groups.items():
                trim = measures.trim if segment == "all" else None
                rows.append(
                    {
                        "model": model,
                        "segment": segment,
                        "group": group,
                        **{name: getattr(own, name) for name in ("labels", "places", *_NUMBERS)},
                        "curve": own.curve.to_dicts(),
                        "irrelevant_trimmed": None if trim is None else trim.irrelevant_trimmed,
                        "relevant_trimmed": None if trim is None else trim.relevant_trimmed,
                    }
                )
    return pl.DataFrame(rows, schema=MEASURES)


def mean_ndcg(scores: Values, judged: JudgedPairs) -> float:
    """Return nDCG@10 of scores, mean over subjects and queries with at least ``LEAST_PAIRS`` judged candidates.

    The gain of a candidate is 2^(label - 1) - 1, 0 for label 1, with the mean label of its raters; a candidate at place
    i counts 1 / log2(1 + i). A subject or query whose candidates all have one label has no order, and is left out. NaN
    without a subject or query.

    Source: Burges et al., 2005, "Learning to Rank using Gradient Descent" (gain and discount).

    Args:
        scores: [labels] equal for the labels of one pair.
    """
    found = []
    for rows in _lists(judged):
        _, first, owner = np.unique(judged.pair[rows], return_index=True, return_inverse=True)
        label = np.bincount(owner, judged.label[rows]) / np.bincount(owner)
        gain = 2 ** (label - 1) - 1
        discount = 1 / np.log2(np.arange(2, 2 + min(K, len(gain))))
        ranked = gain[np.argsort(-scores[rows][first], kind="stable")][:K]
        found.append(float(ranked @ discount) / float(np.sort(gain)[::-1][:K] @ discount))
    return float(np.mean(found)) if found else float("nan")


def _lists(judged: JudgedPairs) -> list[NDArray[np.int64]]:
    """Return the rows of each subject or query that has an order to measure."""
    order = np.argsort(judged.place, kind="stable")
    lists = np.split(order, np.flatnonzero(np.diff(judged.place[order])) + 1) if len(order) else []
    return [
        rows for rows in lists if len(np.unique(judged.pair[rows])) >= LEAST_PAIRS and np.ptp(judged.label[rows]) > 0
    ]


def _groups(values: pl.Series) -> Iterator[tuple[str, NDArray[np.int64]]]:
    for value in values.drop_nulls().unique().sort():
        yield value, (values == value).fill_null(False).arg_true().to_numpy().astype(np.int64)


def _share(dropped: NDArray[np.bool_], weight: Values, among: NDArray[np.bool_]) -> float:
    """Return the weighted share of dropped labels among some labels; NaN without any."""
    total = float(weight[among].sum())
    return float(weight[among & dropped].sum()) / total if total else float("nan")
