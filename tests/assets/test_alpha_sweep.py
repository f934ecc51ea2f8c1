"""The sweep runs on an ingested history alone, beside whatever serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml.versions.tracking import SWEEPS, Tracking
from tests.assets.world import TRAINED, Step, execute
from warehouse.home import Home
from warehouse.landing import Landing

SWEEP = {"sweep": {"alphas_positive": [0.0], "alphas_negative": [0.5, 1.0], "epochs": 1}}


@pytest.mark.slow
def test_a_sweep_reports_its_points_and_serves_nothing(landing: Landing, tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    home.use_landing(landing.root)
    _, swept = execute(home, [Step("bootstrap", assets=["history"]), Step("sweep", settings=SWEEP)])
    told = swept["alpha_sweep"]
    assert told["best_alpha_negative"] in (0.5, 1.0)
    assert 0 < told["best_recall"] <= 1
    assert told["points"].count("\n") == 3
    assert told["front"].startswith("![Recall@100 against diversity90](data:image/png;base64,")
    tracking = Tracking(home.tracking_uri, home.artifacts)
    runs = {run.info.run_name: run for run in tracking.client.search_runs([tracking.experiment(SWEEPS)])}
    assert set(runs) == {f"alpha_sweep {TRAINED}", "alpha 0 / 0.5", "alpha 0 / 1"}
    assert runs[f"alpha_sweep {TRAINED}"].data.tags["dagster_asset"] == "alpha_sweep"
    assert runs[f"alpha_sweep {TRAINED}"].info.run_id in told["mlflow_run"]
    assert tracking.champion() is None
    assert list(home.models.iterdir()) == []
