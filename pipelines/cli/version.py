"""The version of the distribution that is installed."""

from __future__ import annotations

from importlib.metadata import packages_distributions
from importlib.metadata import version as version_of


def version() -> str:
    """Return the version, or that adseq runs from a checkout that nobody has installed."""
    ours = [name for name in packages_distributions().get("pipelines", []) if name.startswith("adseq")]
    return version_of(ours[0]) if ours else "(not installed: it runs from a checkout)"
