"""The jobs: ``bootstrap`` once, ``daily`` every day, ``retrain`` when a new model is wanted; ``sweep`` to learn how to
train it."""

from __future__ import annotations

import sys

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

HISTORY = "history"

TRAINING = (
    "content_basis",
    "training_examples",
    "contextual_examples",
    "item_model",
    "champion",
    "advertiser_model",
    "evaluation_lists",
    "recall_report",
    "diversity_report",
    "context_report",
    "marketplace_report",
    "advertiser_recall_report",
)
"""Unpartitioned, in flow order: from the ingested history to a champion and its reports."""

DAILY = (
    "events",
    "items",
    "users",
    "ads",
    "impressions",
    "relevance_labels",
    "funnel_sample",
    "feedback",
    "data_quality",
    "user_sequences",
    "item_features",
    "user_states",
    "item_embeddings",
    "item_index",
    "relevance_model",
    "scored_candidates",
    "advertiser_embeddings",
    "advertiser_candidates",
    "online_states",
    "daily_recall",
    "context_drift",
    "labelling_queue",
    "rater_agreement",
    "relevance_scrape",
    "relevance_monitoring",
    "relevance_report",
    "retention",
)
"""Daily partitions, in flow order."""

REPORTS = (
    "evaluation_lists",
    "recall_report",
    "diversity_report",
    "context_report",
    "marketplace_report",
    "advertiser_recall_report",
    "relevance_labels",
    "funnel_sample",
    "feedback",
    "relevance_model",
    "scored_candidates",
    "daily_recall",
    "context_drift",
    "labelling_queue",
    "rater_agreement",
    "relevance_scrape",
    "relevance_monitoring",
    "relevance_report",
)
"""The assets of both that only measure, and those of relevance. Nothing that is published waits for one: without a new
relevance model the publication names the one before. So a failure stops no day, and is repeated alone; and a home from
before relevance was measured runs these for its old days, and not the days as a whole."""


class ErrorRetryPolicy(dg.RetryPolicy):
    """Retry errors and never an interruption.

    Dagster also applies a retry policy to an asset of a terminated run, and the asset would then go on.
    """

    def calculate_delay(self, attempt_num: int) -> float:
        """Return the seconds until the next attempt; during an interruption, raise the interruption again.

        An interruption is Ctrl-C or the end of the run by Dagster.
        """
        handled = sys.exc_info()[1]
        if isinstance(handled, KeyboardInterrupt | DagsterExecutionInterruptedError):
            raise handled
        return super().calculate_delay(attempt_num)


# Two more tries after 5 and 10 seconds: for what passes by itself, such as a full disk or a busy database. An asset
# whose input is wrong raises dg.Failure(allow_retries=False) instead of waiting for the same answer three times.
RETRIES = ErrorRetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# The run itself (a killed process) is started again at most this often.
RUN_TAGS = {"dagster/max_retries": "2"}

bootstrap = dg.define_asset_job(
    "bootstrap",
    selection=dg.AssetSelection.assets(HISTORY, *TRAINING),
    description="Ingest the history, train the models, make the first champion, report. Run once, before any day.",
    op_retry_policy=RETRIES,
    tags=RUN_TAGS,
)

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.assets(*TRAINING),
    description="Train on everything that has arrived; the gate decides whether the new model becomes champion.",
    op_retry_policy=RETRIES,
    tags=RUN_TAGS,
)

daily = dg.define_asset_job(
    "daily",
    selection=dg.AssetSelection.assets(*DAILY),
    description="One day: ingest what arrived, infer the active users and their advertisers, rebuild the index, "
    "publish all of it, measure yesterday's answers.",
    op_retry_policy=RETRIES,
    tags=RUN_TAGS,
)

sweep = dg.define_asset_job(
    "sweep",
    selection=dg.AssetSelection.assets("alpha_sweep"),
    description="Recall against diversity over the weights of the log-Q correction. Serves nothing, changes nothing.",
    tags=RUN_TAGS,
)
