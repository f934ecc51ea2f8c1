"""``adseq evaluate`` on a split made by hand: the independent scorer finds adseq's figures in the exported lists."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from warehouse.contracts import LandingTable
from warehouse.landing import Landing, Manifest

SHARED = Path(os.environ.get("ADSEQ_SHARED", Path(__file__).resolve().parents[3] / "shared"))
CUTOFF = datetime(2014, 5, 1, tzinfo=UTC)
WINDOW_DAYS, USERS, ITEMS, BRANDS = 28, 240, 130, 9
COLD = range(120, ITEMS)  # items that nobody has bought before the cut-off

TINY = {
    "FEATURES__CONTENT_DIMENSIONS": "8",
    "EXAMPLES__CUTOFFS": "4",
    "MODEL__WIDTH": "8",
    "MODEL__LAYERS": "1",
    "MODEL__HEADS": "1",
    "TRAINING__MAXIMUM_EPOCHS": "1",
    "TRAINING__EPOCH_EXAMPLES": "1500",
    "TRAINING__BATCH_SIZE": "128",
    "TRAINING__CORPUS_NEGATIVES": "32",
}
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
class Made:
    """A landing zone and the splits over its log."""

    landing: Path
    splits: Path


@pytest.fixture(scope="module")
def scorer() -> ModuleType:
    path = SHARED / "scoring" / "score.py"
    if not path.exists():
        pytest.skip(f"the independent scorer is not at {path}; set ADSEQ_SHARED to the directory that holds scoring/")
    specification = importlib.util.spec_from_file_location("independent_scorer", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Purchases in baskets of like items, split in time; ids are numbers in the split's files, as the real ones are."""
    root = tmp_path_factory.mktemp("splits")
    log = purchases()
    write_landing(root / "landing")
    for protocol in ("temporal", "context"):
        write_split(root / f"tiny-{protocol}", log, protocol)
    return Made(root / "landing", root)


def purchases() -> pd.DataFrame:
    """user_id, item_id, ts (seconds), ord, basket: items of a basket share their remainder by 10."""
    random = np.random.default_rng(7)
    start = CUTOFF - timedelta(days=300)
    rows = []
    for user in range(USERS):
        taste = random.integers(10)
        for day in np.sort(random.choice(300 + WINDOW_DAYS, random.integers(2, 9), replace=False)):
            known = 120 if day < 300 else ITEMS
            for item in random.choice(np.arange(taste, known, 10), random.integers(1, 5), replace=False):
                when = start + timedelta(days=int(day), seconds=int(random.integers(86_400)))
                rows.append((user, int(item) + 1000, when.timestamp(), user * 1000 + int(day)))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "ts", "basket"])
    frame = frame.sort_values(["ts", "user_id"], kind="stable").reset_index(drop=True)
    return frame.assign(ord=np.arange(len(frame)))


def write_landing(root: Path) -> None:
    """Items only, as landed before and on the one daily day; every tenth has no advertiser."""
    landing = Landing(root)
    number = pl.int_range(1000, 1000 + ITEMS, eager=True)
    items = pl.DataFrame({"item_id": number.cast(pl.String)}).with_columns(
        advertiser_id=pl.when(number % 13 != 0).then(pl.format("brand {}", number % BRANDS)),
        category=pl.format("Home > Room {}", number % 10),
        price=(number % 7 + 1).cast(pl.Float64),
    )
    landing.write(LandingTable.items, None, items)
    landing.write(LandingTable.items, CUTOFF.date(), items.head(1))
    landing.write_manifest(
        Manifest(positive_events=["checkout"], prediction_window_days=WINDOW_DAYS, repeats_count=False)
    )


def write_split(directory: Path, log: pd.DataFrame, protocol: str) -> None:
    """The five frames and the meta of the scoring folder's format."""
    train = log[log.ts < CUTOFF.timestamp()]
    window = log[(log.ts >= CUTOFF.timestamp()) & log.user_id.isin(train.user_id.unique())]
    if protocol == "temporal":
        window = window.assign(query_id=window.user_id, context_item=pd.Series(dtype="int64"))
        targets = window
    else:
        window = window.sort_values(["basket", "ord"])
        window = window.assign(query_id=window.basket, context_item=window.groupby("basket").item_id.transform("first"))
        targets = window[window.item_id != window.context_item]
    queries = window[window.query_id.isin(targets.query_id)].drop_duplicates("query_id")
    history = queries[["query_id", "user_id"]].merge(train, on="user_id")[["query_id", "item_id", "ord"]]
    targets = targets[["query_id", "item_id"]].drop_duplicates().merge(history, how="left", indicator=True)
    targets = targets[targets._merge == "left_only"][["query_id", "item_id"]]
    queries = queries[queries.query_id.isin(targets.query_id)][["query_id", "user_id", "context_item"]]
    number = np.arange(1000, 1000 + ITEMS)
    catalogue = pd.DataFrame({"item_id": number, "warm": np.isin(number, train.item_id)})
    catalogue["brand"] = [f"brand {item % BRANDS}" if item % 13 else None for item in number]
    frames = {
        "train": train[["user_id", "item_id", "ts", "ord"]],
        "queries": queries.assign(has_history=True),
        "history": history[history.query_id.isin(queries.query_id)],
        "targets": targets,
        "catalogue": catalogue,
    }
    directory.mkdir()
    for name, frame in frames.items():
        frame.reset_index(drop=True).to_parquet(directory / f"{name}.parquet")
    meta = {"cutoff": CUTOFF.replace(tzinfo=None).isoformat(sep=" "), "window_days": WINDOW_DAYS}
    (directory / "meta.json").write_text(json.dumps(meta))


@pytest.fixture(autouse=True)
def tiny_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny configuration; the command changes the environment, which is put back afterwards."""
    for name in ("ADSEQ_HOME", "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, "placeholder"))
    monkeypatch.delenv("ADSEQ_HOME")
    for name, value in TINY.items():
        monkeypatch.setenv(f"ADSEQ_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def evaluate(made: Made, tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """Runs the command; returns what it printed and the exported lists."""

    def run(protocol: str, model: str) -> tuple[str, Path]:
        export = tmp_path / f"{model}.parquet"
        split = made.splits / f"tiny-{protocol}"
        arguments = ["--split", split, "--landing", made.landing, "--export", export, "--home", tmp_path / "home"]
        result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--model", model])
        assert result.exit_code == 0, result.output
        return result.output, export

    return run


def printed_figures(output: str) -> dict[str, tuple[float, float]]:
    """Figure -> on the warm catalogue, on the full one."""
    rows = re.findall(r"│ (\S+) +│ +(\S+) │ +(\S+) │", output)
    return {name: (float(warm), float(full)) for name, warm, full in rows if "–" not in (warm, full)}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["temporal", "context"])
@pytest.mark.parametrize("model", ["item_knn", "contextual"])
def test_the_independent_scorer_finds_the_printed_figures(
    scorer: Any, made: Made, evaluate: Callable[..., tuple[str, Path]], protocol: str, model: str
) -> None:
    output, export = evaluate(protocol, model)
    ours = printed_figures(output)
    assert set(THEIRS) <= set(ours)
    split = scorer.load_split("tiny", protocol, made.splits)
    lists = pd.read_parquet(export)
    for column, which in enumerate(("warm", "full")):
        theirs = scorer.score(lists, **split, which=which)
        for name, their_name in THEIRS.items():
            assert ours[name][column] == pytest.approx(theirs[their_name], abs=1.1e-5, rel=1e-4), (name, which)
    assert ours["recall_at_10"][0] > 0.1  # guessing finds 10 of 120 items
    assert ours["recall_at_10"][0] != ours["recall_at_10"][1]


@pytest.mark.slow
def test_what_happened_after_the_cut_off_does_not_change_the_answers(
    made: Made, evaluate: Callable[..., tuple[str, Path]], tmp_path: Path
) -> None:
    """Other targets, same lists: nothing is learnt from them."""
    _, export = evaluate("temporal", "item_knn")
    before = pd.read_parquet(export)
    targets = made.splits / "tiny-temporal" / "targets.parquet"
    original = targets.read_bytes()
    frame = pd.read_parquet(targets)
    try:
        frame.assign(item_id=1000 + (frame.item_id - 1000 + 3) % 120).drop_duplicates().to_parquet(targets)
        _, export = evaluate("temporal", "item_knn")
    finally:
        targets.write_bytes(original)
    pd.testing.assert_frame_equal(pd.read_parquet(export), before)


def test_a_directory_that_is_no_split_and_an_unknown_model_are_refused(made: Made, tmp_path: Path) -> None:
    arguments = ["--landing", str(made.landing), "--export", str(tmp_path / "x"), "--home", str(tmp_path / "home")]
    refused = CliRunner().invoke(app, ["evaluate", "--split", str(made.landing), *arguments])
    assert refused.exit_code == 2
    assert "is not a split: train.parquet" in refused.output
    split = ["--split", str(made.splits / "tiny-temporal")]
    refused = CliRunner().invoke(app, ["evaluate", *split, *arguments, "--model", "crystal_ball"])
    assert refused.exit_code == 2
    assert "item_knn" in refused.output
