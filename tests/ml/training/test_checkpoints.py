"""What a checkpoint may hold: nothing in it runs when it is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from ml.examples.period import Prepared
from ml.training.checkpoints import check_resumable, load_own
from ml.training.fit import Fit
from ml.training.item_task import new_network
from ml.versions.work_directory import ENDED, ended_fit, fitted_once
from settings import Settings, UserEncoder


class Evil:
    """Makes a directory when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.made),)


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A checkpoint that makes ``made`` beside itself, where it is trusted."""
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 1, "fit": Evil(tmp_path / "made")}, path)
    return path


def test_a_checkpoint_runs_no_code(evil: Path) -> None:
    for read in (load_own, lambda path: check_resumable(path, {})):
        with pytest.raises(pickle.UnpicklingError):
            read(evil)
    assert not (evil.parent / "made").exists()
    torch.load(evil, weights_only=False)
    assert (evil.parent / "made").exists()


def test_a_training_goes_on_from_nothing_that_asks_for_code(evil: Path) -> None:
    """It begins anew, as from half a file."""
    evil.rename(evil.parent / ENDED)
    assert fitted_once(evil.parent, lambda *_: "fitted") == "fitted"
    assert not (evil.parent / "made").exists()


def test_a_fit_that_may_not_be_read_back_is_named(evil: Path) -> None:
    """Not as a fit that has never ended."""
    with pytest.raises(pickle.UnpicklingError):
        ended_fit(evil.rename(evil.parent / ENDED).parent)
    with pytest.raises(FileNotFoundError):
        ended_fit(evil.parent / "nowhere")


@pytest.mark.parametrize("encoder", list(UserEncoder))
def test_a_fit_that_has_ended_is_read_back(
    prepared: Prepared, settings: Settings, tmp_path: Path, encoder: UserEncoder
) -> None:
    network = new_network(prepared.dataset, settings.with_value("model.encoder", encoder)).eval()
    fit = Fit(
        epochs=2,
        validation=0.5,
        seconds=1.0,
        sequences_per_second=2.0,
        waiting_share=0.1,
        metric="validation_recall_at_100",
        network=network,
    )
    fitted_once(tmp_path / "fit", lambda *_: fit)
    again: Fit[torch.nn.Module] = fitted_once(tmp_path / "fit", lambda *_: pytest.fail("it had ended"))
    assert isinstance(again, Fit)
    assert again.epochs == 2
    assert all(torch.equal(value, again.network.state_dict()[name]) for name, value in network.state_dict().items())
