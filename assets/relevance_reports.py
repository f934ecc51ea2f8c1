"""The measurement of relevance: raters, the gap to the holdout, monitoring, and the report with its pictures."""

from datetime import date

import dagster as dg

from assets.common.metadata import MODELLING, columns, dagster_tags, materialized, picture, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.ingest import impressions, relevance_labels
from assets.publication import online_states
from assets.relevance import relevance_model, scored_candidates
from assets.steps.rater_agreement import measure_raters
from assets.steps.relevance_monitoring import watch_relevance
from assets.steps.relevance_report import report_relevance
from assets.steps.relevance_scrape import scrape_relevance
from assets.steps.service_lists import service_lists
from assets.steps.skip_without_items import needs_items

GROUP = "relevance"
WATCHED = {
    "coverage": "Features are known of as many candidates as in the days before.",
    "stability": "Features and scores are distributed as in the days before.",
    "trim_rate": "The trim drops as many candidates as in the days before.",
}
NO_BIAS = "no_rater_is_biased"


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[relevance_labels],
    kinds={"polars"},
    owners=[MODELLING],
    description="The agreement of the raters whose labels arrived in the last weeks: the share of pairs on which two "
    "raters differ, Krippendorff's alpha, and the bias of each rater. A warning names a biased rater.",
    metadata=columns(
        rater_id="String",
        pairs="Int64: that other raters judged, too",
        bias="Float64: mean difference from the other raters, points",
        low="Float64",
        high="Float64: of an interval that holds for all raters together",
        biased="Boolean",
    ),
    check_specs=[
        dg.AssetCheckSpec(NO_BIAS, asset="rater_agreement", description="No rater differs from the others throughout.")
    ],
)
def rater_agreement(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    found = measure_raters(workspace, date.fromisoformat(context.partition_key))
    named = ", ".join(found.biased)
    return materialized(
        metadata={
            "pairs": found.pairs,
            "figures": preview(found.figures, rows=20),
            "raters": preview(found.raters, rows=30),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=NO_BIAS,
                passed=not named,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"biased: {named}" if named else "nobody differs beyond chance",
            )
        ],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[online_states, impressions, relevance_model],
    kinds={"polars", "matplotlib"},
    owners=[MODELLING],
    description="The daily scrape: a fixed random set of logged requests is asked of what was published, under "
    "production and under the holdout, which is never trimmed. The relevance of the lists, the gap with its interval, "
    "and the precision: A/A differences and the smallest change that can be detected. No user is in it.",
    metadata=columns(
        surface="String",
        subject_item_id="String",
        query="String",
        stratum="String: surface, head category, popularity",
        weight="Float64: the weights of a day add up to 1",
        production="Float64: fraction relevant of the first ten",
        holdout="Float64",
        production_ndcg="Float64: nDCG@10",
        holdout_ndcg="Float64",
        judge="String: truth, labels or model",
    ),
)
@needs_items
def relevance_scrape(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    lists = service_lists(workspace, day)
    if lists is None:
        why = f"another day than {day} is published, and the service answers as of what is published: the rows stay"
        return materialized(metadata={"probes": 0, "why": why})
    found = scrape_relevance(workspace, day, lists)
    if found is None:
        why = "no request beside an item or of a search has been logged"
        return materialized(metadata={"probes": 0, "why": why})
    return materialized(
        metadata={
            "probes": found.probes,
            "figures": preview(found.figures, rows=40),
            "gap": picture(found.gap, "gap to the holdout by day"),
        }
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[scored_candidates],
    kinds={"polars", "matplotlib"},
    owners=[MODELLING],
    description="The day's candidates against those of the days before, by surface, content type and relevance "
    "version: coverage and distribution of each feature, distribution of the scores, trim rate. The checks warn, and "
    "stop nothing. Bounds: settings `relevance`, and wider where a cell has few requests.",
    metadata=columns(
        surface="String",
        content_type="String",
        relevance_version="String",
        figure="String: coverage, stability (population stability index) or trim_rate",
        feature="String",
        value="Float64: of the day",
        reference="Float64: of the days before",
        bound="Float64: null where the cell is too small to judge",
        candidates="Int64",
        requests="Float64: effective number",
        warning="Boolean",
    ),
    check_specs=[
        dg.AssetCheckSpec(name, asset="relevance_monitoring", description=description)
        for name, description in WATCHED.items()
    ],
)
@needs_items
def relevance_monitoring(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    found = watch_relevance(workspace, date.fromisoformat(context.partition_key))
    return materialized(
        metadata={
            "warnings": sum(map(len, found.warnings.values())),
            "watched": preview(found.table.sort("warning", descending=True), rows=20),
            **{name: picture(figure, name) for name, figure in found.pictures.items()},
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=name,
                passed=not found.warnings[name],
                severity=dg.AssetCheckSeverity.WARN,
                description=" ".join(found.warnings[name]) or "as in the days before, or too few to judge",
            )
            for name in WATCHED
        ],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[rater_agreement, relevance_scrape, relevance_monitoring, relevance_model, scored_candidates],
    kinds={"mlflow", "matplotlib"},
    owners=[MODELLING],
    description="Every figure of relevance of the day as one MLflow run, in the experiment of relevance: the model's "
    "measures on labels that it had not learnt, the fraction relevant through the funnel, the gap to the holdout, the "
    "raters' agreement; with pictures of calibration, funnel, gap and seasons.",
    metadata=columns(
        model="String",
        metric="String",
        value="Float64",
        low="Float64",
        high="Float64",
        segment="String",
        group="String",
    ),
)
@needs_items
def relevance_report(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    found = report_relevance(workspace, date.fromisoformat(context.partition_key), dagster_tags(context))
    return materialized(
        metadata={
            "figures": preview(found.figures.filter(segment="all"), rows=60),
            **{name: picture(figure, name.replace("_", " ")) for name, figure in found.pictures.items()},
            "mlflow_run": dg.MetadataValue.url(found.url),
        }
    )
