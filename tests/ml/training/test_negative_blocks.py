"""Corpus negatives that are scored block by block give the loss and the gradients of those that are scored at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from ml.examples.period import Prepared
from ml.models.item_model import ItemBatch
from ml.training import sampling
from ml.training.fit import training_loss
from ml.training.item_task import ItemTask
from ml.training.loss import Drawn, batch_loss, block_logit, expected_count
from ml.training.sampling import SampledBatch
from settings import TrainingSettings
from tests.ml.worlds import small_settings


def first_batch(task: ItemTask) -> SampledBatch[ItemBatch]:
    return next(iter(task.batches()))


@pytest.mark.parametrize("at_once", [1, 7, 31])
def test_the_gradients_are_those_of_one_pool(prepared: Prepared, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    settings = small_settings(
        training={"batch_size": 64, "corpus_negatives": 32, "alpha_negative": 0.7},
        model={"width": 16, "heads": 2, "layers": 1, "dropout": 0.0, "content_dropout": 0.0},
    )
    task = ItemTask(prepared, settings, 15.0)
    network, whole = task.network(), first_batch(task)
    monkeypatch.setattr(sampling, "NEGATIVES_AT_ONCE", at_once)
    cut = first_batch(task)
    assert len(cut.candidate_rows) == len(cut.weight) + at_once
    drawn = torch.cat([cut.candidate_rows, *(block.candidate_rows for block in cut.blocks)])
    assert torch.equal(drawn, whole.candidate_rows)
    assert not whole.blocks

    def gradients(batch: SampledBatch[ItemBatch]) -> list[Tensor]:
        loss = training_loss(task, network, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))]

    for expected, found in zip(gradients(whole), gradients(cut), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_block_counts_as_its_negatives_do() -> None:
    """One row, its positive and the negatives 1 and 2, by hand: exp(3) over exp(3) + exp(1) / E_1 + exp(2) / E_2."""
    settings = TrainingSettings(alpha_negative=1.0)
    batch = cast(
        Drawn,
        SimpleNamespace(
            candidate_rows=torch.tensor([0]),
            share=torch.tensor([0.0]),
            corpus_negatives=2,
            group=torch.tensor([0]),
            positive_keys=torch.tensor([0]),
            weight=torch.ones(1),
            first=0,
            whole_weight=torch.ones(1),
            processes=1,
        ),
    )
    block = SimpleNamespace(candidate_rows=torch.tensor([1, 2]), share=torch.tensor([0.0, 0.0]))
    logit = block_logit(torch.tensor([[1.0, 2.0]]), block, batch, settings=settings, candidates=4, corpus=4)
    own, further = torch.tensor([[3.0]]), logit[:, None]
    loss = batch_loss(own, batch, settings=settings, candidates=4, corpus=4, of_blocks=further)
    each = float(expected_count(torch.zeros(1), 1, 2, 4))
    e = torch.e
    assert float(loss.neg().exp()) == pytest.approx(e**3 / (e**3 + (e + e**2) / each), rel=1e-5)


def test_a_block_of_the_row_s_own_positives_counts_nothing_and_has_a_gradient() -> None:
    batch = SimpleNamespace(
        corpus_negatives=2, group=torch.tensor([0]), positive_keys=torch.tensor([0, 1]), whole_weight=torch.ones(1)
    )
    block = SimpleNamespace(candidate_rows=torch.tensor([0, 1]), share=torch.zeros(2))
    logits = torch.tensor([[5.0, 5.0]], requires_grad=True)
    settings = TrainingSettings()
    logit = block_logit(logits, block, cast(Drawn, batch), settings=settings, candidates=4, corpus=4)
    joint = torch.cat([torch.zeros(1, 1), logit[:, None]], dim=1).logsumexp(dim=1)
    joint.backward()
    assert float(joint.detach()) == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(1, 2))
