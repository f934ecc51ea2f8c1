"""The opening of a home: the checks before anything is read or written, and the first files of a new home."""

from __future__ import annotations

import os

from warehouse.day_records import set_damaged_records_aside
from warehouse.home import Home
from warehouse.home_record import HOME_FORMAT, HomeRecord, HomeRecordError, record_path
from warehouse.identity import UserKeys, secret_path
from warehouse.tables import Tables

PRIVATE = 0o077  # the permissions that files of a home do not have: those of group and world


class OtherFormat(HomeRecordError):
    """The home is of another format than this code reads; says what to do."""


class HomeReadOnly(PermissionError):
    """A command that writes was given a home that this user cannot write to."""


def keep_private() -> None:
    """Make files that this process and its children create readable by their owner only."""
    os.umask(PRIVATE)


def open_for_reading(home: Home) -> None:
    """Check that this code can read ``home``. Write nothing; a directory that is not a home yet passes.

    Raises:
        OtherFormat: the home is of another format.
        HomeRecordError: ``home.json`` cannot be read.
        SecretMissing, SecretMismatch: the secret of the user keys is damaged, or of another kind than the manifest.
        ManifestError: the manifest of the landing zone breaks a rule.
    """
    keep_private()
    require_format(home)
    if secret_path(Tables(home.tables)).exists():
        UserKeys.of_home(home)


def open_for_writing(home: Home) -> None:
    """Check that this code can work on ``home``, and make the directories and the record of a home without them.

    Raises:
        OtherFormat, HomeRecordError, SecretMissing, SecretMismatch, ManifestError: see ``open_for_reading``.
        HomeReadOnly: this user cannot write to the home.
    """
    open_for_reading(home)
    if home.root.exists() and not os.access(home.root, os.W_OK | os.X_OK):
        raise HomeReadOnly(
            f"{home.root} cannot be written to: let this user write there, or give another --home. `adseq summary`, "
            "`check`, `serve`, `recommend` and `export` only read."
        )
    home.create()
    if HomeRecord.read(home) is None:
        HomeRecord(format=HOME_FORMAT).write(home)
    set_damaged_records_aside(Tables(home.tables))  # they are read before any run


def require_format(home: Home) -> None:
    """Check that ``home`` is of the format of this code, or new.

    Raises:
        OtherFormat: the home is of another format.
        HomeRecordError: ``home.json`` cannot be read.
    """
    found = format_of(home)
    if found is None or found == HOME_FORMAT:
        return
    if found > HOME_FORMAT:
        raise OtherFormat(
            f"{home.root} is of format {found}, and this version of adseq reads format {HOME_FORMAT}: use the version "
            f"that wrote {record_path(home)}, or give another --home."
        )
    raise OtherFormat(
        f"{home.root} was written by an earlier version of adseq (format {found}; this version reads format "
        f"{HOME_FORMAT}): run `adseq migrate --home {home.root}`, or give another --home."
    )


def format_of(home: Home) -> int | None:
    """Return the format of ``home``: 0 for tables without a record, None for a home without tables and record.

    Raises:
        HomeRecordError: ``home.json`` cannot be read.
    """
    record = HomeRecord.read(home)
    if record is not None:
        return record.format
    return 0 if any(home.tables.glob("*/_delta_log")) else None
