"""The files of an arrival, judged in parts: a part is some neighbouring files, and no rows of it pass the run.

A part writes the rejected rows to a file for the quarantine, and hands the accepted rows to a sink, which writes them
where the ingestion goes on from.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import polars as pl

from engine.engine import Engine, Work
from warehouse.ingest.deduplicate import SEQUENCE, accepted_columns
from warehouse.ingest.read import read_arrival
from warehouse.ingest.validate_rows import QUARANTINE_SCHEMA, USER, Judged, Rules, judge
from warehouse.landed_files import LandedFile
from warehouse.spill import write_piece

ROWS_OF_A_PART = 2**40  # more than any part has, so that a row's number orders as files and rows were read
Written = TypeVar("Written", covariant=True)


@dataclass
class Found:
    """The contents of an arrival's files."""

    rows: int = 0
    forgotten: int = 0  # of the rows that break a rule
    broken: Counter[tuple[str, str]] = field(default_factory=Counter)  # by file and rule
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)  # place and content of the first
    lost: Counter[str] = field(default_factory=Counter)  # numbers that cannot be read, by column
    ignored_columns: set[str] = field(default_factory=set)

    def by_rule(self) -> dict[str, int]:
        """Return the number of rows of each broken rule, most rows first, equal numbers by the rule's name."""
        rules: Counter[str] = Counter()
        for (_, rule), rows in self.broken.items():
            rules[rule] += rows
        return {rule: rules[rule] for rule in sorted(rules, key=lambda rule: (-rules[rule], rule))}

    def add(self, judged: Judged, rejected: pl.DataFrame) -> None:
        """Count a batch. ``rejected`` has the rejected rows of the batch that are not about forgotten users."""
        self.rows += judged.rows
        self.forgotten += judged.rejected.height - rejected.height
        self.ignored_columns |= set(judged.ignored_columns)
        self.lost.update({number.column: number.rows for number in judged.lost})
        for file, rule, place, content in rejected.select("file", "rule", "place", "content").iter_rows():
            self.broken[file, rule] += 1
            self.examples.setdefault((file, rule), (place, content))

    def __add__(self, later: Found) -> Found:
        """Return the contents of both; ``later`` has other files."""
        return Found(
            self.rows + later.rows,
            self.forgotten + later.forgotten,
            self.broken + later.broken,
            self.examples | later.examples,
            self.lost + later.lost,
            self.ignored_columns | later.ignored_columns,
        )


class Sink(Protocol[Written]):
    """Takes the accepted rows of a part."""

    def add(self, rows: pl.DataFrame) -> None:
        """Write some rows: ``accepted_columns``, in the order of reading."""
        ...

    def close(self) -> Written:
        """Return what the sink has written."""
        ...


@dataclass(frozen=True)
class FilePart:
    """Some files of an arrival, neighbours in the order of names."""

    number: int
    files: tuple[Path, ...]


@dataclass(frozen=True)
class JudgedPart(Generic[Written]):
    """What became of the rows of a part: ``accepted`` is the sink's, ``rejected`` are files for the quarantine."""

    found: Found
    accepted: Written
    rejected: tuple[Path, ...]


def file_parts(folder: Path, files: Sequence[LandedFile], part_bytes: int) -> list[FilePart]:
    """Return parts of about ``part_bytes``, in the order of ``files``; at least one. No file is cut."""
    parts: list[list[Path]] = [[]]
    held = 0
    for file in files:
        if held and held + file.bytes > part_bytes:
            parts.append([])
            held = 0
        parts[-1].append(folder / file.name)
        held += file.bytes
    return [FilePart(number, tuple(part)) for number, part in enumerate(parts)]


@dataclass(frozen=True)
class JudgedFiles(Generic[Written]):
    """The stage that judges parts of an arrival: a part answers with one pickled ``JudgedPart``.

    Attributes:
        tombstones: the keys of forgotten users.
        batch_bytes: as in ``read_arrival``.
        directory: of the files for the quarantine; all machines share it.
        sink: makes the sink of a part.
    """

    rules: Rules
    tombstones: pl.Series
    batch_bytes: int
    directory: Path
    sink: Callable[[], Sink[Written]]

    def __call__(self) -> Work[FilePart]:
        return self._rows

    def _rows(self, part: FilePart) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"judged": [pickle.dumps(self._judged(part))]})

    def _judged(self, part: FilePart) -> JudgedPart[Written]:
        found, rejected = Found(), Pieces(self.directory, "rejected")
        sink, columns, number = self.sink(), accepted_columns(self.rules.table), part.number * ROWS_OF_A_PART
        for path in part.files:
            for arrival in read_arrival(path, self.rules.table, self.batch_bytes):
                batch = judge(arrival, self.rules)
                kept = batch.rejected.filter(~pl.col(USER).is_in(self.tombstones.implode()).fill_null(False))
                found.add(batch, kept)
                rejected.add(kept.select(list(QUARANTINE_SCHEMA)))
                order = pl.int_range(number, number + pl.len(), dtype=pl.Int64).alias(SEQUENCE)
                sink.add(batch.accepted.with_columns(order).select(columns.names()).cast(columns))
                number += batch.accepted.height
        return JudgedPart(found, sink.close(), rejected.close())


@dataclass
class Pieces:
    """The sink that writes rows to files as they come, each ``add`` to a file of its own."""

    directory: Path
    name: str
    _written: list[Path] = field(default_factory=list)

    def add(self, rows: pl.DataFrame) -> None:
        if len(rows):
            self._written.append(write_piece(self.directory, self.name, rows))

    def close(self) -> tuple[Path, ...]:
        return tuple(self._written)


def judged_files(
    stage: JudgedFiles[Written], engine: Engine, parts: Sequence[FilePart]
) -> tuple[Found, list[JudgedPart[Written]]]:
    """Return the contents of the files of all parts together, and each part in the order of the parts."""
    with closing(engine.run(stage, parts)) as answers:
        judged: list[JudgedPart[Written]] = [pickle.loads(answer.item()) for answer in answers]
    return reduce(Found.__add__, (part.found for part in judged), Found()), judged
