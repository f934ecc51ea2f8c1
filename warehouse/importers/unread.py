"""Numbers that ingestion will not be able to read. Their owner hears of them while the mapping can still be changed."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.ingest.read import SOURCE_FILE, SOURCE_ROW


@dataclass
class UnreadNumbers:
    """Values of a table's number columns that are no numbers, counted batch by batch."""

    table: LandingTable
    rows: dict[str, int] = field(default_factory=dict)  # by column
    first: dict[str, str] = field(default_factory=dict)  # place and text, by column

    def count(self, batch: pl.DataFrame) -> None:
        """Count a batch of the table's columns as text, with their places."""
        for name, kind in pl.Schema(SCHEMAS[self.table]).items():
            if kind.is_numeric() and name in batch.columns:
                number = pl.col(name).str.strip_chars().cast(pl.Float64, strict=False)
                unread = batch.filter(pl.col(name).is_not_null() & number.is_null())
                if unread.height:
                    self.rows[name] = self.rows.get(name, 0) + unread.height
                    file, row, text = unread.select(SOURCE_FILE, SOURCE_ROW, name).row(0)
                    self.first.setdefault(name, f"{file} {row}: {text!r}")

    def described(self) -> list[str]:
        """Return a sentence for each column that has such values."""
        return [
            f"{rows:,} values of {name} in {self.table.value} are no numbers, e.g. {self.first[name]}; the rows go "
            'without them. In the mapping, decimal = "." or "," reads numbers as people write them'
            for name, rows in self.rows.items()
        ]
