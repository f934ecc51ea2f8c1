"""A version of the item model: the data that it is trained on, and the models that its reports compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ml.evaluation.model_names import ADDITIONAL, TRAINED, ModelName
from ml.evaluation.queries import EvaluationSet, newest_window
from ml.examples.period import Prepared, TrainingPeriod, cross_fitted, prepare_examples, with_contexts
from ml.models.artifact import Artifact, ModelArtifact
from ml.models.item_model import TwoTower
from ml.models.version_directories import DEPLOYED, evaluation_part
from ml.training.item_task import ItemTask
from ml.versions.mlflow_models import embed_sequences, event_signature, input_example, log_head
from ml.versions.tracking import ITEM_MODEL, Registered, log_pyfunc
from ml.versions.train import PlannedFit
from settings import Settings

HEAD = "head.pt2"  # the head alone, for other serving stacks


@dataclass(frozen=True)
class ItemVersion:
    """A version of the item model to be trained.

    Attributes:
        period: everything that had arrived.
        prepared: the examples of the period, with contexts, not cross-fitted yet.
    """

    kind: ClassVar[str] = "item"
    artifact_class: ClassVar[type[ModelArtifact]] = ModelArtifact

    period: TrainingPeriod
    prepared: Prepared
    settings: Settings

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"events": len(self.period.events), "items": len(self.period.items)}

    def comparisons(self) -> Sequence[PlannedFit[TwoTower]]:
        """Return the contextual model, the model without context, mean pooling, and the additional models.

        They differ only in contexts, encoder and fusion.
        """
        earlier = self.period.until(self.period.end - self.period.window)
        known = cross_fitted(prepare_examples(earlier, self.settings), earlier, self.settings)
        window = newest_window(self.period, known.dataset, self.settings)
        asked = window if len(window.queries) else None  # nobody may have converted
        named = {each.value for each in self.settings.evaluation.additional_models}
        additional = [model for model in ADDITIONAL if model.value in named]
        return [
            self._comparison(model, earlier, known, asked if model is ModelName.contextual else None)
            for model in (*TRAINED, *additional)
        ]

    def deployed(self) -> PlannedFit[TwoTower]:
        prepared = cross_fitted(self.prepared, self.period, self.settings)
        task = ItemTask.of(self.period, prepared, self.settings)
        return PlannedFit("to deploy", DEPLOYED, task, self.period, prepared.dataset.basis)

    def register(self, artifact: Artifact[TwoTower], work: Path) -> Registered:
        log_head(artifact.network, self.settings.features, work / HEAD)
        example = input_example(self.period.events)
        signature = event_signature(embed_sequences(artifact, example))
        return log_pyfunc(ITEM_MODEL, work / DEPLOYED, example, signature=signature)

    def _comparison(
        self, model: ModelName, earlier: TrainingPeriod, known: Prepared, asked: EvaluationSet | None
    ) -> PlannedFit[TwoTower]:
        settings = model.settings(self.settings)
        task = ItemTask.of(earlier, with_contexts(known, earlier, settings), settings, asked)
        return PlannedFit(model.value, evaluation_part(model), task, earlier, known.dataset.basis)
