"""What the training assets read: everything that had arrived by the newest ingested day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from settings import UNKNOWN_ADVERTISER
from warehouse.as_of import arrived_by, items_at, users_as_of
from warehouse.contracts import LandingTable
from warehouse.days import day_end
from warehouse.landing import Landing
from warehouse.onsite_events import event_names, sequence_events_as_of
from warehouse.surfaces import Carries, Surface
from warehouse.tables import TableMissing, Tables
from warehouse.trainability import HistoryFigures

if TYPE_CHECKING:
    import polars as pl

    from ml.examples.pairs import LabelRule
    from ml.examples.period import TrainingPeriod
    from settings import Settings

EVENT_COLUMNS = ["user_id", "event_time", "event_name", "item_id", "advertiser_id"]


def training_day(tables: Tables) -> date:
    """Return the newest ingested day: training learns from all data that arrived by the end of the day.

    Raises:
        TableMissing: nothing has been ingested.
    """
    days = tables.days("events", "arrival_date")
    if not days:
        raise TableMissing("no event has been ingested: materialize `history` first (job `bootstrap`)")
    return days[-1]


def label_rule(landing: Landing, settings: Settings) -> LabelRule:
    """Return the manifest's rule for conversions."""
    from ml.examples.pairs import LabelRule

    manifest = landing.manifest
    return LabelRule(
        event_names=tuple(manifest.positive_events),
        window_days=manifest.prediction_window_days,
        repeats_count=manifest.repeats_count,
        weights=settings.examples.label_weights,
    )


def training_period(workspace: Workspace, day: date) -> TrainingPeriod:
    """Return events, catalogue and users as of the end of ``day``; the newest period is kept for the next asset."""
    onsite = workspace.landing.manifest.onsite_events
    key = (onsite, workspace.arrivals_key(day, "events", "items", "users", "impressions"))
    return workspace.once("training period", key, lambda: _read(workspace, day))


def _read(workspace: Workspace, day: date) -> TrainingPeriod:
    from ml.examples.period import TrainingPeriod, with_logged_requests

    tables, landing = workspace.tables, workspace.landing
    end = day_end(day, landing.manifest.time_zone)
    period = TrainingPeriod(
        events=sequence_events_as_of(tables, landing, day, EVENT_COLUMNS),
        items=workspace.items_as_of(day),
        users=users_as_of(tables, day),
        end=end.timestamp(),
        rule=label_rule(landing, workspace.settings),
        event_names=event_names(landing),
        items_at=partial(_items_at, tables, landing),
    )
    requests = _requests_before(tables, day, end)
    return period if requests is None else with_logged_requests(period, requests, workspace.settings)


def _requests_before(tables: Tables, day: date, end: datetime) -> pl.DataFrame | None:
    """Return the shown ads of requests with a subject item or a search query before ``end``.

    None where no impression has arrived.
    """
    import polars as pl

    from ml.examples.logged_requests import shown_in_context

    if not tables.exists(LandingTable.impressions.value):
        return None
    carried = [
        pl.col("surface").is_in(Surface.carrying(carries)) & pl.col(column).is_not_null()
        for carries, column in ((Carries.subject, "subject_item_id"), (Carries.query, "query"))
    ]
    impressions = arrived_by(tables, LandingTable.impressions, day).filter(pl.col("request_time") < end)
    return shown_in_context(impressions.filter(pl.any_horizontal(carried))).collect()


def _items_at(tables: Tables, landing: Landing, seconds: float) -> pl.DataFrame:
    """Return the catalogue as of an instant.

    The function is no lambda, because a period is handed to the processes that fit.
    """
    return items_at(tables, landing, datetime.fromtimestamp(seconds, UTC))


def history_of(period: TrainingPeriod) -> HistoryFigures:
    """Return the figures of the history that explain too few examples."""
    import polars as pl

    events = period.events
    counts = events.group_by("user_id").len()["len"]
    conversions = events.filter(pl.col("event_name").is_in(period.rule.event_names))
    first = events["event_time"].min()
    return HistoryFigures(
        users=len(counts),
        single_event_users=int((counts == 1).sum()),
        conversions=conversions.height,
        conversions_with_item=conversions["item_id"].count(),
        days=(period.end - first.timestamp()) / 86400 if isinstance(first, datetime) else 0.0,
        conversions_with_advertiser=conversions.filter(pl.col("advertiser_id") != UNKNOWN_ADVERTISER).height,
    )
