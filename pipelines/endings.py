"""How a command ends: what its user can mend is one message without a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click
import typer
from rich.console import Console

from pipelines.interruption import exit_code, sentence

errors = Console(stderr=True)
FULL_DISK = (
    "The disk is full, or fails, so that not even the record of what happened could be written. What was done before "
    "stays done, and nothing half-written is ever read. Make room (`adseq summary` names the places; "
    "ADSEQ_DATA__KEEP_DAYS and ADSEQ_DATA__KEEP_VERSIONS_DAYS say what is kept), then give the same command again."
)


@contextmanager
def readable() -> Iterator[None]:
    """What the user can mend ends as one message without a traceback: exit code 2, or 1 for a run that failed."""
    try:
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


def ending_of(error: Exception) -> tuple[int, str] | None:
    """Exit code and message of an error that is not a fault of adseq."""
    from pydantic import ValidationError

    from pipelines.failures import RunFailed, RunRefused, ServiceFailed, is_full_disk
    from warehouse.home import HomeLocked
    from warehouse.identity import SecretMissing
    from warehouse.importers.mapping import MappingError
    from warehouse.importers.writing import SourceError
    from warehouse.landing import ManifestError
    from warehouse.online.store import NothingPublished, StoreUnreachable
    from warehouse.reading import LandingError
    from warehouse.staging import MemoryTooSmall
    from warehouse.tables import TableMissing

    if isinstance(error, RunFailed | ServiceFailed):
        return 1, f"\n{error}"
    if is_full_disk(error):
        return 1, f"\n{FULL_DISK}"
    refused = RunRefused | HomeLocked | ManifestError | LandingError | SourceError | MappingError
    if isinstance(error, refused | TableMissing | NothingPublished | StoreUnreachable | SecretMissing | MemoryTooSmall):
        return 2, str(error)
    if isinstance(error, ValidationError) and error.title == "Settings":
        rules = (f"ADSEQ_{'__'.join(map(str, rule['loc'])).upper()}: {rule['msg']}" for rule in error.errors())
        return 2, "A setting in the environment breaks a rule (settings.py has them all):\n  " + "\n  ".join(rules)
    return None
