"""The models of the reports: name, label for people and kind of each model. The module imports nothing heavy.

The names stand in tables, in MLflow and on the command line. A new model is one member; ``ml.evaluation.model_lists``
makes its lists. Each member's name in the code is its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from settings import ContextRecipe, Fusion, Settings, UserEncoder


@dataclass(frozen=True)
class Counted:
    """A baseline that is counted rather than trained."""


@dataclass(frozen=True)
class Weighed:
    """A baseline of fixed parts, whose few weights are chosen on a slice of the training period."""


@dataclass(frozen=True)
class Trained:
    """A two-tower network of its own.

    Attributes:
        encoder, fusion: replace those of the settings.
        context: whether the network learns with context.
        with_every_version: trained beside every version, for the reports; else only where
            ``evaluation.additional_models`` names the model, and for ``adseq evaluate``.
    """

    encoder: UserEncoder | None = None
    fusion: Fusion | None = None
    context: bool = True
    with_every_version: bool = True


@dataclass(frozen=True)
class AskedAnotherWay:
    """The network of another model, which is asked another way where there is a context item.

    Attributes:
        base: the name of the model whose network answers.
    """

    base: str


@dataclass(frozen=True)
class Truth:
    """Knowledge that a synthetic world has of its users."""


class ModelName(StrEnum):
    """The models of the item reports and of ``adseq evaluate``, in the order of every report."""

    popularity = "popularity", "popularity, all time", Counted()
    recent_popularity = "recent_popularity", "popularity, recent", Counted()
    item_knn = "item_knn", "item-kNN", Counted()
    rule = "rule", "rule: same category, then recent", Counted()
    parts = "parts", "parts without training", Weighed()
    mean_pooling = "mean_pooling", "mean pooling", Trained(UserEncoder.mean_pooling, context=False)
    max_pooling = (
        "max_pooling",
        "max pooling",
        Trained(UserEncoder.max_pooling, context=False, with_every_version=False),
    )
    sequential = "sequential", "sequential, no context", Trained(context=False)
    # The encoder runs again with the context item as the newest event: all that a sequential library could do online.
    sequential_appended = "sequential_appended", "sequential, context item appended", AskedAnotherWay("sequential")
    contextual_without_context = (
        "contextual_without_context",
        "contextual, context withheld",
        AskedAnotherWay("contextual"),
    )
    contextual = "contextual", "contextual", Trained()
    contextual_cross_attention = (
        "contextual_cross_attention",
        "contextual with cross-attention",
        Trained(fusion=Fusion.cross_attention, with_every_version=False),
    )
    oracle = "oracle", "oracle (the world's truth)", Truth()

    _value_: str
    label: str  # what people read
    kind: Counted | Weighed | Trained | AskedAnotherWay | Truth

    def __new__(cls, value: str, label: str, kind: Counted | Weighed | Trained | AskedAnotherWay | Truth) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.label = label
        member.kind = kind
        return member

    @property
    def base(self) -> ModelName:
        """Return the model whose network answers; models of one base share one training."""
        return ModelName[self.kind.base] if isinstance(self.kind, AskedAnotherWay) else self

    @property
    def is_trained(self) -> bool:
        return isinstance(self.base.kind, Trained)

    @property
    def needs_context(self) -> bool:
        """Return whether the model differs from its base only where there are context items."""
        return isinstance(self.kind, AskedAnotherWay)

    def settings(self, settings: Settings) -> Settings:
        """Return the settings under which the model's network is trained.

        They are ``settings``, except for the encoder, the fusion and the context recipe of the model's kind.
        """
        trained, changed = self.base.kind, settings
        if not isinstance(trained, Trained) or not trained.context:
            without = settings.context.model_copy(update={"recipe": ContextRecipe.none})
            changed = changed.model_copy(update={"context": without})
        if isinstance(trained, Trained):
            own = {"encoder": trained.encoder, "fusion": trained.fusion}
            named = {name: value for name, value in own.items() if value}
            changed = changed.model_copy(update={"model": settings.model.model_copy(update=named)})
        return changed


BASELINES = tuple(model for model in ModelName if isinstance(model.kind, Counted))
TRAINED = tuple(model for model in ModelName if isinstance(model.kind, Trained) and model.kind.with_every_version)
"""What every training of a version trains for the reports."""
ADDITIONAL = tuple(
    model for model in ModelName if isinstance(model.kind, Trained) and not model.kind.with_every_version
)
"""What a training of a version trains for the reports where ``evaluation.additional_models`` names the model."""


class LabelledName(StrEnum):
    """Names with a label for people; it has no members of its own."""

    _value_: str
    label: str

    def __new__(cls, value: str, label: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member


class ListArm(LabelledName):
    """The arms of the market whose candidates are not one model's: of the service's advertiser generator, alone or
    beside the contextual model, and the contextual model's candidates after the relevance trim."""

    advertiser_lists = "advertiser_lists", "advertiser lists"
    with_contextual = "contextual_and_advertiser_lists", "contextual and advertiser lists"
    trimmed = "trimmed", "contextual, irrelevant items trimmed"


ARMS: tuple[ModelName | ListArm, ...] = (
    ModelName.rule,
    ModelName.parts,
    ModelName.sequential,
    ModelName.contextual_without_context,
    ModelName.contextual,
    ModelName.contextual_cross_attention,
    ListArm.advertiser_lists,
    ListArm.with_contextual,
    ListArm.trimmed,
    ModelName.oracle,
)
"""The models and lists whose candidates run through the market of the synthetic world, an arm each."""
WITHOUT_A_MODEL = "none"
"""The arm in which the legacy generators are alone."""
EVALUABLE = tuple(model for model in ModelName if not isinstance(model.kind, Truth))
"""What ``adseq evaluate`` can ask."""


class AdvertiserModelName(LabelledName):
    """The models of the advertiser report, in its order."""

    popularity = "popularity", "popularity, all time"
    recent_popularity = "recent_popularity", "popularity, recent"
    recent_advertisers = "recent_advertisers", "the user's own, newest first"
    mean_pooling = "mean_pooling", "mean pooling"
    advertiser_model = "advertiser_model", "advertiser model"


LABELS = {model.value: model.label for model in (*AdvertiserModelName, *ListArm, *ModelName)}
"""Every name -> what people read. A name of both reports means the same in both."""
