"""The lists for logged requests hold only what the requests could have shown."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.comparison import newest_comparison
from assets.steps.contextual_answers import contextual_answers
from settings import Settings
from tests.assets.world import SETTINGS, copy_of
from tests.flow import Ran


@pytest.mark.slow
def test_no_list_of_the_context_report_holds_an_item_without_an_ad(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    workspace = Workspace(Settings(home=copy_of(ran.home, tmp_path / "home").root))
    answers = contextual_answers(workspace, newest_comparison(workspace))
    assert answers is not None
    country = ran.tables.scan("users").select("user_id", "country").unique("user_id").collect()
    requests = answers.evaluation.requests.join(country, on="user_id", how="left")
    ads = ran.tables.scan("ads").filter(pl.col("arrival_date") == pl.col("arrival_date").min()).collect()
    here = pl.col("countries").is_null() | pl.col("country").is_null() | pl.col("country").is_in(pl.col("countries"))
    runs = (pl.col("status") == "active") & pl.col("request_time").is_between("starts", "ends", closed="left")
    shown = requests.join(ads, how="cross").filter(runs & here).select("request_id", "item_id").unique()
    for model in answers.lists:
        proposed = answers.proposals(model, 100)
        assert len(proposed) > 10 * len(requests) or model == "item_knn", model
        if model != "oracle":  # that knows of an ad that was paused only after the request
            assert proposed.join(shown, on=["request_id", "item_id"], how="anti").is_empty(), model
