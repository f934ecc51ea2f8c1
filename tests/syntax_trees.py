"""Python modules as syntax trees, for the tests that read code."""

from __future__ import annotations

import ast
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    """The module's syntax tree.

    CPython before 3.11.8 loses count of its recursion where another thread parses at the same moment, and says so by a
    SystemError (its issue 106905): then once more.
    """
    source = path.read_text()
    try:
        return ast.parse(source)
    except SystemError:
        return ast.parse(source)
