"""The closing table: how good each model is, what a day cost, where things lie, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ml.evaluation.model_names import AdvertiserModelName, ModelName
from warehouse.home import Home
from warehouse.item_trainings import WITHOUT_SERVICE, why_advertisers_alone
from warehouse.tables import Tables

ITEM_MODELS = tuple(model for model in ModelName if not model.needs_context)

COLUMNS: Mapping[str, tuple[str, str]] = {
    "recall@10": ("recall", "recall@10"),
    "recall@100": ("recall", "recall@100"),
    "diversity90": ("diversity", "diversity90"),
}
"""Column -> (report, metric) in the table ``model_metrics``."""

ADVERTISER_COLUMNS: Mapping[str, tuple[str, str]] = {
    "recall@10": ("advertiser_recall", "recall@10"),
    "recall@100": ("advertiser_recall", "recall@100"),
    "diversity90": ("advertiser_recall", "diversity90"),
}


NEXT: Mapping[str, str] = {
    "make ui": "the asset graph in Dagster, the runs in MLflow",
    "make serve": "answer requests for candidates, and a page at http://127.0.0.1:8080 to ask on",
    "adseq run --landing DIR --home DIR": "the same flow on your own log",
    "adseq run --retrain": "train again on everything that has arrived",
    "adseq evaluate --help": "answer the queries of a fixed split, for an outside scorer",
    "adseq tune": "search for better settings on this log",
}


NEED_ITEMS = ("make serve", "adseq evaluate --help", "adseq tune")
"""Of these, the commands that have nothing to do in a home without an item model."""


def show(home: Home, console: Console) -> None:
    """Print the closing tables; a figure that has not been computed yet is a dash."""
    tables = Tables(home.tables)
    alone = why_advertisers_alone(tables)
    console.print()
    if alone:
        console.print(f"[yellow]{escape(alone)} {WITHOUT_SERVICE}[/]", highlight=False, soft_wrap=True)
    else:
        console.print(_models(tables, "Next conversion, whole catalogue ranked", ITEM_MODELS, COLUMNS))
    if "advertiser_recall" in {values["report"] for values in tables.partitions("model_metrics")}:
        console.print(_models(tables, "Next advertiser", tuple(AdvertiserModelName), ADVERTISER_COLUMNS))
    days = _days(tables)
    if days is not None:
        console.print(days)
    console.print(_places(home))
    console.print("[bold]Next[/]")
    for command in [each for each in NEXT if not alone or each not in NEED_ITEMS]:
        what = NEXT[command]
        console.print(f"  {command:<36}{what}", highlight=False, soft_wrap=True)


def _models(
    tables: Tables,
    title: str,
    models: Sequence[ModelName] | Sequence[AdvertiserModelName],
    columns: Mapping[str, tuple[str, str]],
) -> Table:
    """Return a table with one row for each model that a report of the columns knows."""
    values: dict[tuple[str, str, str], float] = {}
    if tables.exists("model_metrics"):
        reports = {report for report, _ in columns.values()}
        rows = tables.scan("model_metrics").filter(pl.col("report").is_in(reports)).collect()
        rows = rows.select("report", "model", "metric", "value")
        values = {(report, model, metric): value for report, model, metric, value in rows.iter_rows()}
    table = Table(title=title, title_justify="left")
    table.add_column("Model")
    for column in columns:
        table.add_column(column, justify="right")
    present = {model for _, model, _ in values}
    for model in models:
        if model.value in present or not present:
            cells = [values.get((report, model.value, metric)) for report, metric in columns.values()]
            table.add_row(model.label, *("–" if value is None else f"{value:.4f}" for value in cells))
    if not present:
        table.caption = "No report has run yet: adseq run"
    return table


def _days(tables: Tables) -> Table | None:
    """Return a table of the users inferred each day against all users; None before the first day."""
    if not tables.exists("inference_log"):
        return None
    log = tables.scan("inference_log").sort("day").tail(14).collect()
    table = Table(title="Users inferred a day", title_justify="left")
    for column in ("Day", "Inferred", "Active that day", "All users", "Share", "Seconds"):
        table.add_column(column, justify="left" if column == "Day" else "right")
    for row in log.with_columns(pl.col("day").cast(pl.String)).iter_rows(named=True):
        share = row["inferred"] / row["total"] if row["total"] else 0.0
        table.add_row(
            row["day"],
            f"{row['inferred']:,}",
            f"{row['active']:,}",
            f"{row['total']:,}",
            f"{share:.1%}",
            f"{row['seconds']:.1f}",
        )
    return table


def _places(home: Home) -> Table:
    table = Table.grid(padding=(0, 2))
    places = {
        "home": home.root,
        "landing zone": home.landing,
        "tables (Delta)": home.tables,
        "views (DuckDB)": home.views,
        "MLflow": home.tracking_uri,
        "Dagster": home.dagster,
    }
    for name, place in places.items():
        table.add_row(f"[bold]{name}[/]", escape(str(place)))
    return table
