"""What Dagster loads: the whole deployment on one page.

Loading imports neither torch nor lightning nor mlflow (a test holds it to that); the assets import them when they run.
"""

from __future__ import annotations

import dagster as dg

from assets import (
    advertisers,
    features,
    inference,
    ingest,
    labelling,
    relevance,
    relevance_reports,
    reports,
    retention,
    sequences,
    training,
)
from assets import alpha_sweep as sweep
from assets import publication as online
from assets.common.resources import WorkspaceResource
from pipelines import abandoned_runs as abandoned
from pipelines import alerts, jobs, schedules, sensors
from settings import Settings
from warehouse.home import Home
from warehouse.open_home import open_for_reading

open_for_reading(Home(Settings().home))  # a Dagster that `adseq` did not start refuses another format, too

stages = [
    ingest,
    sequences,
    features,
    training,
    inference,
    reports,
    relevance,
    relevance_reports,
    advertisers,
    online,
    labelling,
    retention,
    sweep,
]  # in the order the data flows

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(stages),
    asset_checks=dg.load_asset_checks_from_modules(stages),
    jobs=[jobs.bootstrap, jobs.daily, jobs.retrain, jobs.sweep],
    schedules=[schedules.daily_schedule, schedules.weekly_retrain],
    sensors=[sensors.new_landing_dates, abandoned.abandoned_runs, alerts.failed_runs, alerts.warned_runs],
    resources={"workspace": WorkspaceResource()},
    # One process a run: importing lightning and mlflow costs more than what a daily step does.
    executor=dg.in_process_executor,
)
