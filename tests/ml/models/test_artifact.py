"""A model on disk is the model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from ml.examples.context import subject_context
from ml.examples.period import Prepared, TrainingPeriod
from ml.features.event_log import newest
from ml.features.items import build_item_features
from ml.file_integrity import sha256_of
from ml.models.artifact import BASIS, CHECKSUMS, DESCRIPTION, WEIGHTS, ArtifactError, ModelArtifact
from ml.models.batched_forward import embed_items, embed_users, encode_states
from ml.models.tensors import CatalogueTensors
from tests.ml.worlds import instant


def embeddings(artifact: ModelArtifact, period: TrainingPeriod, prepared: Prepared) -> list[NDArray[np.float32]]:
    """States, queries and items from nothing but the artefact, the catalogue and a log."""
    log, settings = prepared.dataset.log, artifact.settings
    features = build_item_features(period.items.sort("item_id"), artifact.basis, settings.features)
    catalogue = CatalogueTensors(features)
    slices = newest(log, np.arange(log.users), log.offsets[1:], settings.sequences.length)
    states = encode_states(artifact.network, catalogue, log, slices=slices, settings=settings.inference)
    context = subject_context(np.arange(log.users) % 240, features)
    users = embed_users(
        artifact.network, catalogue, states, context=context, demographics=prepared.dataset.demographics
    )
    return [states, users, embed_items(artifact.network, catalogue, prepared.dataset.statistics.at(instant(85)))]


def test_a_saved_model_gives_the_same_embeddings(
    artifact: ModelArtifact, period: TrainingPeriod, prepared: Prepared, tmp_path: Path
) -> None:
    artifact.save(tmp_path / "model")
    loaded = ModelArtifact.load(tmp_path / "model")
    weights = loaded.network.state_dict()
    for name, value in artifact.network.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0, msg=name)
    before, after = (embeddings(each, period, prepared) for each in (artifact, loaded))
    for one, other in zip(before, after, strict=True):
        # Numbers of a state are up to 6: float32 rounds them at 5e-7, by where the weights lie in memory.
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)
    assert loaded.trained_until == artifact.trained_until
    assert loaded.event_names == artifact.event_names
    assert loaded.settings.model == artifact.settings.model
    assert loaded.settings.features == artifact.settings.features
    assert not loaded.network.training


def test_the_environment_does_not_change_a_saved_model(
    artifact: ModelArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact.save(tmp_path / "model")
    monkeypatch.setenv("ADSEQ_MODEL__WIDTH", "128")
    monkeypatch.setenv("ADSEQ_FEATURES__ADVERTISER_HASHES", "1")
    loaded = ModelArtifact.load(tmp_path / "model")
    assert loaded.settings.model == artifact.settings.model
    assert loaded.settings.features == artifact.settings.features


def test_a_model_of_the_format_before_titles_counted_loads(
    artifact: ModelArtifact, period: TrainingPeriod, prepared: Prepared, tmp_path: Path
) -> None:
    """Its shape names no text, its settings know none, and its basis has none: it answers as before."""
    artifact.save(tmp_path / "model")
    path = tmp_path / "model" / DESCRIPTION
    description = json.loads(path.read_text())
    description["format"] = 5
    assert description["shape"].pop("text") == 0  # the catalogue of the test has no titles
    del description["settings"]["features"]["text_dimensions"]
    path.write_text(json.dumps(description))
    _sign(tmp_path / "model")
    loaded = ModelArtifact.load(tmp_path / "model")
    assert loaded.basis.text.width == loaded.network.shape.text == 0
    titled = dataclasses.replace(period, items=period.items.with_columns(title=pl.col("item_id")))
    for one, other in zip(embeddings(artifact, period, prepared), embeddings(loaded, titled, prepared), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def _sign(directory: Path) -> None:
    (directory / CHECKSUMS).write_text(
        json.dumps({name: sha256_of(directory / name) for name in (WEIGHTS, DESCRIPTION, BASIS)})
    )


def test_a_setting_that_this_version_has_no_longer_is_left_out(artifact: ModelArtifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "model")
    path = tmp_path / "model" / DESCRIPTION
    description = json.loads(path.read_text())
    description["settings"]["evaluation"]["retired"] = 400
    description["settings"]["of_long_ago"] = {"any": 1}
    path.write_text(json.dumps(description))
    _sign(tmp_path / "model")
    assert ModelArtifact.load(tmp_path / "model").settings.model == artifact.settings.model


def test_saving_again_replaces_the_model_and_leaves_nothing_behind(artifact: ModelArtifact, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "left over").write_text("")
    artifact.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert written == {WEIGHTS, DESCRIPTION, BASIS, CHECKSUMS}


def test_a_failed_save_leaves_the_model_before_it(
    artifact: ModelArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact.save(tmp_path / "model")
    weights = (tmp_path / "model" / WEIGHTS).read_bytes()
    monkeypatch.setattr("ml.models.artifact.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        artifact.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / WEIGHTS).read_bytes() == weights


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, BASIS])
def test_a_missing_file_is_named(artifact: ModelArtifact, tmp_path: Path, name: str) -> None:
    artifact.save(tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(ArtifactError, match=rf"model is not a model: {name} missing. Train again"):
        ModelArtifact.load(tmp_path / "model")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere is not a model"):
        ModelArtifact.load(tmp_path / "nowhere")


def test_a_model_of_another_format_is_refused_with_what_to_do(artifact: ModelArtifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "model")
    description = json.loads((tmp_path / "model" / DESCRIPTION).read_text())
    del description["format"]  # the first format did not name itself
    (tmp_path / "model" / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(ArtifactError, match=r"model was written in format 1 .* another --home"):
        ModelArtifact.load(tmp_path / "model")
