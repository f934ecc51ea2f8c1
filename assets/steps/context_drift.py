"""Drift of contexts: the requests beside an item of a day, against the contexts that the serving model has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.versions import ModelVersion, serving
from warehouse.as_of import arrived_by
from warehouse.contracts import LandingTable
from warehouse.tables import Tables

TABLE = "context_drift"
SUBJECT = "subject_item_id"
UNKNOWN = "unknown"
SHOWN_DAYS = timedelta(days=60)

SCHEMA = {"category": pl.String(), "learnt": pl.Float64(), "asked": pl.Float64()}
SHIFT = ((pl.col("learnt") - pl.col("asked")).abs().sum() / 2).alias("shift")
"""The total variation distance of the two mixes."""


@dataclass(frozen=True)
class ContextDrift:
    """The contexts of a day beside those that were learnt; a figure is None where there is nothing to compare.

    Attributes:
        served_by: the version whose contexts these are. learnt_from: logged requests, synthetic contexts, or nothing.
        examples: with a subject. requests: of the day, beside an item.
        categories: the share of each first-level category of the subjects, learnt and asked, the largest change first;
            empty where there is nothing to compare.
        category_shift: share of the requests that would need another category to have the mix that was learnt.
        same_category_learnt, same_category_asked: share of the pairs of subject and positive (shown item) in one
            category.
        unknown_subjects: share of the requests whose subject the catalogue lacks.
    """

    served_by: str
    learnt_from: str
    examples: int
    requests: int
    categories: pl.DataFrame
    category_shift: float | None
    same_category_learnt: float | None
    same_category_asked: float | None
    unknown_subjects: float | None

    @property
    def figures(self) -> dict[str, float]:
        """Return the figures that there are, by name."""
        named = {
            "category_shift": self.category_shift,
            "same_category_learnt": self.same_category_learnt,
            "same_category_asked": self.same_category_asked,
            "unknown_subjects": self.unknown_subjects,
        }
        return {name: value for name, value in named.items() if value is not None}


def drift_of_day(workspace: Workspace, day: date) -> ContextDrift:
    """Compare the requests that arrived on ``day`` with the examples of the version that serves the day."""
    from ml.examples.logged_requests import shown_in_context

    tables = workspace.tables
    version = serving(tables, workspace.home, day, workspace.tracking.champion())
    arrived = arrived_by(tables, LandingTable.impressions, day).filter(pl.col("arrival_date") == day)
    shown = shown_in_context(arrived).select("request_id", SUBJECT, "item_id").drop_nulls(SUBJECT).collect()
    return compare(_learnt(tables, version), shown, workspace.items_as_of(day), served_by=version.name)


def compare(learnt: pl.DataFrame, shown: pl.DataFrame, items: pl.DataFrame, *, served_by: str) -> ContextDrift:
    """Compare examples with requests.

    Args:
        learnt: event_name (null for an ad that was shown), item_id, subject_item_id; examples with a subject.
        shown: request_id, subject_item_id, item_id; the items that were shown beside a subject.
        items: item_id, category; the catalogue.
    """
    category = items.select("item_id", "category")
    examples, pairs = (_with_categories(each, category) for each in (learnt, shown))
    requests = pairs.unique("request_id", keep="first", maintain_order=True)
    categories = _mixes(examples, requests) if len(examples) and len(requests) else pl.DataFrame(schema=SCHEMA)
    return ContextDrift(
        served_by=served_by,
        learnt_from=_kind(examples),
        examples=len(examples),
        requests=len(requests),
        categories=categories,
        category_shift=categories.select(SHIFT).item() if len(categories) else None,
        same_category_learnt=_mean(examples["same_category"]),
        same_category_asked=_mean(pairs["same_category"]),
        unknown_subjects=_mean(requests["unlisted"]),
    )


def shift_by_day(tables: Tables, day: date, today: ContextDrift) -> tuple[list[date], list[float | None]]:
    """Return the shift of the categories on each of the newest days up to ``day``, whose shift is that of ``today``."""
    shifts = {day: today.category_shift}
    if tables.exists(TABLE):
        earlier = tables.scan(TABLE).filter(pl.col("day") < day, pl.col("day") > day - SHOWN_DAYS)
        shifts |= dict(earlier.group_by("day").agg(SHIFT).collect().iter_rows())
    days = sorted(shifts)
    return days, [shifts[each] for each in days]


def _learnt(tables: Tables, version: ModelVersion) -> pl.DataFrame:
    """Return the examples with a subject that a version was trained on."""
    examples = tables.read("contextual_examples", {"as_of": version.trained_day})
    return examples.select("event_name", "item_id", SUBJECT).drop_nulls(SUBJECT)


def _with_categories(pairs: pl.DataFrame, category: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs with the first level of the subject's category, and whether both categories are the same."""
    of_subject = category.rename({"item_id": SUBJECT, "category": "of_subject"}).with_columns(unlisted=pl.lit(False))
    joined = pairs.join(of_subject, on=SUBJECT, how="left", maintain_order="left")
    joined = joined.join(category, on="item_id", how="left", maintain_order="left")
    first = pl.col("of_subject").str.split(">").list.first().str.strip_chars().fill_null(UNKNOWN)
    return joined.with_columns(
        first_level=first,
        same_category=pl.col("of_subject") == pl.col("category"),  # null where one of them is unknown
        unlisted=pl.col("unlisted").fill_null(True),
    )


def _kind(examples: pl.DataFrame) -> str:
    """Return where most of the contexts come from: the example of an ad that was shown names no event."""
    if examples.is_empty():
        return "nothing"
    synthetic = examples["event_name"].count() * 2 > len(examples)
    return "synthetic contexts" if synthetic else "logged requests"


def _mixes(examples: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """Return category, learnt, asked: its share of the examples and of the requests."""
    mixes = _shares(examples).join(_shares(requests), on="category", how="full", coalesce=True, suffix="_asked")
    learnt, asked = pl.col("share").fill_null(0), pl.col("share_asked").fill_null(0)
    return mixes.sort((learnt - asked).abs(), "category", descending=[True, False]).select(
        "category", learnt=learnt, asked=asked
    )


def _shares(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the share of each first-level category: category, share."""
    counted = pairs.group_by(category="first_level").len()
    return counted.select("category", share=pl.col("len") / pl.col("len").sum())


def _mean(values: pl.Series) -> float | None:
    found = values.mean()
    return None if found is None else float(found)  # type: ignore[arg-type]
