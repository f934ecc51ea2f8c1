"""The pairs that raters get next."""

from datetime import date

import dagster as dg
import polars as pl

from assets.common.metadata import MODELLING, columns, materialized, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.ingest import feedback, relevance_labels
from assets.relevance import scored_candidates
from assets.steps.choose_pairs import write_queue
from ml.relevance.labelling_queue import Reason

GROUP = "relevance"
NAMED = "pairs_name_a_subject_or_a_query"


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[scored_candidates, relevance_labels, feedback],
    kinds={"polars", "deltalake"},
    owners=[MODELLING],
    description="The pairs that raters get after the day, by turns one that somebody has reported and one of a sample "
    "of the day's candidates in equal parts of surface, stage, content type and decile of the score, with the "
    "probability of each draw. Pairs that have enough raters, or name an item that the catalogue lacks, are left out. "
    "Raters see them at the service's page /label.",
    metadata=columns(
        position="Int64: from 0, the order in which raters get the pairs",
        reason="String: reported or drawn",
        surface="String",
        subject_item_id="String: null for a search",
        query="String: null beside an item",
        item_id="String: the candidate",
        stage="String: of the funnel; null for a reported pair",
        content_type="String",
        score_decile="Int64: of the relevance among the day's candidates, from 0; null without a model",
        inclusion_probability="Float64: of the log and the draw; null for a reported pair",
        rater_ids="List(String): who have judged the pair already",
        title="String: of the candidate",
        category="String: its path",
        price="Float64",
        currency="String",
        subject_title="String: null for a search",
        subject_category="String",
        subject_price="Float64",
        subject_currency="String",
    ),
    check_specs=[
        dg.AssetCheckSpec(
            NAMED,
            asset="labelling_queue",
            description="Every pair of the queue names a subject item or a query, beside which raters judge.",
        )
    ],
)
def labelling_queue(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    queue = write_queue(workspace, date.fromisoformat(context.partition_key))
    placed = queue.filter(pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null())
    strata = queue.group_by("surface", "stage", "content_type").agg(
        pairs=pl.len(), deciles=pl.col("score_decile").n_unique()
    )
    return materialized(
        metadata={
            "dagster/row_count": queue.height,
            "reported": queue.filter(pl.col("reason") == Reason.reported).height,
            "half_judged": queue.filter(pl.col("rater_ids").list.len() > 0).height,
            "without_a_title": queue["title"].null_count(),
            "by_stratum": preview(strata.sort("surface", "stage", "content_type"), rows=100),
            "first_pairs": preview(
                queue.select("reason", "surface", "subject_title", "query", "title", "category", "stage"), rows=10
            ),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=NAMED,
                passed=placed.height == queue.height,
                metadata={"without": queue.height - placed.height},
            )
        ],
    )
