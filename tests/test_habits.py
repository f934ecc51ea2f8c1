"""Habits of the code that no linter checks: one subject for a file name, arguments by name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("warehouse", "ml", "serving", "assets", "pipelines", "benchmarks")
SOURCES = [PROJECT / "settings.py", *sorted(path for name in PACKAGES for path in (PROJECT / name).rglob("*.py"))]

STAGE = "a stage in assets/, and the work that the stage calls"
COMMAND = "a command, and the work that the command calls"
BENCHMARK = "the benchmark of the module"
NETWORK = "a network, and its form in MLflow's registry"
SHARED_NAMES = {
    "__init__": "Python's",
    "__main__": "Python's",
    "advertiser_model": NETWORK,
    "item_model": NETWORK,
    "advertisers": STAGE,
    "alpha_sweep": STAGE,
    "advertiser_report": STAGE,
    "daily_recall": STAGE,
    "encode": STAGE,
    "history_page": STAGE,
    "period": STAGE,
    "quality": STAGE,
    "retention": STAGE,
    "sequences": STAGE + "; the same sequences in the online store",
    "forget": COMMAND,
    "rollback": COMMAND,
    "inference": BENCHMARK,
    "states": BENCHMARK,
    "training": BENCHMARK,
    "train": "training: of adseq's models, of the peers",
    "scoring": "the scores of a fixed split: of adseq's models, of the peers",
    "publication": STAGE + "; its form in the store and in the service; " + BENCHMARK,
    "app": "the application of the package: HTTP, command line",
    "catalogue": "the items: of the synthetic world, of the service",
    "contracts": "the shape of the input: of the landing zone, of the service",
    "home": "a home, and the check of a home",
    "settings": "the settings: of adseq, of the synthetic world",
    "tables": "the Delta tables, the check of them, and the inference that reads and writes them",
}
"""Names that several modules have, each with the subject that those modules share."""


def test_a_file_name_has_one_subject() -> None:
    modules = defaultdict(list)
    for path in SOURCES:
        modules[path.stem].append(str(path.relative_to(PROJECT)))
    shared = {name: paths for name, paths in modules.items() if len(paths) > 1}
    unexplained = {name: paths for name, paths in shared.items() if name not in SHARED_NAMES}
    assert not unexplained, "choose another name, or say in SHARED_NAMES which subject the modules share"
    assert not SHARED_NAMES.keys() - shared.keys(), "no longer shared: take the name out of SHARED_NAMES"
