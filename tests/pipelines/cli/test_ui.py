"""``adseq ui`` for real: both services answer, and nothing is left of them afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.cli.ui import free_port

PROJECT = Path(__file__).resolve().parents[3]
LOCATION = "locations/__repository__@pipelines.definitions"


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, started on an empty home; whatever is left of it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from pipelines.cli.app import app; app()", "ui"],
        cwd=PROJECT,
        env={**os.environ, "ADSEQ_HOME": str(tmp_path), "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def read_until(process: subprocess.Popen[str], text: str) -> str:
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
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_both_answer_and_one_signal_stops_both_without_orphans(ui: subprocess.Popen[str], sign: signal.Signals) -> None:
    urls = addresses(read_until(ui, "Ctrl-C stops both"))
    for url in urls:
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
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
def test_a_browser_shows_the_asset_graph(ui: subprocess.Popen[str], tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine to render Dagster's asset graph (apt install chromium)")
    urls = addresses(read_until(ui, "Ctrl-C stops both"))
    dagster = next(url for url in urls if dagster_answers(url))
    graph = rendered(chromium, f"{dagster}/asset-groups", tmp_path / "profile")
    groups = ("ingest", "sequences", "features", "training", "inference", "reports")
    for group in groups:  # once in the list beside the graph and at least once in the graph itself
        assert graph.count(f">{group}<") >= 2, group
    for group, assets in {
        "training": ("training_examples", "contextual_examples", "item_model", "champion"),
        "inference": ("user_states", "item_embeddings", "item_index"),
    }.items():
        page = rendered(chromium, f"{dagster}/{LOCATION}/asset-groups/{group}", tmp_path / "profile")
        assert [asset for asset in assets if f">{asset}<" not in page] == [], group


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
def test_when_one_dies_the_other_is_stopped_and_the_log_is_named(ui: subprocess.Popen[str]) -> None:
    read_until(ui, "Ctrl-C stops both")
    family = psutil.Process(ui.pid).children(recursive=True)
    mlflow = next(child for child in psutil.Process(ui.pid).children() if "mlflow" in child.cmdline())
    mlflow.kill()
    output = ui.stdout.read() if ui.stdout else ""
    assert ui.wait(timeout=60) == 1
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
