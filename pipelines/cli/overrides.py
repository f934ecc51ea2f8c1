"""``--set group.field=value``: any setting for one command, checked like the environment is."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import ValidationError

from pipelines.cli.errors import RunRefused
from settings import Group, Settings, did_you_mean


def overridden(settings: Settings, assignments: Sequence[str]) -> Settings:
    """Return ``settings`` with each ``group.field=value`` set.

    Lists and dictionaries are written as JSON. Of equal names the last one counts.

    Raises:
        RunRefused: a text is not an assignment, a name is unknown, or a value breaks the setting's rule.
    """
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise RunRefused(f"--set {assignment!r}: write group.field=value, such as training.learning_rate=1e-3.")
        settings = _with_value(settings, name.strip(), _parsed(assignment, value.strip()))
    return settings


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a text such as ``0`` or ``0,1,2``, each once.

    Raises:
        RunRefused: the text has another form.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise RunRefused(f"--seed {text!r}: write one number, or several as 0,1,2.") from None
    if min(seeds) < 0:
        raise RunRefused(f"--seed {text!r}: a seed is not negative.")
    return list(dict.fromkeys(seeds))


def _with_value(settings: Settings, name: str, value: object) -> Settings:
    try:
        return settings.with_value(name, value)
    except KeyError:
        raise RunRefused(_unknown(settings, name)) from None
    except ValidationError as error:
        rules = "; ".join(rule["msg"] for rule in error.errors())
        group, _, field = name.partition(".")
        described = type(getattr(settings, group)).model_fields[field].description
        raise RunRefused(
            f"--set {name}={value}: {rules}." + (f" The setting: {described}" if described else "")
        ) from None


def setting_names(settings: Settings) -> list[str]:
    """Return every dotted name that ``--set`` takes."""
    groups = {name: group for name, group in settings if isinstance(group, Group)}
    return [f"{name}.{field}" for name, group in groups.items() for field in type(group).model_fields]


def _unknown(settings: Settings, name: str) -> str:
    names = setting_names(settings)
    groups = ", ".join(dict.fromkeys(each.partition(".")[0] for each in names))
    close = did_you_mean(name, names)
    return f"--set {name}: there is no such setting.{close or f' A setting is group.field, of the groups {groups}.'}"


def _parsed(assignment: str, text: str) -> object:
    """Return the list or the dictionary that ``text`` holds as JSON, else ``text`` itself.

    The type of the setting reads any other text.
    """
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RunRefused(f"--set {assignment!r}: the value is not JSON: {error}.") from None
