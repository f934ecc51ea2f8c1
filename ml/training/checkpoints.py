"""The part of a checkpoint beyond weights and optimiser, so that a resumed fit equals one never interrupted."""

from __future__ import annotations

import importlib
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ml.training.data_parallel import every_process, seed_of_process

LAST = "last"
OWN_PACKAGES = ("ml", "settings")  # whose classes a file of a training may hold


class RandomStates(Callback):
    """Every global random state of every process, kept in the checkpoint and put back from it.

    Lightning keeps no random state: without this callback, a resumed fit would draw other dropout masks.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.rank = seed, 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        # Lightning has just given all processes one seed, and would load a checkpoint next.
        self.rank = trainer.global_rank
        seed_of_process(self.seed, self.rank)

    def state_dict(self) -> dict[str, Any]:
        return {"by_rank": every_process(self._own())}  # Lightning asks all processes, and the first one writes

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Before Lightning makes the iterator of the next epoch, which draws from torch, as it did after the saving.
        self._put_back(state_dict["by_rank"][self.rank])

    def _own(self) -> dict[str, Any]:
        name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global one is what others may use
        return {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _put_back(self, state_dict: dict[str, Any]) -> None:
        random.setstate(state_dict["python"])
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state_dict["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict["cuda"])


def load_own(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote of objects of this project: weights, settings, networks; nothing else.

    A file may ask for classes of ``ml``, ``settings`` and ``torch.nn``. If the file asks for anything else, the reading
    ends before any of that runs.

    Raises:
        pickle.UnpicklingError: the file asks for anything else, or is not whole.
        OSError, EOFError, RuntimeError, AttributeError, ImportError: the file is missing, damaged, or of other code.
    """
    try:
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError as error:  # half of a file, or none that torch wrote
        raise pickle.UnpicklingError(f"{path} is no whole file of torch.save: {error}") from error
    own: list[Any] = [
        _class_of(name) for name in asked if name.split(".")[0] in OWN_PACKAGES or name.startswith("torch.nn.")
    ]
    with torch.serialization.safe_globals(own):
        return torch.load(path, map_location="cpu", weights_only=True)


def _class_of(name: str) -> type:
    """Return the class of a dotted name.

    Raises:
        pickle.UnpicklingError: the name is not the name of a class.
    """
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, type):
        raise pickle.UnpicklingError(f"{name} is not a class")
    return found


def newest_epoch(directory: Path) -> ModelCheckpoint:
    """Return the callback that keeps the end of the newest epoch as ``last_checkpoint(directory)``.

    The callback has to stand behind all other callbacks, because this one saves their state.
    """
    return ModelCheckpoint(directory, filename=LAST, save_top_k=1, enable_version_counter=False)


def last_checkpoint(directory: Path) -> Path:
    """Return the path at which a fit in ``directory`` keeps the end of its newest epoch."""
    return directory / f"{LAST}.ckpt"


def check_resumable(resume: Path, made_under: Mapping[str, Any]) -> None:
    """Raise an error if the checkpoint is of a fit under other settings.

    Args:
        made_under: settings that the fit depends on, by name; kept in the checkpoint under the key ``fit``.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint was made under other settings, which the message names.
        pickle.UnpicklingError: the checkpoint holds more than weights, numbers and texts.
    """
    if not resume.exists():
        raise FileNotFoundError(
            f"no checkpoint to resume from at {resume}: there is one after the first epoch. Fit from the start."
        )
    before = torch.load(resume, map_location="cpu", weights_only=True).get("fit", {})
    differing = [
        f"{name} {before.get(name)} (now {value})" for name, value in made_under.items() if before.get(name) != value
    ]
    if differing:
        raise ValueError(f"{resume} is of a fit under other settings: {', '.join(differing)}. Fit from the start.")
