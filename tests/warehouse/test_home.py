from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from warehouse.home import Home, HomeLocked, write_atomically

HOLDER = """
import sys
from pathlib import Path
from warehouse.home import Home
with Home(Path(sys.argv[1])).writing("a daily run"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_the_second_writer_is_told_who_holds_the_home(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = rf"process {holder.pid} on .* \(a daily run, since"
        with pytest.raises(HomeLocked, match=message), Home(tmp_path).writing("another"):
            pass
        holder.communicate("\n")
    with Home(tmp_path).writing("another"):
        pass


@pytest.mark.slow
def test_a_killed_holder_frees_the_home(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        holder.wait()
    with Home(tmp_path).writing("another"):
        pass


def test_the_landing_zone_may_lie_elsewhere(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.landing == tmp_path / "home" / "landing"
    home.use_landing(tmp_path / "export")
    assert Home(tmp_path / "home").landing == tmp_path / "export"


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
