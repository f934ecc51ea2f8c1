"""The command that makes a damaged part of a table again."""

from __future__ import annotations

from collections.abc import Mapping

RECORDS = (
    "advertiser_deployments",
    "advertiser_versions",
    "completed_days",
    "deployments",
    "forgotten",
    "landed_files",
    "model_versions",
    "promotions",
)
"""Tables of what was decided and ingested. Nothing else holds these facts, so no command makes such a table again."""

OF_DAYS = ("completed_days", "landed_files")
"""Those of ``RECORDS`` that may lose their newest commit: the days that it told of count as changed, and run again."""

DAY_COLUMNS = ("arrival_date", "day")
BACKUP = "restore it from a backup of the home"
SET_ASIDE = "any run sets the commit aside"


def command_for_day(day: str) -> str:
    """Return the command that makes the data of a day again."""
    return f"adseq run --days {day} --again"


def remedy(table: str, partition: Mapping[str, str] | None) -> str:
    """Return how a partition of ``table`` is made again: a command, or a restore where no command makes it.

    Args:
        partition: column -> value, as text; None where it is not known which partition is damaged.
    """
    if table in RECORDS or partition is None:
        return BACKUP
    for column in DAY_COLUMNS:
        if column in partition:
            return command_for_day(partition[column])
    return "adseq run --retrain"


def remedy_of_commit(table: str, partition: Mapping[str, str] | None) -> str:
    """Return how ``table`` is repaired when its newest commit is damaged.

    Args:
        partition: the partition that the commit replaced, as text: {} for a vacuum; None where it is unknown.
    """
    return SET_ASIDE if is_dispensable(table, partition) else remedy(table, partition)


def is_dispensable(table: str, partition: Mapping[str, str] | None) -> bool:
    """Return whether ``table`` is right without its newest commit: a vacuum, or a record whose days then run again."""
    return partition == {} or (table in OF_DAYS and partition is not None)


def replaced_by_run(table: str, day: str | None, partition: Mapping[str, str]) -> bool:
    """Whether a run writes a partition of ``table`` anew.

    Args:
        day: of a daily run; None for a run of the history or of a training.
    """
    if table in RECORDS:
        return False
    days = [partition[column] for column in DAY_COLUMNS if column in partition]
    return days == [day] if day is not None else not days


def spelt(partition: Mapping[str, str]) -> str:
    """Return a partition as its directories are named: ``model_version=item-1/day=2026-03-03``."""
    return "/".join(f"{column}={value}" for column, value in partition.items())
