"""Whether the online store holds what its pointer says: files of the publication, and the users of the snapshot."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from pipelines.checks.fault import Checked, Fault, Part
from settings import Settings
from warehouse.days import day_end
from warehouse.forget import forgotten_users
from warehouse.online import DamagedRecord, OnlineStore, StateRecord, StoreDamaged, StoreUnreachable, open_store
from warehouse.online.open import LMDB, recorded_store
from warehouse.online.publication import Publication
from warehouse.online.records import json_in, stamp_in, stamp_of
from warehouse.states import candidates_snapshot, snapshot
from warehouse.tables import TableDamaged, TableMissing

SAMPLE = 500  # users whose records are held against the tables
TOLERANCE = 1e-2  # relative; of states in half precision


def online_part(checked: Checked) -> Part:
    """Check the store against its pointer and against the snapshot of the day that the pointer names."""
    name = Settings(home=checked.home.root).online.store
    notes = []
    recorded = recorded_store(checked.home)
    if recorded is not None and recorded != name and recorded == LMDB:
        notes.append(f"the home publishes to {recorded}, and ADSEQ_ONLINE__STORE names another store")
    if name == LMDB and not checked.home.online.is_dir():
        lost = [Fault(f"{checked.home.online} is missing, and the home has published", "adseq run --again")]
        return Part("online store", "nothing is published", lost if recorded is not None else [], notes)
    try:
        store = open_store(name, checked.home)
    except StoreUnreachable as error:
        return Part("online store", name, [Fault(str(error), _refill(checked, None))], notes)
    try:
        return _published(checked, store, notes)
    except StoreUnreachable as error:
        return Part("online store", name, [Fault(str(error), _refill(checked, None))], notes)
    finally:
        store.close()


def _published(checked: Checked, store: OnlineStore, notes: list[str]) -> Part:
    pointer = store.current()
    if pointer is None:
        return Part("online store", "nothing is published", [], notes)
    try:
        publication = Publication.from_bytes(pointer)
    except StoreDamaged as error:
        return Part("online store", "the pointer", [Fault(str(error), _refill(checked, None))], notes)
    faults = [*_publication_faults(checked, publication)]
    try:
        faults += _record_faults(checked, store, publication)
    except (TableDamaged, TableMissing, OSError, pl.exceptions.PolarsError) as error:
        notes.append(f"records could not be held against the tables: {str(error).splitlines()[0]}")
    return Part("online store", f"{publication.model_version} of {publication.day}", faults, notes)


def _publication_faults(checked: Checked, publication: Publication) -> Iterator[Fault]:
    """Yield the faults of the files that the pointer names."""
    from ml.file_integrity import Unreadable
    from ml.models.artifact import WEIGHTS
    from serving.catalogue import verify_catalogue

    again = checked.remedy_of_day(str(publication.day))
    for path in (publication.model / WEIGHTS, publication.index):
        if not (checked.home.root / path).exists():
            yield Fault(f"{checked.home.root / path}, which the pointer names, is missing", again)
    try:
        verify_catalogue(checked.home.root, publication)
    except Unreadable as error:
        yield Fault(str(error), again)


def _record_faults(checked: Checked, store: OnlineStore, publication: Publication) -> list[Fault]:
    """Return the faults of the record counts, and of a sample of records compared with the tables."""
    forgotten = forgotten_users(checked.tables).implode()
    states = snapshot(checked.tables, publication.model_version, publication.day)
    states = states.filter(~pl.col("user_id").is_in(forgotten))
    faults = _fewer(checked, store, publication, namespace=publication.states, wanted=states.height)
    wrong = sum(not _is_whole(store, publication, row) for row in _sample(states).iter_rows(named=True))
    if wrong:
        faults.append(_other(checked, publication, wrong, looked_at=min(SAMPLE, states.height), kind="states"))
    if publication.advertisers is None or publication.advertiser_version is None:
        return faults
    lists = candidates_snapshot(checked.tables, publication.advertiser_version, publication.day)
    lists = lists.filter(~pl.col("user_id").is_in(forgotten))
    faults += _fewer(checked, store, publication, namespace=publication.advertisers, wanted=lists.height)
    wrong = 0
    for row in _sample(lists).iter_rows(named=True):
        held = store.get(publication.advertisers, row["user_id"].encode())
        wrong += held is None or _damaged_list(held, row["advertiser_ids"], _stamp(row["day"], publication))
    if wrong:
        faults.append(_other(checked, publication, wrong, looked_at=min(SAMPLE, lists.height), kind="advertiser lists"))
    return faults


def _is_whole(store: OnlineStore, publication: Publication, row: Mapping[str, Any]) -> bool:
    """Whether a stored state is the state of the snapshot, or a later state that an event of today made."""
    held = store.get(publication.states, row["user_id"].encode())
    if held is None:
        return False
    try:
        record = StateRecord.from_bytes(held)
    except (DamagedRecord, struct.error, ValueError, TypeError, OverflowError, OSError):
        return False
    stamp = _stamp(row["day"], publication)
    if record.stamp != stamp:
        return record.stamp > stamp
    return bool(np.allclose(record.state, np.asarray(row["state"], np.float32), rtol=TOLERANCE, atol=TOLERANCE))


def _damaged_list(held: bytes, advertisers: list[str], stamp: int) -> bool:
    try:
        return stamp_in(held) < stamp or (stamp_in(held) == stamp and json_in(held)["advertiser_ids"] != advertisers)
    except (DamagedRecord, ValueError, KeyError, TypeError):
        return True


def _fewer(
    checked: Checked, store: OnlineStore, publication: Publication, *, namespace: str, wanted: int
) -> list[Fault]:
    held = store.count(namespace)  # more is right: events that come in live make records of new users
    if held >= wanted:
        return []
    what = f"the namespace {namespace} holds {held:,} records, and the tables {wanted:,} users as of {publication.day}"
    return [Fault(what, _refill(checked, publication))]


def _other(checked: Checked, publication: Publication, wrong: int, *, looked_at: int, kind: str) -> Fault:
    what = f"{wrong:,} of {looked_at:,} {kind} in the store are not those of the tables as of {publication.day}"
    return Fault(what, _refill(checked, publication))


def _refill(checked: Checked, publication: Publication | None) -> str:
    day = publication.day if publication else max(checked.landed, default=None)
    return (
        f"move {checked.home.online} away (Redis: flush it), then adseq run --days {day} --again, which fills it anew"
    )


def _sample(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sample(min(SAMPLE, frame.height), seed=0)


def _stamp(day: date, publication: Publication) -> int:
    return stamp_of(day_end(day, publication.time_zone))
