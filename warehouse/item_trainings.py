"""The trainings in which the item model had nothing to learn, and why: their homes have advertisers alone."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl

from warehouse.tables import Tables

WITHOUT_ITEMS = "trainings_without_items"
WITHOUT_SERVICE = (
    "`adseq export candidates` writes the advertisers of each user; the online service answers with items, so it has "
    "nothing to answer with."
)


def record_training_without_items(tables: Tables, day: date, why: str) -> None:
    """Record why the training as of ``day`` had no item to learn."""
    row = {"why": why, "created": datetime.now(UTC)}
    tables.write(WITHOUT_ITEMS, pl.DataFrame([row]), {"as_of": day})


def record_training_with_items(tables: Tables, day: date) -> None:
    """Remove the reason that an earlier training as of ``day`` recorded: this training has examples of items."""
    tables.remove(WITHOUT_ITEMS, {"as_of": day})


def why_without_items(tables: Tables, day: date) -> str | None:
    """Return why the training as of ``day`` had no item to learn; None for a training with items, or no training."""
    if day not in tables.days(WITHOUT_ITEMS, "as_of"):
        return None
    return str(tables.read(WITHOUT_ITEMS, {"as_of": day})["why"][0])


def why_advertisers_alone(tables: Tables) -> str | None:
    """Return why a home has an advertiser model and no item model; None with an item model, or without any training."""
    days = tables.days(WITHOUT_ITEMS, "as_of")
    if not days or tables.partitions("model_versions") or not tables.partitions("advertiser_versions"):
        return None
    return why_without_items(tables, days[-1])


def why_nothing_published(tables: Tables) -> str:
    """Return why the online store has no pointer, and what to do."""
    if why := why_advertisers_alone(tables):
        return f"No item is published. {why} {WITHOUT_SERVICE}"
    return "Nothing is published yet: run a day (adseq run), which materializes online_states."
