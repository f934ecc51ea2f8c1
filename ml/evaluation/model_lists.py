"""The models and baselines of the reports, each asked the same queries over the same candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.baselines import ItemKNN, popularity_lists, rule_lists
from ml.evaluation.model_names import BASELINES, ModelName
from ml.evaluation.queries import EvaluationSet, Queries, on_the_home_feed, subject_appended, without_context
from ml.evaluation.untrained_parts import UntrainedParts
from ml.examples.pairs import ranges
from ml.features.dataset import Dataset
from ml.features.event_log import newest, within_lookback
from ml.features.hashing import NONE
from ml.features.items import DAY
from ml.models.artifact import ModelArtifact
from ml.models.batched_forward import (
    embed_items,
    embed_users,
    encode_states,
    popularity_weight,
    with_popularity_offsets,
)
from ml.models.head_export import DEMOGRAPHICS
from ml.models.item_model import TwoTower
from ml.models.tensors import CatalogueTensors
from ml.retrieval.exposure import USERS
from ml.retrieval.lists import Ragged, RankedLists, search
from settings import ContextRecipe, Settings


def trained_lists(network: TwoTower, asked: EvaluationSet, settings: Settings, depth: int) -> RankedLists:
    """Return the lists of a two-tower network, in rows of the candidates.

    A network that was trained without context (``settings``) is asked without context: its context layer has learnt
    nothing.
    """
    return lists_of_states(network, asked, states_of(network, asked, settings), settings=settings, depth=depth)


def states_of(network: TwoTower, asked: EvaluationSet, settings: Settings) -> NDArray[np.float32]:
    """Encode the state of each query's user, as the state would be stored [queries, state_width]."""
    dataset, queries = asked.dataset, asked.queries
    known = queries.user >= 0
    user = np.maximum(queries.user, 0)
    end = np.where(known, queries.history_end, dataset.log.offsets[user])
    since = queries.as_of - settings.sequences.lookback_days * DAY
    slices = within_lookback(dataset.log, user, newest(dataset.log, user, end, settings.sequences.length), since)
    return encode_states(
        network, CatalogueTensors(dataset.features), dataset.log, slices=slices, settings=settings.inference
    )


def lists_of_states(
    network: TwoTower, asked: EvaluationSet, states: NDArray[np.float32], *, settings: Settings, depth: int
) -> RankedLists:
    """Return the lists from stored states [queries, state_width]: the second half of ``trained_lists``."""
    users, items = embeddings_of_states(network, asked, states, settings)
    return search(users, items, depth, exclude=asked.queries.exclude)


def embeddings_of_states(
    network: TwoTower, asked: EvaluationSet, states: NDArray[np.float32], settings: Settings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the embeddings of the queries [queries, width] and of the candidates [candidates, width].

    The candidates have the popularity offsets that an index of the instant would have.

    Args:
        states: [queries, state_width].
    """
    if settings.context.recipe is ContextRecipe.none:
        asked = without_context(asked)
    dataset, queries = asked.dataset, asked.queries
    catalogue = CatalogueTensors(dataset.features)
    users = embed_users(
        network, catalogue, states, context=queries.context, demographics=dataset.users_demographics(queries.user)
    )
    items = embed_items(network, catalogue, dataset.statistics.at(queries.as_of))[queries.candidates]
    weight = popularity_weight(network, settings.index)
    if weight:
        items = with_popularity_offsets(network, items, _sampled_users(network, asked, settings), weight)
    return users, items


def _sampled_users(network: TwoTower, asked: EvaluationSet, settings: Settings) -> NDArray[np.float32]:
    """Return the embeddings of a sample of the users who are known at the instant, on the home feed [users, width].

    The sample depends on the log that was learnt from, and not on the queries: all ways to ask share one index.
    """
    log = asked.learnt
    known = np.flatnonzero(log.known_until(asked.queries.as_of) > log.offsets[:-1])
    users = np.random.default_rng(settings.training.seed).choice(known, min(USERS, len(known)), replace=False)
    sample = on_the_home_feed(replace(asked, dataset=replace(asked.dataset, log=log)), np.sort(users))
    return embed_users(
        network,
        CatalogueTensors(asked.dataset.features),
        states_of(network, sample, settings),
        context=sample.queries.context,
        demographics=np.zeros((len(users), DEMOGRAPHICS), np.int64),
    )


def baseline_lists(model: ModelName, asked: EvaluationSet, depth: int) -> RankedLists:
    """Return the lists of a baseline that is counted, from events before ``queries.as_of`` only.

    With a context item, item-kNN answers from that item alone, otherwise from the user's history. The rule goes by the
    context item, by the category that a query names, or else by the user's newest item.
    """
    dataset, queries = asked.dataset, asked.queries
    if model is ModelName.item_knn:
        learnt = asked.learnt.offsite
        knn = ItemKNN.fit(learnt.user_of_event(), learnt.item, len(dataset.features))
        return knn.lists(_context_or_history(asked), queries.candidates, depth, queries.exclude)
    ever, recent = (asked.events_of_items(window)[queries.candidates] for window in (None, asked.recent_days))
    if model is ModelName.rule:
        groups = _groups(dataset)
        return rule_lists(
            _groups_of_subjects(asked, groups),
            [group[queries.candidates] for group in groups],
            [recent, ever],
            depth=depth,
            exclude=queries.exclude,
        )
    return popularity_lists(
        recent if model is ModelName.recent_popularity else ever, len(queries), depth, queries.exclude
    )


def network_lists(
    model: ModelName, network: TwoTower, asked: EvaluationSet, *, settings: Settings, depth: int
) -> RankedLists:
    """Return the lists of a network that was trained under ``model.settings(settings)``, asked in the model's way."""
    if model is ModelName.sequential_appended:
        asked = subject_appended(asked, asked.dataset.event_names[0])
    if model is ModelName.contextual_without_context:
        asked = without_context(asked)
    return trained_lists(network, asked, model.settings(settings), depth)


def all_lists(
    artifacts: Mapping[ModelName, ModelArtifact], parts: UntrainedParts, asked: EvaluationSet, *, depth: int
) -> dict[ModelName, RankedLists]:
    """Return the lists of every baseline and every trained model, in the order of the reports.

    Each model is asked under the settings that the model was trained under.
    """
    lists = {model: baseline_lists(model, asked, depth) for model in BASELINES}
    lists[ModelName.parts] = parts.lists(asked, artifacts[ModelName.contextual].settings, depth)
    for model, of_model in artifacts.items():
        lists[model] = network_lists(model, of_model.network, asked, settings=of_model.settings, depth=depth)
    return {model: lists[model] for model in ModelName if model in lists}


def _groups(dataset: Dataset) -> list[NDArray[np.int64]]:
    """Return what the rule goes by, first things first: the category path, each shorter path, the advertiser [items].

    An item without a value has -1.
    """
    advertiser, category = dataset.statistics.groups
    levels = dataset.features.category.T[::-1]  # the deepest first
    return [category, *(np.where(level == NONE, -1, level) for level in levels), advertiser]


def _groups_of_subjects(asked: EvaluationSet, groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the groups that the rule looks for, -1 = none [queries, kinds].

    They are those of the subject, or of the user's newest item. Where a query names a category, only the nodes of the
    category's path count.
    """
    item, topics = _subject_or_newest(asked), asked.queries.context.topics
    found = np.column_stack([np.where(item >= 0, group[item], -1) for group in groups])
    if topics is not None:
        named = topics.category.any(axis=1)
        nodes = topics.category[named][:, ::-1]  # the deepest first, as in ``_groups``
        found[named] = -1
        found[named, 1 : 1 + nodes.shape[1]] = np.where(nodes == NONE, -1, nodes)
    return found


def _subject_or_newest(asked: EvaluationSet) -> NDArray[np.int64]:
    """Return the subject of each query, else the newest item of the user's history, else -1 [queries]."""
    queries, log = asked.queries, asked.dataset.log.offsite
    subject = queries.context.subject.copy()
    missing = np.flatnonzero((subject < 0) & (queries.user >= 0))
    flat, owner = ranges(log.offsets[queries.user[missing]], queries.history_end[missing])
    known = log.item[flat] >= 0
    subject[missing[owner[known]]] = log.item[flat][known]  # in the order of time: the newest stays
    return subject


def _context_or_history(asked: EvaluationSet) -> Ragged:
    """Return the catalogue rows that item-kNN starts from: the subject of a query, or else the history."""
    queries: Queries = asked.queries
    subject = queries.context.subject
    beside, known = np.flatnonzero(subject >= 0), np.flatnonzero((subject < 0) & (queries.user >= 0))
    user = queries.user[known]
    flat, owner = ranges(asked.dataset.log.offsets[user], queries.history_end[known])
    rows = np.concatenate([beside, known[owner]])
    return Ragged.from_pairs(
        rows, np.concatenate([subject[beside], asked.dataset.log.offsite.item[flat]]), len(queries)
    )
