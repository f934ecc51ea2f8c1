"""What raters and reporters send and get: JSON of ``POST /labels/next``, ``POST /labels`` and ``POST /feedback``."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from serving.contracts import WITH_QUERY, WITH_SUBJECT, Identifier, Message
from warehouse.contracts import MAXIMUM_LABEL, MINIMUM_LABEL
from warehouse.queued_pairs import GUIDELINES
from warehouse.surfaces import Carries, Surface

MAXIMUM_JUDGEMENTS = 100
MAXIMUM_SKIPPED = 10_000
MAXIMUM_QUERY = 500
RATER = "A name for the rater that says nothing else about the person."


class Place(Message):
    """A candidate beside the subject item or the query of its surface."""

    surface: Surface
    subject_item_id: Identifier | None = Field(None, description=f"{WITH_SUBJECT}: the item beside the candidate.")
    query: str | None = Field(None, min_length=1, max_length=MAXIMUM_QUERY, description=f"{WITH_QUERY}: the words.")
    item_id: Identifier = Field(description="The candidate.")

    @model_validator(mode="after")
    def _context_of_the_surface(self) -> Self:
        carries = self.surface.carries
        if (self.subject_item_id is not None) != (carries is Carries.subject):
            raise ValueError(f"subject_item_id belongs to the surface {WITH_SUBJECT}, which needs it")
        if (self.query is not None) != (carries is Carries.query):
            raise ValueError(f"query belongs to the surface {WITH_QUERY}, which needs it")
        return self


class NextPairRequest(Message):
    """A rater who asks for a pair to judge."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rater_id": "ann"}]})

    rater_id: Identifier = Field(description=RATER)
    skipped: list[int] = Field(
        [], max_length=MAXIMUM_SKIPPED, description="Positions of the pairs that the rater has skipped."
    )
    skipped_of: date | None = Field(
        None, description="Day of the queue that the positions are of. Without it, and of another queue, none counts."
    )


class ShownItem(Message):
    """What a rater sees of an item; null where the catalogue does not say it."""

    item_id: str
    title: str | None = None
    category: str | None = None
    price: float | None = None
    currency: str | None = None


class QueuedCandidate(Message):
    """A pair to judge: the candidate beside the subject item or the query, without what could sway a rater."""

    position: int = Field(description="Of the pair in the queue, from 0.")
    surface: Surface
    subject: ShownItem | None = None
    query: str | None = None
    candidate: ShownItem


class NextPairResponse(Message):
    """The next pair of a rater, and how far the rater is."""

    pair: QueuedCandidate | None = Field(None, description="Null: nothing is left for the rater.")
    day: date = Field(description="The queue was made after this day.")
    judged: int = Field(description="Pairs of the queue that the rater has judged.")
    left: int = Field(description="Pairs of the queue that the rater can still get, this one included.")


class Label(Place):
    """One judgement."""

    label: int = Field(ge=MINIMUM_LABEL, le=MAXIMUM_LABEL, description="1: not relevant at all; 5: as can be.")


class LabelsRequest(Message):
    """Judgements of one rater; of several labels for one pair the last counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "rater_id": "ann",
                    "labels": [
                        {"surface": "search", "query": "garden chair", "item_id": "i000001", "label": 4},
                    ],
                }
            ]
        }
    )

    rater_id: Identifier = Field(description=RATER)
    template: str = Field(GUIDELINES, min_length=1, max_length=100, description="Version of the rater's guidelines.")
    labels: list[Label] = Field(min_length=1, max_length=MAXIMUM_JUDGEMENTS)


class LabelsResponse(Message):
    """The number of labels that were accepted, or known already."""

    accepted: int = Field(description="Labels that are stored in the landing zone, corrections included.")
    known: int = Field(0, description="Labels that the rater has given to the pair before. They change nothing.")
    corrected: int = Field(0, description="Accepted labels that replace another label of the rater for the pair.")
    arrival_day: date


class FeedbackRequest(Place):
    """A report that a candidate does not fit its place. The report names no user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "feedback_id": "tap-4711",
                    "surface": "related_pins",
                    "subject_item_id": "i000001",
                    "item_id": "i000002",
                    "reason": "not_relevant",
                }
            ]
        }
    )

    feedback_id: Identifier = Field(description="A report that is sent again with this id is the same report.")
    reason: str | None = Field(None, min_length=1, max_length=200, description="A word such as not_relevant.")


class FeedbackResponse(Message):
    """Whether the report is new."""

    accepted: int = Field(description="1: the report is stored in the landing zone. 0: it is known.")
    known: int = Field(0, description="1: this process has taken the report before.")
    arrival_day: date
