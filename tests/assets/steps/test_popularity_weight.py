"""Another popularity weight needs another day, and no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assets.common.workspace import Workspace
from assets.steps.encode import index_day, read_item_embeddings, write_item_embeddings
from assets.steps.versions import item_versions
from ml.models.item_model import POPULARITY_WIDTH
from settings import Settings
from tests.assets.world import SETTINGS, copy_of
from tests.flow import DAYS, Ran


@pytest.mark.slow
def test_the_weight_of_a_run_is_in_the_embeddings_and_the_index_of_its_day(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    home, day = copy_of(ran.home, tmp_path / "home"), DAYS[-1]
    monkeypatch.setenv("ADSEQ_INDEX__POPULARITY_WEIGHT", "0.5")
    workspace = Workspace(Settings(home=home.root))
    [version] = item_versions(workspace.tables, workspace.home).all()
    ids, before = read_item_embeddings(workspace.tables, version, day)
    write_item_embeddings(workspace, version, day)
    again, after = read_item_embeddings(workspace.tables, version, day)
    assert again.equals(ids)
    np.testing.assert_array_equal(after[:, :-POPULARITY_WIDTH], before[:, :-POPULARITY_WIDTH])
    lighter, heavier = (embeddings[:, -POPULARITY_WIDTH] for embeddings in (before, after))
    assert lighter.min() < 0  # the default
    assert heavier.min() < 2 * lighter.min()
    assert not after[:, 1 - POPULARITY_WIDTH :].any()
    built = index_day(workspace, version, day)
    assert built.recall == 1.0
    assert (built.queries[:, -POPULARITY_WIDTH] == 1).all()
