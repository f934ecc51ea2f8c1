"""The settings that `adseq tune` searches, by their dotted names, each with the range that is worth trying.

Only settings that leave the prepared examples as they are take part, so that all trials share the examples. The weight
of an example can be searched: it is looked up when a trial begins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from optuna import Trial

from settings import Settings

SIGNIFICANT_DIGITS = 4  # what is tried is what is printed


@dataclass(frozen=True)
class Range:
    """A real number; ``logarithmic`` draws its order of magnitude evenly."""

    name: str
    low: float
    high: float
    logarithmic: bool = False

    def including(self, value: float) -> Range:
        """Widen the range to ``value``: a search starts from the configuration as it is."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Trial) -> float:
        drawn = trial.suggest_float(self.name, self.low, self.high, log=self.logarithmic)
        return float(f"{drawn:.{SIGNIFICANT_DIGITS}g}")


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    name: str
    low: int
    high: int

    def including(self, value: int) -> Whole:
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Trial) -> int:
        return trial.suggest_int(self.name, self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of a few whole numbers."""

    name: str
    values: tuple[int, ...]

    def including(self, value: int) -> Choice:
        return replace(self, values=tuple(sorted({*self.values, value})))

    def suggest(self, trial: Trial) -> int:
        return int(trial.suggest_categorical(self.name, self.values))


Dimension = Range | Whole | Choice

SPACE: tuple[Dimension, ...] = (
    Range("training.learning_rate", 5e-4, 8e-3, logarithmic=True),
    Range("training.temperature", 0.03, 0.2, logarithmic=True),
    Range("training.alpha_positive", 0.0, 1.0),
    Range("training.alpha_negative", 0.0, 1.2),
    Range(
        "examples.label_weights.add_to_cart", 0.05, 1.0, logarithmic=True
    ),  # of an item bought too, the checkout counts
    Whole("training.epochs", 3, 12),
    Choice("model.width", (64, 96, 128)),
    Whole("model.layers", 1, 3),
    Range("model.dropout", 0.0, 0.5),
    Range("model.content_dropout", 0.0, 0.4),
)
CONTEXT_SPACE: tuple[Dimension, ...] = (Range("context.dropout", 0.05, 0.8),)
"""An objective without context would choose a context dropout of one."""


def space_around(base: Settings, with_context: bool) -> tuple[Dimension, ...]:
    """Return the dimensions, each widened to the value that ``base`` has."""
    searched = SPACE + CONTEXT_SPACE if with_context else SPACE
    return tuple(each.including(base.value(each.name)) for each in searched if base.value(each.name) is not None)


def without(space: tuple[Dimension, ...], fixed: Collection[str]) -> tuple[Dimension, ...]:
    """Return the dimensions that are not fixed by name, nor by the name of the table that they are an entry of."""
    tables = tuple(f"{name}." for name in fixed)
    return tuple(each for each in space if each.name not in fixed and not each.name.startswith(tables))


def suggested(space: tuple[Dimension, ...], base: Settings, trial: Trial) -> Settings:
    """Return ``base`` with the values that the trial draws."""
    settings = base
    for dimension in space:
        settings = settings.with_value(dimension.name, dimension.suggest(trial))
    return settings
