"""An index on disk: two files with checksums in their names, and a manifest, which names the files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import faiss
import numpy as np
import polars as pl

from ml.file_integrity import Unreadable, sha256_of
from ml.retrieval.index import ItemIndex, index_kind

MANIFEST = "manifest.json"
VECTOR = "vector"  # column of the items' file: the row of an item's vector


class UnreadableIndexError(Unreadable):
    """An index on disk is missing, incomplete or damaged."""


@dataclass(frozen=True)
class IndexManifest:
    """The content of an index directory. The manifest is written last, so a directory with a manifest is complete."""

    kind: str
    size: int
    dimension: int
    model_version: str
    day: str
    index_file: str
    index_sha256: str
    items_file: str
    items_sha256: str


@dataclass(frozen=True)
class LoadedIndex:
    """An index with the item ids of its rows, in order."""

    index: ItemIndex
    item_ids: list[str]
    manifest: IndexManifest


def save_index(
    directory: Path, index: ItemIndex, item_ids: Sequence[str], *, model_version: str, day: date | str
) -> IndexManifest:
    """Write the index into ``directory``, replacing the one there in one atomic step.

    The files carry their checksum in their names, and the manifest names the files. So the new index takes over at the
    moment when the manifest is replaced; a crash before that moment leaves the old index as it was.

    Raises:
        ValueError: the number of item ids is not the number of rows.
    """
    if len(item_ids) != len(index):
        raise ValueError(f"the index has {len(index)} rows but {len(item_ids)} item ids were given")
    directory.mkdir(parents=True, exist_ok=True)
    unnamed = directory / f".index.{os.getpid()}.tmp"
    faiss.write_index(index.vectors, str(unnamed))
    index_file, index_sha256 = _named_by_checksum(unnamed, "index", "faiss")
    items = [pl.Series("item_id", item_ids, dtype=pl.String), pl.Series(VECTOR, index.vector_of)]
    pl.DataFrame(items).write_parquet(unnamed)
    items_file, items_sha256 = _named_by_checksum(unnamed, "items", "parquet")
    manifest = IndexManifest(
        kind=index_kind(index).value,
        size=len(index),
        dimension=index.width,
        model_version=model_version,
        day=str(day),
        index_file=index_file,
        index_sha256=index_sha256,
        items_file=items_file,
        items_sha256=items_sha256,
    )
    unnamed.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    _flush(unnamed)
    os.replace(unnamed, directory / MANIFEST)
    _flush(directory)
    for file in directory.iterdir():
        if file.name not in (MANIFEST, index_file, items_file):
            file.unlink()
    return manifest


def load_index(directory: Path) -> LoadedIndex:
    """Return the index that ``save_index`` wrote.

    Raises:
        UnreadableIndexError: there is no complete index, or a file does not match its checksum.
    """
    manifest = verify_index(directory)
    vectors = faiss.read_index(str(directory / manifest.index_file))
    items = pl.read_parquet(directory / manifest.items_file, glob=False)
    # An index of an earlier version has one vector an item.
    vector_of = items[VECTOR].to_numpy() if VECTOR in items.columns else np.arange(len(items))
    return LoadedIndex(ItemIndex.of(vectors, vector_of), items["item_id"].to_list(), manifest)


def verify_index(directory: Path) -> IndexManifest:
    """Check the files of an index against the checksums of its manifest, load no vector, and return the manifest.

    Raises:
        UnreadableIndexError: there is no complete index, or a file does not match its checksum.
    """
    again = f"run its day again (adseq run --days {directory.name} --again)"
    try:
        manifest = IndexManifest(**json.loads((directory / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UnreadableIndexError(f"{directory / MANIFEST} is no index manifest ({error}): {again}") from error
    checksums = {manifest.index_file: manifest.index_sha256, manifest.items_file: manifest.items_sha256}
    for name, expected in checksums.items():
        if not (directory / name).is_file():
            raise UnreadableIndexError(f"{directory / name} is missing: {again}")
        if sha256_of(directory / name) != expected:
            raise UnreadableIndexError(f"{directory / name} does not match the checksum in {MANIFEST}: {again}")
    return manifest


def _named_by_checksum(file: Path, stem: str, suffix: str) -> tuple[str, str]:
    """Make ``file`` durable under a name that holds its checksum, and return the name and the checksum."""
    _flush(file)
    checksum = sha256_of(file)
    name = f"{stem}-{checksum[:12]}.{suffix}"
    os.replace(file, file.with_name(name))
    return name, checksum


def _flush(path: Path) -> None:
    """Wait until a file, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
