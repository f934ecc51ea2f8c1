"""An arrival whose rows the run itself combines: one of a few files, or of a table other than events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path

import polars as pl

from engine.local import LocalEngine
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.identity import record_identities
from warehouse.ingest.deduplicate import (
    ACCEPTED,
    EventArrival,
    accepted_columns,
    combined,
    combined_events,
    identities,
    name_users,
    written_columns,
)
from warehouse.ingest.job import Job, Written
from warehouse.ingest.judge_files import FilePart, Found, JudgedFiles, Pieces, judged_files
from warehouse.ingest.validate_rows import USER


@dataclass(frozen=True)
class WholeArrival:
    """An arrival whose accepted rows are staged in the run; ``rejected`` are files for the quarantine."""

    job: Job
    found: Found
    rejected: Sequence[Path]

    @classmethod
    def judge(cls, job: Job, parts: Sequence[FilePart]) -> WholeArrival:
        """Read the files of the arrival."""
        directory = job.staged.directory
        sink = partial(Pieces, directory, ACCEPTED)
        stage = JudgedFiles(job.rules, job.tombstones, job.settings.batch_bytes, directory, sink)
        engine = job.engine if len(parts) > 1 else LocalEngine()  # nothing to gain elsewhere
        found, judged = judged_files(stage, engine, parts)
        job.staged.add(ACCEPTED, pl.DataFrame(schema=accepted_columns(job.rules.table)))
        job.staged.take(ACCEPTED, chain.from_iterable(part.accepted for part in judged))
        return cls(job, found, list(chain.from_iterable(part.rejected for part in judged)))

    def write(self, begin: datetime | None) -> Written:
        """Replace the partition of the arrival, and the identities of its users. ``begin``: as in ``EventArrival``."""
        job, table = self.job, self.job.rules.table
        forgotten = name_users(job.staged, table, job.rules.keys, job.tombstones)
        if USER in pl.Schema(SCHEMAS[table]):
            record_identities(job.tables, table.value, job.arrived_on, identities(job.staged))
        if table is LandingTable.events:
            earlier = job.tables.files_before(table.value, "arrival_date", job.arrived_on)
            rows = combined_events(job.staged, EventArrival(job.arrived_on, begin, earlier))
        else:
            rows = combined(job.staged, table, job.rules.keys, job.tombstones)
        counted = _Counted()
        job.tables.write_batches(table.value, written_columns(table), counted.through(rows), job.partition)
        return Written(counted.rows, counted.late, forgotten)


@dataclass
class _Counted:
    """Counts rows on their way."""

    rows: int = 0
    late: int = 0

    def through(self, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for batch in batches:
            self.rows += batch.height
            self.late += int(batch["late"].sum()) if "late" in batch.columns else 0
            yield batch
