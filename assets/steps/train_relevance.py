"""The relevance model's training of a day: labels, an honest measurement, the gate, the model that is deployed.

A training takes as long as all labels together, and a day brings few of them. So a day trains where no model is in use,
or the labels since the model in use are a share of those before. After a refusal the next day trains again.
The newest labels are never learnt before they have measured: a twin of the model is fitted on the labels before them
and measured on them, beside the model in use; then the deployed model is fitted on all labels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.pair_catalogue import pair_catalogue
from assets.steps.relevance_versions import (
    RELEVANCE_MEASURES,
    RelevanceVersion,
    name_of,
    record_none,
    record_version,
    relevance_version,
)
from ml.relevance.nothing_to_tell import NothingToTell
from warehouse.as_of import arrived_by
from warehouse.contracts import LandingTable
from warehouse.world import TrueRelevance, is_world

if TYPE_CHECKING:
    import polars as pl

    from ml.relevance.fit_relevance import FittedRelevance
    from ml.relevance.judged_pairs import JudgedPairs
    from ml.relevance.model_report import ModelMeasures
    from ml.relevance.pair_features import PairCatalogue
    from ml.relevance.relevance_model import RelevanceModel

logger = logging.getLogger(__name__)
TYPED = ("item_id", "content_type")
FOLDS = "folds"
MEASURED_SHARE = 0.2
"""The newest share of the labels, which measures a first model, which no gate can compare."""


@dataclass(frozen=True)
class RelevanceTraining:
    """The result of a day's training.

    Attributes:
        passed: whether a new model is in use from this day on. reason: why, or why not.
        labels: of the day and before. unseen: those that measured.
        since: labels that arrived since the model in use was trained, and due: with which a day trains; None where no
            model was in use.
        new, old: measures of the new model's twin and of the model in use; None where there was none.
        folds: measures on all labels, each by a model that had not seen the label's subject or query.
        url: of the MLflow run; None where nothing was trained.
    """

    passed: bool
    reason: str
    labels: int
    unseen: int
    since: int | None = None
    due: int | None = None
    new: ModelMeasures | None = None
    old: ModelMeasures | None = None
    folds: ModelMeasures | None = None
    url: str | None = None

    def table(self) -> pl.DataFrame:
        """Return the measures for people, one row a model and group."""
        from ml.relevance.model_report import measures_frame

        every = (("new", self.new), ("old", self.old), (FOLDS, self.folds))
        return measures_frame({name: found for name, found in every if found is not None}).drop("curve")


def train_relevance(workspace: Workspace, day: date, tags: Mapping[str, str]) -> RelevanceTraining:
    """Train on the labels that had arrived by ``day``, where enough are new since the model in use."""
    record_none(workspace, day)
    in_use = ModelInUse.of(workspace, day)
    if in_use is None:
        return _trained(workspace, day, None, tags)
    if in_use.since < in_use.due:
        trained = RelevanceTraining(False, in_use.stays, in_use.learnt + in_use.since, 0)
    else:
        trained = _trained(workspace, day, in_use, tags)
    return replace(trained, since=in_use.since, due=in_use.due)


def _trained(workspace: Workspace, day: date, in_use: ModelInUse | None, tags: Mapping[str, str]) -> RelevanceTraining:
    labels, least = labels_by(workspace, day), workspace.settings.relevance.minimum_labels
    if labels.height < least:  # said without the catalogue, which takes seconds
        return RelevanceTraining(False, _too_few(labels.height, day, least), labels.height, 0)
    training = _Training.of(workspace, day, labels, in_use)
    if len(training.judged) < least:
        return RelevanceTraining(False, _too_few(len(training.judged), day, least), len(training.judged), 0)
    try:
        return training.run(tags)
    except NothingToTell as error:
        return RelevanceTraining(False, f"{error}.", len(training.judged), 0)


def _too_few(labels: int, day: date, least: int) -> str:
    return (
        f"{labels} labels of pairs that the catalogue knows have arrived by {day}, and a relevance model needs {least} "
        "(ADSEQ_RELEVANCE__MINIMUM_LABELS): rate pairs on the service's page /label, or land relevance_labels."
    )


def labels_by(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return the labels that had arrived by ``day``, and their true relevance where the log is the synthetic world."""
    import polars as pl

    labels = arrived_by(workspace.tables, LandingTable.relevance_labels, day).drop("arrival_date").collect()
    if not is_world(workspace.landing.root):
        return labels.with_columns(true_relevance=pl.lit(None, pl.Float64))
    truth = TrueRelevance.of(workspace.landing.root, day).of_candidates(labels)
    return labels.with_columns(pl.Series("true_relevance", truth))


@dataclass(frozen=True)
class ModelInUse:
    """The relevance model that a day finds in use.

    Attributes:
        learnt: labels that had arrived when the model was trained. since: labels that have arrived since then.
        due: labels since then with which a new model is trained.
    """

    version: RelevanceVersion
    model: RelevanceModel
    learnt: int
    since: int
    due: int

    @classmethod
    def of(cls, workspace: Workspace, day: date) -> ModelInUse | None:
        """Return the model in use; None where there is none, or no file of it can be read.

        A model that another version of adseq wrote is then followed by a new first model.
        """
        import polars as pl

        from ml.file_integrity import Unreadable
        from ml.relevance.relevance_gate import LEAST_LABELS
        from ml.relevance.relevance_model import RelevanceModel

        version = relevance_version(workspace, day)
        if version is None:
            return None
        try:
            model = RelevanceModel.load(version.directory)
        except Unreadable as error:
            logger.warning("%s: a new first model is trained", error)
            return None
        arrived = arrived_by(workspace.tables, LandingTable.relevance_labels, day)
        before = pl.col("arrival_date") <= version.day
        learnt, since = arrived.select(learnt=before.sum(), since=(~before).sum()).collect().row(0)
        due = max(LEAST_LABELS, math.ceil(workspace.settings.relevance.retrain_share * learnt))
        return cls(version, model, learnt, since, due)

    @property
    def stays(self) -> str:
        return (
            f"{self.since} labels since {self.version.name} was trained: the next training comes with {self.due} "
            "(ADSEQ_RELEVANCE__RETRAIN_SHARE)."
        )


@dataclass(frozen=True)
class _Training:
    """A training: the labels with features, and what models are fitted with."""

    workspace: Workspace
    day: date
    labels: pl.DataFrame
    judged: JudgedPairs
    catalogue: PairCatalogue
    in_use: ModelInUse | None

    @classmethod
    def of(cls, workspace: Workspace, day: date, labels: pl.DataFrame, in_use: ModelInUse | None) -> _Training:
        from ml.relevance.judged_pairs import judged_pairs

        catalogue = pair_catalogue(workspace, day)
        types = workspace.items_as_of(day).select(*TYPED)
        return cls(workspace, day, labels, judged_pairs(labels, catalogue, types), catalogue, in_use)

    def run(self, tags: Mapping[str, str]) -> RelevanceTraining:
        """Measure, judge, and fit and record the model to deploy if it passes."""
        from ml.relevance.model_report import measure_model
        from ml.relevance.relevance_gate import LEAST_LABELS, judge_relevance

        in_use = self.in_use
        cutoff = self._first_cutoff() if in_use is None else in_use.version.trained_until
        known, unseen = self.judged.before(cutoff), self.judged.since(cutoff)
        if in_use is None and not len(known):  # all labels have one time, as of a crowd that dates by the day
            known, unseen = self.judged.split_by_place(MEASURED_SHARE)
        if in_use is not None and len(unseen) < LEAST_LABELS:
            reason = f"{len(unseen)} labels since {in_use.version.name} was trained: the gate needs {LEAST_LABELS}."
            return RelevanceTraining(False, reason, len(self.judged), len(unseen))
        twin = self._fit(known, cutoff).model
        if in_use is None:
            measured = {"new": measure_model(twin, unseen)}
            passed, reason = True, f"{name_of(self.day)} is the first relevance model that can be read."
        else:
            verdict = judge_relevance(
                twin,
                in_use.model,
                unseen,
                seen_by_old=self._as_read_by(in_use.model).since(cutoff),
                tolerance=self.workspace.settings.relevance.tolerance,
            )
            measured = {"new": verdict.new, "old": verdict.old}
            passed, reason = verdict.passed, verdict.reason
        return self._recorded(measured, passed=passed, reason=reason, unseen=len(unseen), tags=tags)

    def _as_read_by(self, model: RelevanceModel) -> JudgedPairs:
        """Return the labels with the features that a model in use sees: titles and queries in the model's own space."""
        from ml.relevance.judged_pairs import judged_pairs

        catalogue = pair_catalogue(self.workspace, self.day, model.text)
        return judged_pairs(self.labels, catalogue, self.workspace.items_as_of(self.day).select(*TYPED))

    def _first_cutoff(self) -> float:
        """Return the instant after which the newest ``MEASURED_SHARE`` of the labels were given."""
        import numpy as np

        return float(np.quantile(self.judged.seconds, 1 - MEASURED_SHARE))

    def _fit(self, judged: JudgedPairs, trained_until: float) -> FittedRelevance:
        from ml.relevance.fit_relevance import fit_relevance

        return fit_relevance(
            judged,
            self.workspace.settings.relevance,
            version=name_of(self.day),
            trained_until=trained_until,
            text=self.catalogue.text,
        )

    def _recorded(
        self,
        measured: Mapping[str, ModelMeasures],
        *,
        passed: bool,
        reason: str,
        unseen: int,
        tags: Mapping[str, str],
    ) -> RelevanceTraining:
        """Write the measures, and the model where it passed; log both to MLflow."""
        import mlflow
        import numpy as np
        from mlflow.models import infer_signature

        from ml.evaluation.metrics import mlflow_metrics
        from ml.relevance.model_report import measure_verdicts, measures_frame
        from ml.versions.relevance_pyfunc import example_pairs, scored
        from ml.versions.requirements import RELEVANCE_LIBRARIES
        from ml.versions.tracking import RELEVANCE, RELEVANCE_MODEL, log_pyfunc

        workspace, name = self.workspace, name_of(self.day)
        directory = workspace.home.relevance / self.day.isoformat()
        end, number = float(np.nextafter(self.judged.seconds.max(), np.inf)), ""
        workspace.tracking.replace_run(RELEVANCE, "relevance_version", name)
        with workspace.tracking.run(RELEVANCE, name, {**tags, "relevance_version": name}) as run:
            mlflow.log_params({**workspace.settings.flat(), "labels": len(self.judged), "unseen_labels": unseen})
            mlflow.set_tag("gate", reason)
            for twin, measures in measured.items():
                mlflow.log_metrics(mlflow_metrics(_figures(twin, measures)))
            if passed:
                fitted = self._fit(self.judged, end)
                model = fitted.model
                model.save(directory)
                folds = measure_verdicts(fitted.unseen, self.judged, relevant_label=model.relevant_label)
                mlflow.log_metrics(mlflow_metrics(_figures(FOLDS, folds)))
                measured = {**measured, FOLDS: folds}
                example = example_pairs(self.judged.features[:5], self.judged.cell[:5])
                number = log_pyfunc(
                    RELEVANCE_MODEL,
                    directory,
                    example,
                    signature=infer_signature(example, scored(model, example)),
                    libraries=RELEVANCE_LIBRARIES,
                ).number
        workspace.tables.write(RELEVANCE_MEASURES, measures_frame(measured), {"day": self.day})
        record_version(workspace, self.day, trained_until=end, passed=passed, reason=reason)
        newest = relevance_version(workspace, date.max)
        if passed and newest is not None and newest.name == name:  # not an earlier day that runs again
            workspace.tracking.promote("relevance", number)
        return RelevanceTraining(
            passed,
            reason,
            len(self.judged),
            unseen,
            new=measured["new"],
            old=measured.get("old"),
            folds=measured.get(FOLDS),
            url=workspace.tracking.url(run),
        )


def _figures(model: str, measures: ModelMeasures) -> dict[str, float | None]:
    """Return the figures of a model by their names in MLflow."""
    figures: dict[str, float | None] = {
        "trim.label1_trimmed": measures.trim.irrelevant_trimmed,
        "trim.label4_trimmed": measures.trim.relevant_trimmed,
    }
    groups = {
        "all": measures.all,
        **measures.by_cell,
        **{f"stage.{name}": own for name, own in measures.by_stage.items()},
    }
    for group, own in groups.items():
        figures |= {f"{group}.ece": own.calibration_error, f"{group}.ndcg@10": own.ndcg}
        figures |= {f"{group}.ndcg@10_ceiling": own.ndcg_ceiling}
    return {f"{model}.{name}": value for name, value in figures.items()}
