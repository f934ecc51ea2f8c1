"""The sample of requests whose candidates are all logged: each with the stage that it reached, and without the user."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

import numpy as np

from serving.answer import Answered
from serving.contracts import CandidateRequest
from serving.publication import Served
from serving.relevance_scorer import Arm

TRIMMED, RANKED, AUCTIONED = "trimmed", "ranked", "auctioned"  # of ``warehouse.contracts.STAGES``
IRRELEVANT, NO_PLACE = "below the relevance threshold", "beyond the places of the answer"


def sampled_rows(
    served: Served,
    request: CandidateRequest,
    answered: Answered,
    *,
    now: datetime,
    share: float,
) -> list[dict[str, Any]]:
    """Return one row of the landing table funnel_sample for each candidate of a request.

    Args:
        share: of the requests that are sampled.
    """
    judged, places = answered.judged, {each.row for each in answered.found}
    number = {} if judged is None else {row: at for at, row in enumerate(judged.rows.tolist())}
    dropped = judged.irrelevant() if judged is not None and answered.arm is Arm.production else set()
    sample = secrets.token_hex(12)
    rows: dict[int, dict[str, Any]] = {}
    for each in (each for proposed in answered.lists for each in proposed):
        item = int(served.catalogue.listed[each.row])
        offer = served.catalogue.eligibility.offer(answered.country, each.row)
        at = number.get(each.row)
        stage, reason = (
            (TRIMMED, IRRELEVANT)
            if each.row in dropped
            else (AUCTIONED, None)
            if each.row in places
            else (RANKED, NO_PLACE)
        )
        row: dict[str, Any] = {
            "sample_id": sample,
            "sampled_at": now.isoformat(),
            "surface": request.surface.value,
            "subject_item_id": request.subject_item_id,
            "query": request.query,
            "item_id": served.catalogue.attributes.item_id[item],
            "ad_id": None if offer is None else offer.ad_id,
            "source": each.source,
            "stage": stage,
            "drop_reason": reason,
            "score": each.score,
            "arm": answered.arm.value,
            "inclusion_probability": share,
            "model_version": served.publication.model_version,
        }
        if judged is not None and at is not None and served.relevance is not None:
            seen = judged.features[at]
            row |= {
                "trim_score": float(judged.trim_score[at]),
                "relevance_version": served.relevance.model.version,
                "features": [float(value) if np.isfinite(value) else None for value in seen],
            }
        rows.setdefault(each.row, row)
    return list(rows.values())
