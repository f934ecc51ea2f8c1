"""The surfaces: where candidates are shown, what a request on each carries, and how each is reported.

A new surface is one member here. The landing zone's contract, the service and the context report know it then.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Self

import polars as pl

MAXIMUM_QUERY_CHARACTERS = 500


class Carries(Enum):
    """The context of a request on a surface."""

    subject = "an item that is looked at: the context report measures such requests"
    query = "what was typed, or interests: the context report measures requests with a query"
    nothing = "no context: measured as every user's next conversion"


class Surface(StrEnum):
    """Where the candidates will be shown."""

    related_pins = "related_pins", Carries.subject  # beside an item
    search = "search", Carries.query  # below a query
    home_feed = "home_feed", Carries.nothing

    _value_: str
    carries: Carries

    def __new__(cls, value: str, carries: Carries) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.carries = carries
        return member

    @classmethod
    def carrying(cls, what: Carries) -> list[str]:
        """Return the names of the surfaces whose requests carry ``what``."""
        return [surface.value for surface in cls if surface.carries is what]


def carries_its_place() -> pl.Expr:
    """Return whether rows carry what their surface carries, a subject item or a query, and not the other one.

    A query has 1 to ``MAXIMUM_QUERY_CHARACTERS`` characters: the service refuses every other one.

    >>> rows = {"surface": ["search", "search", "search", "home_feed"], "subject_item_id": [None, "i1", None, None]}
    >>> rows |= {"query": ["lamp", "lamp", "", "lamp"]}
    >>> pl.DataFrame(rows).select(carries_its_place()).to_series().to_list()
    [True, False, False, False]
    """
    subject, query = pl.col("subject_item_id"), pl.col("query")
    beside = pl.col("surface").is_in(Surface.carrying(Carries.subject)) & subject.is_not_null() & query.is_null()
    fits = query.str.len_chars().is_between(1, MAXIMUM_QUERY_CHARACTERS).fill_null(False)
    searched = pl.col("surface").is_in(Surface.carrying(Carries.query)) & subject.is_null() & fits
    return (beside | searched).alias("carries_its_place")
