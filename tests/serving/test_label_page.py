"""The page at ``/label`` in a real browser, by keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.assets.world import copy_of
from tests.flow import Ran
from tests.serving.browser import Browser, browsing
from tests.serving.queues import DAY, home_with_queue, queue
from tests.serving.running import free_port, service
from warehouse.home import Home
from warehouse.live_rows import LIVE_FILES
from warehouse.queued_pairs import GUIDELINES, LABELLING_QUEUE
from warehouse.tables import Tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose newest queue is a short one."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("label-page") / "home")
    home_with_queue(home.root, queue())
    return home


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    port = free_port()
    with service(home, port):
        yield f"http://127.0.0.1:{port}/label"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path / "profile") as browser:
        yield browser


def begin(browser: Browser, address: str, name: str) -> None:
    browser.open(address)
    browser.wait_for("document.activeElement === document.querySelector('#rater')")
    browser.write(name)
    browser.press("Enter")
    browser.wait_for("!document.querySelector('#desk').hidden")


def press_and_see(browser: Browser, key: str, selector: str, text: str) -> None:
    browser.press(key)
    browser.wait_for(f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(text)})")


def labels(home: Home, rater_id: str) -> list[tuple[str, int]]:
    files = (home.landing / "relevance_labels").glob(f"date=*/{LIVE_FILES}")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {row["template"] for row in rows} <= {GUIDELINES}
    return [(row["item_id"], row["label"]) for row in rows if row["rater_id"] == rater_id]


def test_a_rater_judges_by_keys_goes_back_and_comes_to_an_end(browser: Browser, address: str, home: Home) -> None:
    begin(browser, address, "ann")
    assert browser.text("#subject") == "Rustic Armchair"
    assert "Home > Furniture · 120.00 EUR" in browser.text("#subject-about")
    assert browser.text("#candidate") == "Floor Lamp <b>"  # as text, whatever a title holds
    assert browser.text("#candidate-about") == "Home > Lighting · 45.50 EUR"
    press_and_see(browser, "4", "#subject", "“red “chair””")
    assert browser.text("#candidate") == "mystery"
    assert "1 judged, 2 left" in browser.text("#done")
    press_and_see(browser, "u", "#note", "You gave this pair 4")
    assert browser.text("#candidate") == "Floor Lamp <b>"
    press_and_see(browser, "2", "#candidate", "mystery")
    press_and_see(browser, "s", "#candidate", "Wool Rug")
    press_and_see(browser, "5", "#note", "You have skipped the 1 pairs")
    assert labels(home, "ann") == [("lamp", 4), ("lamp", 2), ("rug", 5)]
    browser.open(address)  # the browser knows the name, and the skipped pair comes again
    browser.wait_for("document.querySelector('#candidate').innerText === 'mystery'")
    press_and_see(browser, "1", "#note", "Nothing is left for you")
    assert "3 judged, 0 left" in browser.text("#done")


def test_what_was_skipped_of_another_queue_hides_nothing_of_the_new_one(
    browser: Browser, address: str, home: Home
) -> None:
    begin(browser, address, "zoe")
    for candidate in ("mystery", "Wool Rug"):
        press_and_see(browser, "s", "#candidate", candidate)
    try:
        home_with_queue(home.root, queue(), DAY + timedelta(days=1))
        browser.press("s")  # the third of three: the new queue begins with the first
        browser.wait_for(f"document.querySelector('#done').innerText.includes('{DAY + timedelta(days=1)}')")
        assert browser.text("#candidate") == "Floor Lamp <b>"
        press_and_see(browser, "s", "#candidate", "mystery")
    finally:
        Tables(home.tables).remove(LABELLING_QUEUE, {"day": DAY + timedelta(days=1)})


def test_another_key_and_a_key_in_the_form_judge_nothing(browser: Browser, address: str, home: Home) -> None:
    begin(browser, address, "rater-5")  # digits and letters of the name are no labels
    for key in ("7", "0", "x"):
        browser.press(key)
    assert "0 judged" in browser.text("#done")
    assert labels(home, "rater-5") == []


def test_what_the_service_refuses_is_shown_and_the_pair_stays(browser: Browser, address: str, home: Home) -> None:
    begin(browser, address, "eve")
    pair = browser.text("#candidate")
    browser.value("fetch = () => Promise.reject(new TypeError('gone'))")
    press_and_see(browser, "3", "#problem", "The service does not answer. Nothing was taken")
    assert browser.text("#candidate") == pair
    assert labels(home, "eve") == []
