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
from assets.steps.relevance_monitoring import RELEVANCE_MONITORING, watch_relevance
from assets.steps.relevance_report import funnel_of, inventory_by_week
from assets.steps.relevance_scrape import GAP, gap_picture, scrape_rows
from assets.steps.score_candidates import SCORED_CANDIDATES
from ml.relevance.candidates import CANDIDATES
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


def test_a_day_without_candidates_and_labels_has_no_figures(workspace: Workspace) -> None:
    workspace.tables.write(SCORED_CANDIDATES, candidates(0).clear(), {"day": FIRST})
    found = watch_relevance(workspace, FIRST)
    assert found.table.is_empty()
    assert not any(found.warnings.values())
    assert measure_raters(workspace, FIRST).pairs == 0
    assert funnel_of(workspace, FIRST).is_empty()
    assert inventory_by_week(workspace, FIRST).is_empty()
    assert gap_picture(workspace, FIRST)
