"""The version of the distribution that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

DISTRIBUTION = "adseq-candidates"


def version() -> str:
    """Return the version, or that adseq runs from a checkout that nobody has installed."""
    try:
        return version_of(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed: it runs from a checkout)"
