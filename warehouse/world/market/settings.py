"""The parameters of the market, each with its reason.

They were chosen for realism before any model was trained on this market, and are not moved to suit a model.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MarketSettings(BaseModel):
    """The ads, the legacy generators, the stages after them, and the effect of a click."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Ads
    flight_days: float = Field(
        60.0, gt=0, description="Mean length of the time for which an ad runs: campaigns last some months."
    )
    pause_days: float = Field(
        8.0, ge=0, description="Mean time between two ads of an item: a fifth of the items is not advertised on a day."
    )
    paused_share: float = Field(0.05, ge=0, le=1, description="Ads that their advertiser pauses before they end.")
    bid_level: float = Field(
        2.0, gt=0, description="Bid for a conversion in dollars at a price of 1: about a tenth of a price of 50."
    )
    bid_price_exponent: float = Field(
        0.3, ge=0, description="Bids grow more slowly than prices: cheap goods spend a larger share on advertising."
    )
    bid_spread: float = Field(
        0.4, ge=0, description="Standard deviation of the log bid at one price: advertisers value a customer otherwise."
    )
    local_share: float = Field(0.15, ge=0, le=1, description="Ads for one country only.")
    budgeted_share: float = Field(
        0.3, ge=0, le=1, description="Ads with a daily budget that can run out; the others have enough."
    )
    daily_budget: float = Field(
        0.05,
        gt=0,
        description="Median daily budget in dollars of those, for the logged sample of the traffic: a few impressions.",
    )
    budget_spread: float = Field(1.0, ge=0, description="Standard deviation of the log budget: small and large shops.")

    # Legacy generators: the expected number of draws a request; an item that is drawn twice is one candidate.
    category_draws: float = Field(45.0, ge=0, description="From the subject's leaf: the surface's main generator.")
    sibling_draws: float = Field(40.0, ge=0, description="From the other leaves of the subject's category.")
    complement_draws: float = Field(25.0, ge=0, description="From the leaf that completes the subject's.")
    profile_draws: float = Field(
        60.0, ge=0, description="From the leaves that the user shops in, without a look at the subject."
    )
    popular_draws: float = Field(80.0, ge=0, description="From everything: untargeted campaigns buy reach.")

    # Relevance to the subject: a level of closeness by category, and what a shopper sees beyond the category.
    same_leaf: float = Field(0.5, description="An item of the subject's own leaf.")
    complement_leaf: float = Field(0.45, description="An item that completes the subject: a lamp beside an armchair.")
    same_category: float = Field(0.38, description="An item of a sibling leaf.")
    same_department: float = Field(0.2, description="An item of the department only.")
    style_relevance: float = Field(
        0.3, description="Gained or lost by style: a rustic bench beside a rustic table, not beside a polished one."
    )
    use_relevance: float = Field(0.15, description="Gained by the same use: a gift beside a gift.")
    price_relevance: float = Field(0.05, description="Lost per squared step between price levels, at most four times.")

    # Interest of the user, in log-odds of a click; 1 is an item of a living intent in the intent's style.
    favourite_interest: float = Field(0.35, description="An item of a favourite leaf without a living intent.")
    style_interest: float = Field(0.5, description="Of the lasting style of the user.")
    price_interest: float = Field(0.12, description="Lost per squared step between price levels.")
    click_base: float = Field(-5.0, description="Log-odds of a click without relevance and interest: one in 150.")
    click_relevance: float = Field(2.5, description="Log-odds of a click between no relevance and full relevance.")
    click_interest: float = Field(1.5, description="Log-odds of a click for one step of interest.")
    conversion_base: float = Field(-4.2, description="Log-odds of a conversion after a click without interest: 1.5 %.")
    conversion_relevance: float = Field(0.5, description="Log-odds of a conversion for full relevance.")
    conversion_interest: float = Field(
        2.0,
        description="Log-odds of a conversion for one step of interest: buying needs a need more than a click does.",
    )

    # Stages
    trim_noise: float = Field(0.1, ge=0, description="Error of the relevance model, on the scale of relevance 0..1.")
    minimum_relevance: float = Field(0.3, description="The trim drops a lower estimate: below 'same category'.")
    light_noise: float = Field(0.6, ge=0, description="Error of the light ranking's log score: it has few features.")
    light_size: int = Field(30, ge=1, description="Candidates that the light ranking passes on.")
    heavy_noise: float = Field(0.3, ge=0, description="Error of each heavy model, in log-odds.")
    relevance_weight: float = Field(1.0, ge=0, description="Weight of relevance in the log score of the auction.")
    reserve: float = Field(0.001, gt=0, description="Lowest price of an impression in dollars: a CPM of 1.")
    slots: int = Field(4, ge=1, description="Ads shown on a request.")
    participation_floor: float = Field(
        0.1, gt=0, le=1, description="An ad's pacing lets it take part in one request of ten at least."
    )

    # The log, and the effect on the user
    complete_share: float = Field(
        0.3, ge=0, le=1, description="Requests logged with all candidates; of the others the impressions are logged."
    )
    click_opens_intent: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A click that begins or turns an intent: every other one stays without consequence.",
    )
