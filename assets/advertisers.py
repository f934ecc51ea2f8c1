"""Next advertiser prediction: the model, its daily index and each active user's advertisers, and its report."""

from datetime import date

import dagster as dg
import polars as pl

from assets.common.metadata import MODELLING, columns, dagster_tags, materialized, picture, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.features import content_basis
from assets.inference import FRESH
from assets.ingest import events, history, items, users
from assets.sequences import user_sequences
from assets.steps.advertiser_report import report_advertisers
from assets.steps.period import history_of, training_day, training_period
from assets.steps.predict_advertisers import all_finite, predict_day, write_embeddings
from assets.steps.training_engine import training_engine
from assets.steps.versions import ModelKind, ModelVersion, advertiser_versions, serving_advertisers
from ml.examples.nothing_to_learn import NothingToLearn
from warehouse.states import ADVERTISER_CANDIDATES, compact, outdated_days
from warehouse.trainability import why_advertisers_alone

NO_MODEL = (
    "No advertiser model had been trained by {day}: nothing is predicted for it. The job `retrain` (or `adseq run "
    "--retrain`) trains one, which serves the days from the newest ingested one on."
)


@dg.asset(
    group_name="training",
    deps=[history, events, items, users, content_basis],
    kinds={"pytorch", "lightning", "mlflow"},
    owners=[MODELLING],
    description="The advertiser model: the transformer user tower and an MLP over what an advertiser is (hashed id, "
    "category mix, price level, size, content centroid, trailing statistics), each with a memory of advertisers beside "
    "it. Positives are distinct advertisers, signups included; in-batch and corpus negatives with log-Q. Trained like "
    "item_model, registered in MLflow, and then everybody's advertisers are predicted as of the training day, so that "
    "no half-ready version serves.",
    check_specs=[
        dg.AssetCheckSpec(
            "embeddings_are_finite",
            asset="advertiser_model",
            blocking=True,
            description="Every advertiser embedding and every score of the first prediction is a number.",
        )
    ],
)
def advertiser_model(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.examples.advertiser_period import AdvertiserPeriod
    from ml.features.content import ContentBasis
    from ml.versions.advertiser_version import AdvertiserVersion
    from ml.versions.train import train_version

    engine = training_engine(workspace)
    day, effective = training_day(workspace.tables), workspace.settings
    known = AdvertiserPeriod.of(training_period(workspace, day))
    basis = ContentBasis.from_frame(workspace.tables.read("content_basis", {"as_of": day}))
    tracking, models = workspace.tracking, workspace.home.models
    try:
        version_task = AdvertiserVersion.of(known, basis, effective)
        trained = train_version(
            version_task, tracking, models, name=f"{day}", tags=dagster_tags(context), engine=engine
        )
    except NothingToLearn as reason:
        if why_advertisers_alone(history_of(known.period), known.period.rule.window_days):
            raise dg.Failure(f"No conversion names an item, and {reason}", allow_retries=False) from reason
        # A log without advertisers has an item model all the same.
        context.log.warning(f"No advertiser model: {reason}")
        return materialized(
            metadata={"why": str(reason)},
            check_results=[dg.AssetCheckResult(check_name="embeddings_are_finite", passed=True)],
        )
    version = ModelVersion(ModelKind.advertiser, trained.version, day, trained.run_id, models / trained.version)
    embeddings = write_embeddings(workspace, version, day)
    predicted = predict_day(workspace, version, day)
    compact(
        workspace.tables,
        ADVERTISER_CANDIDATES,
        version.name,
        day=day,
        after_days=workspace.settings.inference.compaction_days,
    )
    finite = all_finite(embeddings, predicted)
    if finite:
        advertiser_versions(workspace.tables, workspace.home).add(version.name, day, trained.run_id)
        tracking.promote(version.kind, version.number)
    return materialized(
        metadata={
            "model_version": trained.version,
            "trained_day": str(day),
            "epochs": trained.epochs,
            **trained.validation,
            "seconds": trained.seconds,
            "examples": trained.sizes["examples"],
            "advertisers": trained.sizes["advertisers"],
            "users_predicted": len(predicted.users),
            "sequences_per_second": trained.sequences_per_second,
            "mlflow_run": dg.MetadataValue.url(trained.url),
            **workspace.engine.figures(),
        },
        check_results=[dg.AssetCheckResult(check_name="embeddings_are_finite", passed=finite)],
    )


@dg.asset(
    group_name="inference",
    partitions_def=daily,
    deps=[events, items, advertiser_model],
    kinds={"pytorch", "deltalake"},
    owners=[MODELLING],
    description="The advertiser index: the advertiser tower over every advertiser known by the end of the day. "
    "Category mix, price level, size, centroid and statistics are as of the day, so embeddings are, too. Empty for a "
    "day before the first advertiser model.",
    metadata=columns(
        advertiser_id="String", items="Int64: in its catalogue by then", embedding="List(Float32): unit length"
    ),
)
def advertiser_embeddings(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    version = serving_advertisers(workspace.tables, workspace.home, day)
    if version is None:
        return _nothing(context, day)
    advertiser_versions(workspace.tables, workspace.home).record_deployment(day, version)
    frame = write_embeddings(workspace, version, day)
    return materialized(
        metadata={
            "dagster/row_count": len(frame),
            "without_an_item": int((frame["items"] == 0).sum()),
            "model_version": version.name,
        }
    )


@dg.asset(
    group_name="inference",
    partitions_def=daily,
    deps=[advertiser_embeddings, user_sequences],
    kinds={"pytorch", "deltalake"},
    owners=[MODELLING],
    freshness_policy=FRESH,
    description="The advertisers that each user with new activity converts with next, best first: one encode of the "
    "day's sequences, against the day's index. Append-only: the snapshot as of a day is each user's newest row up to "
    "it, for one model version. Empty for a day before the first advertiser model.",
    metadata=columns(
        user_id="String",
        advertiser_ids="List(String): best first, at most advertisers.list_depth",
        scores="List(Float32): inner products, in the same order",
    ),
    check_specs=[
        dg.AssetCheckSpec(
            "every_active_user_has_a_full_list",
            asset="advertiser_candidates",
            description="As many advertisers as asked for, or as there are, for each user of the day's sequences.",
        )
    ],
)
def advertiser_candidates(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    check = "every_active_user_has_a_full_list"
    version = serving_advertisers(workspace.tables, workspace.home, day)
    if version is None:
        return _nothing(context, day, dg.AssetCheckResult(check_name=check, passed=True))
    index = workspace.tables.read("advertiser_embeddings", {"model_version": version.name, "day": day})
    sequences = workspace.tables.scan("user_sequences").filter(pl.col("day") == day)
    active = sequences.select("user_id").collect()["user_id"]
    if version.trained_day in outdated_days(workspace.tables, ADVERTISER_CANDIDATES, version.name):
        write_embeddings(workspace, version, version.trained_day)
        predict_day(workspace, version, version.trained_day)
    predicted = predict_day(workspace, version, day)
    compact(
        workspace.tables,
        ADVERTISER_CANDIDATES,
        version.name,
        day=day,
        after_days=workspace.settings.inference.compaction_days,
    )
    wanted = min(workspace.settings.advertisers.list_depth, len(index))
    listed = int(active.is_in(predicted.users.implode()).sum())
    return materialized(
        metadata={
            "dagster/row_count": len(predicted.users),
            "list_depth": wanted,
            "distinct_advertisers": predicted.advertisers,
            "model_version": version.name,
            "sample": preview(_first_few(predicted.first)),
            **workspace.engine.figures(),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=check,
                passed=listed == len(active) and (not listed or predicted.shortest == wanted),
                metadata={"active_users": len(active), "with_a_list": listed},
            )
        ],
    )


@dg.asset(
    group_name="reports",
    deps=[advertiser_model],
    kinds={"mlflow", "matplotlib"},
    owners=[MODELLING],
    description="Next-advertiser recall on the newest window, by a model that ends before it, against an index of the "
    "positives and a uniform sample of the other advertisers, of stated size: by K, conversion type (signups apart), "
    "and for advertisers known and new to the user; with intervals, diversity over advertisers, and baselines.",
)
def advertiser_recall_report(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    found = report_advertisers(workspace, dagster_tags(context))
    if found is None:
        return materialized(metadata={"users": 0, "why": "no advertiser model, or no conversion"})
    return materialized(
        metadata={
            **{f"{model}_recall@10": value for model, value in found.kept.at(10).items()},
            "index": found.index,
            "known_advertisers": found.known,
            "users": found.users,
            "positives": found.positives,
            "positives_on_advertisers_unknown_then": found.unknown_positives,
            "recall": preview(found.kept.wide("recall", "macro_recall", "diversity90", "coverage")),
            "curve": picture(found.drawn["curve"], "recall by list length"),
            "intervals": picture(found.drawn["intervals"], "recall with intervals"),
            "by_conversion": picture(found.drawn["by_conversion"], "recall by conversion type"),
            "by_novelty": picture(found.drawn["by_novelty"], "recall of known and new advertisers"),
            "diversity": picture(found.drawn["diversity"], "diversity against recall"),
            "mlflow_run": dg.MetadataValue.url(found.kept.url),
        }
    )


def _nothing(context: dg.AssetExecutionContext, day: date, *checks: dg.AssetCheckResult) -> dg.MaterializeResult:
    """Return the empty result of a day that no advertiser model serves: the daily run goes on without the result."""
    context.log.warning(NO_MODEL.format(day=day))
    return materialized(metadata={"dagster/row_count": 0, "why": NO_MODEL.format(day=day)}, check_results=list(checks))


def _first_few(predicted: pl.DataFrame) -> pl.DataFrame:
    # Without whose they are: what Dagster keeps of a run is not for users' names.
    best = predicted.select(pl.col("advertiser_ids").list.head(5).list.join(", "))
    return best.rename({"advertiser_ids": "first five"})
