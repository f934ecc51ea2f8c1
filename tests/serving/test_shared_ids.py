"""Two users who share an event_id: what is known live is what the tables of the day hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import Event
from serving.take_events import sort_out
from settings import DataSettings, SequenceSettings
from tests.warehouse.whole_sequences import user_sequences
from warehouse.contracts import LandingTable
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.live_rows import LiveRows
from warehouse.online import LmdbStore
from warehouse.online.publication import SEQUENCES
from warehouse.online.records import stamp_of
from warehouse.online.sequences import COLUMNS, Held, add
from warehouse.tables import Tables

DAY, MORNING = date(2026, 3, 4), datetime(2026, 3, 4, 8, tzinfo=UTC)
LENGTH = 4
Key = tuple[str, str]


def sent(pair: Key, minute: int) -> Event:
    user_id, event_id = pair
    time = MORNING + timedelta(minutes=minute)
    return Event(event_id=event_id, user_id=user_id, event_time=time, event_name="custom")


events = st.builds(sent, st.tuples(st.sampled_from("ab"), st.sampled_from("123")), st.integers(0, 3))
requests = st.lists(st.tuples(st.integers(0, 1), st.lists(events, min_size=1, max_size=4)), min_size=1, max_size=5)


@settings(max_examples=12, derandomize=True, database=None)
@given(requests)
def test_live_sequences_are_the_daily_ones_whatever_ids_are_shared(requests: list[tuple[int, list[Event]]]) -> None:
    """Requests to two processes, with events that are sent again, at other times too, and ids that users share."""
    with TemporaryDirectory() as directory:
        root = Path(directory)
        landing, tables, store = Landing(root / "landing"), Tables(root / "tables"), LmdbStore(root / "online")
        keys, processes = UserKeys.of(tables, landing), (LiveRows(landing), LiveRows(landing))
        for process, arrived in requests:
            intake = sort_out(arrived, (), store, keys)
            rows = [event.model_dump(mode="json") for event in intake.new]
            written = processes[process].append(LandingTable.events, rows, MORNING)
            assert written.written == len(intake.new)
            assert len(intake.new) + intake.known == len(arrived)
            for event in intake.new:
                row = event.model_dump(include=set(COLUMNS)) | {"event_time": stamp_of(event.event_time)}
                add(store, keys.key(event.user_id).encode(), [row], stamp=stamp_of(MORNING), since=0, length=LENGTH)
        report = ingest(landing, tables, LandingTable.events, day=DAY, settings=DataSettings())
        assert (report.rows_read, report.duplicates) == (
            len({(e.user_id, e.event_id) for _, r in requests for e in r}),
            0,
        )
        daily = user_sequences(tables, landing, DAY, settings=SequenceSettings(length=LENGTH))
        live = {user: Held.of(store.get(SEQUENCES, user.encode())).events for user in daily["user_id"]}
        store.close()
    assert {user: [event["event_id"] for event in found] for user, found in live.items()} == dict(
        daily.select("user_id", "event_id").iter_rows()
    )
