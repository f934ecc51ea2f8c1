"""What every asset says of itself in the same way: owners, column schemas, pictures, links to MLflow."""

import os
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from warehouse.contracts import SCHEMAS, LandingTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA_PLATFORM = "team:data-platform"
MODELLING = "team:ads-modelling"


def delta_schema(table: LandingTable) -> dict[str, Any]:
    """Return the contract of a landing table as Dagster's column schema."""
    schema = SCHEMAS[table]
    columns = [
        dg.TableColumn(name, str(column.dtype), constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)))
        for name, column in schema.columns().items()
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=[*columns, dg.TableColumn("arrival_date", "Date")])}


def columns(**described: str) -> dict[str, Any]:
    """Return a column schema from ``name="type: meaning"``."""
    parts = {name: text.partition(": ") for name, text in described.items()}
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[dg.TableColumn(name, kind, description=about) for name, (kind, _, about) in parts.items()]
        )
    }


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
