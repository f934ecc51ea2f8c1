"""nginx in front of ``adseq serve``: bounds on clients, kept by a server that is made for it.

The limits are those of the settings (``ADSEQ_SERVING__…``), so that nginx and the service never disagree. SIGQUIT ends
nginx when it has answered; SIGTERM and Ctrl-C end it at once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipelines.cli.errors import RunRefused
from serving.middleware.auth_and_timing import MAXIMUM_BODY
from settings import ServingSettings

TEMPLATE = Path(__file__).with_name("nginx.conf")


def run_proxy(port: int, upstream: int, directory: Path, *, limits: ServingSettings, host: str) -> None:
    """Replace this process by nginx in the foreground, until a signal ends nginx.

    Raises:
        RunRefused: nginx is not installed.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RunRefused("nginx is not installed: apt-get install nginx (Debian), or serve without it: make serve.")
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / "nginx.conf"
    written.write_text(configuration(port, upstream, directory, limits=limits, host=host))
    os.execv(program, [program, "-p", str(directory), "-c", str(written), "-e", "stderr"])


def configuration(
    port: int, upstream: int, directory: Path, *, limits: ServingSettings, host: str = "127.0.0.1"
) -> str:
    """Return the configuration of an nginx that listens on ``port`` for the service at port ``upstream`` of loopback.

    Args:
        host: the address that nginx listens on.
    """
    values = {
        "HOST": host,
        "PORT": port,
        "UPSTREAM": upstream,
        "DIRECTORY": str(directory).replace("\\", r"\\").replace('"', r"\""),  # within quotes
        "CONNECTIONS_OF_PEER": limits.maximum_connections_of_peer,
        "HEAD_BYTES": limits.maximum_head_bytes,
        "BODY_BYTES": MAXIMUM_BODY,
        "REQUEST_SECONDS": max(1, round(limits.request_seconds)),
        "TAKING_SECONDS": max(1, round(limits.taking_seconds)),
        "KEEP_ALIVE_SECONDS": limits.keep_alive_seconds,
        "GRACE_SECONDS": max(1, round(limits.grace_seconds)),
        # nginx gives an idle connection up before the service does, so that no request meets a closing one.
        "UPSTREAM_KEEP_ALIVE_SECONDS": max(1, limits.keep_alive_seconds // 2),
    }
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
