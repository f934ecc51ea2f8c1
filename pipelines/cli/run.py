"""What ``adseq run`` does: the flow in one process, recorded in the home's Dagster instance, so that the UI shows it.

One process, because importing lightning and mlflow costs about 12 seconds a process, more than most daily steps.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.markup import escape

from assets.common.resources import writing
from engine.engine import engine_of
from pipelines import jobs
from pipelines.checks.fault import Checked, Fault
from pipelines.checks.tables import tables_part
from pipelines.cli.errors import RunFailed, RunRefused
from pipelines.cli.interruption import before_ending
from pipelines.cli.last_run import record_run
from pipelines.cli.progress import Progress, reason
from pipelines.due_days import Standing, standing_of
from pipelines.instance import COMMAND_TAGS, cancel_run, close_abandoned_runs
from settings import Settings
from warehouse.arrival_days import listing_of, recorded_history_day
from warehouse.day_records import landed_days
from warehouse.home import Home, write_atomically
from warehouse.landing import Landing
from warehouse.tables import Tables

SHOWN_FAULTS = 10
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
            RunRefused: the text has another form, or the last day comes before the first.
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
class Plan:
    """The work that a command is going to do.

    Attributes:
        days: to run, ascending.
        whole: those of them that run with all their assets; of the others only reports may be missing.
        early: days that have landed and are not over yet.
        standing: the home against its landing zone.
    """

    days: tuple[date, ...]
    whole: frozenset[date]
    early: tuple[date, ...]
    standing: Standing

    @property
    def left_out(self) -> bool:
        """Whether a part of the landing zone is still missing from the tables after the days have run."""
        left = [each for each in self.standing.out_of_date if each.day not in self.days]
        return bool(self.early or left or self.standing.unread)


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
    """One home, with everything that runs on the home."""

    home: Home
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    console: Console

    def run(self, days: Days | None = None, *, again: bool = False, retrain: bool = False) -> None:
        """Bring the home up to date: the history and a champion if they are missing, then the landed days in order.

        Args:
            days: only these; by default every landed day.
            again: also the days that are done already. A day runs again anyhow if its files have changed since the run,
                and so do all later days.
            retrain: train although there is a champion.

        Raises:
            RunRefused: nothing has landed, or ``days`` names none that has.
            RunFailed: an asset failed. Finished work stays finished. A report that fails stops nothing: the days go
                on, and the error comes at the end.
            HomeLocked: another process writes to the home.
            EngineFailed: the settings name a Ray cluster, and the cluster cannot be used or is too small to train.
        """
        started = time.monotonic()
        settings = Settings()
        engine = engine_of(settings.engine)  # before a day has begun
        with writing(self.home, "adseq run"):
            if abandoned := close_abandoned_runs(self.instance):
                self.console.print(f"[yellow]{abandoned} earlier run(s) were killed; marked as failed in Dagster.[/]")
            failed: list[FailedReport] = []
            history_again = again and self._holds_history_day(days)
            plan = self._plan(days, again=again, history_again=history_again)
            self._announce(plan)
            job = self._training_job(retrain=retrain)
            missing_reports = [] if retrain else self._missing_reports(None)
            if job and not missing_reports:
                engine.require_processes(settings.training.processes)
            if plan.standing.history or (history_again and job != "bootstrap"):
                self.console.print("\n[bold]History[/] (again)")
                self._execute("bootstrap", None, assets=[jobs.HISTORY])
            if job:
                failed += self._execute(job, None, missing_reports)
                self._tell_refusal()
            for number, day in enumerate(plan.days, start=1):
                self.console.print(f"\n[bold]Day {day}[/] ({number} of {len(plan.days)})", highlight=False)
                failed += self._execute("daily", day, [] if day in plan.whole else self._missing_reports(day))
            if failed:
                raise RunFailed(_closing_of_reports(failed))
            if not plan.days and not job and not plan.standing.history and not history_again:
                but = ", but for what is named above" if plan.left_out else ""
                self.console.print(
                    f"Every landed day is done already{but}. --again repeats days, --retrain trains anew."
                )
                return
            record_run(self.home, time.monotonic() - started)

    def _training_job(self, *, retrain: bool) -> str | None:
        """Return and announce the job that must run before any day; None for a champion with all its reports."""
        if not self._materialized(jobs.HISTORY):
            self.console.print("\n[bold]History and training[/]")
            return "bootstrap"
        missing = [name for name in jobs.TRAINING if not self._materialized(name)]
        if missing and not retrain:
            self.console.print(f"\n[bold]Training[/] (the history is there; missing: {', '.join(missing)})")
        elif retrain:
            self.console.print("\n[bold]Training[/] (--retrain)")
        return "retrain" if missing or retrain else None

    def _tell_refusal(self) -> None:
        """Print why the gate refused the newly trained model, and name the model that serves instead."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey("champion"))
        if event is None or event.asset_materialization is None:
            return
        said = {name: value.value for name, value in event.asset_materialization.metadata.items()}
        if said.get("promoted") is False:
            self.console.print(
                f"[yellow]{said['candidate']} was not promoted.[/] {escape(str(said['reason']))} {said['champion']} "
                "was champion before and still serves; the tables below are of it.",
                highlight=False,
                soft_wrap=True,
            )

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

    def _plan(self, days: Days | None, *, again: bool, history_again: bool) -> Plan:
        """Return the plan: the parts to run, the parts to leave out, and the reasons.

        Raises:
            RunRefused: nothing has landed, or ``days`` names no landed day.
        """
        landed = landed_days(self.home)
        if not landed:
            raise RunRefused(self._nothing_landed())
        wanted = [day for day in landed if days is None or days.first <= day <= days.last]
        if days and not wanted and not history_again:
            raise RunRefused(
                f"No day from {days.first} to {days.last} has landed in {self.home.landing}; "
                f"it has {len(landed)} days from {landed[0]} to {landed[-1]}."
            )
        offered, measured = self._offered(), self._done(jobs.DAILY)
        published = self._done([name for name in jobs.DAILY if name not in jobs.REPORTS])
        runnable = [day for day in wanted if day.isoformat() in offered]
        standing = standing_of(self.home, published, [day for day in runnable if day not in published])
        out_of_date = {each.day for each in standing.out_of_date}
        whole = frozenset(day for day in runnable if again or day not in published or day in out_of_date)
        return Plan(
            days=tuple(day for day in runnable if day in whole or day not in measured),
            whole=whole,
            early=tuple(day for day in wanted if day not in runnable),
            standing=standing,
        )

    def _nothing_landed(self) -> str:
        listing = listing_of(Tables(self.home.tables), Landing(self.home.landing))
        unread = "".join(f"\nNot read: {each}." for each in listing.unread)
        return (
            f"Nothing has landed in {self.home.landing}: it has no folder <table>/date=YYYY-MM-DD. Write an export "
            f"there, use `adseq import`, or try `adseq demo`.{unread}"
        )

    def _announce(self, plan: Plan) -> None:
        """Print the files that are not read, the days left out, and the days that run again with the reasons."""
        standing = plan.standing
        sentences = [f"Not read: {each}." for each in standing.unread]
        if plan.early:
            sentences.append(f"Left out, because the day is not over yet: {_listed(plan.early)}")
        if standing.history:
            changed = "; ".join(map(str, standing.history))
            sentences.append(
                f"The history is ingested again, because after it was ingested: {changed}. The champion learnt from "
                "the history as it was; `adseq run --retrain` trains on what it is now."
            )
        sentences += [str(each) for each in standing.out_of_date if each.changes]
        if behind := [each.day for each in standing.out_of_date if not each.changes and each.day in plan.days]:
            sentences.append(f"Run again, because days before them run: {_listed(behind)}")
        if left := [each.day for each in standing.out_of_date if each.day not in plan.days]:
            sentences.append(f"Out of date, and not among the chosen days: {_listed(left)}; `adseq run` runs them.")
        for sentence in sentences:
            self.console.print(f"[yellow]{escape(sentence)}[/]", highlight=False, soft_wrap=True)

    def _holds_history_day(self, days: Days | None) -> bool:
        """Return whether ``days`` names the day of the history: a repeat of that day ingests the history again."""
        day = recorded_history_day(Tables(self.home.tables))
        return days is not None and day is not None and days.first <= day <= days.last

    def _offered(self) -> set[str]:
        """Return the days that Dagster offers as partitions."""
        partitions = self.definitions.resolve_job_def("daily").partitions_def
        if partitions is None:
            raise RunRefused(
                "The job `daily` has no partitions: its assets need partitions_def=assets.common.partitions.daily"
            )
        return set(partitions.get_partition_keys())

    def _done(self, names: Sequence[str]) -> set[date]:
        """Return the days for which all of these daily assets are materialized."""
        parts = [self.instance.get_materialized_partitions(dg.AssetKey(name)) for name in names]
        return {date.fromisoformat(key) for key in set.intersection(*map(set, parts))}

    def _execute(self, job: str, day: date | None, assets: Sequence[str] = ()) -> list[FailedReport]:
        """Run a job to its end. Returns the reports that failed.

        Args:
            assets: the assets of the job to run; all where none is named.

        Raises:
            RunFailed: another asset failed.
        """
        run_id, progress = str(uuid.uuid4()), Progress(self.console)
        self.instance.add_event_listener(run_id, progress)
        try:
            with before_ending(partial(cancel_run, self.instance, run_id)):
                result = self.definitions.resolve_job_def(job).execute_in_process(
                    instance=self.instance,
                    partition_key=day.isoformat() if day else None,
                    asset_selection=[dg.AssetKey(name) for name in assets] or None,
                    run_id=run_id,
                    run_config=QUIET,
                    tags=COMMAND_TAGS,
                    raise_on_error=False,
                )
        finally:
            progress.close()
        failures = [event for event in result.all_events if event.is_step_failure]
        if not result.success and (not failures or {event.step_key for event in failures} - set(jobs.REPORTS)):
            raise RunFailed(_closing_message(self.home, result, job, day=day, progress=progress))
        return [_failed_report(self.home, result.run_id, event, day) for event in failures]


def _listed(days: Sequence[date]) -> str:
    """Return days as text for a person: each day, or the first and the last of many."""
    return ", ".join(map(str, days)) if len(days) <= 7 else f"{len(days)} days from {days[0]} to {days[-1]}"


def _closing_message(
    home: Home, result: dg.ExecuteInProcessResult, job: str, *, day: date | None, progress: Progress
) -> str:
    """Return the message of a failed run: the failed asset, the reason, the kept results and the next step."""
    failures = [event for event in result.all_events if event.is_step_failure]
    failures.sort(key=lambda event: event.step_key in jobs.REPORTS)  # a report that failed beside it stopped nothing
    what = f"The asset {failures[0].step_key}" if failures else "The run"
    error = failures[0].step_failure_data.error if failures else _run_error(result)
    lines = [f"{what} failed" + (f" on {day}" if day else "") + f" (job {job})."]
    if error:
        lines += ["", reason(error)]
        lines += ["", f"The whole traceback: {_keep_traceback(home, result.run_id[:8], error.to_string())}"]
    lines += [f"Broken: {fault.what}\n  Made again by: {fault.remedy}" for fault in _damage(home)]
    lines += [f"A check that did not pass: {check}" for check in progress.failed_checks]
    lines.append(
        "What was done before stays done. Mend the cause and give the same command again: it goes on from here."
    )
    return "\n".join(lines)


def _damage(home: Home) -> list[Fault]:
    """Return the broken parts of the tables, a possible cause of a failed asset: libraries do not name the table."""
    return list(tables_part(Checked(home, deep=False)).faults)[:SHOWN_FAULTS]


def _failed_report(home: Home, run_id: str, event: dg.DagsterEvent, day: date | None) -> FailedReport:
    error, name = event.step_failure_data.error, event.step_key or "a report"
    traceback = _keep_traceback(home, f"{name}-{run_id[:8]}", error.to_string()) if error else None
    return FailedReport(name, day, reason(error), traceback)


def _closing_of_reports(failed: Sequence[FailedReport]) -> str:
    """Return the closing message of a run of which only reports failed."""
    return "\n".join(
        [
            "Everything is trained and published, but not everything is measured. These reports failed:",
            *(f"  {report}" for report in failed),
            "Mend the cause and give the same command again: it repeats the reports alone.",
        ]
    )


def _run_error(result: dg.ExecuteInProcessResult) -> SerializableErrorInfo | None:
    """Return the error of a run that failed outside its assets."""
    errors = [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
    return errors[0] if errors else None


def _keep_traceback(home: Home, name: str, text: str) -> Path:
    path = home.root / "logs" / f"failed-{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return path
