"""How a command ends: what its user can mend is one message without a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import typer
from rich.console import Console

from pipelines.cli.interruption import exit_code, sentence

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

errors = Console(stderr=True)
FULL_DISK = (
    "The disk is full or failing: not even the run log could be written. What was done before "
    "stays done, and nothing half-written is ever read. Make room (`adseq summary` names the places; "
    "ADSEQ_DATA__KEEP_DAYS and ADSEQ_DATA__KEEP_VERSIONS_DAYS say what is kept), then give the same command again."
)


@contextmanager
def readable() -> Iterator[None]:
    """End the command with one message and no traceback where the user can mend the error.

    The exit code is 2, or 1 for a run that failed.
    """
    try:
        _check_environment()
        yield
    except KeyboardInterrupt:
        errors.print(f"\n{sentence(signal.SIGINT)}", soft_wrap=True)
        raise typer.Exit(exit_code(signal.SIGINT)) from None
    except (click.exceptions.Exit, click.Abort, click.ClickException):
        raise  # what a command says of its own accord
    except Exception as error:
        ending = ending_of(error)
        if ending is None:
            raise  # a fault of adseq: the traceback is what helps
        code, message = ending
        errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(code) from None


def _check_environment() -> None:
    from pipelines.cli.errors import RunRefused
    from settings import unknown_variables

    if unknown := unknown_variables(os.environ):
        raise RunRefused("; ".join(unknown) + ".")


def ending_of(error: Exception) -> tuple[int, str] | None:
    """Return exit code and message of an error that is not a fault of adseq; None for a fault of adseq."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from engine.engine import EngineFailed
    from ml.file_integrity import Unreadable
    from pipelines.cli.errors import RunFailed, RunRefused, ServiceFailed, denied_access, is_full_disk
    from warehouse.home import HomeLocked
    from warehouse.home_record import HomeRecordError
    from warehouse.identity import SecretMismatch, SecretMissing
    from warehouse.importers.landing_writer import SourceError
    from warehouse.importers.mapping import MappingError
    from warehouse.ingest.read import LandingError
    from warehouse.landing import ManifestError
    from warehouse.online.store import NothingPublished, StoreUnreachable
    from warehouse.open_home import HomeReadOnly
    from warehouse.spill import MemoryTooSmall
    from warehouse.tables import TableDamaged, TableMissing

    if isinstance(error, RunFailed | ServiceFailed):
        return 1, f"\n{error}"
    if is_full_disk(error):
        return 1, f"\n{FULL_DISK}"
    if (denied := denied_access(error)) is not None:
        return 2, denied
    refused = RunRefused | HomeLocked | ManifestError | LandingError | SourceError | MappingError
    of_home = HomeReadOnly | HomeRecordError | SecretMissing | SecretMismatch | Unreadable | TableDamaged | TableMissing
    if isinstance(error, refused | of_home | NothingPublished | StoreUnreachable | MemoryTooSmall | EngineFailed):
        return 2, str(error)
    if told := damaged_file(error):
        return 1, told
    if isinstance(error, ValidationError) and error.title == "Settings":
        return 2, "\n".join(map(_broken_rule, error.errors()))
    if isinstance(error, SettingsError):
        return 2, f"A variable of the environment is not the JSON that its setting takes: {error}."
    return None


def damaged_file(error: BaseException) -> str | None:
    """Return the sentence for a data file of a table that is missing or damaged; None for another error.

    Polars and DuckDB name the end of the path of a missing file, and name no path of a damaged file.
    """
    from polars.exceptions import ComputeError

    said = str(error)
    missing = isinstance(error, FileNotFoundError) and ".parquet" in said
    damaged = isinstance(error, ComputeError) and "parquet" in said.lower()
    if not missing and not damaged:
        return None
    return (
        f"A file of the home cannot be read ({said.splitlines()[0]}). `adseq check` names each broken file and the "
        "command that makes it again."
    )


def _broken_rule(rule: ErrorDetails) -> str:
    """Return the sentence of one broken rule of the settings in the environment."""
    if not rule["loc"]:  # a rule of all settings together, which is a sentence of our own
        return rule["msg"].removeprefix("Value error, ") + "."
    variable = f"ADSEQ_{'__'.join(map(str, rule['loc'])).upper()}"
    return f"{variable}: {rule['msg']}. Correct the variable of the environment (settings.py has the rules)."
