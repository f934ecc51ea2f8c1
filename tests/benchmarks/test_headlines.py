"""The table of headlines keeps the rows of benchmarks that did not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.headlines import WORKS, record
from benchmarks.report import PERFORMANCE, block_of


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- headlines: written by make bench -->\n<!-- headlines: end -->\nbehind\n")
    return path


def test_a_benchmark_writes_its_rows_and_leaves_the_others(page: Path) -> None:
    record({WORKS[0].name: "2,600"}, page)
    record({WORKS[1].name: "45%"}, page)
    rows = [line for line in block_of("headlines", page).splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [work.name for work in WORKS]
    assert "2,600" in rows[0]
    assert "python -m benchmarks training" in rows[0]
    assert "45%" in rows[1]
    assert all("not measured" in row for row in rows[2:])
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("end -->\nbehind\n")


def test_a_figure_of_no_work_is_refused(page: Path) -> None:
    with pytest.raises(KeyError, match="add it to WORKS"):
        record({"the speed of light": "1"}, page)


def test_the_page_of_the_project_has_the_table() -> None:
    block = block_of("headlines", PERFORMANCE)
    assert [work.name for work in WORKS if f"| {work.name} |" not in block] == []
