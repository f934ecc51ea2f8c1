"""Lightning training of any retrieval model, with validation on a temporal slice after each epoch.

A model is a ``Task``: its examples and batches, the logits of candidates, and the validation of the network.

The learning rate rises during the first half of an epoch and then stays. The network that is validated, kept and
returned is an average of the weights: of step t, with the weight of a step rising like its number to the power of
``AVERAGING_POWER`` (polynomial-decay averaging; Shamir & Zhang, 2013, "Stochastic Gradient Descent for Non-smooth
Optimization"). Neither knows when the training will end, so the network after e epochs is the same however many follow.
The recall of the average rises from epoch to epoch and then stays. A number of epochs that is large enough is therefore
right for every log, and none is chosen (docs/experiments.md).

``training.processes`` processes share each batch: one is this process, several are run by an engine
(``ml.training.data_parallel``).
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process, parent_process
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from engine.engine import Engine, Member
from engine.local import LocalEngine
from ml.evaluation.metrics import Metrics, mlflow_name
from ml.models.tensors import to_device
from ml.training.checkpoints import RandomStates, check_resumable, last_checkpoint, newest_epoch
from ml.training.data_parallel import Recorded, leave, train_together
from ml.training.loss import batch_loss, block_logit
from ml.training.sampling import Block, Place, SampledBatch
from settings import Settings, TrainingSettings

VALIDATION_KS = (10, 100)
VALIDATION_DEPTH = max(VALIDATION_KS)
WARM_UP_SHARE = 0.5  # of an epoch
AVERAGING_POWER = 8  # the newest tenth of the steps has about half of the weight
FIT_GROUPS = ("sequences", "features", "examples", "context", "model", "training")  # settings that a fit depends on

ALONE = Member(rank=0, processes=1, options=lambda: {"accelerator": "auto", "devices": 1})

NetworkType = TypeVar("NetworkType", bound=nn.Module)


class Epochs(Protocol):
    """Batches of an epoch whose order depends on ``epoch``, with the rows of the process at ``place``."""

    epoch: int
    place: Place

    def __len__(self) -> int: ...


class Task(Protocol[NetworkType]):
    """A model to be trained: another model is another task and another network."""

    @property
    def settings(self) -> Settings:
        """Return the settings that the model is trained under."""

    @property
    def candidates(self) -> int:
        """Return how many candidates there are at all, for the keys of accidental hits."""

    @property
    def monitor(self) -> str | None:
        """Return the name of the validation's main figure; None without validation."""

    def network(self) -> NetworkType:
        """Return an untrained network with a ``temperature``, the same for the same seed."""

    def batches(self) -> Epochs:
        """Return the batches of an epoch, each a ``SampledBatch``."""

    def users(self, network: NetworkType, batch: SampledBatch[Any]) -> Tensor:
        """Return the embeddings of the rows of a batch, over the temperature [R, W]."""

    def scores(self, network: NetworkType, users: Tensor, candidates: Any) -> Tensor:
        """Return the scores of candidates for the rows of a batch [R, candidates].

        Args:
            users: as ``users`` returns them. candidates: their features.
        """

    def validate(self, network: NetworkType) -> Metrics:
        """Return the figures of the network on the validation slice."""


def monitored(k: int) -> str:
    """Return the name under which Lightning and MLflow know recall@k on the validation slice."""
    return mlflow_name(f"validation_recall@{k}")


@dataclass(frozen=True)
class FitSummary:
    """Result and speed of a training."""

    epochs: int
    validation: float  # the main figure after the last epoch; nan without validation
    metric: str  # name of that figure; empty without validation
    seconds: float
    sequences_per_second: float
    waiting_share: float  # share of the time spent waiting for batches


@dataclass(frozen=True)
class Fit(FitSummary, Generic[NetworkType]):
    """A trained network, and the summary of its training."""

    network: NetworkType


def training_loss(task: Task[NetworkType], network: NetworkType, batch: SampledBatch[Any]) -> Tensor:
    """Return the sampled softmax of one batch; the mean over the processes is that of all rows."""
    users, settings = task.users(network, batch), task.settings.training
    logits = task.scores(network, users, batch.candidates)

    def of_block(block: Block[Any], users: Tensor) -> Tensor:
        scores = task.scores(network, users, to_device(block.features(), users.device))
        return block_logit(scores, block, batch, settings=settings, candidates=task.candidates, corpus=batch.corpus)

    # The scores of a block are not kept for the gradient, but made again.
    found = [checkpoint(of_block, block, users, use_reentrant=False) for block in batch.blocks]
    return batch_loss(
        logits,
        batch,
        settings=settings,
        candidates=task.candidates,
        corpus=batch.corpus,
        of_blocks=torch.stack(found, dim=1) if found else None,
    )


def optimizer_of(network: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a network's parameters."""
    return torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )


class RetrievalModule(lightning.LightningModule, Generic[NetworkType]):
    """Optimisation of the network of a task."""

    def __init__(self, task: Task[NetworkType], network: NetworkType, warm_up: int) -> None:
        super().__init__()
        self.task, self.network, self.warm_up = task, network, warm_up

    def __deepcopy__(self, memo: dict[int, Any]) -> RetrievalModule[NetworkType]:
        # For the average of the weights. The data are the same, and too large to copy.
        return RetrievalModule(self.task, copy.deepcopy(self.network, memo), self.warm_up)

    def training_step(self, batch: SampledBatch[Any], _: int) -> Tensor:
        loss = training_loss(self.task, self.network, batch)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.weight), sync_dist=batch.processes > 1)
        self.log("temperature", cast(Tensor, self.network.temperature), batch_size=len(batch.weight))
        return loss

    def validation_step(self, _batch: Any, _: int) -> None:
        metrics = self.task.validate(self.network)
        self.log("validation_diversity90", metrics.diversity90, batch_size=1)
        for k, recall in metrics.recall.items():
            name = monitored(k)
            self.log(name, recall, prog_bar=name == self.task.monitor, batch_size=1)

    def configure_optimizers(self) -> Any:
        training = self.task.settings.training
        optimizer = optimizer_of(self, training)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warm_up))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def depends_on(self) -> dict[str, Any]:
        """Return, by name, the settings and the steps of the warm-up: a fit that resumes a checkpoint has the same."""
        settings = {
            name: value
            for name, value in self.task.settings.flat().items()
            if name.split(".")[0] in FIT_GROUPS and name != "training.fits_at_once"
        }
        return {**settings, "warm_up_steps": self.warm_up}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["fit"] = self.depends_on()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        return to_device(batch, device) if dataclasses.is_dataclass(batch) else batch


class AverageOfSteps(WeightAveraging):
    """Averages the weights of all steps; the text of the module gives the weight of a step."""

    def __init__(self) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=_average)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        pl_module.to(trainer.strategy.root_device)  # Lightning would move it later, and leave the average behind
        super().setup(trainer, pl_module, stage)


def _average(averages: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
    """Take one more step into the averages. ``steps``: that they hold already."""
    weight = (AVERAGING_POWER + 1) / (int(steps) + 1 + AVERAGING_POWER)
    for average, value in zip(averages, current, strict=True):
        average.lerp_(value, weight)


class StepClock(Callback):
    """Counts sequences of all processes, and the time between steps, in which the loop waits for data.

    It also sets the shuffle's epoch.
    """

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
        self.sequences += len(batch.whole_weight)
        self._mark = now


class EpochLines(Callback):
    """Prints a line an epoch, where there is no terminal for a progress bar.

    Attributes:
        whose: the first words of a line; several fits share the terminal.
    """

    def __init__(self, whose: str) -> None:
        self.whose = whose

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(figures.items()))
        epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        print(f"    {self.whose}{epoch}: {shown}", file=sys.stderr, flush=True)


def _whose() -> str:
    """Return the first words of the lines of this process: a worker's name."""
    return "" if parent_process() is None else f"{current_process().name}: "


def _quiet_lightning() -> None:
    """Silence the start-up lines and the advice of Lightning, which would bury the progress of a run.

    Warnings of Lightning stay, except for those about choices that are made here on purpose.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*`IterableDataset` has `__len__` defined.*",
        ".*defined a `validation_step` but have no `val_dataloader`.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*`broadcast_buffers` is deprecated.*",  # its successor comes with torch 2.13
        ".*It is recommended to use `self.log.*",  # of the validation, which every process makes
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", message)


def fit(
    task: Task[NetworkType],
    epochs: int,
    directory: Path,
    *,
    logger: Logger | None = None,
    progress: bool = True,
    resume: Path | None = None,
    engine: Engine | None = None,
) -> Fit[NetworkType]:
    """Train for ``epochs``; where the task has a validation, its figures are logged after each epoch.

    Checkpoints go to ``directory``; the checkpoint of the newest epoch is
    ``ml.training.checkpoints.last_checkpoint(directory)``.

    Args:
        resume: the newest epoch's checkpoint of a fit in ``directory`` that was interrupted, under the same data and
            settings. The result then equals that of a fit never interrupted, to the bit on one thread; speeds are those
            of the resumed part.
        engine: runs the processes, where ``training.processes`` is not 1; None: this machine.

    Raises:
        ValueError: there is no example to learn from, or ``resume`` is of a fit under other settings.
        NothingToLearn: the log has no example for this task.
        FileNotFoundError: there is no checkpoint at ``resume``.
        Exception: one of several processes raised it, or was killed.
    """
    processes, lines = task.settings.training.processes, _whose() if progress else None
    if processes == 1:
        module, batches = _prepared(task, resume)
        summary = _optimise(module, batches, epochs, directory=directory, logger=logger, lines=lines, resume=resume)
        return Fit(**vars(summary), network=module.network.cpu().eval())
    training = partial(take_part, task, epochs, directory=directory.resolve(), lines=lines, resume=resume)
    engine = engine or LocalEngine()
    found = train_together(engine, training, processes=processes, directory=directory, logger=logger)
    module = RetrievalModule(task, task.network(), warm_up=1)
    return Fit(**found, network=_averaged(module, directory).network.eval())


def _prepared(task: Task[NetworkType], resume: Path | None) -> tuple[RetrievalModule[NetworkType], Epochs]:
    """Return the untrained module and the batches of a task, the same in every process."""
    lightning.seed_everything(task.settings.training.seed, verbose=False)
    batches = task.batches()
    module = RetrievalModule(task, task.network(), max(1, round(WARM_UP_SHARE * len(batches))))
    if resume:
        check_resumable(resume, module.depends_on())
    return module, batches


def take_part(
    task: Task[Any], epochs: int, member: Member, *, directory: Path, lines: str | None, resume: Path | None
) -> None:
    """Train as one of several processes; the first one leaves the result."""
    module, batches = _prepared(task, resume)
    batches.place = Place(member.rank, member.processes)
    logger, lines = Recorded(directory), None if member.rank else lines
    summary = _optimise(
        module, batches, epochs, directory=directory, logger=logger, lines=lines, resume=resume, member=member
    )
    if member.rank == 0:
        leave(directory, vars(summary))


def _optimise(
    module: RetrievalModule[NetworkType],
    batches: Epochs,
    epochs: int,
    *,
    directory: Path,
    logger: Logger | None,
    lines: str | None,
    resume: Path | None,
    member: Member = ALONE,
) -> FitSummary:
    """Train the module's network; at the end the average takes the place of its weights.

    Args:
        lines: the first words of a line of progress; None: there is no progress. member: this process, among several.
    """
    _quiet_lightning()
    monitor = module.task.monitor
    clock, states = StepClock(batches), RandomStates(module.task.settings.training.seed)
    callbacks: list[Callback] = [clock, states, AverageOfSteps(), newest_epoch(directory)]
    drawn = lines is not None and sys.stderr.isatty() and parent_process() is None
    if lines is not None:
        callbacks.append(TQDMProgressBar(refresh_rate=10) if drawn else EpochLines(lines))
    trainer = lightning.Trainer(
        **member.options(),
        max_epochs=epochs,
        callbacks=callbacks,
        logger=logger or False,
        default_root_dir=directory,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(20, len(batches))),
        enable_progress_bar=drawn,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the batches know their rows
    )
    started = time.perf_counter()
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    # With a generator of its own, so that a fit draws the same with and without validation.
    once: DataLoader[int] = DataLoader([0], batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]
    trainer.fit(module, loader, once if monitor else None, ckpt_path=resume, weights_only=True)
    seconds = time.perf_counter() - started
    _averaged(module, directory)
    return FitSummary(
        epochs=epochs,
        validation=_validation(module, trainer) if monitor else float("nan"),
        metric=monitor or "",
        seconds=seconds,
        sequences_per_second=clock.sequences / max(clock.busy + clock.waiting, 1e-9),
        waiting_share=clock.waiting / max(clock.busy + clock.waiting, 1e-9),
    )


def _averaged(module: RetrievalModule[NetworkType], directory: Path) -> RetrievalModule[NetworkType]:
    """Give the module the average of the steps, which the newest checkpoint has.

    Lightning leaves a fit that is resumed behind its last epoch with the weights of the last step.
    """
    # The processes that made it may have had GPUs that this one has not.
    module.load_state_dict(torch.load(last_checkpoint(directory), map_location="cpu", weights_only=True)["state_dict"])
    return module


def _validation(module: RetrievalModule[NetworkType], trainer: lightning.Trainer) -> float:
    """Return the main figure of the validation after the last epoch."""
    figure = trainer.callback_metrics.get(module.task.monitor or "")
    if figure is not None:
        return float(figure)
    with torch.no_grad():  # resumed behind the last epoch
        metrics = module.task.validate(module.network.cpu().eval())
    return {monitored(k): recall for k, recall in metrics.recall.items()}[module.task.monitor or ""]
