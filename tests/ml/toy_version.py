"""A version of the toy model: what the course of a training asks of a third kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import mlflow

from ml.examples.period import TrainingPeriod
from ml.features.content import ContentBasis
from ml.models.artifact import Artifact
from ml.models.encoders import ModelShape
from ml.models.version_directories import DEPLOYED
from ml.training.fit import monitored
from ml.versions.tracking import Registered
from ml.versions.train import PlannedFit
from settings import Settings
from tests.ml.toy_task import ToyNetwork, ToyTask


@dataclass(frozen=True)
class ToyArtifact(Artifact[ToyNetwork]):
    @staticmethod
    def untrained(shape: ModelShape, settings: Settings) -> ToyNetwork:
        return ToyNetwork()


@dataclass(frozen=True)
class ToyVersion:
    kind: ClassVar[str] = "toy"
    artifact_class: ClassVar[type[ToyArtifact]] = ToyArtifact

    period: TrainingPeriod
    basis: ContentBasis
    settings: Settings

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"events": len(self.period.events)}

    def comparisons(self) -> Sequence[PlannedFit[ToyNetwork]]:
        return [
            PlannedFit(
                "toy evaluation", "evaluation", ToyTask(self.settings, monitor=monitored(1)), self.period, self.basis
            )
        ]

    def deployed(self) -> PlannedFit[ToyNetwork]:
        return PlannedFit("to deploy", DEPLOYED, ToyTask(self.settings), self.period, self.basis)

    def register(self, artifact: Artifact[ToyNetwork], work: Path) -> Registered:
        mlflow.log_artifacts(str(work / DEPLOYED), "model")
        return Registered("1", mlflow.create_external_model("toy").model_id)
