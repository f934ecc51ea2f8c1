"""Conversion of rows of arrays to the tensors that the towers read."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.examples.context import Context
from ml.features.event_log import PackedEvents
from ml.features.items import ItemFeatures
from ml.models.encoders import EventBatch
from ml.models.item_model import ContextBatch, ItemBatch

Batch = TypeVar("Batch")
LARGEST_KEY = 2**62


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch dataclass with all its tensors on ``device``."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, list):
            return [moved(each) for each in value]
        return to_device(value, device) if dataclasses.is_dataclass(value) else value

    fields = {field.name: moved(getattr(batch, field.name)) for field in dataclasses.fields(batch)}  # type: ignore[arg-type]
    return type(batch)(**fields)


class CatalogueTensors:
    """Static features of the catalogue as tensors, with a last row of zeros for "no item"."""

    def __init__(self, features: ItemFeatures) -> None:
        self.items = len(features)
        self.content = _with_zero_row(features.content)
        self.cold_content = _with_zero_row(features.cold_content)
        self.category = _with_zero_row(features.category)
        self.interests = _with_zero_row(features.interests)
        self.confidence = _with_zero_row(features.confidence)
        self.advertiser = _with_zero_row(features.advertiser)
        self.price = _with_zero_row(features.price)

    def under(self, content: NDArray[np.float32], cold_content: NDArray[np.float32]) -> CatalogueTensors:
        """Return the same catalogue with other content [items, content]; all other tensors are shared."""
        other = copy.copy(self)
        other.content, other.cold_content = _with_zero_row(content), _with_zero_row(cold_content)
        return other

    def events(self, packed: PackedEvents, cold_share: float = 0.0) -> EventBatch:
        """Return events with the features of their items; ``cold_share`` of the events show the content of a cold item.

        An event that names no advertiser has the advertiser of its item.
        """
        row = np.where(packed.item < 0, self.items, packed.item)
        cold = torch.rand(row.shape).numpy() < cold_share if cold_share else np.zeros(row.shape, bool)
        named = packed.advertiser.any(axis=1, keepdims=True)
        advertiser = np.where(named, packed.advertiser, self.advertiser.numpy()[row])
        first, distinct_item = distinct_rows([row, cold.astype(np.int64), *advertiser.T])
        rows, shown_cold = torch.from_numpy(row[first]), torch.from_numpy(cold[first])
        content = self.content[rows]
        content[shown_cold] = self.cold_content[rows[shown_cold]]
        return EventBatch(
            content=content,
            category=self.category[rows],
            price=self.price[rows],
            advertiser=torch.from_numpy(advertiser[first]),
            distinct_item=torch.from_numpy(distinct_item),
            name=torch.from_numpy(packed.name),
            gap=torch.from_numpy(packed.gap),
            recency=torch.from_numpy(packed.recency),
            lengths=torch.from_numpy(packed.lengths),
        )

    def item_batch(
        self, rows: NDArray[np.int64], statistics: NDArray[np.float32], cold_share: float = 0.0
    ) -> ItemBatch:
        """Return the items of ``rows`` with their statistics [rows, width]."""
        at = self._rows(rows)
        return ItemBatch(
            content=self._content(at, cold_share),
            category=self.category[at],
            interests=self.interests[at],
            confidence=self.confidence[at],
            advertiser=self.advertiser[at],
            price=self.price[at],
            statistics=torch.from_numpy(statistics),
        )

    def context(self, context: Context) -> ContextBatch:
        """Return the context with the subjects' features; a query without a subject shows its topic."""
        subject = self._rows(context.subject)
        content, category = self.content[subject], self.category[subject]
        if context.topics is not None:
            alone = torch.from_numpy(context.subject < 0)[:, None]
            content = torch.where(alone, torch.from_numpy(context.topics.content), content)
            category = torch.where(alone, torch.from_numpy(context.topics.category), category)
        return ContextBatch(
            content=content,
            category=category,
            advertiser=self.advertiser[subject],
            interests=torch.from_numpy(context.interests),
            confidence=torch.from_numpy(context.confidence),
            present=torch.from_numpy(context.present),
        )

    def _rows(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.where(rows < 0, self.items, rows))

    def _content(self, rows: Tensor, cold_share: float) -> Tensor:
        content = self.content[rows]
        if not cold_share:
            return content
        cold = torch.rand(rows.shape) < cold_share
        return torch.where(cold[..., None], self.cold_content[rows], content)


def distinct_rows(columns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each distinct row of ``columns`` (each [rows], not negative) is first, and the number of each row.

    >>> first, number = distinct_rows([np.array([7, 5, 7, 7]), np.array([0, 0, 1, 0])])
    >>> first.tolist(), number.tolist()
    ([1, 0, 2], [1, 0, 2, 1])
    """
    key, largest = columns[0], int(columns[0].max(initial=0))
    for column in columns[1:]:
        size = int(column.max(initial=0)) + 1
        if (largest + 1) * size > LARGEST_KEY:
            values, key = np.unique(key, return_inverse=True)
            largest = len(values)
        key, largest = key * size + column, largest * size + size - 1
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return first, number


def _with_zero_row(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate([values, np.zeros((1, *values.shape[1:]), values.dtype)]))
