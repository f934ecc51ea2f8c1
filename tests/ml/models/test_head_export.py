"""The exported head is the head, for any number of queries, also when it is read without adseq."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ml.examples.period import Prepared
from ml.models.head_export import QueryHead, export_head, inputs_of
from ml.models.item_model import TwoTower
from ml.training.item_task import new_network
from ml.versions.mlflow_models import log_head
from ml.versions.tracking import Tracking
from settings import Fusion, Settings

ALONE = """
import sys, numpy, torch
program = torch.export.load(sys.argv[1]).module()
for asked, found in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    inputs = numpy.load(asked)
    numpy.save(found, program(*(torch.from_numpy(inputs[name]) for name in inputs)).detach().numpy())
assert not {"ml", "settings"} & set(sys.modules)
"""

LOADED_BY_MLFLOW = """
import sys, numpy, mlflow
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ml", "settings"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
numpy.save(sys.argv[4], model.predict(dict(numpy.load(sys.argv[3]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fusion", list(Fusion))
def test_the_exported_head_gives_the_same(
    prepared: Prepared, settings: Settings, tmp_path: Path, fusion: Fusion
) -> None:
    """Of one query and of seven, read by one process: the start of a process that imports torch takes seconds."""
    settings = settings.with_value("model.fusion", fusion)
    network = new_network(prepared.dataset, settings).eval()
    export_head(network, settings.features, tmp_path / "head.pt2")
    expected, paths = {}, [str(tmp_path / "head.pt2")]
    for queries in (1, 7):
        inputs = random_inputs(network, settings, queries)
        with torch.inference_mode():
            expected[queries] = QueryHead(network)(*map(torch.from_numpy, inputs.values())).numpy()
        assert np.abs(expected[queries]).max() > 0.01
        np.savez(tmp_path / f"inputs-{queries}.npz", allow_pickle=True, **inputs)
        paths += [str(tmp_path / f"inputs-{queries}.npz"), str(tmp_path / f"found-{queries}.npy")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *paths], check=True, cwd=tmp_path)
    for queries, values in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"found-{queries}.npy"), values, atol=1e-4)


def random_inputs(network: TwoTower, settings: Settings, queries: int) -> dict[str, NDArray[Any]]:
    random, inputs = np.random.default_rng(queries), inputs_of(network, settings.features, queries)
    for name, values in inputs.items():
        if values.dtype == np.float32:
            inputs[name] = random.random(values.shape, np.float32)
        else:
            inputs[name] = random.integers(0, 2 if values.dtype == bool else 90, values.shape).astype(values.dtype)
    return inputs


@pytest.mark.slow
def test_mlflow_serves_the_head_by_its_signature(prepared: Prepared, settings: Settings, tmp_path: Path) -> None:
    network = new_network(prepared.dataset, settings).eval()
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    with tracking.run("exports", "head", {}):
        address = log_head(network, settings.features, tmp_path / "head.pt2")
    model = mlflow.pyfunc.load_model(address)
    inputs = inputs_of(network, settings.features, 3)
    assert set(model.metadata.get_input_schema().input_names()) == set(inputs)
    with torch.inference_mode():
        expected = QueryHead(network)(*map(torch.from_numpy, inputs.values())).numpy()
    np.testing.assert_allclose(model.predict(inputs), expected, atol=1e-4)
    np.savez(tmp_path / "inputs.npz", allow_pickle=True, **inputs)
    arguments = [tracking.uri, address, str(tmp_path / "inputs.npz"), str(tmp_path / "found.npy")]
    subprocess.run([sys.executable, "-I", "-c", LOADED_BY_MLFLOW, *arguments], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)
    with pytest.raises(mlflow.exceptions.MlflowException, match="state"):
        model.predict({name: values for name, values in inputs.items() if name != "state"})
