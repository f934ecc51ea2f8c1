"""Other ways of asking a model, and scoring on a part of the catalogue, by hand-worked examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml.evaluation.model_lists import baseline_lists, network_lists, trained_lists
from ml.evaluation.model_names import ADDITIONAL, EVALUABLE, LABELS, TRAINED, AdvertiserModelName, ListArm, ModelName
from ml.evaluation.queries import EvaluationSet, Queries, subject_appended
from ml.examples.context import no_context, subject_context
from ml.examples.named_interests import named_interests
from ml.examples.period import Prepared
from ml.features.cross_fit import uncrossed
from ml.features.dataset import build_dataset
from ml.features.event_log import newest, pack
from ml.features.interest_profiles import InterestProfiles
from ml.features.items import MAXIMUM_INTERESTS
from ml.retrieval.lists import Ragged
from ml.training.fit import Fit
from settings import AdditionalModel, Settings
from tests.ml.worlds import EVENT_NAMES, Event, event_frame, instant, item_frame, small_settings, user_frame

STATED = pl.Struct({"interest": pl.String, "confidence": pl.Float64})


def asked_of(prepared: Prepared, users: list[int], known: list[int], subject: list[int], as_of: float) -> EvaluationSet:
    """Queries of users who are known for so many events, with a context item each (-1 = none)."""
    dataset = prepared.dataset
    user = np.array(users)
    queries = Queries(
        user=user,
        history_end=np.where(user >= 0, dataset.log.offsets[user] + np.array(known), 0),
        context=subject_context(np.array(subject), dataset.features),
        positives=Ragged.from_pairs([], [], len(users)),
        exclude=None,
        candidates=np.arange(len(dataset.features)),
        as_of=as_of,
    )
    return EvaluationSet(dataset, queries, dataset.log, 10.0)


def test_the_context_item_becomes_the_newest_event() -> None:
    rows: list[Event] = [("u", 1.0, "page_visit", "a"), ("u", 3.0, "checkout", "b"), ("u", 9.0, "checkout", "a")]
    items = item_frame(["a", "b", "c"], advertiser_id=["of a", "of b", "of c"])
    dataset = build_dataset(
        event_frame(rows), items, user_frame(["u"]), settings=small_settings().features, event_names=EVENT_NAMES
    )
    prepared = Prepared(dataset, None, np.zeros(0), uncrossed(dataset.features, 1))  # type: ignore[arg-type]
    asked = asked_of(prepared, [0, -1, 0, -1, 0], [2, 0, 1, 0, 3], [2, 1, -1, -1, 2], instant(5.0))
    found = subject_appended(asked, "checkout")
    log, queries = found.dataset.log, found.queries
    sequences = [log.item[log.offsets[row] : queries.history_end[row]].tolist() for row in queries.user]
    assert sequences == [[0, 1, 2], [1], [0], [], [0, 1, 0, 2]]
    names = [EVENT_NAMES[code - 1] for code in log.name]
    assert names[:4] == ["page_visit", "checkout", "checkout", "checkout"]
    # The appended event happens when the query is asked, or at the last event where that is later (day 9).
    days = [(seconds - instant(0)) / 86_400 for seconds in log.seconds]
    assert days == pytest.approx([1, 3, 5, 5, 1, 1, 3, 9, 9])
    assert log.advertiser[2].tolist() == dataset.features.advertiser[2].tolist()
    assert not queries.context.present.any()
    assert (found.dataset.demographics[[0, 2, 4]] == dataset.demographics[0]).all()
    assert (found.dataset.demographics[[1, 3]] == 0).all()


def test_an_appended_item_is_to_the_encoder_what_the_event_itself_would_be(prepared: Prepared) -> None:
    log = prepared.dataset.log
    last = log.offsets[1:] - 1
    users = np.flatnonzero((log.name[last] == EVENT_NAMES.index("checkout") + 1) & (np.diff(log.offsets) > 2))[:5]
    for user in users:
        known = int(last[user] - log.offsets[user])
        asked = asked_of(prepared, [int(user)], [known], [int(log.item[last[user]])], float(log.seconds[last[user]]))
        found = subject_appended(asked, "checkout")
        there = pack(log, newest(log, np.array([user]), last[[user]] + 1, 12))
        here = pack(found.dataset.log, newest(found.dataset.log, np.array([0]), found.queries.history_end, 12))
        for name in ("item", "name", "gap", "recency", "lengths"):
            assert np.array_equal(getattr(here, name), getattr(there, name)), name
        # The planted log's events name other advertisers than its catalogue, which is what a context item goes by.
        assert np.array_equal(here.advertiser[:-1], there.advertiser[:-1])
        assert np.array_equal(here.advertiser[-1], prepared.dataset.features.advertiser[here.item[-1]])


def searching(asked: EvaluationSet, interest: str) -> EvaluationSet:
    """The same queries, which search for an interest of the planted catalogue."""
    features = asked.dataset.features
    paths = pl.Series([f"All > K{row // 20}" for row in range(len(features))])
    catalogue = pl.DataFrame({"category_path": paths}).with_columns(stated_interests=pl.lit(None, pl.List(STATED)))
    buckets = small_settings().features.category_buckets
    profiles = InterestProfiles.of(catalogue, features, buckets)
    context = named_interests([{interest: 0.9}] * len(asked.queries), profiles, buckets)
    return replace(asked, queries=replace(asked.queries, context=context))


def test_the_rule_answers_a_search_with_the_category_that_it_names_and_then_recent_popularity(
    prepared: Prepared,
) -> None:
    """Also for a user whose newest item is of another category. A category has 20 rows, one after another."""
    home = asked_of(prepared, [0, 1, -1], [5, 6, 0], [-1, -1, -1], instant(80.0))
    lists = baseline_lists(ModelName.rule, searching(home, "All > K3"), 240).items
    recent = home.events_of_items(home.recent_days)
    for items in lists:
        assert sorted(items[:20].tolist()) == list(range(60, 80))
        assert (np.diff(recent[items[:20]]) <= 0).all()
        assert (np.diff(recent[items[20:]]) <= 0).all()
    nameless = baseline_lists(ModelName.rule, searching(home, "no such interest"), 240).items
    assert np.array_equal(nameless, baseline_lists(ModelName.rule, home, 240).items)


def test_what_knows_no_search_answers_one_as_without_a_context(
    prepared: Prepared, trained: Fit, settings: Settings
) -> None:
    home = asked_of(prepared, [0, 1, 2], [5, 6, 7], [-1, -1, -1], instant(80.0))
    search = searching(home, "All > K3")
    of_home, of_search = (baseline_lists(ModelName.item_knn, asked, 50).items for asked in (home, search))
    assert np.array_equal(of_home, of_search)
    assert (of_home[:, 0] >= 0).all()
    appended, contextual = (
        [network_lists(model, trained.network, asked, settings=settings, depth=50).items for asked in (home, search)]
        for model in (ModelName.sequential_appended, ModelName.contextual)
    )
    # The log of the home feed is the same, so without the appended event nothing is left to differ but the context.
    assert np.array_equal(appended[0], appended[1])
    assert not np.array_equal(contextual[0], contextual[1])


def test_beside_an_item_item_knn_answers_from_it_and_elsewhere_from_the_history(prepared: Prepared) -> None:
    mixed = asked_of(prepared, [0, 1], [5, 6], [7, -1], instant(80.0))
    beside = asked_of(prepared, [0], [5], [7], instant(80.0))
    home = asked_of(prepared, [1], [6], [-1], instant(80.0))
    found = baseline_lists(ModelName.item_knn, mixed, 50).items
    expected = [baseline_lists(ModelName.item_knn, asked, 50).items for asked in (beside, home)]
    assert np.array_equal(found, np.concatenate(expected))


def test_a_model_trained_without_context_is_not_asked_with_it(
    prepared: Prepared, trained: Fit, settings: Settings
) -> None:
    """Its context layer is as random as it was made."""
    asked = asked_of(prepared, [0, 1, 2], [4, 5, 6], [7, 8, 9], instant(80.0))
    hidden = replace(asked, queries=replace(asked.queries, context=no_context(3, MAXIMUM_INTERESTS)))
    without = ModelName.sequential.settings(settings)
    plain = trained_lists(trained.network, hidden, settings, 50).items
    assert np.array_equal(trained_lists(trained.network, asked, without, 50).items, plain)
    assert not np.array_equal(trained_lists(trained.network, asked, settings, 50).items, plain)
    other = network_lists(
        ModelName.contextual_without_context, trained.network, asked, settings=settings, depth=50
    ).items
    assert np.array_equal(other, plain)
    appended = network_lists(ModelName.sequential_appended, trained.network, asked, settings=settings, depth=50).items
    assert not np.array_equal(appended, plain)


def test_every_model_of_the_reports_but_the_oracle_can_be_evaluated() -> None:
    assert {model.base for model in EVALUABLE} == {model.base for model in ModelName} - {ModelName.oracle}
    assert [model.base.value for model in ModelName if model.needs_context] == ["sequential", "contextual"]


def test_models_are_trained_under_the_settings_but_for_what_they_are_named_after(settings: Settings) -> None:
    changed = {
        model.value: {
            name: value for name, value in model.settings(settings).flat().items() if settings.flat()[name] != value
        }
        for model in EVALUABLE
    }
    withheld = {"context.recipe": "none"}
    assert changed["contextual"] == changed["contextual_without_context"] == {}
    assert changed["sequential"] == changed["sequential_appended"] == withheld
    assert changed["mean_pooling"] == {**withheld, "model.encoder": "mean_pooling"}
    assert changed["max_pooling"] == {**withheld, "model.encoder": "max_pooling"}
    assert changed["contextual_cross_attention"] == {"model.fusion": "cross_attention"}


def test_the_setting_names_the_models_that_no_training_trains_by_default() -> None:
    assert [model.value for model in ADDITIONAL] == [model.value for model in AdditionalModel]
    assert not set(ADDITIONAL) & set(TRAINED)


def test_a_name_of_both_reports_is_read_the_same_way() -> None:
    assert all(LABELS[model.value] == model.label for model in (*ModelName, *ListArm, *AdvertiserModelName))
