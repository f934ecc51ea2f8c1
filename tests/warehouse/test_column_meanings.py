"""Each column of a landed table has a meaning, and no meaning is of a column that no table has."""

from __future__ import annotations

from warehouse.column_meanings import _MEANINGS, meaning
from warehouse.contracts import SCHEMAS


def test_every_column_has_a_meaning() -> None:
    columns = [(table, column) for table, schema in SCHEMAS.items() for column in schema.columns()]
    assert all(meaning(table, column) for table, column in columns)
    assert {column for _, column in columns} == set(_MEANINGS)
