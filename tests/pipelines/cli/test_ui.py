"""``adseq ui``: both services answer, and nothing is left of them afterwards.

One test starts Dagster and MLflow. The others have services of a few lines in their places, which start at once and are
harder to end.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.cli.ui import free_port
from tests import processes
from tests.assets.world import ADSEQ
from tests.processes import Started

LOCATION = "locations/__repository__@pipelines.definitions"


SMALL = """
import sys
import pipelines.cli.ui as ui
service = [sys.executable, "-S", "-c", sys.argv.pop()]
ui.dagster_command = lambda port: [*service, str(port), "dagster"]
ui.mlflow_command = lambda home, port: [*service, str(port), "mlflow"]
from pipelines.cli.app import app
app()
"""
"""The command with other services, whose code is the last argument."""

SERVICE = """
import http.server, os, signal, sys
if not os.fork():
    os.setpgid(0, 0)  # out of the service's group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pause()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""
"""A service that answers (that it knows no method) and has a process that Ctrl-C does not reach."""


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "ADSEQ_HOME": str(home), "COLUMNS": "300"}


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[Started]:
    """The command, started on an empty home; whatever is left of it is killed at the end."""
    yield from ended(processes.start(ADSEQ, "ui", environment=environment(tmp_path), stderr=processes.STDOUT))


@pytest.fixture
def small_ui(tmp_path: Path) -> Iterator[Started]:
    """The same with services of a few lines."""
    arguments = ("ui", SERVICE)
    yield from ended(processes.start(SMALL, *arguments, environment=environment(tmp_path), stderr=processes.STDOUT))


def ended(process: Started) -> Iterator[Started]:
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def read_until(process: Started, text: str) -> str:
    """What the command printed up to the line with ``text``."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"the command ended before it printed {text!r}: {''.join(lines)}")


def addresses(text: str) -> list[str]:
    found = re.findall(r"http://127\.0\.0\.1:\d+", text)
    assert len(found) == 2, text
    return found


@pytest.mark.slow
def test_both_answer_a_browser_shows_the_asset_graph_and_ctrl_c_stops_both(ui: Started, tmp_path: Path) -> None:
    urls = addresses(read_until(ui, "Ctrl-C stops both"))
    for url in urls:
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium:
        assert_graph_is_shown(chromium, next(url for url in urls if dagster_answers(url)), tmp_path / "profile")
    assert_one_signal_stops(ui, signal.SIGINT, urls)
    if chromium is None:
        pytest.skip("there is no chromium on this machine to render Dagster's asset graph (apt install chromium)")


def assert_graph_is_shown(chromium: str, dagster: str, profile: Path) -> None:
    graph = rendered(chromium, f"{dagster}/asset-groups", profile)
    groups = ("ingest", "sequences", "features", "training", "inference", "reports")
    for group in groups:  # once in the list beside the graph and at least once in the graph itself
        assert graph.count(f">{group}<") >= 2, group
    for group, assets in {
        "training": ("training_examples", "contextual_examples", "item_model", "champion"),
        "inference": ("user_states", "item_embeddings", "item_index"),
    }.items():
        page = rendered(chromium, f"{dagster}/{LOCATION}/asset-groups/{group}", profile)
        assert [asset for asset in assets if f">{asset}<" not in page] == [], group


def assert_one_signal_stops(ui: Started, sign: signal.Signals, urls: list[str]) -> None:
    """Both services and all that they started, within five seconds."""
    family = psutil.Process(ui.pid).children(recursive=True)
    assert len(family) >= 4
    ui.send_signal(sign)
    sent = time.monotonic()
    assert ui.wait(timeout=60) == 128 + sign
    assert time.monotonic() - sent < 5
    _gone, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    for url in urls:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=2)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_both_without_orphans(small_ui: Started, sign: signal.Signals) -> None:
    assert_one_signal_stops(small_ui, sign, addresses(read_until(small_ui, "Ctrl-C stops both")))


def dagster_answers(url: str) -> bool:
    """Whether it is Dagster (and not MLflow) at this address, with the definitions loaded."""
    query = b'{"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}'
    request = urllib.request.Request(f"{url}/graphql", query, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return b"__repository__" in answer.read()
    except urllib.error.HTTPError:
        return False


def rendered(chromium: str, url: str, profile: Path) -> str:
    """The page's document after its scripts have run."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    quiet = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}")
    page = ("--window-size=2400,1600", "--virtual-time-budget=15000", "--dump-dom", url)
    done = subprocess.run(
        [chromium, *flags, *quiet, *page], capture_output=True, text=True, check=True, timeout=120, errors="replace"
    )
    return done.stdout


@pytest.mark.slow
def test_when_one_dies_the_other_is_stopped_and_the_log_is_named(small_ui: Started) -> None:
    read_until(small_ui, "Ctrl-C stops both")
    family = psutil.Process(small_ui.pid).children(recursive=True)
    mlflow = next(child for child in psutil.Process(small_ui.pid).children() if "mlflow" in child.cmdline())
    mlflow.kill()
    output = small_ui.stdout.read() if small_ui.stdout else ""
    assert small_ui.wait(timeout=60) == 1
    assert "MLflow stopped by itself" in output
    assert "mlflow.log" in output
    _gone, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_a_taken_port_is_left_to_its_owner() -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        assert free_port(port) > port
        assert free_port(port, taken={port + 1}) > port + 1
