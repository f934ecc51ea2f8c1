"""What goes into the service and what comes out: the JSON of ``POST /candidates``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    field_validator,
    model_validator,
)

from warehouse.contracts import BID_KINDS, EVENT_NAMES, MAXIMUM_ID_BYTES, NEED_NOTHING
from warehouse.online.spend import MAXIMUM_AMOUNT
from warehouse.surfaces import MAXIMUM_QUERY_CHARACTERS, Carries, Surface

MAXIMUM_CANDIDATES = 500
MAXIMUM_BLOCKED = 1000
MAXIMUM_GIVEN_INTERESTS = 20
MAXIMUM_EVENTS = 100
MAXIMUM_SPENT = 1000
WITH_SUBJECT, WITH_QUERY = (" or ".join(Surface.carrying(carried)) for carried in (Carries.subject, Carries.query))


def _short_enough(text: str) -> str:
    if len(text.encode()) > MAXIMUM_ID_BYTES:
        raise ValueError(f"an id has at most {MAXIMUM_ID_BYTES} bytes in UTF-8")
    return text


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MAXIMUM_ID_BYTES), AfterValidator(_short_enough)]
Weight = Annotated[float, Field(gt=0, le=1)]


class Message(BaseModel):
    """Unknown fields are errors: a misspelt filter must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Message):
    """One rule that a request breaks."""

    field: str = Field(description="Dotted path into the body; `body` for a rule of several fields.")
    rule: str


class Rejection(Message):
    """The rules that a request breaks (422). The input is not repeated."""

    detail: list[Problem]


class Refusal(Message):
    """The reason why a request is refused, and what to do."""

    detail: str


class Source(StrEnum):
    """The generators of the service; other packages offer further ones, each with a name of its own."""

    item_neighbours = "item_neighbours"  # nearest items of the query embedding
    advertiser_lists = "advertiser_lists"  # best items of the advertisers predicted for the user
    popularity = "popularity"  # nothing is known of the user and of what they look at


class Basis(StrEnum):
    """The knowledge that an answer uses."""

    history_and_context = "history_and_context"
    history = "history"  # no context was given, or the subject is not known
    context = "context"  # the user is not known
    popularity = "popularity"  # neither


class Demographics(Message):
    """Values that replace those of the store for one request."""

    age: int | None = Field(None, ge=0, le=130)
    gender: str | None = Field(None, max_length=50)
    country: str | None = Field(None, max_length=50)


class Filters(Message):
    """Conditions that every candidate meets."""

    blocked_advertisers: tuple[Identifier, ...] = Field((), max_length=MAXIMUM_BLOCKED)
    country: str | None = Field(
        None, max_length=50, description="Only items that ship to this country. Default: the country of the user."
    )
    minimum_price: float | None = Field(
        None, ge=0, description="In the currency of the item. An item without a price is left out."
    )
    maximum_price: float | None = Field(None, ge=0)
    include_unavailable: bool = False

    @model_validator(mode="after")
    def _an_interval(self) -> Self:
        low, high = self.minimum_price, self.maximum_price
        if low is not None and high is not None and low > high:
            raise ValueError(f"minimum_price {low:g} is above maximum_price {high:g}")
        return self


class CandidateRequest(Message):
    """A request for candidates: the user, the surface and its context."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u000003"},
                {"user_id": "u000003", "surface": "related_pins", "subject_item_id": "i000001", "k": 10},
                {"user_id": "u000003", "surface": "search", "query": "garden chair", "filters": {"maximum_price": 80}},
            ]
        }
    )

    user_id: Identifier
    surface: Surface = Surface.home_feed
    subject_item_id: Identifier | None = Field(None, description=f"{WITH_SUBJECT}: the item that the user looks at.")
    query: str | None = Field(
        None,
        min_length=1,
        max_length=MAXIMUM_QUERY_CHARACTERS,
        description=f"{WITH_QUERY}: the text that the user typed.",
    )
    interests: dict[Identifier, Weight] = Field(
        {},
        max_length=MAXIMUM_GIVEN_INTERESTS,
        description="Confidence by interest; the model reads the four of highest confidence.",
    )
    demographics: Demographics | None = None
    k: int = Field(50, ge=1, le=MAXIMUM_CANDIDATES)
    filters: Filters = Filters()
    explain: bool = Field(False, description="Add to every candidate the events and interests that it is near to.")

    @model_validator(mode="after")
    def _context_of_the_surface(self) -> Self:
        carries = self.surface.carries
        if self.subject_item_id is not None and carries is not Carries.subject:
            raise ValueError(f"subject_item_id belongs to the surface {WITH_SUBJECT}")
        if self.query is not None and carries is not Carries.query:
            raise ValueError(f"query belongs to the surface {WITH_QUERY}")
        if carries is Carries.query and self.query is None and not self.interests:
            raise ValueError(f"the surface {self.surface} needs a query or interests")
        return self


class Event(Message):
    """A conversion event, as the landing zone's table ``events`` has it."""

    event_id: Identifier = Field(description="Two events with one user_id and one event_id are the same event.")
    user_id: Identifier
    event_time: datetime = Field(description="ISO 8601; without a zone it is UTC.")
    event_name: Literal[EVENT_NAMES]  # type: ignore[valid-type]
    advertiser_id: Identifier | None = None
    item_id: Identifier | None = None
    value: float | None = Field(None, ge=0, allow_inf_nan=False)
    currency: str | None = Field(None, max_length=10)
    search_string: str | None = Field(None, max_length=500)

    @field_validator("event_time")
    @classmethod
    def _in_utc(cls, time: datetime) -> datetime:
        try:
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("the time is not one that UTC has") from error

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if self.item_id is None and self.advertiser_id is None and self.event_name not in NEED_NOTHING:
            raise ValueError(f"an event names an item or an advertiser, unless it is one of {', '.join(NEED_NOTHING)}")
        return self


class EventsRequest(Message):
    """Events that arrived together."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "event_id": "order-4711-1",
                            "user_id": "u000003",
                            "event_time": "2026-03-04T10:00:00Z",
                            "event_name": "checkout",
                            "item_id": "i000001",
                            "value": 79.9,
                            "currency": "EUR",
                        }
                    ]
                }
            ]
        }
    )

    events: list[Event] = Field(min_length=1, max_length=MAXIMUM_EVENTS)


class EventsResponse(Message):
    """The number of events that were accepted, known already, or of forgotten users."""

    accepted: int = Field(description="New events, which are stored in the landing zone.")
    known: int = Field(0, description="Events whose user_id and event_id were sent before. They change nothing.")
    forgotten: int = Field(0, description="Events of users who were forgotten. They are not stored.")
    arrival_day: date
    refreshed: bool = Field(description="Whether the next answer uses the events; false before the first publication.")


class AdSpend(Message):
    """The total that one ad has spent."""

    ad_id: Identifier
    total: float = Field(
        ge=0, le=MAXIMUM_AMOUNT, allow_inf_nan=False, description="On the day so far, in the currency of its budget."
    )


class SpendRequest(Message):
    """What ads have spent on one day so far."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"day": "2026-03-04", "spent": [{"ad_id": "ad-17", "total": 12.5}]}]}
    )

    day: date = Field(description="A day of the log, in the log's time zone: today, yesterday or tomorrow.")
    spent: list[AdSpend] = Field(min_length=1, max_length=MAXIMUM_SPENT)


class SpendResponse(Message):
    """The number of totals that count."""

    counted: int = Field(description="Totals that are not below what was known before; a lower one changes nothing.")


class HistoryRequest(Message):
    """A request for the history of a user, and for the description of the item that the user looks at."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "u000003", "subject_item_id": "i000001"}]})

    user_id: Identifier
    subject_item_id: Identifier | None = None


class HistoryEvent(Message):
    """An event of the history, with the title and category of its item."""

    event_time: datetime
    event_name: str
    item_id: str | None = None
    title: str | None = None
    category: str | None = None


class HistoryResponse(Message):
    """The newest events of a user, newest first, and the description of the subject."""

    events: list[HistoryEvent]
    subject: str | None = Field(
        None, description="Title and category of the subject; null if the catalogue does not have it."
    )


class NearEvent(Message):
    """An event of the history that a candidate is near to."""

    item_id: str
    title: str | None = None
    event_name: str
    event_time: datetime
    similarity: float = Field(description="Cosine of the two items' content, category and advertiser.")


class Explanation(Message):
    """The parts of a candidate's score, and the events and interests that the candidate is near to."""

    parts: dict[str, float] = Field(
        description="The score of each part of the embedding; empty for a candidate of popularity."
    )
    events: list[NearEvent] = Field(description="The nearest events of the history, nearest first.")
    subject_similarity: float | None = Field(None, description="Cosine to the subject item; null without a subject.")
    shared_interests: list[str] = Field(
        [], description="Interests of the context that lie on the item's category path."
    )


@dataclass(kw_only=True)
class Candidate:
    """One item to show."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    item_id: str
    advertiser_id: str | None = None
    title: str | None = None
    category: str | None = None
    price: float | None = None
    currency: str | None = None
    score: float
    source: Annotated[
        str,
        Field(
            description="Name of the generator that proposed the item: item_neighbours (nearest to the query), "
            "advertiser_lists (items of the advertisers predicted for the user), popularity (nothing is known of the "
            "user and of the place), or the name of a generator of another package.",
            examples=[source.value for source in Source],
        ),
    ]
    relevance: Annotated[
        float | None,
        Field(
            description="Calibrated relevance to the subject item or the query, 0 to 1, for the auction; null on a "
            "surface without them, and before the first relevance model.",
        ),
    ] = None
    ad_id: Annotated[
        str | None, Field(description="The ad that the item is shown as; null where the log has no ads.")
    ] = None
    bid: Annotated[
        float | None, Field(description="The bid of the ad, in the log's currency, for one of `bid_kind`.")
    ] = None
    bid_kind: Annotated[
        Literal[BID_KINDS] | None,  # type: ignore[valid-type]
        Field(description="What the bid pays for: a click, a thousand impressions, an action. Null: not known."),
    ] = None
    explanation: Explanation | None = None


@dataclass(kw_only=True)
class CandidateResponse:
    """The candidates, best first, and the versions that produced them."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    candidates: list[Candidate]
    basis: Basis
    subject_known: Annotated[
        bool | None, Field(description=f"{WITH_SUBJECT}: whether the catalogue has the subject item.")
    ] = None
    interests: Annotated[
        dict[str, float],
        Field(
            description="Interests inferred from the query, plus those given in the request.",
            json_schema_extra={"default": {}},
        ),
    ] = field(default_factory=dict)
    model_version: str
    advertiser_version: str | None = None
    relevance_version: str | None = None
    day: Annotated[date, Field(description="The catalogue and the index are as of the end of this day.")]
    state_age_seconds: Annotated[
        float | None,
        Field(
            description="Age of the user's state in seconds: time since the last moment whose events the state "
            "includes.",
        ),
    ] = None

    def to_json(self) -> bytes:
        """Return the body of the answer: fields that say nothing are left out."""
        return _RESPONSE.dump_json(self, exclude_none=True)


# Fifty candidates are made a request, of values that have been checked before: dataclasses check nothing.
_RESPONSE = TypeAdapter(CandidateResponse)
