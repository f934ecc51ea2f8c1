"""The sample of requests whose candidates are all logged: each with the stage that it reached, and without the user."""

from __future__ import annotations

import math
import secrets
from datetime import datetime
from typing import Any

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

    A score or a feature that is not finite is null.

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
            "score": _finite(each.score),
            "arm": answered.arm.value,
            "inclusion_probability": share,
            "model_version": served.publication.model_version,
        }
        if judged is not None and at is not None and served.relevance is not None:
            row |= {
                "trim_score": _finite(judged.trim_score[at]),
                "relevance_version": served.relevance.model.version,
                "features": [_finite(value) for value in judged.features[at]],
            }
        rows.setdefault(each.row, row)
    return list(rows.values())


def _finite(value: float) -> float | None:
    """Return a number as JSON can write it; None for one that is not finite."""
    return float(value) if math.isfinite(value) else None
