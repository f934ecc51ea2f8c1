"""The meaning of each column of the landed tables, for people who look at a table in Dagster."""

from __future__ import annotations

from collections.abc import Mapping

from warehouse.contracts import LandingTable

USER_KEY = "key of the user: a keyed hash of the id that the landing zone has, and the same in all tables of the home"
_MEANINGS: Mapping[str, str] = {
    "event_id": "name of the event, unique for its user; a row that repeats it is the same event again",
    "user_id": USER_KEY,
    "event_time": "time at which the event happened, UTC",
    "event_name": "kind of the event, such as page_visit or checkout",
    "advertiser_id": "advertiser of the event, the item or the ad",
    "item_id": "item (product); null where an event names an advertiser alone, such as a signup",
    "value": "value of the conversion, in the currency of the row or of the log",
    "currency": "ISO 4217 code of the currency",
    "search_string": "text that was searched for on the advertiser's site",
    "title": "title of the item",
    "content_type": "kind of the content: shopping, standard, video or carousel",
    "category": "path of the category, levels separated by ' > '",
    "price": "price of the item",
    "availability": "word of the advertiser, such as 'in stock'",
    "countries": "countries that the item ships to or the ad may be shown in; null: every country",
    "interests": "interests of the item with their confidence, 0 to 1; derived where null",
    "embedding": "content embedding that the log brings; derived where null",
    "available_from": "time from which the item can be bought, UTC",
    "age": "age in years",
    "gender": "gender in the words of the log",
    "country": "country of the user",
    "ad_id": "ad that the candidate was shown as, or that the row describes",
    "campaign_id": "campaign of the ad",
    "bid": "what the advertiser offers for one of bid_kind, in the log's currency; null: not known",
    "bid_kind": "what the bid pays for: cpc, cpm or cpa",
    "daily_budget": "what the ad may spend on one day of the log, in the log's currency; null: no limit",
    "starts": "time from which the ad may be shown, UTC; null: no bound",
    "ends": "time before which the ad may be shown, UTC; null: no bound",
    "status": "word of the advertiser, such as active or paused; null: active",
    "request_id": "name of the onsite request",
    "request_time": "time of the onsite request, UTC",
    "surface": "surface of the request: home_feed, related_pins or search",
    "subject_item_id": "item that the user looked at",
    "query": "text that the user searched for",
    "source": "candidate generator that proposed the candidate",
    "stage": "furthest stage of the funnel that the candidate reached",
    "propensity": "probability with which the logging policy proposed the candidate",
    "price_paid": "what the advertiser paid for the impression or the click, in the log's currency",
    "inclusion_probability": "probability with which such a row is in the table at all; null: every such row is",
    "rater_id": "name of the rater that says nothing else about the person",
    "label": "judgement of the rater, 1 (not relevant at all) to 5",
    "template": "version of the guidelines that the rater had",
    "labelled_at": "time of the judgement, UTC",
    "sample_id": "random name of a sampled request, which leads to nobody",
    "sampled_at": "time of the sampled request, UTC",
    "drop_reason": "reason for which the service did not return the candidate; null: the service returned it",
    "score": "score of the generator",
    "trim_score": "probability of relevance by which the service trims, 0 to 1",
    "arm": "production, or holdout for a request that is never trimmed",
    "model_version": "version of the item model",
    "relevance_version": "version of the relevance model; null: the service had none",
    "features": "pair features as the service saw them, in the order of the relevance version",
    "feedback_id": "name that the sender gave the report",
    "given_at": "time of the report, UTC",
    "reason": "word of the sender, such as not_relevant",
}
_OF_TABLES: Mapping[tuple[LandingTable, str], str] = {
    (LandingTable.impressions, "value"): "value of the conversion that followed, in the log's currency",
}


def meaning(table: LandingTable, column: str) -> str:
    """Return the meaning of a column of a landed table.

    Raises:
        KeyError: the table has no such column.
    """
    return _OF_TABLES.get((table, column)) or _MEANINGS[column]
