"""The agreement of the raters whose labels arrived lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.relevance_metrics import RelevanceReport, write_metrics
from warehouse.as_of import arrived_by
from warehouse.contracts import LandingTable

RATER_AGREEMENT = "rater_agreement"
RATERS = "raters"


@dataclass(frozen=True)
class MeasuredRaters:
    """The raters of the newest labels.

    Attributes:
        raters: rater_id, pairs, bias, low, high, biased, for the table ``rater_agreement``.
        figures: of the day. pairs: that two or more raters judged.
    """

    raters: pl.DataFrame
    figures: pl.DataFrame
    pairs: int

    @property
    def biased(self) -> list[str]:
        return self.raters.filter("biased")["rater_id"].to_list()


def measure_raters(workspace: Workspace, day: date) -> MeasuredRaters:
    """Compare the raters on the labels that arrived in ``relevance.label_days`` days up to ``day``."""
    from ml.evaluation.report_rows import ReportRow, Segment, rows_of
    from ml.relevance.agreement import agreement

    since = day - timedelta(days=workspace.settings.relevance.label_days)
    labels = arrived_by(workspace.tables, LandingTable.relevance_labels, day).filter(pl.col("arrival_date") > since)
    known = labels.drop("arrival_date").collect()
    found = agreement(known)
    rows = []
    for surface in ["", *known["surface"].unique().sort()]:
        own = agreement(known.filter(surface=surface)) if surface else found
        where = (Segment.surface, surface) if surface else (Segment.all, "")
        if own.pairs:
            rows += [
                ReportRow.of(RATERS, "disagreement", own.disagreement, segment=where[0], group=where[1]),
                ReportRow.of(RATERS, "far_disagreement", own.far_disagreement, segment=where[0], group=where[1]),
                *rows_of(RATERS, {"alpha": own.alpha, "rated_pairs": own.pairs}, *where),
            ]
    if found.pairs:
        rows += rows_of(RATERS, {"raters": found.raters.height, "biased_raters": len(found.biased)})
    figures = write_metrics(workspace, day, RelevanceReport.agreement, rows)
    workspace.tables.write(RATER_AGREEMENT, found.raters, {"day": day})
    return MeasuredRaters(found.raters, figures, found.pairs)
