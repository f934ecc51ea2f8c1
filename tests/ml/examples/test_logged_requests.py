"""Logged requests as examples: whose history, beside what, which ads; and that a model learns from them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.evaluation.contextual_requests import context_evaluation
from ml.evaluation.intervals import confidence_interval
from ml.evaluation.model_lists import embeddings_of_states, states_of, trained_lists
from ml.evaluation.queries import EvaluationSet, newest_window
from ml.examples.context import NO_SUBJECT
from ml.examples.logged_requests import SHOWN, request_examples, shown_in_context
from ml.examples.pairs import Examples
from ml.examples.period import (
    Prepared,
    TrainingPeriod,
    cross_fitted,
    examples_of_frame,
    examples_to_frame,
    prepare,
    prepare_examples,
    with_contexts,
    with_logged_requests,
)
from ml.features.dataset import Dataset, build_dataset
from ml.models.item_model import TwoTower
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from settings import ContextRecipe, Objective, Settings
from tests.ml.worlds import (
    EVENT_NAMES,
    Event,
    event_frame,
    instant,
    item_frame,
    planted_period,
    rule,
    small_settings,
    user_frame,
)

Request = tuple[str, str, float, str | None, str]  # request, user, day, subject, shown item
SCHEMA = pl.Schema(
    {
        "request_id": pl.String(),
        "user_id": pl.String(),
        "request_time": pl.Datetime("us", "UTC"),
        "subject_item_id": pl.String(),
        "item_id": pl.String(),
    }
)


def shown(requests: Sequence[Request], stage: str = "impressed") -> pl.DataFrame:
    rows = [
        (request, user, datetime.fromtimestamp(instant(day), UTC), subject, item)
        for request, user, day, subject, item in requests
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
        surface=pl.lit("related_pins"), stage=pl.lit(stage), query=pl.lit(None, pl.String)
    )


def requests_of(*impressions: pl.DataFrame) -> pl.DataFrame:
    return shown_in_context(pl.concat(impressions).lazy()).collect()


# ann buys a on day 1.5 and b on day 3.2, bob visits b on day 2.5.
ROWS: list[Event] = [("ann", 1.5, "checkout", "a"), ("ann", 3.2, "checkout", "b"), ("bob", 2.5, "page_visit", "b")]
SMALL = TrainingPeriod(
    event_frame(ROWS), item_frame(["a", "b", "c"]), user_frame(["ann", "bob"]), instant(10), rule(2.0), EVENT_NAMES
)


def dataset_of(period: TrainingPeriod) -> Dataset:
    return build_dataset(
        period.events,
        period.items,
        period.users,
        settings=small_settings().features,
        event_names=period.event_names,
        seed=0,
    )


def described(requests: pl.DataFrame) -> list[tuple[str, int, float, str, str]]:
    """User, events of the history, cut-off in days, subject and positive of each example."""
    dataset, names = dataset_of(SMALL), "abc"
    found = request_examples(requests, dataset, SMALL.end, step_days=7, maximum=100, seed=0)
    examples, subject = found.examples, found.subject
    assert (examples.name == SHOWN).all()
    return [
        (
            dataset.log.user_ids[int(user)],
            int(end - dataset.log.offsets[user]),
            float(cutoff - instant(0)) / 86_400,
            names[beside],
            names[item],
        )
        for user, end, cutoff, beside, item in zip(
            examples.user, examples.history_end, examples.cutoff, subject, examples.item, strict=True
        )
    ]


def test_a_history_ends_at_the_midnight_before_the_request() -> None:
    requests = requests_of(
        shown([("r1", "ann", 3.9, "a", "c"), ("r2", "ann", 4.1, "a", "c"), ("r3", "bob", 9.5, "b", "a")])
    )
    # The period ends on day 10: requests of the days 3 to 9 share the cut-off at day 3.
    assert described(requests) == [("ann", 1, 3.0, "a", "c"), ("ann", 2, 3.0, "a", "c"), ("bob", 1, 3.0, "b", "a")]


def test_a_request_without_history_subject_or_known_item_makes_no_example() -> None:
    requests = requests_of(
        shown(
            [
                ("r1", "bob", 2.9, "a", "c"),  # bob's first event is on the same day
                ("r2", "eve", 5.0, "a", "c"),
                ("r3", "ann", 5.0, None, "c"),
                ("r4", "ann", 5.0, "a", "x"),
                ("r5", "ann", 5.0, "x", "c"),
                ("r6", "ann", 5.0, "a", "a"),
            ]
        ),
        shown([("r7", "ann", 5.0, "a", "c")], stage="auctioned"),
    )
    assert described(requests) == []


def test_an_item_that_was_shown_twice_in_a_request_is_one_example() -> None:
    requests = requests_of(
        shown([("r1", "ann", 5.0, "a", "c")]), shown([("r1", "ann", 5.0, "a", "c")], stage="clicked")
    )
    assert described(requests) == [("ann", 2, 3.0, "a", "c")]


def test_a_sample_keeps_whole_requests() -> None:
    requests = requests_of(shown([(f"r{number:03d}", "ann", 5.0, "a", item) for number in range(200) for item in "bc"]))
    examples = request_examples(requests, dataset_of(SMALL), SMALL.end, step_days=7, maximum=100, seed=0).examples
    assert len(examples) == 100
    assert np.bincount(examples.item).tolist() == [0, 50, 50]


# Every user buys one kind of items only. But beside an item of any kind, they are shown that kind.


def same_kind(item: str, random: np.random.Generator) -> list[str]:
    kind, own = divmod(int(item[1:]), 20)
    places = [place for place in random.permutation(20) if place != own]
    return [f"i{kind * 20 + place:03d}" for place in places[:3]]


@pytest.fixture(scope="module")
def asked() -> TrainingPeriod:
    period, random = planted_period(), np.random.default_rng(1)
    ids = period.items["item_id"].to_list()
    rows: list[Request] = []
    for number in range(1500):
        subject = str(random.choice(ids))
        user = f"u{random.integers(240):03d}"
        day = float(random.uniform(20, 100))
        rows += [(f"r{number:04d}", user, day, subject, item) for item in same_kind(subject, random)]
    return dataclasses.replace(period, requests=requests_of(shown(rows)))


def contexts(period: TrainingPeriod, settings: Settings) -> Prepared:
    return with_contexts(prepare_examples(period, settings), period, settings)


def test_logged_requests_replace_synthetic_contexts(asked: TrainingPeriod) -> None:
    learnt = contexts(asked, small_settings())
    logged = learnt.examples.name == SHOWN
    assert logged.mean() == pytest.approx(0.33, abs=0.01)
    assert (learnt.subjects[logged] >= 0).all()
    assert (learnt.subjects[~logged] == NO_SUBJECT).all()

    synthetic = contexts(dataclasses.replace(asked, requests=None), small_settings())
    assert (synthetic.examples.name != SHOWN).all()
    assert (synthetic.subjects >= 0).mean() > 0.5
    assert len(synthetic.examples) == (~logged).sum()


def learnt_requests(requests: pl.DataFrame, **context: int) -> list[str] | None:
    """The requests that are learnt of SMALL's, which ends on day 10 and whose two newest windows begin on day 6."""
    found = with_logged_requests(SMALL, requests, small_settings(context=context)).requests
    return None if found is None else found["request_id"].to_list()


def test_only_requests_that_teach_something_count() -> None:
    usable: list[Request] = [("r1", "ann", 4.0, "a", "c"), ("r2", "bob", 5.0, "b", "a")]
    useless: list[Request] = [
        ("r3", "eve", 4.0, "a", "c"),  # a stranger
        ("r4", "bob", 2.4, "a", "c"),  # before bob's first event
        ("r5", "ann", 4.0, "x", "c"),  # no such subject
        ("r6", "ann", 4.0, "a", "x"),
    ]
    late: list[Request] = [("r7", "ann", 6.5, "a", "c")]
    assert learnt_requests(requests_of(shown([*usable, *useless, *late])), minimum_requests=2) == ["r1", "r2", "r7"]
    assert learnt_requests(requests_of(shown([*usable, *useless, *late])), minimum_requests=3) is None


def test_requests_older_than_the_span_of_the_examples_are_not_learnt() -> None:
    requests = requests_of(shown([("r1", "ann", 2.0, "a", "c"), ("r2", "ann", 5.5, "a", "c")]))
    settings = small_settings(context={"minimum_requests": 1}, examples={"span_days": 7})
    found = with_logged_requests(SMALL, requests, settings).requests
    assert found is not None
    assert found["request_id"].to_list() == ["r2"]


def test_all_fits_of_a_training_learn_contexts_in_the_same_way(asked: TrainingPeriod) -> None:
    """A trial of a search knows two windows less than the model to deploy, and fewer requests."""
    assert asked.requests is not None
    usable = with_logged_requests(asked, asked.requests, small_settings(context={"minimum_requests": 1})).requests
    assert usable is not None
    held_back_from = datetime.fromtimestamp(asked.end - 2 * asked.window, UTC)
    count = usable.filter(pl.col("request_time") < held_back_from)["request_id"].n_unique()
    for minimum, learns in ((count, True), (count + 1, False)):
        settings = small_settings(context={"minimum_requests": minimum})
        period = with_logged_requests(asked, asked.requests, settings)
        for windows in range(3):
            found = contexts(period.until(period.end - windows * period.window), settings)
            assert (found.examples.name == SHOWN).any() == learns


def counted(examples: Examples) -> Counter[tuple[int, int, int]]:
    return Counter(zip(examples.user.tolist(), examples.history_end.tolist(), examples.item.tolist(), strict=True))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_requests_have_their_share_of_the_examples(asked: TrainingPeriod, share: float) -> None:
    found = contexts(asked, small_settings(context={"request_share": share}))
    logged = found.examples.name == SHOWN
    assert logged.mean() == pytest.approx(share, abs=0.01)
    dataset = found.dataset
    assert asked.requests is not None
    every = request_examples(asked.requests, dataset, asked.end, step_days=7, maximum=10**6, seed=0).examples
    drawn, known = counted(found.examples.take(np.flatnonzero(logged))), counted(every)
    assert set(drawn) <= set(known)
    often = 1 + np.ceil(logged.sum() / len(every))
    assert all(times <= often * known[pair] for pair, times in drawn.items())


def test_the_sequential_model_learns_no_request(asked: TrainingPeriod) -> None:
    found = contexts(asked, small_settings(context={"recipe": ContextRecipe.none}))
    assert (found.examples.name != SHOWN).all()
    assert (found.subjects == NO_SUBJECT).all()


def test_a_period_that_ends_earlier_has_no_later_request(asked: TrainingPeriod) -> None:
    settings = small_settings()
    assert asked.requests is not None
    until = instant(90)
    before = pl.col("request_time") < datetime.fromtimestamp(until, UTC)
    earlier = dataclasses.replace(asked, requests=asked.requests.filter(before))
    one, other = (contexts(each.until(until), settings) for each in (asked, earlier))
    assert (one.examples.name == SHOWN).sum() > 300
    np.testing.assert_array_equal(one.examples.item, other.examples.item)
    np.testing.assert_array_equal(one.subjects, other.subjects)
    assert one.examples.cutoff.max() < until


def test_a_table_of_the_examples_gives_the_same_examples(asked: TrainingPeriod) -> None:
    settings = small_settings()
    prepared = contexts(asked, settings)
    frame = examples_to_frame(prepared, asked.event_names)
    read = examples_of_frame(asked, frame.sample(fraction=1, shuffle=True, seed=0), settings)
    again = examples_to_frame(read, asked.event_names)
    by = [name for name in frame.columns if name != "cutoff"]  # which a table rounds to microseconds
    assert frame.select(by).sort(by).equals(again.select(by).sort(by))
    assert frame["event_name"].null_count() == (prepared.examples.name == SHOWN).sum()


@pytest.mark.parametrize("objective", list(Objective))
def test_no_ad_that_the_user_was_shown_at_a_cutoff_is_a_negative(asked: TrainingPeriod, objective: Objective) -> None:
    settings = small_settings(examples={"objective": objective, "cutoffs": 2})
    prepared = cross_fitted(contexts(asked, settings), asked, settings)
    task = ItemTask.of(asked, prepared, settings)
    examples = prepared.examples
    for batch in list(task.batches())[:5]:
        rows = batch.candidate_rows.numpy()
        keys = set(batch.positive_keys.tolist())
        own = batch.group.numpy() * len(prepared.dataset.features) + rows[: len(batch.group)]
        assert set(own.tolist()) <= keys
    assert (examples.name == SHOWN).sum() > 100


def test_a_model_learns_what_is_shown_beside_an_item(asked: TrainingPeriod, tmp_path: Path) -> None:
    """Synthetic contexts agree with the user's own kind, so only the requests say which of the two counts."""
    earlier = asked.until(asked.end - asked.window)
    found, lead = {}, {}
    for name, requests in (("logged", earlier.requests), ("synthetic", None)):
        settings, learnt = small_settings(), dataclasses.replace(earlier, requests=requests)
        prepared = prepare(learnt, settings)
        network = fit(ItemTask.of(learnt, prepared, settings), 6, tmp_path / name).network
        assert asked.requests is not None
        beside = context_evaluation(
            newest_window(asked, prepared.dataset, settings),
            asked,
            asked.requests,
            features=settings.features,
            maximum=500,
            seed=0,
        )
        assert beside is not None
        lists = trained_lists(network, beside.asked, settings, 20)
        found[name] = confidence_interval(lists, beside.asked.queries.positives, 20, samples=0).estimate
        lead[name] = lead_of_the_subjects_kind(network, beside.asked, settings)
    assert found["logged"] > 0.98
    assert lead["logged"] > 3 * lead["synthetic"] > 0


def lead_of_the_subjects_kind(network: TwoTower, asked: EvaluationSet, settings: Settings) -> float:
    """How much more items of the subject's kind score than those of the newest event's kind, over the temperature."""
    users, items = embeddings_of_states(network, asked, states_of(network, asked, settings), settings)
    by_kind = (users @ items.T / network.temperature.item()).reshape(len(users), -1, 20).mean(axis=2)
    queries, query = asked.queries, np.arange(len(users))
    own = asked.dataset.log.item[queries.history_end - 1] // 20
    return float((by_kind[query, queries.context.subject // 20] - by_kind[query, own]).mean())
