"""Days of relevance in a home: a lost feature warns on its day, a biased rater is named, and the report draws both."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.rater_agreement import RATER_AGREEMENT, measure_raters
from assets.steps.relevance_metrics import RelevanceReport, metrics_by_day, metrics_of_day
from assets.steps.relevance_monitoring import RELEVANCE_MONITORING, sampled_requests, watch_relevance
from assets.steps.relevance_report import RELEVANCE_WEEKS, funnel_of, measure_week, measured_models, model_rows, seasons
from assets.steps.relevance_scrape import GAP, gap_picture, scrape_rows
from assets.steps.relevance_versions import record_version
from assets.steps.score_candidates import SCORED_CANDIDATES, scored_on
from ml.relevance.candidates import CANDIDATES
from ml.relevance.model_report import MEASURES
from ml.relevance.pair_features import FEATURE_NAMES
from ml.relevance.scrape import FRACTION, NDCG, Scrape
from settings import Settings
from warehouse.contracts import LandingTable

FIRST = date(2026, 3, 1)
LOST = FEATURE_NAMES.index("text")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Settings(home=tmp_path))


def candidates(day: int, lost: float = 0.0) -> pl.DataFrame:
    """Logged candidates of a search day; ``lost`` is the share that has lost the feature ``text``."""
    generator, number = np.random.default_rng(day), 2000
    values = generator.normal(0, 1, (number, len(FEATURE_NAMES)))
    score = 1 / (1 + np.exp(-values[:, 0]))
    values[generator.random(number) < lost, LOST] = np.nan
    return pl.DataFrame(
        {
            "log": "impressions",
            "request_id": [f"{day}-{row // 10}" for row in range(number)],
            "surface": "search",
            "subject_item_id": None,
            "query": "lamp",
            "item_id": [f"i{row % 300}" for row in range(number)],
            "content_type": "shopping",
            "category": "Home",
            "source": "legacy",
            "stage": np.where(score < 0.3, "trimmed", "ranked"),
            "arm": "production",
            "inclusion_probability": 1.0,
            "trim_score": score,
            "relevance": score,
            "relevance_version": "relevance-1",
            "features": pl.Series(values.tolist()).list.eval(pl.element().fill_nan(None)),
        }
    ).cast(CANDIDATES)


def test_a_lost_feature_warns_on_its_day(workspace: Workspace) -> None:
    for number in range(6):
        day = FIRST + timedelta(days=number)
        workspace.tables.write(SCORED_CANDIDATES, candidates(number, 0.3 if number == 5 else 0.0), {"day": day})
        found = watch_relevance(workspace, day)
        if number < 5:
            assert not any(found.warnings.values())
    assert [len(found.warnings[name]) for name in ("coverage", "stability", "trim_rate")] == [1, 0, 0]
    assert "search, shopping, relevance-1: the feature text is known of" in found.warnings["coverage"][0]
    assert set(found.pictures) == {"coverage", "trim_rate"}
    assert workspace.tables.days(RELEVANCE_MONITORING, "day") == [FIRST + timedelta(days=each) for each in range(6)]
    by_day = metrics_by_day(workspace.tables, RelevanceReport.monitoring, FIRST + timedelta(days=5))
    assert by_day.filter(metric="warnings")["value"].to_list() == [0, 0, 0, 0, 0, 1]
    again = watch_relevance(workspace, FIRST + timedelta(days=5))
    assert again.table.equals(found.table)  # a day that runs again finds the same


def test_days_whose_features_retention_has_removed_are_no_measure(workspace: Workspace) -> None:
    for number in range(6):
        rows = candidates(number)
        if number < 4:
            rows = rows.with_columns(features=pl.lit(None, rows.schema["features"]))
        workspace.tables.write(SCORED_CANDIDATES, rows, {"day": FIRST + timedelta(days=number)})
    found = watch_relevance(workspace, FIRST + timedelta(days=5))
    assert not any(found.warnings.values())
    assert found.table.filter(figure="coverage", feature="text")["reference"].to_list() == [1.0]
    assert watch_relevance(workspace, FIRST + timedelta(days=3)).table.is_empty()


def test_a_biased_rater_is_named_and_old_labels_do_not_count(workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    label = np.clip(np.rint(generator.uniform(1, 5, (400, 1)) + generator.normal(0, 0.4, (400, 3))), 1, 5).astype(int)
    label[:, 2] = np.clip(label[:, 2] + 1, 1, 5)
    labels = pl.DataFrame(
        {
            "surface": "search",
            "subject_item_id": pl.Series([None] * 1200, dtype=pl.String),
            "query": "lamp",
            "item_id": [f"i{pair}" for pair in range(400) for _ in range(3)],
            "rater_id": ["ann", "bob", "eve"] * 400,
            "label": pl.Series(label.ravel(), dtype=pl.Int32),
            "template": "guidelines-1",
            "labelled_at": datetime(2026, 3, 1, tzinfo=UTC),
            "stage": None,
            "inclusion_probability": None,
        },
        schema_overrides={"stage": pl.String, "inclusion_probability": pl.Float64},
    ).with_columns(pl.col("labelled_at").cast(pl.Datetime("us", "UTC")))
    workspace.tables.write(LandingTable.relevance_labels.value, labels, {"arrival_date": FIRST})
    found = measure_raters(workspace, FIRST)
    assert found.pairs == 400
    assert found.raters["rater_id"][0] == "eve"
    assert "eve" in found.biased
    figures = {(row.segment, row.group, row.metric): row for row in metrics_of_day(workspace.tables, FIRST)}
    disagreement = figures["all", "", "disagreement"]
    assert disagreement.value == figures["surface", "search", "disagreement"].value
    assert figures["all", "", "rated_pairs"].value == 400
    later = FIRST + timedelta(days=workspace.settings.relevance.label_days)
    assert measure_raters(workspace, later).pairs == 0
    assert workspace.tables.read(RATER_AGREEMENT, {"day": later}).is_empty()
    assert metrics_of_day(workspace.tables, later) == []


def test_the_figures_of_a_scrape_are_of_all_and_of_each_surface() -> None:
    generator = np.random.default_rng(0)
    probes = pl.DataFrame({"surface": ["search", "related_pins"] * 50, "stratum": ["a", "b"] * 50, "weight": 0.01})
    holdout = generator.uniform(0.3, 0.5, 100)

    def arm(values: np.ndarray) -> pl.DataFrame:
        return pl.DataFrame({FRACTION: values, NDCG: values, "judge": "truth"})

    rows = scrape_rows(Scrape(probes, arm(1.2 * holdout), arm(holdout)), seed=0)
    figures = {(row.segment, row.group, row.metric): row.value for row in rows}
    for segment, group in (("all", ""), ("surface", "search"), ("surface", "related_pins")):
        assert figures[segment, group, GAP] == pytest.approx(0.2)
    assert figures["all", "", "probes"] == 100
    assert figures["all", "", "judged_by.truth"] == 1.0
    assert figures["all", "", "aa.power_at_3_percent"] is not None
    equal = {row.metric: row.value for row in scrape_rows(Scrape(probes, arm(holdout), arm(holdout)), seed=0)}
    precise = [name for name in equal if "detectable" in name or "power" in name or "without_strata" in name]
    assert len(precise) == 4
    assert {equal[name] for name in precise} == {None}  # two equal arms say nothing of it


def test_a_day_without_candidates_and_labels_has_no_figures(workspace: Workspace) -> None:
    workspace.tables.write(SCORED_CANDIDATES, candidates(0).clear(), {"day": FIRST})
    found = watch_relevance(workspace, FIRST)
    assert found.table.is_empty()
    assert not any(found.warnings.values())
    assert measure_raters(workspace, FIRST).pairs == 0
    assert funnel_of(workspace, FIRST).is_empty()
    assert measure_week(workspace, FIRST).is_empty()
    assert seasons(workspace, FIRST).is_empty()
    assert gap_picture(workspace, FIRST)


def test_a_week_is_measured_once_a_day_and_weighs_what_was_logged(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 4)]  # a Sunday, and two days of the week after
    described, asked = pl.DataFrame({"item_id": ["i0", "i1"], "category": ["Home > Lamps", "Home"]}), list[date]()

    def items_as_of(_: Workspace, day: date) -> pl.DataFrame:
        asked.append(day)
        return described

    monkeypatch.setattr(Workspace, "items_as_of", items_as_of)
    for number, day in enumerate(days):
        shown = (
            candidates(0)
            .head(2)
            .with_columns(
                stage=pl.Series(["impressed", "clicked"]),
                request_id=pl.lit(str(number)),
                trim_score=pl.Series([0.0, 1.0]) if number else pl.lit(0.5),
                inclusion_probability=pl.Series([1.0, 0.25]),
            )
        )
        dropped = shown.with_columns(stage=pl.lit("trimmed"), trim_score=pl.lit(1.0))
        workspace.tables.write(SCORED_CANDIDATES, pl.concat([shown, dropped]), {"day": day})
        measure_week(workspace, day)
    assert asked == days  # the catalogue of the day, and of no day before
    home = {"category": "Home", "inventory": 2}
    both = [
        {"week": date(2026, 2, 23), "fraction": 0.5, **home},
        {"week": date(2026, 3, 2), "fraction": 0.8, **home},  # a request that is logged with .25 counts four times
    ]
    assert seasons(workspace, days[-1]).to_dicts() == [pytest.approx(each) for each in both]
    assert seasons(workspace, days[0])["week"].to_list() == [date(2026, 2, 23)]
    assert len(seasons(workspace, days[1])) == 2
    before = seasons(workspace, days[-1])
    measure_week(workspace, days[1])  # a day that runs again hides no later day
    assert seasons(workspace, days[-1]).equals(before)
    assert workspace.tables.days(RELEVANCE_WEEKS, "day") == days


def test_a_sample_of_requests_stands_for_all(workspace: Workspace) -> None:
    for number in range(3):
        day = FIRST + timedelta(days=number)
        logged = [candidates(number), candidates(number).head(200).with_columns(log=pl.lit("funnel_sample"))]
        workspace.tables.write(SCORED_CANDIDATES, pl.concat(logged), {"day": day})
    scored = scored_on(workspace.tables, FIRST, FIRST + timedelta(days=2))
    assert sampled_requests(scored, most=200).height == 6600
    found = sampled_requests(scored, most=100)
    assert found.equals(sampled_requests(scored, most=100))
    whole, few = (found.filter(log=log) for log in ("funnel_sample", "impressions"))
    assert len(whole) == 600  # twenty requests a day
    assert set(few.group_by("day", "request_id").len()["len"]) == {10}
    assert 150 < few["request_id"].n_unique() < 450  # of 200 a day, about 100
    assert (1 / few["inclusion_probability"]).sum() == pytest.approx(6000, rel=0.3)
    assert set(whole["inclusion_probability"]) == {1.0}


def test_candidates_of_before_the_logs_had_names_are_impressions(workspace: Workspace) -> None:
    workspace.tables.write(SCORED_CANDIDATES, candidates(0).drop("log"), {"day": FIRST})
    assert set(scored_on(workspace.tables, FIRST, FIRST).collect()["log"]) == {"impressions"}
    workspace.tables.write(SCORED_CANDIDATES, candidates(1), {"day": FIRST + timedelta(days=1)})
    assert set(scored_on(workspace.tables, FIRST, FIRST + timedelta(days=1)).collect()["log"]) == {"impressions"}
    assert not any(watch_relevance(workspace, FIRST + timedelta(days=1)).warnings.values())


def test_the_figures_are_those_of_the_model_in_use_whatever_the_gate_has_said(workspace: Workspace) -> None:
    error = {"new": 0.3, "old": 0.1, "folds": 0.2}
    for number, passed in enumerate([True, False, True]):
        day = FIRST + timedelta(days=number)
        models = ["new", *(["old"] if number else []), *(["folds"] if passed else [])]
        rows = pl.DataFrame(
            {"model": models, "segment": "all", "group": "all", "calibration_error": [error[name] for name in models]}
        )
        absent = [pl.lit(None, kind).alias(name) for name, kind in MEASURES.items() if name not in rows.columns]
        measures = rows.with_columns(absent).select(MEASURES.names()).cast(MEASURES)
        workspace.tables.write("relevance_measures", measures, {"day": day})
        record_version(workspace, day, trained_until=number, passed=passed, reason="")
    reported = []
    for number in range(4):  # on the last day nothing was trained
        found, in_use = measured_models(workspace, FIRST + timedelta(days=number))
        reported.append({row.metric: row.value for row in model_rows(found, in_use=in_use)}["ece"])
    assert reported == [error["folds"], error["old"], error["folds"], error["folds"]]
    found, in_use = measured_models(workspace, FIRST - timedelta(days=1))
    assert model_rows(found, in_use=in_use) == []
