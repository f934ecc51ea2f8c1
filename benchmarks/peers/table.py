"""The one table of all peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.results import Answer, PeerResult
from benchmarks.report import Table
from ml.evaluation.metrics import Metrics

MEBIBYTE = 2**20
COLUMNS = ("model", "recall@10", "recall@100", "advertiser hit@10", "diversity90", "fit s", "answer s", "peak MiB")
HOW = (
    "Warm catalogue, micro recall. A setting is chosen on the newest window of the training period by the geometric "
    "mean of recall@10 and recall@100, then fitted again on all of it: fit is that last fit. Answer goes from the "
    "queries' items to lists of 300; peak is the whole process, tuning included. A query that a peer knows nothing "
    "of gets the most popular items of the newest window."
)


@dataclass(frozen=True)
class ScoredPeer:
    """A peer's answer and its figures."""

    result: PeerResult
    answer: Answer
    metrics: Metrics

    def row(self) -> tuple[str, ...]:
        several = len(self.result.answers) > 1
        return (
            f"{self.result.title}, {self.answer.asked}" if several else self.result.title,
            *_figures(self.metrics),
            f"{self.answer.fit_seconds:,.1f}",
            f"{self.answer.answer_seconds:,.1f}",
            f"{self.result.peak_bytes / MEBIBYTE:,.0f}",
        )


@dataclass(frozen=True)
class ScoredLists:
    """Lists that were given as a file."""

    name: str
    metrics: Metrics

    def row(self) -> tuple[str, ...]:
        return (self.name, *_figures(self.metrics), "–", "–", "–")


@dataclass(frozen=True)
class Failed:
    """A peer, or a file of lists, without figures."""

    name: str
    reason: str

    def row(self) -> tuple[str, ...]:
        return (f"{self.name}: failed", *("–" for _ in COLUMNS[1:]))


Outcome = ScoredPeer | ScoredLists | Failed


def table_of(split: str, seed: int, outcomes: Sequence[Outcome]) -> Table:
    """Return one row an outcome, in order; the notes say how each peer was treated and why one failed."""
    peers = [outcome for outcome in outcomes if isinstance(outcome, ScoredPeer)]
    notes = dict.fromkeys([HOW, *(peer.result.note for peer in peers), *(_chosen(peer) for peer in peers)])
    versions = dict.fromkeys(peer.result.versions for peer in peers)
    failures = [f"{outcome.name}: {outcome.reason}" for outcome in outcomes if isinstance(outcome, Failed)]
    return Table(
        f"{split}, seed {seed}", COLUMNS, tuple(outcome.row() for outcome in outcomes), (*notes, *versions, *failures)
    )


def _figures(metrics: Metrics) -> tuple[str, ...]:
    hits = metrics.advertiser_hit
    return (
        f"{metrics.recall[10]:.4f}",
        f"{metrics.recall[100]:.4f}",
        f"{hits[10]:.4f}" if hits else "–",
        f"{metrics.diversity90:.3f}",
    )


def _chosen(peer: ScoredPeer) -> str:
    result = peer.result
    return f"{peer.row()[0]}: {peer.answer.setting}, the best of {result.tried} tried in {result.tune_seconds:,.0f} s."
