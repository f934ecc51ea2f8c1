"""How rows lie in the data files of a table: types, compression, row groups."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties

COMPRESSION = "snappy"
_UNIQUE = ("event_id",)  # columns that hardly ever repeat a value: a dictionary of them saves nothing
# Rows of a row group, which a writer holds in memory, and which a reader reads as a whole or not at all.
_GROUP_ROWS, _GROUP_ROWS_WITH_LISTS = 131_072, 16_384


def storable(frame: pl.DataFrame) -> pl.DataFrame:
    """Return ``frame`` in types that Delta knows: Array -> List, Categorical/Enum -> String, unsigned -> signed."""
    casts: dict[str, pl.DataType] = {}
    unsigned: Sequence[tuple[pl.DataType, pl.DataType]] = (
        (pl.UInt8(), pl.Int16()),
        (pl.UInt16(), pl.Int32()),
        (pl.UInt32(), pl.Int64()),
        (pl.UInt64(), pl.Int64()),
    )
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Array):
            casts[name] = pl.List(kind.inner)
        elif isinstance(kind, pl.Categorical | pl.Enum):
            casts[name] = pl.String()
        for before, after in unsigned:
            if kind == before:
                casts[name] = after
    return frame.cast(casts) if casts else frame  # type: ignore[arg-type]


def group_rows(schema: pa.Schema) -> int:
    """Return the number of rows of a row group: rows with lists are wide and go into smaller groups."""
    return _GROUP_ROWS_WITH_LISTS if any(map(_is_list, schema.types)) else _GROUP_ROWS


def repeating_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that a dictionary makes smaller, as PyArrow's writer names them: texts that repeat.

    >>> repeating_columns(pa.schema({"user_id": pa.string(), "event_id": pa.string(), "items": pa.list_(pa.string())}))
    ['user_id', 'items.list.element']
    """
    return [_leaf(field) for field in schema if field.name not in _UNIQUE and _is_text(field.type)]


def flat_columns(schema: pa.Schema) -> list[str]:
    """Return the columns without lists: a reader skips row groups by their smallest and largest values."""
    return [field.name for field in schema if not _is_list(field.type)]


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if _is_list(field.type) else str(field.name)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string(kind)) or (
        _is_list(kind) and _is_text(kind.value_type)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def writer_properties(schema: pa.Schema) -> WriterProperties:
    """Return how delta-rs writes the rows of a table."""
    # Given properties, delta-rs compresses only what they say.
    return WriterProperties(
        compression="SNAPPY",
        max_row_group_size=group_rows(schema),
        column_properties={column: ColumnProperties(dictionary_enabled=False) for column in _UNIQUE},
    )
