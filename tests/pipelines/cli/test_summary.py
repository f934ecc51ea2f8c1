"""The closing table shows what the reports wrote, in the fixed order, and tolerates what is missing."""

from __future__ import annotations

import io
from datetime import date

import polars as pl
from rich.console import Console

from pipelines.cli.summary import show
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
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["contextual", "0.2500", "0.7500", "0.3125"]
    assert "item-kNN" not in text
    assert "–" in next(line for line in text.splitlines() if "popularity" in line)


def test_advertisers_have_a_table_of_their_own_once_there_is_a_report(home: Home) -> None:
    assert "Next advertiser" not in shown(home)
    found = pl.DataFrame({"model": ["advertiser_model"], "metric": ["recall@10"], "value": [0.5]})
    Tables(home.tables).write("model_metrics", found, {"report": "advertiser_recall"})
    text = shown(home)
    row = next(line for line in text.splitlines() if "│ advertiser model" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["advertiser model", "0.5000", "–", "–"]
    assert text.index("Next conversion") < text.index("Next advertiser")


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
