"""The generators by name: those of the service, and those that installed packages offer by an entry point.

A package offers a generator by an entry point of the group ``adseq.generators``: the name of the generator, and a
function that takes the settings of the service and returns the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

from serving.contracts import Source
from serving.generators import AdvertiserLists, Generator, ItemNeighbours, Popularity
from settings import ServingSettings

GROUP = "adseq.generators"
Factory = Callable[[ServingSettings], Generator]

BUILT_IN: dict[str, Factory] = {
    Source.item_neighbours.value: lambda _: ItemNeighbours(),
    Source.advertiser_lists.value: lambda settings: AdvertiserLists(settings.advertiser_quota),
    Source.popularity.value: lambda _: Popularity(),
}


class GeneratorRefused(ValueError):
    """The settings name a generator that cannot be used; the message says why."""


def generators_of(settings: ServingSettings) -> list[tuple[Generator, float]]:
    """Return the generators that the settings name, each with its share.

    Raises:
        GeneratorRefused: no generator has a name, several have it, or a generator cannot be made.
    """
    offered = tuple(entry_points(group=GROUP))
    return [(_generator_of(name, offered, settings), share) for name, share in settings.generator_shares.items()]


def is_built_in(name: str) -> bool:
    """Return whether a generator is of the service, and not of another package."""
    return name in BUILT_IN


def _generator_of(name: str, offered: Sequence[EntryPoint], settings: ServingSettings) -> Generator:
    named = [each for each in offered if each.name == name]
    if name in BUILT_IN and not named:
        return BUILT_IN[name](settings)
    if not named:
        known = sorted({*BUILT_IN, *(each.name for each in offered)})
        raise GeneratorRefused(
            f"serving.generators names {name}, and there is no such generator. Known: {', '.join(known)}. Correct the "
            "name, or install the package that offers the generator."
        )
    packages = ["adseq"] * (name in BUILT_IN) + [_package(each) for each in named]
    if len(packages) > 1:
        raise GeneratorRefused(f"The generator {name} is of {' and of '.join(packages)}: uninstall all but one.")
    return _made(named[0], settings)


def _made(offered: EntryPoint, settings: ServingSettings) -> Generator:
    try:
        generator: Generator = offered.load()(settings)
        source = generator.source
    except Exception as error:  # whatever a package raises when it is imported
        raise GeneratorRefused(
            f"The generator {offered.name} of {_package(offered)} ({offered.value}) cannot be made: "
            f"{type(error).__name__}: {error}"
        ) from error
    if source != offered.name:
        raise GeneratorRefused(
            f"The generator {offered.name} of {_package(offered)} has the source {source}: entry point and source must "
            "have one name."
        )
    return generator


def _package(offered: EntryPoint) -> str:
    return "a package without a name" if offered.dist is None else f"{offered.dist.name} {offered.dist.version}"
