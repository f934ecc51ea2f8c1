"""Parts that the networks are built of.

Weights are saved by name. A block is therefore either a module, which its owner names, or a function, where the layers
keep the names that the owner gives them.

Shapes: B queries, W width, T traits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from settings import ModelSettings

DEMOGRAPHIC_BUCKETS = 256
BYTES = 256  # values of a random byte
LOG_LENGTH_BOUND = 10.0  # far beyond the 5 or so that a training on enough rows comes to
SMALLEST_DEVIATION = 0.1  # of log counts: a tenth more or less


class RetrievalNetwork(nn.Module):
    """A network whose scores are divided by a learned temperature."""

    log_temperature: nn.Parameter

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp().clamp(0.01, 1.0)


def hash_embedding(buckets: int, width: int) -> nn.EmbeddingBag:
    """Return embeddings of hash buckets [buckets, W], summed over the ids of a row."""
    table = nn.EmbeddingBag(buckets, width, mode="sum", padding_idx=0)
    draw_hash_embedding(table)
    return table


@torch.no_grad()
def draw_hash_embedding(table: nn.EmbeddingBag) -> None:
    """Draw small embeddings. Bucket 0 means unknown: its row is zero and stays zero."""
    nn.init.normal_(table.weight, std=0.02)
    table.weight[0] = 0


def bag(table: Tensor, ids: Tensor) -> Tensor:
    """Sum rows of ``table`` [buckets, W], the first of which means nothing: [..., ids] -> [..., W]."""
    flat = functional.embedding_bag(ids.reshape(-1, ids.shape[-1]), table, mode="sum", padding_idx=0)
    return flat.reshape(*ids.shape[:-1], table.shape[1])


class Dropout(nn.Module):
    """Dropout that draws one random byte a value: on the CPU ``nn.Dropout`` takes five times as long.

    A value is dropped if its byte is below 256 p. So p is rounded to a multiple of 1/256, and the kept values are
    scaled by the rounded share.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = round(BYTES * p)  # of the 256 bytes

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, some of them zero and the others scaled up: any shape."""
        if not self.training or not self.dropped:
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
        drawn = words.random_(-(2**63), None).view(torch.uint8)[: values.numel()].view_as(values)
        scale = BYTES / (BYTES - self.dropped)
        return values * (drawn >= self.dropped).to(values.dtype).mul_(scale)


def perceptron(inputs: int, settings: ModelSettings) -> nn.Sequential:
    """Return an MLP with one hidden layer: [..., inputs] -> [..., W]."""
    hidden, width = 4 * settings.width, settings.width
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), Dropout(settings.dropout), nn.Linear(hidden, width))


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer that answers zero until it has learnt."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def parts_by_lengths(log_lengths: Tensor, parts: list[Tensor]) -> Tensor:
    """Join the parts side by side, each scaled to unit length and then multiplied by its own length.

    Without a bound, a training on batches of few rows lengthens an embedding until its scores are infinite.

    Args:
        log_lengths: [B, parts], cut off at ``LOG_LENGTH_BOUND``; zero everywhere gives a row of unit length.
        parts: of widths W_0, W_1, ... each [B, W_i]; a zero row stays zero.

    Returns:
        [B, W_0 + W_1 + ...]
    """
    bounded = log_lengths.clamp(-LOG_LENGTH_BOUND, LOG_LENGTH_BOUND)
    lengths = torch.split(bounded.exp() * len(parts) ** -0.5, 1, dim=1)
    weighted = [length * functional.normalize(part, dim=1) for length, part in zip(lengths, parts, strict=True)]
    return torch.cat(weighted, dim=1)


def random_directions(buckets: int, dimensions: int, random: torch.Generator) -> Tensor:
    """Draw fixed random directions [buckets, dimensions], nearly orthogonal to each other; the first one is zero."""
    table = torch.randn(buckets, dimensions, generator=random)
    table[0] = 0
    return table


class Standardise(nn.Module):
    """Columns of counts and levels, less their mean and over their deviation, so that a row has about unit length.

    Raw log counts are many times as long as all other features of an item together. With raw counts the learned parts
    of all items would begin in one direction, and the gradient of the memory would keep them there.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    @torch.no_grad()
    def learn(self, values: Tensor) -> None:
        """Take mean and deviation from ``values`` [rows, columns]; a column that hardly varies is not scaled up."""
        if not len(values):
            return
        self.mean.copy_(values.mean(0))
        deviation = values.std(0, correction=0).clamp_min(SMALLEST_DEVIATION)
        self.scale.copy_(1 / deviation / values.shape[1] ** 0.5)

    def forward(self, values: Tensor) -> Tensor:
        """Return the standardised values: [rows, columns] -> [rows, columns]."""
        return (values - self.mean) * self.scale
