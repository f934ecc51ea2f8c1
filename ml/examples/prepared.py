"""What a fit reads: examples with their contexts, and the content that each of them is learnt under."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.examples.context import Context, interests_context, subject_context
from ml.examples.pairs import Examples
from ml.features.cross_fit import CrossFit
from ml.features.dataset import Dataset
from settings import ContextRecipe


@dataclass(frozen=True)
class Prepared:
    """What a fit reads."""

    dataset: Dataset
    examples: Examples
    subjects: NDArray[np.int64]  # [examples] catalogue row of the synthetic context, -1 = none
    folds: CrossFit


def training_context(prepared: Prepared, recipe: ContextRecipe) -> Context:
    """The synthetic context of every example."""
    features = prepared.dataset.features
    if recipe is ContextRecipe.own_interests:
        return interests_context(prepared.subjects, features)
    return subject_context(prepared.subjects, features)
