"""What ``adseq run`` does: the flow in one process, recorded in the home's Dagster instance, so that the UI shows it.

One process, because importing lightning and mlflow costs about 12 seconds a process, more than most daily steps.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console

from assets.resources import writing
from pipelines import jobs
from pipelines.failures import RunFailed, RunRefused
from pipelines.instance import close_abandoned_runs
from pipelines.progress import Progress, reason
from warehouse.home import Home, write_atomically
from warehouse.landing import Landing

# Dagster's own console log would repeat, at length, what Progress prints.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Days:
    """A range of days, both ends included."""

    first: date
    last: date

    @classmethod
    def parse(cls, text: str) -> Days:
        """Read ``2014-07-20`` or ``2014-07-20..2014-07-23``.

        Raises:
            RunRefused: not of that form, or the last day before the first.
        """
        first, _, last = text.partition("..")
        try:
            days = cls(date.fromisoformat(first.strip()), date.fromisoformat((last or first).strip()))
        except ValueError:
            raise RunRefused(
                f"--days {text!r} is not a day or a range: write 2014-07-20 or 2014-07-20..2014-07-23"
            ) from None
        if days.last < days.first:
            raise RunRefused(f"--days {text!r} ends before it begins: write the earlier day first")
        return days


@dataclass(frozen=True)
class FailedReport:
    """An asset that only measures, and failed."""

    name: str
    day: date | None
    reason: str
    traceback: Path | None

    def __str__(self) -> str:
        where = f" on {self.day}" if self.day else ""
        kept = f" (the whole traceback: {self.traceback})" if self.traceback else ""
        return f"{self.name}{where}: {self.reason}{kept}"


@dataclass(frozen=True)
class Local:
    """One home, with what runs on it."""

    home: Home
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    console: Console

    def run(self, days: Days | None = None, *, again: bool = False, retrain: bool = False) -> None:
        """Bring the home up to date: the history and a champion if they are missing, then the landed days in order.

        Args:
            days: only these; by default every landed day.
            again: also the days that are done already.
            retrain: train although there is a champion.

        Raises:
            RunRefused: nothing has landed, or ``days`` names none that has.
            RunFailed: an asset failed. What was done before stays done. A report that fails stops nothing: the days go
                on, and the error comes at the end.
            HomeLocked: another process writes to the home.
        """
        with writing(self.home, "adseq run"):
            if abandoned := close_abandoned_runs(self.instance):
                self.console.print(f"[yellow]{abandoned} earlier run(s) were killed; marked as failed in Dagster.[/]")
            chosen = self._choose(days, again=again)
            failed: list[FailedReport] = []
            job = self._training_job(retrain=retrain)
            if job:
                failed += self._execute(job, None, self._missing_reports(None) if not retrain else [])
            for number, day in enumerate(chosen, start=1):
                self.console.print(f"\n[bold]Day {day}[/] ({number} of {len(chosen)})", highlight=False)
                failed += self._execute("daily", day, [] if again else self._missing_reports(day))
            if failed:
                raise RunFailed(_closing_of_reports(failed))
            if not chosen and not job:
                self.console.print("Every landed day is done already. --again repeats days, --retrain trains anew.")

    def _training_job(self, *, retrain: bool) -> str | None:
        """The job that is due before any day, announced; None when there is a champion with its reports."""
        if not self._materialized(jobs.HISTORY):
            self.console.print("\n[bold]History and training[/]")
            return "bootstrap"
        missing = [name for name in jobs.TRAINING if not self._materialized(name)]
        if missing and not retrain:
            self.console.print(f"\n[bold]Training[/] (the history is there; missing: {', '.join(missing)})")
        elif retrain:
            self.console.print("\n[bold]Training[/] (--retrain)")
        return "retrain" if missing or retrain else None

    def _materialized(self, name: str) -> bool:
        return self.instance.get_latest_materialization_event(dg.AssetKey(name)) is not None

    def _missing_reports(self, day: date | None) -> list[str]:
        """Return the reports that are missing where all else is done: of a day, or of the training without a day."""
        missing = []
        for name in jobs.DAILY if day else (jobs.HISTORY, *jobs.TRAINING):
            if not self._is_done(name, day):
                if name not in jobs.REPORTS:
                    return []
                missing.append(name)
        return missing

    def _is_done(self, name: str, day: date | None) -> bool:
        if day is None:
            return self._materialized(name)
        return day.isoformat() in self.instance.get_materialized_partitions(dg.AssetKey(name))

    def _choose(self, days: Days | None, *, again: bool) -> list[date]:
        """The days to run, ascending."""
        landing = Landing(self.home.landing)
        landed = landing.dates()
        if not landed:
            raise RunRefused(
                f"Nothing has landed in {landing.root}: it has no folder <table>/date=YYYY-MM-DD. Write an export "
                "there, use `adseq import`, or try `adseq demo`."
            )
        wanted = [day for day in landed if days is None or days.first <= day <= days.last]
        if days and not wanted:
            raise RunRefused(
                f"No day from {days.first} to {days.last} has landed in {landing.root}; "
                f"it has {len(landed)} days from {landed[0]} to {landed[-1]}."
            )
        runnable = self._runnable(wanted)
        done = set() if again else self._done()
        return [day for day in runnable if day not in done]

    def _runnable(self, landed: Sequence[date]) -> list[date]:
        """The days that Dagster offers as partitions; the others are named on the console."""
        partitions = self.definitions.resolve_job_def("daily").partitions_def
        if partitions is None:
            raise RunRefused(
                "The job `daily` has no partitions: its assets need partitions_def=assets.partitions.daily"
            )
        offered = set(partitions.get_partition_keys())
        runnable = [day for day in landed if day.isoformat() in offered]
        if early := [day.isoformat() for day in landed if day.isoformat() not in offered]:
            self.console.print(f"[yellow]Left out, because the day is not over yet: {', '.join(early)}[/]")
        return runnable

    def _done(self) -> set[date]:
        """The days for which every daily asset is materialized."""
        parts = [self.instance.get_materialized_partitions(dg.AssetKey(name)) for name in jobs.DAILY]
        return {date.fromisoformat(key) for key in set.intersection(*map(set, parts))}

    def _execute(self, job: str, day: date | None, assets: Sequence[str] = ()) -> list[FailedReport]:
        """Run a job to its end. Return the reports that failed.

        Args:
            assets: of the job, these; all where none is named.

        Raises:
            RunFailed: another asset failed.
        """
        run_id, progress = str(uuid.uuid4()), Progress(self.console)
        self.instance.add_event_listener(run_id, progress)
        try:
            result = self.definitions.resolve_job_def(job).execute_in_process(
                instance=self.instance,
                partition_key=day.isoformat() if day else None,
                run_id=run_id,
                asset_selection=[dg.AssetKey(name) for name in assets] or None,
                run_config=QUIET,
                tags={"adseq/command": "adseq run"},
                raise_on_error=False,
            )
        finally:
            progress.close()
        failures = [event for event in result.all_events if event.is_step_failure]
        if not result.success and (not failures or {event.step_key for event in failures} - set(jobs.REPORTS)):
            raise RunFailed(_closing_message(self.home, result, job, day, progress))
        return [_failed_report(self.home, result.run_id, event, day) for event in failures]


def _closing_message(
    home: Home, result: dg.ExecuteInProcessResult, job: str, day: date | None, progress: Progress
) -> str:
    """What failed, why, what stays, what to do."""
    failures = [event for event in result.all_events if event.is_step_failure]
    failures.sort(key=lambda event: event.step_key in jobs.REPORTS)  # a report that failed beside it stopped nothing
    what = f"The asset {failures[0].step_key}" if failures else "The run"
    error = failures[0].step_failure_data.error if failures else _run_error(result)
    lines = [f"{what} failed" + (f" on {day}" if day else "") + f" (job {job})."]
    if error:
        lines += ["", reason(error)]
        lines += ["", f"The whole traceback: {_keep_traceback(home, result.run_id[:8], error.to_string())}"]
    lines += [f"A check that did not pass: {check}" for check in progress.failed_checks]
    lines.append(
        "What was done before stays done. Mend the cause and give the same command again: it goes on from here."
    )
    return "\n".join(lines)


def _failed_report(home: Home, run_id: str, event: dg.DagsterEvent, day: date | None) -> FailedReport:
    error, name = event.step_failure_data.error, event.step_key or "a report"
    traceback = _keep_traceback(home, f"{name}-{run_id[:8]}", error.to_string()) if error else None
    return FailedReport(name, day, reason(error), traceback)


def _closing_of_reports(failed: Sequence[FailedReport]) -> str:
    """Return what to say after a run of which only reports failed."""
    return "\n".join(
        [
            "Everything is trained and published, but not everything is measured. These reports failed:",
            *(f"  {report}" for report in failed),
            "Mend the cause and give the same command again: it repeats the reports alone.",
        ]
    )


def _run_error(result: dg.ExecuteInProcessResult) -> SerializableErrorInfo | None:
    """The error of a run that failed outside its assets."""
    errors = [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
    return errors[0] if errors else None


def _keep_traceback(home: Home, name: str, text: str) -> Path:
    path = home.root / "logs" / f"failed-{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return path
