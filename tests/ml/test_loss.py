"""The mixture log-Q by effect: on a toy catalogue the expected gradient is that of the full softmax."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ml.loss import accidental_hits, expected_count, sampled_softmax

USERS, ITEMS, TEMPERATURE = 5, 30, 0.4


@cache
def toy() -> tuple[Tensor, Tensor]:
    """Cosines [users, items], and how likely each (user, item) is a positive [users, items]: skewed popularity times a
    liking that the cosines know of, as in a model that has learnt something."""
    cosine = torch.rand(USERS, ITEMS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    joint = torch.exp(3 * cosine) / torch.arange(1, ITEMS + 1) ** 0.7
    return cosine, joint / joint.sum()


def gradients(
    batch: int, corpus_negatives: int, batches: int, alpha_positive: float, alpha_negative: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Mean gradients with respect to the cosines [users, items], of the sampled and of the full softmax on the same
    rows."""
    cosine, joint = toy()
    random = torch.Generator().manual_seed(1)
    sampled, full = cosine.clone().requires_grad_(), cosine.clone().requires_grad_()
    sampled_loss, full_loss = torch.zeros(()), torch.zeros(())
    for _ in range(batches):
        pair = torch.multinomial(joint.flatten(), batch, replacement=True, generator=random)
        user, item = pair // ITEMS, pair % ITEMS
        candidates = torch.cat([item, torch.randint(ITEMS, (corpus_negatives,), generator=random)])
        expected = expected_count(joint.sum(0)[candidates], batch, corpus_negatives, ITEMS)
        row = torch.arange(batch)
        hits = accidental_hits(candidates, row, row * ITEMS + item, ITEMS)
        sampled_loss = sampled_loss + sampled_softmax(
            sampled[user[:, None], candidates[None]],
            torch.tensor(TEMPERATURE),
            expected.log(),
            hits,
            torch.ones(batch),
            alpha_positive,
            alpha_negative,
        )
        full_loss = full_loss + functional.cross_entropy(full[user] / TEMPERATURE, item)
    (sampled_gradient,) = torch.autograd.grad(sampled_loss / batches, [sampled])
    (full_gradient,) = torch.autograd.grad(full_loss / batches, [full])
    return sampled_gradient, full_gradient


@cache
def error(batch: int, corpus_negatives: int, batches: int, alpha_positive: float, alpha_negative: float = 1.0) -> float:
    """How far the two are apart, relative to the full gradient."""
    sampled, full = gradients(batch, corpus_negatives, batches, alpha_positive, alpha_negative)
    return float((sampled - full).norm() / full.norm())


SOURCES = {"in-batch only": (512, 0, 100), "corpus only": (1, 1024, 600), "both": (256, 512, 120)}


@pytest.mark.parametrize("source", SOURCES)
def test_the_gradient_converges_to_full_softmax(source: str) -> None:
    """And with a corrected positive it does not: a bias of a tenth stays."""
    batch, corpus, batches = SOURCES[source]
    assert error(batch, corpus, batches, alpha_positive=0) < 0.05
    assert error(batch, corpus, batches // 3, alpha_positive=1) > 0.1


@pytest.mark.parametrize("source", ["in-batch only", "both"])
def test_uncorrected_negatives_leave_a_bias(source: str) -> None:
    batch, corpus, batches = SOURCES[source]
    assert error(batch, corpus, batches // 5, alpha_positive=0, alpha_negative=0) > 0.25


@pytest.mark.parametrize(
    ("few", "many"),
    [
        ((32, 0, 200), SOURCES["in-batch only"]),
        ((1, 32, 300), SOURCES["corpus only"]),
        ((16, 32, 200), SOURCES["both"]),
    ],
)
def test_the_error_shrinks_with_the_samples(few: tuple[int, int, int], many: tuple[int, int, int]) -> None:
    assert error(*many, alpha_positive=0) < 0.6 * error(*few, alpha_positive=0)


def test_expected_count_adds_both_sources() -> None:
    expected = expected_count(torch.tensor([0.0, 0.1, 0.5]), batch=11, corpus_negatives=20, corpus=40)
    torch.testing.assert_close(expected, torch.tensor([0.5, 1.5, 5.5]))
    assert torch.isfinite(expected_count(torch.zeros(1), 2, 0, 0).log()).all()


def test_hits_are_all_positives_of_the_rows_user_and_nothing_else() -> None:
    """Groups 0 and 1 with positives {2, 5} and {5}; candidates hold one of them that no row of the batch stands for."""
    candidates, group = torch.tensor([2, 5, 5, 7, 2]), torch.tensor([0, 1])
    keys = torch.tensor([0 * 10 + 2, 0 * 10 + 5, 1 * 10 + 5])
    hits = accidental_hits(candidates, group, keys, items=10)
    assert hits.tolist() == [[True, True, True, False, True], [False, True, True, False, False]]


def masses(hits: Tensor) -> Tensor:
    """The gradient of each row's loss with respect to its logits: the probability of each candidate, and of the
    positive that less one."""
    rows, candidates = hits.shape
    cosine = torch.randn(rows, candidates, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = sampled_softmax(cosine, torch.tensor(1.0), torch.zeros(candidates), hits, torch.full((rows,), 1.0), 0.0, 1.0)
    (gradient,) = torch.autograd.grad(loss, [cosine])
    return gradient * rows


def test_accidental_hits_get_exactly_zero_mass_and_the_own_positive_does_not() -> None:
    """Row 0 meets its positive again in the batch (1) and in the corpus (3), and another positive of the user (4)."""
    candidates, group = torch.tensor([2, 2, 6, 2, 5, 8]), torch.tensor([0, 1, 2])
    keys = torch.tensor([2, 5, 10 + 2, 20 + 6])
    mass = masses(accidental_hits(candidates, group, keys, items=10))
    assert (mass[0, [1, 3, 4]] == 0).all()
    assert (mass[1, [0, 3]] == 0).all()
    assert (mass[2, [0, 1, 3, 4, 5]] > 0).all()
    assert (mass[[0, 1, 2], [0, 1, 2]] < 0).all()
    torch.testing.assert_close(mass.sum(1), torch.zeros(3))


def test_the_temperature_does_not_scale_the_correction() -> None:
    """Equal cosines: the probabilities come from E alone, at any temperature."""
    log_expected = torch.tensor([2.0, 0.5, 1.5])
    for temperature in (0.05, 1.0):
        loss = sampled_softmax(
            torch.full((1, 3), 0.3),
            torch.tensor(temperature),
            log_expected,
            torch.tensor([[True, False, False]]),
            torch.ones(1),
            0.0,
            1.0,
        )
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.5) + math.exp(-1.5)), rel=1e-5)


def test_a_hand_worked_loss() -> None:
    loss = sampled_softmax(
        torch.tensor([[0.5, 0.1, -0.2]]),
        torch.tensor(0.1),
        torch.tensor([math.log(4), math.log(2), math.log(0.5)]),
        torch.tensor([[True, False, False]]),
        torch.ones(1),
        alpha_positive=0.5,
        alpha_negative=1.0,
    )
    positive = math.exp(5) / 2
    assert float(loss) == pytest.approx(-math.log(positive / (positive + math.exp(1) / 2 + math.exp(-2) * 2)), rel=1e-5)


def test_doubling_a_weight_equals_repeating_the_row() -> None:
    cosine = torch.rand(3, 7, generator=torch.Generator().manual_seed(0))
    hits = torch.eye(3, 7, dtype=torch.bool)
    log_expected = torch.linspace(-1, 1, 7)
    arguments = (torch.tensor(0.2), log_expected)
    doubled = sampled_softmax(cosine, *arguments, hits, torch.tensor([2.0, 1.0, 1.0]), 0.0, 1.0)
    # The repeated row brings its positive along as a candidate: hidden from the others, so that only the row counts.
    order = [0, 1, 2, 0, 3, 4, 5, 6]
    repeated = cosine[[0, 1, 2, 0]][:, order]
    hidden = torch.zeros(4, 8, dtype=torch.bool)
    hidden[:, 3], hidden[3, 0] = True, True
    hidden |= torch.eye(4, 8, dtype=torch.bool)
    again = sampled_softmax(repeated, torch.tensor(0.2), log_expected[order], hidden, torch.ones(4), 0.0, 1.0)
    torch.testing.assert_close(doubled, again)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"cosine \(2, 5\), hits \(2, 4\)"):
        sampled_softmax(
            torch.zeros(2, 5),
            torch.tensor(1.0),
            torch.zeros(5),
            torch.zeros(2, 4, dtype=torch.bool),
            torch.ones(2),
            0.0,
            1.0,
        )
