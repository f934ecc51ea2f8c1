"""A version of the advertiser model: the data that it is trained on, and the models that its report compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ml.evaluation.advertiser_queries import advertiser_queries
from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
    advertiser_data,
    advertiser_examples,
    advertiser_settings,
    cross_fitted,
)
from ml.examples.nothing_to_learn import NothingToLearn
from ml.examples.pairs import Examples
from ml.examples.period import TrainingPeriod
from ml.features.content import ContentBasis
from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.artifact import Artifact
from ml.models.version_directories import ADVERTISER_EVALUATION, ADVERTISER_EVALUATION_POOLING, DEPLOYED
from ml.training.advertiser_task import AdvertiserTask
from ml.versions.mlflow_models import embed_events, event_signature, input_example
from ml.versions.tracking import ADVERTISER_MODEL, Registered, log_pyfunc
from ml.versions.train import PlannedFit
from settings import Settings, UserEncoder


@dataclass(frozen=True)
class AdvertiserVersion:
    """A version of the advertiser model to be trained.

    Attributes:
        known: everything that had arrived.
        data, examples: features and advertisers of ``known``, and the examples to learn from, not cross-fitted yet.
    """

    kind: ClassVar[str] = "advertiser"
    artifact_class: ClassVar[type[AdvertiserArtifact]] = AdvertiserArtifact

    known: AdvertiserPeriod
    data: AdvertiserData
    examples: Examples
    settings: Settings

    @classmethod
    def of(cls, known: AdvertiserPeriod, basis: ContentBasis, settings: Settings) -> AdvertiserVersion:
        """Return the version that is trained on everything that had arrived, under the period's content basis.

        Raises:
            NothingToLearn: the log names no advertiser.
        """
        if not len(known.advertiser_ids):
            raise NothingToLearn("the log names no advertiser: neither events nor items have an advertiser_id.")
        effective = advertiser_settings(settings)
        data = advertiser_data(known, effective, known.period.event_names, basis)
        return cls(known, data, advertiser_examples(known, data, effective), effective)

    @property
    def period(self) -> TrainingPeriod:
        return self.known.period

    @property
    def sizes(self) -> Mapping[str, int]:
        return {
            "events": len(self.period.events),
            "advertisers": len(self.known.advertiser_ids),
            "examples": len(self.examples),
        }

    def comparisons(self) -> Sequence[PlannedFit[AdvertiserNetwork]]:
        """Return the model itself and mean pooling."""
        cutoff = self.period.end - self.period.window
        earlier = self.known.until(cutoff)
        data = advertiser_data(earlier, self.settings, earlier.period.event_names)
        queries = advertiser_queries(
            self.known,
            data,
            cutoff,
            settings=self.settings,
            maximum=self.settings.training.validation_users,
            index_size=len(data.advertisers),
        )
        asked = queries if len(queries) else None  # nobody may have converted
        examples, data = advertiser_examples(earlier, data, self.settings), cross_fitted(data, earlier, self.settings)
        pooling = pooled(self.settings)
        return [
            _planned(ADVERTISER_EVALUATION, earlier, AdvertiserTask(data, examples, self.settings, asked)),
            _planned(ADVERTISER_EVALUATION_POOLING, earlier, AdvertiserTask(data, examples, pooling)),
        ]

    def deployed(self) -> PlannedFit[AdvertiserNetwork]:
        data = cross_fitted(self.data, self.known, self.settings)
        task = AdvertiserTask(data, self.examples, self.settings)
        return PlannedFit("to deploy", DEPLOYED, task, self.period, data.dataset.basis)

    def register(self, artifact: Artifact[AdvertiserNetwork], work: Path) -> Registered:
        example = input_example(self.period.events)
        signature = event_signature(embed_events(artifact, example))
        return log_pyfunc(ADVERTISER_MODEL, work / DEPLOYED, example, signature=signature)


def _planned(part: str, known: AdvertiserPeriod, task: AdvertiserTask) -> PlannedFit[AdvertiserNetwork]:
    return PlannedFit(f"advertisers {part}", part, task, known.period, task.data.dataset.basis)


def pooled(settings: Settings) -> Settings:
    """Return the same settings with the mean pooling encoder, the baseline of the report."""
    return settings.model_copy(
        update={"model": settings.model.model_copy(update={"encoder": UserEncoder.mean_pooling})}
    )
