"""MLflow, in which runs are compared and models registered. Versions, runs and aliases are read and written here."""

from __future__ import annotations

import logging
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd  # type: ignore[import-untyped]

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for each of three small files

import mlflow
from matplotlib.figure import Figure
from mlflow.entities import Param, Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from ml.figures.style import png
from ml.versions.requirements import CODE, MODEL_LIBRARIES, requirements, script

TRAINING, REPORTS, DAILY = "adseq training", "adseq reports", "adseq daily"
MARKET, RELEVANCE = "adseq market", "adseq relevance"
EVALUATIONS, TUNING, SWEEPS = "adseq evaluations", "adseq tuning", "adseq sweeps"
ITEM_MODEL, ADVERTISER_MODEL = "adseq_item_model", "adseq_advertiser_model"
RELEVANCE_MODEL = "adseq_relevance_model"
CHAMPION = "champion"
DESCRIPTIONS = {
    ITEM_MODEL: "Next conversion: the user tower of the item model. Events in, the embedding of each user out. The "
    "alias `champion` names the version that serves.",
    ADVERTISER_MODEL: "Next advertiser: the user tower of the advertiser model. Events in, the embedding of each user "
    "out. The alias `champion` names the version whose lists are published.",
    RELEVANCE_MODEL: "Relevance of an item beside a subject item or a query: features of pairs in, the relevance and "
    "the decision of the trim out. The alias `champion` names the version that trims.",
}
DISTRIBUTION = "adseq-candidates"  # `adseq` on the public index is somebody else's


@dataclass(frozen=True)
class Tracking:
    """The MLflow of one home."""

    uri: str
    artifacts: Path

    @property
    def client(self) -> MlflowClient:
        quiet_mlflow()
        return MlflowClient(self.uri)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is created on first use with its artefacts under the home."""
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        location = (self.artifacts / name.replace(" ", "-")).as_uri()
        return str(self.client.create_experiment(name, artifact_location=location))

    @contextmanager
    def run(
        self, experiment: str, name: str, tags: dict[str, str], *, nested: bool = False, system_metrics: bool = False
    ) -> Iterator[Run]:
        """Open an MLflow run, tagged with the version of the code; a failure marks the run as failed."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_system_metrics_sampling_interval(2)  # type: ignore[no-untyped-call]
        with mlflow.start_run(
            experiment_id=self.experiment(experiment),
            run_name=name,
            tags={"code_version": code_version(), **tags},
            nested=nested,
            log_system_metrics=system_metrics,
        ) as run:
            yield run

    def open_nested(self, experiment: str, name: str, tags: dict[str, str], parent_run_id: str) -> str:
        """Open a run under another run, beside other open runs, and return its id; ``close_nested`` ends the run."""
        tags = {"code_version": code_version(), "mlflow.parentRunId": parent_run_id, **tags}
        run = self.client.create_run(self.experiment(experiment), tags=tags, run_name=name)
        return str(run.info.run_id)

    def close_nested(self, run_id: str, metrics: dict[str, float]) -> None:
        """Log the closing metrics of a nested run and end the run."""
        for name, value in metrics.items():
            self.client.log_metric(run_id, name, value)
        self.client.set_terminated(run_id)

    def log_params_of(self, run_id: str, values: dict[str, Any]) -> None:
        """Log parameters of a run that is not the active one."""
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in values.items()])

    @contextmanager
    def resumed(self, run_id: str) -> Iterator[Run]:
        """Open an earlier run again, to go on with it."""
        mlflow.set_tracking_uri(self.uri)
        with mlflow.start_run(run_id=run_id) as run:
            yield run

    def replace_run(self, experiment: str, tag: str, value: str) -> None:
        """Delete the earlier runs of ``experiment`` whose ``tag`` has ``value``: a re-run day keeps one run."""
        filter_string = f"tags.`{tag}` = '{value}'"
        for run in self.client.search_runs([self.experiment(experiment)], filter_string):
            self.client.delete_run(run.info.run_id)

    def close_abandoned(self, experiment: str) -> None:
        """Mark the runs of killed processes as killed. The caller has to hold the home's write lock."""
        for run in self.client.search_runs([self.experiment(experiment)], "attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, status="KILLED")

    def url(self, run: Run) -> str:
        """Return the address of the run's page in the MLflow UI that `make ui` starts."""
        port = os.environ.get("ADSEQ_MLFLOW_PORT", "5000")
        return (
            f"http://127.0.0.1:{port}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
            "?workflowType=machine_learning"
        )

    def champion(self) -> str | None:
        """Return the version that the alias ``champion`` names; None before the first promotion."""
        for model in self.client.search_registered_models(f"name = '{ITEM_MODEL}'"):
            if CHAMPION in model.aliases:
                return f"item-{model.aliases[CHAMPION]}"
        return None

    def promote(self, kind: str, number: str) -> None:
        """Move the alias ``champion`` of the registered model of a kind (item, advertiser, relevance) to a version."""
        self.client.set_registered_model_alias(f"adseq_{kind}_model", CHAMPION, number)


@cache
def code_version() -> str:
    """Return adseq's version, and the commit in a git checkout (``-changed``: with uncommitted changes)."""
    command = ["git", "describe", "--always", "--dirty=-changed"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        commit = described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, as in a container, or no checkout
        commit = "no checkout"
    try:
        return f"{version(DISTRIBUTION)} ({commit})"
    except PackageNotFoundError:  # run from a checkout that nobody installed
        return f"not installed ({commit})"


def quiet_mlflow() -> None:
    """Silence MLflow about the creation of its database and about a missing input example (a signature is given)."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*An input example was not provided.*")


@dataclass(frozen=True)
class Registered:
    """A version in MLflow's registry: its number, and the id of the logged model that it is made of."""

    number: str
    model_id: str


def log_pyfunc(
    registered: str,
    directory: Path,
    example: pd.DataFrame,
    *,
    signature: ModelSignature,
    libraries: tuple[str, ...] = MODEL_LIBRARIES,
) -> Registered:
    """Log a model directory as a pyfunc model of the active run, and register it as ``registered``.

    The model brings the code of adseq that it needs, so it can be loaded where adseq is not installed, beside
    ``libraries``.
    """
    name = registered.removeprefix("adseq_")
    info = mlflow.pyfunc.log_model(
        name=name,
        python_model=script(name),
        code_paths=CODE,
        artifacts={"model": str(directory)},
        signature=signature,
        input_example=example,
        pip_requirements=requirements(libraries),
    )
    return _registered(registered, info)


def _registered(name: str, info: ModelInfo) -> Registered:
    """Register a logged model. MLflow's own function prints to the terminal, and sets no description."""
    client = MlflowClient()
    try:
        client.create_registered_model(name, tags={"adseq": "model"}, description=DESCRIPTIONS[name])
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    created = client.create_model_version(name, info.model_uri, info.run_id, model_id=info.model_id)
    return Registered(str(created.version), str(info.model_id))


def log_figures(figures: dict[str, Figure]) -> None:
    """Log matplotlib figures to the active run as ``<name>.png``."""
    with TemporaryDirectory() as directory:
        for name, figure in figures.items():
            Path(directory, f"{name}.png").write_bytes(png(figure))
        mlflow.log_artifacts(directory)
