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
    lists = any(pa.types.is_list(kind) or pa.types.is_large_list(kind) for kind in schema.types)
    return _GROUP_ROWS_WITH_LISTS if lists else _GROUP_ROWS


def writer_properties(schema: pa.Schema) -> WriterProperties:
    """Return how delta-rs writes the rows of a table."""
    # Given properties, delta-rs compresses only what they say.
    return WriterProperties(
        compression="SNAPPY",
        max_row_group_size=group_rows(schema),
        column_properties={column: ColumnProperties(dictionary_enabled=False) for column in _UNIQUE},
    )
