"""Events that arrive in several parts: dealt into buckets of users, and each bucket put together by itself.

The key of an event names its user, so all rows of one key are in one bucket. Buckets are in the order of their users,
so the rows are in the order that they have in an arrival of one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path

import polars as pl

from engine.engine import StageRun, Work
from warehouse.contracts import LandingTable
from warehouse.identity import IDENTITIES, IDENTITY_SCHEMA, UserKeys, identity_partition
from warehouse.ingest.deduplicate import ACCEPTED, EventArrival, combined_events, number_users, written_columns
from warehouse.ingest.job import Job, Written
from warehouse.ingest.judge_files import FilePart, Found, JudgedFiles, judged_files
from warehouse.ingest.validate_rows import USER
from warehouse.part_files import write_parts
from warehouse.spill import staging, write_piece
from warehouse.user_buckets import UserBucket, bucket_numbers, user_buckets

EVENTS = LandingTable.events.value

BUCKETS_OF_A_PART = 4  # a bucket is sorted at once, and a part read batch by batch
SMALLEST_GROUP = 8_192  # rows of a row group of a file with the rows of all buckets
BUCKET = "bucket"


@dataclass(frozen=True)
class Dealt:
    """Files of the accepted rows of a part, and of their users' identities, with the number of each row's bucket.

    Attributes:
        forgotten: number of accepted rows of forgotten users, which are in no file.
    """

    events: tuple[Path, ...]
    identities: tuple[Path, ...]
    forgotten: int


@dataclass
class DealtEvents:
    """The sink that puts rows under their users' keys, and writes them in the order of buckets.

    Attributes:
        directory: of the files; all machines share it.
        tombstones: the keys of forgotten users.
        buckets: all buckets, ascending.
    """

    directory: Path
    keys: UserKeys
    tombstones: pl.Series
    buckets: Sequence[UserBucket]
    _events: list[Path] = field(default_factory=list)
    _identities: list[Path] = field(default_factory=list)
    _forgotten: int = 0

    def add(self, rows: pl.DataFrame) -> None:
        named = rows.with_columns(external_id=pl.col(USER)).with_columns(self.keys.keys(rows[USER]).alias(USER))
        kept = named.filter(~pl.col(USER).is_in(self.tombstones.implode()))
        self._forgotten += len(named) - len(kept)
        if len(kept):
            dealt = kept.with_columns(bucket_numbers(self.buckets).alias(BUCKET)).sort(BUCKET)
            identities = dealt.select(*IDENTITY_SCHEMA, BUCKET).unique(maintain_order=True)
            self._events.append(write_piece(self.directory, "events", dealt.drop("external_id"), self._group(dealt)))
            self._identities.append(write_piece(self.directory, "identities", identities, self._group(identities)))

    def close(self) -> Dealt:
        return Dealt(tuple(self._events), tuple(self._identities), self._forgotten)

    def _group(self, rows: pl.DataFrame) -> int:
        return max(SMALLEST_GROUP, len(rows) // len(self.buckets))


@dataclass(frozen=True)
class ArrivalInBuckets:
    """An arrival of events in several parts.

    Attributes:
        rejected: files for the quarantine.
        buckets: all buckets, ascending.
        dealt: the files of each part.
    """

    job: Job
    found: Found
    rejected: Sequence[Path]
    buckets: Sequence[UserBucket]
    dealt: Sequence[Dealt]

    @classmethod
    def judge(cls, job: Job, parts: Sequence[FilePart]) -> ArrivalInBuckets:
        """Read the files of the arrival."""
        directory, buckets = job.staged.directory, user_buckets(BUCKETS_OF_A_PART * len(parts))
        sink = partial(DealtEvents, directory, job.rules.keys, job.tombstones, buckets)
        stage = JudgedFiles(job.rules, job.tombstones, job.settings.batch_bytes, directory, sink)
        found, judged = judged_files(stage, job.engine, parts)
        rejected = list(chain.from_iterable(part.rejected for part in judged))
        return cls(job, found, rejected, buckets, [part.accepted for part in judged])

    def write(self, begin: datetime | None) -> Written:
        """Replace the partition of the arrival, and the identities of its users. ``begin``: as in ``EventArrival``."""
        job, events = self.job, [path for part in self.dealt for path in part.events]
        numbers = range(len(self.buckets) if events else 0)
        pairs = [path for part in self.dealt for path in part.identities]
        identities = StageRun(job.engine, IdentitiesOfBuckets(pairs), numbers)
        partition = identity_partition(EVENTS, job.arrived_on)
        write_parts(job.tables, IDENTITIES, partition, schema=pl.Schema(IDENTITY_SCHEMA), run=identities)
        arrival = EventArrival(job.arrived_on, begin, job.tables.files_before(EVENTS, "arrival_date", job.arrived_on))
        scratch = Path(job.settings.scratch or job.tables.root)
        combined = CombinedBuckets(arrival, events, self.buckets, scratch, job.settings.memory_gib)
        run = StageRun(job.engine, combined, numbers)
        rows = write_parts(job.tables, EVENTS, job.partition, schema=written_columns(LandingTable.events), run=run)
        written = job.tables.scan(EVENTS).filter(pl.col("arrival_date") == job.arrived_on)
        late = int(written.select(pl.col("late").sum()).collect().item())
        return Written(rows, late, sum(part.forgotten for part in self.dealt))


@dataclass(frozen=True)
class CombinedBuckets:
    """The stage whose rows are those of ``combined_events``; a part is the number of a bucket.

    Attributes:
        files: with the rows of all buckets.
        scratch: the directory of the files that a sort writes.
        memory_gib: memory in GiB for one bucket.
    """

    arrival: EventArrival
    files: Sequence[Path]
    buckets: Sequence[UserBucket]
    scratch: Path
    memory_gib: float

    def __call__(self) -> Work[int]:
        return self._rows

    def _rows(self, number: int) -> Iterator[pl.DataFrame]:
        with staging(self.scratch, self.memory_gib) as staged:
            staged.take("dealt", self.files)
            staged.execute(
                f"CREATE VIEW {ACCEPTED} AS SELECT * EXCLUDE ({BUCKET}) FROM dealt WHERE {BUCKET} = {number}"
            )
            number_users(staged)
            yield from combined_events(staged, self.arrival, self.buckets[number])


@dataclass(frozen=True)
class IdentitiesOfBuckets:
    """The stage whose rows are the key and the external id of each user, by key; a part is the number of a bucket."""

    files: Sequence[Path]

    def __call__(self) -> Work[int]:
        return self._rows

    def _rows(self, number: int) -> Iterator[pl.DataFrame]:
        pairs = pl.scan_parquet(list(self.files), glob=False, hive_partitioning=False).filter(pl.col(BUCKET) == number)
        yield pairs.select(list(IDENTITY_SCHEMA)).unique().sort(USER).collect()
