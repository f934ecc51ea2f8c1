"""``python -m benchmarks.peers SPLIT``: train the peers in their own environment, one process each, and print a table.

What is there already for this split and this seed is shown and not trained again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.peers.results import PEERS, PeerResult, fingerprint, result_path
from benchmarks.peers.table import Failed, Outcome, ScoredLists, ScoredPeer, table_of

if TYPE_CHECKING:
    from pipelines.evaluate.split import Split

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = PROJECT / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Arguments:
    """The arguments of the command line."""

    split: Path
    models: tuple[str, ...]
    seed: int
    out: Path  # of this split and seed
    python: Path
    lists: tuple[tuple[str, Path], ...]
    again: bool

    @classmethod
    def parse(cls, given: Sequence[str]) -> Arguments:
        """Return the arguments. Senseless arguments end the process with code 2 and a message."""
        parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
        parser.add_argument("split", type=Path, help="directory of a fixed split")
        parser.add_argument("--models", nargs="+", choices=PEERS, default=PEERS, metavar="MODEL", help=", ".join(PEERS))
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--out", type=Path, help="[default: peers/ under ADSEQ_HOME]")
        parser.add_argument("--python", type=Path, default=ENVIRONMENT, help="of the environment with the peers")
        parser.add_argument(
            "--lists",
            nargs="+",
            type=_named,
            default=[],
            metavar="NAME=FILE",
            help="lists of others to score beside them",
        )
        parser.add_argument("--again", action="store_true", help="train again what is there already")
        chosen = parser.parse_args(given)
        home = Path(os.environ.get("ADSEQ_HOME") or ".adseq")
        return cls(
            split=chosen.split.absolute(),
            models=tuple(name for name in PEERS if name in chosen.models),
            seed=chosen.seed,
            out=(chosen.out or home / "peers").absolute() / chosen.split.absolute().name / f"seed-{chosen.seed}",
            python=chosen.python.absolute(),
            lists=tuple(chosen.lists),
            again=chosen.again,
        )


def main(given: Sequence[str]) -> int:
    """Return the exit code: 1 where a peer failed, 2 where nothing could be started."""
    arguments, console = Arguments.parse(given), Console()
    from pipelines.cli.errors import RunRefused
    from pipelines.evaluate.split import Split  # imports torch: `--help` need not wait for it

    try:
        split = Split.read(arguments.split)
    except RunRefused as refusal:
        console.print(str(refusal), style="red", highlight=False, soft_wrap=True)
        return 2
    outcomes: list[Outcome] = []
    for name in arguments.models:
        outcomes += peer_outcomes(name, arguments, split, console)
    outcomes += [lists_outcome(name, path, split) for name, path in arguments.lists]
    table = table_of(split.name, arguments.seed, outcomes)
    table.show(console)
    page = arguments.out / "table.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{table.markdown()}\n")
    console.print(f"As Markdown in {page}", highlight=False, soft_wrap=True)
    return int(any(isinstance(outcome, Failed) for outcome in outcomes))


def peer_outcomes(name: str, arguments: Arguments, split: Split, console: Console) -> list[Outcome]:
    """Return the peer's answers with figures, or one ``Failed``, so that the other peers are still shown."""
    from benchmarks.peers.scoring import ListsRefused, score

    path = result_path(arguments.out, name)
    try:
        if arguments.again or not is_there(path, arguments):
            train(name, arguments, console)
        result = PeerResult.read(path)
        return [ScoredPeer(result, each, score(path.with_name(each.lists), split)) for each in result.answers]
    except (PeerFailed, ListsRefused, ValueError) as failure:
        return [Failed(name, str(failure))]


class PeerFailed(RuntimeError):
    """A peer's process ended without a result."""


def is_there(path: Path, arguments: Arguments) -> bool:
    """Return whether a whole result of exactly this split's files and this seed lies there."""
    if not path.is_file():
        return False
    result = PeerResult.read(path)
    return result.seed == arguments.seed and result.split == fingerprint(arguments.split)


def train(name: str, arguments: Arguments, console: Console) -> None:
    """Run the peer's own process; the output of the process passes through.

    Raises:
        PeerFailed: the process could not be started, or ended with an error.
    """
    if not arguments.python.is_file():
        raise PeerFailed(
            f"there is no {arguments.python}: `make peers SPLIT=...` makes the peers' environment; or give the Python "
            "of an environment with benchmarks/peers/requirements.txt as --python."
        )
    console.print(f"Training {name} ...", highlight=False)
    command = [arguments.python, "-m", "benchmarks.peers.train", name, arguments.split]
    options = ["--out", arguments.out, "--seed", arguments.seed]
    # One thread for OpenBLAS, as implicit asks for: it has threads of its own.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    try:
        ended = subprocess.run(list(map(str, command + options)), cwd=PROJECT, env=environment, check=False)
    except OSError as error:
        raise PeerFailed(f"{arguments.python} could not be started: {error}.") from error
    if ended.returncode < 0:
        raise PeerFailed(f"its process was killed by signal {-ended.returncode} (9: often for want of memory).")
    if ended.returncode:
        raise PeerFailed(f"its process ended with exit code {ended.returncode}; its output is above.")
    if not result_path(arguments.out, name).is_file():
        raise PeerFailed("its process ended well, but left no result.")


def lists_outcome(name: str, path: Path, split: Split) -> Outcome:
    """Return the lists of another system with figures."""
    from benchmarks.peers.scoring import ListsRefused, score

    try:
        return ScoredLists(name, score(path, split))
    except ListsRefused as refusal:
        return Failed(name, str(refusal))


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
