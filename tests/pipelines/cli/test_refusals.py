"""Every command on every wrong directory: one message, exit code 2, no traceback, nothing made."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import endings
from pipelines.cli.app import app
from pipelines.cli.errors import denied_access
from settings import Settings, unknown_variables, variables
from tests.flow import Ran
from warehouse.home import Home

pytestmark = pytest.mark.usefixtures("tiny_environment")

READING = {
    "summary": ["summary"],
    "serve": ["serve"],
    "proxy": ["proxy"],
    "check": ["check"],
    "migrate": ["migrate"],
    "recommend": ["recommend", "u000001"],
    "rollback": ["rollback"],
    "forget": ["forget", "u000001", "--yes"],
    "export candidates": ["export", "candidates", "--out", "{out}/candidates.csv"],
    "tune": ["tune"],
    "relevance queue": ["relevance", "queue"],
}
"""Commands that need a home which is there."""

WRITING = {
    "run": ["run", "--landing", "{landing}"],
    "demo": ["demo"],
    "ui": ["ui"],
    "evaluate": ["evaluate", "--split", "{landing}", "--landing", "{landing}", "--export", "{out}/lists.parquet"],
}
"""Commands that make a home."""


def missing(place: Path) -> None:
    """No such directory."""


def file(place: Path) -> None:
    place.write_text("a file")


def empty(place: Path) -> None:
    place.mkdir()


def foreign(place: Path) -> None:
    place.mkdir()
    (place / "holiday.jpg").touch()


def below_a_file(place: Path) -> None:
    place.parent.mkdir()
    place.parent.rmdir()
    place.parent.write_text("a file")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What commands say of errors."""
    text = io.StringIO()
    monkeypatch.setattr(endings, "errors", Console(file=text, width=200))
    return text


def run(arguments: list[str], home: Path, tmp_path: Path) -> Result:
    (tmp_path / "log").mkdir(exist_ok=True)
    filled = [each.format(landing=tmp_path / "log", out=tmp_path / "out") for each in arguments]
    return CliRunner().invoke(app, [*filled, "--home", str(home)])


def assert_one_sentence(result: Result, said: io.StringIO, *mentioned: object) -> None:
    message = said.getvalue().strip()
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output + message
    assert message.count("\n") == 0, message
    for each in mentioned:
        assert str(each) in message


@pytest.mark.parametrize("make", [missing, file, empty, foreign, below_a_file])
@pytest.mark.parametrize("arguments", READING.values(), ids=READING)
def test_what_is_no_home_is_refused_and_left_as_it_is(
    arguments: list[str], make: Callable[[Path], None], said: io.StringIO, tmp_path: Path
) -> None:
    place = tmp_path / "somewhere" / "home" if make is below_a_file else tmp_path / "home"
    make(place)
    before = sorted(tmp_path.rglob("*"))
    result = run(arguments, place, tmp_path)
    assert_one_sentence(result, said, tmp_path, "--home")
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "log"] == before


@pytest.mark.parametrize("arguments", WRITING.values(), ids=WRITING)
def test_a_file_in_the_place_of_a_home_is_refused(arguments: list[str], said: io.StringIO, tmp_path: Path) -> None:
    file(tmp_path / "home")
    assert_one_sentence(run(arguments, tmp_path / "home", tmp_path), said, "is a file")
    assert (tmp_path / "home").read_text() == "a file"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A home that this user cannot write: by its mode, or for the superuser by its file system."""
    home = tmp_path / "read-only"
    Home(home).create()
    if os.geteuid():
        home.chmod(0o500)
        yield home
        home.chmod(0o700)
        return
    for options in (["--bind", str(home)], ["-o", "remount,bind,ro"]):
        mounted = subprocess.run(["mount", *options, str(home)], capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"a read-only home needs the right to mount one: {mounted.stderr.strip()}")
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.parametrize("arguments", [*WRITING.values(), *(READING[name] for name in ("rollback", "tune", "forget"))])
def test_a_read_only_home_is_refused_before_anything_runs(
    arguments: list[str], read_only: Path, said: io.StringIO, tmp_path: Path
) -> None:
    assert_one_sentence(run(arguments, read_only, tmp_path), said, f"may not write {read_only}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"prediction_window_days = 0\n", "field 'prediction_window_days'"),
        (b"name = \n", "is not valid TOML"),
        (b'name = "\xff"\n', "is not UTF-8 text"),
        (b'time_zone = "Mars/Base"\n', "Name an IANA zone"),
        (b"colour = 3\n", "field 'colour'"),
    ],
)
@pytest.mark.parametrize("arguments", [WRITING["run"], ["validate", "{landing}"], ["split", "{landing}", "--out", "x"]])
def test_an_invalid_manifest_is_one_sentence(
    arguments: list[str], content: bytes, says: str, said: io.StringIO, tmp_path: Path
) -> None:
    zone = tmp_path / "log"
    zone.mkdir()
    (zone / "manifest.toml").write_bytes(content)
    filled = [each.format(landing=zone) for each in arguments]
    home = ["--home", str(tmp_path / "home")] if "run" in filled else []
    assert_one_sentence(CliRunner().invoke(app, [*filled, *home]), said, zone / "manifest.toml", says)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ADSEQ_TRAINNG__SEED", "1", "Did you mean ADSEQ_TRAINING__SEED?"),
        ("ADSEQ_TRAINING__SED", "1", "Did you mean ADSEQ_TRAINING__SEED?"),
        ("ADSEQ_LEARNING_RATE", "1", "ADSEQ_LEARNING_RATE is no setting"),
        ("adseq_modl__width", "1", "adseq_modl__width is no setting"),
        ("ADSEQ_TRAINING__BATCH_SIZE", "1", "greater than or equal to 2"),
        ("ADSEQ_TRAINING__BATCH_SIZE", "many", "valid integer"),
        ("ADSEQ_EVALUATION__KS", "[10,", "is not the JSON"),
        ("ADSEQ_TRAINING", "fast", "is not the JSON"),
    ],
)
def test_a_wrong_variable_is_named(
    name: str, value: str, says: str, said: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    result = run(WRITING["run"], tmp_path / "home", tmp_path)
    assert_one_sentence(result, said, says)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "recommend"])
def test_an_unknown_generator_is_refused_with_the_known_ones(
    command: str, ran: Ran, said: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSEQ_SERVING__GENERATORS", '{"item_neighbours": 0.8, "neighbours": 0.2}')
    result = run(READING[command], ran.home.root, tmp_path)
    assert_one_sentence(result, said, "neighbours", "Known: advertiser_lists, item_neighbours, popularity")


def test_every_variable_of_a_setting_is_known_and_entries_of_dictionaries_too() -> None:
    flat = {f"ADSEQ_{name.replace('.', '__').upper()}": "1" for name in Settings().flat()}
    assert set(flat) <= set(variables())
    others = {"ADSEQ_TOKEN": "secret", "ADSEQ_EXAMPLES__LABEL_WEIGHTS__CHECKOUT": "2", "PATH": "/bin"}
    assert unknown_variables(flat | others) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied", "/data/home/tables"), "/data/home/tables: permission denied"),
        (OSError(30, "Read-only file system", "/data/home"), "/data/home cannot be written"),
        (RuntimeError("Generic LocalFileSystem error: Permission denied (os error 13)"), "permission denied"),
        (RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database"), "read-only"),
        (NotADirectoryError(20, "Not a directory", "/data/file/x"), "/data/file/x: Not a directory"),
    ],
)
def test_an_error_of_the_file_system_is_one_sentence_whatever_wraps_it(error: Exception, says: str) -> None:
    wrapped = ValueError("a library failed")
    wrapped.__cause__ = error
    assert says in (denied_access(wrapped) or "")
    assert denied_access(ValueError("a fault")) is None


def test_the_version_is_shown() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("adseq ")


def test_what_kubernetes_sets_beside_a_service_of_this_name_is_left_alone() -> None:
    names = ["SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP_ADDR", "CANDIDATES_SERVICE_PORT"]
    assert unknown_variables({f"ADSEQ_{name}": "10.0.0.1" for name in names}) == []
    assert len(unknown_variables({"ADSEQ_SERVNG__PORT": "1", "ADSEQ_SERVICE": "1"})) == 2
