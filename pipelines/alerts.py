"""Alerts by webhook and by e-mail: a run that failed, and checks that warn in a run that did not.

Runs of `adseq run` are among them, once the daemon sees them.
"""

from __future__ import annotations

import json
import shlex
import smtplib
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage

import dagster as dg

from pipelines.cli.progress import facts, reason
from settings import AlertSettings, Settings
from warehouse.home import Home

ANSWER_SECONDS = 10.0
NOBODY = dg.SkipReason("Nobody is to be told: set ADSEQ_ALERTS__WEBHOOK or ADSEQ_ALERTS__EMAIL.")
PARTITION_TAG = "dagster/partition"


@dataclass(frozen=True)
class Alert:
    """One message: a line to read at a glance, and the lines below."""

    subject: str
    lines: Sequence[str]

    @property
    def text(self) -> str:
        return "\n".join([self.subject, *self.lines])


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells by webhook and e-mail (settings ADSEQ_ALERTS__...) that a run failed: day, asset, reason, "
    "command.",
)
def failed_runs(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Send an alert about a run that failed.

    Raises:
        OSError: a target could not be reached; the others have got the alert.
    """
    steps = [
        f"Asset {event.step_key}: {reason(event.step_failure_data.error)}"
        for event in context.get_step_failure_events()
    ]
    return _told(alert_of(context.dagster_run, "failed", steps or [context.failure_event.message or "no reason given"]))


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells by webhook and e-mail (settings ADSEQ_ALERTS__...) which checks of a finished run did not pass.",
)
def warned_runs(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
    """Send an alert about the checks of a run that did not pass.

    Raises:
        OSError: a target could not be reached; the others have got the alert.
    """
    evaluated = context.instance.all_logs(
        context.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    checks = [entry.dagster_event.asset_check_evaluation_data for entry in evaluated if entry.dagster_event]
    warnings = [
        f"Check {check.check_name} of {check.asset_key.to_user_string()}: {check.description or facts(check.metadata)}"
        for check in checks
        if not check.passed
    ]
    if not warnings:
        return dg.SkipReason("Every check of the run passed.")
    return _told(alert_of(context.dagster_run, "warns", warnings))


def alert_of(run: dg.DagsterRun, happened: str, lines: Sequence[str]) -> Alert:
    """Return the alert about a run. Its command runs the day again once the cause is mended."""
    home, day = Home(Settings().home).root, run.tags.get(PARTITION_TAG)
    here = f"--home {shlex.quote(str(home))}"
    command = f"adseq run --days {day} {here}" if day else f"adseq run {here}"
    what = f"{day} ({run.job_name})" if day else run.job_name
    return Alert(
        f"adseq: {what} {happened}", [*lines, f"Again, once the cause is mended: {command}", f"Run {run.run_id}"]
    )


def send(alert: Alert, settings: AlertSettings) -> None:
    """Send an alert to all targets.

    Raises:
        OSError: a target could not be reached, or refused; all targets have been tried.
    """
    errors = []
    for target in (_post, _mail):
        try:
            target(alert, settings)
        except OSError as error:
            errors.append(f"{target.__name__.strip('_')}: {error}")
    if errors:
        raise OSError(f"The alert could not be sent ({'; '.join(errors)}). Correct ADSEQ_ALERTS__... and {alert.text}")


def _told(alert: Alert) -> dg.SkipReason | None:
    settings = Settings().alerts
    if not (settings.webhook or settings.recipients):
        return NOBODY
    send(alert, settings)
    return None


def _post(alert: Alert, settings: AlertSettings) -> None:
    if settings.webhook:
        body, headers = json.dumps({"text": alert.text}).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(settings.webhook, body, headers)
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()


def _mail(alert: Alert, settings: AlertSettings) -> None:
    if settings.recipients:
        message = EmailMessage()
        message["Subject"], message["From"] = alert.subject, settings.sender
        message["To"] = ", ".join(settings.recipients)
        message.set_content("\n".join(alert.lines))
        host, _, port = settings.smtp.rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=ANSWER_SECONDS) as server:
            server.send_message(message)
