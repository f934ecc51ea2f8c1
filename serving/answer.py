"""From a request to candidates: read the user, build the context, run the head, search, blend, explain."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ml.models.request_head import RequestContext
from serving.contracts import (
    Basis,
    Candidate,
    CandidateRequest,
    CandidateResponse,
    Demographics,
    Explanation,
    HistoryEvent,
    HistoryRequest,
    HistoryResponse,
)
from serving.explain import explain
from serving.generators import Popularity, Query, Scored
from serving.prometheus import Stage, Stopwatch
from serving.propose import Proposers
from serving.publication import Served
from serving.refresh import catch_up
from serving.relevance_scorer import Arm, Judged, arm_of
from serving.trim import SPARE, Trim
from serving.users import KnownUser, buckets_of, read_user
from warehouse.online import OnlineStore
from warehouse.surfaces import Carries

logger = logging.getLogger(__name__)
SHOWN_EVENTS = 20


@dataclass(frozen=True)
class Place:
    """The place that a request comes from, in the terms of the model."""

    context: RequestContext
    subject: int | None  # catalogue row
    interests: dict[str, float]


@dataclass(frozen=True)
class Proposed:
    """What the generators propose for a request, before the trim.

    Attributes:
        lists: of each generator; one list of popular items where nothing is known of the user and the place.
        trim: None where the place has no relevance.
    """

    query: Query
    place: Place
    basis: Basis
    lists: list[list[Scored]]
    trim: Trim | None

    def chosen(self, lists: Sequence[Sequence[Scored]], proposers: Proposers, places: int) -> list[Scored]:
        """Return the candidates of an answer, of what is left of the lists: the first of popular items, or a blend."""
        if self.basis is Basis.popularity:
            return list(lists[0][:places])
        return proposers.blend(lists, places)


@dataclass(frozen=True)
class Answered:
    """An answer, and the candidates that it was chosen from.

    Attributes:
        lists: of each generator; one list of popular items where nothing is known of the user and the place.
        found: the candidates of the answer, best first.
        judged: the relevance of all candidates; None where the place has none.
    """

    response: CandidateResponse
    lists: list[list[Scored]]
    found: list[Scored]
    judged: Judged | None
    arm: Arm
    country: str | None


def answer(
    served: Served,
    store: OnlineStore,
    request: CandidateRequest,
    *,
    proposers: Proposers,
    watch: Stopwatch,
    holdout_share: float = 0.0,
) -> Answered:
    """Return the candidates for one request, all under one publication.

    Args:
        holdout_share: share of the users whose candidates are not trimmed.
    """
    key = served.keys.key(request.user_id).encode()
    arm = arm_of(key, holdout_share)
    return answer_under(served, store, request, key=key, arm=arm, proposers=proposers, watch=watch)


def answer_under(
    served: Served,
    store: OnlineStore,
    request: CandidateRequest,
    *,
    key: bytes,
    arm: Arm,
    proposers: Proposers,
    watch: Stopwatch,
) -> Answered:
    """Return the candidates for one request of the user with a key, under an arm, as ``answer``."""
    proposed = propose_under(served, store, request, key=key, arm=arm, proposers=proposers, watch=watch)
    lists, trim = proposed.lists, proposed.trim
    with watch.stage(Stage.trim):
        judged = _judged(trim, lists, watch) if trim else None
        kept = trim.kept(lists, judged) if trim and judged else lists
    with watch.stage(Stage.response):
        found = proposed.chosen(kept, proposers, request.k)
        response = _response(served, request, proposed, found=found, judged=judged)
    return Answered(response, lists, found, judged, arm, proposed.query.country)


def propose_under(
    served: Served,
    store: OnlineStore,
    request: CandidateRequest,
    *,
    key: bytes,
    arm: Arm,
    proposers: Proposers,
    watch: Stopwatch,
) -> Proposed:
    """Return what ``answer_under`` chooses from."""
    now = datetime.now(UTC)
    with watch.stage(Stage.store):
        user = read_user(store, served.publication, key)
    watch.metrics.note_damaged(user.damaged)
    if user.is_behind:
        with watch.stage(Stage.encoder):
            caught_up = catch_up(served, store, key, now)
            watch.metrics.note_unwritten(caught_up.unwritten)
            user = replace(user, state=caught_up.state or user.state)
    with watch.stage(Stage.head):
        place = _place(served, request)
        demographics = _merged(user.demographics, request.demographics)
        state = None if user.state is None else user.state.state
        vector = served.embed(state, place.context, buckets_of(demographics))
        basis = _basis(user, place.context.present)
        trim = _trim(served, request, place, arm)
    with watch.stage(Stage.filters):
        allowed = served.catalogue.allowed(request.filters, demographics.country, served.publication.instant(now))
        _hide(served, allowed, place, user)
    with watch.stage(Stage.search):
        query = Query(user, vector, allowed, request.filters.country or demographics.country)
        wanted = request.k if trim is None else SPARE * request.k
        lists = None
        if basis is not Basis.popularity:
            lists = proposers.propose(served, query, wanted, metrics=watch.metrics)
        if lists is None:  # nothing is known, or every generator has failed
            basis, lists = Basis.popularity, [Popularity().generate(served, query, wanted)]
    return Proposed(query, place, basis, lists, trim)


def _judged(trim: Trim, lists: list[list[Scored]], watch: Stopwatch) -> Judged | None:
    """Return the relevance of the candidates; None, counted, where it cannot be computed: the answer stands."""
    try:
        return trim.judge(lists)
    except Exception:
        logger.exception("the relevance of candidates cannot be computed: the answer is not trimmed")
        watch.metrics.untrimmed.inc()
        return None


def _trim(served: Served, request: CandidateRequest, place: Place, arm: Arm) -> Trim | None:
    """Return the trim of a request; None without a relevance model, a subject item or a query."""
    scorer = served.relevance
    about = scorer.place(request.surface, place.subject, request.query) if scorer else None
    return None if scorer is None or about is None else Trim(scorer, request.surface, about, arm)


def _place(served: Served, request: CandidateRequest) -> Place:
    subject = None
    if request.subject_item_id is not None:
        subject = served.catalogue.row_of.get(request.subject_item_id)
    interests = dict(request.interests)
    if request.query is not None and served.matcher is not None:
        interests = {**served.matcher.interests(request.query), **interests}
    return Place(served.context(subject, interests, request.query), subject, interests)


def _merged(known: Demographics, given: Demographics | None) -> Demographics:
    """Return the demographics of the store; a value that the request gives replaces the stored value."""
    return known if given is None else known.model_copy(update=given.model_dump(exclude_none=True))


def _basis(user: KnownUser, in_context: bool) -> Basis:
    if user.state is None:
        return Basis.context if in_context else Basis.popularity
    return Basis.history_and_context if in_context else Basis.history


def _hide(served: Served, allowed: NDArray[np.bool_], place: Place, user: KnownUser) -> None:
    """Remove the subject from ``allowed`` and, unless repeats count, the items of the user's own history."""
    hidden = [] if place.subject is None else [place.subject]
    if not served.publication.repeats_count:
        rows = (served.catalogue.row_of.get(item_id) for item_id in user.seen)
        hidden += [row for row in rows if row is not None]
    listed = served.catalogue.index_row_of[hidden] if hidden else np.zeros(0, np.int64)
    allowed[listed[listed >= 0]] = False


def _response(
    served: Served,
    request: CandidateRequest,
    proposed: Proposed,
    *,
    found: list[Scored],
    judged: Judged | None,
) -> CandidateResponse:
    query, place, basis = proposed.query, proposed.place, proposed.basis
    publication, user = served.publication, query.user
    relevance = {} if judged is None else dict(zip(judged.rows.tolist(), judged.relevance.tolist(), strict=True))
    age = None
    if user.state is not None:
        age = max(0.0, datetime.now(UTC).timestamp() - user.state.stamp / 1e6)
    reasons = (
        explain(served, query, place.subject, interests=place.interests, found=found)
        if request.explain
        else [None] * len(found)
    )
    return CandidateResponse(
        candidates=_candidates(served, query, found, relevance=relevance, reasons=reasons),
        basis=basis,
        subject_known=None if request.surface.carries is not Carries.subject else place.subject is not None,
        interests=place.interests,
        model_version=publication.model_version,
        advertiser_version=publication.advertiser_version,
        relevance_version=served.relevance.model.version if served.relevance else None,
        day=publication.day,
        state_age_seconds=age,
    )


def _candidates(
    served: Served,
    query: Query,
    found: Sequence[Scored],
    *,
    relevance: Mapping[int, float],
    reasons: Sequence[Explanation | None],
) -> list[Candidate]:
    """Return the candidates of an answer.

    Args:
        relevance: by index row. reasons: of each of ``found``.
    """
    of, offer_of = served.catalogue.attributes, served.catalogue.eligibility.offer
    rows = served.catalogue.listed[np.array([each.row for each in found], np.int64)].tolist()
    candidates = []
    for each, row, reason in zip(found, rows, reasons, strict=True):
        offer = offer_of(query.country, each.row)
        candidates.append(
            Candidate(
                item_id=of.item_id[row],
                advertiser_id=of.advertiser_id[row],
                title=of.title[row],
                category=of.category_path[row],
                price=of.amount[row],
                currency=of.currency[row],
                score=each.score,
                source=each.source,
                relevance=relevance.get(each.row),
                ad_id=None if offer is None else offer.ad_id,
                bid=None if offer is None else offer.bid,
                bid_kind=None if offer is None else offer.bid_kind,
                explanation=reason,
            )
        )
    return candidates


def history(served: Served, store: OnlineStore, request: HistoryRequest) -> HistoryResponse:
    """Return the user's newest events and the subject, for a person who looks at the candidates."""
    of, rows = served.catalogue.attributes, served.catalogue.row_of
    events = []
    key = served.keys.key(request.user_id).encode()
    for event in reversed(read_user(store, served.publication, key).history):
        row = None if event.item_id is None else rows.get(event.item_id)
        events.append(
            HistoryEvent(
                event_time=event.event_time,
                event_name=event.event_name,
                item_id=event.item_id,
                title=None if row is None else of.title[row],
                category=None if row is None else of.category_path[row],
            )
        )
    row = None if request.subject_item_id is None else rows.get(request.subject_item_id)
    if row is None:
        return HistoryResponse(events=events[:SHOWN_EVENTS])
    about = " · ".join(filter(None, [of.title[row] or of.item_id[row], of.category_path[row]]))
    return HistoryResponse(events=events[:SHOWN_EVENTS], subject=about)
