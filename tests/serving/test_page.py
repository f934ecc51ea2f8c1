"""The page at ``/`` in a real browser."""

from __future__ import annotations

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
from urllib.parse import urlencode

import polars as pl
import pytest

from serving.publication import Served
from tests import processes
from tests.assets.world import ADSEQ
from tests.flow import Ran

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def address(ran: Ran) -> Iterator[str]:
    """`adseq serve` as people start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "ADSEQ_HOME": str(ran.home.root)}
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


def test_what_people_write_is_shown_as_text(browser: str, address: str, tmp_path: Path) -> None:
    script = "<img src=x onerror=document.title='hacked'>"
    page = shown(browser, address, tmp_path, user="nobody", item=script)
    assert "<title>adseq candidates</title>" in page
    assert f"{script}, which the catalogue does not have" in page
    assert "<img" not in page.replace(script, "").replace(escape(script), "")
