"""The relevance model: what it learns, what it keeps on disk, what the gate lets in, and how nDCG is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.features.text import TextBasis
from ml.file_integrity import Unreadable
from ml.relevance.fit_relevance import FittedRelevance, fit_relevance
from ml.relevance.judged_pairs import JudgedPairs
from ml.relevance.model_report import mean_ndcg, measure_model, measure_verdicts
from ml.relevance.nothing_to_tell import NothingToTell
from ml.relevance.pair_features import FEATURE_NAMES
from ml.relevance.relevance_gate import judge_relevance
from ml.relevance.relevance_model import RelevanceModel
from settings import RelevanceSettings

TEXT, GIVEN = FEATURE_NAMES.index("text"), FEATURE_NAMES.index("given_content")
SETTINGS = RelevanceSettings()


def judged(
    places: int = 150, *, seed: int = 0, noise: float = 0.5, without: str | None = None, start: float = 0.0
) -> JudgedPairs:
    """Labels of twelve candidates of each place, by two raters. Half the relevance is in each of two features.

    Args:
        without: content type whose given content is not known.
    """
    random = np.random.default_rng(seed)
    pairs = places * 12
    features = np.full((pairs, len(FEATURE_NAMES)), np.nan, np.float32)
    features[:, TEXT], features[:, GIVEN] = random.random(pairs), random.random(pairs)
    truth = (features[:, TEXT] + features[:, GIVEN]).astype(float) / 2
    types = random.choice(np.array(["shopping", "video"]), pairs)
    features[types == without, GIVEN] = np.nan
    twice = np.repeat(np.arange(pairs), 2)
    label = np.clip(np.rint(1 + 4 * truth[twice] + random.normal(0, noise, len(twice))), 1, 5)
    return JudgedPairs(
        features=features[twice],
        label=label,
        weight=np.ones(len(twice)),
        cell=pl.Series([f"search.{name}" for name in types[twice]]),
        content_type=pl.Series(types[twice].tolist()),
        stage=pl.Series(["ranked"] * len(twice)),
        place=twice // 12,
        pair=twice,
        seconds=start + twice.astype(float),
        truth=truth[twice],
    )


def fitted(labels: JudgedPairs, version: str = "relevance-2026-01-01", until: float = 1e9) -> RelevanceModel:
    return fit(labels, version, until).model


def fit(labels: JudgedPairs, version: str = "relevance-2026-01-01", until: float = 1e9) -> FittedRelevance:
    return fit_relevance(
        labels,
        SETTINGS,
        version=version,
        trained_until=until,
        text=TextBasis.of(pl.Series(["Lamp", "Wok"]), 2, 0),
    )


@pytest.fixture(scope="module")
def model() -> RelevanceModel:
    return fitted(judged())


def test_the_model_ranks_as_the_truth_does_and_means_its_scores(model: RelevanceModel) -> None:
    found = measure_model(model, judged(seed=1))
    assert found.all.ndcg >= 0.97 * found.all.ndcg_ceiling
    assert found.all.calibration_error <= 0.03
    assert set(found.by_cell) == {"search.shopping", "search.video"}
    assert found.by_stage["ranked"].labels == found.all.labels == 3600


def test_the_trim_drops_the_irrelevant_and_keeps_its_promise(model: RelevanceModel) -> None:
    found = measure_model(model, judged(seed=2)).trim
    assert found.irrelevant_trimmed >= 0.8
    assert found.relevant_trimmed <= 1 - SETTINGS.trim_keeps + 0.02


def test_the_verdicts_of_the_folds_are_those_of_a_model_on_labels_that_it_has_not_seen(model: RelevanceModel) -> None:
    known = judged()
    unseen = measure_verdicts(fit(known).unseen, known, relevant_label=SETTINGS.relevant_label)
    others, learnt = measure_model(model, judged(seed=1)), measure_model(model, known)
    assert unseen.all.ndcg == pytest.approx(others.all.ndcg, abs=0.01)
    assert unseen.trim.irrelevant_trimmed == pytest.approx(others.trim.irrelevant_trimmed, abs=0.05)
    assert unseen.all.ndcg < learnt.all.ndcg  # a model knows what it has learnt


def test_a_feature_that_one_content_type_lacks_shows_in_the_curve_of_that_type() -> None:
    whole, bent = (measure_model(fitted(judged()), judged(seed=3, without=lost)) for lost in (None, "video"))
    assert bent.by_content_type["video"].calibration_error > whole.by_content_type["video"].calibration_error + 0.02
    assert bent.by_content_type["video"].ndcg < whole.by_content_type["video"].ndcg - 0.01
    assert bent.by_content_type["shopping"].calibration_error <= 0.03


def test_labels_of_impressions_alone_teach_less_about_candidates_than_labels_of_the_whole_funnel() -> None:
    """What was shown is relevant nearly always, so its labels say little of what the trim has to drop."""
    everything = judged(places=400, seed=8)
    shown = np.flatnonzero(everything.truth > 0.6)
    whole = np.random.default_rng(0).choice(len(everything), len(shown), replace=False)
    unseen = judged(seed=9)
    errors = []
    for rows in (shown, whole):
        scores = fitted(everything.take(rows)).auction.of(unseen.features, unseen.cell)
        errors.append(float(np.sqrt(np.mean((scores - unseen.truth) ** 2))))
    assert errors[0] > 2 * errors[1]


def test_a_model_comes_back_from_disk_as_it_was(model: RelevanceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "2026-01-01")
    again = RelevanceModel.load(tmp_path / "2026-01-01")
    pairs = judged(places=5, seed=4)
    cells = pl.DataFrame({"surface": ["search"] * len(pairs), "content_type": pairs.content_type})
    before, after = model.scores(pairs.features, cells), again.scores(pairs.features, cells)
    np.testing.assert_array_equal(before.trim, after.trim)
    np.testing.assert_array_equal(before.relevance, after.relevance)
    assert (again.version, again.thresholds) == (model.version, model.thresholds)
    np.testing.assert_array_equal(
        again.threshold_of(pl.Series(["video", "poster", None]))[1:], model.thresholds["unknown"]
    )


@pytest.mark.parametrize("name", ["trim.skops", "auction.skops", "text.parquet", "relevance.json", "checksums.json"])
@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_damaged_model_is_refused_with_its_day(model: RelevanceModel, tmp_path: Path, name: str, fault: str) -> None:
    path = tmp_path / "2026-01-01"
    model.save(path)
    if fault == "missing":
        (path / name).unlink()
    else:
        (path / name).write_bytes(b"{}" + (path / name).read_bytes()[2:-1])
    with pytest.raises(Unreadable, match="adseq run --days 2026-01-01 --again"):
        RelevanceModel.load(path)


def test_labels_that_all_say_the_same_teach_nothing() -> None:
    same = judged(places=20)
    with pytest.raises(NothingToTell, match="nothing tells pairs apart"):
        fitted(replace(same, label=np.full(len(same), 5.0)))
    with pytest.raises(NothingToTell, match="about 1 subjects and queries"):
        fitted(judged(places=1))


def test_the_gate_lets_an_equal_model_in_and_a_worse_one_not(model: RelevanceModel) -> None:
    unseen = judged(seed=5, start=2e9)
    level = judge_relevance(
        fitted(judged(seed=6), "relevance-2026-01-02"), model, unseen, seen_by_old=unseen, tolerance=0.01
    )
    assert level.passed
    assert "relevance-2026-01-02 passes" in level.reason
    blind = judged(seed=6)
    blind.features[:, GIVEN] = np.nan
    worse = judge_relevance(fitted(blind), model, unseen, seen_by_old=unseen, tolerance=0.01)
    assert not worse.passed
    assert "does not pass" in worse.reason


def test_the_gate_never_judges_on_labels_that_a_model_has_learnt(model: RelevanceModel) -> None:
    with pytest.raises(ValueError, match="may have learnt it"):
        judge_relevance(model, model, judged(seed=5), seen_by_old=judged(seed=5), tolerance=0.01)
    few = judged(places=2, start=2e9)
    with pytest.raises(ValueError, match="200"):
        judge_relevance(model, model, few, seen_by_old=few, tolerance=0.01)


def test_ndcg_of_three_candidates_worked_by_hand() -> None:
    """Labels 5, 1, 3 ranked second, first, third: gains 15, 0, 3 at places 2, 1, 3, against 15, 3, 0."""
    three = judged(places=1).take(np.array([0, 2, 4]))
    three = replace(three, label=np.array([5.0, 1.0, 3.0]))
    ranked = 15 / np.log2(3) + 3 / np.log2(4)
    ideal = 15 + 3 / np.log2(3)
    assert mean_ndcg(np.array([0.5, 0.9, 0.1]), three) == pytest.approx(ranked / ideal)
    assert mean_ndcg(np.array([0.9, 0.1, 0.5]), three) == pytest.approx(1.0)
    assert np.isnan(mean_ndcg(np.zeros(3), replace(three, label=np.full(3, 2.0))))  # no order to get right


def test_labels_of_items_without_a_content_type_are_measured_as_unknown(model: RelevanceModel) -> None:
    labels = judged(seed=5)
    typed = pl.Series(
        [name if place < 100 else None for name, place in zip(labels.content_type, labels.place, strict=True)]
    )
    found = measure_model(model, replace(labels, content_type=typed))
    assert set(found.by_content_type) == {"shopping", "video", "unknown"}
    assert found.by_content_type["unknown"].labels == typed.null_count()
    assert sum(each.labels for each in found.by_content_type.values()) == len(labels)
