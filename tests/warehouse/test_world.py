"""The synthetic world as a source: deterministic, resumable by the day, within the contracts."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from warehouse.contracts import KEYS, SCHEMAS, LandingTable
from warehouse.landing import Landing
from warehouse.world import (
    AnotherEdition,
    WorldSettings,
    is_world,
    oracle_ranking,
    read_settings,
    write_day,
    write_world,
)
from warehouse.world.names import USES

SMALL = WorldSettings(
    history_days=70,
    initial_users=500,
    new_users_per_day=3,
    initial_items=400,
    new_items_per_day=2,
    advertisers=30,
    departments=3,
    regular_share=0.6,
    late_share=0.05,
    duplicate_share=0.02,
    relevance_labels=144,
    labels_per_day=24,
)
FIRST = SMALL.first_daily_day
WRITTEN = [table for table in LandingTable if table not in {LandingTable.funnel_sample, LandingTable.feedback}]
"""The tables of the world; the service writes the other two."""


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Landing:
    landing = Landing(tmp_path_factory.mktemp("world"))
    write_world(landing, SMALL, days=3)
    return landing


def read(landing: Landing, table: str, day: date | None) -> pl.DataFrame:
    folder = landing.folder(LandingTable(table), day)
    return pl.read_parquet(sorted(folder.glob("*.parquet")), hive_partitioning=False)


def arrivals(landing: Landing) -> list[date | None]:
    return [None, *landing.dates()]


def assert_same_files(one: Path, other: Path, folder: str = "") -> None:
    files = sorted(path.relative_to(one) for path in (one / folder).rglob("*") if path.is_file())
    assert files
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_equal_settings_give_byte_equal_files(landing: Landing, tmp_path: Path) -> None:
    write_world(Landing(tmp_path), SMALL, days=3)
    assert_same_files(landing.root, tmp_path)


def test_another_seed_gives_other_events(landing: Landing, tmp_path: Path) -> None:
    write_world(Landing(tmp_path), SMALL.model_copy(update={"seed": 1}), days=0)
    ours, other = read(landing, "events", None), read(Landing(tmp_path), "events", None)
    assert ours.join(other, on=["user_id", "event_time"], how="semi").height < 0.01 * ours.height


def test_days_written_one_by_one_equal_all_at_once_and_leave_earlier_days_alone(
    landing: Landing, tmp_path: Path
) -> None:
    alone = Landing(tmp_path)
    write_world(alone, SMALL, days=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    for offset in (2, 1):
        summary = write_day(alone, SMALL, FIRST + timedelta(offset))
        assert summary.events == read(alone, "events", FIRST + timedelta(offset)).height
    assert_same_files(landing.root, tmp_path)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_the_history_does_not_depend_on_what_follows(landing: Landing, tmp_path: Path) -> None:
    write_world(Landing(tmp_path), SMALL, days=0)
    assert Landing(tmp_path).dates() == []
    for table in WRITTEN:
        assert_same_files(tmp_path, landing.root, f"{table}/history")


def test_every_partition_satisfies_its_contract(landing: Landing) -> None:
    assert landing.dates() == [FIRST + timedelta(offset) for offset in range(3)]
    for table in WRITTEN:
        for day in arrivals(landing):
            frame = read(landing, table, day)
            assert frame.height > 0, (table, day)
            SCHEMAS[table].validate(frame)
            if table != LandingTable.events:
                assert not frame.select(KEYS[table]).is_duplicated().any(), (table, day)


def test_references_resolve_to_what_has_arrived(landing: Landing) -> None:
    items, users, ads = set[str](), set[str](), set[str]()
    for day in arrivals(landing):
        items |= set(read(landing, "items", day)["item_id"])
        ads |= set(read(landing, "ads", day)["ad_id"])
        users |= set(read(landing, "users", day)["user_id"])
        events, impressions = read(landing, "events", day), read(landing, "impressions", day)
        assert set(events["user_id"]) | set(impressions["user_id"]) <= users
        assert set(events["item_id"].drop_nulls()) | set(impressions["item_id"]) <= items
        assert set(impressions["subject_item_id"].drop_nulls()) | set(read(landing, "ads", day)["item_id"]) <= items
        assert set(impressions["ad_id"].drop_nulls()) <= ads


def test_nothing_is_engaged_with_before_it_is_available(landing: Landing) -> None:
    items = pl.concat(read(landing, "items", day) for day in arrivals(landing)).unique("item_id")
    events = pl.concat(read(landing, "events", day) for day in arrivals(landing)).join(items, on="item_id")
    assert events.filter(pl.col("event_time") < pl.col("available_from")).is_empty()
    assert (items["available_from"] > SMALL.midnight(0)).sum() == 2 * (SMALL.history_days + 2)


def test_names_items_and_values_fit_together(landing: Landing) -> None:
    events = read(landing, "events", None)
    signups = events.filter(pl.col("event_name") == "signup")
    assert signups.height > 0
    assert signups["item_id"].null_count() == signups.height
    assert signups["advertiser_id"].null_count() == 0
    positive = pl.col("event_name").is_in(["add_to_cart", "checkout"])
    assert events.filter(positive & (pl.col("value").is_null() | pl.col("item_id").is_null())).is_empty()
    assert events.filter(~positive & pl.col("value").is_not_null()).is_empty()
    priced = events.filter(positive).join(read(landing, "items", None), on="item_id")
    assert (priced["value"] == priced["price"]).all()


def test_every_checkout_follows_an_add_to_cart_of_the_item(landing: Landing) -> None:
    events = read(landing, "events", None).unique("event_id")
    first = (
        events.filter(pl.col("event_name") == "add_to_cart")
        .group_by("user_id", "item_id")
        .agg(carted=pl.col("event_time").min())
    )
    bought = events.filter((pl.col("event_name") == "checkout") & (pl.col("event_time") > SMALL.midnight(10))).join(
        first, on=["user_id", "item_id"], how="left"
    )
    # A cart event that arrives after the history is missing from it: at most the late share.
    assert bought.height > 100
    assert bought["carted"].null_count() <= 0.05 * bought.height
    assert bought.filter(pl.col("carted") >= pl.col("event_time")).is_empty()


def test_late_and_duplicate_events_have_their_shares(landing: Landing) -> None:
    history = read(landing, "events", None)
    copies = history.height - history["event_id"].n_unique()
    assert 0.01 < copies / history.height < 0.03
    late = 0
    for day in landing.dates():
        age = (pl.lit(day) - pl.col("event_time").dt.date()).dt.total_days()
        ages = read(landing, "events", day).select(age.alias("age"))["age"]
        assert ages.min() >= 0
        assert ages.max() <= 3
        late += int((ages > 0).sum())
    total = sum(read(landing, "events", day).height for day in landing.dates())
    assert 0.02 < late / total < 0.12
    for _, copied in history.filter(history["event_id"].is_duplicated()).group_by("event_id"):
        assert copied.n_unique() == 1


def test_prices_change_on_daily_days_and_events_carry_the_new_one(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"price_changes_per_day": 0.5, "late_share": 0.0})
    landing = Landing(tmp_path)
    write_world(landing, settings, days=1)
    old, new = read(landing, "items", None), read(landing, "items", FIRST)
    both = old.join(new, on="item_id", suffix="_new")
    assert 0.4 * old.height < both.height < 0.6 * old.height
    assert (both["price"] != both["price_new"]).mean() > 0.9
    bought = read(landing, "events", FIRST).drop_nulls("value").join(new, on="item_id")
    bought = bought.filter(pl.col("event_time").dt.date() == FIRST)
    assert bought.height > 0
    assert (bought["value"] == bought["price"]).all()


def test_interests_are_noisy_views_of_the_category_path(landing: Landing) -> None:
    items = read(landing, "items", None)
    pairs = items.select("category", "interests").explode("interests", empty_as_null=True).unnest("interests")
    assert 0.7 < pairs["interest"].is_in(USES).sum() / items.height < 0.9
    pairs = pairs.filter(~pl.col("interest").is_in(USES))
    own = pairs.select(
        (pl.col("category") == pl.col("interest")) | pl.col("category").str.starts_with(pl.col("interest") + " > ")
    ).to_series()
    assert items["interests"].list.len().min() >= 1
    assert 0.85 < own.mean() < 0.99
    assert pairs["confidence"].is_between(0, 1).all()


def test_the_landing_zone_says_what_it_is(landing: Landing, tmp_path: Path) -> None:
    assert is_world(landing.root)
    assert not is_world(tmp_path)
    assert read_settings(landing.root) == SMALL
    assert landing.manifest.prediction_window_days == 28
    assert not landing.manifest.repeats_count


def test_a_world_of_another_edition_is_a_log_like_any_other(landing: Landing, tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text('{"seed": 0, "candidates": 10}')
    assert is_world(landing.root)
    assert not is_world(tmp_path)
    with pytest.raises(AnotherEdition, match=r"world\.json: field 'candidates' .* no oracle .* `adseq demo"):
        read_settings(tmp_path)
    with pytest.raises(AnotherEdition):
        write_world(Landing(tmp_path), SMALL, days=0)


def test_oracle_ranks_candidates_without_what_the_user_knows(landing: Landing) -> None:
    events = read(landing, "events", None)
    users = events["user_id"].unique().sort().head(40).to_list()
    items = read(landing, "items", None)["item_id"].sort().to_list()[::2]
    as_of = FIRST - timedelta(1)
    ranking = oracle_ranking(landing.root, as_of, users, item_ids=items, window_days=28.0, futures=5, depth=30)
    assert ranking.columns == ["user_id", "rank", "item_id"]
    assert set(ranking["user_id"]) == set(users)
    assert set(ranking["item_id"]) <= set(items)
    assert not ranking.select("user_id", "item_id").is_duplicated().any()
    assert ranking.group_by("user_id").agg((pl.col("rank").sort() == pl.int_range(1, pl.len() + 1)).all())["rank"].all()
    assert ranking.join(events, on=["user_id", "item_id"], how="semi").is_empty()
    assert_frame_equal(
        ranking, oracle_ranking(landing.root, as_of, users, item_ids=items, window_days=28.0, futures=5, depth=30)
    )


def test_bad_input_is_refused_with_what_to_do(landing: Landing, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write_world writes the history"):
        write_day(landing, SMALL, FIRST - timedelta(1))
    with pytest.raises(ValueError, match="two worlds would mix"):
        write_day(landing, SMALL.model_copy(update={"seed": 7}), FIRST)
    with pytest.raises(ValueError, match="two worlds would mix"):
        write_world(landing, SMALL.model_copy(update={"seed": 7}), days=1)
    with pytest.raises(ValueError, match="0 or more"):
        write_world(Landing(tmp_path), SMALL, days=-1)
    with pytest.raises(FileNotFoundError, match="no synthetic world"):
        oracle_ranking(tmp_path, FIRST, [], item_ids=[], window_days=28.0, futures=1, depth=1)
    with pytest.raises(ValueError, match="'nobody'"):
        oracle_ranking(landing.root, FIRST, ["nobody"], item_ids=[], window_days=28.0, futures=1, depth=1)
    with pytest.raises(ValueError, match="the world begins on"):
        oracle_ranking(landing.root, date(2020, 1, 1), [], item_ids=[], window_days=28.0, futures=1, depth=1)
