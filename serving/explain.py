"""Why an item is a candidate: the parts of its score, and what of the history and the context it is near to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ml.features.content import category_nodes
from ml.retrieval.index import stored_vectors
from serving.contracts import Explanation, NearEvent, Source
from serving.generators import Query, Scored
from serving.publication import Served
from serving.users import PastEvent

NEAREST_EVENTS = 3


def explain(
    served: Served, query: Query, subject: int | None, *, interests: dict[str, float], found: list[Scored]
) -> list[Explanation]:
    """Return one explanation for each candidate."""
    if not found:
        return []
    vectors = stored_vectors(served.index, np.array([each.row for each in found]))
    part_widths = served.artifact.network.parts
    products, borders = vectors * query.vector, np.cumsum([*part_widths.values()])[:-1]
    parts = np.stack([part.sum(axis=1) for part in np.split(products, borders, axis=1)], axis=1)
    rows = served.catalogue.listed[[each.row for each in found]]
    traits, known = _unit_traits(served, rows), _known_events(served, query.user.history)
    near = traits @ _unit_traits(served, np.array([row for row, _ in known], np.int64)).T
    of_subject = None if subject is None else traits @ _unit_traits(served, np.array([subject]))[0]
    nodes = category_nodes(served.catalogue.frame["category_path"].gather(rows)).to_list()
    return [
        Explanation(
            parts={}
            if found[at].source == Source.popularity
            else {name: round(float(value), 4) for name, value in zip(part_widths, parts[at], strict=True)},
            events=_nearest(served, known, near[at]),
            subject_similarity=None if of_subject is None else round(float(of_subject[at]), 4),
            shared_interests=[name for name in interests if name in nodes[at]],
        )
        for at in range(len(found))
    ]


def _unit_traits(served: Served, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return [items, T] of unit length: content, category and advertiser of each item, as in the memory."""
    if not len(rows):
        return np.zeros((0, sum(served.artifact.network.encoder.traits.widths)), np.float32)
    tensors, at = served.catalogue.tensors, torch.from_numpy(rows)
    with torch.inference_mode():
        found = served.artifact.network.encoder.traits(
            tensors.content[at], tensors.category[at], tensors.advertiser[at]
        ).numpy()
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: NDArray[np.float32] = found / np.maximum(lengths, 1e-9)
    return unit


def _known_events(served: Served, history: list[PastEvent]) -> list[tuple[int, PastEvent]]:
    """Return the newest event of each item that the catalogue has, newest first, with the item's row."""
    found: dict[int, PastEvent] = {}
    for event in reversed(history):
        row = served.catalogue.row_of.get(event.item_id) if event.item_id is not None else None
        if row is not None:
            found.setdefault(row, event)
    return list(found.items())


def _nearest(served: Served, known: list[tuple[int, PastEvent]], similarity: NDArray[np.float32]) -> list[NearEvent]:
    titles = served.catalogue.frame["title"]
    best = np.argsort(-similarity, kind="stable")[:NEAREST_EVENTS]
    return [
        NearEvent(
            item_id=str(known[at][1].item_id),
            title=titles[known[at][0]],
            event_name=known[at][1].event_name,
            event_time=known[at][1].event_time,
            similarity=round(float(similarity[at]), 4),
        )
        for at in best.tolist()
    ]
