"""The MLflow of the home, for assets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.common.resources import SettingsResource

if TYPE_CHECKING:
    from ml.versions.tracking import Tracking


def tracking_of(settings: SettingsResource) -> Tracking:
    """The tracking server of the settings' home."""
    from ml.versions.tracking import Tracking

    return Tracking(settings.home.tracking_uri, settings.home.artifacts)
