"""The JSON of an answer, joined from parts that are JSON already.

Fifty candidates are written a request. To make an object of each, and to write the object, takes longer than the
search; so the attributes of an item are written once a publication, and an offer once. The contract is
``contracts.CandidateResponse``, which the tests read every answer with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from serving.catalogue import Catalogue
from serving.contracts import Explanation
from serving.generators import Scored
from warehouse.best_ads import Offer

REMEMBERED_OFFERS = 100_000


def candidates_json(
    catalogue: Catalogue,
    found: Sequence[Scored],
    *,
    country: str | None,
    relevance: Mapping[int, float],
    reasons: Sequence[Explanation | None],
) -> str:
    """Return the array of candidates: fields that say nothing are left out.

    Args:
        country: whose ads are offered. relevance: by index row. reasons: of each of ``found``.
    """
    members, offer_of = catalogue.members, catalogue.eligibility.offer
    items = catalogue.listed[np.array([each.row for each in found], np.int64)].tolist()
    written = []
    for each, item, reason in zip(found, items, reasons, strict=True):
        candidate = f'{members[item]},"score":{_number(each.score)},"source":{_text(each.source)}'
        if (fit := relevance.get(each.row)) is not None:
            candidate += f',"relevance":{_number(fit)}'
        if (offer := offer_of(country, each.row)) is not None:
            candidate += f",{_offer(offer)}"
        if reason is not None:
            candidate += f',"explanation":{reason.model_dump_json(exclude_none=True)}'
        written.append(candidate)
    return "[{" + "},{".join(written) + "}]" if written else "[]"


def response_json(candidates: str, **others: object) -> bytes:
    """Return the body of an answer: fields that say nothing are left out.

    Args:
        candidates: the array. others: the other fields of ``contracts.CandidateResponse``.
    """
    said = {name: value for name, value in others.items() if value is not None}
    return f'{{"candidates":{candidates},{json.dumps(said, ensure_ascii=False)[1:]}'.encode()


def _number(value: float) -> str:
    """Return a number; null for one that JSON cannot write."""
    return repr(value) if math.isfinite(value) else "null"


@lru_cache(maxsize=100)
def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=REMEMBERED_OFFERS)
def _offer(offer: Offer) -> str:
    """Return the members of a candidate that name its ad."""
    said = {"ad_id": offer.ad_id, "bid": offer.bid, "bid_kind": offer.bid_kind}
    return json.dumps({name: value for name, value in said.items() if value is not None}, ensure_ascii=False)[1:-1]
