"""``adseq evaluate`` on a split made by hand: the independent scorer finds adseq's figures in the exported lists."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

import pipelines.evaluate.command
import pipelines.evaluate.work
from ml.retrieval.lists import Ragged, RankedLists
from ml.training.fit import fit
from ml.versions.tracking import EVALUATIONS, Tracking
from pipelines.cli.app import app
from pipelines.evaluate.scoring import Scoring
from tests.pipelines.evaluate.split_world import Made
from warehouse.home import Home

pytestmark = pytest.mark.usefixtures("tiny_environment")
THEIRS = {
    "queries": "queries",
    "positives": "positives",
    "ndcg_at_10": "ndcg@10",
    "coverage_at_10": "coverage@10",
    "diversity90": "diversity90",
} | {
    f"{ours}_at_{k}": f"{theirs}@{k}"
    for k in (10, 50, 100)
    for ours, theirs in {
        "recall": "recall",
        "macro_recall": "macro_recall",
        "hit_rate": "hr",
        "advertiser_hit": "advertiser_recall",
    }.items()
}


@dataclass(frozen=True)
class Evaluated:
    """What a command printed, the files it exported by model, and the figures it logged by model."""

    output: str
    exports: dict[str, Path]
    logged: dict[str, dict[str, float]]
    parameters: dict[str, dict[str, str]]


Evaluate = Callable[..., Evaluated]
FRAMES = ("queries", "history", "targets", "catalogue")


@pytest.fixture
def evaluate(made: Made, tmp_path: Path) -> Evaluate:
    """Runs the command."""

    def run(protocol: str, *models: str, options: Sequence[str] = ()) -> Evaluated:
        export, home = tmp_path / "lists.parquet", tmp_path / "home"
        split = made.splits / f"tiny-{protocol}"
        arguments = ["--split", split, "--landing", made.landing, "--export", export, "--home", home, *options]
        chosen = [part for model in models for part in ("--model", model)]
        result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), *chosen])
        assert result.exit_code == 0, result.output
        tracking = Tracking(Home(home).tracking_uri, Home(home).artifacts)
        runs = tracking.client.search_runs([tracking.experiment(EVALUATIONS)])
        several = len(models) > 1
        return Evaluated(
            result.output,
            {model: tmp_path / f"lists-{model}.parquet" if several else export for model in models},
            {run.data.params["model"]: run.data.metrics for run in runs},
            {run.data.params["model"]: run.data.params for run in runs},
        )

    return run


def printed(output: str, catalogue: str, model: str) -> list[float]:
    """The first row of a model in a catalogue's table."""
    table = output[output.index(f"{catalogue} catalogue") :]
    row = re.search(rf"^ +{model} +(?:\d+ +)?((?:\d\.\d{{5}} *){{6}})$", table, re.MULTILINE)
    assert row, table
    return [float(value) for value in row[1].split()]


def assert_the_scorer_agrees(scorer: Any, made: Made, protocol: str, found: Evaluated, model: str, least: int) -> None:
    split = scorer.load_split("tiny", protocol, made.splits)
    events = pd.read_parquet(made.splits / f"tiny-{protocol}" / "train.parquet").item_id.value_counts()
    items = events[events >= least].index if least else None
    lists, logged = pd.read_parquet(found.exports[model]), found.logged[model]
    for prefix, which in (("", "warm"), ("full_", "full")):
        theirs = scorer.score(lists, **split, which=which, items=items)
        for name, their_name in THEIRS.items():
            assert logged[prefix + name] == pytest.approx(theirs[their_name], abs=1.1e-5), (model, name, which)
        shown = [theirs[name] for name in ("recall@10", "recall@100", "macro_recall@10", "advertiser_recall@10")]
        assert printed(found.output, which, model)[:5] == pytest.approx([*shown, theirs["diversity90"]], abs=1.1e-5)


def test_only_the_work_of_ended_evaluations_is_removed(tmp_path: Path) -> None:
    ended, running, version = (
        tmp_path / name for name in (".evaluate-999999999-a", f".evaluate-{os.getpid()}-b", "item-1")
    )
    for directory in (ended, running, version):
        directory.mkdir()
    pipelines.evaluate.work._sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([running, version])


@pytest.mark.slow
@pytest.mark.parametrize("least", [0, 12])
def test_the_independent_scorer_finds_the_figures(scorer: Any, made: Made, evaluate: Evaluate, least: int) -> None:
    models = ("popularity", "recent_popularity", "item_knn", "max_pooling", "contextual")
    found = evaluate("temporal", *models, options=["--min-train-events", str(least)])
    for model in models:
        assert_the_scorer_agrees(scorer, made, "temporal", found, model, least)
    assert found.logged["item_knn"]["recall_at_10"] > 0.1  # guessing finds 10 of 120 items
    if not least:
        assert found.logged["item_knn"]["recall_at_10"] != found.logged["item_knn"]["full_recall_at_10"]
    assert found.parameters["max_pooling"]["model.encoder"] == "max_pooling"
    assert re.search(r"contextual +0 +[+-]0\.\d{5} \([+-]0\.\d{5} to [+-]0\.\d{5}\)", found.output)


@pytest.mark.slow
def test_other_ways_of_asking_share_a_training_and_answer_differently(
    scorer: Any, made: Made, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def counting(task: Any, *rest: Any) -> Any:
        trained.append(task.settings.context.recipe.value)
        return fit(task, *rest)

    monkeypatch.setattr(pipelines.evaluate.command, "fit", counting)
    models = (
        "item_knn",
        "sequential",
        "sequential_appended",
        "contextual_without_context",
        "contextual",
        "contextual_cross_attention",
    )
    found = evaluate("context", *models)
    assert trained == ["none", "basket_mate", "basket_mate"]
    assert found.parameters["contextual_cross_attention"]["model.fusion"] == "cross_attention"
    for model in models:
        assert_the_scorer_agrees(scorer, made, "context", found, model, 0)
    lists = [pl.read_parquet(found.exports[model]).sort("query_id", "rank") for model in models]
    assert not any(one.equals(other) for one, other in pairwise(lists))


@pytest.mark.slow
def test_several_seeds_give_a_file_a_seed_and_the_spread(made: Made, evaluate: Evaluate, tmp_path: Path) -> None:
    found = evaluate("temporal", "mean_pooling", "popularity", options=["--seed", "0,1", "--set", "model.width=16"])
    exported = sorted(path.name for path in tmp_path.glob("*.parquet"))
    pooled = [f"lists-mean_pooling-seed{seed}.parquet" for seed in (0, 1)]
    assert exported == [*pooled, "lists-popularity.parquet"]  # popularity knows no seed
    first, second = (pl.read_parquet(tmp_path / name) for name in pooled)
    assert not first.equals(second)
    assert found.parameters["mean_pooling"]["model.width"] == "16"
    rows = re.findall(r"mean_pooling +(\d) +(\d\.\d{5})", found.output[: found.output.index("full catalogue")])
    values = [float(value) for _, value in rows]
    shown = re.search(r"mean_pooling +(\d\.\d{4}) ± (\d\.\d{4})", found.output)
    assert shown
    spread = [np.mean(values), np.std(values, ddof=1)]
    assert [float(value) for value in shown.groups()] == pytest.approx(spread, abs=1.1e-4)


@pytest.mark.slow
def test_what_happened_after_the_cut_off_does_not_change_the_answers(
    made: Made, evaluate: Evaluate, tmp_path: Path
) -> None:
    """Other targets, same lists: nothing is learnt from them."""
    before = pd.read_parquet(evaluate("temporal", "item_knn").exports["item_knn"])
    targets = made.splits / "tiny-temporal" / "targets.parquet"
    original = targets.read_bytes()
    frame = pd.read_parquet(targets)
    try:
        frame.assign(item_id=1000 + (frame.item_id - 1000 + 3) % 120).drop_duplicates().to_parquet(targets)
        after = pd.read_parquet(evaluate("temporal", "item_knn").exports["item_knn"])
    finally:
        targets.write_bytes(original)
    pd.testing.assert_frame_equal(after, before)


def test_what_cannot_be_evaluated_is_refused_with_what_to_do(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    temporal = made.splits / "tiny-temporal"

    def refusal(split: Path, *options: str, landing: Path = made.landing) -> str:
        places = ["--landing", landing, "--export", tmp_path / "x", "--home", tmp_path / "home"]
        refused = CliRunner().invoke(app, ["evaluate", "--split", str(split), *map(str, places), *options])
        assert refused.exit_code == 2
        return refused.output

    assert "is not a split: train.parquet" in refusal(made.landing)
    assert "no landed day" in refusal(temporal, landing=tmp_path / "empty")
    assert "item_knn" in refusal(temporal, "--model", "crystal_ball")
    assert "context protocol" in refusal(temporal, "--model", "sequential_appended")
    assert "several as 0,1,2" in refusal(temporal, "--seed", "a few")
    assert "Did you mean training.learning_rate?" in refusal(temporal, "--set", "training.learning_rat=1")
    assert "no target of tiny-temporal" in refusal(temporal, "--model", "popularity", "--min-train-events", "9999")


def test_lists_that_were_cut_before_a_hundred_warm_items_are_too_short() -> None:
    """The scorer drops cold items and moves the rest up: a list full of them would be measured at less than 100."""
    warm = np.arange(400) >= 150
    scoring = Scoring(Ragged.from_pairs(np.array([0]), np.array([399]), 2), np.zeros(400, np.int64), warm)

    def lists(*rows: np.ndarray) -> RankedLists:
        items = np.stack(rows)
        return RankedLists(items, np.zeros(items.shape, np.float32))

    cold_first, warm_first, ended = np.arange(200), np.arange(399, 199, -1), np.arange(200)
    assert scoring.is_too_short(lists(cold_first, warm_first), 200)
    assert not scoring.is_too_short(lists(np.arange(250), np.arange(250)), 250)
    ended[120:] = -1  # everything else was excluded: a longer list would hold no more
    assert not scoring.is_too_short(lists(ended, warm_first), 200)
    assert not scoring.is_too_short(lists(np.arange(250), np.arange(250)), 250)
    assert not scoring.is_too_short(lists(np.arange(400), np.arange(400)), 400)


ADVERTISER_MODELS = ("popularity", "recent_advertisers", "advertiser_model")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["temporal", "context"])
def test_the_advertisers_in_the_lists_are_worth_what_is_printed(
    made: Made, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("ADSEQ_EVALUATION__KS", "[2, 5]")
    found = evaluate(protocol, *ADVERTISER_MODELS, options=["--level", "advertiser"])
    frames = {name: pd.read_parquet(made.splits / f"tiny-{protocol}" / f"{name}.parquet") for name in FRAMES}
    brand = frames["catalogue"].set_index("item_id").brand
    targets = frames["targets"].assign(advertiser_id=frames["targets"].item_id.map(brand)).dropna()
    asked = targets[["query_id", "advertiser_id"]].drop_duplicates()
    own = frames["history"].assign(advertiser_id=frames["history"].item_id.map(brand)).dropna()
    newest_first = own.sort_values("ord", ascending=False).drop_duplicates(["query_id", "advertiser_id"])
    known = asked.merge(newest_first[["query_id", "advertiser_id"]], how="left", indicator=True)._merge == "both"
    for model in ADVERTISER_MODELS:
        lists = pd.read_parquet(found.exports[model]).astype({"query_id": "int64"})
        rank = asked.merge(lists, how="left")["rank"].to_numpy()
        for k in (2, 5):
            assert found.logged[model][f"recall_at_{k}"] == pytest.approx(np.mean(rank <= k)), model
        assert found.logged[model]["known.recall_at_2"] == pytest.approx(np.mean(rank[known] <= 2)), model
        assert found.logged[model]["new.recall_at_2"] == pytest.approx(np.mean(rank[~known] <= 2)), model
    first = pd.read_parquet(found.exports["recent_advertisers"]).query("rank == 1").astype({"query_id": "int64"})
    expected = newest_first.drop_duplicates("query_id").set_index("query_id").advertiser_id
    assert (expected.reindex(first.query_id).to_numpy() == first.advertiser_id.to_numpy()).all()


@pytest.mark.slow
def test_what_is_counted_is_answered_once_and_every_seed_ranks_the_same_index(
    made: Made, evaluate: Evaluate, tmp_path: Path
) -> None:
    options = ["--level", "advertiser", "--seed", "0,1", "--set", "advertisers.report_index_size=6"]
    found = evaluate("temporal", "mean_pooling", "popularity", options=options)
    exported = sorted(path.name for path in tmp_path.glob("*.parquet"))
    assert exported == [
        "lists-mean_pooling-seed0.parquet",
        "lists-mean_pooling-seed1.parquet",
        "lists-popularity.parquet",
    ]
    ranked = {name: set(pd.read_parquet(tmp_path / name).advertiser_id) for name in exported}
    assert len({frozenset(each) for each in ranked.values()}) == 1
    assert "Mean ± standard deviation over seeds" in found.output
    assert len(re.findall(r"^ +popularity +[01] ", found.output, re.MULTILINE)) == 2  # a lead over it for each seed


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--level", "advertiser", "--min-train-events", "5"), "--min-train-events counts the events of items"),
        (("--level", "advertiser", "--model", "contextual"), "'contextual' is no model of advertisers"),
        (("--level", "brand"), "--level 'brand' is unknown; there are item, advertiser"),
    ],
)
def test_what_no_advertiser_can_answer_is_refused(made: Made, tmp_path: Path, options: Sequence[str], why: str) -> None:
    split = ["--split", str(made.splits / "tiny-temporal"), "--landing", str(made.landing)]
    home = ["--home", str(tmp_path / "home"), "--export", str(tmp_path / "lists.parquet")]
    result = CliRunner().invoke(app, ["evaluate", *split, *home, *options])
    assert result.exit_code
    assert why in result.output
    assert not (tmp_path / "lists.parquet").exists()
