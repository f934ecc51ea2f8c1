"""``python -m benchmarks.peers`` with hand-made lists and a stand-in for the peers' Python."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.peers.__main__ import PROJECT, main
from benchmarks.peers.results import Answer, PeerResult, fingerprint, result_path
from benchmarks.peers.scoring import ListsRefused, score
from pipelines.evaluate.split import Split

PEER = """#!{python}
import sys
sys.path.insert(0, {project!r})
from pathlib import Path
from benchmarks.peers.results import Answer, PeerResult, fingerprint, result_path
name, split, out, seed = sys.argv[3], Path(sys.argv[4]), Path(sys.argv[6]), int(sys.argv[8])
Path({started!r}).open("a").write(name + "\\n")
if name == "sasrec":
    sys.exit(3)
path = result_path(out, name)
path.parent.mkdir(parents=True)
(path.parent / "history.parquet").write_bytes(Path({lists!r}).read_bytes())
PeerResult(
    title=name.upper(), note="treated well", split=fingerprint(split), seed=seed, tried=4, tune_seconds=20.0,
    peak_bytes=300 * 2**20, versions="library 1.0",
    answers=(Answer("history", "history.parquet", "64 factors", 2.5, 0.25),),
).write(path)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A split of two queries. Item c is cold, item d has no brand; the ids of queries are numbers, as on disk."""
    made = tmp_path / "tiny-temporal"
    made.mkdir()
    catalogue = {"item_id": list("abcdef"), "warm": [True, True, False, True, True, True]}
    catalogue["brand"] = [1.0, 2.0, 2.0, None, 1.0, 3.0]
    frames = {
        "train": {"user_id": [1, 1, 2], "item_id": ["a", "b", "f"], "ts": [1, 2, 3], "ord": [0, 1, 2]},
        "queries": {"query_id": [1, 2], "user_id": [1, 2], "context_item": [None, "e"]},
        "history": {"query_id": [1, 1, 2], "item_id": ["a", "b", "f"], "ord": [0, 1, 2]},
        "targets": {"query_id": [1, 1, 2, 2], "item_id": ["d", "e", "b", "c"]},
        "catalogue": catalogue,
    }
    for name, frame in frames.items():
        pl.DataFrame(frame).write_parquet(made / f"{name}.parquet")
    (made / "meta.json").write_text(json.dumps({"cutoff": "2014-05-01 00:00:00", "window_days": 28.0}))
    return made


def write_lists(path: Path, rows: list[tuple[int, int, str]]) -> Path:
    pl.DataFrame(rows, schema=["query_id", "rank", "item_id"], orient="row").write_parquet(path)
    return path


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Query 1: d (wanted), f. Query 2: c (cold), a, and a query of another split."""
    return write_lists(tmp_path / "lists.parquet", [(1, 1, "d"), (1, 2, "f"), (2, 1, "c"), (2, 2, "a"), (9, 1, "a")])


@pytest.fixture
def python(tmp_path: Path, lists: Path) -> Path:
    """A stand-in for the peers' Python: sasrec fails, every other peer hands over ``lists``."""
    path = tmp_path / "peers-python"
    started = str(tmp_path / "started")
    path.write_text(PEER.format(python=sys.executable, project=str(PROJECT), started=started, lists=str(lists)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def run(directory: Path, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Runs the command; the exit code, and the table by its first column."""
    monkeypatch.setenv("ADSEQ_HOME", str(tmp_path / "home"))

    def command(*arguments: str) -> tuple[int, dict[str, list[str]], str]:
        code = main([str(directory), "--python", str(python), *arguments])
        page = (tmp_path / "home" / "peers" / "tiny-temporal" / "seed-0" / "table.md").read_text()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
        return code, {row[0]: row[1:] for row in rows}, page

    return command


def test_lists_are_scored_on_the_warm_catalogue_by_hand(directory: Path, lists: Path) -> None:
    found = score(lists, Split.read(directory))
    assert found.positives == 3  # c is cold
    assert found.recall[10] == pytest.approx(1 / 3)
    # Brands are known of two of the three: e's (1) is not shown to query 1, b's (2) not to query 2, whose c has left.
    assert found.advertiser_hit[10] == 0
    assert found.diversity90 == pytest.approx(3 / 5)  # d, f, a of five warm items


def test_what_a_list_shows_earlier_counts_at_its_place_after_others_left(directory: Path, tmp_path: Path) -> None:
    """Ranks need not begin with 1 or be without gaps: their order counts, and b moves up when c leaves."""
    path = write_lists(tmp_path / "gaps.parquet", [(2, 40, "b"), (2, 7, "c"), (1, 900, "e"), (1, 300, "f")])
    found = score(path, Split.read(directory))
    assert found.recall[10] == pytest.approx(2 / 3)
    assert found.advertiser_hit[10] == 1


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        ([(1, 1, "d"), (1, 2, "d")], "holds one item_id twice"),
        ([(1, 1, "d"), (1, 1, "e")], "holds one rank twice"),
        ([(1, 1, "a")], "query 1, item a"),  # the history
        ([(2, 1, "e")], "context item"),
        ([(7, 1, "a")], "no list for a query of tiny-temporal"),
    ],
)
def test_lists_that_break_a_rule_are_refused(
    directory: Path, tmp_path: Path, rows: list[tuple[int, int, str]], rule: str
) -> None:
    with pytest.raises(ListsRefused, match=rule):
        score(write_lists(tmp_path / "broken.parquet", rows), Split.read(directory))


def test_lists_that_are_absent_or_lack_a_column_are_refused(directory: Path, tmp_path: Path) -> None:
    split = Split.read(directory)
    with pytest.raises(ListsRefused, match="does not exist"):
        score(tmp_path / "nowhere.parquet", split)
    pl.DataFrame({"query_id": [1], "item_id": ["d"]}).write_parquet(tmp_path / "short.parquet")
    with pytest.raises(ListsRefused, match="'rank'"):
        score(tmp_path / "short.parquet", split)


@pytest.mark.slow
def test_one_table_of_the_peers_and_of_lists_given_as_files(run, lists: Path) -> None:  # type: ignore[no-untyped-def]
    code, rows, page = run("--models", "als", "--lists", f"adseq={lists}")
    assert code == 0
    assert rows["ALS"] == ["0.3333", "0.3333", "0.0000", "0.600", "2.5", "0.2", "300"]
    assert rows["adseq"] == [*rows["ALS"][:4], "–", "–", "–"]
    assert "treated well" in page
    assert "ALS: 64 factors, the best of 4 tried in 20 s." in page


@pytest.mark.slow
def test_a_failing_peer_does_not_hide_the_others(run) -> None:  # type: ignore[no-untyped-def]
    code, rows, page = run("--models", "sasrec", "cosine", "als")
    assert code == 1
    assert rows["sasrec: failed"] == ["–"] * 7
    assert rows["ALS"] == rows["COSINE"]
    assert "exit code 3" in page


@pytest.mark.slow
def test_what_is_there_is_not_trained_again(run, directory: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def started() -> list[str]:
        return (tmp_path / "started").read_text().split()

    run("--models", "als", "sasrec")
    _, rows, _ = run("--models", "als", "sasrec")
    assert started() == ["als", "sasrec", "sasrec"]  # what failed is tried again
    assert "ALS" in rows
    train = pl.read_parquet(directory / "train.parquet")
    train.head(2).write_parquet(directory / "train.parquet")
    result_path(tmp_path / "home" / "peers" / "tiny-temporal" / "seed-0", "als").with_name("history.parquet").unlink()
    code, rows, page = run("--models", "als")
    assert started()[3:] == ["als"]  # another split under the same name
    assert code == 1  # the stand-in refuses to write into a directory that exists
    assert "exit code 1" in page


def test_a_broken_result_and_a_missing_environment_are_told(run, directory: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = result_path(tmp_path / "home" / "peers" / "tiny-temporal" / "seed-0", "als")
    path.parent.mkdir(parents=True)
    path.write_text('{"title": "ALS"}')
    code, _, page = run("--models", "als", "bm25", "--python", str(tmp_path / "no-python"))
    assert code == 1
    assert f"{path} is not the result of a peer" in page
    assert "make peers" in page


def test_variants_of_a_peer_are_rows_of_their_own(run, directory: Path, lists: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = result_path(tmp_path / "home" / "peers" / "tiny-temporal" / "seed-0", "als")
    path.parent.mkdir(parents=True)
    answers = (Answer("history", "h.parquet", "x", 1.0, 1.0), Answer("context item", "c.parquet", "y", 1.0, 1.0))
    PeerResult("ALS", "note", fingerprint(directory), 0, 2, 1.0, 2**20, "1.0", answers).write(path)
    (path.parent / "h.parquet").write_bytes(lists.read_bytes())
    write_lists(path.parent / "c.parquet", [(1, 1, "d"), (1, 2, "e")])
    code, rows, _ = run("--models", "als")
    assert code == 0
    assert rows["ALS, history"][0] == "0.3333"
    assert rows["ALS, context item"][0] == "0.6667"


@pytest.mark.slow
def test_the_peak_is_the_peers_own_and_not_what_its_parent_had() -> None:
    held = np.ones(2**27)  # a gibibyte
    code = "from benchmarks.peers.train import peak_bytes; print(peak_bytes())"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", code]
    peak = int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert 2**24 < peak < held.nbytes / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "crystal_ball"], "invalid choice: 'crystal_ball'"),
        (["--lists", "lists.parquet"], "is not NAME=FILE"),
        (["--seed", "first"], "invalid int value"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    directory: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main([str(directory), *arguments])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_directory_that_is_no_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a split: train.parquet" in capsys.readouterr().out
