"""Generators by name: those of installed packages are found, and what cannot be used is refused by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.generator_plugins import GeneratorRefused, generators_of
from serving.generators import AdvertiserLists, ItemNeighbours
from settings import ServingSettings, Settings

MODULE = """
class Mine:
    source = "{source}"

    def __init__(self, settings):
        self.quota = settings.advertiser_quota

    def generate(self, served, query, wanted):
        return []

def broken(settings):
    raise OSError("no model here")
"""


def install(folder: Path, package: str, entry_points: dict[str, str], source: str = "mine") -> None:
    """Put a package into a folder as an installer does: a module, and a dist-info folder with the entry points."""
    (folder / f"{package}.py").write_text(MODULE.format(source=source))
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[adseq.generators]", *lines]))
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def settings(**shares: float) -> ServingSettings:
    return ServingSettings(generators=shares, advertiser_quota=5)


def test_without_the_setting_the_two_generators_of_the_service_have_the_shares_of_before() -> None:
    (first, rest), (second, share) = generators_of(ServingSettings(advertiser_share=0.3, advertiser_quota=4))
    assert isinstance(first, ItemNeighbours)
    assert second == AdvertiserLists(4)
    assert (rest, share) == (0.7, 0.3)


def test_an_installed_package_offers_a_generator(site: Path) -> None:
    install(site, "my_package", {"mine": "my_package:Mine"})
    (first, rest), (second, share), (third, of_third) = generators_of(
        settings(item_neighbours=0.5, mine=0.1, advertiser_lists=0.2)
    )
    assert [first.source, second.source, third.source] == ["item_neighbours", "mine", "advertiser_lists"]
    assert [rest, share, of_third] == pytest.approx([0.7, 0.1, 0.2])
    assert second.quota == 5  # type: ignore[attr-defined]


def test_an_unknown_name_is_refused_with_the_known_ones(site: Path) -> None:
    install(site, "my_package", {"mine": "my_package:Mine"})
    with pytest.raises(
        GeneratorRefused,
        match=r"names neighbours, and there is no such generator\. "
        r"Known: advertiser_lists, item_neighbours, mine, popularity\. Correct the name, or install the package",
    ):
        generators_of(settings(item_neighbours=0.8, neighbours=0.2))


def test_a_name_of_two_packages_or_of_the_service_is_refused(site: Path) -> None:
    install(site, "my_package", {"mine": "my_package:Mine", "popularity": "my_package:Mine"})
    install(site, "your_package", {"mine": "your_package:Mine"})
    with pytest.raises(GeneratorRefused, match=r"mine is of (my|your)_package 1\.2 and of (my|your)_package"):
        generators_of(settings(mine=1))
    with pytest.raises(GeneratorRefused, match=r"popularity is of adseq and of my_package 1\.2"):
        generators_of(settings(popularity=1))
    assert len(generators_of(ServingSettings())) == 2  # whatever the settings do not name does not matter


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:Mine", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("my_package:missing", "AttributeError: module 'my_package' has no attribute 'missing'"),
        ("my_package:broken", "OSError: no model here"),
    ],
)
def test_a_generator_that_cannot_be_made_is_refused_with_the_reason(site: Path, value: str, why: str) -> None:
    install(site, "my_package", {"mine": value})
    with pytest.raises(GeneratorRefused) as refused:
        generators_of(settings(mine=1))
    assert str(refused.value) == f"The generator mine of my_package 1.2 ({value}) cannot be made: {why}"


def test_entry_point_and_source_have_one_name(site: Path) -> None:
    install(site, "my_package", {"mine": "my_package:Mine"}, source="other")
    with pytest.raises(GeneratorRefused, match=r"mine of my_package 1\.2 has the source other"):
        generators_of(settings(mine=1))


@pytest.mark.parametrize(
    ("shares", "rule"),
    [
        ({"item_neighbours": 0.5, "mine": 0.6}, "add up to 1.1: they are at most 1 together"),
        ({"item_neighbours": 0.5, "mine": 0}, "greater than 0"),
        ({"item_neighbours": 0.5, "mine": -0.1}, "greater than 0"),
        ({"item_neighbours": 1.5}, "less than or equal to 1"),
    ],
)
def test_shares_are_positive_and_at_most_one_together(shares: dict[str, float], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        ServingSettings(generators=shares)


def test_the_first_has_what_the_others_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSEQ_SERVING__GENERATORS", '{"item_neighbours": 0.1, "mine": 0.25}')
    assert Settings().serving.generator_shares == {"item_neighbours": 0.75, "mine": 0.25}
    assert ServingSettings(generators={"mine": 0.2}).generator_shares == {"mine": 1.0}
    assert ServingSettings().generator_shares == {"item_neighbours": 0.8, "advertiser_lists": 0.2}
    tenths = dict.fromkeys("abcdefghij", 0.1)  # which add up to more than 1 in floating point
    assert sum(ServingSettings(generators=tenths).generator_shares.values()) == pytest.approx(1)
