"""The workspace as a Dagster resource: the launchpad overrides the environment, the environment overrides the defaults.

Every setting is a field of its own in the launchpad, for one run::

    resources:
      workspace:
        config:
          training: {epochs: 3}
          index: {kind: hnsw}
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from copy import copy
from enum import Enum
from functools import partial
from pathlib import Path

import dagster as dg
import duckdb
from pydantic import create_model

from assets.common.workspace import Workspace
from settings import Group, Settings
from warehouse.duckdb_views import rebuild_views
from warehouse.home import Home
from warehouse.move_home import follow_home
from warehouse.open_home import open_for_writing
from warehouse.remedies import replaced_by_run
from warehouse.tables import TableDamaged, Tables

PARTITION_TAG = "dagster/partition"
_writing: set[Path] = set()


class _LockedWorkspace(dg.ConfigurableResource[Workspace]):
    """The workspace of one run. While a run has the resource, the run holds the home's write lock."""

    def value(self) -> Settings:
        """Return the effective settings, as plain settings."""
        environment = Settings()
        groups = {
            name: type(group).model_validate(getattr(self, name).model_dump())
            for name, group in environment
            if isinstance(group, Group)
        }
        return environment.model_copy(update=groups)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Workspace, None, None]:
        """Hold the home's write lock for the length of the run, and make the home's views at its end.

        Raises:
            HomeLocked: another process writes to the home.
            OtherFormat: the home is of another format.
        """
        workspace = Workspace(self.value())
        run, home = context.run, workspace.home
        open_for_writing(home)
        with writing(home, f"Dagster run {run.run_id} of {run.job_name}" if run else "a Dagster run"):
            follow_home(home)
            _make_readable(workspace.tables, run.tags.get(PARTITION_TAG) if run else None)
            if context.log:
                values = (f"{name}={value}" for name, value in workspace.settings.flat().items())
                context.log.info(f"Effective settings: {', '.join(values)}")
            try:
                yield workspace
            finally:  # also after a failure, which people look into
                _show(workspace, context)


def _launchpad_group(group: Group) -> type[dg.Config]:
    """Return a group of settings as the launchpad shows it, with the values of ``group`` as field defaults.

    A default for the whole group would not do: when the launchpad overrides one field, Dagster takes the group's other
    fields from the class, and the environment would be lost.
    """
    settings = type(group)
    fields = {}
    for name, field in settings.model_fields.items():
        of_environment = copy(field)
        value = getattr(group, name)
        if isinstance(value, list):  # Dagster cannot write the default of a list of names, only of a list of strings
            value = [each.value if isinstance(each, Enum) else each for each in value]
        of_environment.default, of_environment.default_factory = value, None
        fields[name] = (field.annotation, of_environment)
    return create_model(  # type: ignore[call-overload]
        settings.__name__.replace("Settings", "Config"),
        __base__=(settings, dg.Config),
        __module__=__name__,
        __doc__=settings.__doc__,
        **fields,
    )


_groups = {name: _launchpad_group(group) for name, group in Settings() if isinstance(group, Group)}
WorkspaceResource: type[_LockedWorkspace] = create_model(  # type: ignore[call-overload]
    "WorkspaceResource",
    __base__=_LockedWorkspace,
    __module__=__name__,
    __doc__=_LockedWorkspace.__doc__,
    **{name: (group, group()) for name, group in _groups.items()},
)
"""One launchpad group for each group of ``Settings``: a new group is added there alone."""


def _make_readable(tables: Tables, day: str | None) -> None:
    """Set damaged commits aside whose partitions this run writes anew.

    Other damaged commits stay, and stop every reader of their tables.
    """
    for name in tables.names():
        tables.set_damaged_aside(name, partial(replaced_by_run, name, day))


def _show(workspace: Workspace, context: dg.InitResourceContext) -> None:
    """Make the views for people over what the run has written.

    A table that cannot be read stops the assets that read it, and not the run that has come to its end.
    """
    try:
        rebuild_views(workspace.home, workspace.tables)
    except (duckdb.Error, OSError, TableDamaged) as error:
        if context.log:
            context.log.warning(f"{workspace.home.views} has the tables of the run before: {error}")


@contextmanager
def writing(home: Home, purpose: str) -> Iterator[None]:
    """Hold the home's write lock, unless this process holds it already.

    Raises:
        HomeLocked: another process holds the lock.
    """
    if home.root in _writing:
        yield
        return
    with home.writing(purpose):
        _writing.add(home.root)
        try:
            yield
        finally:
            _writing.discard(home.root)
