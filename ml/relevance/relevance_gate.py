"""The gate of relevance models: a new model is not worse on labels that neither model has learnt."""

from __future__ import annotations

from dataclasses import dataclass

from ml.relevance.judged_pairs import JudgedPairs
from ml.relevance.model_report import ModelMeasures, measure_model
from ml.relevance.relevance_model import RelevanceModel

LEAST_LABELS = 200
"""Labels after both cut-offs below which the gate cannot decide."""


@dataclass(frozen=True)
class RelevanceVerdict:
    """The gate's answer: whether the new model passes, why, and the measures of the new and the old model."""

    passed: bool
    reason: str
    new: ModelMeasures
    old: ModelMeasures


def judge_relevance(
    new: RelevanceModel, old: RelevanceModel, unseen: JudgedPairs, *, seen_by_old: JudgedPairs, tolerance: float
) -> RelevanceVerdict:
    """Compare two models on labels after both cut-offs.

    Args:
        unseen, seen_by_old: the same labels, with the features that the new and the old model see.

    The new model passes where its nDCG@10 is not lower, and its calibration error not higher, than those of the old
    model by more than ``tolerance``.

    Raises:
        ValueError: fewer than ``LEAST_LABELS`` labels, or a label that one of the models has learnt.
    """
    if len(unseen) < LEAST_LABELS:
        raise ValueError(f"{len(unseen)} labels after both cut-offs: the gate needs {LEAST_LABELS}")
    if unseen.seconds.min() < max(new.trained_until, old.trained_until):
        raise ValueError("a label lies before the cut-off of a model: the model may have learnt it")
    measured = [measure_model(new, unseen), measure_model(old, seen_by_old)]
    ours, theirs = (each.all for each in measured)
    ranks = not ours.ndcg < theirs.ndcg - tolerance
    calibrated = not ours.calibration_error > theirs.calibration_error + tolerance
    outcome = "passes" if ranks and calibrated else "does not pass"
    return RelevanceVerdict(
        ranks and calibrated,
        f"{new.version} {outcome}: nDCG@10 {ours.ndcg:.4f} against {theirs.ndcg:.4f} of {old.version}, calibration "
        f"error {ours.calibration_error:.4f} against {theirs.calibration_error:.4f}, on {len(unseen)} labels.",
        *measured,
    )
