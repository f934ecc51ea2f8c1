"""Categories, advertisers and items: what there is to buy, in latent and in observed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.contracts import CATEGORY_SEPARATOR
from warehouse.world.names import (
    BRAND_FIRST,
    BRAND_LAST,
    CATEGORIES,
    COUNTRIES,
    STYLE_DIMENSIONS,
    STYLE_WORDS,
    USE_SHARES,
    USES,
)
from warehouse.world.settings import WorldSettings

LEAF_DIMENSIONS = 16
CATEGORIES_PER_DEPARTMENT = 4
LEAVES_PER_CATEGORY = 3
LEAVES_PER_DEPARTMENT = CATEGORIES_PER_DEPARTMENT * LEAVES_PER_CATEGORY


@dataclass(frozen=True)
class Leaves:
    """The leaf categories. Leaf ``l`` belongs to category ``l // 3`` and department ``l // 12``.

    Attributes:
        paths: ``Home > Furniture > Armchair``, one a leaf.
        weight: interest in a leaf, a power law in random order, sums to 1.
        complement: the leaf that a completed intent leads to. A permutation made of cycles of four leaves, one of each
            category of a department: the bag of leaves of a user after a round does not tell which leaf is next.
        vectors: (leaves, 16) latent position, unit norm; siblings are close, complements are not closer than others of
            their department.
        phase: of the seasonal swing of interest.
    """

    paths: list[str]
    weight: NDArray[np.float64]
    complement: NDArray[np.int64]
    vectors: NDArray[np.float64]
    phase: NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.paths)

    def noun(self, leaf: int) -> str:
        return self.paths[leaf].rsplit(CATEGORY_SEPARATOR, 1)[1]

    def weight_on(self, day: int) -> NDArray[np.float64]:
        """Return the interest in each leaf on a day: the power law with seasons of a year, sums to 1."""
        weight = self.weight * np.exp(0.4 * np.sin(2 * np.pi * day / 365 + self.phase))
        share: NDArray[np.float64] = weight / weight.sum()
        return share


@dataclass(frozen=True)
class Items:
    """All items that exist by the horizon, in order of appearance (an earlier horizon is a prefix).

    Attributes:
        leaf, advertiser: (items,) indices.
        style: (items, 8) latent style, unit norm. use: (items,) index of ``USES``.
        price_level: (items,) standardised: cheap -2 … dear +2. price: in US dollars on the first day.
        popularity: (items,) log-popularity without drift. drift_period (days), drift_phase: of its swing.
        first_day: (items,) day number of appearance; 0 for the initial ones.
        ships_to: (items, countries) bool.
        embedding: (items, embedding_dimensions) observed content embedding.
    """

    leaf: NDArray[np.int64]
    advertiser: NDArray[np.int64]
    style: NDArray[np.float64]
    use: NDArray[np.int64]
    price_level: NDArray[np.float64]
    price: NDArray[np.float64]
    popularity: NDArray[np.float64]
    drift_period: NDArray[np.float64]
    drift_phase: NDArray[np.float64]
    first_day: NDArray[np.int64]
    ships_to: NDArray[np.bool_]
    embedding: NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.leaf)

    @cached_property
    def ids(self) -> pl.Series:
        return identifiers("i", self.count)


WIDTHS = (16, 32, 64, 128)  # of the classes of leaves; the last class has the largest leaf


@dataclass(frozen=True)
class LeafTables:
    """Item attributes laid out by leaf, (leaves, width, …) as ``Catalogue.leaf_items``: a session reads one block."""

    style: NDArray[np.float64]
    price_level: NDArray[np.float64]
    advertiser: NDArray[np.int64]
    bars: NDArray[np.float64]  # (countries, leaves, width): 0 where an item ships to the country, else -inf

    @classmethod
    def gather(cls, items: Items, leaf_items: NDArray[np.int64]) -> LeafTables:
        def padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.concatenate([values, np.zeros_like(values[:1])])

        bars = np.where(np.concatenate([items.ships_to, np.zeros_like(items.ships_to[:1])]), 0.0, -np.inf)
        return cls(
            style=padded(items.style)[leaf_items],
            price_level=padded(items.price_level)[leaf_items],
            advertiser=np.append(items.advertiser, 0)[leaf_items],
            bars=np.ascontiguousarray(np.moveaxis(bars[leaf_items], -1, 0)),
        )


@dataclass(frozen=True)
class WorldCatalogue:
    """Leaves, advertisers and items up to a horizon.

    Attributes:
        advertiser_leaves: (advertisers, leaves) bool, whether each sells a leaf.
        advertiser_level: (advertisers,) price level.
        leaf_items: (leaves, width) item indices of each leaf in order of appearance, padded with ``items.count``.
    """

    settings: WorldSettings
    leaves: Leaves
    advertiser_leaves: NDArray[np.bool_]
    advertiser_level: NDArray[np.float64]
    items: Items
    leaf_items: NDArray[np.int64]

    @cached_property
    def advertiser_ids(self) -> pl.Series:
        return identifiers("a", self.settings.advertisers)

    @cached_property
    def leaf_tables(self) -> LeafTables:
        return LeafTables.gather(self.items, self.leaf_items)

    @cached_property
    def leaf_sizes(self) -> NDArray[np.int64]:
        """Return the number of items of each leaf (leaves,)."""
        return (self.leaf_items < self.items.count).sum(axis=1)

    def by_width(self, leaf: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield the rows of ``leaf`` in classes of leaves of like size, with a width that holds the leaves of a class.

        Most leaves are far smaller than the largest one, to whose width ``leaf_items`` is padded.
        """
        size = self.leaf_sizes[leaf]
        for low, high in pairwise(
            [0, *WIDTHS[: np.searchsorted(WIDTHS, self.leaf_items.shape[1])], self.leaf_items.shape[1]]
        ):
            rows = np.flatnonzero((size > low) & (size <= high))
            if len(rows):
                yield rows, high

    def log_popularity(self, day: int) -> NDArray[np.float64]:
        """Return the log-popularity (items,) on a day: power law, swing, launch boost; -inf before an item appears."""
        items, settings = self.items, self.settings
        age = day - items.first_day
        value = items.popularity + settings.popularity_drift * np.sin(
            2 * np.pi * day / items.drift_period + items.drift_phase
        )
        launched = (items.first_day > 0) * settings.freshness_boost
        value = value + launched * np.exp(-np.maximum(age, 0) / settings.freshness_days)
        return np.where(age >= 0, value, -np.inf)

    def prices(self, day: int) -> NDArray[np.float64]:
        """Return the prices (items,) on a day, after the changes of the daily days up to that day."""
        price = self.items.price.copy()
        for changed_day in range(self.settings.history_days, day + 1):
            rows, factor = self.price_changes(changed_day)
            price[rows] *= factor
        return np.round(price, 2)

    def price_changes(self, day: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the items (older than the day) whose price changes on a daily day, and the factors."""
        generator = self.settings.generator("price changes", day)
        older = int(np.searchsorted(self.items.first_day, day, side="left"))
        draw, factor = generator.random(older), generator.uniform(0.8, 1.1, older)
        rows = np.flatnonzero(draw < self.settings.price_changes_per_day)
        return rows, factor[rows]

    def frame(self, rows: NDArray[np.int64], day: int) -> pl.DataFrame:
        """Return the items table (``warehouse.contracts``) of some items as of a day."""
        return _item_frame(self, rows, day)


def identifiers(prefix: str, count: int) -> pl.Series:
    """Return ``count`` identifiers, ``i000000``, ``i000001``, … for the prefix ``i``, to gather from by row."""
    return (prefix + pl.int_range(count, eager=True).cast(pl.String).str.zfill(6)).alias("id")


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rows scaled to norm 1."""
    scaled: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def build_catalogue(settings: WorldSettings, last_day: int) -> WorldCatalogue:
    """Return the catalogue with every item that appears up to and including ``last_day`` (a day number)."""
    leaves = _build_leaves(settings)
    generator = settings.generator("advertisers")
    department = np.arange(settings.advertisers) % settings.departments
    sells = np.zeros((settings.advertisers, leaves.count), dtype=bool)
    for advertiser, own in enumerate(department):
        count = min(settings.leaves_per_advertiser, LEAVES_PER_DEPARTMENT)
        # Half of an advertiser's range goes round one cycle of complements, so that "same brand" can follow an intent.
        start = own * LEAVES_PER_DEPARTMENT + int(generator.integers(LEAVES_PER_DEPARTMENT))
        cycle = [start, leaves.complement[start], leaves.complement[leaves.complement[start]]][: (count + 1) // 2]
        others = own * LEAVES_PER_DEPARTMENT + generator.permutation(LEAVES_PER_DEPARTMENT)[: count - len(cycle)]
        sells[advertiser, cycle] = True
        sells[advertiser, others] = True
    level = generator.normal(0, 1, settings.advertisers)
    reach = generator.pareto(1.5, settings.advertisers) + 0.2
    batches = [
        _item_batch(settings, leaves, sells, level=level, reach=reach, day=day)
        for day in range(last_day + 1)
        if day == 0 or settings.new_items_per_day
    ]
    items = Items(**{name: np.concatenate([getattr(b, name) for b in batches]) for name in Items.__annotations__})
    return WorldCatalogue(settings, leaves, sells, level, items, _leaf_table(items, leaves.count))


def _build_leaves(settings: WorldSettings) -> Leaves:
    generator = settings.generator("leaves")
    departments = list(CATEGORIES.items())[: settings.departments]
    paths = [
        CATEGORY_SEPARATOR.join((department, category, leaf))
        for department, categories in departments
        for category, leaves in categories.items()
        for leaf in leaves
    ]
    count = len(paths)
    weight = (generator.permutation(count) + 1.0) ** -settings.leaf_exponent
    complement = np.empty(count, dtype=np.int64)
    for department in range(settings.departments):
        first = department * LEAVES_PER_DEPARTMENT
        # One leaf of each category a cycle; (3 cycles, 4 categories) leaf indices.
        cycles = np.stack(
            [
                first + category * LEAVES_PER_CATEGORY + generator.permutation(LEAVES_PER_CATEGORY)
                for category in generator.permutation(CATEGORIES_PER_DEPARTMENT)
            ],
            axis=1,
        )
        complement[cycles] = np.roll(cycles, -1, axis=1)
    index = np.arange(count)
    vectors = (
        generator.normal(0, 1, (settings.departments, LEAF_DIMENSIONS))[index // LEAVES_PER_DEPARTMENT]
        + generator.normal(0, 1, (count // LEAVES_PER_CATEGORY, LEAF_DIMENSIONS))[index // LEAVES_PER_CATEGORY]
        + generator.normal(0, 1, (count, LEAF_DIMENSIONS))
    )
    return Leaves(paths, weight / weight.sum(), complement, unit(vectors), generator.uniform(0, 2 * np.pi, count))


def _item_batch(
    settings: WorldSettings,
    leaves: Leaves,
    sells: NDArray[np.bool_],
    *,
    level: NDArray[np.float64],
    reach: NDArray[np.float64],
    day: int,
) -> Items:
    """Return the items that appear on one day (day 0: the initial catalogue)."""
    generator = settings.generator("items", day)
    count = settings.initial_items if day == 0 else settings.new_items_per_day
    leaf = generator.choice(leaves.count, count, p=leaves.weight)
    weight = np.where(sells.T, reach, 0.0) + 1e-6 * reach  # a leaf that nobody sells still finds an advertiser
    cumulative = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    advertiser = np.minimum((generator.random(count)[:, None] > cumulative[leaf]).sum(axis=1), settings.advertisers - 1)
    style = unit(generator.normal(0, 1, (count, STYLE_DIMENSIONS)))
    price_level = 0.8 * level[advertiser] + 0.6 * generator.normal(0, 1, count)
    typical = settings.generator("leaf prices").normal(3.5, 0.8, leaves.count)
    # Zipf: at rank r of n the weight is r^-exponent. A random quantile q stands for r/n, so that items can be added.
    quantile = generator.uniform(0.004, 1, count)
    ships_to = np.ones((count, len(COUNTRIES)), dtype=bool)
    restricted = generator.random(count) < settings.restricted_share
    allowed = generator.random((count, len(COUNTRIES))).argsort(axis=1) < generator.integers(1, 4, count)[:, None]
    ships_to[restricted] = allowed[restricted]
    latent = np.concatenate([leaves.vectors[leaf], style], axis=1) / np.sqrt(2)
    width = settings.embedding_dimensions
    rotation = np.linalg.qr(settings.generator("embedding").normal(0, 1, (width, width)))[0][: latent.shape[1]]
    noise = generator.normal(0, settings.embedding_noise / np.sqrt(width), (count, width))
    return Items(
        leaf=leaf,
        advertiser=advertiser,
        style=style,
        use=settings.generator("uses", day).choice(len(USES), count, p=USE_SHARES),
        price_level=price_level,
        price=np.round(np.exp(typical[leaf] + 0.5 * price_level), 2),
        popularity=-settings.popularity_exponent * np.log(quantile),
        drift_period=generator.uniform(60, 300, count),
        drift_phase=generator.uniform(0, 2 * np.pi, count),
        first_day=np.full(count, day, dtype=np.int64),
        ships_to=ships_to,
        embedding=np.einsum("nl,lw->nw", latent, rotation) + noise,
    )


def _leaf_table(items: Items, leaves: int) -> NDArray[np.int64]:
    members = [np.flatnonzero(items.leaf == leaf) for leaf in range(leaves)]
    table = np.full((leaves, max(map(len, members))), items.count, dtype=np.int64)
    for leaf, rows in enumerate(members):
        table[leaf, : len(rows)] = rows
    return table


def brand_name(advertiser: int) -> str:
    """Return the name of an advertiser, like ``Nordwick``; beyond 144 advertisers the names repeat with a number."""
    cycle, number = divmod(advertiser, len(BRAND_FIRST) * len(BRAND_LAST))
    first, last = BRAND_FIRST[number % len(BRAND_FIRST)], BRAND_LAST[number // len(BRAND_FIRST)]
    name = f"{first} {last}" if last.startswith("and ") else first + last
    return name if cycle == 0 else f"{name} {cycle + 1}"


def _item_frame(catalogue: WorldCatalogue, rows: NDArray[np.int64], day: int) -> pl.DataFrame:
    items, leaves, settings = catalogue.items, catalogue.leaves, catalogue.settings
    strongest = np.abs(items.style[rows]).argmax(axis=1)
    positive = items.style[rows, strongest] > 0
    content = settings.generator("content types").choice(
        np.array(["shopping", "standard", "video", "carousel"]), items.count, p=[0.88, 0.05, 0.04, 0.03]
    )
    midnights = [settings.midnight(int(first)) for first in items.first_day[rows]]
    return pl.DataFrame(
        {
            "item_id": items.ids.gather(rows),
            "advertiser_id": catalogue.advertiser_ids.gather(items.advertiser[rows]),
            "title": [
                f"{STYLE_WORDS[dimension][0 if up else 1]} {leaves.noun(int(leaf))} by {brand_name(int(advertiser))}"
                for dimension, up, leaf, advertiser in zip(
                    strongest, positive, items.leaf[rows], items.advertiser[rows], strict=True
                )
            ],
            "content_type": content[rows],
            "category": [leaves.paths[leaf] for leaf in items.leaf[rows]],
            "price": catalogue.prices(day)[rows],
            "currency": ["USD"] * len(rows),
            "availability": ["in stock"] * len(rows),
            "countries": [
                None if ships.all() else [c for c, ok in zip(COUNTRIES, ships, strict=True) if ok]
                for ships in items.ships_to[rows]
            ],
            "interests": _interests(catalogue, rows),
            "embedding": items.embedding[rows].astype(np.float32).tolist(),
            "available_from": midnights,
        },
        schema={
            "item_id": pl.String,
            "advertiser_id": pl.String,
            "title": pl.String,
            "content_type": pl.String,
            "category": pl.String,
            "price": pl.Float64,
            "currency": pl.String,
            "availability": pl.String,
            "countries": pl.List(pl.String),
            "interests": pl.List(pl.Struct({"interest": pl.String, "confidence": pl.Float64})),
            "embedding": pl.List(pl.Float32),
            "available_from": pl.Datetime("us", "UTC"),
        },
    )


def _interests(catalogue: WorldCatalogue, rows: NDArray[np.int64]) -> list[list[dict[str, object]]]:
    """Return the nodes of each category path and the use with confidences, as an annotator would.

    Some are missed, some are wrong.
    """
    settings, leaves = catalogue.settings, catalogue.leaves
    everything: list[list[dict[str, object]]] = []
    for row in rows:
        generator = settings.generator("interests", stream=int(row))
        leaf = int(catalogue.items.leaf[row])
        names = leaves.paths[leaf].split(CATEGORY_SEPARATOR)
        nodes = [CATEGORY_SEPARATOR.join(names[: depth + 1]) for depth in range(len(names))]
        levels = list(zip(nodes, (0.6, 0.75, 0.9), strict=True))
        kept = [level for level in levels if generator.random() > 0.1] or [levels[1]]
        if generator.random() < 0.2:
            kept.append((leaves.paths[int(generator.integers(leaves.count))], 0.35))
        if generator.random() > 0.2:
            kept.append((USES[catalogue.items.use[row]], 0.7))
        confidence = np.clip([centre + generator.normal(0, 0.1) for _, centre in kept], 0.05, 1.0)
        pairs = sorted(dict(zip((name for name, _ in kept), confidence, strict=True)).items(), key=lambda p: -p[1])
        everything.append([{"interest": name, "confidence": round(float(value), 3)} for name, value in pairs])
    return everything
