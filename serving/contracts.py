"""What goes into the service and what comes out: the JSON of ``POST /candidates``."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAXIMUM_CANDIDATES = 500
MAXIMUM_BLOCKED = 1000
MAXIMUM_INTERESTS = 20

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=10_240)]
Weight = Annotated[float, Field(gt=0, le=1)]


class Message(BaseModel):
    """Unknown fields are errors: a misspelt filter must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Surface(StrEnum):
    """Where the candidates will be shown."""

    related_pins = "related_pins"  # beside an item
    search = "search"  # below a query
    home_feed = "home_feed"


class Source(StrEnum):
    """Which generator a candidate came from."""

    item_neighbours = "item_neighbours"  # nearest items of the query embedding
    advertiser_lists = "advertiser_lists"  # best items of the advertisers predicted for the user
    popularity = "popularity"  # nothing is known of the user and of what they look at


class Basis(StrEnum):
    """What an answer rests on."""

    history_and_context = "history_and_context"
    history = "history"  # no context was given, or the subject is not known
    context = "context"  # the user is not known
    popularity = "popularity"  # neither


class Demographics(Message):
    """Overrides what the store knows of a user."""

    age: int | None = Field(None, ge=0, le=130)
    gender: str | None = Field(None, max_length=50)
    country: str | None = Field(None, max_length=50)


class Filters(Message):
    """What a candidate must be."""

    blocked_advertisers: list[Identifier] = Field([], max_length=MAXIMUM_BLOCKED)
    country: str | None = Field(None, max_length=50, description="Only items that ship there. Default: the user's.")
    minimum_price: float | None = Field(None, ge=0, description="In the item's currency; items without a price fail.")
    maximum_price: float | None = Field(None, ge=0)
    include_unavailable: bool = False

    @model_validator(mode="after")
    def _an_interval(self) -> Self:
        low, high = self.minimum_price, self.maximum_price
        if low is not None and high is not None and low > high:
            raise ValueError(f"minimum_price {low:g} is above maximum_price {high:g}")
        return self


class CandidateRequest(Message):
    """A user in a place."""

    user_id: Identifier
    surface: Surface = Surface.home_feed
    subject_item_id: Identifier | None = Field(None, description="related_pins: the item that is looked at.")
    query: str | None = Field(None, min_length=1, max_length=500, description="search: what was typed.")
    interests: dict[Identifier, Weight] = Field({}, max_length=MAXIMUM_INTERESTS, description="Interest -> confidence.")
    demographics: Demographics | None = None
    k: int = Field(50, ge=1, le=MAXIMUM_CANDIDATES)
    filters: Filters = Filters()
    explain: bool = Field(False, description="Say for every candidate what it is near to.")

    @model_validator(mode="after")
    def _context_of_the_surface(self) -> Self:
        if self.subject_item_id is not None and self.surface is not Surface.related_pins:
            raise ValueError("subject_item_id belongs to the surface related_pins")
        if self.query is not None and self.surface is not Surface.search:
            raise ValueError("query belongs to the surface search")
        if self.surface is Surface.search and self.query is None and not self.interests:
            raise ValueError("the surface search needs a query or interests")
        return self


class NearEvent(Message):
    """An event of the history that a candidate is near to."""

    item_id: str
    title: str | None
    event_name: str
    event_time: datetime
    similarity: float = Field(description="Cosine of the two items' content, category and advertiser.")


class Explanation(Message):
    """Why a candidate: how the score comes about, and what it is near to."""

    parts: dict[str, float] = Field(description="The score by part of the embedding; they add up to it.")
    events: list[NearEvent] = Field(description="The nearest events of the history, nearest first.")
    subject_similarity: float | None = Field(None, description="Cosine to the subject item; null without one.")
    shared_interests: list[str] = Field(
        [], description="Interests of the context that lie on the item's category path."
    )


class Candidate(Message):
    """One item to show."""

    item_id: str
    advertiser_id: str | None
    title: str | None
    category: str | None
    price: float | None
    currency: str | None
    score: float
    source: Source
    explanation: Explanation | None = None


class CandidateResponse(Message):
    """The candidates, best first, and what produced them."""

    candidates: list[Candidate]
    basis: Basis
    subject_known: bool | None = Field(None, description="Whether the catalogue has the subject; null without one.")
    interests: dict[str, float] = Field({}, description="Interests that the query or the request was taken for.")
    model_version: str
    advertiser_version: str | None
    day: date = Field(description="The catalogue and the index are as of its end.")
    state_age_seconds: float | None = Field(description="Since the instant the user's state knows everything until.")
