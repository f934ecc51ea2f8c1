"""Processes that share each batch come to the gradients and the network of one process."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch

from engine.engine import Engine, EngineFailed, Training
from engine.local import LocalEngine
from ml.examples.period import Prepared
from ml.models.item_model import ItemBatch
from ml.training.checkpoints import last_checkpoint
from ml.training.data_parallel import FIGURES
from ml.training.fit import fit, training_loss
from ml.training.item_task import ItemTask
from ml.training.sampling import Batches, Place, SampledBatch
from settings import Settings
from tests.ml.curve import Curve
from tests.ml.together import EPOCHS, InThisProcess, fit_all
from tests.ml.toy_task import ToyBatches, ToyTask
from tests.ml.worlds import small_settings

Weights = dict[str, torch.Tensor]
UNSEEN = {"encoder.memory.score.bias", "encoder.sequence.blocks.0.query_key_value.bias"}
"""A softmax takes a constant away: only rounding moves these (of the second, the keys' part), and at random."""


def settings_of(dropout: float, processes: int = 1) -> Settings:
    return small_settings(
        training={"batch_size": 64, "corpus_negatives": 32, "epoch_examples": 400, "processes": processes},
        model={"width": 16, "heads": 2, "layers": 1, "dropout": dropout, "content_dropout": dropout},
    )  # the dropout of the context is of the batch: it is the same in all processes


def batches_at(prepared: Prepared, place: Place) -> Batches[ItemBatch]:
    batches = ItemTask(prepared, settings_of(0.0), 15.0).batches()
    batches.place = place
    return batches


def shares_of(prepared: Prepared, processes: int) -> list[SampledBatch[ItemBatch]]:
    """The first batch as each of the processes has it."""
    return [next(iter(batches_at(prepared, Place(rank, processes)))) for rank in range(processes)]


@pytest.mark.parametrize("processes", [2, 3])
def test_the_processes_have_the_candidates_of_one_and_share_its_rows(prepared: Prepared, processes: int) -> None:
    [whole], shares = shares_of(prepared, 1), shares_of(prepared, processes)
    for share in shares:
        assert torch.equal(share.candidate_rows, whole.candidate_rows)
        assert torch.equal(share.whole_weight, whole.weight)
    assert [share.first for share in shares] == [len(whole.weight) * rank // processes for rank in range(processes)]
    assert torch.equal(torch.cat([share.weight for share in shares]), whole.weight)
    assert torch.equal(torch.cat([share.demographics for share in shares]), whole.demographics)
    assert whole.context is not None
    for field in dataclasses.fields(whole.context):
        parts = [getattr(share.context, field.name) for share in shares]
        assert torch.equal(torch.cat(parts), getattr(whole.context, field.name)), field.name
    assert max(len(share.events.lengths) for share in shares) < len(whole.events.lengths)


@pytest.mark.parametrize("processes", [2, 3, 100])
def test_the_mean_gradient_of_the_processes_is_that_of_one(prepared: Prepared, processes: int) -> None:
    """Of 100 processes, which are more than there are rows, some have none."""
    task = ItemTask(prepared, settings_of(0.0), 15.0)
    network = task.network().double()

    def gradients(batch: SampledBatch[ItemBatch]) -> list[torch.Tensor]:
        loss = training_loss(task, network, in_float64(batch))
        return [loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))]

    [whole] = [gradients(batch) for batch in shares_of(prepared, 1)]
    shared = [gradients(batch) for batch in shares_of(prepared, processes)]
    for expected, *found in zip(whole, *shared, strict=True):
        torch.testing.assert_close(torch.stack(found).mean(dim=0), expected, rtol=1e-9, atol=1e-12)


def in_float64(batch: SampledBatch[ItemBatch]) -> SampledBatch[ItemBatch]:
    def doubled(value: object) -> object:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.double()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: doubled(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return dataclasses.replace(value, **fields)
        return value

    found = doubled(batch)
    assert isinstance(found, SampledBatch)
    return found


@pytest.fixture(scope="module")
def together(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    """The networks of fits in two processes of this machine."""
    directory = tmp_path_factory.mktemp("together")
    plain, dropped = (ItemTask(prepared, settings_of(dropout, processes=2), 15.0) for dropout in (0.0, 0.3))
    LocalEngine().train(partial(fit_all, {"plain": plain, "first": dropped, "again": dropped}, directory), 2, directory)
    return {
        name: torch.load(last_checkpoint(directory / name), weights_only=True)["state_dict"]
        for name in ("plain", "first", "again", "parts")
    }


@pytest.mark.slow
def test_two_processes_come_to_the_network_of_one(
    prepared: Prepared, together: dict[str, Weights], tmp_path: Path
) -> None:
    task = ItemTask(prepared, settings_of(0.0), 15.0)
    untrained, alone = task.network(), fit(task, EPOCHS, tmp_path).network
    before, after = untrained.state_dict(), alone.state_dict()
    for name in set(after) - UNSEEN:
        apart, way = together["plain"][f"network.{name}"] - after[name], after[name] - before[name]
        assert float(apart.norm()) <= 1e-3 * float(way.norm()), name


@pytest.mark.slow
def test_two_processes_with_one_seed_come_to_one_network_to_the_bit(together: dict[str, Weights]) -> None:
    """Also if the fit was interrupted. Dropout is on: each process has its own."""
    for name, value in together["first"].items():
        assert torch.equal(together["again"][name], value), name
        assert torch.equal(together["parts"][name], value), name
    assert not all(torch.equal(together["plain"][name], value) for name, value in together["first"].items())


@dataclasses.dataclass(frozen=True)
class CountedTask(ToyTask):
    """Counts how often its batches are prepared."""

    prepared: list[int] = dataclasses.field(default_factory=list)

    def batches(self) -> ToyBatches:
        self.prepared.append(1)
        return super().batches()


def test_only_the_processes_that_train_prepare_the_batches(tmp_path: Path) -> None:
    task = CountedTask(small_settings(training={"processes": 2}))
    fit(task, 2, tmp_path, progress=False, engine=InThisProcess())
    assert len(task.prepared) == 1


class Dies(InThisProcess):
    """Loses a process behind the last epoch."""

    def train(self, training: Training, processes: int, directory: Path) -> None:
        super().train(training, processes, directory)
        raise EngineFailed


def test_the_figures_of_finished_epochs_are_logged_whatever_dies(tmp_path: Path) -> None:
    whole, parts = Curve(), Curve()
    task = ToyTask(small_settings(training={"processes": 2}))
    fit(task, 4, tmp_path / "whole", logger=whole, progress=False, engine=InThisProcess())
    assert len(whole.losses) == 4

    def fit_parts(engine: Engine, epochs: int, resume: Path | None = None) -> None:
        fit(task, epochs, tmp_path / "parts", logger=parts, progress=False, engine=engine, resume=resume)

    with pytest.raises(EngineFailed):
        fit_parts(Dies(), 2)
    assert parts.losses == whole.losses[:2]
    of_a_killed_run = f'[{{"train_loss": {whole.losses[2]}}}, 2]\n[{{"train_lo'
    (tmp_path / "parts" / FIGURES).write_text(of_a_killed_run)
    fit_parts(InThisProcess(), 4, last_checkpoint(tmp_path / "parts"))
    assert parts.losses == [*whole.losses[:3], *whole.losses[2:]]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["last.ckpt"]
