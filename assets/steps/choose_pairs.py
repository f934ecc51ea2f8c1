"""The labelling queue of a day: read the candidates, the labels and the reports until then, choose, describe, write."""

import zlib
from datetime import date, timedelta

import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.score_candidates import SCORED_CANDIDATES
from ml.relevance.judgements import PAIR
from ml.relevance.labelling_queue import CHOSEN_BY, QUEUE, next_pairs
from warehouse.as_of import arrived_by
from warehouse.contracts import LandingTable
from warehouse.queued_pairs import LABELLING_QUEUE
from warehouse.surfaces import carries_its_place

DESCRIBED = {"title": pl.String(), "category": pl.String(), "price": pl.Float64(), "currency": pl.String()}
"""What raters see of an item. The columns of the subject item begin with ``subject_``."""


def write_queue(workspace: Workspace, day: date) -> pl.DataFrame:
    """Choose the pairs that raters get after ``day``, write them to the table and return them, described."""
    settings, items = workspace.settings.relevance, workspace.items_as_of(day)
    queue = next_pairs(
        candidates_of(workspace, day),
        arrived_by(workspace.tables, LandingTable.relevance_labels, day).select(*PAIR, "rater_id").collect(),
        reports_of(workspace, day),
        catalogue=items["item_id"],
        pairs=settings.queue_pairs,
        raters_per_pair=settings.raters_per_pair,
        generator=np.random.default_rng([zlib.crc32(LABELLING_QUEUE.encode()), day.toordinal()]),
    )
    described = described_pairs(queue, items)
    workspace.tables.write(LABELLING_QUEUE, described, {"day": day})
    return described


def candidates_of(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return the scored candidates of a day, of ``CHOSEN_BY``; none where the day has scored none."""
    tables = workspace.tables
    if day not in tables.days(SCORED_CANDIDATES, "day"):
        return pl.DataFrame(schema=CHOSEN_BY)
    return tables.scan(SCORED_CANDIDATES).filter(pl.col("day") == day).select(CHOSEN_BY.names()).collect()


def reports_of(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return the pairs and instants of the reports that arrived on the last ``relevance.report_days`` days."""
    first = day - timedelta(days=workspace.settings.relevance.report_days - 1)
    arrived = arrived_by(workspace.tables, LandingTable.feedback, day).filter(pl.col("arrival_date") >= first)
    return arrived.filter(carries_its_place()).select(*PAIR, "given_at").collect()


def described_pairs(queue: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Return the queue with what raters see: title, category, price and currency of the subject item and the candidate.

    Args:
        queue: of ``QUEUE``.
        items: the catalogue; what the catalogue does not know is null.
    """
    shown = items.select("item_id", *DESCRIBED, known_type="content_type")
    subjects = shown.drop("known_type").rename(lambda name: f"subject_{name}")
    return (
        queue.join(shown, on="item_id", how="left", maintain_order="left")
        .with_columns(content_type=pl.coalesce("content_type", "known_type"))
        .join(subjects, on="subject_item_id", how="left", maintain_order="left")
        .select(*QUEUE, *DESCRIBED, *(f"subject_{name}" for name in DESCRIBED))
    )
