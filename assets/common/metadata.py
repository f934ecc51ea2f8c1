"""What every asset says of itself in the same way: owners, column schemas, pictures, links to MLflow."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from warehouse.column_meanings import USER_KEY, meaning
from warehouse.contracts import SCHEMAS, LandingTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA_PLATFORM = "team:data-platform"
MODELLING = "team:ads-modelling"
DIGITS = 4


def delta_schema(table: LandingTable) -> dict[str, Any]:
    """Return the contract of a landing table as Dagster's column schema."""
    schema = SCHEMAS[table]
    columns = [
        dg.TableColumn(
            name,
            str(column.dtype),
            description=meaning(table, name),
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
        )
        for name, column in schema.columns().items()
    ]
    arrived = dg.TableColumn("arrival_date", "Date", description="day on which the row arrived")
    return {"dagster/column_schema": dg.TableSchema(columns=[*columns, arrived])}


def columns(**described: str) -> dict[str, Any]:
    """Return a column schema from ``name="type: meaning"``. The column ``user_id`` needs no meaning."""
    parts = {name: text.partition(": ") for name, text in described.items()}
    if "user_id" in parts and not parts["user_id"][2]:
        parts["user_id"] = (parts["user_id"][0], ": ", USER_KEY)
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[dg.TableColumn(name, kind, description=about) for name, (kind, _, about) in parts.items()]
        )
    }


def materialized(
    metadata: Mapping[str, Any], check_results: Sequence[dg.AssetCheckResult] = ()
) -> dg.MaterializeResult:
    """Return the result of an asset, with figures as a person reads them: four digits, and no fraction of thousands."""
    checks = [
        check._replace(metadata={name: _rounded(value) for name, value in check.metadata.items()})
        for check in check_results
    ]
    return dg.MaterializeResult(
        metadata={name: _rounded(value) for name, value in metadata.items()}, check_results=checks
    )


def _rounded(value: Any) -> Any:
    """Return a number with ``DIGITS`` digits, or without a fraction where it has more before the point.

    >>> _rounded(1 / 6), _rounded(12345.678), _rounded(0.0), _rounded(7), _rounded("7.123456")
    (0.1667, 12346.0, 0.0, 7, '7.123456')
    """
    number = value.value if isinstance(value, dg.FloatMetadataValue) else value
    if not isinstance(number, float) or not math.isfinite(number) or not number:
        return value
    return round(number, max(0, DIGITS - 1 - math.floor(math.log10(abs(number)))))


def picture(figure: "Figure", description: str) -> dg.MetadataValue:
    """Return a figure for the asset's page."""
    from ml.figures.style import to_markdown_image

    return dg.MetadataValue.md(to_markdown_image(figure, description))


def preview(frame: pl.DataFrame, rows: int = 10) -> dg.MetadataValue:
    """Return the first rows as a Markdown table; cells are escaped, because titles may hold any character."""

    def cell(value: object) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")[:120]

    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.width]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.head(rows).iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def dagster_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the tags that lead from an MLflow run back to the Dagster run."""
    port = os.environ.get("ADSEQ_DAGSTER_PORT", "3000")
    return {
        "dagster_run_id": context.run_id,
        "dagster_asset": context.asset_key.to_user_string(),
        "dagster_run": f"http://127.0.0.1:{port}/runs/{context.run_id}",
    }
