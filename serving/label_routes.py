"""The operations for raters: the next pair of the labelling queue, judgements, and reports of bad candidates."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, status
from fastapi.responses import FileResponse

from serving.label_contracts import (
    FeedbackRequest,
    FeedbackResponse,
    LabelsRequest,
    LabelsResponse,
    NextPairRequest,
    NextPairResponse,
)
from serving.middleware.auth_and_timing import open_to_all
from serving.openapi import ASKED, WITHOUT_A_QUEUE
from serving.service import PAGE_POLICY, TheService, writing_to_the_landing_zone
from serving.take_labels import NoQueue, NotQueued
from warehouse.contracts import LandingTable
from warehouse.tables import TableDamaged

logger = logging.getLogger(__name__)
LABEL_PAGE = Path(__file__).with_name("label.html")


def add_label_routes(app: FastAPI) -> None:
    """Add the operations to the application."""

    @app.get("/label", include_in_schema=False)
    @open_to_all
    def label_page() -> FileResponse:
        """Return the page on which raters judge."""
        return FileResponse(LABEL_PAGE, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.post("/labels/next", responses=ASKED | WITHOUT_A_QUEUE)
    def labels_next(request: NextPairRequest, service: TheService) -> NextPairResponse:
        """Return the next pair of the labelling queue that a rater has not judged and that lacks raters."""
        with _reading_the_queue():
            return service.desk.next_pair(request, service.arrival())

    @app.post("/labels", responses=ASKED | WITHOUT_A_QUEUE)
    def labels(request: LabelsRequest, service: TheService) -> LabelsResponse:
        """Take a rater's judgements of queued pairs. Each is durable at once; the next day's run reads them."""
        with _reading_the_queue(), writing_to_the_landing_zone("labels"):
            taken = service.desk.take(request, service.arrival())
        service.metrics.note_labels(taken.accepted - taken.corrected, taken.known, taken.corrected)
        return taken

    @app.post("/feedback", responses=ASKED)
    def feedback(request: FeedbackRequest, service: TheService) -> FeedbackResponse:
        """Take a report that a candidate does not fit its place. After the next day's run raters get the pair."""
        now = service.arrival()
        with writing_to_the_landing_zone("reports"):
            row = request.model_dump(mode="json") | {"given_at": now.isoformat()}
            appended = service.live.append(LandingTable.feedback, [row], now)
        service.metrics.feedback.labels(request.surface.value).inc(appended.written)
        return FeedbackResponse(accepted=appended.written, known=1 - appended.written, arrival_day=appended.day)


@contextmanager
def _reading_the_queue() -> Iterator[None]:
    """Answer 404 without a labelling queue, 422 for a pair that no queue has, 503 where the queue cannot be read."""
    try:
        yield
    except NoQueue as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, str(error)) from error
    except NotQueued as error:
        rule = "no labelling queue has this pair: judge the pairs that POST /labels/next gives"
        problem = {"field": f"labels.{error.number}", "rule": rule}
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, [problem]) from error
    except TableDamaged as error:
        logger.error("the labelling queue cannot be read: %s", error)
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "the labelling queue cannot be read: adseq check names the damage",
            headers={"Retry-After": "5"},
        ) from error
