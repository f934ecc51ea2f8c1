"""From what is learnt from to a network. Lightning is imported here, and by nothing that only infers."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import Logger

from ml.evaluation.queries import Asked, validation_slice
from ml.examples.period import Prepared, TrainingPeriod
from ml.training.fit import Fit, fit
from settings import Settings


def choose_epochs(
    period: TrainingPeriod,
    settings: Settings,
    directory: Path,
    logger: Logger | None = None,
    resume: Path | None = None,
) -> Fit:
    """Train on the period less its last window, and stop when recall on that window stops rising."""
    earlier, prepared, asked = validation_slice(period, settings)
    return fit_prepared(earlier, prepared, settings, settings.training.maximum_epochs, directory, asked, logger, resume)


def fit_prepared(
    period: TrainingPeriod,
    prepared: Prepared,
    settings: Settings,
    epochs: int,
    directory: Path,
    validation: Asked | None = None,
    logger: Logger | None = None,
    resume: Path | None = None,
) -> Fit:
    """Fit on prepared examples. ``directory`` and ``resume``: of checkpoints, see ``ml.training.fit.fit``."""
    return fit(
        prepared,
        settings,
        period.rule.window_days,
        epochs,
        directory,
        validation,
        logger,
        resume=resume,
    )
