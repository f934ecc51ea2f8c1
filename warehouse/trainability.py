"""Whether a log has enough examples to learn from, and the reason if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from settings import UNKNOWN_ADVERTISER
from warehouse.landing import Manifest
from warehouse.spill import Staging

LOG = "log"  # staged: the deduplicated events, of which ``in_history`` arrived with the history
_MOSTLY = 0.99


@dataclass(frozen=True)
class TrainingRule:
    """The demands of the first training on the history.

    Attributes:
        minimum_examples: fewer examples stop the training.
        cutoffs: the instants that it learns at, ascending in seconds since 1970, of the end of the history, its first
            event (both in seconds) and the prediction window in days.
    """

    minimum_examples: int
    cutoffs: Callable[[float, float, float], Sequence[float]]


@dataclass(frozen=True)
class HistoryFigures:
    """The figures of a history that explain too few examples.

    Attributes:
        users: with events.
        single_event_users: of these, those with one event.
        conversions: events whose name counts as a conversion.
        conversions_with_item: of these, those that name an item.
        days: from the first event to the end of the history.
        conversions_with_advertiser: of the conversions, those that name a known advertiser themselves.
    """

    users: int
    single_event_users: int
    conversions: int
    conversions_with_item: int
    days: float
    conversions_with_advertiser: int


def why_too_few(figures: HistoryFigures, examples: int, wanted: int, window_days: float) -> str:
    """Return why a history gives too few examples, and what helps."""
    few = f"{examples:,} examples to learn from, at least {wanted:,} are wanted: "
    if not figures.conversions:
        return few + "no event of the history is a conversion. Say in manifest.toml what counts (positive_events)."
    obstacle = _obstacle(figures, window_days)
    if not figures.conversions_with_item and not (obstacle and figures.conversions_with_advertiser):
        return few + (
            f"none of the {figures.conversions:,} conversions names an item, and the item model learns which item "
            "comes next. Give events their item_id, or name in manifest.toml positive_events that have one."
        )
    return few + (
        obstacle
        or f"conversions that follow a cut-off within {window_days:g} days. A longer history helps, or in "
        "manifest.toml a smaller prediction_window_days or more positive_events."
    )


def why_advertisers_alone(figures: HistoryFigures, window_days: float) -> str | None:
    """Return why the advertiser model alone is trained, without the item model; None in all other cases."""
    if figures.conversions_with_item or not figures.conversions_with_advertiser or _obstacle(figures, window_days):
        return None
    return (
        f"None of the {figures.conversions:,} conversions names an item: the advertiser model alone is trained. For "
        "the item model, give events their item_id, or name in manifest.toml positive_events that have one."
    )


def _obstacle(figures: HistoryFigures, window_days: float) -> str | None:
    """Return in words why no model can learn from the history; None where nothing prevents learning."""
    if figures.single_event_users >= _MOSTLY * figures.users:
        return (
            f"{figures.single_event_users:,} of {figures.users:,} users have one event, and the model learns what "
            "comes after others. Is user_id the id of a session, an order or an event? It has to be the same at every "
            "visit."
        )
    if window_days >= figures.days:
        return (
            f"the prediction window of {window_days:g} days exceeds the history of {figures.days:.0f} days. "
            f"Set prediction_window_days in manifest.toml to at most {max(figures.days / 4, 1):.0f}, or give a longer "
            "history."
        )
    return None


def count_examples(staged: Staging, rule: TrainingRule, manifest: Manifest, end: datetime) -> int:
    """Count the examples of the first training as ``ml.examples.pairs.examples_at`` makes them.

    The count stops at ``rule.minimum_examples``.

    Args:
        staged: knows ``LOG``.
        end: of the history, exclusive.
    """
    [(first,)] = staged.rows(f"SELECT min(event_time) FROM {LOG} WHERE in_history")
    if first is None:
        return 0
    window, found = manifest.prediction_window_days, 0
    for cutoff in reversed(rule.cutoffs(end.timestamp(), first.timestamp(), window)):
        begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(cutoff))
        found += _examples_at(
            staged, begin, min(begin + timedelta(days=window), end), manifest=manifest, named="item_id"
        )
        if found >= rule.minimum_examples:
            return rule.minimum_examples
    return found


def advertisers_can_be_learnt(staged: Staging, rule: TrainingRule, manifest: Manifest, end: datetime) -> bool:
    """Return whether the advertiser model has enough examples: one before the newest window, which is reported on.

    Args:
        staged: knows ``LOG``.
        end: of the history, exclusive.
    """
    [(first,)] = staged.rows(f"SELECT min(event_time) FROM {LOG} WHERE in_history")
    window, named = timedelta(days=manifest.prediction_window_days), f"nullif(advertiser_id, '{UNKNOWN_ADVERTISER}')"
    if first is None:
        return False
    newest, repeats = end - window, manifest.model_copy(update={"repeats_count": True})
    cutoffs = rule.cutoffs(newest.timestamp(), first.timestamp(), manifest.prediction_window_days)
    begins = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(cutoff)) for cutoff in cutoffs]
    return any(
        _examples_at(staged, begin, min(begin + window, newest), manifest=repeats, named=named) for begin in begins
    )


def history_figures(staged: Staging, manifest: Manifest, end: datetime) -> HistoryFigures:
    """Return figures of the history's events."""
    names = _listed(manifest.positive_events)
    [(users, single)] = staged.rows(
        f"SELECT count(*), count(*) FILTER (WHERE events = 1) FROM "
        f"(SELECT count(*) AS events FROM {LOG} WHERE in_history GROUP BY user_id)"
    )
    [(conversions, with_item, with_advertiser, first)] = staged.rows(
        f"SELECT count(*) FILTER (WHERE event_name IN ({names})), "
        f"count(item_id) FILTER (WHERE event_name IN ({names})), "
        f"count(*) FILTER (WHERE event_name IN ({names}) AND advertiser_id <> '{UNKNOWN_ADVERTISER}'), "
        f"min(event_time) FROM {LOG} WHERE in_history"
    )
    days = (end - first).total_seconds() / 86400 if first else 0.0
    return HistoryFigures(users, single, conversions, with_item, days, with_advertiser)


def _examples_at(staged: Staging, begin: datetime, end: datetime, *, manifest: Manifest, named: str) -> int:
    """Count the distinct pairs of a user and an item (or advertiser) in conversions from ``begin`` until ``end``.

    Only users with events before ``begin`` count. Unless repeats count, a pair with an event before ``begin`` does not.

    Args:
        named: the SQL of an event's item or advertiser, null where the event has none.
    """
    new_item = (
        ""
        if manifest.repeats_count
        else f"AND (user_id, {named}) NOT IN (SELECT (user_id, {named}) FROM {LOG} WHERE in_history "
        f"AND {named} IS NOT NULL AND event_time < TIMESTAMPTZ '{begin}')"
    )
    [(pairs,)] = staged.rows(
        f"SELECT count(DISTINCT (user_id, {named})) FROM {LOG} WHERE in_history AND {named} IS NOT NULL "
        f"AND event_name IN ({_listed(manifest.positive_events)}) "
        f"AND event_time >= TIMESTAMPTZ '{begin}' AND event_time < TIMESTAMPTZ '{end}' "
        f"AND user_id IN (SELECT user_id FROM {LOG} WHERE in_history AND event_time < TIMESTAMPTZ '{begin}') {new_item}"
    )
    return int(pairs)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
