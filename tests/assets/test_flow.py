"""The whole graph, materialized by ``adseq run`` on a tiny world: what is there afterwards, and whether it adds up."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from datetime import date
from itertools import pairwise

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from assets.common.workspace import Workspace
from assets.quality import CHECKS
from assets.steps.period import training_period
from assets.steps.versions import item_versions
from ml.evaluation.item_report import Comparison, lists_of_frame, load_comparison
from ml.evaluation.metrics import mlflow_name
from ml.evaluation.model_names import BASELINES, TRAINED, ModelName
from ml.evaluation.report_rows import Segment, rows_of_frame
from ml.models.artifact import ModelArtifact
from ml.models.item_model import POPULARITY_WIDTH
from ml.models.version_directories import evaluation_part
from ml.retrieval.index_files import load_index
from ml.retrieval.lists import RankedLists
from ml.versions.tracking import (
    ADVERTISER_MODEL,
    CHAMPION,
    DAILY,
    ITEM_MODEL,
    MARKET,
    RELEVANCE_MODEL,
    REPORTS,
    TRAINING,
    Tracking,
)
from pipelines import jobs
from pipelines.cli.summary_figures import PROTOCOLS, summary_figures
from settings import ONSITE_EVENTS, Settings
from tests import processes
from tests.assets.compare import arrived_events
from tests.assets.world import DAYS, SETTINGS, environment
from tests.assets.world import TRAINED as TRAINED_UNTIL
from tests.flow import Ran
from tests.processes import PROJECT
from warehouse.as_of import items_as_of
from warehouse.contracts import KEYS, VERSIONED, LandingTable
from warehouse.days import day_end
from warehouse.onsite_events import onsite_events
from warehouse.states import snapshot
from warehouse.tables import vectors

pytestmark = pytest.mark.slow
COMPARED = [model for model in ModelName if model in (*BASELINES, ModelName.parts, *TRAINED)]


@pytest.fixture(scope="module")
def instance(ran: Ran) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(ran.home.dagster))


@pytest.fixture(scope="module")
def comparison(ran: Ran) -> Comparison:
    """The queries of the newest window, made anew."""
    (version,) = item_versions(ran.tables, ran.home).all()
    settings = ModelArtifact.load(version.deployed).settings
    period = training_period(Workspace(settings.model_copy(update={"home": ran.home.root})), version.trained_day)
    artifacts = {model: ModelArtifact.load(version.directory / evaluation_part(model)) for model in TRAINED}
    return load_comparison(period, artifacts, settings)


@pytest.fixture(scope="module")
def lists(ran: Ran, comparison: Comparison) -> dict[ModelName, RankedLists]:
    """The stored lists of every model, and of the oracle."""
    return lists_of_frame(ran.tables.read("evaluation_lists", {"model_version": "item-1"}), comparison.user_ids)


def hits_and_counts(
    comparison: Comparison, lists: RankedLists, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By query: positives within the first k, and positives; in plain Python."""
    positives = comparison.asked.queries.positives
    wanted = [set(positives.items[start:end].tolist()) for start, end in pairwise(positives.offsets.tolist())]
    counts = np.diff(positives.offsets)
    hits = [len(set(shown) & items - {-1}) for shown, items in zip(lists.items[:, :k].tolist(), wanted, strict=True)]
    return np.array(hits, float), np.array(counts, float)


def metric(ran: Ran, report: str, model: str, name: str, surface: str = "related_pins") -> float:
    rows = rows_of_frame(ran.tables.read("model_metrics", {"report": report}))
    (value,) = [
        row.value
        for row in rows
        if (row.model, row.metric) == (model, name)
        and (row.segment, row.group) in ((Segment.all, ""), (Segment.surface, surface))
    ]
    assert value is not None
    return value


def test_every_asset_is_materialized_and_every_run_has_succeeded(instance: dg.DagsterInstance) -> None:
    for name in (jobs.HISTORY, *jobs.TRAINING):
        assert instance.get_latest_materialization_event(dg.AssetKey(name)), name
    for name in jobs.DAILY:
        partitions = instance.get_materialized_partitions(dg.AssetKey(name))
        assert partitions == {day.isoformat() for day in DAYS}, name
    runs = instance.get_runs()
    assert Counter(run.job_name for run in runs) == {"bootstrap": 1, "daily": len(DAYS)}
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_every_check_was_evaluated_and_passed(instance: dg.DagsterInstance) -> None:
    evaluated: Counter[tuple[str, str]] = Counter()
    for run in instance.get_runs():
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            assert entry.dagster_event
            check = entry.dagster_event.asset_check_evaluation_data
            assert check.passed, f"{check.check_name} of {check.asset_key}: {check.metadata}"
            evaluated[check.asset_key.to_user_string(), check.check_name] += 1
    once = {
        ("history", "quarantine_share_within_bound"),
        ("history", "has_events"),
        ("training_examples", "enough_examples"),
        ("contextual_examples", "never_the_positive_itself"),
        ("champion", "a_champion_is_ready"),
        ("advertiser_model", "embeddings_are_finite"),
    }
    daily = {(table.value, "quarantine_share_within_bound") for table in LandingTable} | {
        *(("data_quality", name) for name in CHECKS),
        ("context_drift", "contexts_as_learnt"),
        ("item_index", "scores_as_before"),
        ("item_index", "few_slots_never_engaged"),
        ("user_states", "incremental_equals_full"),
        ("item_index", "recall_against_brute_force"),
        ("item_index", "recall_under_filters"),
        ("advertiser_candidates", "every_active_user_has_a_full_list"),
        ("online_states", "states_are_fresh"),
        ("labelling_queue", "pairs_name_a_subject_or_a_query"),
        ("rater_agreement", "no_rater_is_biased"),
        *(("relevance_monitoring", name) for name in ("coverage", "stability", "trim_rate")),
    }
    assert evaluated == dict.fromkeys(once, 1) | dict.fromkeys(daily, len(DAYS))


def test_landed_rows_are_in_the_tables_once_each(ran: Ran) -> None:
    arrivals = [None, *DAYS]
    for table in LandingTable:
        files = [path for day in arrivals for path in ran.landing.files(table, day)]
        stored = ran.tables.scan(table.value).collect()
        if not files:
            assert stored.is_empty(), table
            continue
        landed = pl.concat([pl.read_parquet(path) for path in files], how="diagonal_relaxed")
        keys = KEYS[table]
        assert set(stored["arrival_date"]) == {TRAINED_UNTIL, *DAYS}, table
        if table in VERSIONED:
            assert stored.select(keys).unique().height == landed.select(keys).unique().height, table
        else:
            assert stored.height == landed.select(keys).unique().height, table
            assert stored.select(keys).is_unique().all(), table
    duplicates = sum(pl.read_parquet(ran.landing.files(LandingTable.events, day)).height for day in arrivals)
    assert duplicates > ran.tables.scan("events").collect().height  # the world sends some events twice
    assert ran.tables.scan("events").filter(pl.col("late")).collect().height > 0


def test_every_day_has_the_whole_catalogue_embedded_and_indexed(ran: Ran) -> None:
    for day in DAYS:
        where: dict[str, str | date] = {"model_version": "item-1", "day": day}
        catalogue = items_as_of(ran.tables, ran.landing, day)["item_id"]
        assert ran.tables.read("item_features", where).sort("item_id")["item_id"].equals(catalogue)
        embeddings = ran.tables.read("item_embeddings", where).sort("item_id")
        assert embeddings["item_id"].equals(catalogue)
        matrix = vectors(embeddings["embedding"])
        np.testing.assert_allclose(np.linalg.norm(matrix[:, :-POPULARITY_WIDTH], axis=1), 1, atol=1e-5)
        index = load_index(ran.home.indexes / "item-1" / day.isoformat())
        assert len(index.index) == len(catalogue)
        assert index.manifest.model_version == "item-1"


def test_a_period_that_ends_earlier_knows_the_catalogue_of_then(ran: Ran) -> None:
    """Items that arrived later keep their rows, and nothing is known of them."""
    period = training_period(Workspace(Settings(home=ran.home.root)), DAYS[-1])
    end = day_end(DAYS[0], ran.landing.manifest.time_zone).timestamp()
    handed = pickle.loads(pickle.dumps(period))  # as to a process that fits
    earlier, then = handed.until(end).items, items_as_of(ran.tables, ran.landing, DAYS[0])
    assert earlier["item_id"].equals(period.items["item_id"])
    assert earlier.join(then, on="item_id", how="semi").select(then.columns).equals(then)
    later = earlier.join(then, on="item_id", how="anti")
    assert len(later) > 0
    assert later["title"].null_count() == later["category"].null_count() == len(later)
    assert (later["listed_from"].dt.epoch("s") >= end).all()
    assert period.items["listed_from"].dt.epoch("s").is_between(end, period.end, closed="left").any()


def test_the_inference_log_counts_users(ran: Ran) -> None:
    log = ran.tables.scan("inference_log").sort("day").collect()
    assert log["day"].to_list() == DAYS
    events = arrived_events(ran.tables, ran.landing)
    for row in log.iter_rows(named=True):
        assert row["total"] == events.filter(pl.col("arrival_date") <= row["day"])["user_id"].n_unique()
        assert row["inferred"] == row["active"] == len(ran.tables.read("user_sequences", {"day": row["day"]}))


def test_sequences_come_after_impressions_which_they_do_not_depend_on(instance: dg.DagsterInstance) -> None:
    written: dict[str, dict[str, int]] = {}
    for name in ("impressions", "user_sequences"):
        records = instance.fetch_materializations(dg.AssetKey(name), limit=50).records
        written[name] = {str(record.partition_key): record.storage_id for record in records}
    assert set(written["impressions"]) == set(written["user_sequences"]) == {str(day) for day in DAYS}
    assert all(written["impressions"][day] < written["user_sequences"][day] for day in written["impressions"])


def test_clicks_of_ads_are_in_the_sequences_and_their_users_have_a_state(ran: Ran) -> None:
    """The world's manifest says ``onsite_events``."""
    clicks = onsite_events(ran.tables, ran.landing)
    for day in DAYS:
        new = clicks.filter(arrival_date=day)
        assert len(new) > 0
        sequences = ran.tables.read("user_sequences", {"day": day})
        assert sequences["onsite_events"].all()
        rows = sequences.select("user_id", "event_id", "event_time").explode("event_id", "event_time")
        newest = rows.join(clicks, on=["user_id", "event_id"], how="semi")
        assert newest["event_time"].dt.date().max() == day  # and no click of a day to come
        assert new.join(sequences, on="user_id", how="anti").is_empty()
    period = training_period(Workspace(Settings(home=ran.home.root)), TRAINED_UNTIL)
    assert set(ONSITE_EVENTS) <= set(period.events["event_name"].unique()) & set(period.event_names)
    clicked = clicks["user_id"].unique()
    assert set(clicked) <= set(snapshot(ran.tables, "item-1", DAYS[-1])["user_id"])


def test_every_day_was_measured_for_the_model_and_the_baselines_beside_it(ran: Ran) -> None:
    daily = ran.tables.scan("daily_recall").collect()
    assert set(daily["day"]) == set(DAYS)
    contextual = daily.filter(model="contextual", metric="recall@100")
    assert len(contextual) == len(DAYS)
    assert contextual["positives"].min() > 0
    assert contextual["value"].is_between(0, 1).all()
    assert daily["model"].n_unique() > 1
    never = daily.filter(metric="never_engaged@100")
    assert len(never) == len(DAYS) * daily["model"].n_unique()
    assert never["value"].is_between(0, 1).all()


def test_the_views_read_the_current_tables(ran: Ran) -> None:
    with duckdb.connect(str(ran.home.views), read_only=True) as views:
        counted = views.sql("SELECT count(*) FROM user_states WHERE day = DATE '2026-03-03'").fetchall()
    assert counted == [(len(ran.tables.read("user_states", {"model_version": "item-1", "day": DAYS[-1]})),)]


def test_mlflow_has_the_runs_with_parameters_and_metrics(ran: Ran) -> None:
    client = Tracking(ran.home.tracking_uri, ran.home.artifacts).client
    found = {}
    for experiment in (TRAINING, REPORTS, MARKET, DAILY):
        runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}, experiment
        found[experiment] = {run.info.run_name: run for run in runs}
    training = found[TRAINING][f"item_model {TRAINED_UNTIL}"]
    assert training.data.params["training.epoch_examples"] == SETTINGS["ADSEQ_TRAINING__EPOCH_EXAMPLES"]
    assert training.data.metrics["epochs"] == 1
    assert training.data.tags["dagster_asset"] == "item_model"
    names = {f"{report} {TRAINED_UNTIL}" for report in ("recall_report", "diversity_report", "context_report")}
    assert names | {f"item {model}" for model in COMPARED} <= set(found[REPORTS])
    arms = {"none", "contextual", "advertiser_lists", "contextual_and_advertiser_lists"}
    assert {f"marketplace_report {TRAINED_UNTIL}", *arms} <= set(found[MARKET])
    assert {"market.related_pins.survival_rate", "market.related_pins.roas"} <= set(
        set.intersection(*(set(found[MARKET][arm].data.metrics) for arm in arms - {"none"}))
    )
    assert set(found[DAILY]) == {f"daily_recall {day}" for day in DAYS}


def test_the_champion_is_registered_with_a_signature_and_answers(ran: Ran) -> None:
    """In a process of its own: where nothing of adseq has been set up but the tracking address."""
    script = """
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/adseq_item_model@champion")
events = pd.DataFrame({
    "user_id": ["a", "a", "b"], "item_id": ["i00001", "i00002", "never seen"],
    "advertiser_id": ["x", "x", None], "event_name": ["page_visit", "add_to_cart", "checkout"],
    "event_time": [1.7e9, 1.7e9 + 60, 1.7e9]})
print(model.metadata.signature.inputs.input_names(), model.metadata.signature.outputs.input_names())
answer = model.predict(events)
finite = [all(abs(value) < 10 for value in row) and any(row) for row in answer["embedding"]]
times = [pd.to_datetime(events["event_time"], unit="s"), events["event_time"].astype(int)]
times += [times[0].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"), times[0].dt.strftime("%Y-%m-%dT%H:%M:%SZ")]
others = [model.predict(events.assign(event_time=time)) for time in times]
assert all(other["embedding"].tolist() == answer["embedding"].tolist() for other in others)
assert len(model.predict(events.drop(columns="advertiser_id"))) == 2
assert len(model.predict(model.input_example))
print(answer["user_id"].tolist(), [len(row) for row in answer["embedding"]], finite)
"""
    tracking = Tracking(ran.home.tracking_uri, ran.home.artifacts)
    version = tracking.client.get_model_version_by_alias(ITEM_MODEL, CHAMPION)
    done = processes.run(script, environment={**environment(ran.home), "MLFLOW_TRACKING_URI": ran.home.tracking_uri})
    assert done.returncode == 0, done.stderr[-4000:]
    *_, signature, answer = done.stdout.splitlines()
    assert signature == ("['user_id', 'item_id', 'advertiser_id', 'event_name', 'event_time'] ['user_id', 'embedding']")
    # The learned part of 16, graph content of 16 and given content of 32, category and advertiser of 48 each, and the
    # popularity part of 4.
    assert answer == "['a', 'b'] [292, 292] [True, True]"
    assert str(version.version) == "1"
    for name in (ITEM_MODEL, ADVERTISER_MODEL, RELEVANCE_MODEL):
        model = tracking.client.get_registered_model(name)
        assert CHAMPION in model.aliases
        assert "champion" in model.description


def test_the_closing_table_has_every_model_and_the_oracle(ran: Ran) -> None:
    for model in (*COMPARED, ModelName.oracle):
        label = f"{model.label} ★" if model is ModelName.contextual else model.label
        row = re.search(rf"│ {re.escape(label)} +│ +(0\.\d{{4}}) │ +(0\.\d{{4}}) │ +(0\.\d{{4}}) │", ran.printed)
        assert row, f"no full row of {label} in {ran.printed}"
    shown = re.search(r"│ contextual ★ +│ +(\S+) │ +(\S+) │ +(\S+) │", ran.printed)
    assert shown
    assert float(shown[1]) == pytest.approx(metric(ran, "recall", "contextual", "recall@10"), abs=1e-4)
    assert float(shown[2]) == pytest.approx(metric(ran, "recall", "contextual", "recall@100"), abs=1e-4)
    assert float(shown[3]) == pytest.approx(metric(ran, "diversity", "contextual", "diversity90"), abs=1e-4)


@pytest.mark.parametrize("k", [10, 100])
def test_the_reported_recall_is_that_of_the_stored_lists(
    ran: Ran, comparison: Comparison, lists: dict[ModelName, RankedLists], k: int
) -> None:
    assert list(lists) == [*COMPARED, ModelName.oracle]
    for model, ranked in lists.items():
        hits, counts = hits_and_counts(comparison, ranked, k)
        assert metric(ran, "recall", model.value, f"recall@{k}") == pytest.approx(hits.sum() / counts.sum()), model


def test_the_reported_share_of_slots_never_engaged_with_is_that_of_the_stored_lists(
    ran: Ran, comparison: Comparison, lists: dict[ModelName, RankedLists]
) -> None:
    events = ran.tables.scan("events").filter(pl.col("event_time").dt.epoch("s") < comparison.cutoff).collect()
    never = ~comparison.item_ids.is_in(events["item_id"].drop_nulls().implode()).to_numpy()
    asked = np.flatnonzero(comparison.asked.queries.positives.counts)
    for model, ranked in lists.items():
        slots = ranked.items[asked, :100]
        share = never[slots[slots >= 0]].mean()
        assert metric(ran, "diversity", model.value, "never_engaged@100") == pytest.approx(share), model


@pytest.mark.parametrize("k", [10, 100])
def test_no_model_beats_the_oracle(comparison: Comparison, lists: dict[ModelName, RankedLists], k: int) -> None:
    """By more than two standard errors (linearised ratio of hits to positives, over users)."""
    best, counts = hits_and_counts(comparison, lists[ModelName.oracle], k)
    for model in COMPARED:
        hits, _ = hits_and_counts(comparison, lists[model], k)
        lead = (hits - best).sum() / counts.sum()
        error = np.sqrt(((hits - best - lead * counts) ** 2).sum()) / counts.sum()
        assert lead <= 2 * error, f"{model} leads by {lead:.4f}, standard error {error:.4f}"
    popular, _ = hits_and_counts(comparison, lists[ModelName.popularity], k)
    assert best.sum() > 1.5 * popular.sum()  # the oracle does know something


def test_the_context_report_compares_with_and_without(ran: Ran) -> None:
    rows = [
        row
        for row in rows_of_frame(ran.tables.read("model_metrics", {"report": "context"}))
        if row.segment is Segment.surface
    ]
    models = {"contextual", "contextual_without_context", "rule", "parts", "sequential", "oracle"}
    for surface in ("related_pins", "search"):
        assert {row.model for row in rows if row.group == surface} >= models, surface
    assert {row.group for row in rows} == {"related_pins", "search"}
    relevance = {row.model: row.value for row in rows if row.metric == "true_relevance@10" and row.group != "search"}
    assert all(value is not None and 0 <= value <= 1 for value in relevance.values())
    with_context, without = (
        metric(ran, "context", model, "recall@10") for model in ("contextual", "contextual_without_context")
    )
    assert metric(ran, "context", "contextual", "lift@10") == pytest.approx(with_context / without)
    # Both models know no subject there, and are one network.
    appended, sequential = (
        metric(ran, "context", model, "recall@100", "search") for model in ("sequential_appended", "sequential")
    )
    assert appended == sequential


def test_no_model_beats_the_contextual_oracle(ran: Ran) -> None:
    oracle = metric(ran, "context", "oracle", "recall@10")
    assert all(metric(ran, "context", model.value, "recall@10") < oracle for model in COMPARED)


def test_segments_add_up_to_all_queries(ran: Ran, comparison: Comparison) -> None:
    """Weighed by their positives, which the world gives to every country and content type."""
    rows = rows_of_frame(ran.tables.read("model_metrics", {"report": "recall"}))
    for segment in (Segment.country, Segment.content_type, Segment.conversion, Segment.history_length):
        recall = [row.value or 0.0 for row in rows if row.segment is segment and row.model == "rule"]
        assert len(recall) > 1, segment
        assert min(recall) <= metric(ran, "recall", "rule", "recall@100") <= max(recall), segment


def test_the_summary_as_json_has_every_headline_under_a_documented_name(ran: Ran) -> None:
    figures = summary_figures(ran.home)
    surfaces = ("related_pins", "search")
    assert {
        *(f"item.{model}.{metric}" for model in COMPARED for metric in ("recall@10", "recall@100", "diversity90")),
        *(f"item.{model}.recall@10.{bound}" for model in COMPARED for bound in ("low", "high")),
        *(
            f"context.{surface}.{model}.recall@10"
            for surface in surfaces
            for model in ("rule", "parts", "sequential", "contextual", "withheld", "oracle")
        ),
        *(f"context.{surface}.lift@10" for surface in surfaces),
        *(f"context.related_pins.lift@10{bound}" for bound in (".low", ".high")),
        *(f"market.related_pins.{source}.share_of_impressions" for source in ("category_match", "profile", "popular")),
        *(
            f"market.{surface}.{arm}.{metric}"
            for surface in surfaces
            for arm in (
                "rule",
                "sequential",
                "contextual",
                "advertiser_lists",
                "contextual_and_advertiser_lists",
                "oracle",
            )
            for metric in ("survival_rate", "delivered", "share_of_impressions", "median_true_relevance", "roas")
        ),
        *(
            f"market.related_pins.{figure}{bound}"
            for figure in ("delivered_ratio", "survival_ratio", "relevance_ratio", "roas_lift")
            for bound in ("", ".low", ".high")
        ),
        "market.related_pins.contextual.clicks.self_normalised",
        "advertiser.advertiser_model.recall@10",
        *(
            f"relevance.{figure}{bound}"
            for figure in ("disagreement", "holdout_gap")
            for bound in ("", ".low", ".high")
        ),
        *(f"relevance.aa.{figure}" for figure in ("within_1_percent", "smallest_detectable_change")),
        *(f"relevance.{surface}.fraction_relevant.retrieved" for surface in ("related_pins", "search")),
        *(f"daily.{day}.recall@10" for day in DAYS),
        "run.seconds",
    } <= set(figures)
    assert figures["item.rule.recall@10"] == metric(ran, "recall", "rule", "recall@10")
    assert figures["item.contextual.recall@10.less.rule"] == pytest.approx(
        figures["item.contextual.recall@10"] - figures["item.rule.recall@10"]
    )
    documented = (PROJECT / "docs" / "metrics.md").read_text()
    patterns = [
        re.compile(
            re.sub(r"<[^>]+>", "[^.]+", re.escape(name).replace(re.escape("<"), "<").replace(re.escape(">"), ">"))
        )
        for name in re.findall(r"^\| `([^`]+)`", documented, re.MULTILINE)
    ]
    unknown = [name for name in figures if not any(pattern.fullmatch(_unbounded(name)) for pattern in patterns)]
    assert not unknown


def _unbounded(name: str) -> str:
    return name.removesuffix(".low").removesuffix(".high")


@pytest.mark.parametrize("report", ["recall", "diversity", "context", "marketplace", "advertiser_recall"])
def test_the_table_of_a_report_and_its_runs_hold_the_same_figures(ran: Ran, report: str) -> None:
    tracking = Tracking(ran.home.tracking_uri, ran.home.artifacts)
    experiment = tracking.experiment(MARKET if report == "marketplace" else REPORTS)
    runs = {run.info.run_id: run for run in tracking.client.search_runs([experiment])}
    (of_report,) = [run for run in runs.values() if run.info.run_name == f"{report}_report {TRAINED_UNTIL}"]
    logged = {
        run.data.tags["model"]: run.data.metrics
        for run in runs.values()
        if run.data.tags.get("mlflow.parentRunId") == of_report.info.run_id
    }
    for row in rows_of_frame(ran.tables.read("model_metrics", {"report": report})):
        name = mlflow_name(row.name(PROTOCOLS[report]))
        for end, value in {"": row.value, **row.bounds}.items():
            if value is not None:
                assert logged[row.model][f"{name}{end}"] == pytest.approx(value, nan_ok=True)
