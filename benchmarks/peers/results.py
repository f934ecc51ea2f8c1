"""What a peer hands over: its lists as Parquet, and beside them one JSON with seconds, memory and the chosen settings.

Written by the peers' environment and read by adseq's, so this module needs the standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

LEARNT_FROM = ("train", "queries", "history", "catalogue")  # all that a peer reads; never the targets
PEERS = ("als", "bm25", "cosine", "sasrec", "ligr", "hstu", "bert4rec")


@dataclass(frozen=True)
class Answer:
    """One way to ask the peer: a variant of the context protocol, or the only one of the temporal protocol.

    Attributes:
        asked: what the query was made of, such as ``history``.
        lists: file name of the lists (query_id, rank, item_id), in the directory of the result.
        setting: the chosen setting, in words.
        fit_seconds: fitting this setting on the whole training period.
        answer_seconds: from the queries' items to the ranked lists.
    """

    asked: str
    lists: str
    setting: str
    fit_seconds: float
    answer_seconds: float


@dataclass(frozen=True)
class PeerResult:
    """One peer on one split.

    Attributes:
        title: name for people.
        note: how it was treated, a sentence or two.
        split: ``fingerprint`` of the split's files.
        tried: settings (or epochs) that were measured on the validation slice.
        tune_seconds: all of that.
        peak_bytes: most memory the process had resident, tuning included.
        versions: of the libraries behind it.
    """

    title: str
    note: str
    split: str
    seed: int
    tried: int
    tune_seconds: float
    peak_bytes: int
    versions: str
    answers: tuple[Answer, ...]

    def write(self, path: Path) -> None:
        """Write the result as JSON, whole or not at all."""
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> PeerResult:
        """Read a result that ``write`` wrote.

        Raises:
            ValueError: the file is not a result.
        """
        try:
            fields = json.loads(path.read_text())
            return cls(**{**fields, "answers": tuple(Answer(**answer) for answer in fields["answers"])})
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not the result of a peer ({error}): delete it and train again.") from error


def result_path(out: Path, peer: str) -> Path:
    """Return the path of the result of ``peer``; the lists lie beside the result."""
    return out / peer / "result.json"


def fingerprint(split: Path) -> str:
    """Return a text that changes with any byte of the files that a peer learns from or is asked."""
    digest = hashlib.sha256()
    for name in LEARNT_FROM:
        digest.update((split / f"{name}.parquet").read_bytes())
    return digest.hexdigest()[:16]
