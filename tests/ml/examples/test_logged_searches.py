"""Logged searches as examples: which there are, what context they are learnt in, and that a model learns the words."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.evaluation.contextual_requests import context_evaluation
from ml.evaluation.intervals import confidence_interval
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import newest_window
from ml.examples.context import NO_SUBJECT
from ml.examples.logged_requests import SHOWN, request_examples, shown_in_context
from ml.examples.named_interests import search_context
from ml.examples.period import (
    TrainingPeriod,
    cross_fitted,
    examples_of_frame,
    examples_to_frame,
    prepare,
    prepare_examples,
    training_searches,
    with_contexts,
    with_logged_requests,
)
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from settings import ContextRecipe, Settings
from tests.ml.worlds import instant, planted_period, small_settings

WORDS = ("Azure", "Crimson")
# request, user, day, subject, query, shown item
Request = tuple[str, str, float, str | None, str | None, str]
SCHEMA = pl.Schema(
    {
        "request_id": pl.String(),
        "user_id": pl.String(),
        "request_time": pl.Datetime("us", "UTC"),
        "subject_item_id": pl.String(),
        "query": pl.String(),
        "item_id": pl.String(),
    }
)


def shown(requests: list[Request]) -> pl.DataFrame:
    rows = [(*row[:2], datetime.fromtimestamp(instant(row[2]), UTC), *row[3:]) for row in requests]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
        surface=pl.when(pl.col("query").is_null()).then(pl.lit("related_pins")).otherwise(pl.lit("search")),
        stage=pl.lit("impressed"),
    )


def titled_period() -> TrainingPeriod:
    """Every second item of a kind has the one word in its title, the other items have the other word."""
    period = planted_period()
    titles = [f"{WORDS[number % 2]} thing {number // 20}" for number in range(len(period.items))]
    return dataclasses.replace(period, items=period.items.with_columns(title=pl.Series(titles)))


@pytest.fixture(scope="module")
def asked() -> TrainingPeriod:
    """Whoever types a word is shown items of that word, of any kind."""
    period, random = titled_period(), np.random.default_rng(1)
    rows: list[Request] = []
    for number in range(1500):
        word = int(random.integers(2))
        day, user = float(random.uniform(20, 100)), f"u{random.integers(240):03d}"
        items = random.permutation(120)[:3] * 2 + word
        rows += [(f"r{number:04d}", user, day, None, WORDS[word].lower(), f"i{item:03d}") for item in items]
    return dataclasses.replace(period, requests=shown_in_context(shown(rows).lazy()).collect())


def settings_of(**groups: dict[str, object]) -> Settings:
    return small_settings(
        **{"features": {"text_dimensions": 4, "content_dimensions": 8, "category_buckets": 128}} | groups
    )


def test_a_query_counts_where_there_is_no_subject(asked: TrainingPeriod) -> None:
    rows: list[Request] = [
        ("r1", "u000", 50.0, None, "azure", "i001"),
        ("r2", "u001", 50.0, "i002", "azure", "i001"),
        ("r3", "u002", 50.0, "gone", "azure", "i001"),
    ]
    requests = shown_in_context(shown(rows).lazy()).collect()
    dataset = prepare_examples(asked, settings_of()).dataset
    found = request_examples(requests, dataset, asked.end, step_days=7, maximum=10, seed=0)
    assert found.query.to_list() == ["azure", None]
    assert found.subject.tolist() == [NO_SUBJECT, 2]


def test_searches_are_learnt_beside_the_conversions(asked: TrainingPeriod) -> None:
    settings = settings_of()
    learnt = with_contexts(prepare_examples(asked, settings), asked, settings)
    logged = learnt.examples.name == SHOWN
    assert logged.mean() == pytest.approx(0.33, abs=0.01)
    assert learnt.queries is not None
    assert np.array_equal(learnt.queries.is_not_null().to_numpy(), logged)
    assert (learnt.subjects[logged] == NO_SUBJECT).all()
    assert (learnt.subjects[~logged] >= 0).mean() > 0.5  # no request stands beside an item: these are synthetic
    word = np.array([WORDS.index(query.title()) for query in learnt.queries.filter(pl.Series(logged))])
    assert np.array_equal(learnt.examples.item[logged] % 2, word)
    frame = examples_to_frame(learnt, asked.event_names)
    again = examples_of_frame(asked, frame.sample(fraction=1, shuffle=True, seed=0), settings)
    by = [name for name in frame.columns if name != "cutoff"]
    assert frame.select(by).sort(by).equals(examples_to_frame(again, asked.event_names).select(by).sort(by))


def test_the_sequential_model_learns_no_search(asked: TrainingPeriod) -> None:
    settings = settings_of(context={"recipe": ContextRecipe.none})
    learnt = with_contexts(prepare_examples(asked, settings), asked, settings)
    assert (learnt.examples.name != SHOWN).all()
    assert training_searches(learnt, asked, settings) is None


@pytest.mark.parametrize(
    ("beside", "searches", "kept"),
    [
        (8, 0, {"related_pins"}),
        (7, 0, set()),
        (0, 8, {"search"}),
        (4, 4, {"search"}),
        (8, 1, {"related_pins", "search"}),
    ],
)
def test_few_requests_beside_an_item_are_not_learnt_and_few_searches_only_beside_these(
    beside: int, searches: int, kept: set[str]
) -> None:
    period = titled_period()
    rows: list[Request] = [(f"b{number}", "u000", 50.0, "i002", None, "i001") for number in range(beside)]
    rows += [(f"s{number}", "u000", 50.0, None, "azure", "i001") for number in range(searches)]
    requests = shown_in_context(shown(rows).lazy()).collect()
    found = with_logged_requests(period, requests, settings_of(context={"minimum_requests": 8})).requests
    assert (set() if found is None else set(found["surface"])) == kept


def test_a_search_is_learnt_under_the_content_of_its_fold(asked: TrainingPeriod) -> None:
    """The batches show the context that the service would make, but under the fold's content."""
    settings = settings_of(context={"dropout": 0.0}, features={"text_dimensions": 4, "cross_fit_folds": 2})
    prepared = cross_fitted(with_contexts(prepare_examples(asked, settings), asked, settings), asked, settings)
    task = ItemTask.of(asked, prepared, settings)
    assert task.searches is not None
    assert prepared.queries is not None
    dataset, items = prepared.dataset, asked.items.sort("item_id")
    inputs = task.batches().features
    for cell in task.batches().cells[:4]:
        rows = cell.rows[prepared.queries.gather(cell.rows).is_not_null().to_numpy()]
        content = prepared.folds.content[cell.fold]
        expected = search_context(
            prepared.queries.gather(rows),
            items,
            dataclasses.replace(dataset.features, content=content),
            basis=dataset.basis,
            buckets=settings.features.category_buckets,
        )
        found = inputs.context_of(cell, rows, np.random.default_rng(0))
        assert found is not None
        assert expected.topics is not None
        np.testing.assert_allclose(found.content.numpy(), expected.topics.content, atol=1e-6)
        assert found.present.all()


@pytest.mark.slow
def test_a_model_learns_what_is_shown_for_a_word(asked: TrainingPeriod, tmp_path: Path) -> None:
    """A word names no category, so a model without the words of titles cannot tell the queries apart."""
    earlier, found = asked.until(asked.end - asked.window), {}
    for dimensions in (4, 0):
        settings = settings_of(
            features={"text_dimensions": dimensions, "content_dimensions": 8, "category_buckets": 128}
        )
        prepared = prepare(earlier, settings)
        network = fit(ItemTask.of(earlier, prepared, settings), 4, tmp_path / str(dimensions)).network
        known, features = newest_window(asked, prepared.dataset, settings), settings.features
        searches = context_evaluation(known, asked, asked.requests, features=features, maximum=300, seed=0)
        assert searches is not None
        lists = trained_lists(network, searches.asked, settings, 20)
        word = searches.asked.queries.candidates[lists.items] % 2
        typed = np.array([WORDS.index(query.title()) for query in searches.requests["query"]])
        found[dimensions] = float((word == typed[:, None]).mean())
        assert confidence_interval(lists, searches.asked.queries.positives, 20, samples=0).estimate > 0
    assert found[4] > 0.95
    assert found[0] < 0.7
