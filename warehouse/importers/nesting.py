"""Values inside lists and objects: ``items[].item_id``, ``properties.order_id``, ``event_params[key=page].value``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from warehouse.importers.mapping import MappingError

ELEMENT = "element_of_the_list"  # which element of the list a row is, from 0; null where the list has one or none
_SAMPLED_VALUES, _DEPTH = 200, 4
_STEP = re.compile(r"(?P<name>[^.\[\]]+)(?P<each>\[\])?(?:\[(?P<key>[^=\]]+)=(?P<value>[^\]]*)\])?(?:\.|$)")


@dataclass(frozen=True)
class _Step:
    """One name of a path; ``each``: of its list every element; ``key``: the element whose ``key`` is ``value``."""

    name: str
    each: bool
    key: str | None
    value: str | None


@dataclass(frozen=True)
class NestedPath:
    """A path into a column that holds JSON text."""

    text: str  # as the mapping has it
    column: str
    steps: tuple[_Step, ...]  # below the column; the first says what is done with the column itself

    @property
    def listed(self) -> tuple[str, ...] | None:
        """Return the names up to the list whose elements become rows; None for a path without a list."""
        for number, step in enumerate(self.steps):
            if step.each:
                return (self.column, *(each.name for each in self.steps[1 : number + 1]))
        return None


def nested_path(text: str, columns: Collection[str]) -> NestedPath | None:
    """Return ``text`` as a path; None where ``text`` is a column by itself, or begins with no column."""
    if text in columns:
        return None
    for column in sorted(columns, key=len, reverse=True):
        rest = text.removeprefix(column)
        if text.startswith(column) and rest[:1] in (".", "["):
            steps = _steps(f"_{rest}")
            return NestedPath(text, column, steps) if steps else None
    return None


def _steps(text: str) -> tuple[_Step, ...]:
    steps, position = [], 0
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            return ()
        steps.append(_Step(found["name"], found["each"] is not None, found["key"], found["value"]))
        position = found.end()
    return tuple(steps)


def check_one_list(paths: Sequence[NestedPath]) -> None:
    """Check that only the elements of one list become rows.

    Raises:
        MappingError: two paths go through the elements of different lists, or one path goes through two lists.
    """
    lists = {path.listed: path for path in paths if path.listed is not None}
    twice = [path for path in paths if sum(step.each for step in path.steps) > 1]
    if len(lists) > 1 or twice:
        named = ", ".join(repr(path.text) for path in (twice or lists.values()))
        raise MappingError(
            f"{named}: these paths read elements of more than one list, and a table reads one list. Put the paths of "
            "each list into a [[table]] of its own."
        )


def with_nested(rows: pl.DataFrame, paths: Sequence[NestedPath]) -> pl.DataFrame:
    """Return ``rows`` with a text column for each path, named as the path, and ``ELEMENT``.

    A row becomes one row for each element of the list that paths with ``[]`` go through; a row without elements stays
    one row.
    """
    if not paths:
        return rows.with_columns(pl.lit(None, pl.Int64).alias(ELEMENT))
    documents = {path.column: [_decoded(text) for text in rows[path.column]] for path in paths}
    owner: list[int] = []
    element: list[int | None] = []
    values: dict[str, list[str | None]] = {path.text: [] for path in paths}
    for row in range(rows.height):
        found = {path.text: _reached(documents[path.column][row], path) for path in paths}
        rows_of_it = max([1, *(len(found[path.text]) for path in paths if path.listed)])
        owner += [row] * rows_of_it
        element += list(range(rows_of_it)) if rows_of_it > 1 else [None]
        for path in paths:
            given = found[path.text]
            values[path.text] += (given or [None]) if path.listed else given[:1] * rows_of_it
            values[path.text] += [None] * (len(owner) - len(values[path.text]))
    return rows[owner].with_columns(
        pl.Series(ELEMENT, element, dtype=pl.Int64),
        *(pl.Series(name, texts, dtype=pl.String) for name, texts in values.items()),
    )


def _decoded(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _reached(document: Any, path: NestedPath) -> list[str | None]:
    """Return the values at a path: one for each element of the path's list, else one."""
    reached = [document]
    for number, step in enumerate(path.steps):
        if number:
            reached = [each.get(step.name) if isinstance(each, dict) else None for each in reached]
        reached = [_unwrapped(each) for each in reached]
        if step.each:
            reached = [inner for each in reached for inner in (each if isinstance(each, list) else [])]
        if step.key is not None:
            reached = [_chosen(each, step) for each in reached]
    return [_text(each) for each in reached]


def _unwrapped(value: Any) -> Any:
    """Return a list that a Parquet writer nested, ``{"list": [{"element": …}]}``, as a plain list."""
    if isinstance(value, dict) and list(value) == ["list"] and isinstance(value["list"], list):
        return [
            each["element"] if isinstance(each, dict) and list(each) == ["element"] else each for each in value["list"]
        ]
    return value


def _chosen(value: Any, step: _Step) -> Any:
    elements = value if isinstance(value, list) else []
    return next(
        (each for each in elements if isinstance(each, dict) and _text(each.get(step.key or "")) == step.value), None
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value != value else json.dumps(value, ensure_ascii=False)


def paths_within(rows: pl.DataFrame, is_known: Callable[[str], bool]) -> list[str]:
    """Return the paths into the nested values of a sample.

    Of several lists, the paths of the list with most known names are returned.
    """
    found: dict[str, None] = {}
    for column in rows.columns:
        for text in rows[column].drop_nulls().head(_SAMPLED_VALUES):
            if text[:1] in "{[":
                found |= dict.fromkeys(_paths(_decoded(text), column, _DEPTH))
    lists: dict[str, list[str]] = {}
    for path in found:
        lists.setdefault(path.split("[]")[0] if "[]" in path else "", []).append(path)
    known = {name: sum(map(is_known, paths)) for name, paths in lists.items() if name}
    best = max(known, key=lambda name: known[name], default="")
    return [*lists.get("", []), *(lists[best] if best and known[best] else [])]


def _paths(value: Any, path: str, depth: int) -> list[str]:
    value = _unwrapped(value)
    if depth and isinstance(value, dict):
        return [inner for name, each in value.items() for inner in _paths(each, f"{path}.{name}", depth - 1)]
    if depth and isinstance(value, list) and "[]" not in path:
        return [inner for each in value[:1] for inner in _paths(each, f"{path}[]", depth - 1)]
    return [path] if _depth_of(path) and not isinstance(value, dict | list) else []


def _depth_of(path: str) -> int:
    return path.count(".") + path.count("[")
