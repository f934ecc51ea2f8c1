"""``adseq split`` cuts as the scoring folder's script does, and what it writes can be evaluated."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.evaluate.make_split import Protocol, cut_frames
from tests.conftest import SHARED
from tests.pipelines.evaluate.split_world import BRANDS, CUTOFF, ITEMS, WINDOW_DAYS, purchases, write_landing
from warehouse.contracts import LandingTable
from warehouse.landing import Landing

DAY_SECONDS = 86_400
pytestmark = pytest.mark.usefixtures("tiny_environment")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The scoring folder's script, which is no part of the project."""
    path = SHARED / "scoring" / "split.py"
    if not path.exists():
        pytest.skip(f"the independent split.py is not at {path}; set ADSEQ_SHARED to the directory with scoring/")
    specification = importlib.util.spec_from_file_location("independent_split", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def asked(frames: dict[str, Any]) -> Counter[Any]:
    """Each query without its number: user, context, history in order, targets."""
    history, targets = (frames[name].groupby("query_id").item_id.apply(list) for name in ("history", "targets"))
    return Counter(
        (
            str(row.user_id),
            None if pd.isna(row.context_item) else str(int(row.context_item)),
            tuple(map(str, history.get(row.query_id, []))),
            frozenset(map(str, targets[row.query_id])),
            bool(row.has_history),
        )
        for row in frames["queries"].itertuples()
    )


@pytest.mark.parametrize("protocol", list(Protocol))
def test_the_independent_script_cuts_the_same_log_alike(script: ModuleType, protocol: Protocol) -> None:
    log = purchases().drop(columns="basket").assign(session_id=lambda d: d.ts // DAY_SECONDS)
    log = log.astype({"ts": int, "session_id": int})
    brands = pd.DataFrame({"item_id": range(1000, 1000 + ITEMS)}).assign(brand=lambda d: d.item_id % BRANDS)
    cutoff = int(CUTOFF.timestamp())
    theirs, _ = script.make("any", protocol.value, log, brands, cutoff, WINDOW_DAYS * DAY_SECONDS)
    text = [pl.col(name).cast(pl.String) for name in ("user_id", "item_id")]
    ours = cut_frames(
        pl.from_pandas(log).with_columns(text),
        pl.from_pandas(brands).with_columns(pl.all().cast(pl.String)),
        protocol,
        cutoff=cutoff,
        window_days=WINDOW_DAYS,
    )
    mine = {name: frame.to_pandas() for name, frame in ours.by_name().items()}
    assert len(mine["queries"]) > 20
    assert asked(mine) == asked(theirs)
    assert mine["train"].ord.tolist() == theirs["train"].ord.tolist()
    for frame in (mine["catalogue"], theirs["catalogue"]):
        frame[["item_id", "brand"]] = frame[["item_id", "brand"]].astype(int)
    pd.testing.assert_frame_equal(
        *(each["catalogue"].sort_values("item_id", ignore_index=True) for each in (mine, theirs))
    )


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Landing:
    """A small log of purchases, all of it history but for one day."""
    zone = Landing(tmp_path_factory.mktemp("split") / "landing")
    write_landing(zone.root)
    shutil.rmtree(zone.folder(LandingTable.items, CUTOFF.date()))
    log = pl.from_pandas(purchases()).select(
        event_id=pl.format("e{}", "ord"),
        user_id=pl.format("u{}", "user_id"),
        event_time=pl.from_epoch("ts", time_unit="s").dt.replace_time_zone("UTC"),
        event_name=pl.lit("checkout"),
        item_id=pl.col("item_id").cast(pl.String),
        advertiser_id=pl.lit(None, pl.String),
    )
    last = CUTOFF.date() + timedelta(days=WINDOW_DAYS)
    zone.write(LandingTable.events, None, log)
    zone.write(LandingTable.events, last, log.head(1).with_columns(event_id=pl.lit("late")))
    return zone


def split(landing: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["split", str(landing), "--out", str(out), *options])


@pytest.mark.slow
@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_split_of_any_landing_zone_can_be_evaluated_and_scored(
    scorer: Any, landing: Landing, tmp_path: Path, protocol: Protocol
) -> None:
    done = split(landing.root, tmp_path / f"tiny-{protocol}", "--protocol", protocol.value)
    assert done.exit_code == 0, done.output
    lists = tmp_path / "lists.parquet"
    paths = ["--split", tmp_path / f"tiny-{protocol}", "--landing", landing.root, "--export", lists]
    evaluated = CliRunner().invoke(
        app, ["evaluate", *map(str, paths), "--home", str(tmp_path / "home"), "--model", "popularity"]
    )
    assert evaluated.exit_code == 0, evaluated.output
    theirs = scorer.score(pd.read_parquet(lists), **scorer.load_split("tiny", protocol.value, tmp_path), which="warm")
    assert f"{theirs['recall@10']:.5f}" in evaluated.output
    meta = json.loads((tmp_path / f"tiny-{protocol}" / "meta.json").read_text())
    assert meta["targets_warm"] == theirs["positives"]


def test_users_are_drawn_by_their_ids_and_keep_all_of_their_events(landing: Landing, tmp_path: Path) -> None:
    for name, share in (("all", "1"), ("half", "0.5"), ("half again", "0.5")):
        assert split(landing.root, tmp_path / name, "--users", share, "--at", "2014-04-20").exit_code == 0
    everything, half, again = (
        pl.read_parquet(tmp_path / name / "train.parquet") for name in ("all", "half", "half again")
    )
    assert half.equals(again)
    kept = everything.filter(pl.col("user_id").is_in(half["user_id"].unique().implode()))
    assert kept.drop("ord").equals(half.drop("ord"))
    assert 0.3 < half["user_id"].n_unique() / everything["user_id"].n_unique() < 0.7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--protocol", "loo"], "there are temporal, context"),
        (["--at", "soon"], "write a quantile of time as 0.9"),
        (["--at", "1.5"], "a quantile lies between 0 and 1"),
        (["--at", "1999-01-01"], "no conversion lies before that instant"),
        (["--users", "0"], "a share above 0"),
        (["--window-days", "-1"], "a positive number of days"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_sentence(
    landing: Landing, tmp_path: Path, options: list[str], says: str
) -> None:
    done = split(landing.root, tmp_path / "out", *options)
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "out").exists()


def test_a_directory_with_something_in_it_is_left_alone(landing: Landing, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = split(landing.root, tmp_path)
    assert done.exit_code == 2
    assert "is not empty" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_log_without_conversions_names_the_manifests_line(tmp_path: Path) -> None:
    zone = Landing(tmp_path / "landing")
    times = pl.Series(["2026-01-01T10:00:00Z"]).str.to_datetime(time_zone="UTC")
    event = pl.DataFrame({"event_id": ["a"], "user_id": ["u"], "event_time": times, "event_name": ["page_visit"]})
    zone.write(LandingTable.events, times[0].date(), event.with_columns(item_id=pl.lit("i"), advertiser_id=pl.lit("b")))
    done = split(zone.root, tmp_path / "out")
    assert done.exit_code == 2
    assert "positive_events in manifest.toml" in done.output
