"""Examples, their contexts, the models, and the gate that a new champion has to pass."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.common.metadata import MODELLING, columns, dagster_tags, materialized, preview
from assets.common.workspace import Workspace
from assets.features import content_basis
from assets.ingest import events, history, impressions, items, users
from assets.steps.period import history_of, training_day, training_period
from assets.steps.skip_without_items import needs_items, require_items
from assets.steps.training_engine import training_engine
from assets.steps.versions import item_versions
from ml.examples.nothing_to_learn import NothingToLearn
from warehouse.item_trainings import record_training_with_items, record_training_without_items
from warehouse.trainability import why_advertisers_alone, why_too_few

if TYPE_CHECKING:
    from ml.examples.period import TrainingPeriod

GROUP = "training"
EXAMPLE_COLUMNS = {
    "cutoff": "Datetime: what happened before it is history",
    "user_id": "String",
    "history_events": "Int64: events of the user in the history; under dense_all_action also some after the cut-off",
    "item_id": "String: the positive, within K days after the history",
    "event_name": "String: of the positive, null for an ad that was shown beside an item or for a query",
    "weight": "Float32: label weight",
}


@dg.asset(
    group_name=GROUP,
    deps=[history, events, content_basis],
    kinds={"polars", "deltalake"},
    owners=[MODELLING],
    description="Users at evenly spaced cut-offs with each distinct item they convert with in the K days after "
    "(all-action; examples.objective chooses another), weighted by conversion type. Windows end within the training "
    "period.",
    metadata=columns(**EXAMPLE_COLUMNS),
    check_specs=[
        dg.AssetCheckSpec(
            "enough_examples",
            asset="training_examples",
            blocking=True,
            description="At least examples.minimum_examples.",
        )
    ],
)
@needs_items
def training_examples(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    from ml.examples.period import examples_to_frame, prepare_examples
    from ml.features.content import ContentBasis

    day, effective = training_day(workspace.tables), workspace.settings
    period = training_period(workspace, day)
    why = why_advertisers_alone(history_of(period), period.rule.window_days)
    if why and not item_versions(workspace.tables, workspace.home).all():
        context.log.warning(why)
        record_training_without_items(workspace.tables, day, why)
        raise NothingToLearn(why)
    record_training_with_items(workspace.tables, day)
    basis = ContentBasis.from_frame(workspace.tables.read("content_basis", {"as_of": day}))
    prepared = prepare_examples(period, effective, basis)
    frame = examples_to_frame(prepared, period.event_names)
    workspace.tables.write("training_examples", frame.drop("subject_item_id", "query"), {"as_of": day})
    by_name = frame.group_by("event_name").len().sort("len", descending=True)
    return materialized(
        metadata={
            "dagster/row_count": len(frame),
            "as_of": str(day),
            "objective": effective.examples.objective.value,
            "cutoffs": frame["cutoff"].n_unique(),
            "users": frame["user_id"].n_unique(),
            "positive_items": frame["item_id"].n_unique(),
            "by_conversion_type": preview(by_name),
            "sample": preview(frame.drop("subject_item_id", "query", "user_id").sample(min(5, len(frame)), seed=0)),
        },
        check_results=[_enough(len(frame), effective.examples.minimum_examples, period)],
    )


def _enough(examples: int, wanted: int, period: "TrainingPeriod") -> dg.AssetCheckResult:
    passed = examples >= wanted
    reason = "" if passed else why_too_few(history_of(period), examples, wanted, period.rule.window_days)
    return dg.AssetCheckResult(
        check_name="enough_examples",
        passed=passed,
        description=reason,
        metadata={"examples": examples, "bound": wanted},
    )


@dg.asset(
    group_name=GROUP,
    deps=[training_examples, items, impressions],
    kinds={"polars", "deltalake"},
    owners=[MODELLING],
    description="The examples with contexts. Where the log has enough requests beside an item "
    "(context.minimum_requests), each ad that was shown there is an example beside that item, and the conversions have "
    "no context; where it has enough searches, each ad that was shown there is an example of its query. Without enough "
    "requests beside an item: the synthetic context augmentation, each conversion beside the item that the user might "
    "be looking at, by default another item that this user engaged with within a day, as noisy as real context.",
    metadata=columns(
        **EXAMPLE_COLUMNS,
        subject_item_id="String: logged or synthetic subject, null where there is none",
        query="String: what was typed in a logged search, null elsewhere",
    ),
    check_specs=[
        dg.AssetCheckSpec(
            "never_the_positive_itself",
            asset="contextual_examples",
            blocking=True,
            description="A subject that is its own label would teach the model to look at the answer.",
        )
    ],
)
@needs_items
def contextual_examples(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.examples.period import examples_of_frame, examples_to_frame, with_contexts
    from settings import ContextRecipe

    day, effective = training_day(workspace.tables), workspace.settings
    require_items(workspace.tables, day)
    period = training_period(workspace, day)
    examples = workspace.tables.read("training_examples", {"as_of": day})
    prepared = with_contexts(examples_of_frame(period, examples, effective), period, effective)
    frame = examples_to_frame(prepared, period.event_names)
    workspace.tables.write("contextual_examples", frame, {"as_of": day})
    titles = period.items.select("item_id", "title", "category")
    described = (
        frame.drop_nulls("subject_item_id")
        .join(titles, on="item_id", how="left")
        .join(titles, left_on="subject_item_id", right_on="item_id", how="left", suffix="_of_subject")
    )
    same_category = (described["category"] == described["category_of_subject"]).mean() or 0.0
    sample = described.sample(min(8, len(described)), seed=0).select(
        "item_id", "title", "category", "subject_item_id", "title_of_subject", "category_of_subject"
    )
    recipe = effective.context.recipe
    own = int((frame["subject_item_id"] == frame["item_id"]).sum())
    shown, searches = frame["event_name"].null_count(), frame["query"].count()
    in_context = frame["subject_item_id"].is_not_null() | frame["query"].is_not_null()
    return materialized(
        metadata={
            "dagster/row_count": len(frame),
            "contexts": "logged requests" if shown > searches else f"synthetic: {recipe.value}",
            "shown_ads_of_requests": shown,
            "shown_ads_of_searches": searches,
            "share_with_context": float(in_context.mean() or 0.0),  # type: ignore[arg-type]
            "share_same_category": float(same_category),  # type: ignore[arg-type]
            "sample": preview(sample),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="never_the_positive_itself",
                passed=own == 0 or recipe is ContextRecipe.own_interests,
                metadata={"own": own},
            )
        ],
    )


@dg.asset(
    group_name=GROUP,
    deps=[contextual_examples, users],
    kinds={"pytorch", "lightning", "mlflow"},
    owners=[MODELLING],
    description="The contextual sequential two-tower model, trained on everything and registered in MLflow. Beside it, "
    "on the period less its last window: the same model, the sequential one without context and mean pooling, for an "
    "honest comparison on that window.",
)
@needs_items
def item_model(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.examples.period import examples_of_frame
    from ml.features.content import ContentBasis
    from ml.versions.item_version import ItemVersion
    from ml.versions.train import train_version

    day, effective = training_day(workspace.tables), workspace.settings
    require_items(workspace.tables, day)
    engine = training_engine(workspace)
    period = training_period(workspace, day)
    basis = ContentBasis.from_frame(workspace.tables.read("content_basis", {"as_of": day}))
    examples = workspace.tables.read("contextual_examples", {"as_of": day})
    prepared = examples_of_frame(period, examples, effective, basis)
    trained = train_version(
        ItemVersion(period, prepared, effective),
        workspace.tracking,
        workspace.home.models,
        name=f"{day}",
        tags=dagster_tags(context),
        engine=engine,
    )
    item_versions(workspace.tables, workspace.home).add(trained.version, day, trained.run_id)
    return materialized(
        metadata={
            "model_version": trained.version,
            "trained_day": str(day),
            "epochs": trained.epochs,
            **trained.validation,
            "seconds": trained.seconds,
            "sequences_per_second": trained.sequences_per_second,
            "waiting_for_data": trained.waiting_share,
            "parameters": trained.parameters,
            "mlflow_run": dg.MetadataValue.url(trained.url),
            **workspace.engine.figures(),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=[item_model],
    kinds={"mlflow", "pytorch", "faiss"},
    owners=[MODELLING],
    description="The gate: the new version becomes champion when it is not worse than the old one on conversions after "
    "both cut-offs, in recall and diversity. A new champion gets one full inference and its first index before the "
    "alias moves, so that nothing serves a half-ready version.",
    check_specs=[
        dg.AssetCheckSpec(
            "a_champion_is_ready",
            asset="champion",
            blocking=True,
            description="There is a champion, and its states and item embeddings are finite.",
        )
    ],
)
@needs_items
def champion(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from assets.steps.promote import judge, promote

    decision = judge(workspace)
    context.log.info(decision.reason)
    metadata: dict[str, dg.MetadataValue | str | float | int] = {
        "candidate": decision.candidate.name,
        "promoted": decision.passed,
        "reason": decision.reason,
        "gate": preview(decision.table),
    }
    if decision.passed:
        metadata |= promote(workspace, decision.candidate)
    serving = workspace.tracking.champion()
    finite = bool(metadata.get("all_finite", True))
    return materialized(
        metadata={**metadata, "champion": serving or "none"},
        check_results=[dg.AssetCheckResult(check_name="a_champion_is_ready", passed=bool(serving) and finite)],
    )
