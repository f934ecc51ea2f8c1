"""A logger that holds what it is given."""

from __future__ import annotations

from lightning.pytorch.loggers.logger import DummyLogger


class Curve(DummyLogger):
    """Holds the losses of a fit."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.losses += [metrics["train_loss"]] if "train_loss" in metrics else []
