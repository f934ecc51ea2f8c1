"""`adseq tune`: search for better settings on a validation slice inside a training period, and say how to use them.

The period is the home's own, or a fixed split's training events; never a split's targets. The search is kept under the
home: the same command goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from optuna import Study
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from assets.common.workspace import Workspace
from assets.steps import period as home_period
from ml.evaluation.metrics import mlflow_name
from ml.examples.period import TrainingPeriod
from ml.tuning.space import SIGNIFICANT_DIGITS
from ml.tuning.trials import DEFAULT, Figures, Objective, Tried, Tuning, open_study, run_trials, study_figures, tried
from ml.versions.tracking import TUNING, Tracking, log_figures
from pipelines.cli.errors import RunRefused
from pipelines.evaluate.split import Split
from pipelines.evaluate.split import training_period as split_period
from settings import Settings
from warehouse.home import Home
from warehouse.landing import Landing

SHOWN_TRIALS = 5


@dataclass(frozen=True)
class Search:
    """The arguments of the command line."""

    home: Home
    split: Path | None  # None: the home's own log
    landing: Landing
    trials: int
    objective: str
    settings: Settings
    fixed: set[str]  # settings that are not searched

    def period(self) -> tuple[str, TrainingPeriod]:
        """Return the name of the data, and the training period with all events that may be learnt from."""
        if self.split is not None:
            split = Split.read(self.split)
            return split.name, split_period(split, self.landing, self.settings)
        workspace = Workspace(self.settings.model_copy(update={"home": self.home.root}))
        day = home_period.training_day(workspace.tables)
        return f"the log until {day}", home_period.training_period(workspace, day)


def tune(search: Search, console: Console) -> None:
    """Run the missing trials, then print the best beside the default and the commands that use the best.

    Raises:
        RunRefused: the objective is unknown, the period has nothing to measure on, or another process runs the
            same search.
        TableMissing: the home has no log yet.
    """
    known = [each.value for each in Objective]
    wanted = search.objective.replace("_at_", "@")  # the spelling of before
    if wanted not in known:
        raise RunRefused(f"--objective {search.objective!r} is unknown; there are {', '.join(known)}.")
    data, period = search.period()
    try:
        tuning = Tuning.of(period, search.settings, Objective(wanted), search.fixed)
    except ValueError as error:
        raise RunRefused(f"adseq tune on {data}: {error}.") from None
    directory = search.home.root / "tuning"
    tracking = Tracking(search.home.tracking_uri, search.home.artifacts)
    with _alone(directory, tuning.name):
        study = open_study(tuning, directory / "optuna.db")
        done = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
        console.print(
            f"Search {tuning.name} on {data}: {done} of {search.trials} trials done, {len(tuning.space)} settings "
            f"searched, {len(tuning.asked.queries):,} users to validate on",
            highlight=False,
            soft_wrap=True,
        )
        with _parent_run(tracking, tuning, data) as url:
            run_trials(
                tuning,
                study,
                search.trials,
                tracking=tracking,
                work=directory,
                told=lambda trial: _tell(console, study, trial, search.trials),
            )
            found = tried(study)
            if found:
                mlflow.log_metrics({mlflow_name(f"best_{wanted}"): tuning.objective.of(found[0].figures)})
            log_figures(study_figures(study))
    if not found:
        raise RunRefused(f"No trial of {search.trials} was finished: ask for more --trials.")
    _show(console, found, tuning)
    console.print(f"MLflow: {url}", highlight=False, soft_wrap=True)


@contextmanager
def _alone(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock of one search, so that one process at a time runs the search.

    The home's own lock stays free: a search takes hours, and a day must not wait for a search.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunRefused(f"Search {name} is being run by another process: wait for it, or stop it.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _parent_run(tracking: Tracking, tuning: Tuning, data: str) -> Iterator[str]:
    """Begin or resume the search's MLflow run, and yield the address of the run's page.

    Trials of a killed process are closed.
    """
    mine = [tracking.experiment(TUNING)], f"tags.study = '{tuning.name}'"
    runs = tracking.client.search_runs(*mine)
    for run in runs:
        if run.info.status == "RUNNING":
            tracking.client.set_terminated(run.info.run_id, status="KILLED")
    parents = [run.info.run_id for run in runs if run.data.tags.get("role") == "search"]
    tags = {"study": tuning.name, "role": "search", "dataset_hash": tuning.data}
    name = f"{data}, {tuning.objective}"
    with tracking.resumed(parents[0]) if parents else tracking.run(TUNING, name, tags) as run:
        if not parents:
            mlflow.log_params({"data": data, "objective": tuning.objective.value, **tuning.base.flat()})
        yield tracking.url(run)


def _tell(console: Console, study: Study, trial: FrozenTrial, trials: int) -> None:
    """Print a line on one trial."""
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    came_to = "given up early" if trial.state is not TrialState.COMPLETE else f"{trial.value:.5f}"
    best = f"; best so far {study.best_value:.5f} (trial {study.best_trial.number})" if finished else ""
    default = " (the present settings)" if trial.user_attrs.get(DEFAULT) else ""
    console.print(f"Trial {trial.number + 1} of {trials}{default}: {came_to}{best}", highlight=False)


def _show(console: Console, found: Sequence[Tried], tuning: Tuning) -> None:
    """Print the best trials with the default among them, the settings that differ, and the way to use them."""
    default = next((each for each in found if each.is_default), None)
    best = found[0]
    rows = list(found[:SHOWN_TRIALS])
    if default is not None and default not in rows:
        rows.append(default)
    console.print(_trials(rows, tuning.objective))
    if best.is_default:
        console.print("No trial beat the present settings.")
        return
    base = tuning.defaults()
    table = Table(title=f"Settings of trial {best.number}", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("Setting", "Present", "Best"):
        table.add_column(column, justify="left" if column == "Setting" else "right")
    for name, value in best.values.items():
        table.add_row(name, _text(base[name]), _text(value))
    console.print(table)
    console.print("One slice and one seed: check a gain on others before it becomes the default. To use it:")
    options = " ".join(f"--set {name}={_text(value)}" for name, value in best.values.items())
    variables = " ".join(
        f"ADSEQ_{name.replace('.', '__').upper()}={_text(value)}" for name, value in best.values.items()
    )
    console.print(f"  adseq evaluate ... {options}", highlight=False, soft_wrap=True)
    console.print(f"  {variables} adseq run ...", highlight=False, soft_wrap=True)


def _trials(rows: Sequence[Tried], objective: Objective) -> Table:
    table = Table(title=f"Best trials by {objective}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("Trial")
    for field in fields(Figures):
        table.add_column(field.name.replace("_at_", "@").replace("_", " "), justify="right")
    for row in rows:
        cells = (getattr(row.figures, field.name) for field in fields(Figures))
        name = f"{row.number} (present)" if row.is_default else str(row.number)
        table.add_row(name, *(_figure(cell) for cell in cells))
    return table


def _figure(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if value <= 1 else f"{value:.0f}"


def _text(value: float) -> str:
    """Return a setting's value as the trial used the value."""
    return f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else str(value)
