"""The transformers of RecTools, trained an epoch at a time: SASRec, eSASRec's LiGR blocks, HSTU and BERT4Rec.

A setting is a number of epochs and the weight of a recency prior: these models see no time, and what sold lately sells.
The prior adds ``weight * log(1 + events of the newest window)`` to the score of an item.

The softmax is RecTools' own, computed more cheaply through the hook RecTools documents for losses (a Lightning module
with ``_calc_custom_loss``): it takes logits over the whole catalogue only at positions that have a target, where
RecTools takes them at every position, padding included, and then leaves those out (ten times as slow on a CPU).
Loss and gradient are the same to the last digits.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.base import TransformerModelBase
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.ligr import LiGRLayers
from torch.nn.functional import cross_entropy

from benchmarks.peers.tasks import Codes, Log, Task
from benchmarks.peers.tuning import Fitted

LENGTH = 50
PADDING = 0  # RecTools' token of padding, which is no target
PRIORS = (0.0, 0.1, 0.3)
COMMON: dict[str, Any] = {
    "n_factors": 64,
    "n_blocks": 2,
    "n_heads": 2,
    "dropout_rate": 0.2,
    "session_max_len": LENGTH,
    "batch_size": 128,
    "lr": 1e-3,
    "item_net_block_types": (IdEmbeddingsItemNet,),
}


class TargetSoftmax(TransformerLightningModule):
    """RecTools' softmax loss, the mean over the batch's targets, without the logits that the loss throws away."""

    def _calc_custom_loss(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        item_embs = self.torch_model.item_model.get_all_embeddings()  # [items + tokens, width]
        sessions = self.torch_model.encode_sessions(batch, item_embs)  # [batch, length, width]
        chosen = batch["y"] != PADDING
        if not chosen.any():  # BERT4Rec may mask nothing in a small last batch
            return sessions.sum() * 0
        return cross_entropy(sessions[chosen] @ item_embs.T, batch["y"][chosen])


def silent_trainer() -> Trainer:
    """Return a Lightning trainer without files and bars; RecTools calls this, and ``fit_partial`` sets its epochs."""
    return Trainer(
        max_epochs=1,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@dataclass(frozen=True)
class SequentialSetting:
    """How long a model learns, and the weight of the recency prior."""

    epochs: int
    prior: float


class SequentialModel:
    """The model as of now, which goes on learning when the next epoch is asked for."""

    def __init__(self, model: TransformerModelBase[Any], items: int, prior: NDArray[np.float32]) -> None:
        self.model, self.prior = model, prior  # prior: [items], added to the scores
        preparator = model.data_preparator
        known = np.asarray(preparator.get_known_item_ids(), np.int64)
        self.items = items
        self.known = known  # items of the log that the model has an embedding of
        self.inner = np.full(items, PADDING)  # the number RecTools gives an item
        self.inner[known] = preparator.get_known_items_sorted_internal_ids()

    @torch.inference_mode()
    def scores(self, sequences: list[Codes]) -> NDArray[np.float32]:
        scores = np.full((len(sequences), self.items), -np.inf, np.float32)
        inner = [self.inner[sequence] for sequence in sequences]
        sessions = [each[each != PADDING].tolist() for each in inner]
        asked = [row for row, session in enumerate(sessions) if session]
        if not asked:
            return scores
        network = self.model.torch_model.eval()
        batch = self.model.data_preparator._collate_fn_recommend([(sessions[row], [], {}) for row in asked])
        item_embs = network.item_model.get_all_embeddings()
        states = network.encode_sessions({name: each.to(item_embs.device) for name, each in batch.items()}, item_embs)
        found = states[:, -1] @ item_embs[torch.from_numpy(self.inner[self.known]).to(item_embs.device)].T
        scores[np.array(asked)[:, None], self.known] = found.float().cpu().numpy() + self.prior[self.known]
        return scores


class Sequential:
    """One of RecTools' transformers."""

    def __init__(
        self, kind: type[TransformerModelBase[Any]], title: str, epochs: int, patience: int, **options: Any
    ) -> None:
        self.kind, self.title, self.patience = kind, title, patience * len(PRIORS)
        self.settings = tuple(SequentialSetting(epoch, prior) for epoch in range(1, epochs + 1) for prior in PRIORS)
        self.options = options
        figures = {name: value for name, value in {**COMMON, **options}.items() if isinstance(value, int | float)}
        words = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        self.note = (
            f"{title} of RecTools ({words}): full softmax, RecTools' value computed at the targets only; epochs and "
            f"recency prior ({', '.join(map(str, PRIORS))}) chosen on the newest window of the training period, "
            f"stopping after {patience} epochs without a better one (at most {epochs})."
        )

    def fitted(self, task: Task, wanted: Sequence[SequentialSetting], seed: int) -> Iterator[Fitted[SequentialSetting]]:
        _quiet()
        seed_everything(seed, verbose=False)
        started = time.perf_counter()
        model = self.kind(
            loss="softmax_at_targets",  # a name RecTools does not know, so it asks the module
            lightning_module_type=TargetSoftmax,
            get_trainer_func=silent_trainer,
            **COMMON,
            **self.options,
        )
        dataset = interactions(task.log)
        seconds = time.perf_counter() - started
        recent = np.log1p(np.bincount(task.recent().item, minlength=task.log.items)).astype(np.float32)
        for epoch in range(1, max(setting.epochs for setting in wanted) + 1):
            started = time.perf_counter()
            model.fit_partial(dataset, min_epochs=1, max_epochs=1)
            seconds += time.perf_counter() - started  # not what the caller does with the model
            for setting in wanted:
                if setting.epochs == epoch:
                    fitted = SequentialModel(model, task.log.items, np.float32(setting.prior) * recent)
                    yield Fitted(setting, fitted, seconds)

    def words(self, setting: SequentialSetting) -> str:
        return f"{setting.epochs} epochs, prior {setting.prior:g}"


def interactions(log: Log) -> Dataset:
    """Return the log in the form that RecTools takes, in the order of the log.

    The place of an event stands for its time, since events of one day may share a time stamp.
    """
    frame = pd.DataFrame({Columns.User: log.user, Columns.Item: log.item, Columns.Weight: 1.0})
    frame[Columns.Datetime] = pd.to_datetime(np.arange(len(log)), unit="s")
    return Dataset.construct(frame)


def sasrec() -> Sequential:
    """Return causal self-attention, in which each position predicts the next item."""
    return Sequential(SASRecModel, "SASRec", epochs=100, patience=10)


def ligr() -> Sequential:
    """Return SASRec with LiGR blocks, gated residuals and SwiGLU: eSASRec (RecSys 2025) with the loss of the others."""
    return Sequential(SASRecModel, "LiGR", epochs=100, patience=10, transformer_layers_type=LiGRLayers)


def hstu() -> Sequential:
    """Return HSTU by inner products; its relative attention is by position, because a query has no time of its own."""
    return Sequential(
        HSTUModel,
        "HSTU",
        epochs=100,
        patience=10,
        relative_time_attention=False,
        similarity_module_kwargs={"distance": "dot"},
    )


def bert4rec() -> Sequential:
    """Return bidirectional self-attention that predicts masked items and needs several times SASRec's epochs."""
    return Sequential(BERT4RecModel, "BERT4Rec", epochs=150, patience=20, mask_prob=0.3)


def _quiet() -> None:
    """Silence Lightning's greetings, which each epoch's trainer call would repeat, and RecTools' own warnings."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|rectools|pydantic")
