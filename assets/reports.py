"""Recall@K, diversity and context reports, as MLflow runs with plots; and the daily prequential recall."""

import warnings
from datetime import date, timedelta

import dagster as dg

from assets.advertisers import advertiser_model
from assets.common.metadata import MODELLING, columns, dagster_tags, materialized, picture, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.inference import item_embeddings, user_states
from assets.ingest import events, impressions, items
from assets.steps.comparison import evaluation_lists_of, newest_comparison
from assets.steps.context_drift import drift_of_day, shift_by_day
from assets.steps.context_report import report_context
from assets.steps.daily_recall import prequential
from assets.steps.diversity_report import report_diversity
from assets.steps.marketplace_report import report_marketplace
from assets.steps.recall_report import report_recall
from assets.steps.skip_without_items import needs_items
from assets.training import champion, contextual_examples, item_model

GROUP = "reports"
# The beta part (a partition missing upstream) is what the first day needs: the day before it is the history.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
YESTERDAY = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True)


@dg.asset(
    group_name=GROUP,
    deps=[item_model, champion, events],
    kinds={"pytorch", "deltalake"},
    owners=[MODELLING],
    description="The lists of every model and baseline for the users who converted in the newest window, learnt until "
    "the window began; and the oracle's, where the log is the synthetic world. The reports read these lists.",
    metadata=columns(
        model="String", user_id="String", items="List(Int32): rows of the candidates (items known by then, by id)"
    ),
)
@needs_items
def evaluation_lists(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    compared = newest_comparison(workspace)
    version, comparison = compared.version, compared.comparison
    lists = evaluation_lists_of(workspace, compared)
    workspace.tables.write("evaluation_lists", lists, {"model_version": version.name})
    queries = comparison.asked.queries
    return materialized(
        metadata={
            "users": len(queries),
            "positives": len(queries.positives.items),
            "positives_on_items_unknown_then": int((queries.positives.items < 0).sum()),
            "candidates": len(comparison.item_ids),
            "models": ", ".join(sorted(lists["model"].unique())),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=[evaluation_lists],
    kinds={"mlflow", "matplotlib"},
    owners=[MODELLING],
    description="Recall@K on the newest window, the whole catalogue ranked: by K, history length, country and "
    "conversion type, with bootstrap intervals; every model and baseline beside each other, as MLflow runs.",
)
@needs_items
def recall_report(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    found = report_recall(workspace, dagster_tags(context))
    return materialized(
        metadata={
            **{f"{model}_recall@{found.k}": value for model, value in found.kept.at(found.k).items()},
            "recall": preview(found.kept.wide("recall", "macro_recall", "advertiser_hit")),
            "curve": picture(found.curve, "recall by list length"),
            "intervals": picture(found.intervals, "recall with intervals"),
            "mlflow_run": dg.MetadataValue.url(found.kept.url),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=[evaluation_lists],
    kinds={"mlflow", "matplotlib"},
    owners=[MODELLING],
    description="Diversity of items and advertisers (the share that fills 90 % of all retrieved slots), coverage, "
    "novelty and the share of slots on items that nobody has engaged with, against recall: recall is never reported "
    "without it. With the front that other values of index.popularity_weight would give.",
)
@needs_items
def diversity_report(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    found = report_diversity(workspace, dagster_tags(context))
    return materialized(
        metadata={
            "diversity": preview(found.kept.wide()),
            "scatter": picture(found.scatter, "diversity against recall"),
            **({} if found.front is None else {"popularity_weights": picture(found.front, "popularity weights")}),
            "mlflow_run": dg.MetadataValue.url(found.kept.url),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=[evaluation_lists, impressions],
    kinds={"mlflow", "matplotlib"},
    owners=[MODELLING],
    description="The gain from the live context: requests with a subject item or a search query after the cut-off, "
    "with logged context (ads that survived the funnel) or else a basket proxy; every model with and without the "
    "context, recall and the relevance of candidates to the subject. With a page to look at.",
)
@needs_items
def context_report(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    found = report_context(workspace, dagster_tags(context))
    if found is None:
        why = "neither impressions with a subject item or a query nor baskets"
        return materialized(metadata={"requests": 0, "why": why})
    return materialized(
        metadata={
            "requests": found.requests,
            "source": found.source,
            **{f"lift_{surface}": lift for surface, lift in found.lifts.items()},
            "context": preview(
                found.kept.wide("recall", "diversity90", "true_relevance", "category_overlap", segment="surface")
            ),
            "bars": picture(found.bars, "what the context adds"),
            "mlflow_run": dg.MetadataValue.url(found.kept.url),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=[evaluation_lists, impressions, advertiser_model],
    kinds={"mlflow", "matplotlib"},
    owners=[MODELLING],
    description="The fate of the candidates of each generator in the newest window, by surface, counted from the "
    "impression log: retrieved, survived, delivered, share of impressions, clicked, converted; with intervals over "
    "users. On the synthetic world also an experiment: the market again, an arm for the candidates of each model and "
    "for the advertiser lists; a run in which the advertiser model fails has no report.",
)
@needs_items
def marketplace_report(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    found = report_marketplace(workspace, dagster_tags(context))
    if found is None:
        return materialized(metadata={"requests": 0, "why": "no request was logged in the newest window"})
    return materialized(
        metadata={
            "requests": found.requests,
            "outcomes": preview(found.kept.wide(segment="surface")),
            **{name: picture(figure, name) for name, figure in found.figures.items()},
            "mlflow_run": dg.MetadataValue.url(found.kept.url),
        }
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[
        events,
        dg.AssetDep(user_states, partition_mapping=YESTERDAY),
        dg.AssetDep(item_embeddings, partition_mapping=YESTERDAY),
    ],
    kinds={"polars", "mlflow"},
    owners=[MODELLING],
    description="Prequential recall: yesterday's snapshot, model and item embeddings against the conversions with "
    "event_time in the day. The curve over days is what an operator watches.",
    metadata=columns(
        model="String", users="Int64", positives="Int64", metric="String", value="Float64: null on a day without any"
    ),
)
@needs_items
def daily_recall(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    result = prequential(workspace, day, dagster_tags(context))
    workspace.tables.write("daily_recall", result.table, {"day": day})
    metadata: dict[str, dg.MetadataValue | str | float | int] = {
        "positives": result.positives,
        "users": result.users,
        **result.headline,
        "served_by": result.served_by,
        "as_of": str(day - timedelta(days=1)),
        "curve": picture(result.curve, "recall by day"),
    }
    if result.url:
        metadata["mlflow_run"] = dg.MetadataValue.url(result.url)
    return materialized(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[impressions, items, contextual_examples],
    kinds={"polars"},
    owners=[MODELLING],
    description="Drift of contexts: the day's requests beside an item, against the contexts that the serving model has "
    "learnt, synthetic or logged: the mix of categories, and how near the shown items are to their subject.",
    metadata=columns(
        category="String: first level of the subject's category",
        learnt="Float64: share of the examples with a subject",
        asked="Float64: share of the day's requests beside an item",
    ),
    check_specs=[
        dg.AssetCheckSpec(
            "contexts_as_learnt",
            asset="context_drift",
            description="The requests are about the categories that the model has learnt contexts of.",
        )
    ],
)
@needs_items
def context_drift(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.figures.charts import shares_by_day

    day, bounds = date.fromisoformat(context.partition_key), workspace.settings.quality
    found = drift_of_day(workspace, day)
    days, shifts = shift_by_day(workspace.tables, day, found)
    workspace.tables.write("context_drift", found.categories, {"day": day})
    judged = found.category_shift is not None and found.requests >= bounds.minimum_events
    shifted = judged and found.category_shift > bounds.context_shift_warn  # type: ignore[operator]
    return materialized(
        metadata={
            "requests": found.requests,
            "learnt_from": found.learnt_from,
            "examples": found.examples,
            "served_by": found.served_by,
            **found.figures,
            "largest changes": preview(found.categories, rows=8),
            "shift": picture(shares_by_day(days, {"category shift": shifts}, "Drift of contexts"), "shift by day"),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="contexts_as_learnt",
                passed=not shifted,
                severity=dg.AssetCheckSeverity.WARN,
                description="" if judged else f"{found.requests} requests beside an item are too few to judge",
                metadata={"bound": bounds.context_shift_warn, **found.figures},
            )
        ],
    )
