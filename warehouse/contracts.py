"""The one schema of every landing table, and the costs of each table's absence.

Names follow the Pinterest Conversions API and product-feed conventions. Validation is dataframely's; the rules below
become the reasons in the quarantine tables, so their names are sentences that a person can act on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import dataframely as dy
import polars as pl

from warehouse.surfaces import Surface

EVENT_NAMES = (
    "page_visit",
    "view_category",
    "search",
    "add_to_cart",
    "remove_from_cart",
    "checkout",
    "signup",
    "lead",
    "watch_video",
    "custom",
)
NEED_NOTHING = ("search", "view_category", "custom")  # events that may name neither an item nor an advertiser
DEFAULT_POSITIVES = ("checkout", "add_to_cart", "signup")
STAGES = ("retrieved", "trimmed", "ranked", "auctioned", "impressed", "clicked", "converted")
CONTENT_TYPES = ("shopping", "standard", "video", "carousel")
ARMS = ("production", "holdout")  # of the relevance trim: the holdout is never trimmed
BID_KINDS = ("cpc", "cpm", "cpa")  # what a bid pays for: a click, a thousand impressions, an action (conversion)
MINIMUM_LABEL, MAXIMUM_LABEL = 1, 5  # of a rater: not relevant at all, and as relevant as can be
CATEGORY_SEPARATOR = " > "
MAXIMUM_ID_BYTES = 512
# Words that databases, programs and analytics write where there is nothing.
EMPTY_WORDS = (
    *("null", "NULL", "Null", "None", "none", "nan", "NaN", "NAN", "<NA>", "N/A", "n/a", "\\N", "undefined"),
    *("(not set)", "(none)", "#N/A", "nil", "NaT"),
)
# A time outside is no time of a log: 1970-01-01 and 9999-12-31 stand for "unknown".
MINIMUM_TIME, MAXIMUM_TIME = datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class LandingTable(StrEnum):
    """The tables of the landing zone."""

    events = "events"
    items = "items"
    users = "users"
    ads = "ads"
    impressions = "impressions"
    relevance_labels = "relevance_labels"
    funnel_sample = "funnel_sample"
    feedback = "feedback"


def _id(*, nullable: bool = False) -> dy.String:
    return dy.String(nullable=nullable, min_length=1, max_length=MAXIMUM_ID_BYTES)


class Event(dy.Schema):
    """One offsite conversion event. ``item_id`` is null for a signup.

    Two rows with one ``user_id`` and one ``event_id`` are the same event; an ``event_id`` says nothing across users.
    """

    event_id = _id()
    user_id = _id()
    event_time = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
    event_name = dy.String(nullable=False)
    advertiser_id = _id(nullable=True)
    item_id = _id(nullable=True)
    value = dy.Float64(nullable=True, min=0.0)
    currency = dy.String(nullable=True)
    search_string = dy.String(nullable=True)

    @dy.rule()
    def event_name_is_known(cls) -> pl.Expr:
        return pl.col("event_name").is_in(EVENT_NAMES)

    @dy.rule()
    def event_time_is_between_1990_and_2100(cls) -> pl.Expr:
        return pl.col("event_time").is_between(MINIMUM_TIME, MAXIMUM_TIME)

    @dy.rule()
    def names_an_item_or_an_advertiser_or_is_a_search(cls) -> pl.Expr:
        return (
            pl.col("item_id").is_not_null()
            | pl.col("advertiser_id").is_not_null()
            | pl.col("event_name").is_in(NEED_NOTHING)
        )


class Item(dy.Schema):
    """One product, as of the day it arrived. ``embedding`` and ``interests`` are derived when null."""

    item_id = _id()
    advertiser_id = _id(nullable=True)
    title = dy.String(nullable=True)
    content_type = dy.String(nullable=True)
    category = dy.String(nullable=True)
    price = dy.Float64(nullable=True, min=0.0)
    currency = dy.String(nullable=True)
    availability = dy.String(nullable=True)
    countries = dy.List(dy.String(), nullable=True)
    interests = dy.List(dy.Struct({"interest": dy.String(), "confidence": dy.Float64(min=0.0, max=1.0)}), nullable=True)
    embedding = dy.List(dy.Float32(), nullable=True)
    available_from = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")

    @dy.rule()
    def content_type_is_known(cls) -> pl.Expr:
        return pl.col("content_type").is_null() | pl.col("content_type").is_in(CONTENT_TYPES)

    @dy.rule()
    def embedding_is_finite(cls) -> pl.Expr:
        return pl.col("embedding").is_null() | pl.col("embedding").list.eval(pl.element().is_finite()).list.all()


class User(dy.Schema):
    """Demographics, each optional."""

    user_id = _id()
    age = dy.Int32(nullable=True, min=0, max=130)
    gender = dy.String(nullable=True)
    country = dy.String(nullable=True)


class Ad(dy.Schema):
    """One ad of an item, as of the day it arrived.

    Attributes:
        bid: what the advertiser offers for one of ``bid_kind``, in the log's currency; null: unknown.
        daily_budget: what the ad may spend on one day of the log, in the log's currency; null: without a limit.
        countries: where the ad may be shown; null: everywhere.
        starts, ends: the ad may be shown from ``starts`` on and before ``ends``; null: without such a bound.
        status: the advertiser's word, such as ``active`` or ``paused``; null: active.
    """

    ad_id = _id()
    item_id = _id()
    advertiser_id = _id(nullable=True)
    campaign_id = _id(nullable=True)
    bid = dy.Float64(nullable=True, min=0.0)
    bid_kind = dy.String(nullable=True)
    daily_budget = dy.Float64(nullable=True, min=0.0)
    countries = dy.List(dy.String(), nullable=True)
    starts = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")
    ends = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")
    status = dy.String(nullable=True)

    @dy.rule()
    def bid_kind_is_known(cls) -> pl.Expr:
        return pl.col("bid_kind").is_null() | pl.col("bid_kind").is_in(BID_KINDS)


class Impression(dy.Schema):
    """One candidate of one onsite request and the furthest stage of the funnel that it reached.

    Attributes:
        ad_id: the ad that the candidate was shown as.
        propensity: the probability with which the logging policy proposed the candidate.
        price_paid: what the advertiser paid for the impression or the click, in the log's currency.
        value: what the conversion was worth, in the log's currency.
        inclusion_probability: the probability with which such a row is logged at all; null: every such row is. A log
            that holds all impressions, and one in a hundred of the other candidates, has 1 and .01.
    """

    request_id = _id()
    request_time = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
    user_id = _id()
    surface = dy.String(nullable=False)
    subject_item_id = _id(nullable=True)
    query = dy.String(nullable=True)
    item_id = _id()
    source = dy.String(nullable=True)
    stage = dy.String(nullable=False)
    ad_id = _id(nullable=True)
    propensity = dy.Float64(nullable=True, min_exclusive=0.0, max=1.0)
    price_paid = dy.Float64(nullable=True, min=0.0)
    value = dy.Float64(nullable=True, min=0.0)
    inclusion_probability = dy.Float64(nullable=True, min_exclusive=0.0, max=1.0)

    @dy.rule()
    def surface_is_known(cls) -> pl.Expr:
        return pl.col("surface").is_in([surface.value for surface in Surface])

    @dy.rule()
    def stage_is_known(cls) -> pl.Expr:
        return pl.col("stage").is_in(STAGES)


class RelevanceLabel(dy.Schema):
    """The judgement of one rater: how well an item fits the subject item or the query, 1 (not at all) to 5.

    Attributes:
        rater_id: a name for the rater that says nothing else about the person.
        template: the version of the guidelines that the rater had.
        stage: the furthest stage of the funnel that the candidate reached; null: not known.
        inclusion_probability: the probability with which such a candidate is given to raters; null: not known.
    """

    surface = dy.String(nullable=False)
    subject_item_id = _id(nullable=True)
    query = dy.String(nullable=True)
    item_id = _id()
    rater_id = _id()
    label = dy.Int32(nullable=False, min=MINIMUM_LABEL, max=MAXIMUM_LABEL)
    template = dy.String(nullable=True)
    labelled_at = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
    stage = dy.String(nullable=True)
    inclusion_probability = dy.Float64(nullable=True, min_exclusive=0.0, max=1.0)

    @dy.rule()
    def surface_is_known(cls) -> pl.Expr:
        return pl.col("surface").is_in([surface.value for surface in Surface])

    @dy.rule()
    def names_a_subject_item_or_a_query(cls) -> pl.Expr:
        return pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null()

    @dy.rule()
    def stage_is_known(cls) -> pl.Expr:
        return pl.col("stage").is_null() | pl.col("stage").is_in(STAGES)


class FunnelCandidate(dy.Schema):
    """One candidate of a request that the service has sampled, without the user.

    Attributes:
        sample_id: a random name of the request, which leads to nobody.
        stage: the furthest stage that the candidate reached in the service.
        drop_reason: the reason for which the service did not return the candidate; null: the service returned it.
        score: of the generator. trim_score: the probability of relevance by which the service trims, 0 to 1.
        arm: ``production``, or ``holdout`` for a request of the holdout, which is never trimmed.
        inclusion_probability: the probability with which a request is sampled.
        model_version: of the item model. relevance_version: of the relevance model; null: the service had none.
        features: the pair features as the service saw them, in the order of the relevance version; null: not known.
    """

    sample_id = _id()
    sampled_at = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
    surface = dy.String(nullable=False)
    subject_item_id = _id(nullable=True)
    query = dy.String(nullable=True)
    item_id = _id()
    ad_id = _id(nullable=True)
    source = dy.String(nullable=False)
    stage = dy.String(nullable=False)
    drop_reason = dy.String(nullable=True)
    score = dy.Float64(nullable=True)
    trim_score = dy.Float64(nullable=True, min=0.0, max=1.0)
    arm = dy.String(nullable=False)
    inclusion_probability = dy.Float64(nullable=False, min_exclusive=0.0, max=1.0)
    model_version = dy.String(nullable=True)
    relevance_version = dy.String(nullable=True)
    features = dy.List(dy.Float32(nullable=True), nullable=True)

    @dy.rule()
    def surface_is_known(cls) -> pl.Expr:
        return pl.col("surface").is_in([surface.value for surface in Surface])

    @dy.rule()
    def stage_is_known(cls) -> pl.Expr:
        return pl.col("stage").is_in(STAGES)

    @dy.rule()
    def arm_is_known(cls) -> pl.Expr:
        return pl.col("arm").is_in(ARMS)


class Feedback(dy.Schema):
    """A report of dissatisfaction: somebody found that an ad does not fit its place. The report names no user.

    Attributes:
        feedback_id: a name that the sender gives the report: a report that is sent again is the same report.
        reason: the sender's word, such as ``not_relevant``.
    """

    feedback_id = _id()
    given_at = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
    surface = dy.String(nullable=False)
    subject_item_id = _id(nullable=True)
    query = dy.String(nullable=True)
    item_id = _id()
    reason = dy.String(nullable=True)

    @dy.rule()
    def surface_is_known(cls) -> pl.Expr:
        return pl.col("surface").is_in([surface.value for surface in Surface])


SCHEMAS: dict[LandingTable, type[dy.Schema]] = {
    LandingTable.events: Event,
    LandingTable.items: Item,
    LandingTable.users: User,
    LandingTable.ads: Ad,
    LandingTable.impressions: Impression,
    LandingTable.relevance_labels: RelevanceLabel,
    LandingTable.funnel_sample: FunnelCandidate,
    LandingTable.feedback: Feedback,
}

# What tells two rows of a table apart. Of two with one key in one arrival the first read stays (events: the earliest).
KEYS: dict[LandingTable, tuple[str, ...]] = {
    LandingTable.events: ("user_id", "event_id"),
    LandingTable.items: ("item_id",),
    LandingTable.users: ("user_id",),
    LandingTable.ads: ("ad_id",),
    LandingTable.impressions: ("request_id", "item_id"),
    LandingTable.relevance_labels: ("surface", "subject_item_id", "query", "item_id", "rater_id", "labelled_at"),
    LandingTable.funnel_sample: ("sample_id", "item_id"),
    LandingTable.feedback: ("feedback_id",),
}

VERSIONED = (LandingTable.items, LandingTable.users, LandingTable.ads)
"""The tables of which a later row with the same key is a newer version; elsewhere it is the same row again."""

REQUIRED_COLUMNS: dict[LandingTable, tuple[str, ...]] = {
    LandingTable.events: ("event_id", "user_id", "event_time", "event_name"),
    LandingTable.items: ("item_id",),
    LandingTable.users: ("user_id",),
    LandingTable.ads: ("ad_id", "item_id"),
    LandingTable.impressions: ("request_id", "request_time", "user_id", "surface", "item_id", "stage"),
    LandingTable.relevance_labels: ("surface", "item_id", "rater_id", "label", "labelled_at"),
    LandingTable.funnel_sample: (
        "sample_id",
        "sampled_at",
        "surface",
        "item_id",
        "source",
        "stage",
        "arm",
        "inclusion_probability",
    ),
    LandingTable.feedback: ("feedback_id", "given_at", "surface", "item_id"),
}

LIMITS: dict[LandingTable, tuple[str, ...]] = {LandingTable.ads: ("daily_budget",)}
"""The numbers whose absence lifts a limit. A row with such a number that cannot be read is quarantined."""
