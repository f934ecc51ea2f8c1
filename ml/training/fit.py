"""Lightning training of the two-tower model, with early stopping on a temporal validation slice."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from multiprocessing import current_process, parent_process
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ml.evaluation.metrics import evaluate, usable_ks
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import Asked
from ml.examples.period import Prepared
from ml.features.dataset import Dataset
from ml.models.encoders import ModelShape
from ml.models.item_model import TwoTower
from ml.models.tensors import to_device
from ml.training.batches import TrainingBatch, TrainingBatches
from ml.training.checkpoints import RandomStates, check_resumable, newest_epoch
from ml.training.loss import batch_loss
from settings import Settings, TrainingSettings

VALIDATION_KS = (10, 100)
WARM_UP_SHARE = 0.05
FIT_GROUPS = ("sequences", "features", "examples", "context", "model", "training")  # settings that a fit depends on


@dataclass(frozen=True)
class Course:
    """How a training went."""

    best_epoch: int  # epochs until the best validation, or all of them without validation
    best_validation: float  # nan without validation
    metric: str  # name of the validation's figure; empty without validation
    seconds: float
    sequences_per_second: float
    waiting_share: float  # share of the time spent waiting for batches


@dataclass(frozen=True)
class Fit(Course):
    """A trained network and how the training went."""

    network: TwoTower


def new_network(dataset: Dataset, settings: Settings) -> TwoTower:
    """An untrained network of the right shape, the same for the same seed, that knows the scale of the statistics as
    of the log's end."""
    torch.manual_seed(settings.training.seed)
    basis, statistics = dataset.basis, dataset.statistics
    shape = ModelShape(basis.graph_width, basis.given_width, statistics.width, settings.sequences.length)
    network = TwoTower(shape, settings.model, settings.features, settings.training.temperature)
    listed = statistics.listed(dataset.log.end)
    network.item_tower.standardise.learn(torch.from_numpy(statistics.at(dataset.log.end)[listed]))
    return network


def training_loss(network: TwoTower, batch: TrainingBatch, settings: TrainingSettings, items: int) -> Tensor:
    """The sampled softmax of one batch. ``items``: catalogue size, for the keys of accidental hits."""
    states = torch.cat([network.encoder(chunk) for chunk in batch.chunks])[batch.state_of_row]
    users = network.head(states, batch.context, batch.demographics)
    scores = users @ network.item_tower(batch.candidates).T
    return batch_loss(scores, network.temperature, batch, settings, items, batch.corpus)


def validation_metric(validation: Asked) -> str:
    """Return the name of the figure that chooses the epochs: recall at 100, or at the largest K that says something
    about a smaller catalogue."""
    return f"validation_recall_at_{max(usable_ks(VALIDATION_KS, len(validation.queries.candidates)))}"


class RetrievalModule(lightning.LightningModule):
    """Optimisation of a network; its loss and its validation are those of the subclass."""

    def __init__(self, network: nn.Module, settings: Settings, steps: int) -> None:
        super().__init__()
        self.network, self.settings, self.steps = network, settings, steps

    def configure_optimizers(self) -> Any:
        training = self.settings.training
        optimizer = torch.optim.AdamW(self.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
        steps = max(2, self.steps)
        # A warm-up of exactly one step would divide by zero in the schedule.
        warm_up = max(WARM_UP_SHARE, 1.5 / steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.learning_rate, total_steps=steps, pct_start=warm_up
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def depends_on(self) -> dict[str, Any]:
        """What a checkpoint of this fit may not be resumed without, by name."""
        settings = {name: value for name, value in self.settings.flat().items() if name.split(".")[0] in FIT_GROUPS}
        return {**settings, "steps": self.steps}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["fit"] = self.depends_on()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        return to_device(batch, device) if dataclasses.is_dataclass(batch) else batch


class TwoTowerModule(RetrievalModule):
    """The loss of a ``TwoTower`` and its validation recall."""

    network: TwoTower

    def __init__(
        self, network: TwoTower, dataset: Dataset, settings: Settings, validation: Asked | None, steps: int
    ) -> None:
        super().__init__(network, settings, steps)
        self.validation, self.items = validation, len(dataset.features)

    def training_step(self, batch: TrainingBatch, _: int) -> Tensor:
        loss = training_loss(self.network, batch, self.settings.training, self.items)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.weight))
        self.log("temperature", self.network.temperature, batch_size=len(batch.weight))
        return loss

    def validation_step(self, _batch: Any, _: int) -> None:
        assert self.validation is not None
        queries, size = self.validation.queries, len(self.validation.queries.candidates)
        lists = trained_lists(self.network, self.validation, self.settings, 100)
        metrics = evaluate(lists, queries.positives, size, ks=usable_ks(VALIDATION_KS, size))
        self.log("validation_diversity90", metrics.diversity90, batch_size=1)
        decisive = validation_metric(self.validation)
        for k, recall in metrics.recall.items():
            name = f"validation_recall_at_{k}"
            self.log(name, recall, prog_bar=name == decisive, batch_size=1)


class Epochs(Protocol):
    """Batches of an epoch whose order depends on ``epoch``. A batch has a ``weight`` a row."""

    epoch: int

    def __len__(self) -> int: ...


class StepClock(Callback):
    """Counts sequences and the time between steps, in which the loop waits for data; moves the epoch's shuffle on."""

    def __init__(self, batches: Epochs) -> None:
        self.batches = batches
        self.sequences, self.waiting, self.busy = 0, 0.0, 0.0
        self._mark = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.batches.epoch = trainer.current_epoch
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        self.waiting += now - self._mark
        self._mark = now

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        self.busy += now - self._mark
        self.sequences += len(batch.weight)
        self._mark = now


class EpochLines(Callback):
    """A line an epoch, where there is no terminal to draw a progress bar on."""

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(figures.items()))
        epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        whose = "" if parent_process() is None else f"{current_process().name}: "  # several fits share the terminal
        print(f"    {whose}{epoch}: {shown}", file=sys.stderr, flush=True)


def _quiet_lightning() -> None:
    """Lightning's start-up lines and advice would bury the progress of a run; its warnings stay, but for those that
    describe what is done here on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*`IterableDataset` has `__len__` defined.*",
        ".*defined a `validation_step` but have no `val_dataloader`.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", message)


def fit(
    prepared: Prepared,
    settings: Settings,
    window_days: float,
    epochs: int,
    directory: Path,
    validation: Asked | None = None,
    logger: Logger | None = None,
    progress: bool = True,
    resume: Path | None = None,
) -> Fit:
    """Train for ``epochs``, or until the validation recall of ``validation`` stops rising.

    With ``validation`` the returned network is that of the best epoch. Checkpoints go to ``directory``: that of the
    newest epoch to ``ml.training.checkpoints.last_checkpoint(directory)``.

    Args:
        resume: the newest epoch's checkpoint of a fit in ``directory`` that was interrupted, under the same data,
            settings and epochs. The result is then that of a fit never interrupted, to the bit on one thread; speeds
            are of the resumed part.

    Raises:
        ValueError: there is no example to learn from, or ``resume`` is of a fit under other settings.
        FileNotFoundError: there is no checkpoint at ``resume``.
    """
    dataset = prepared.dataset
    if not len(prepared.examples):
        raise ValueError(
            "no training example: no user has events before a cut-off and a positive after it. Check the manifest's "
            "positive_events and prediction_window_days against the log."
        )
    lightning.seed_everything(settings.training.seed, verbose=False)
    batches = TrainingBatches(prepared, settings, window_days)
    network = new_network(dataset, settings)
    module = TwoTowerModule(network, dataset, settings, validation, epochs * len(batches))
    monitor = validation_metric(validation) if validation is not None else None
    course = optimise(module, batches, epochs, directory, monitor, logger, progress, resume)
    return Fit(**vars(course), network=network.cpu().eval())


def optimise(
    module: RetrievalModule,
    batches: Epochs,
    epochs: int,
    directory: Path,
    monitor: str | None = None,
    logger: Logger | None = None,
    progress: bool = True,
    resume: Path | None = None,
) -> Course:
    """Train the module's network for ``epochs``, or until ``monitor``, a metric that its validation logs, stops rising.

    With ``monitor`` the network is left with the weights of the best epoch. ``directory`` and ``resume``: see ``fit``.
    """
    _quiet_lightning()
    if resume:
        check_resumable(resume, module.depends_on())
    clock, best_of_all = StepClock(batches), ModelCheckpoint(directory, monitor=monitor, mode="max")
    callbacks: list[Callback] = [clock, RandomStates()]
    if monitor:
        stopping = EarlyStopping(monitor, mode="max", patience=module.settings.training.patience)
        callbacks += [stopping, best_of_all]
    callbacks.append(newest_epoch(directory))
    drawn = progress and sys.stderr.isatty() and parent_process() is None
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10) if drawn else EpochLines())
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        callbacks=callbacks,
        logger=logger or False,
        default_root_dir=directory,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(20, len(batches))),
        enable_progress_bar=drawn,
        enable_model_summary=False,
    )
    started = time.perf_counter()
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    once: DataLoader[int] = DataLoader([0], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, once if monitor else None, ckpt_path=resume, weights_only=True)
    seconds = time.perf_counter() - started
    best_epoch, best = epochs, float("nan")
    if monitor and best_of_all.best_model_path:
        saved = torch.load(best_of_all.best_model_path, weights_only=True)
        module.load_state_dict(saved["state_dict"])
        best_epoch = int(saved["epoch"]) + 1
        best = float("nan") if best_of_all.best_model_score is None else float(best_of_all.best_model_score)
    return Course(
        best_epoch=best_epoch,
        best_validation=best,
        metric=monitor or "",
        seconds=seconds,
        sequences_per_second=clock.sequences / max(clock.busy + clock.waiting, 1e-9),
        waiting_share=clock.waiting / max(clock.busy + clock.waiting, 1e-9),
    )
