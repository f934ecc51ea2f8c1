"""Where candidates come from. Another generator is another class with ``source`` and ``generate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ml.retrieval.index import search_allowed, stored_vectors
from serving.contracts import Source
from serving.publication import Served
from serving.users import KnownUser


@dataclass(frozen=True)
class Query:
    """The question that generators are asked."""

    user: KnownUser
    vector: NDArray[np.float32]  # [width]
    allowed: NDArray[np.bool_]  # [index rows]


@dataclass(frozen=True)
class Scored:
    """An item and how well it fits."""

    row: int  # of the index
    score: float
    source: Source


class Generator(Protocol):
    """Proposes items that ``query`` allows, best first; scores are comparable between generators."""

    @property
    def source(self) -> Source: ...

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]: ...


class ItemNeighbours:
    """The items whose embeddings are nearest to the query's."""

    source = Source.item_neighbours

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        rows, scores = search_allowed(served.index, query.vector, wanted, query.allowed)
        return [Scored(row, score, self.source) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]


@dataclass(frozen=True)
class AdvertiserLists:
    """The advertisers predicted for the user -> their items -> light ranking by the item model -> at most ``quota`` an
    advertiser."""

    quota: int
    source: Source = Source.advertiser_lists

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        listed = [served.catalogue.advertisers.get(advertiser) for advertiser in query.user.advertisers]
        owned = [rows[query.allowed[rows]] for rows in listed if rows is not None]
        owned = [rows for rows in owned if len(rows)]
        if not owned:
            return []
        rows = np.concatenate(owned)
        owner = np.repeat(np.arange(len(owned)), [len(each) for each in owned])
        scores = stored_vectors(served.index, rows) @ query.vector
        order = np.lexsort((rows, -scores))
        chosen = order[_place_in_group(owner[order]) < self.quota][:wanted]
        return [Scored(int(rows[at]), float(scores[at]), self.source) for at in chosen]


def _place_in_group(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each element, the number of earlier elements of the same group."""
    order = np.argsort(group, kind="stable")
    first = np.r_[True, np.diff(group[order]) != 0]
    start = np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - start
    return place


class Popularity:
    """The items that most people engaged with in the last weeks, for somebody of whom nothing is known."""

    source = Source.popularity

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        order = served.catalogue.by_popularity
        rows = order[query.allowed[order]][:wanted]
        return [Scored(int(row), float(served.catalogue.popularity[row]), self.source) for row in rows]


def blend(first: list[Scored], second: list[Scored], share: float, wanted: int) -> list[Scored]:
    """Return two lists merged, each item once.

    About ``share`` of every prefix comes from the second list, until one list has ended and the other one fills up.
    """
    blended: list[Scored] = []
    taken: set[int] = set()
    queues, of_second = (iter(first), iter(second)), 0
    while len(blended) < wanted:
        turn = int(of_second + 1 <= share * (len(blended) + 1))
        found = next((each for each in queues[turn] if each.row not in taken), None)
        if found is None:
            found = next((each for each in queues[1 - turn] if each.row not in taken), None)
        if found is None:
            break
        taken.add(found.row)
        blended.append(found)
        of_second += turn
    return blended
