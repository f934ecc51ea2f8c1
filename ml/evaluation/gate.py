"""The gate: a check that a new model is not worse than the champion on conversions that neither model has seen."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ml.evaluation.metrics import Metrics, evaluate, usable_ks
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import EvaluationSet, future_queries
from ml.examples.period import TrainingPeriod, whole_log
from ml.features.items import DAY
from ml.models.artifact import ModelArtifact
from settings import Settings

DEPTH = 100  # of the lists; smaller catalogues are judged at a smaller K
KS = (10, 50, 100)
MINIMUM_POSITIVES = 30


@dataclass(frozen=True)
class GateVerdict:
    """The gate's answer."""

    passed: bool
    reason: str
    table: pl.DataFrame  # model, recall@100 (or of the largest K that the catalogue has), diversity90, positives


def judge_pair(
    period: TrainingPeriod,
    candidate: ModelArtifact,
    champion: ModelArtifact,
    *,
    settings: Settings,
    names: tuple[str, str],
) -> GateVerdict:
    """Compare two models on the period's conversions after both of their cut-offs.

    The candidate passes when its recall and its diversity90 are not lower than those of the champion by more than the
    tolerances of ``settings.gate``. Recall is taken at 100, or at the largest K below the size of the catalogue. Fewer
    than ``MINIMUM_POSITIVES`` conversions cannot decide, and the candidate does not pass.
    """
    cutoff = max(candidate.trained_until, champion.trained_until)
    window_days = min((period.end - cutoff) / DAY, period.rule.window_days)
    if window_days <= 0:
        return _nothing_to_judge(names, "no conversion has arrived since the champion was trained")
    measured = [_measure(period, model, cutoff, settings) for model in (candidate, champion)]
    if any(metrics is None for metrics in measured):
        return _nothing_to_judge(names, f"fewer than {MINIMUM_POSITIVES} conversions since both cut-offs")
    new, old = (metrics for metrics in measured if metrics is not None)
    gate, k = settings.gate, new.deepest
    recall_holds = new.recall[k] >= old.recall[k] * (1 - gate.recall_tolerance)
    diversity_holds = new.diversity90 >= old.diversity90 * (1 - gate.diversity_tolerance)
    table = pl.DataFrame(
        {
            "model": names,
            f"recall@{k}": [new.recall[k], old.recall[k]],
            "diversity90": [new.diversity90, old.diversity90],
            "positives": [new.positives, old.positives],
        }
    )
    outcome = "passes" if recall_holds and diversity_holds else "does not pass"
    return GateVerdict(
        recall_holds and diversity_holds,
        f"{names[0]} {outcome}: Recall@{k} {new.recall[k]:.4f} against {old.recall[k]:.4f} of {names[1]}, "
        f"diversity90 {new.diversity90:.4f} against {old.diversity90:.4f}, on {new.positives} conversions of "
        f"{window_days:.1f} days.",
        table,
    )


def _measure(period: TrainingPeriod, model: ModelArtifact, cutoff: float, settings: Settings) -> Metrics | None:
    dataset = model.dataset(period.until(cutoff))
    queries, reaching = future_queries(
        dataset,
        whole_log(period, model.settings),
        cutoff,
        rule=period.rule,
        maximum=settings.evaluation.maximum_users,
        seed=settings.training.seed,
        only_candidates=True,
    )
    if len(queries.positives.items) < MINIMUM_POSITIVES:
        return None
    asked = EvaluationSet(reaching, queries, dataset.log, period.rule.window_days)
    lists = trained_lists(model.network, asked, model.settings, DEPTH)
    size = len(queries.candidates)
    return evaluate(lists, queries.positives, size, ks=usable_ks(KS, size))


def _nothing_to_judge(names: tuple[str, str], reason: str) -> GateVerdict:
    table = pl.DataFrame({"model": names, "recall@100": [None, None], "diversity90": [None, None], "positives": [0, 0]})
    return GateVerdict(False, f"{names[0]} does not pass: {reason}. Try again when more has arrived.", table)
