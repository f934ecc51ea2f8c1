"""What the documents name exists: links, paths of the repository, commands, targets of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from pipelines.cli.app import app

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])
PACKAGES = "pipelines|assets|serving|ml|warehouse|benchmarks|tests"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    paths = re.findall(rf"`((?:{PACKAGES})/[\w/]*(?:\.\w+)?)`", text)
    missing += [path for path in paths if not (PROJECT / path).exists()]
    modules = re.findall(rf"`((?:{PACKAGES})(?:\.[a-z_]+)+)`", text)
    missing += [module for module in modules if not _is_of_a_module(module)]
    assert not missing


def _is_of_a_module(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name that its module has."""
    path = PROJECT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module = path.parent.with_suffix(".py")
    return module.exists() and re.search(rf"\b{path.name}\b", module.read_text()) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_into_a_page_lead_to_a_heading_of_it(document: Path) -> None:
    missing = []
    for page, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", document.read_text()):
        text = (document.parent / page if page else document).read_text()
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        if anchor not in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}:
            missing.append(f"{page}#{anchor}")
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    text = document.read_text()
    command = typer.main.get_command(app)
    known = set(command.commands)  # type: ignore[attr-defined]
    blocks = "\n".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    named = set(re.findall(r"`adseq ([a-z]+)", text)) | set(re.findall(r"^adseq ([a-z]+)", blocks, re.MULTILINE))
    assert named <= known
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    asked = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", blocks, re.MULTILINE))
    assert asked <= targets
