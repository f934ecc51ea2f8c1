"""Hashes that say whether two trainings would do the same, and whether two trainings had the same data."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import polars as pl

from ml.examples.period import TrainingPeriod
from ml.versions.tracking import code_version
from settings import Settings

WITHOUT_EFFECT = (
    "data.bucket_events",
    "data.keep_days",
    "data.keep_versions_days",
    "data.memory_gib",
    "data.part_mib",
    "data.scratch",
    "engine.",
    "gate.",
    "online.",
    "quality.",
    "serving.",
    "training.fits_at_once",
)
"""Settings, and groups of settings, that do not change the result of a training on given data."""


def fingerprint_of(period: TrainingPeriod, settings: Settings) -> str:
    """Return a hash that is equal for trainings that would do the same.

    The hash covers the data, the settings but those without effect, and the code where its version is known. The data
    include the logged requests that are learnt, and the catalogue of the models of the reports, because newer versions
    of items do not show it.
    """
    earlier = period.until(period.end - period.window).items
    requests = [] if period.requests is None else [period.requests]
    hashes = [frame_hash(frame) for frame in (period.events, period.items, period.users, earlier, *requests)]
    learnt = {name: value for name, value in settings.flat().items() if not name.startswith(WITHOUT_EFFECT)}
    described = json.dumps([hashes, repr(period.end), repr(period.rule), learnt, code_version()], default=str)
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def dataset_hash(period: TrainingPeriod) -> str:
    """Return a hash of the events and the logged requests of the period: equal data, equal hash."""
    return "-".join(frame_hash(frame) for frame in (period.events, period.requests) if frame is not None)


def frame_hash(frame: pl.DataFrame) -> str:
    """Return a hash of the rows that does not depend on their order."""
    rows = frame.hash_rows(seed=0).to_numpy()
    return f"{int(np.bitwise_xor.reduce(rows, initial=0)):016x}-{len(rows)}"
