"""The outcomes of another policy's lists on each surface, estimated from an impression log, as rows of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.funnel_outcomes import Stages
from ml.evaluation.intervals import Interval
from ml.evaluation.off_policy import (
    MINIMUM_EFFECTIVE_SAMPLE_SIZE,
    Estimate,
    Estimates,
    Listed,
    Overlap,
    Refused,
    estimate,
    inverse_propensity,
    mean_by_cell,
)
from ml.evaluation.report_rows import ReportRow, Segment, rows_of

LOGGED = "logged"
"""The model in a report's rows of the policy that ran."""

POSITION_BUCKETS = (3, 10, 30, 100)
"""Last ranks of the buckets whose mean rewards stand in for a model; a further bucket has the rest."""

UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


def off_policy_rows(
    impressions: pl.DataFrame,
    lists: pl.DataFrame,
    *,
    policy: str,
    stages: Stages,
    minimum: float = MINIMUM_EFFECTIVE_SAMPLE_SIZE,
    seed: int = 0,
) -> list[ReportRow]:
    """Return the estimated outcomes of a policy's lists, and the outcomes of the policy that ran, by surface.

    An outcome is ``delivered``, ``clicks``, ``conversions`` or, where the log has the column, ``value``, a request.
    The policy's rows are ``<outcome>.inverse_propensity``, ``<outcome>.self_normalised`` and
    ``<outcome>.doubly_robust``, without a value where ``estimates_by_surface`` has a refusal, with
    ``effective_sample_size``, ``effective_users``, ``support`` and the numbers of ``requests``,
    ``requests_without_propensity`` and, of all surfaces together, ``lists_without_request``. The rows of the model
    ``LOGGED`` are ``<outcome>`` of all candidates that were proposed.

    Args: see ``estimates_by_surface``.
    """
    unlogged = lists.join(impressions, on="request_id", how="anti")["request_id"].n_unique()
    rows = rows_of(policy, {"lists_without_request": float(unlogged)})
    for surface, logs in _logs_by_surface(impressions, lists, stages).items():
        counts = {"requests": float(len(logs.listed.user)), "requests_without_propensity": float(logs.left_out)}
        overlap = Overlap.of(logs.listed)
        rows += rows_of(policy, {**counts, **vars(overlap)}, Segment.surface, surface)
        for outcome, found in logs.estimates(minimum, seed).items():
            for name in Estimates.__annotations__:
                interval = UNKNOWN if isinstance(found, Refused) else getattr(found, name).interval
                rows.append(_row(policy, f"{outcome}.{name}", interval, surface))
        rows += [_row(LOGGED, outcome, logged.interval, surface) for outcome, logged in logs.logged.items()]
    return rows


def _row(model: str, metric: str, interval: Interval, surface: str) -> ReportRow:
    return ReportRow.of(model, metric, interval, segment=Segment.surface, group=surface)


def estimates_by_surface(
    impressions: pl.DataFrame,
    lists: pl.DataFrame,
    *,
    stages: Stages,
    minimum: float = MINIMUM_EFFECTIVE_SAMPLE_SIZE,
    seed: int = 0,
) -> dict[str, dict[str, Estimates | Refused]]:
    """Return the estimates, or the refusal, of each outcome on each surface.

    A request counts if the log has a propensity for every candidate of the request.

    Args:
        impressions: request_id, user_id, surface, item_id, stage, propensity, and value if there is one; each item of a
            request once. They are of the requests that the policy was asked: a request without a list has an empty
            list.
        lists: request_id, item_id, best item of a request first, each item of a request once. Further columns
            ``expected_<outcome>`` are a model's expected rewards; without one, ``mean_by_cell`` of the
            ``POSITION_BUCKETS`` is the model.

    Raises:
        ValueError: a list has an item twice, or a propensity is not a probability above 0.
    """
    logs = _logs_by_surface(impressions, lists, stages)
    return {surface: each.estimates(minimum, seed) for surface, each in logs.items()}


@dataclass(frozen=True)
class _SurfaceLog:
    """The lists of one surface beside the log.

    Attributes:
        listed: every listed item of every request with propensities.
        rewards: by outcome, [listed]; 0 where the item was not proposed.
        expected: by outcome, [listed]; of the outcomes for which the lists bring a model.
        bucket: [listed] bucket of the item's position in its list.
        logged: outcome a request of all candidates that were proposed.
        left_out: requests of which a candidate has no propensity.
    """

    listed: Listed
    rewards: Mapping[str, NDArray[np.float64]]
    expected: Mapping[str, NDArray[np.float64]]
    bucket: NDArray[np.int64]
    logged: Mapping[str, Estimate]
    left_out: int

    def estimates(self, minimum: float, seed: int) -> dict[str, Estimates | Refused]:
        found = {}
        for outcome, reward in self.rewards.items():
            expected = self.expected.get(outcome)
            if expected is None:
                expected = mean_by_cell(self.listed, reward, self.bucket, seed=seed)
            found[outcome] = estimate(self.listed, reward, expected, minimum=minimum)
        return found


def _logs_by_surface(impressions: pl.DataFrame, lists: pl.DataFrame, stages: Stages) -> dict[str, _SurfaceLog]:
    twice = lists.filter(pl.struct("request_id", "item_id").is_duplicated())
    if len(twice):
        request, item = twice.select("request_id", "item_id").row(0)
        raise ValueError(f"the list of request {request} has item {item} twice: list each item once")
    ranked = lists.with_columns(rank=pl.int_range(1, pl.len() + 1).over("request_id"))
    logged, outcomes = _with_outcomes(impressions, stages)
    return {
        str(surface): _surface_log(of_surface, ranked, outcomes)
        for (surface,), of_surface in logged.sort("surface").group_by("surface", maintain_order=True)
    }


def _with_outcomes(impressions: pl.DataFrame, stages: Stages) -> tuple[pl.DataFrame, list[str]]:
    """Return the log with a column of numbers for each outcome, and the names of these columns."""
    order = {name: place for place, name in enumerate(stages.names)}
    place = pl.col("stage").replace_strict(order, return_dtype=pl.Int64)
    reached = {"delivered": stages.delivered, "clicks": stages.clicked, "conversions": stages.converted}
    columns = [(place >= stages.place(stage)).cast(pl.Float64).alias(name) for name, stage in reached.items()]
    if "value" in impressions.columns:
        columns.append(pl.col("value").cast(pl.Float64).fill_null(0.0))
    return impressions.with_columns(columns), [each.meta.output_name() for each in columns]


def _surface_log(logged: pl.DataFrame, ranked: pl.DataFrame, outcomes: Sequence[str]) -> _SurfaceLog:
    """Join the log of one surface with the lists: request_id, item_id, rank and ``expected_<outcome>``."""
    requests = (
        logged.group_by("request_id", maintain_order=True)
        .agg(pl.col("user_id").first(), is_whole=pl.col("propensity").is_not_null().all())
        .sort("request_id")
    )
    whole = requests.filter("is_whole").select("request_id", "user_id").with_row_index("request")
    user = whole["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    proposed = logged.join(whole.select("request_id", "request"), on="request_id")
    listed = (
        ranked.join(whole.select("request_id", "request"), on="request_id")
        .join(proposed.select("request_id", "item_id", "propensity", *outcomes), ["request_id", "item_id"], how="left")
        .sort("request", "rank")
    )
    everything = _of(user, proposed.with_columns(propensity=1.0))
    return _SurfaceLog(
        _of(user, listed),
        {name: _numbers(listed[name].fill_null(0.0)) for name in outcomes},
        {name: _numbers(listed[f"expected_{name}"]) for name in outcomes if f"expected_{name}" in listed.columns},
        np.searchsorted(POSITION_BUCKETS, listed["rank"].to_numpy()),
        {name: inverse_propensity(everything, _numbers(proposed[name])) for name in outcomes},
        len(requests) - len(whole),
    )


def _of(user: NDArray[np.int64], rows: pl.DataFrame) -> Listed:
    """Return rows with the columns request and propensity, which may be null, as arrays."""
    return Listed(user, rows["request"].to_numpy().astype(np.int64), _numbers(rows["propensity"]))


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    """Return a column as numbers, NaN for null."""
    return column.cast(pl.Float64).to_numpy()
