"""``adseq status`` says where a home stands, and which command brings it on."""

from __future__ import annotations

import io
import json
import os
import re
import socket
from datetime import UTC, date, datetime, timedelta

import pytest
from rich.console import Console

from pipelines.cli.status import show_status, status_of
from tests import processes
from tests.assets.world import ADSEQ, LATER, copy_of, environment
from tests.flow import Ran
from warehouse.day_records import record_completed
from warehouse.home import HOLDER, Home
from warehouse.tables import Tables


def shown(home: Home) -> str:
    console = Console(file=io.StringIO(), width=160)
    show_status(status_of(home), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_landed_days_wait_for_a_run_and_old_ones_are_told(home: Home) -> None:
    text = shown(home)
    assert re.search(r"landed +no history yet; 3 days, 2014-07-20 to 2014-07-23, the newest is [\d]+ days old", text)
    assert re.search(r"run +0 of 3 days to their end, waiting: 3 days", text)
    assert re.search(r"served +nothing yet", text)
    assert "has the export stopped?" in text
    assert f"Next  adseq run --home {home.root}" in text


def test_a_day_that_has_run_waits_no_longer(home: Home) -> None:
    record_completed(Tables(home.tables), date(2014, 7, 20))
    status = status_of(home)
    assert status.waiting == [date(2014, 7, 21), date(2014, 7, 23)]


@pytest.mark.parametrize("lives", [True, False])
def test_a_process_that_writes_is_named_unless_it_was_killed(home: Home, lives: bool) -> None:
    process = os.getpid() if lives else 2**22 + 1  # more than a number of a process may be
    since = (datetime.now(UTC) - timedelta(minutes=3)).isoformat(timespec="seconds")
    who = {"pid": process, "host": socket.gethostname(), "purpose": "adseq run", "since": since}
    (home.root / HOLDER).write_text(json.dumps(who))
    assert (f"process {process} on" in shown(home)) is lives


@pytest.mark.slow
def test_a_home_that_ran_says_what_it_serves(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = shown(ran.home)
    assert re.search(r"run +3 of 3 days to their end; the last run ended 20\d\d-", text)
    assert re.search(r"served +item-1 as of 20\d\d-\d\d-\d\d, published 20", text)
    assert re.search(r"models +item-1 \(champion\), advertiser-1 \(advertisers\)", text)
    assert "Next  adseq serve" in text
    home = copy_of(ran.home, tmp_path_factory.mktemp("status") / "home", with_day=LATER)
    done = processes.run(ADSEQ, "status", "--json", environment=environment(home))
    assert json.loads(done.stdout)["waiting"] == [LATER.isoformat()]
