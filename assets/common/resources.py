"""The settings as a Dagster resource: the launchpad overrides the environment, the environment overrides the defaults.

Every setting is a field of its own in the launchpad, for one run::

    resources:
      settings:
        config:
          training: {maximum_epochs: 3}
          index: {kind: hnsw}
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import dagster as dg
from pydantic import create_model

from settings import (
    AdvertiserSettings,
    ContextSettings,
    DataSettings,
    EvaluationSettings,
    ExampleSettings,
    FeatureSettings,
    GateSettings,
    Group,
    IndexSettings,
    InferenceSettings,
    ModelSettings,
    OnlineSettings,
    QualitySettings,
    SequenceSettings,
    ServingSettings,
    Settings,
    SweepSettings,
    TrainingSettings,
)
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.move_home import follow_home
from warehouse.open_home import open_for_writing
from warehouse.remedies import replaced_by_run
from warehouse.tables import Tables

PARTITION_TAG = "dagster/partition"
_environment = Settings()
_writing: set[Path] = set()
ConfigClass = TypeVar("ConfigClass", bound=Group)


def _defaults_from_environment(config: type[ConfigClass]) -> type[ConfigClass]:
    """The class with the environment's values as field defaults.

    A default for the whole group would not do: when the launchpad overrides one field, Dagster takes the group's other
    fields from the class, and the environment would be lost.
    """
    group = next(value for _, value in _environment if isinstance(value, Group) and issubclass(config, type(value)))
    fields = {name: (field.annotation, getattr(group, name)) for name, field in config.model_fields.items()}
    return create_model(  # type: ignore[call-overload]
        config.__name__, __base__=config, __module__=config.__module__, __doc__=config.__doc__, **fields
    )


@_defaults_from_environment
class DataConfig(DataSettings, dg.Config):
    """How the landing zone is read and when a day is stopped."""


@_defaults_from_environment
class QualityConfig(QualitySettings, dg.Config):
    """When a day's data warn, and when they stop it."""


@_defaults_from_environment
class SequenceConfig(SequenceSettings, dg.Config):
    """Shape of a user's behaviour sequence."""


@_defaults_from_environment
class FeatureConfig(FeatureSettings, dg.Config):
    """Item features that both towers read."""


@_defaults_from_environment
class ExampleConfig(ExampleSettings, dg.Config):
    """Training examples: cut-offs, future windows, label weights."""


@_defaults_from_environment
class ContextConfig(ContextSettings, dg.Config):
    """Synthetic context augmentation."""


@_defaults_from_environment
class ModelConfig(ModelSettings, dg.Config):
    """The two-tower model."""


@_defaults_from_environment
class TrainingConfig(TrainingSettings, dg.Config):
    """Optimisation and the sampled softmax."""


@_defaults_from_environment
class SweepConfig(SweepSettings, dg.Config):
    """The sweep over the weights of the log-Q correction."""


@_defaults_from_environment
class InferenceConfig(InferenceSettings, dg.Config):
    """Encoding users and items."""


@_defaults_from_environment
class IndexConfig(IndexSettings, dg.Config):
    """The approximate nearest-neighbour index."""


@_defaults_from_environment
class EvaluationConfig(EvaluationSettings, dg.Config):
    """Reports."""


@_defaults_from_environment
class GateConfig(GateSettings, dg.Config):
    """When a new model may become champion."""


@_defaults_from_environment
class AdvertiserConfig(AdvertiserSettings, dg.Config):
    """The advertiser model, where it differs from the item model."""


@_defaults_from_environment
class OnlineConfig(OnlineSettings, dg.Config):
    """The online store, which the candidate service reads."""


@_defaults_from_environment
class ServingConfig(ServingSettings, dg.Config):
    """The candidate service; a run logs these and uses none of them."""


class SettingsResource(dg.ConfigurableResource["SettingsResource"]):
    """The effective settings of one run, and the home that it reads and writes.

    While a run has the resource, the run holds the home's write lock.
    """

    data: DataConfig = DataConfig()
    quality: QualityConfig = QualityConfig()
    sequences: SequenceConfig = SequenceConfig()
    features: FeatureConfig = FeatureConfig()
    examples: ExampleConfig = ExampleConfig()
    context: ContextConfig = ContextConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    sweep: SweepConfig = SweepConfig()
    inference: InferenceConfig = InferenceConfig()
    index: IndexConfig = IndexConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    advertisers: AdvertiserConfig = AdvertiserConfig()
    online: OnlineConfig = OnlineConfig()
    serving: ServingConfig = ServingConfig()

    def value(self) -> Settings:
        """The effective settings, as plain settings."""
        home = Settings()
        groups = {
            name: type(group).model_validate(getattr(self, name).model_dump())
            for name, group in home
            if isinstance(group, Group)
        }
        return home.model_copy(update=groups)

    @property
    def home(self) -> Home:
        return Home(Settings().home)

    @property
    def tables(self) -> Tables:
        return Tables(self.home.tables)

    @property
    def landing(self) -> Landing:
        return Landing(self.home.landing)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[SettingsResource, None, None]:
        """Hold the home's write lock for the length of the run.

        Raises:
            HomeLocked: another process writes to the home.
            OtherFormat: the home is of another format.
        """
        run, home = context.run, self.home
        open_for_writing(home)
        with writing(home, f"Dagster run {run.run_id} of {run.job_name}" if run else "a Dagster run"):
            follow_home(home)
            _make_readable(self.tables, run.tags.get(PARTITION_TAG) if run else None)
            if context.log:
                values = (f"{name}={value}" for name, value in self.value().flat().items())
                context.log.info(f"Effective settings: {', '.join(values)}")
            yield self


def _make_readable(tables: Tables, day: str | None) -> None:
    """Set damaged commits aside whose partitions this run writes anew. Others stay, and end whatever reads them."""
    for name in tables.names():
        tables.set_damaged_aside(name, partial(replaced_by_run, name, day))


@contextmanager
def writing(home: Home, purpose: str) -> Iterator[None]:
    """Hold the home's write lock, unless this process holds it already.

    Raises:
        HomeLocked: another process holds it.
    """
    if home.root in _writing:
        yield
        return
    with home.writing(purpose):
        _writing.add(home.root)
        try:
            yield
        finally:
            _writing.discard(home.root)
