"""Progress of a run on the terminal: a line an asset, as Dagster reports it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.markup import escape

SLOW_SECONDS = 3.0
"""A step that takes longer is announced while it runs."""

SHOWN_METADATA = 4


class Progress:
    """A listener to one run's events that prints the events a person wants to see."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed_checks: list[str] = []
        self._started: dict[str, float] = {}
        self._announcements: dict[str, threading.Timer] = {}
        self._facts: dict[str, str] = {}

    def __call__(self, entry: dg.EventLogEntry) -> None:
        """Take one entry of the event log."""
        event = entry.dagster_event
        if event is None:
            # Warnings of the assets; not what Dagster says of the steps behind one that failed.
            if int(entry.level) >= logging.WARNING and not entry.user_message.startswith("Dependencies for step"):
                self.console.print(f"    [yellow]{escape(entry.user_message)}[/]", soft_wrap=True)
            return
        step = event.step_key or ""
        if event.is_step_start or event.is_step_restarted:
            self._start(step)
        elif event.is_step_materialization:
            self._facts[step] = facts(event.step_materialization_data.materialization.metadata)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._check(event)
        elif event.is_step_up_for_retry:
            self._finish(step, "[yellow]↻[/]", f"will be tried again: {reason(event.step_retry_data.error)}")
        elif event.is_step_failure:
            self._finish(step, "[red]✗[/]", "failed")
        elif event.is_step_success:
            self._finish(step, "[green]✓[/]", self._facts.pop(step, ""))

    def close(self) -> None:
        """Stop announcing; an interrupted run leaves steps open."""
        for timer in self._announcements.values():
            timer.cancel()

    def _start(self, step: str) -> None:
        self._started[step] = time.monotonic()
        timer = threading.Timer(SLOW_SECONDS, self.console.print, [f"  [dim]… {step}[/]"])
        timer.daemon = True
        self._announcements[step] = timer
        timer.start()

    def _finish(self, step: str, mark: str, text: str) -> None:
        seconds = time.monotonic() - self._started.pop(step, time.monotonic())
        if timer := self._announcements.pop(step, None):
            timer.cancel()
        line = f"  {mark} {step:<28}{seconds:7.1f} s  [dim]{escape(text)}[/]"
        self.console.print(line, highlight=False, soft_wrap=True)  # one line in a log, however long

    def _check(self, event: dg.DagsterEvent) -> None:
        check = event.asset_check_evaluation_data
        if not check.passed:
            asset = check.asset_key.to_user_string()
            reason = check.description or facts(check.metadata)
            self.failed_checks.append(f"{check.check_name} of {asset}: {reason}")
            line = f"  [yellow]![/] check {check.check_name} of {asset}: {escape(reason)}"
            self.console.print(line, highlight=False, soft_wrap=True)


def reason(error: SerializableErrorInfo | None) -> str:
    """Return the message of the error that an asset raised, without Dagster's wrapping."""
    while error and error.cause and (error.cls_name or "").startswith(("Dagster", "Retry")):
        error = error.cause
    return error.message.strip() if error else "no reason given"


def facts(metadata: Mapping[str, dg.MetadataValue]) -> str:
    """Return the first few numbers of an asset's metadata in a compact form."""
    numbers = {name: value.value for name, value in metadata.items() if isinstance(value.value, int | float)}
    shown = list(numbers.items())[:SHOWN_METADATA]
    return ", ".join(f"{name.removeprefix('dagster/')} {_compact(value)}" for name, value in shown)


def _compact(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
