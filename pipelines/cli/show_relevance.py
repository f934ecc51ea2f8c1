"""``adseq relevance report``: the relevance of the newest day as tables."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assets.steps.rater_agreement import RATER_AGREEMENT
from assets.steps.relevance_monitoring import RELEVANCE_MONITORING
from assets.steps.relevance_scrape import GAP
from ml.evaluation.report_rows import ReportRow, Segment
from pipelines.cli.summary_figures import relevance_rows
from warehouse.contracts import STAGES
from warehouse.home import Home
from warehouse.tables import Tables

MODEL_COLUMNS: Mapping[str, str] = {
    "labels": "labels",
    "ndcg@10": "ndcg@10",
    "ndcg@10_ceiling": "ceiling",
    "ece": "calibration error",
}
Figures = Mapping[tuple[Segment, str, str], ReportRow]


def show_relevance(home: Home, console: Console) -> None:
    """Print the figures of relevance; a sentence where nothing has been measured yet."""
    tables = Tables(home.tables)
    rows = relevance_rows(tables)
    if not rows:
        console.print(
            "Nothing about relevance has been measured yet. A day measures it: adseq run. Labels come from the "
            "service's page /label, or from relevance_labels in the landing zone.",
            soft_wrap=True,
        )
        return
    found = {(row.segment, row.group, row.metric): row for row in rows}
    for table in (_model(found), _gap(found), _funnel(found)):
        if table.row_count:
            console.print(table)
    for sentence in [*_raters(tables, found), *_precision(found), *_warnings(tables)]:
        console.print(escape(sentence), highlight=False, soft_wrap=True)


def _model(found: Figures) -> Table:
    """Return the measures of the relevance model by surface and content type, on labels that it had not learnt."""
    table = _table("The relevance model, on labels that it had not learnt", "Surface and type", *MODEL_COLUMNS.values())
    cells = sorted({group for segment, group, metric in found if segment is Segment.cell and metric == "ece"})
    places = [(Segment.all, "", "all"), *((Segment.cell, cell, cell.replace(".", ", ")) for cell in cells)]
    for segment, group, name in places:
        if (segment, group, "ece") in found:
            table.add_row(name, *(_value(found.get((segment, group, metric))) for metric in MODEL_COLUMNS))
    trimmed = [found.get((Segment.all, "", f"trim.label{label}_trimmed")) for label in (1, 4)]
    if all(row is not None and row.value is not None for row in trimmed):
        low, high = (row.value for row in trimmed if row is not None)
        table.caption = f"The trim drops {low:.1%} of label 1, and {high:.1%} of the relevant labels."
    return table


def _gap(found: Figures) -> Table:
    """Return production beside the holdout by surface."""
    table = _table("Production and holdout, first ten of each list", "Surface", "production", "holdout", "gap")
    for segment, group in _places(found, GAP):
        arms = (found.get((segment, group, f"fraction_relevant@10.{arm}")) for arm in ("production", "holdout"))
        table.add_row(group or "all", *map(_value, arms), _relative(found[segment, group, GAP]))
    return table


def _funnel(found: Figures) -> Table:
    """Return the fraction relevant by stage and surface."""
    first = f"fraction_relevant.{STAGES[0]}"
    places = _places(found, first)
    table = _table("Fraction relevant through the funnel", "Stage", *(group or "all" for _, group in places))
    for stage in STAGES if places else ():
        table.add_row(stage, *(_value(found.get((*place, f"fraction_relevant.{stage}"))) for place in places))
    return table


def _places(found: Figures, metric: str) -> list[tuple[Segment, str]]:
    """Return all candidates and the surfaces that have a figure."""
    surfaces = sorted(group for segment, group, name in found if segment is Segment.surface and name == metric)
    whole = [(Segment.all, "")] if (Segment.all, "", metric) in found else []
    return [*whole, *((Segment.surface, group) for group in surfaces)]


def _raters(tables: Tables, found: Figures) -> list[str]:
    disagreement = found.get((Segment.all, "", "disagreement"))
    alpha, pairs = (found.get((Segment.all, "", name)) for name in ("alpha", "rated_pairs"))
    if disagreement is None or disagreement.value is None or pairs is None or pairs.value is None:
        return []
    of_alpha = f", Krippendorff's alpha {alpha.value:.2f}" if alpha is not None and alpha.value is not None else ""
    said = [f"Raters: two raters differ on {disagreement.value:.1%} of {pairs.value:,.0f} pairs{of_alpha}."]
    day = tables.days(RATER_AGREEMENT, "day")[-1]
    for name, bias in tables.read(RATER_AGREEMENT, {"day": day}).filter("biased").select("rater_id", "bias").rows():
        said.append(f"{name} is biased: {bias:+.2f} points against the other raters of the same pairs.")
    return said


def _precision(found: Figures) -> list[str]:
    names = ("aa.within_1_percent", "aa.smallest_detectable_change", "probes")
    rows = [found.get((Segment.all, "", name)) for name in names]
    values = [row.value for row in rows if row is not None and row.value is not None]
    if len(values) < len(names):
        return []
    within, smallest, probes = values
    return [
        f"Precision: {within:.1%} of the A/A comparisons of {probes:,.0f} probes differ by 1 % at most; the smallest "
        f"change that can be detected is {smallest:.2%}."
    ]


def _warnings(tables: Tables) -> list[str]:
    from ml.relevance.monitoring import warnings_of

    days = tables.days(RELEVANCE_MONITORING, "day")
    if not days:
        return []
    watched = tables.read(RELEVANCE_MONITORING, {"day": days[-1]})
    judged = watched.filter(pl.col("bound").is_not_null()).height
    said = warnings_of(watched)
    return [f"Monitoring of {days[-1]}: {len(said)} warnings, {judged:,} figures with a bound.", *said]


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _value(row: ReportRow | None) -> str:
    if row is None or row.value is None:
        return "–"
    return f"{row.value:,.0f}" if row.metric == "labels" else f"{row.value:.4f}"


def _relative(row: ReportRow) -> str:
    if row.value is None or row.low is None or row.high is None:
        return "–"
    return f"{row.value:+.2%} ({row.low:+.2%} to {row.high:+.2%})"
