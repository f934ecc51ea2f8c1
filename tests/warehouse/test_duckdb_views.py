from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest

from warehouse.duckdb_views import rebuild_views
from warehouse.home import Home
from warehouse.tables import Tables, TableVersion

DAY, NEXT = date(2026, 1, 1), date(2026, 1, 2)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "it's a home").create()


def ask(home: Home, question: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(home.views), read_only=True) as connection:
        return connection.sql(question).fetchall()


def test_every_table_has_a_view_of_its_current_rows(home: Home) -> None:
    tables = Tables(home.tables)
    for day, value in ((DAY, 1), (NEXT, 2), (DAY, 3)):
        tables.write("t", pl.DataFrame({"x": [value]}), {"day": day})
    tables.write("states", pl.DataFrame({"y": ["a"]}), {"model_version": "007", "day": DAY})
    rebuild_views(home, tables)
    assert ask(home, "SELECT x, day FROM t ORDER BY x") == [(2, NEXT), (3, DAY)]
    assert ask(home, "SELECT y, model_version, day FROM states") == [("a", "007", DAY)]


def test_a_table_without_rows_has_a_view_with_its_columns(home: Home) -> None:
    tables = Tables(home.tables)
    schema: dict[str, pl.DataType | type[pl.DataType]] = {"x": pl.Float64, "times": pl.List(pl.Datetime("us", "UTC"))}
    tables.write("empty", pl.DataFrame(schema=schema), {"day": DAY})
    rebuild_views(home, tables)
    assert ask(home, "SELECT * FROM empty") == []
    assert [column[0] for column in ask(home, "DESCRIBE empty")] == ["x", "times", "day"]


def test_a_column_that_came_later_is_null_in_older_partitions(home: Home) -> None:
    tables = Tables(home.tables)
    tables.write("t", pl.DataFrame({"x": [1]}), {"day": DAY})
    tables.write("t", pl.DataFrame({"x": [2], "y": ["new"]}), {"day": NEXT})
    rebuild_views(home, tables)
    assert ask(home, "SELECT x, y FROM t ORDER BY x") == [(1, None), (2, "new")]


def test_rebuilding_replaces_the_file_at_once_and_leaves_no_other(home: Home) -> None:
    tables = Tables(home.tables)
    rebuild_views(home, tables)
    before = set(home.root.iterdir())
    with duckdb.connect(str(home.views), read_only=True) as reader:
        tables.write("t", pl.DataFrame({"x": [1]}), {"day": DAY})
        rebuild_views(home, tables)
        assert reader.sql("SHOW TABLES").fetchall() == []
    assert set(home.root.iterdir()) == before
    assert ask(home, "SHOW TABLES") == [("t",)]


def test_a_rebuild_that_fails_leaves_the_previous_views(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables(home.tables)
    tables.write("t", pl.DataFrame({"x": [1]}), {"day": DAY})
    rebuild_views(home, tables)

    def broken(self: Tables, name: str) -> TableVersion:
        raise OSError("disk gone")

    monkeypatch.setattr(Tables, "newest", broken)
    with pytest.raises(OSError, match="disk gone"):
        rebuild_views(home, tables)
    assert ask(home, "SELECT x FROM t") == [(1,)]
    assert not list(home.root.glob("*.tmp"))
