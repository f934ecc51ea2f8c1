"""Whether the artefacts of every model version load, and every index and catalogue is what was written."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.checks.fault import Checked, Fault, Part
from warehouse.remedies import BACKUP
from warehouse.tables import TableDamaged

TRAIN_AGAIN = f"adseq run --retrain, or `adseq rollback` to another version, or {BACKUP}"
ADVERTISERS = "advertiser-"  # how the names of advertiser model versions begin


def model_part(checked: Checked) -> Part:
    """Load every artefact of every version; a load checks the checksums of the artefact."""
    from ml.models.artifact import WEIGHTS
    from ml.models.version_directories import DEPLOYED

    versions = sorted(path for path in checked.home.models.glob("*") if not path.name.startswith("."))
    artefacts = {directory for version in versions for directory in version.iterdir() if directory.is_dir()}
    artefacts |= {version / DEPLOYED for version in versions}
    faults = [fault for directory in sorted(artefacts) for fault in _artefact_faults(directory, WEIGHTS)]
    faults += _without_directory(checked, {path.name for path in versions})
    return Part("models", f"{len(versions)} versions, {len(artefacts)} artefacts loaded", faults)


def _artefact_faults(directory: Path, weights: str) -> Iterator[Fault]:
    from ml.file_integrity import Unreadable
    from ml.models.advertiser_artifact import AdvertiserArtifact
    from ml.models.artifact import ModelArtifact

    kind = AdvertiserArtifact if directory.parent.name.startswith(ADVERTISERS) else ModelArtifact
    try:
        kind.load(directory)
    except Unreadable as error:
        yield Fault(str(error), TRAIN_AGAIN)
        return
    try:  # the checksums inside the archive: torch does not look at them, and earlier versions wrote no others
        broken = zipfile.ZipFile(directory / weights).testzip()
    except (zipfile.BadZipFile, OSError) as error:
        broken = str(error)
    if broken is not None:
        yield Fault(f"{directory / weights} does not match its checksums ({broken})", TRAIN_AGAIN)


def _without_directory(checked: Checked, present: set[str]) -> list[Fault]:
    """Return a fault for each version that the tables know and that has no directory."""
    found = []
    for table in ("model_versions", "advertiser_versions"):
        try:
            known = {values["model_version"] for values in checked.tables.partitions(table)}
        except TableDamaged:
            continue  # the check of tables says so
        found += [
            Fault(f"{checked.home.models / version} is missing, and table {table!r} knows it", TRAIN_AGAIN)
            for version in sorted(known - present)
        ]
    return found


def relevance_part(checked: Checked) -> Part:
    """Load the relevance model of every day that has trained one; a load checks the checksums of its files."""
    from ml.file_integrity import Unreadable
    from ml.relevance.relevance_model import RelevanceModel

    directories = sorted(path for path in checked.home.relevance.glob("*") if not path.name.startswith("."))
    expected = {checked.home.relevance / day for day in _relevance_days(checked)}
    faults = []
    for directory in sorted({*directories, *expected}):
        try:
            RelevanceModel.load(directory)
        except Unreadable as error:
            faults.append(Fault(str(error), checked.remedy_of_day(directory.name)))
    return Part("relevance models", f"{len(directories)} models loaded", faults)


def _relevance_days(checked: Checked) -> list[str]:
    """Return the days whose relevance model passed the gate, as the names of their directories."""
    try:
        if not checked.tables.exists("relevance_versions"):
            return []
        rows = checked.tables.scan("relevance_versions").filter("passed").select("day").collect()
    except TableDamaged:
        return []  # the check of tables says so
    return [day.isoformat() for day in rows["day"]]


def index_part(checked: Checked) -> Part:
    """Check every index against its manifest, and read every catalogue."""
    from ml.file_integrity import Unreadable
    from ml.retrieval.index_files import verify_index

    indexes = sorted(path for path in checked.home.indexes.glob("*/*") if path.is_dir())
    faults = []
    for directory in indexes:
        try:
            verify_index(directory)
        except Unreadable as error:
            faults.append(Fault(str(error), checked.remedy_of_day(directory.name)))
    catalogues = sorted(checked.home.served.glob("*/*.parquet"))
    for path in catalogues:
        try:
            pq.read_table(path) if checked.deep else pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            faults.append(Fault(f"{path} is damaged ({str(error).splitlines()[0]})", checked.remedy_of_day(path.stem)))
    return Part("indexes and catalogues", f"{len(indexes)} indexes, {len(catalogues)} catalogues", faults)
