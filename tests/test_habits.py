"""Habits of the code that no linter checks: one subject for a file name, arguments by name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.syntax_trees import parsed

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "warehouse", "ml", "serving", "assets", "pipelines", "benchmarks")
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
    "relevance_model": NETWORK,
    "advertisers": STAGE,
    "alpha_sweep": STAGE,
    "advertiser_report": STAGE,
    "daily_recall": STAGE,
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
    "market": "the market of the synthetic world, from day to day; " + BENCHMARK,
    "settings": "the settings: of adseq, of the synthetic world, of its market",
    "tables": "the Delta tables, and the check of them",
}
"""Names that several modules have, each with the subject that those modules share."""

FEW = 4  # a function with more parameters takes at most ``BY_POSITION`` of them by position
BY_POSITION = 3
OF_A_FRAMEWORK = {
    "ml/models/head_export.py:QueryHead.forward": "torch.export calls a module with its tensors in order",
    "ml/training/fit.py:StepClock.on_train_batch_end": "Lightning's signature",
    **{
        f"pipelines/cli/app.py:{command}": "typer calls a command by name and lists its arguments in this order"
        for command in ("run", "recommend", "evaluate_split", "split_log", "tune_settings")
    },
}
"""Functions whose signature a framework sets."""


def test_a_file_name_has_one_subject() -> None:
    modules = defaultdict(list)
    for path in SOURCES:
        modules[path.stem].append(str(path.relative_to(PROJECT)))
    shared = {name: paths for name, paths in modules.items() if len(paths) > 1}
    unexplained = {name: paths for name, paths in shared.items() if name not in SHARED_NAMES}
    assert not unexplained, "choose another name, or say in SHARED_NAMES which subject the modules share"
    assert not SHARED_NAMES.keys() - shared.keys(), "no longer shared: take the name out of SHARED_NAMES"


def test_of_many_arguments_most_are_given_by_name() -> None:
    found = {function for path in SOURCES for function in many_by_position(path)}
    unexplained = found - OF_A_FRAMEWORK.keys()
    assert not unexplained, f"put `*` after the parameter {BY_POSITION} at the latest"
    assert not OF_A_FRAMEWORK.keys() - found, "take these out of the list"


def many_by_position(path: Path) -> Iterator[str]:
    """Yield ``file:Class.function`` of each function that breaks the rule."""
    tree = parsed(path)
    owners = {child: node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        is_static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
        bound = 1 if node in owners and not is_static else 0  # self, cls
        by_position = len(node.args.posonlyargs) + len(node.args.args) - bound
        if by_position + len(node.args.kwonlyargs) > FEW and by_position > BY_POSITION:
            name = f"{owners[node]}.{node.name}" if node in owners else node.name
            yield f"{path.relative_to(PROJECT)}:{name}"
