"""The record of a home: the format that the home is written in, and the day that the home's history counts as."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from warehouse.home import Home, write_atomically

HOME_FORMAT = 1
"""Raised by whatever change makes an older home unreadable, or wrong to go on with."""

RECORD_FILE = "home.json"


class HomeRecordError(RuntimeError):
    """``home.json`` is missing where there are tables, cannot be read, or is of another format."""


class HomeRecord(BaseModel):
    """The content of ``home.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    history_day: date | None = None  # the arrival day of the history; None until the history is ingested

    @model_validator(mode="before")
    @classmethod
    def _of_a_later_format(cls, fields: Any) -> Any:
        """Keep only the format of a record of a later format, whose other fields are unknown here."""
        found = fields.get("format") if isinstance(fields, dict) else None
        return {"format": found} if type(found) is int and found > HOME_FORMAT else fields

    @classmethod
    def read(cls, home: Home) -> HomeRecord | None:
        """Read the record of ``home``. Return None where the home has no record.

        Raises:
            HomeRecordError: the file cannot be read.
        """
        path = record_path(home)
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            rule = error.errors()[0]
            field = ".".join(map(str, rule["loc"])) or "the file"
            raise HomeRecordError(
                f"{path}: {field}: {rule['msg']}. Restore the file from a backup of the home, or start a new home."
            ) from error

    def write(self, home: Home) -> None:
        """Write the record of ``home`` atomically."""
        home.make_root()
        write_atomically(record_path(home), f"{self.model_dump_json(indent=2)}\n".encode())


def record_path(home: Home) -> Path:
    """Return the path of the record of ``home``."""
    return home.root / RECORD_FILE
