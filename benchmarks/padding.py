"""The peers that pad: the same events, every sequence at the full number of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch.nn import functional

from ml.models.encoders import EventBatch


def pad_to(events: EventBatch, positions: int) -> EventBatch:
    """Return the batch with [B, L, ...] grown to [B, positions, ...] by zeros, the values of a padding position."""

    def grown(values: torch.Tensor) -> torch.Tensor:
        missing = positions - values.shape[1]
        return functional.pad(values, [0, 0] * (values.dim() - 2) + [0, missing])

    return EventBatch(*(grown(getattr(events, field.name)) for field in fields(EventBatch)))


def pad_chunks(chunks: Sequence[EventBatch], positions: int, tokens: int) -> list[EventBatch]:
    """Return all rows of ``chunks``, in order, at ``positions``, in new chunks of at most ``tokens`` each."""
    wide = [pad_to(chunk, positions) for chunk in chunks]
    whole = [torch.cat([getattr(chunk, field.name) for chunk in wide]) for field in fields(EventBatch)]
    parts = zip(*(torch.split(values, max(1, tokens // positions)) for values in whole), strict=True)
    return [EventBatch(*part) for part in parts]
