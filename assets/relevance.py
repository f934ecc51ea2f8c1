"""Relevance: the model that is learnt from raters' labels, and the scores of the day's candidates."""

from datetime import date

import dagster as dg

from assets.common.metadata import MODELLING, columns, dagster_tags, materialized, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.features import item_features
from assets.ingest import FIRST, funnel_sample, impressions, relevance_labels
from assets.steps.score_candidates import SCORED_CANDIDATES, score_candidates
from assets.steps.skip_without_items import needs_items
from assets.steps.train_relevance import train_relevance

GROUP = "relevance"


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[relevance_labels, item_features],
    # Before the publication, which names the newest model; no dependency, so that a training that fails stops no day.
    op_tags=FIRST,
    kinds={"scikitlearn", "mlflow"},
    owners=[MODELLING],
    description="The relevance model: a small classifier that trims in retrieval and a regression for the auction, "
    "both calibrated by surface and content type, from the labels that had arrived. A new model is learnt on a day by "
    "which enough labels are new (`relevance.retrain_share`), and used where the gate finds it not worse on labels "
    "that neither model has learnt.",
    metadata=columns(
        model="String: new, old for the model in use, or folds: all labels, each by a model that had not seen it",
        segment="String: all, cell, content_type, stage",
        ndcg="Float64: nDCG@10",
        calibration_error="Float64: of the auction's score",
    ),
)
@needs_items
def relevance_model(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    trained = train_relevance(workspace, day, dagster_tags(context))
    context.log.info(trained.reason)
    metadata: dict[str, dg.MetadataValue | str | float | int] = {
        "in_use_from_this_day": trained.passed,
        "reason": trained.reason,
        "labels": trained.labels,
        "labels_that_measured": trained.unseen,
    }
    if trained.since is not None and trained.due is not None:
        metadata |= {"labels_since_the_model_in_use": trained.since, "next_training_at": trained.due}
    if trained.new is not None:
        shown = trained.folds or trained.new
        metadata |= {
            "ndcg@10": shown.all.ndcg,
            "calibration_error": shown.all.calibration_error,
            "label_1_trimmed": shown.trim.irrelevant_trimmed,
            "relevant_trimmed": shown.trim.relevant_trimmed,
            "measures": preview(trained.table(), rows=30),
        }
    if trained.url:
        metadata["mlflow_run"] = dg.MetadataValue.url(trained.url)
    return materialized(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[relevance_model, impressions, funnel_sample],
    kinds={"polars", "deltalake"},
    owners=[MODELLING],
    description="The logged candidates of the day, of `impressions` and of the service's `funnel_sample`, with the "
    "scores of the day's relevance model. Monitoring, the funnel report and the labelling queue read it. No user is "
    "in it.",
    metadata=columns(
        surface="String",
        item_id="String",
        stage="String: the furthest one that the candidate reached",
        arm="String: production or holdout",
        inclusion_probability="Float64: with which such a candidate is logged",
        trim_score="Float64: probability that a rater calls the pair relevant",
        relevance="Float64: expected relevance, 0 to 1",
        features="List(Float32): in the order of the relevance version; null = not known",
    ),
)
@needs_items
def scored_candidates(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    scored = score_candidates(workspace, day)
    workspace.tables.write(SCORED_CANDIDATES, scored, {"day": day})
    by_stage = scored.group_by("surface", "stage").len("candidates").sort("surface", "stage")
    return materialized(
        metadata={
            "dagster/row_count": scored.height,
            "scored_by": str(scored["relevance_version"].drop_nulls().first() or "no relevance model yet"),
            "by_stage": preview(by_stage, rows=30),
        }
    )
