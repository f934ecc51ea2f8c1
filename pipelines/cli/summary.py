"""The closing table: how good each model is, what a day cost, where things lie, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ml.evaluation.model_names import ARMS, LABELS, WITHOUT_A_MODEL, AdvertiserModelName, ListArm, ModelName
from ml.evaluation.report_rows import FUNNELS, FUTURES, TRAINED_EXAMPLES, ReportRow, Segment, less
from pipelines.cli.summary_figures import report_rows
from settings import AdvertiserSettings, TrainingSettings
from warehouse.home import Home
from warehouse.item_trainings import WITHOUT_SERVICE, why_advertisers_alone
from warehouse.tables import Tables

ITEM_MODELS = tuple(model for model in ModelName if not model.needs_context)
CONTEXT_MODELS = tuple(ModelName)
NO_BASELINES = {ModelName.oracle.value, ModelName.contextual_without_context.value}
"""Models that a lead is not measured against: the truth, and our own model with the context withheld."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "recall@10": ("recall", "recall@10"),
    "recall@100": ("recall", "recall@100"),
    "diversity90": ("diversity", "diversity90"),
}
"""Column -> (report, metric) in the table ``model_metrics``."""

CONTEXT_COLUMNS: Mapping[str, tuple[str, str]] = {
    "recall@10": ("context", "recall@10"),
    "recall@100": ("context", "recall@100"),
    "diversity90": ("context", "diversity90"),
    "true relevance": ("context", "true_relevance@10"),
    "category overlap": ("context", "category_overlap@10"),
}

ADVERTISER_COLUMNS: Mapping[str, tuple[str, str]] = {
    "recall@10": ("advertiser_recall", "recall@10"),
    "recall@100": ("advertiser_recall", "recall@100"),
    "diversity90": ("advertiser_recall", "diversity90"),
}

COUNT = 100
"""From here on a figure is a count."""

MARKET_COLUMNS: Mapping[str, tuple[str, str]] = {
    "survival": ("market", "survival_rate"),
    "delivered": ("market", "delivered"),
    "only by it": ("market", "only_own"),
    "share": ("market", "share_of_impressions"),
    "relevance": ("market", "median_true_relevance"),
    "ROAS": ("market", "roas"),
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
        _show_items(tables, console)
    of_advertisers = report_rows(tables, "advertiser_recall")
    if of_advertisers:
        ours = AdvertiserModelName.advertiser_model
        table = _models(
            "Next advertiser",
            tuple(AdvertiserModelName),
            ADVERTISER_COLUMNS,
            found={"advertiser_recall": of_advertisers},
            champion=ours,
        )
        table.caption = " ".join(_verdict(of_advertisers, ours))
        console.print(table)
    days = _days(tables)
    if days is not None:
        console.print(days)
    console.print(_places(home))
    console.print("[bold]Next[/]")
    for command in [each for each in NEXT if not alone or each not in NEED_ITEMS]:
        what = NEXT[command]
        console.print(f"  {command:<36}{what}", highlight=False, soft_wrap=True)


def _show_items(tables: Tables, console: Console) -> None:
    """Print the item models without a context, then with the live context of each surface."""
    ours = ModelName.contextual
    found = {report: report_rows(tables, report) for report in ("recall", "diversity", "context")}
    table = _models("Next conversion, whole catalogue ranked", ITEM_MODELS, COLUMNS, found=found, champion=ours)
    if found["recall"]:
        table.caption = " ".join([*_verdict(found["recall"], ours), *_oracle(found["recall"])])
    console.print(table)
    for surface in dict.fromkeys(row.group for row in found["context"] if row.segment is Segment.surface):
        rows = [replace(row, segment=Segment.all, group="") for row in found["context"] if row.group == surface]
        table = _models(
            f"With the live context: {surface}", CONTEXT_MODELS, CONTEXT_COLUMNS, found={"context": rows}, champion=ours
        )
        table.caption = " ".join([*_lift(rows), *_verdict(rows, ours), *_oracle(rows)])
        console.print(table)
    _show_market(report_rows(tables, "marketplace"), console)


def _show_market(found: Sequence[ReportRow], console: Console) -> None:
    """Print the candidates of each model in the market that ran again; nothing where no market ran."""
    of_arms = [row for row in found if row.segment is Segment.surface and row.metric == "roas"]
    surfaces = list(dict.fromkeys(row.group for row in of_arms))
    for surface in surfaces:
        none = next((row.value for row in of_arms if row.model == WITHOUT_A_MODEL and row.group == surface), None)
        rows = [replace(row, segment=Segment.all, group="") for row in found if row.group == surface]
        table = _models(
            f"The market, with one model's candidates beside all others: {surface}",
            ARMS,
            MARKET_COLUMNS,
            found={"market": rows},
            champion=ModelName.contextual,
        )
        alone = [] if none is None else [f"Without any model the ROAS is {none:.4f}."]
        of_countries = found if surface == surfaces[-1] else []  # they are of all surfaces together: said once
        table.caption = " ".join([*_against_predecessor(rows, of_countries), *alone])
        console.print(table)


def _against_predecessor(rows: Sequence[ReportRow], found: Sequence[ReportRow]) -> list[str]:
    """Return sentences on the contextual model against the sequential one, whose place it takes."""
    said = {"survival_ratio": "survival", "delivered_ratio": "delivered", "relevance_ratio": "true relevance"}
    by_metric = {row.metric: row for row in rows if row.model == ModelName.contextual}
    times = [
        f"{text} × {row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
        for metric, text in said.items()
        if (row := by_metric.get(metric)) and row.value is not None and row.low is not None and row.high is not None
    ]
    lifts = [
        f"ROAS {row.value:+.2%} ({row.low:+.2%} to {row.high:+.2%}){where}"
        for row, where in [
            (by_metric.get("roas_lift"), ""),
            *((row, f" in {row.group} countries") for row in found if row.segment is Segment.country),
        ]
        if row and row.metric == "roas_lift" and row.value is not None and row.low is not None and row.high is not None
    ]
    return [f"★ against the sequential model: {', '.join([*times, *lifts])}."] if times or lifts else []


def _models(
    title: str,
    models: Sequence[ModelName | ListArm | AdvertiserModelName],
    columns: Mapping[str, tuple[str, str]],
    *,
    found: Mapping[str, Sequence[ReportRow]],
    champion: str,
) -> Table:
    """Return a table with one row for each model that a report of the columns knows.

    A column that no model has a figure for is left out, and the champion's row is marked.
    """
    values = {
        (report, row.model, row.metric): row.value
        for report, rows in found.items()
        for row in rows
        if row.segment is Segment.all
    }
    shown = {
        name: place
        for name, place in columns.items()
        if not values or any((report, metric) == place for report, _, metric in values)
    }
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("Model")
    for column in shown:
        table.add_column(column, justify="right")
    present = {model for _, model, _ in values}
    for model in models:
        if model.value in present or not present:
            cells = [values.get((report, model.value, metric)) for report, metric in shown.values()]
            is_champion = present and model.value == champion
            table.add_row(
                f"{model.label} ★" if is_champion else model.label,
                *("–" if value is None else _text(value) for value in cells),
                style="bold" if is_champion else None,
            )
    if not present:
        table.caption = "No report has run yet: adseq run"
    return table


def _text(value: float) -> str:
    """Return a count as a whole number, and a rate with four places."""
    return f"{value:,.0f}" if value >= COUNT else f"{value:.4f}"


def _verdict(rows: Sequence[ReportRow], ours: str) -> list[str]:
    """Return sentences on the lead over the strongest other model at ten; none where the lead was not measured."""
    recall = {row.model: row.value for row in rows if row.metric == "recall@10" and row.segment is Segment.all}
    others = {model: value for model, value in recall.items() if model != ours and model not in NO_BASELINES and value}
    if not others or recall.get(ours) is None:
        return []
    strongest = max(others, key=lambda model: others[model] or 0.0)
    lead = next((row for row in rows if row.metric == less(10, strongest)), None)
    if lead is None or lead.value is None or lead.low is None or lead.high is None:
        return []
    between = f"{lead.value:+.4f} ({lead.low:+.4f} to {lead.high:+.4f})"
    label = LABELS[strongest]
    if lead.low <= 0 <= lead.high:
        return [f"★ is level with the strongest other, {label}: recall@10 {between}."]
    if lead.value > 0:
        return [f"★ leads the strongest other, {label}: recall@10 {between}."]
    return [f"★ is below the strongest other, {label}: recall@10 {between}.", *_brief(rows, ours)]


def _brief(rows: Sequence[ReportRow], ours: str) -> list[str]:
    """Return a sentence where the training was shorter than the default settings allow."""
    trained = next((row.value for row in rows if row.model == ours and row.metric == TRAINED_EXAMPLES), None)
    usual = TrainingSettings() if ours == ModelName.contextual else AdvertiserSettings()
    default = usual.epochs * usual.epoch_examples
    if trained is None or trained >= default:
        return []
    return [
        f"It was trained briefly, on {trained:,.0f} examples at most; the default settings allow {default:,} "
        "(`adseq run --retrain` without the demo's settings)."
    ]


def _lift(rows: Sequence[ReportRow]) -> list[str]:
    lift = next((row for row in rows if row.metric.startswith("lift@")), None)
    if lift is None or lift.value is None or lift.low is None or lift.high is None:
        return []
    recall, between = lift.metric.replace("lift", "recall"), f"({lift.low:.2f} to {lift.high:.2f})"
    return [f"The context multiplies {recall} by {lift.value:.2f} {between}."]


def _oracle(rows: Sequence[ReportRow]) -> list[str]:
    said = {FUTURES: "futures of each user", FUNNELS: "runs of the market for each request"}
    return [
        f"The oracle has seen {row.value:,.0f} {said[row.metric]}."
        for row in rows
        if row.model == ModelName.oracle and row.metric in said and row.value
    ]


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
