"""What is served now: the sign of the online store.

States, head and index belong to one model version. Within a version the states may be newer than the index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

from settings import Precision
from warehouse.online.store import STAMP, OnlineStore

# Shelves that are the same for all versions. On the last are the users of whom nothing may be kept.
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
    catalogue_sha256: str | None = None  # None in a sign of before

    @property
    def states(self) -> str:
        """The shelf of this version's user states."""
        return f"states-{self.model_version}"

    @property
    def advertisers(self) -> str | None:
        """The shelf of the advertiser lists."""
        return None if self.advertiser_version is None else f"advertisers-{self.advertiser_version}"

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), default=str).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Publication:
        values = json.loads(content)
        for name in ("model", "index", "catalogue"):
            values[name] = Path(values[name])
        values["precision"] = Precision(values["precision"])
        values["day"] = date.fromisoformat(values["day"])
        values["published_at"] = datetime.fromisoformat(values["published_at"])
        return cls(**values)


def bury(store: OnlineStore, keys: Iterable[str]) -> None:
    """Say of which users nothing may be kept."""
    rows = [(key.encode(), STAMP.pack(0)) for key in sorted(keys)]
    if rows:
        store.put(FORGOTTEN, rows)


def served(store: OnlineStore) -> Publication | None:
    """What the store says is served; None before the first publication."""
    sign = store.sign()
    return None if sign is None else Publication.from_bytes(sign)
