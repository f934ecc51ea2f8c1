"""``adseq tune`` on the split made by hand: it goes on where it was, and never looks at the targets."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ml.versions.tracking import TUNING, Tracking
from pipelines.cli.app import app
from tests.pipelines.evaluate.split_world import Made
from warehouse.home import Home

pytestmark = pytest.mark.usefixtures("tiny_environment")
FIXED = {
    "model.width": "8",
    "model.layers": "1",
    "training.epochs": "2",
    "training.alpha_positive": "0",
    "training.alpha_negative": "1",
}


def tune(home: Path, made: Made, split: Path, *options: str) -> tuple[int, str]:
    fixed = [part for name, value in FIXED.items() for part in ("--set", f"{name}={value}")]
    places = ["--home", home, "--split", split, "--landing", made.landing]
    result = CliRunner().invoke(app, ["tune", *map(str, places), *fixed, *options])
    return result.exit_code, result.output


def recalls(output: str) -> dict[int, str]:
    """What each trial of this command came to."""
    return {int(number): value for number, value in re.findall(r"^Trial (\d+) of .*?: (\d\.\d{5});", output, re.M)}


@pytest.mark.slow
def test_a_search_tells_its_best_trial_goes_on_and_never_reads_the_targets(made: Made, tmp_path: Path) -> None:
    split, home = made.splits / "tiny-temporal", tmp_path / "home"
    code, output = tune(home, made, split, "--trials", "2")
    assert code == 0, output
    first = recalls(output)
    assert set(first) == {1, 2}
    assert "Trial 1 of 2 (the present settings)" in output
    assert re.search(r"0 \(present\) +[01]\.\d{4} +[01]\.\d{4} +[01]\.\d{4} +[01]\.\d{4}", output)  # in context too
    better = float(first[2]) > float(first[1])
    assert ("adseq evaluate ... --set training.learning_rate=" in output) is better
    assert ("No trial beat the present settings" in output) is not better

    # Other targets under the same name: the same data to learn from, so the same search, which goes on.
    other = tmp_path / "elsewhere" / split.name
    shutil.copytree(split, other)
    targets = pd.read_parquet(other / "targets.parquet")
    targets.assign(item_id=1000 + (targets.item_id - 1000 + 3) % 120).drop_duplicates().to_parquet(
        other / "targets.parquet"
    )
    code, output = tune(home, made, other, "--trials", "3")
    assert code == 0, output
    assert "2 of 3 trials done" in output
    assert len(re.findall(r"^Trial", output, re.MULTILINE)) == 1

    tracking = Tracking(Home(home).tracking_uri, Home(home).artifacts)
    runs = tracking.client.search_runs([tracking.experiment(TUNING)])
    parents = [run for run in runs if run.data.tags.get("role") == "search"]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(children) == len(runs) - 1 == 3
    default = next(run for run in children if run.data.tags["default"] == "True")
    assert default.data.metrics["recall_at_100"] == pytest.approx(float(first[1]), abs=1e-5)
    assert default.data.metrics["validation_recall_at_100"] > 0  # epoch by epoch, which is what trials are given up by
    assert default.data.params["model.width"] == "8"
    assert {run.data.params["training.epochs"] for run in children} == {"2"}  # what is set is not searched
    assert len({run.data.params["training.learning_rate"] for run in children}) == 3
    assert "history.png" in {file.path for file in tracking.client.list_artifacts(parents[0].info.run_id)}
    assert not list((home / "tuning").glob(".tune-*"))


def test_what_cannot_be_searched_is_refused_with_what_to_do(made: Made, tmp_path: Path) -> None:
    split, home = made.splits / "tiny-temporal", tmp_path / "home"
    code, output = tune(home, made, split, "--objective", "profit")
    assert code == 2
    assert "there are recall@100, recall@10, context_recall@100" in output
    names = ("learning_rate", "temperature"), ("dropout", "content_dropout")
    values = {
        f"{group}.{name}": "0.1" for group, part in zip(("training", "model"), names, strict=True) for name in part
    }
    values["examples.label_weights.add_to_cart"] = "0.1"
    rest = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    code, output = tune(home, made, split, *rest)
    assert code == 2
    assert "every setting that could be searched is fixed" in output
    result = CliRunner().invoke(app, ["tune", "--home", str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "does not exist: give the --home of an earlier `adseq run`" in result.output
