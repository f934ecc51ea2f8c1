"""Sampled softmax over in-batch and uniform corpus negatives, with the log-Q correction of the mixture.

For a pool of B in-batch positives and M uniform corpus items, item i is expected E_i = (B - 1) p_i + M / N times among
the negatives of a row, where p_i is the item's share of the training positives and N is the corpus size. A row's logits
are

    positive:  score / temperature - alpha_positive * log E
    negative:  score / temperature - alpha_negative * log E

The score is the inner product of the two embeddings.

With alpha_negative = 1, a negative counts 1 / E_i each time that it turns up, which is E_i times on average. So the sum
over the pool is an unbiased estimate of the full softmax's sum (Bengio & Senecal, 2008; Yi et al., 2019,
"Sampling-Bias-Corrected Neural Modeling", for one source). The positive is always in the sum and needs no correction:
alpha_positive = 0 converges to full softmax, alpha_positive = 1 does not. The temperature divides only the score: the
correction is never scaled.

A batch holds all the positives of its users, which are no negatives of each other. So B - 1 overstates the in-batch
part, by less than one percent of E at the default batch size; this difference is left out.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from settings import TrainingSettings


class Drawn(Protocol):
    """The part of a batch that the loss reads: B rows and B + M candidates, of which the first B are the positives.

    A process that shares the batch with others has R of the rows (``ml.training.sampling.Place``); else R is B.
    """

    @property
    def candidate_rows(self) -> Tensor: ...  # [B + M], or fewer, where the other negatives are in blocks
    @property
    def share(self) -> Tensor: ...  # p_i of each
    @property
    def corpus_negatives(self) -> int: ...  # M
    @property
    def group(self) -> Tensor: ...  # [R] the user of each row
    @property
    def positive_keys(self) -> Tensor: ...  # sorted group * candidates + candidate of every positive of these users
    @property
    def weight(self) -> Tensor: ...  # [R]
    @property
    def first(self) -> int: ...  # the place of the process' first row among the B
    @property
    def whole_weight(self) -> Tensor: ...  # [B]
    @property
    def processes(self) -> int: ...  # that share the batch


class Negatives(Protocol):
    """S corpus negatives that are scored apart."""

    @property
    def candidate_rows(self) -> Tensor: ...  # [S]
    @property
    def share(self) -> Tensor: ...  # [S] p_i


def batch_loss(
    logits: Tensor,
    batch: Drawn,
    *,
    settings: TrainingSettings,
    candidates: int,
    corpus: int,
    of_blocks: Tensor | None = None,
) -> Tensor:
    """Return the sampled softmax of one batch from the logits [R, B + M], which the function overwrites.

    The mean over the processes that share a batch is the loss of the batch in one process.

    Args:
        candidates: the number of all candidates, for the keys. corpus: N, the number of items that M is drawn from.
        of_blocks: ``block_logit`` of each block [R, blocks]; None: there are no blocks.
    """
    expected = expected_count(batch.share, len(batch.whole_weight), batch.corpus_negatives, corpus)
    hits = accidental_hits(batch.candidate_rows, batch.group, batch.positive_keys, candidates)
    return sampled_softmax(
        logits,
        expected.log(),
        hits=hits,
        weight=batch.weight,
        alpha_positive=settings.alpha_positive,
        alpha_negative=settings.alpha_negative,
        first=batch.first,
        divisor=batch.whole_weight.sum() / batch.processes,
        of_blocks=of_blocks,
    )


def block_logit(
    logits: Tensor, block: Negatives, batch: Drawn, *, settings: TrainingSettings, candidates: int, corpus: int
) -> Tensor:
    """Return the logit [R] that counts in the softmax as much as all negatives of a block, from their logits [R, S].

    It is the logarithm of the sum over the corrected negatives. So a softmax over blocks needs the logits of one block
    at a time.
    """
    expected = expected_count(block.share, len(batch.whole_weight), batch.corpus_negatives, corpus)
    hits = accidental_hits(block.candidate_rows, batch.group, batch.positive_keys, candidates)
    corrected = logits - settings.alpha_negative * expected.log()
    # Not -inf: a block of hits alone would have no gradient.
    return corrected.masked_fill(hits, torch.finfo(logits.dtype).min).logsumexp(dim=1)


def expected_count(share: Tensor, batch: int, corpus_negatives: int, corpus: int) -> Tensor:
    """Return E of each candidate: the expected number of times among one row's negatives, duplicates kept.

    Args:
        share: p_i, the share of the item among the training positives of the batch's cut-off [candidates].
        batch: B, rows of the batch. corpus_negatives: M. corpus: N, items that M is drawn from.

    Of a batch of 5, four rows are another row's negatives. An item of half of the positives is expected twice among
    these rows, and half a time among 10 draws from a corpus of 20:

    >>> expected_count(torch.tensor([0.5, 0.0]), batch=5, corpus_negatives=10, corpus=20).tolist()
    [2.5, 0.5]
    """
    return ((batch - 1) * share + corpus_negatives / max(corpus, 1)).clamp_min(1e-12)


def accidental_hits(candidates: Tensor, user: Tensor, positive_keys: Tensor, items: int) -> Tensor:
    """Mark the candidates that are one of the row's own positives [rows, candidates].

    Args:
        candidates: item rows [candidates]. user: group of each row, a user at a cut-off [rows].
        positive_keys: sorted ``group * items + item`` of every positive of those groups.

    User 0 has the positives 3 and 4, user 1 the positive 3; candidate r is the positive of row r:

                        candidate   3    4    8
        row 0, user 0               hit  hit
        row 1, user 1               hit

    >>> keys = torch.tensor([0 * 10 + 3, 0 * 10 + 4, 1 * 10 + 3])
    >>> accidental_hits(torch.tensor([3, 4, 8]), user=torch.tensor([0, 1]), positive_keys=keys, items=10).int().tolist()
    [[1, 1, 0], [1, 0, 0]]

    The hit of a row with its own entry stays in the loss: ``sampled_softmax`` puts the positive there.
    """
    hits = torch.zeros(len(user), len(candidates), dtype=torch.bool, device=candidates.device)
    pair, columns = _occurrences(positive_keys % items, candidates)
    place, rows = _occurrences((positive_keys // items)[pair], user)
    hits[rows, columns[place]] = True
    return hits


def _occurrences(wanted: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Return every (place in ``wanted``, place in ``among``) with equal values.

    Comparing all with all would cost as much as a layer of the encoder, and hits are few.

        place       0  1           0  1  2  3
        wanted      3  4    among  4  3  8  3
        ordered     3  3  4  8     order  1  3  0  2
        low, count  3: from 0, two times;  4: from 2, once
        result      (0, 1)  (0, 3)  (1, 0)
    """
    ordered, order = among.sort()
    low = torch.searchsorted(ordered, wanted)
    count = torch.searchsorted(ordered, wanted, right=True) - low
    place = torch.repeat_interleave(torch.arange(len(wanted), device=among.device), count)
    within = torch.arange(len(place), device=among.device) - (count.cumsum(0) - count)[place]
    return place, order[low[place] + within]


def sampled_softmax(
    logits: Tensor,
    log_expected: Tensor,
    *,
    hits: Tensor,
    weight: Tensor,
    alpha_positive: float,
    alpha_negative: float,
    first: int = 0,
    divisor: Tensor | None = None,
    of_blocks: Tensor | None = None,
) -> Tensor:
    """Return the weighted mean cross-entropy of each row's positive against the row's negatives.

    Args:
        logits: scores over the temperature [rows, candidates]; the positive of row r is candidate ``first + r``. The
            function overwrites them: a copy would cost as much as a layer.
        log_expected: log E [candidates].
        hits: True where a candidate is a positive of the row [rows, candidates]; those get zero probability, except the
            row's own entry. weight: label weight [rows].
        divisor: of the weighted sum; None: the weight of the rows, for the mean.
        of_blocks: further logits, which are corrected already [rows, blocks].
    Returns:
        A scalar.
    Raises:
        ValueError: the shapes do not fit each other.

    One row, whose positive scores as much as its one negative: -log(1/2). Expected twice, that negative counts half:
    -log(2/3).

    >>> same = {"hits": torch.zeros(1, 2).bool(), "weight": torch.ones(1), "alpha_positive": 0, "alpha_negative": 1}
    >>> even = sampled_softmax(torch.zeros(1, 2), torch.tensor([1.0, 1.0]).log(), **same)
    >>> twice = sampled_softmax(torch.zeros(1, 2), torch.tensor([1.0, 2.0]).log(), **same)
    >>> round(even.exp().item(), 3), round(twice.exp().item(), 3)
    (2.0, 1.5)
    """
    rows, candidates = logits.shape
    if (
        candidates < first + rows
        or hits.shape != logits.shape
        or log_expected.shape != (candidates,)
        or weight.shape != (rows,)
    ):
        raise ValueError(
            f"shapes do not fit: logits {tuple(logits.shape)}, hits {tuple(hits.shape)}, "
            f"log_expected {tuple(log_expected.shape)}, weight {tuple(weight.shape)}, first row {first}"
        )
    # The corrections are constants, and the softmax of -inf has no gradient: autograd need not see either.
    with torch.no_grad():
        positive = logits.diagonal(first) - alpha_positive * log_expected[first : first + rows]
        logits.sub_(alpha_negative * log_expected).masked_fill_(hits, float("-inf"))
        logits.diagonal(first).copy_(positive)
    if of_blocks is not None:
        logits = torch.cat([logits, of_blocks], dim=1)
    own = torch.arange(first, first + rows, device=logits.device)
    losses = functional.cross_entropy(logits, own, reduction="none")
    return (losses * weight).sum() / (weight.sum() if divisor is None else divisor)
