"""The page at ``/`` in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import polars as pl
import pytest

from serving.publication import Served
from tests import processes
from tests.assets.world import ADSEQ, copy_of
from tests.flow import Ran
from tests.serving.browser import browsing
from warehouse.home import Home
from warehouse.live_rows import LIVE_FILES

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def home(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that reports may be written to."""
    return copy_of(ran.home, tmp_path_factory.mktemp("page") / "home")


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    """`adseq serve` as people start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "ADSEQ_HOME": str(home.root)}
    with processes.start(ADSEQ, "serve", "--port", str(port), environment=environment) as service:
        try:
            yield _ready(f"http://127.0.0.1:{port}")
        finally:
            service.send_signal(signal.SIGINT)


def _ready(address: str) -> str:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/ready"):
                return address
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError(f"{address} is not ready after a minute")


def shown(browser: str, address: str, directory: Path, **asked: str) -> str:
    """The text of the page's document after its script has run."""
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={directory}",
        "--virtual-time-budget=8000",
        "--dump-dom",
        f"{address}/#{urlencode(asked)}",
    ]
    return unescape(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_a_person_sees_the_history_and_both_lists(
    browser: str, address: str, tmp_path: Path, served: Served, user: str, ran: Ran
) -> None:
    subject = served.catalogue.frame.row(0, named=True)
    page = shown(browser, address, tmp_path, user=user, item=subject["item_id"])
    assert f"{subject['title']} · {subject['category_path']}" in page
    assert "Without the context (history)" in page
    assert "With the context (history and context)" in page
    newest = ran.tables.scan("user_sequences").filter(pl.col("user_id") == ran.key(user).decode()).collect().sort("day")
    last = [item for item in newest["item_id"][-1].to_list() if item is not None][-1]
    assert served.catalogue.frame["title"][served.catalogue.row_of[last]] in page
    assert page.count("<li") > 30
    assert 'class="only"' in page  # what the context brought
    assert "item-1, as of the end of 2026-03-03" in page


def reports(home: Home) -> list[dict[str, Any]]:
    files = (home.landing / "feedback").glob(f"date=*/{LIVE_FILES}")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_one_tap_by_keyboard_reports_a_candidate_once(
    address: str, tmp_path: Path, served: Served, user: str, home: Home
) -> None:
    before, subject = reports(home), served.catalogue.frame.row(0, named=True)
    with browsing(tmp_path / "profile") as browser:
        browser.open(f"{address}/#{urlencode({'user': user, 'item': subject['item_id']})}")
        browser.wait_for("document.querySelectorAll('#with button.report').length > 5")
        assert browser.value("document.querySelectorAll('#without button.report').length") == 0
        title = browser.text("#with li:nth-child(2)").splitlines()[0]
        browser.value("document.querySelector('#with li:nth-child(2) button').focus()")
        browser.value("window.answers = fetch; fetch = () => Promise.reject(new TypeError('gone'))")
        browser.press("Enter")
        browser.wait_for("document.querySelector('#problem').innerText.includes('The report was not taken: gone')")
        assert reports(home) == before
        browser.value("fetch = window.answers")
        browser.press("Enter")
        browser.wait_for("document.querySelector('#with li:nth-child(2)').innerText.includes('thank you')")
        browser.press("Enter")
        assert browser.text("#problem") == ""
        assert browser.value("document.querySelectorAll('#with li:nth-child(2) button').length") == 0
    [report] = [report for report in reports(home) if report not in before]
    item = served.catalogue.frame.row(served.catalogue.row_of[report["item_id"]], named=True)
    assert item["title"] == title
    assert (report["surface"], report["subject_item_id"]) == ("related_pins", subject["item_id"])
    assert report["query"] is None
    assert report["reason"] == "not_relevant"
    assert user not in json.dumps(report)


def test_what_people_write_is_shown_as_text(browser: str, address: str, tmp_path: Path) -> None:
    script = "<img src=x onerror=document.title='hacked'>"
    page = shown(browser, address, tmp_path, user="nobody", item=script)
    assert "<title>adseq candidates</title>" in page
    assert f"{script}, which the catalogue does not have" in page
    assert "<img" not in page.replace(script, "").replace(escape(script), "")
