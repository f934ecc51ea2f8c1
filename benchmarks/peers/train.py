"""``python -m benchmarks.peers.train PEER SPLIT --out DIR --seed N``: train one peer, answer the split's queries, write
the lists and the result. Runs in the peers' environment."""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from benchmarks.peers.results import PEERS, Answer, PeerResult, fingerprint, result_path
from benchmarks.peers.tasks import PeerSplit, validation
from benchmarks.peers.tuning import Peer, refit_and_answer, tune

LIBRARIES = ("rectools", "pm-implicit", "torch")  # implicit comes as pm-implicit (see requirements.txt)


def main(arguments: list[str]) -> int:
    """Train, answer and write. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("split", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    train(chosen.peer, peer_named(chosen.peer), chosen.split, out=chosen.out, seed=chosen.seed)
    return 0


def peer_named(name: str) -> Peer[Any]:
    """Return a peer of ``PEERS``.

    Only the peer's own library is imported, so that the memory of the process is the peer's own, too.
    """
    if name == "als":
        from benchmarks.peers.als import Als

        return Als()
    if name in ("bm25", "cosine"):
        from benchmarks.peers.item_knn import Bm25, Cosine

        return Bm25() if name == "bm25" else Cosine()
    from benchmarks.peers import sequential

    named = {
        "sasrec": sequential.sasrec,
        "ligr": sequential.ligr,
        "hstu": sequential.hstu,
        "bert4rec": sequential.bert4rec,
    }
    return named[name]()


def train(name: str, peer: Peer[Any], directory: Path, *, out: Path, seed: int) -> PeerResult:
    """Tune, fit and answer; the result is written last, so a present result is whole."""
    split = PeerSplit.read(directory)
    target = result_path(out, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    best, tried = tune(peer, validation(split.task, seed), seed)
    tune_seconds = time.perf_counter() - started
    answers = []
    for answered in refit_and_answer(peer, split.task, best, seed):
        file = f"{answered.asked.replace(' + ', '-and-').replace(' ', '-')}.parquet"
        write_lists(target.with_name(file), answered.lists, split)
        answers.append(Answer(answered.asked, file, answered.setting, answered.fit_seconds, answered.answer_seconds))
    ways = split.task.queries.ways()
    result = PeerResult(
        title=peer.title,
        note=peer.note,
        split=fingerprint(directory),
        seed=seed,
        tried=tried,
        tune_seconds=tune_seconds,
        peak_bytes=peak_bytes(),
        versions=", ".join(f"{library} {version(library)}" for library in LIBRARIES),
        answers=tuple(sorted(answers, key=lambda each: ways.index(each.asked))),
    )
    result.write(target)
    return result


def write_lists(path: Path, lists: NDArray[np.int64], split: PeerSplit) -> None:
    """Write query_id, rank (1 = best), item_id; ids as text."""
    query, place = np.nonzero(lists >= 0)
    columns = {
        "query_id": pa.array(split.query_ids[query], pa.string()),
        "rank": pa.array(place + 1),
        "item_id": pa.array(split.item_ids[lists[query, place]], pa.string()),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)


def peak_bytes() -> int:
    """Return the largest resident memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had when it started this process
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
