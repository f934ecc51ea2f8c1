"""Somebody is told of a run that failed and of checks that warn, by receivers on this machine."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from pipelines.alerts import failed_runs, warned_runs

DAYS = dg.StaticPartitionsDefinition(["2026-03-02"])
RECEIVED: list[str] = []


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        RECEIVED.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class MailServer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Speak as much of SMTP (RFC 5321) as a sender needs."""
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().upper():
            if line.startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                RECEIVED.append("\n".join(lines))
            self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 fine\r\n")


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    servers = [HTTPServer(("127.0.0.1", 0), Webhook), socketserver.TCPServer(("127.0.0.1", 0), MailServer)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    RECEIVED.clear()
    web, mail = (server.server_address[1] for server in servers)
    monkeypatch.setenv("ADSEQ_HOME", "/a home")
    monkeypatch.setenv("ADSEQ_ALERTS__WEBHOOK", f"http://127.0.0.1:{web}/hook")
    monkeypatch.setenv("ADSEQ_ALERTS__EMAIL", "on-call@example.org")
    monkeypatch.setenv("ADSEQ_ALERTS__SMTP", f"127.0.0.1:{mail}")
    yield web, mail
    for server in servers:
        server.shutdown()
        server.server_close()


@dg.asset(partitions_def=DAYS)
def user_states() -> None:
    raise ValueError("part 3 has no rows")


@dg.asset(partitions_def=DAYS, check_specs=[dg.AssetCheckSpec("as_before", asset="events")])
def events() -> dg.MaterializeResult:
    result = dg.AssetCheckResult(
        check_name="as_before", passed=False, severity=dg.AssetCheckSeverity.WARN, description="half as many as before"
    )
    return dg.MaterializeResult(check_results=[result])


def told(asset: dg.AssetsDefinition, sensor: dg.SensorDefinition) -> object:
    """Run an asset of a day, and let the sensor see the run's end."""
    with dg.DagsterInstance.ephemeral() as instance:
        ran = dg.materialize([asset], instance=instance, partition_key="2026-03-02", raise_on_error=False)
        ends = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE)
        [end] = [event for event in ran.all_events if event.event_type in ends]
        context = dg.build_run_status_sensor_context("it", end, instance, ran.dagster_run)
        return sensor(context if ran.success else context.for_run_failure())


def test_a_failure_names_day_asset_reason_and_command(ports: tuple[int, int]) -> None:
    told(user_states, failed_runs)
    posted, mailed = RECEIVED
    assert posted.startswith("adseq: 2026-03-02")
    for text in (posted, mailed):
        assert "failed" in text.splitlines()[0]
        assert "Asset user_states: ValueError: part 3 has no rows" in text
        assert "adseq run --days 2026-03-02 --home '/a home'" in text
    assert "To: on-call@example.org" in mailed


def test_a_check_that_warns_is_told_and_a_run_without_any_is_not(ports: tuple[int, int]) -> None:
    told(events, warned_runs)
    assert len(RECEIVED) == 2
    assert all("Check as_before of events: half as many as before" in text for text in RECEIVED)

    @dg.asset(partitions_def=DAYS)
    def quiet() -> None:
        """Do nothing."""

    assert isinstance(told(quiet, warned_runs), dg.SkipReason)
    assert len(RECEIVED) == 2


def test_a_target_that_is_away_does_not_keep_the_other_from_the_alert(
    ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSEQ_ALERTS__WEBHOOK", "http://127.0.0.1:9/hook")
    with pytest.raises(OSError, match=r"could not be sent \(post: .*ADSEQ_ALERTS__"):
        told(user_states, failed_runs)
    assert len(RECEIVED) == 1


def test_without_a_target_the_sensor_says_which_settings_name_one(
    ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADSEQ_ALERTS__WEBHOOK")
    monkeypatch.delenv("ADSEQ_ALERTS__EMAIL")
    answer = told(user_states, failed_runs)
    assert isinstance(answer, dg.SkipReason)
    assert "ADSEQ_ALERTS__WEBHOOK" in (answer.skip_message or "")
    assert not RECEIVED
