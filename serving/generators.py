"""Where candidates come from. Another generator is another class with ``source`` and ``generate``.

A generator of another package becomes one of the service by an entry point (``serving/generator_plugins.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.retrieval.advertiser_items import best_of_advertisers
from ml.retrieval.index import search_allowed, stored_products
from serving.contracts import Source
from serving.publication import Served
from serving.users import KnownUser


@dataclass(frozen=True)
class Query:
    """The question that generators are asked."""

    user: KnownUser
    vector: NDArray[np.float32]  # [width]
    allowed: NDArray[np.bool_]  # [index rows]
    country: str | None = None  # that items have to ship to; None: not known

    def read_only(self) -> Query:
        """Return the query with arrays that nobody can write through this query."""
        vector, allowed = self.vector.view(), self.allowed.view()
        vector.flags.writeable = allowed.flags.writeable = False
        return replace(self, vector=vector, allowed=allowed)


class Scored(NamedTuple):
    """An item and how well it fits."""

    row: int  # of the index
    score: float
    source: str  # name of the generator


class Generator(Protocol):
    """Proposes items that ``query`` allows, best first, each item once.

    A score is the inner product of item and query embedding where the generator has no better one, so that scores of
    several generators can be compared.
    """

    @property
    def source(self) -> str:
        """Return the generator's name, which every candidate of it carries."""
        ...

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        """Return at most ``wanted`` items."""
        ...


def _scored(rows: NDArray[np.int64], scores: NDArray[np.float32], source: str) -> list[Scored]:
    return list(map(Scored, rows.tolist(), scores.tolist(), repeat(source)))


class ItemNeighbours:
    """The items whose embeddings are nearest to the query's."""

    source = Source.item_neighbours.value

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        rows, scores = search_allowed(served.index, query.vector, wanted, query.allowed)
        return _scored(rows, scores, self.source)


@dataclass(frozen=True)
class AdvertiserLists:
    """The advertisers predicted for the user -> their items -> light ranking by the item model -> at most ``quota`` an
    advertiser."""

    quota: int
    source: str = Source.advertiser_lists.value

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        listed = [served.catalogue.advertisers.get(advertiser) for advertiser in query.user.advertisers]
        rows, scores = best_of_advertisers(
            [rows for rows in listed if rows is not None],
            lambda rows: stored_products(served.index, rows, query.vector),
            quota=self.quota,
            wanted=wanted,
            allowed=query.allowed,
        )
        return _scored(rows, scores, self.source)


class Popularity:
    """The items that most people engaged with in the last weeks, for somebody of whom nothing is known."""

    source = Source.popularity.value

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        order = served.catalogue.by_popularity
        rows = order[query.allowed[order]][:wanted]
        return _scored(rows, served.catalogue.popularity[rows], self.source)
