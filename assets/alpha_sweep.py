"""An experiment beside the flow: how the weights of the log-Q correction trade recall against diversity."""

import dagster as dg

from assets.common.metadata import MODELLING, dagster_tags, materialized, picture, preview
from assets.common.workspace import Workspace
from assets.ingest import events, history, items, users
from assets.steps.period import training_day, training_period


@dg.asset(
    group_name="experiments",
    deps=[history, events, items, users],
    kinds={"pytorch", "lightning", "mlflow"},
    owners=[MODELLING],
    description="A small grid over alpha_positive and alpha_negative: one fit a point, Recall@100 against diversity90, "
    "the Pareto front. It ends one window before the newest day, so that whatever is chosen here, the reports on the "
    "newest window stay honest. Changes nothing: set ADSEQ_TRAINING__ALPHA_POSITIVE and _NEGATIVE.",
)
def alpha_sweep(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.tuning.alpha_sweep import sweep_alphas
    from ml.tuning.pareto import points_frame

    day, effective = training_day(workspace.tables), workspace.settings
    period = training_period(workspace, day)
    found = sweep_alphas(
        period.until(period.end - period.window),
        effective,
        workspace.tracking,
        models=workspace.home.models,
        name=f"{day}",
        tags=dagster_tags(context),
    )
    table = points_frame(found.points)
    return materialized(
        metadata={
            "points": preview(table, len(table)),
            "front": picture(found.figure, "Recall@100 against diversity90"),
            "on_the_front": int(table["on_front"].sum()),
            "best_alpha_positive": found.best.alpha_positive,
            "best_alpha_negative": found.best.alpha_negative,
            "best_recall": found.best.recall,
            "best_diversity90": found.best.diversity90,
            "recall_tolerance": effective.sweep.recall_tolerance,
            "users": found.queries,
            "mlflow_run": dg.MetadataValue.url(found.url),
        }
    )
