"""The relevance model: a small classifier for the trim in retrieval, and a regression for the auction.

Both are gradient-boosted trees over pair features, for all surfaces and content types together, and both are calibrated
by cell (``ml.relevance.calibration``). The trim's score is the probability that a rater would call the pair relevant;
the auction's score is the expected relevance, 0 (label 1) to 1 (label 5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import skops.io
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from ml.features.text import TextBasis
from ml.file_integrity import Unreadable, first_line, sha256_of
from ml.models.artifact import replacing
from ml.relevance.calibration import UNKNOWN_TYPE, Calibration, CellCurve, Curve, cells_of
from ml.relevance.pair_features import FEATURE_NAMES

Values = NDArray[np.float64]
FORMAT = 1
TRIM_TREES, AUCTION_TREES, TEXT, DESCRIPTION = "trim.skops", "auction.skops", "text.parquet", "relevance.json"
CHECKSUMS = "checksums.json"
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
"""The one class beside those that skops knows; nothing else is loaded from a file."""


@dataclass(frozen=True)
class Scores:
    """The calibrated scores of candidates, [candidates] each, 0 to 1."""

    trim: Values
    relevance: Values


@dataclass(frozen=True)
class Trees:
    """Trees of one target, with their calibration.

    Attributes:
        columns: the features that the trees read: those that some label's pair had.
    """

    trees: HistGradientBoostingClassifier | HistGradientBoostingRegressor
    columns: NDArray[np.int64]
    calibration: Calibration

    def raw(self, features: NDArray[np.float32]) -> Values:
        """Return the scores before calibration [candidates] of features [candidates, features]."""
        return raw_scores(self.trees, features[:, self.columns])

    def of(self, features: NDArray[np.float32], cells: pl.Series) -> Values:
        """Return the calibrated scores [candidates]."""
        return self.calibration.of(self.raw(features), cells)

    def of_codes(self, features: NDArray[np.float32], names: Sequence[str], codes: NDArray[np.integer[Any]]) -> Values:
        """Return the calibrated scores [candidates]; ``names`` and ``codes`` as ``Calibration.of_codes``."""
        return self.calibration.of_codes(self.raw(features), names, codes)


@dataclass(frozen=True)
class RelevanceModel:
    """A relevance model that can be deployed.

    Attributes:
        version: its name. trained_until: seconds since 1970 UTC; no label at or after it was learnt.
        relevant_label: the lowest label of a relevant pair.
        thresholds: content type -> trim score below which a candidate is trimmed; ``unknown`` holds for all others.
        text: the space of titles and queries.
    """

    version: str
    trained_until: float
    relevant_label: int
    trim: Trees
    auction: Trees
    thresholds: Mapping[str, float]
    text: TextBasis

    @property
    def feature_names(self) -> tuple[str, ...]:
        return FEATURE_NAMES

    def scores(self, features: NDArray[np.float32], candidates: pl.DataFrame) -> Scores:
        """Return the scores of candidates.

        Args:
            features: [candidates, features]. candidates: surface and content_type.
        """
        cells = cells_of(candidates)
        return Scores(self.trim.of(features, cells), self.auction.of(features, cells))

    def threshold_of(self, content_types: pl.Series) -> Values:
        """Return the trim's threshold of each candidate [candidates]."""
        return thresholds_of(self.thresholds, content_types)

    def save(self, directory: Path) -> None:
        """Write the model, replacing the one in ``directory``."""
        with replacing(directory) as temporary:
            skops.io.dump(self.trim.trees, temporary / TRIM_TREES)
            skops.io.dump(self.auction.trees, temporary / AUCTION_TREES)
            self.text.to_frame().write_parquet(temporary / TEXT)
            description = {
                "format": FORMAT,
                "version": self.version,
                "trained_until": self.trained_until,
                "relevant_label": self.relevant_label,
                "features": FEATURE_NAMES,
                "thresholds": dict(self.thresholds),
                "trim": _described(self.trim),
                "auction": _described(self.auction),
            }
            (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))
            files = (TRIM_TREES, AUCTION_TREES, TEXT, DESCRIPTION)
            checksums = {name: sha256_of(temporary / name) for name in files}
            (temporary / CHECKSUMS).write_text(json.dumps(checksums, indent=1))

    @classmethod
    def load(cls, directory: Path) -> RelevanceModel:
        """Read a model.

        Raises:
            Unreadable: a file is missing or damaged, or another version of adseq wrote it.
        """
        try:
            checksums = json.loads((directory / CHECKSUMS).read_text())
            for name, checksum in checksums.items():
                if sha256_of(directory / name) != checksum:
                    raise ValueError(f"{name} does not match its checksum")
            description = json.loads((directory / DESCRIPTION).read_text())
            if description["format"] != FORMAT or tuple(description["features"]) != FEATURE_NAMES:
                raise ValueError("another version of adseq wrote it")
            return cls(
                version=description["version"],
                trained_until=description["trained_until"],
                relevant_label=description["relevant_label"],
                trim=_trees(directory / TRIM_TREES, description["trim"]),
                auction=_trees(directory / AUCTION_TREES, description["auction"]),
                thresholds=description["thresholds"],
                text=TextBasis.from_frame(pl.read_parquet(directory / TEXT, glob=False)),
            )
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise Unreadable(
                f"{directory} holds no relevance model that can be read ({first_line(error)}): run its day again "
                f"(adseq run --days {directory.name} --again)"
            ) from error


def thresholds_of(thresholds: Mapping[str, float], content_types: pl.Series) -> Values:
    """Return the threshold of each content type [candidates]; that of ``unknown`` for a type without one."""
    default = thresholds[UNKNOWN_TYPE]
    found = content_types.cast(pl.String).replace_strict(dict(thresholds), default=default, return_dtype=pl.Float64)
    return found.fill_null(default).to_numpy()


def raw_scores(
    trees: HistGradientBoostingClassifier | HistGradientBoostingRegressor, features: NDArray[np.float32]
) -> Values:
    """Return the probability of the class 1 of a classifier, or the value of a regression [rows]."""
    if isinstance(trees, HistGradientBoostingClassifier):
        return np.asarray(trees.predict_proba(features)[:, 1], np.float64)
    return np.asarray(trees.predict(features), np.float64)


def _described(trees: Trees) -> dict[str, Any]:
    calibration = trees.calibration
    return {
        "columns": trees.columns.tolist(),
        "pooled": _curve(calibration.pooled),
        "cells": {cell: {**_curve(own.curve), "weight": own.weight} for cell, own in sorted(calibration.cells.items())},
    }


def _curve(curve: Curve) -> dict[str, list[float]]:
    return {"scores": curve.scores.tolist(), "targets": curve.targets.tolist()}


def _trees(path: Path, description: Mapping[str, Any]) -> Trees:
    cells = {
        cell: CellCurve(Curve(np.array(own["scores"]), np.array(own["targets"])), own["weight"])
        for cell, own in description["cells"].items()
    }
    pooled = Curve(np.array(description["pooled"]["scores"]), np.array(description["pooled"]["targets"]))
    trees = skops.io.load(path, trusted=TRUSTED)
    return Trees(trees, np.array(description["columns"], np.int64), Calibration(pooled, cells))
