"""What a checkpoint holds beyond weights and optimiser, so that a resumed fit equals one never interrupted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

LAST = "last"


class RandomStates(Callback):
    """Every global random state, kept in the checkpoint and put back from it.

    Lightning keeps none: a resumed fit would draw other dropout masks.
    """

    def state_dict(self) -> dict[str, Any]:
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 - the global one is what others may use
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Before Lightning makes the iterator of the next epoch, which draws from torch, as it did after the saving.
        random.setstate(state_dict["python"])
        np.random.set_state(state_dict["numpy"])  # noqa: NPY002
        torch.set_rng_state(state_dict["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict["cuda"])


def newest_epoch(directory: Path) -> ModelCheckpoint:
    """Keeps the end of the newest epoch as ``last_checkpoint(directory)``. To stand behind all other callbacks, whose
    state it saves."""
    return ModelCheckpoint(directory, filename=LAST, save_top_k=1, enable_version_counter=False)


def last_checkpoint(directory: Path) -> Path:
    """Where a fit in ``directory`` keeps the end of its newest epoch."""
    return directory / f"{LAST}.ckpt"


def check_resumable(resume: Path, made_under: Mapping[str, Any]) -> None:
    """Refuse to go on with a fit that was another one.

    Args:
        made_under: what the fit depends on, by name; kept in the checkpoint under the key ``fit``.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it was made under other settings; names them.
    """
    if not resume.exists():
        raise FileNotFoundError(
            f"no checkpoint to resume from at {resume}: there is one after the first epoch. Fit from the start."
        )
    before = torch.load(resume, map_location="cpu", weights_only=False).get("fit", {})
    differing = [
        f"{name} {before.get(name)} (now {value})" for name, value in made_under.items() if before.get(name) != value
    ]
    if differing:
        raise ValueError(f"{resume} is of a fit under other settings: {', '.join(differing)}. Fit from the start.")
