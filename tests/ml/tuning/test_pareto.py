"""The Pareto front on hand-worked points, and a sweep on a small world from one preparation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ml.tuning.alpha_sweep
from ml.examples.period import Prepared, TrainingPeriod
from ml.figures.style import png
from ml.models.item_model import TwoTower
from ml.training.fit import Fit, fit
from ml.training.item_task import ItemTask
from ml.tuning.alpha_sweep import sweep_alphas, variants
from ml.tuning.pareto import SweepPoint, most_diverse, on_front, pareto_front, points_frame
from ml.versions.tracking import SWEEPS, Tracking
from tests.ml.worlds import small_settings

POINTS = {
    (5.0, 1.0): True,  # the most of the first
    (4.0, 3.0): True,
    (4.0, 2.0): False,  # a tie in the first, less of the second
    (3.0, 3.0): False,  # a tie in the second, less of the first
    (2.0, 4.0): True,
    (1.0, 4.0): False,
    (1.0, 1.0): False,
    (0.0, 9.0): True,  # the most of the second
}


def test_the_front_of_hand_worked_points_with_ties() -> None:
    assert pareto_front(list(POINTS)) == list(POINTS.values())
    assert pareto_front(list(POINTS)[::-1]) == list(POINTS.values())[::-1]


def test_equal_points_are_on_the_front_together_or_not_at_all() -> None:
    assert pareto_front([(1, 2), (1, 2), (0, 1), (0, 1)]) == [True, True, False, False]
    assert pareto_front([(1, 1)]) == [True]
    assert pareto_front([]) == []


def test_no_point_of_the_front_is_beaten_and_every_other_is() -> None:
    values = np.random.default_rng(0).integers(0, 12, (200, 2))
    points = [(float(first), float(second)) for first, second in values]
    front = pareto_front(points)
    kept = [point for point, chosen in zip(points, front, strict=True) if chosen]
    for point, chosen in zip(points, front, strict=True):
        beaten = any(one[0] >= point[0] and one[1] >= point[1] and one != point for one in kept)
        assert beaten != chosen


def point(recall: float, diversity: float, alpha_negative: float = 1.0) -> SweepPoint:
    return SweepPoint(0.0, alpha_negative, recall / 2, recall, math.nan, diversity, 1.0)


def test_the_best_is_the_most_diverse_within_the_tolerance_of_recall() -> None:
    points = [point(0.200, 0.1), point(0.198, 0.3), point(0.197, 0.3), point(0.191, 0.5)]
    assert most_diverse(points, 0.0) == points[0]
    assert most_diverse(points, 0.02) == points[1]  # .197 is within, too, as diverse, and of less recall
    assert most_diverse(points, 0.05) == points[3]
    for tolerance in (0.0, 0.01, 0.02, 0.05, 1.0):
        assert on_front(points)[points.index(most_diverse(points, tolerance))]
    with pytest.raises(ValueError, match="at least one alpha"):
        most_diverse([], 0.1)


def test_the_table_says_what_is_on_the_front() -> None:
    frame = points_frame([point(0.2, 0.1), point(0.1, 0.05), point(0.1, 0.3)])
    assert frame["on_front"].to_list() == [True, False, True]
    assert frame["diversity90"].to_list() == [0.1, 0.05, 0.3]


def test_a_point_is_labelled_with_its_weights() -> None:
    assert replace(point(0.1, 0.2, 0.75), alpha_positive=0.5).label == "0.5 / 0.75"


def test_the_variants_differ_in_the_two_weights_only() -> None:
    settings = small_settings(sweep={"alphas_positive": [0.0, 0.5], "alphas_negative": [0.25, 1.0]})
    found = list(variants(settings))
    pairs = [(each.training.alpha_positive, each.training.alpha_negative) for each in found]
    assert pairs == [(0.0, 0.25), (0.0, 1.0), (0.5, 0.25), (0.5, 1.0)]
    defaults = settings.training
    for each in found:
        alphas = {"alpha_positive": defaults.alpha_positive, "alpha_negative": defaults.alpha_negative}
        assert each.model_copy(update={"training": each.training.model_copy(update=alphas)}) == settings


@pytest.mark.slow
def test_a_sweep_prepares_once_learns_nothing_of_its_window_and_reports_every_point(
    period: TrainingPeriod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Prepared, int]] = []

    def spy(task: ItemTask, epochs: int, *rest: Any, **kept: Any) -> Fit[TwoTower]:
        seen.append((task.prepared, epochs))
        return fit(task, epochs, *rest, **kept)

    monkeypatch.setattr(ml.tuning.alpha_sweep, "fit", spy)
    settings = small_settings(sweep={"alphas_positive": [0.0], "alphas_negative": [0.0, 1.0], "epochs": 2})
    tracking = Tracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    found = sweep_alphas(period, settings, tracking, models=tmp_path / "models", name="test", tags={"tag": "value"})
    assert [(each.alpha_positive, each.alpha_negative) for each in found.points] == [(0.0, 0.0), (0.0, 1.0)]
    assert all(0 < each.recall_at_10 <= each.recall_at_100 <= 1 for each in found.points)
    assert all(0 < each.advertiser_hit_at_10 <= 1 and 0 < each.diversity90 <= 1 for each in found.points)
    assert found.best in found.points
    assert png(found.figure)
    assert list((tmp_path / "models").iterdir()) == []  # no checkpoint stays
    lines = [line.strip() for line in capsys.readouterr().err.splitlines() if "sweep:" in line]
    assert [line[:26] for line in lines] == ["sweep: point 1 of 2, alpha", "sweep: point 2 of 2, alpha"]

    assert [epochs for _, epochs in seen] == [2, 2]
    assert seen[0][0] is seen[1][0]
    assert seen[0][0].dataset.log.seconds.max() < period.end - period.window

    client = tracking.client
    runs = {run.info.run_name: run for run in client.search_runs([tracking.experiment(SWEEPS)])}
    parent = runs.pop("alpha_sweep test")
    assert set(runs) == {"alpha 0 / 0", "alpha 0 / 1"}
    for name, each in zip(["alpha 0 / 0", "alpha 0 / 1"], found.points, strict=True):
        run = runs[name]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert float(run.data.params["training.alpha_negative"]) == each.alpha_negative
        assert run.data.metrics["recall_at_100"] == pytest.approx(each.recall_at_100)
        assert run.data.metrics["diversity90"] == pytest.approx(each.diversity90)
    assert parent.data.metrics["best_alpha_negative"] == found.best.alpha_negative
    artifacts = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"pareto_front.png", "points.csv"}
