"""Labels of raters with the features of their pairs, as models are fitted to them and measured by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.relevance.calibration import cells_of
from ml.relevance.candidates import MAXIMUM_RELEVANCE
from ml.relevance.judgements import PAIR, PLACE, newest_labels
from ml.relevance.pair_features import PairCatalogue

LARGEST_WEIGHT = 5.0
"""A label weighs at most so many times the median: a rare stratum must not decide alone."""


@dataclass(frozen=True)
class JudgedPairs:
    """Labels, one row each.

    Attributes:
        features: [labels, features] as ``PairFeature``. label: [labels] 1 to 5.
        weight: [labels] one over the inclusion probability, its mean 1.
        cell: [labels] surface and content type. content_type: [labels]. stage: [labels] that the candidate reached.
        place: [labels] number of the subject or query on its surface. pair: [labels] number of the pair.
        seconds: [labels] time of the judgement, since 1970 UTC.
        truth: [labels] true relevance, 0 to 1; NaN where it is not known, as on any log but the synthetic world's.
    """

    features: NDArray[np.float32]
    label: NDArray[np.float64]
    weight: NDArray[np.float64]
    cell: pl.Series
    content_type: pl.Series
    stage: pl.Series
    place: NDArray[np.int64]
    pair: NDArray[np.int64]
    seconds: NDArray[np.float64]
    truth: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def relevance(self) -> NDArray[np.float64]:
        """Return the labels as relevance, 0 for label 1 to 1 for the highest label [labels]."""
        return (self.label - 1) / (MAXIMUM_RELEVANCE - 1)

    def take(self, rows: NDArray[np.int64]) -> JudgedPairs:
        """Return some of the labels."""
        return JudgedPairs(
            features=self.features[rows],
            label=self.label[rows],
            weight=self.weight[rows],
            cell=self.cell.gather(rows),
            content_type=self.content_type.gather(rows),
            stage=self.stage.gather(rows),
            place=self.place[rows],
            pair=self.pair[rows],
            seconds=self.seconds[rows],
            truth=self.truth[rows],
        )

    def before(self, seconds: float) -> JudgedPairs:
        """Return the labels that were given before an instant."""
        return self.take(np.flatnonzero(self.seconds < seconds))

    def since(self, seconds: float) -> JudgedPairs:
        """Return the labels that were given at an instant or later."""
        return self.take(np.flatnonzero(self.seconds >= seconds))

    def split_by_place(self, share: float) -> tuple[JudgedPairs, JudgedPairs]:
        """Return the labels without those of a share of the subjects and queries, and the labels of that share."""
        drawn = np.random.default_rng(0).random(int(self.place.max(initial=0)) + 1) < share
        return tuple(self.take(np.flatnonzero(drawn[self.place] == chosen)) for chosen in (False, True))  # type: ignore[return-value]


def judged_pairs(labels: pl.DataFrame, catalogue: PairCatalogue, content_types: pl.DataFrame) -> JudgedPairs:
    """Join labels to the features of their pairs; a label of an item that the catalogue lacks is left out.

    Of several labels of one rater for one pair the newest counts.

    Args:
        labels: columns of the landing table relevance_labels, and true_relevance (null: not known).
        content_types: item_id, content_type.
    """
    newest = newest_labels(labels).sort("labelled_at", *PAIR, "rater_id")
    newest = newest.join(content_types, on="item_id", how="left", maintain_order="left")
    described, features = catalogue.features_of(newest)
    kept = newest.filter(pl.Series(described))
    return JudgedPairs(
        features=features,
        label=kept["label"].cast(pl.Float64).to_numpy(),
        weight=_weights(kept["inclusion_probability"]),
        cell=cells_of(kept),
        content_type=kept["content_type"],
        stage=kept["stage"],
        place=_numbers(kept, PLACE),
        pair=_numbers(kept, PAIR),
        seconds=kept["labelled_at"].dt.epoch("us").to_numpy() / 1e6,
        truth=kept["true_relevance"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
    )


def _weights(probability: pl.Series) -> NDArray[np.float64]:
    """Return one over the probability, at most ``LARGEST_WEIGHT`` medians, with mean 1; an unknown one is the least."""
    weight = (1 / probability).to_numpy()
    known = weight[np.isfinite(weight)]
    if not len(known):
        return np.ones(len(weight))
    bounded = np.minimum(np.where(np.isfinite(weight), weight, known.min()), LARGEST_WEIGHT * float(np.median(known)))
    scaled: NDArray[np.float64] = bounded / bounded.mean()
    return scaled


def _numbers(frame: pl.DataFrame, columns: tuple[str, ...]) -> NDArray[np.int64]:
    """Return a number for each row, equal where all columns are equal."""
    return frame.select(pl.struct(columns).rank("dense").cast(pl.Int64).alias("number"))["number"].to_numpy()
