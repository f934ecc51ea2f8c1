"""The training period of a split or of a home, as a benchmark's command names it."""

from __future__ import annotations

import argparse
from pathlib import Path

from assets.common.workspace import Workspace
from assets.steps import period
from ml.examples.period import TrainingPeriod
from pipelines.evaluate import split as splits
from settings import Settings
from warehouse.landing import Landing


def parser_of(description: str | None, *, epochs: int) -> argparse.ArgumentParser:
    """Return a parser of the split or the home, of the number of ``epochs`` and of the seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--landing", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def period_of(given: argparse.Namespace) -> tuple[TrainingPeriod, Settings]:
    """Return the training period of a split with its landing zone, else of a home, and the settings of a training.

    Raises:
        SystemExit: neither is named.
    """
    settings = Settings().with_value("training.seed", given.seed).with_value("training.epochs", given.epochs)
    if given.home is not None:
        workspace = Workspace(settings.model_copy(update={"home": given.home}))
        return period.training_period(workspace, period.training_day(workspace.tables)), settings
    if given.split is None or given.landing is None:
        raise SystemExit("give --split and --landing, or --home")
    return splits.training_period(splits.Split.read(given.split), Landing(given.landing), settings), settings
