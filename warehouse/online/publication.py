"""The publication that is served now: the pointer of the online store.

States, head and index belong to one model version. Within a version the states may be newer than the index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from settings import Precision
from warehouse.days import day_end
from warehouse.online.records import RECORD_FORMAT
from warehouse.online.store import STAMP, OnlineStore, StoreDamaged

# Namespaces that are the same for all versions. The last one holds the users of whom nothing may be kept.
SEQUENCES, USERS, FORGOTTEN = "sequences", "users", "forgotten"


@dataclass(frozen=True)
class Publication:
    """One model version as of one day. Paths are relative to the home."""

    model_version: str
    day: date  # the catalogue, the index and all states are as of its end
    model: Path
    index: Path
    catalogue: Path
    advertiser_version: str | None  # None before the first advertiser model
    precision: Precision  # of the states
    time_zone: str
    repeats_count: bool  # whether an item of a user's own history may be a candidate again
    published_at: datetime
    record_format: int = RECORD_FORMAT
    catalogue_sha256: str | None = None  # None in a pointer of before
    sequence_shape: str | None = None  # of all sequences; None: not known, as while they are written in another shape
    relevance: Path | None = None  # the relevance model; None before the first one
    synthetic: bool = False  # whether the log is a synthetic world, whose calendar is not that of the clock

    @property
    def states(self) -> str:
        """Return the namespace of this version's user states."""
        return f"states-{self.model_version}"

    @property
    def advertisers(self) -> str | None:
        """Return the namespace of the advertiser lists; None without an advertiser version."""
        return None if self.advertiser_version is None else f"advertisers-{self.advertiser_version}"

    def instant(self, now: datetime) -> datetime:
        """Return the instant that the dates and the budgets of ads are held against: ``now``.

        The calendar of a synthetic world stands still at the end of its newest published day.
        """
        return day_end(self.day, self.time_zone) if self.synthetic else now

    def arrival(self, now: datetime) -> datetime:
        """Return the instant at which something arrives ``now``: of a synthetic world, the same time of the day after
        its newest published day."""
        if not self.synthetic:
            return now
        midnight = day_end(now.astimezone(ZoneInfo(self.time_zone)).date() - timedelta(days=1), self.time_zone)
        return day_end(self.day, self.time_zone) + (now - midnight)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), default=str).encode()

    @property
    def filled(self) -> tuple[str, ...]:
        """Return the namespaces that every publication fills."""
        return (self.states, SEQUENCES, *([self.advertisers] if self.advertisers else []))

    @classmethod
    def from_bytes(cls, content: bytes) -> Publication:
        """Read a pointer.

        Raises:
            StoreDamaged: the bytes are not what ``to_bytes`` made.
        """
        try:
            # Pointers say the format of the records since the second.
            values = {"record_format": 1} | json.loads(content)
            for name in ("model", "index", "catalogue"):
                values[name] = Path(values[name])
            if values.get("relevance") is not None:
                values["relevance"] = Path(values["relevance"])
            values["precision"] = Precision(values["precision"])
            values["day"] = date.fromisoformat(values["day"])
            values["published_at"] = datetime.fromisoformat(values["published_at"])
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise StoreDamaged(
                f"the pointer of the online store cannot be read ({type(error).__name__}): run the newest day again "
                "(adseq run --days DAY --again), which writes the store anew"
            ) from error


def add_tombstones(store: OnlineStore, keys: Iterable[str]) -> None:
    """Write tombstones into the store: of these users the store may keep nothing."""
    rows = [(key.encode(), STAMP.pack(0)) for key in sorted(keys)]
    if rows:
        store.put(FORGOTTEN, rows)


def served(store: OnlineStore) -> Publication | None:
    """Return the publication that the store's pointer names; None before the first publication.

    Raises:
        StoreDamaged: the store's pointer cannot be read.
    """
    pointer = store.current()
    return None if pointer is None else Publication.from_bytes(pointer)


def served_whole(store: OnlineStore) -> Publication | None:
    """Return the publication as ``served`` does, after a check that the store holds everything of it.

    Raises:
        StoreDamaged: the pointer cannot be read, or something is missing in the store.
    """
    publication = served(store)
    if publication is not None:
        check(store, publication)
    return publication


def check(store: OnlineStore, publication: Publication) -> None:
    """Check that the store holds what ``publication`` needs, in records that this version reads.

    Raises:
        StoreDamaged: the store does not hold it; the message says how the store is made again.
    """
    if publication.record_format != RECORD_FORMAT:
        raise StoreDamaged(
            f"the online store holds records of format {publication.record_format}, and this version of adseq reads "
            f"format {RECORD_FORMAT}: run the newest day again (adseq run --days {publication.day} --again), which "
            "writes all records anew"
        )
    store.check(publication.filled)
