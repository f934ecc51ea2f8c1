"""The mixture log-Q by effect: on a toy catalogue the expected gradient is that of the full softmax."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ml.evaluation.metrics import share_for_90_percent
from ml.training.loss import Drawn, accidental_hits, batch_loss, expected_count, sampled_softmax
from ml.training.sampling import Place
from settings import TrainingSettings

USERS, ITEMS, TEMPERATURE = 5, 30, 0.4


@cache
def toy(skew: float = 0.7) -> tuple[Tensor, Tensor]:
    """Cosines [users, items], and how likely each (user, item) is a positive [users, items]: skewed popularity times a
    liking that the cosines know of, as in a model that has learnt something."""
    cosine = torch.rand(USERS, ITEMS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    joint = torch.exp(3 * cosine) / torch.arange(1, ITEMS + 1) ** skew
    return cosine, joint / joint.sum()


def gradients(
    batch: int,
    corpus_negatives: int,
    batches: int,
    alpha_positive: float,
    alpha_negative: float = 1.0,
    skew: float = 0.7,
) -> tuple[Tensor, Tensor]:
    """Mean gradients with respect to the cosines [users, items], of the sampled and of the full softmax on the same
    rows."""
    cosine, joint = toy(skew)
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
            sampled[user[:, None], candidates[None]] / TEMPERATURE,
            expected.log(),
            hits=hits,
            weight=torch.ones(batch),
            alpha_positive=alpha_positive,
            alpha_negative=alpha_negative,
        )
        full_loss = full_loss + functional.cross_entropy(full[user] / TEMPERATURE, item)
    (sampled_gradient,) = torch.autograd.grad(sampled_loss / batches, [sampled])
    (full_gradient,) = torch.autograd.grad(full_loss / batches, [full])
    return sampled_gradient, full_gradient


@cache
def error(
    batch: int,
    corpus_negatives: int,
    batches: int,
    alpha_positive: float,
    alpha_negative: float = 1.0,
    skew: float = 0.7,
) -> float:
    """How far the two are apart, relative to the full gradient."""
    sampled, full = gradients(batch, corpus_negatives, batches, alpha_positive, alpha_negative, skew)
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


def test_the_gradient_converges_under_heavily_skewed_popularity() -> None:
    """Half of all positives are of two items, and the rarest one is a thousand times rarer."""
    shares = toy(2.0)[1].sum(0).sort(descending=True).values
    assert shares[:2].sum() > 0.5
    assert shares[0] / shares[-1] > 1000
    batch, corpus, batches = SOURCES["both"]
    assert error(batch, corpus, batches, alpha_positive=0, skew=2.0) < 0.05
    assert error(batch, corpus, batches // 5, alpha_positive=0, alpha_negative=0, skew=2.0) > 0.12


@cache
def learnt_lists(alpha_positive: float, alpha_negative: float) -> Tensor:
    """The five best items of each user [users, 5] under free scores learnt from skewed positives."""
    joint = toy(1.0)[1]
    random = torch.Generator().manual_seed(2)
    scores = torch.zeros(USERS, ITEMS, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(200):
        pair = torch.multinomial(joint.flatten(), 256, replacement=True, generator=random)
        user, item = pair // ITEMS, pair % ITEMS
        candidates = torch.cat([item, torch.randint(ITEMS, (64,), generator=random)])
        row = torch.arange(256)
        loss = sampled_softmax(
            scores[user[:, None], candidates[None]],
            expected_count(joint.sum(0)[candidates], 256, 64, ITEMS).log(),
            hits=accidental_hits(candidates, row, row * ITEMS + item, ITEMS),
            weight=torch.ones(256),
            alpha_positive=alpha_positive,
            alpha_negative=alpha_negative,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return scores.detach().topk(5).indices


def test_less_correction_of_the_negatives_moves_the_lists_away_from_popular_items() -> None:
    """Uncorrected negatives punish what is popular: fewer popular items are shown, and more different ones."""
    popularity = toy(1.0)[1].sum(0)
    lists = [learnt_lists(0.0, alpha) for alpha in (1.0, 0.5, 0.0)]
    shown = [float(popularity[each].mean()) for each in lists]
    diversity = [share_for_90_percent(each.numpy(), ITEMS) for each in lists]
    assert shown[0] > 1.1 * shown[1] > 1.21 * shown[2], shown
    assert diversity[0] < diversity[2], diversity


def test_a_correction_of_the_positive_moves_the_lists_towards_popular_items() -> None:
    """Its logit falls by alpha log E: the scores of popular items have to rise to make up for it."""
    popularity = toy(1.0)[1].sum(0)
    shown = [float(popularity[learnt_lists(alpha, 0.5)].mean()) for alpha in (0.0, 0.5)]
    assert shown[1] > shown[0], shown


@pytest.mark.parametrize(("alpha_positive", "alpha_negative"), [(0.0, 1.0), (0.5, 0.75), (0.0, 0.0), (1.0, 1.0)])
def test_a_hand_worked_gradient(alpha_positive: float, alpha_negative: float) -> None:
    """Of a negative: its probability over the temperature; of the positive: that less one. The probabilities are those
    of exp(cos / temperature) / E^alpha."""
    cosine = torch.tensor([[0.5, 0.1, -0.2]], requires_grad=True)
    loss = sampled_softmax(
        cosine / 0.5,
        torch.tensor([4.0, 2.0, 0.5]).log(),
        hits=torch.tensor([[True, False, False]]),
        weight=torch.ones(1),
        alpha_positive=alpha_positive,
        alpha_negative=alpha_negative,
    )
    (gradient,) = torch.autograd.grad(loss, [cosine])
    positive = math.exp(1.0) / 4**alpha_positive
    first, second = math.exp(0.2) / 2**alpha_negative, math.exp(-0.4) / 0.5**alpha_negative
    total = positive + first + second
    worked = [(positive / total - 1) / 0.5, first / total / 0.5, second / total / 0.5]
    torch.testing.assert_close(gradient, torch.tensor([worked]))


def test_equal_weights_are_cross_entropy_over_corrected_logits() -> None:
    """alpha = 1 for both: the classical correction (Yi et al., 2019). With equal E, equal alphas do nothing."""
    cosine = torch.rand(4, 9, generator=torch.Generator().manual_seed(3))
    log_expected, hits = torch.linspace(-2, 1, 9), torch.eye(4, 9, dtype=torch.bool)
    classical = functional.cross_entropy(cosine / 0.3 - log_expected, torch.arange(4))
    loss = sampled_softmax(
        cosine / 0.3, log_expected, hits=hits, weight=torch.ones(4), alpha_positive=1.0, alpha_negative=1.0
    )
    torch.testing.assert_close(loss, classical)
    plain = functional.cross_entropy(cosine / 0.3, torch.arange(4))
    for alpha in (0.0, 0.4, 1.0):
        loss = sampled_softmax(
            cosine / 0.3,
            torch.full((9,), 1.7),
            hits=hits,
            weight=torch.ones(4),
            alpha_positive=alpha,
            alpha_negative=alpha,
        )
        torch.testing.assert_close(loss, plain)


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
    loss = sampled_softmax(
        cosine / 1.0,  # another tensor, which the function may overwrite
        torch.zeros(candidates),
        hits=hits,
        weight=torch.full((rows,), 1.0),
        alpha_positive=0.0,
        alpha_negative=1.0,
    )
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
            torch.full((1, 3), 0.3) / temperature,
            log_expected,
            hits=torch.tensor([[True, False, False]]),
            weight=torch.ones(1),
            alpha_positive=0.0,
            alpha_negative=1.0,
        )
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.5) + math.exp(-1.5)), rel=1e-5)


def test_a_hand_worked_loss() -> None:
    loss = sampled_softmax(
        torch.tensor([[0.5, 0.1, -0.2]]) / 0.1,
        torch.tensor([math.log(4), math.log(2), math.log(0.5)]),
        hits=torch.tensor([[True, False, False]]),
        weight=torch.ones(1),
        alpha_positive=0.5,
        alpha_negative=1.0,
    )
    positive = math.exp(5) / 2
    assert float(loss) == pytest.approx(-math.log(positive / (positive + math.exp(1) / 2 + math.exp(-2) * 2)), rel=1e-5)


def test_doubling_a_weight_equals_repeating_the_row() -> None:
    cosine = torch.rand(3, 7, generator=torch.Generator().manual_seed(0))
    hits = torch.eye(3, 7, dtype=torch.bool)
    log_expected = torch.linspace(-1, 1, 7)
    doubled = sampled_softmax(
        cosine / 0.2,
        log_expected,
        hits=hits,
        weight=torch.tensor([2.0, 1.0, 1.0]),
        alpha_positive=0.0,
        alpha_negative=1.0,
    )
    # The repeated row brings its positive along as a candidate: hidden from the others, so that only the row counts.
    order = [0, 1, 2, 0, 3, 4, 5, 6]
    repeated = cosine[[0, 1, 2, 0]][:, order]
    hidden = torch.zeros(4, 8, dtype=torch.bool)
    hidden[:, 3], hidden[3, 0] = True, True
    hidden |= torch.eye(4, 8, dtype=torch.bool)
    again = sampled_softmax(
        repeated / 0.2,
        log_expected[order],
        hits=hidden,
        weight=torch.ones(4),
        alpha_positive=0.0,
        alpha_negative=1.0,
    )
    torch.testing.assert_close(doubled, again)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"logits \(2, 5\), hits \(2, 4\)"):
        sampled_softmax(
            torch.zeros(2, 5),
            torch.zeros(5),
            hits=torch.zeros(2, 4, dtype=torch.bool),
            weight=torch.ones(2),
            alpha_positive=0.0,
            alpha_negative=1.0,
        )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_mean_over_processes_that_share_the_rows_is_the_loss_of_the_batch(processes: int) -> None:
    rows, negatives, catalogue = 7, 5, 9
    random = torch.Generator().manual_seed(0)
    items = torch.randint(catalogue, (rows + negatives,), generator=random)
    group = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    weight = torch.rand(rows, generator=random, dtype=torch.float64) + 0.1
    whole = {
        "candidate_rows": items,
        "share": torch.rand(rows + negatives, generator=random, dtype=torch.float64),
        "positive_keys": (group * catalogue + items[:rows]).sort().values,
        "whole_weight": weight,
        "corpus_negatives": negatives,
    }
    drawn = torch.rand(rows, 4, generator=random, dtype=torch.float64)
    vectors = torch.rand(catalogue, 4, generator=random, dtype=torch.float64)

    def results(shares: list[slice]) -> tuple[Tensor, ...]:
        users, table = drawn.clone().requires_grad_(), vectors.clone().requires_grad_()
        losses = []
        for own in shares:
            first = {"first": own.start, "processes": len(shares), "group": group[own], "weight": weight[own]}
            batch = cast(Drawn, SimpleNamespace(**whole, **first))
            logits, training = users[own] @ table[items].T / 0.1, TrainingSettings(alpha_positive=0.5)
            losses.append(batch_loss(logits, batch, settings=training, candidates=catalogue, corpus=catalogue))
        loss = torch.stack(losses).mean()
        return loss.detach(), *torch.autograd.grad(loss, [users, table])

    shared = results([Place(rank, processes).rows(rows) for rank in range(processes)])
    torch.testing.assert_close(shared, results([slice(0, rows)]), rtol=1e-12, atol=1e-12)
