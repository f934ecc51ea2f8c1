"""The closing table shows what the reports wrote, in the fixed order, and tolerates what is missing."""

from __future__ import annotations

import io
from datetime import date

import polars as pl
import pytest
from rich.console import Console

from ml.evaluation.report_rows import FUTURES, TRAINED_EXAMPLES, ReportRow, Segment, less, rows_frame
from pipelines.cli.last_run import record_run
from pipelines.cli.summary import show
from pipelines.cli.summary_figures import summary_figures
from warehouse.home import Home
from warehouse.tables import Tables


def shown(home: Home) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(home, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_models_come_in_the_fixed_order_with_a_dash_for_what_is_missing(home: Home) -> None:
    tables = Tables(home.tables)
    recall = pl.DataFrame(
        {
            "model": ["oracle", "contextual", "contextual", "popularity"],
            "metric": ["recall@10", "recall@10", "recall@100", "recall@10"],
            "value": [0.5, 0.25, 0.75, 0.125],
        }
    )
    tables.write("model_metrics", recall, {"report": "recall"})
    diversity = pl.DataFrame({"model": ["contextual"], "metric": ["diversity90"], "value": [0.3125]})
    tables.write("model_metrics", diversity, {"report": "diversity"})
    text = shown(home)
    assert text.index("popularity, all time") < text.index("contextual") < text.index("oracle")
    row = next(line for line in text.splitlines() if "│ contextual" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["contextual ★", "0.2500", "0.7500", "0.3125"]
    assert "item-kNN" not in text
    assert "–" in next(line for line in text.splitlines() if "popularity" in line)


def test_advertisers_have_a_table_of_their_own_once_there_is_a_report(home: Home) -> None:
    assert "Next advertiser" not in shown(home)
    found = pl.DataFrame({"model": ["advertiser_model"], "metric": ["recall@10"], "value": [0.5]})
    Tables(home.tables).write("model_metrics", found, {"report": "advertiser_recall"})
    text = shown(home)
    row = next(line for line in text.splitlines() if "│ advertiser model" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["advertiser model ★", "0.5000"]
    assert text.index("Next conversion") < text.index("Next advertiser")


def of_items(tables: Tables, lead: tuple[float, float, float], trained: float = 1e9) -> None:
    """A report in which the parts are the strongest baseline, and the oracle knows more."""
    recall = {"rule": 0.1, "parts": 0.2, "contextual": 0.2 + lead[0], "oracle": 0.9}
    rows = [ReportRow(model, "recall@10", value) for model, value in recall.items()]
    rows += [
        ReportRow("contextual", less(10, "rule"), 0.1 + lead[0], 0.0, 0.2),
        ReportRow("contextual", less(10, "parts"), *lead),
        ReportRow("contextual", TRAINED_EXAMPLES, trained),
        ReportRow("oracle", FUTURES, 320),
    ]
    tables.write("model_metrics", rows_frame(rows), {"report": "recall"})


@pytest.mark.parametrize(
    ("lead", "said"),
    [
        (
            (0.05, 0.01, 0.09),
            "★ leads the strongest other, parts without training: recall@10 +0.0500 (+0.0100 to +0.0900).",
        ),
        ((0.05, -0.01, 0.09), "★ is level with the strongest other, parts without training: recall@10 +0.0500"),
        ((-0.05, -0.09, -0.01), "★ is below the strongest other, parts without training: recall@10 -0.0500"),
    ],
)
def test_the_lead_is_over_the_strongest_baseline_and_level_is_called_level(
    home: Home, lead: tuple[float, float, float], said: str
) -> None:
    of_items(Tables(home.tables), lead)
    text = " ".join(shown(home).split())
    assert said in text
    assert "The oracle has seen 320 futures of each user." in text
    assert "trained briefly" not in text


def test_a_model_below_a_baseline_after_a_brief_training_is_said_to_be_so(home: Home) -> None:
    of_items(Tables(home.tables), (-0.05, -0.09, -0.01), trained=500)
    assert "It was trained briefly, on 500 examples at most; the default settings allow" in " ".join(
        shown(home).split()
    )


def test_each_surface_has_a_table_with_and_without_the_context(home: Home) -> None:
    rows = [
        ReportRow(model, "recall@10", value, segment=Segment.surface, group=surface)
        for surface in ("related_pins", "baskets")
        for model, value in {"rule": 0.4, "contextual_without_context": 0.1, "contextual": 0.5}.items()
    ]
    rows.append(ReportRow("contextual", "lift@10", 5.0, 4.0, 6.0, Segment.surface, "related_pins"))
    rows.append(ReportRow("contextual", less(10, "rule"), 0.1, 0.05, 0.15, Segment.surface, "related_pins"))
    Tables(home.tables).write("model_metrics", rows_frame(rows), {"report": "context"})
    text = " ".join(shown(home).split())
    assert text.count("With the live context:") == 2
    assert text.count("contextual, context withheld") == 2
    assert "The context multiplies recall@10 by 5.00 (4.00 to 6.00). ★ leads the strongest other, rule" in text
    assert summary_figures(home)["context.related_pins.withheld.recall@10"] == 0.1


def test_a_home_without_a_report_has_no_figures(home: Home) -> None:
    assert summary_figures(home) == {}
    record_run(home, 12.5)
    assert summary_figures(home) == {"run.seconds": 12.5}


def test_days_show_inferred_users_against_all(home: Home) -> None:
    log = pl.DataFrame({"inferred": [12], "active": [12], "total": [1000], "seconds": [0.25]})
    Tables(home.tables).write("inference_log", log, {"day": date(2014, 7, 20)})
    row = next(line for line in shown(home).splitlines() if "2014-07-20" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["2014-07-20", "12", "12", "1,000", "1.2%", "0.2"]


def test_it_says_where_things_lie_and_what_to_do_next(home: Home) -> None:
    text = shown(home)
    for place in (home.root, home.landing, home.views, home.tracking_uri):
        assert str(place) in text
    assert "make ui" in text
