"""The parameters of the synthetic world, each with its reason.

Set before any model was trained on the world, but not blindly: the volumes were fitted to a sparse, heavy-tailed log,
and five values (favourite_leaves and how steeply favourites are loved, complement_probability,
session_end_probability, demographic_spread) were moved once, after a hand-made heuristic had shown how much of the
oracle's lead came from tastes that no log shows. They stay as they are from here on.
"""

from __future__ import annotations

import zlib
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from warehouse.world.market.settings import MarketSettings


class WorldSettings(BaseModel):
    """The settings of a world: equal settings give equal worlds, row for row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edition: Literal[2] = Field(2, description="Another number is a world of other rules.")
    seed: int = Field(0, ge=0, description="Every random stream derives from it, the day and a purpose.")
    first_daily_day: date = Field(
        date(2026, 3, 1), description="The day after the history ends; fixed, so that runs on different dates agree."
    )
    history_days: int = Field(
        240, ge=8, description="Eight months: several 28-day windows to learn from, and time for popularity to drift."
    )

    # People
    initial_users: int = Field(7200, ge=1, description="Users on the first day of the history.")
    new_users_per_day: int = Field(
        8, ge=0, description="About a fifth of the users join during the history, as in a growing service."
    )
    regular_share: float = Field(
        0.28, ge=0, le=1, description="Share of regular shoppers. They make nearly all events, most users make few."
    )
    regular_sessions_per_day: float = Field(
        0.18, gt=0, description="Median of the regulars: a shopping session every five to six days."
    )
    occasional_sessions_per_day: float = Field(
        0.005, gt=0, description="Median of the others: about one session in all, so the median history is below ten."
    )
    activity_spread: float = Field(
        0.75,
        ge=0,
        description="Standard deviation of log activity in both groups: the heavy tail to a thousand events.",
    )
    session_visits: float = Field(
        1.3, ge=0, description="Mean page visits of a session beyond the first; offsite tags see short sessions."
    )
    favourite_leaves: int = Field(
        3,
        ge=1,
        description="Leaf categories that a user comes back to; few, so that a history of some months shows them.",
    )
    favourite_share: float = Field(
        0.65, ge=0, le=1, description="Share of unprompted intents that start in a favourite leaf, the rest anywhere."
    )
    demographic_spread: float = Field(
        0.9,
        ge=0,
        description="Standard deviation of log affinity between demographics and leaves: a factor of two or three.",
    )
    missing_demographics: float = Field(
        0.1, ge=0, le=1, description="Share of each demographic that is unknown; users need not say."
    )

    # Catalogue
    departments: int = Field(12, ge=1, le=12, description="Departments, of 4 categories with 3 leaves each.")
    initial_items: int = Field(4000, ge=1, description="Items on the first day of the history.")
    new_items_per_day: int = Field(4, ge=0, description="A fifth of the catalogue is new within eight months.")
    advertisers: int = Field(250, ge=1, description="About twenty items each, as with small and medium shops.")
    leaves_per_advertiser: int = Field(5, ge=1, description="Advertisers specialise in a few leaves of one department.")
    leaf_exponent: float = Field(0.6, ge=0, description="Power law of leaf sizes and of the interest in leaves.")
    popularity_exponent: float = Field(0.8, ge=0, description="Power law of item popularity by rank within a leaf.")
    popularity_drift: float = Field(
        0.7, ge=0, description="Amplitude of log-popularity swings (a factor of two either way) of 60 to 300 days."
    )
    freshness_boost: float = Field(1.0, ge=0, description="Log-popularity of a new item on top; launches are promoted.")
    freshness_days: float = Field(14.0, gt=0, description="Decay time of the launch boost.")
    restricted_share: float = Field(0.1, ge=0, le=1, description="Items that ship to one to three countries only.")
    price_changes_per_day: float = Field(
        0.005, ge=0, le=1, description="Share of items whose price changes on a daily day, so that versions differ."
    )
    embedding_dimensions: int = Field(32, ge=24, description="Width of the observed content embedding.")
    embedding_noise: float = Field(
        0.6, ge=0, description="Noise norm against a unit latent vector: content says much about an item, not all."
    )

    # Intents
    style_strength: float = Field(
        3.0, ge=0, description="Log-odds between matching and unrelated style: e^3 = 20, so taste outweighs popularity."
    )
    style_loyalty: float = Field(
        0.7, ge=0, le=1, description="Cosine-like share of a user's lasting style in the style of one intent."
    )
    price_strength: float = Field(0.5, ge=0, description="Log-odds lost per squared step between price levels.")
    advertiser_loyalty: float = Field(
        1.2, ge=0, description="Log-odds gained by the advertiser visited first in the intent: a factor of three."
    )
    focus: float = Field(0.8, ge=0, le=1, description="Share of sessions on the newest living intent.")
    new_intent_probability: float = Field(
        0.06, ge=0, le=1, description="A session opens an unprompted intent beside the living ones this often."
    )
    daily_end_probability: float = Field(1 / 60, ge=0, le=1, description="Interest fades within about two months.")
    session_end_probability: float = Field(
        0.06, ge=0, le=1, description="A session that bought nothing ends the intent this often (bought elsewhere)."
    )
    deepen_probability: float = Field(0.5, ge=0, le=1, description="A session takes the intent one stage deeper.")
    cart_probabilities: tuple[float, float, float] = Field(
        (0.04, 0.14, 0.3), description="add_to_cart per page visit by stage: browsing, comparing, deciding."
    )
    checkout_probability: float = Field(
        0.45, ge=0, le=1, description="A session with something in the cart ends in a checkout: carts are often left."
    )
    complement_probability: float = Field(
        0.85, ge=0, le=1, description="A checkout opens the complementary intent (armchair, then lamp) in its style."
    )
    complement_drift: float = Field(
        0.3, ge=0, description="Noise on the style handed to the complement, against a unit style vector."
    )
    signup_probability: float = Field(0.05, ge=0, le=1, description="A new intent begins with a newsletter signup.")
    search_probability: float = Field(0.08, ge=0, le=1, description="A session begins with a shop search.")

    # Delivery
    late_share: float = Field(0.015, ge=0, le=1, description="Events that arrive one to three days late.")
    duplicate_share: float = Field(0.002, ge=0, le=1, description="Events sent twice (tag and server both report).")

    # On-site surfaces
    impression_days: int = Field(
        75, ge=0, description="Days of the history with advertisements on site, and with an impression log: a launch."
    )
    request_share: float = Field(
        0.03,
        ge=0,
        le=1,
        description="Share of the users with a logged request a day; a logging sample, not all traffic.",
    )
    related_pins_share: float = Field(0.6, ge=0, le=1, description="Share of requests on related_pins.")
    search_share: float = Field(0.2, ge=0, le=1, description="Share of requests on search; the rest is home_feed.")
    intent_subject_share: float = Field(
        0.45, ge=0, le=1, description="Subjects drawn from the current intent; the rest is exploration."
    )
    market: MarketSettings = Field(MarketSettings(), description="Advertisements, generators and the funnel.")
    relevance_labels: int = Field(
        6000, ge=0, description="Pairs in the history that two raters judged: continuous labelling by a crowd."
    )
    labels_per_day: int = Field(
        240, ge=0, description="Pairs that two raters judge a day afterwards: twenty requests, which ten raters manage."
    )
    rater_noise: float = Field(0.7, ge=0, description="Standard deviation of a rater on the five-point scale.")

    @property
    def start(self) -> date:
        """Return the first day of the history; day number 0."""
        return self.first_daily_day - timedelta(days=self.history_days)

    def day_number(self, day: date) -> int:
        """Return the number of days since the start of the world."""
        return (day - self.start).days

    def day_date(self, number: int) -> date:
        return self.start + timedelta(days=number)

    def midnight(self, number: int) -> datetime:
        """Return the UTC instant at which a day begins."""
        return datetime.combine(self.day_date(number), datetime.min.time(), tzinfo=UTC)

    def generator(self, purpose: str, day: int = 0, stream: int = 0) -> np.random.Generator:
        """Return the random stream of one purpose on one day.

        The stream is independent of all others, so that any day can be redone.
        """
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode()), day, stream])
