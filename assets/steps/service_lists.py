"""The lists that the service gives to probes, asked in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.common.workspace import Workspace

if TYPE_CHECKING:
    from ml.relevance.scrape import Lists


def service_lists(workspace: Workspace) -> Lists | None:
    """Return the service's answers under an arm; None where the service cannot be asked under one."""
    return None
