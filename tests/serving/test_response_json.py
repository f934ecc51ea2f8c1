"""The joined JSON of an answer says what the catalogue, the ads and the scores say, and nothing that says nothing."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl

from serving.catalogue import CARRIED, Catalogue
from serving.contracts import CandidateResponse, Explanation
from serving.generators import Scored
from serving.response_json import candidates_json, response_json
from warehouse.best_ads import Offer

ODD = 'a "quoted" \\ title,\n{é} \u2028 \x01 日本'
ITEMS = pl.DataFrame(
    {
        "item_id": ["}odd{", "plain", "bare"],
        "advertiser_id": ["a1", "a2", None],
        "title": [ODD, "A title", None],
        "category_path": ["Home > Ümlaut", None, None],
        "amount": [1e-7, 19.9, None],
        "currency": ["EUR", "USD", None],
    }
)


def catalogue(offers: dict[int, Offer]) -> Catalogue:
    listed = np.array([2, 0, 1])
    unread: Any = None
    members = Catalogue(
        frame=ITEMS, features=unread, tensors=unread, listed=listed, popularity=unread, ads=None
    ).members
    eligibility = SimpleNamespace(offer=lambda country, row: offers.get(row) if country == "DE" else None)
    return cast("Catalogue", SimpleNamespace(members=members, listed=listed, eligibility=eligibility))


def written(found: list[Scored], *, country: str | None = "DE", reason: Explanation | None = None) -> Any:
    offers = {1: Offer('ad "1"', 0.25, "cpc"), 2: Offer("ad-2", None, None)}
    return json.loads(
        candidates_json(catalogue(offers), found, country=country, relevance={1: 0.5}, reasons=[reason] * len(found))
    )


def test_each_candidate_carries_its_item_its_offer_and_its_scores() -> None:
    found = [Scored(1, 0.1, 'own "source"'), Scored(2, -2.0, "other"), Scored(0, math.nan, "other")]
    odd, plain, bare = written(found)
    assert odd == {
        **{name: ITEMS[column][0] for column, name in CARRIED.items()},
        "score": 0.1,
        "source": 'own "source"',
        "relevance": 0.5,
        "ad_id": 'ad "1"',
        "bid": 0.25,
        "bid_kind": "cpc",
    }
    assert plain == {
        "item_id": "plain",
        "advertiser_id": "a2",
        "title": "A title",
        "price": 19.9,
        "currency": "USD",
        "score": -2.0,
        "source": "other",
        "ad_id": "ad-2",
    }
    assert bare == {"item_id": "bare", "score": None, "source": "other"}


def test_a_country_without_offers_has_none_and_an_explanation_lacks_what_is_not_known() -> None:
    reason = Explanation(parts={"learned": 0.5}, events=[], subject_similarity=None)
    (candidate,) = written([Scored(1, 0.1, "own")], country=None, reason=reason)
    assert "ad_id" not in candidate
    assert candidate["explanation"] == {"parts": {"learned": 0.5}, "events": [], "shared_interests": []}


def test_a_body_is_a_response_with_and_without_candidates() -> None:
    for candidates, count in (('[{"item_id":"é","score":1.0,"source":"own"}]', 1), ("[]", 0)):
        body = response_json(
            candidates, basis="history", interests={"é": 0.5}, model_version="1", day="2026-03-01", subject_known=None
        )
        assert "subject_known" not in json.loads(body)
        read = CandidateResponse.from_json(body)
        assert len(read.candidates) == count
        assert read.interests == {"é": 0.5}
