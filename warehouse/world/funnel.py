"""The on-site ad funnel under a legacy policy: what the impression log and the relevance raters saw.

A request shows a subject item (related_pins), a query (search) or nothing (home_feed). The legacy policy fills a short
list from the subject's category, its siblings and complement, the user's newest intent and what is popular; the list is
trimmed by relevance to the subject, ranked lightly by relevance and the user's affinity, put to auction, shown,
clicked, converted. The clicks and conversions logged here are on-site ones: they do not move a user's intents and do
not appear in the offsite event log, so the oracle needs no knowledge of the funnel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.contracts import STAGES
from warehouse.surfaces import Surface
from warehouse.world.catalogue import LEAVES_PER_CATEGORY, LEAVES_PER_DEPARTMENT
from warehouse.world.dynamics import State, World
from warehouse.world.log import EVENT_TIME, HOURLY_ACTIVITY
from warehouse.world.names import STYLE_DIMENSIONS, STYLE_WORDS

SURFACES = [surface.value for surface in (Surface.related_pins, Surface.search, Surface.home_feed)]
RELATED_PINS, SEARCH, HOME_FEED = range(3)  # places in SURFACES
RETRIEVED, TRIMMED, RANKED, AUCTIONED, IMPRESSED, CLICKED, CONVERTED = range(7)
CATEGORY, SIBLING, COMPLEMENT, PROFILE, POPULAR = range(5)
SOURCES = pl.Series(["category_match", "sibling_category", "complement", "profile", "popular"])
# The short list is filled by going round these recipes.
WITH_SUBJECT = (CATEGORY, SIBLING, CATEGORY, POPULAR, COMPLEMENT, CATEGORY, PROFILE, SIBLING, CATEGORY, POPULAR)
WITHOUT_SUBJECT = (PROFILE, POPULAR)
OVER_BUDGET_SHARE = 0.1
MINIMUM_RELEVANCE = 0.3
AUCTION_SIZE = 5
SLOTS_SHOWN = 2

IMPRESSION_SCHEMA = pl.Schema(
    {
        "request_id": pl.String(),
        "request_time": EVENT_TIME,
        "user_id": pl.String(),
        "surface": pl.String(),
        "subject_item_id": pl.String(),
        "query": pl.String(),
        "item_id": pl.String(),
        "source": pl.String(),
        "stage": pl.String(),
    }
)


@dataclass(frozen=True)
class Requests:
    """One row a request: the walker, the surface, and the subject or query that the request shows.

    ``subject`` is an item index (-1 without), ``leaf`` the leaf of the subject or query (-1 on home_feed), ``style``
    (requests, 8) that of the subject or of the query's adjective (0 without), ``word`` the adjective's index (-1
    without).
    """

    row: NDArray[np.int64]
    surface: NDArray[np.int64]
    subject: NDArray[np.int64]
    leaf: NDArray[np.int64]
    style: NDArray[np.float64]
    word: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Requests:
        """Return some requests, repeats allowed."""
        return Requests(**{name: getattr(self, name)[rows] for name in Requests.__annotations__})


@dataclass(frozen=True)
class Candidates:
    """The candidates of each request (requests, candidates).

    ``item`` is an item index (-1 where nothing ships), ``recipe`` an index of ``SOURCES``. A candidate that is not
    ``valid`` repeats another candidate or the subject. ``relevance`` is the truth, ``stage`` the furthest stage that
    the candidate reached.
    """

    item: NDArray[np.int64]
    recipe: NDArray[np.int64]
    valid: NDArray[np.bool_]
    relevance: NDArray[np.float64]
    stage: NDArray[np.int64]


def log_requests(world: World, state: State, day: int) -> pl.DataFrame:
    """Return the impression log of one day: ``IMPRESSION_SCHEMA`` plus ``relevance``, the truth behind labels (0..1).

    Args:
        state: at the end of the day; it is read only.
    """
    generator = world.settings.generator("funnel", day)
    requests = draw_requests(world, state, day, generator)
    count = len(requests.row)
    candidates = lead_through(world, state, requests, day=day, generator=generator)
    second = (generator.choice(24, count, p=HOURLY_ACTIVITY / HOURLY_ACTIVITY.sum()) + generator.random(count)) * 3600
    request, slot = np.nonzero(candidates.valid)
    return _frame(
        world, state, requests, day=day, second=second, request=request, item=candidates.item[request, slot]
    ).with_columns(
        source=SOURCES.gather(candidates.recipe[request, slot]),
        stage=pl.Series(STAGES).gather(candidates.stage[request, slot]),
        relevance=pl.Series(candidates.relevance[request, slot]),
    )


def lead_through(
    world: World, state: State, requests: Requests, *, day: int, generator: np.random.Generator
) -> Candidates:
    """Draw candidates for each request by the legacy policy, and lead them through the funnel.

    Args:
        state: at the end of the day; it is read only.
    """
    recipe, leaf = draw_leaves(world, state, requests, day=day, generator=generator)
    person = np.repeat(state.person[requests.row], leaf.shape[1])
    item = _popular_items(world, person, leaf.ravel(), day=day, generator=generator).reshape(leaf.shape)
    return send_through(
        requests,
        recipe,
        item,
        relevance=true_relevance_of(world, requests, np.maximum(item, 0)),
        affinity=affinity_of(world, state, requests.row, np.maximum(item, 0)),
        generator=generator,
    )


def draw_leaves(
    world: World, state: State, requests: Requests, *, day: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the recipe of each candidate, and the leaf from which the candidate is drawn (requests, candidates)."""
    width = world.settings.candidates
    recipes = np.where(
        (requests.surface == HOME_FEED)[:, None],
        np.resize(np.array(WITHOUT_SUBJECT), width),
        np.resize(np.array(WITH_SUBJECT), width),
    )
    return recipes, _candidate_leaves(world, state, requests, recipes=recipes, day=day, generator=generator)


def send_through(
    requests: Requests,
    recipe: NDArray[np.int64],
    item: NDArray[np.int64],
    *,
    relevance: NDArray[np.float64],
    affinity: NDArray[np.float64],
    generator: np.random.Generator,
) -> Candidates:
    """Lead drawn candidates through trimming, light ranking, auction, click and conversion.

    Args:
        recipe, item, relevance, affinity: (requests, candidates).
    """
    width = item.shape[1]
    earlier = np.tril(np.ones((width, width), dtype=bool), -1)
    repeated = ((item[:, :, None] == item[:, None, :]) & earlier).any(axis=2)
    valid = (item >= 0) & ~repeated & (item != requests.subject[:, None])
    stage = _run_funnel(requests.surface, valid, relevance, affinity=affinity, generator=generator)
    return Candidates(item, recipe, valid, relevance, stage)


def relevance_to_subjects(world: World, subject: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the true relevance of items beside subjects, 0 to 1 [pairs]; both are item indices [pairs]."""
    items = world.catalogue.items
    beside = Requests(
        row=np.zeros_like(subject),
        surface=np.full_like(subject, RELATED_PINS),
        subject=subject,
        leaf=items.leaf[subject],
        style=items.style[subject],
        word=np.full_like(subject, -1),
    )
    return true_relevance_of(world, beside, item[:, None])[:, 0]


def rate(world: World, impressions: pl.DataFrame) -> pl.DataFrame:
    """Draw five-point labels of two raters, with rater noise, for a sample of (subject or query, candidate) pairs.

    Args:
        impressions: of ``log_requests``, with its ``relevance``.
    """
    generator = world.settings.generator("raters")
    judged = impressions.filter(pl.col("surface") != SURFACES[HOME_FEED])
    number = min(world.settings.relevance_labels, judged.height)
    rows = np.sort(generator.choice(judged.height, number, replace=False)) if number else np.zeros(0, dtype=np.int64)
    pairs = pl.concat([judged[rows]] * 2)
    noise = generator.normal(0, world.settings.rater_noise, pairs.height)
    label = np.clip(np.rint(1 + 4 * pairs["relevance"].to_numpy() + noise), 1, 5).astype(np.int32)
    raters = pl.Series([f"rater-{number}" for number in range(10)])
    first = generator.integers(0, 10, number)
    other = (first + generator.integers(1, 10, number)) % 10
    return pairs.select(
        "surface",
        "subject_item_id",
        "query",
        "item_id",
        raters.gather(np.concatenate([first, other])).alias("rater_id"),
        pl.Series("label", label),
        (pl.col("request_time") + pl.duration(days=1)).alias("labelled_at"),
    )


def draw_requests(world: World, state: State, day: int, generator: np.random.Generator) -> Requests:
    """Draw the requests of a day; ``generator``: the day's stream of the purpose "funnel"."""
    settings, population, leaves = world.settings, world.population, world.catalogue.leaves
    present = population.joined[state.person] <= day
    # Whoever shops much also browses much, though not in proportion.
    activity = population.session_probability[state.person]
    weight = 0.3 + 0.7 * activity / max(float(activity.mean()), 1e-12)
    probability = np.clip(settings.request_share * weight, 0, 0.5) * present
    row = np.flatnonzero(generator.random(len(probability)) < probability)
    count, person = len(row), state.person[row]
    shares = np.cumsum([settings.related_pins_share, settings.search_share])
    surface = (generator.random(count)[:, None] >= shares).sum(axis=1)

    newest = state.newest(row)
    from_intent = (state.leaf[row, newest] >= 0) & (generator.random(count) < settings.intent_subject_share)
    favourite = population.favourites[person, generator.integers(0, population.favourites.shape[1], count)]
    anywhere = generator.choice(leaves.count, count, p=leaves.weight_on(day))
    explored = np.where(generator.random(count) < 0.5, favourite, anywhere)
    leaf = np.where(from_intent, state.leaf[row, newest], explored)
    style = np.where(from_intent[:, None], state.style[row, newest], 0.0)
    advertiser = np.where(from_intent, state.advertiser[row, newest], -1)
    choice = world.choose(world.catalogue.log_popularity(day), person, leaf, style=style, advertiser=advertiser)
    possible = np.flatnonzero(choice.probability.any(axis=1))
    subject = np.full(count, -1)
    subject[possible] = choice.sample(possible, generator.random(len(possible)))
    surface = np.where((surface == RELATED_PINS) & (subject < 0), HOME_FEED, surface)

    word = np.where(generator.random(count) < 0.5, generator.integers(0, 2 * STYLE_DIMENSIONS, count), -1)
    word = np.where(surface == SEARCH, word, -1)
    adjective = np.zeros((count, STYLE_DIMENSIONS))
    spoken = np.flatnonzero(word >= 0)
    adjective[spoken, word[spoken] // 2] = 1 - 2 * (word[spoken] % 2)
    subject = np.where(surface == RELATED_PINS, subject, -1)
    shown = np.where((subject >= 0)[:, None], world.catalogue.items.style[np.maximum(subject, 0)], adjective)
    return Requests(row, surface, subject, np.where(surface == HOME_FEED, -1, leaf), shown, word)


def _candidate_leaves(
    world: World,
    state: State,
    requests: Requests,
    *,
    recipes: NDArray[np.int64],
    day: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the leaf from which each candidate is drawn (requests, candidates)."""
    leaves, population = world.catalogue.leaves, world.population
    own = np.broadcast_to(requests.leaf[:, None], recipes.shape)
    offset = generator.integers(1, LEAVES_PER_CATEGORY, recipes.shape)
    sibling = own // LEAVES_PER_CATEGORY * LEAVES_PER_CATEGORY + (own + offset) % LEAVES_PER_CATEGORY
    newest = state.leaf[requests.row, state.newest(requests.row)]
    profile = np.where(newest >= 0, newest, population.favourites[state.person[requests.row], 0])
    popular = generator.choice(leaves.count, recipes.shape, p=leaves.weight_on(day))
    return np.select(
        [recipes == CATEGORY, recipes == SIBLING, recipes == COMPLEMENT, recipes == PROFILE],
        [own, sibling, leaves.complement[own], np.broadcast_to(profile[:, None], recipes.shape)],
        popular,
    )


def _popular_items(
    world: World, person: NDArray[np.int64], leaf: NDArray[np.int64], *, day: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw an item for each leaf by popularity and price (the legacy policy knows no style); -1 where nothing ships."""
    no_style = np.zeros((len(leaf), STYLE_DIMENSIONS))
    choice = world.choose(
        world.catalogue.log_popularity(day), person, leaf, style=no_style, advertiser=np.full(len(leaf), -1)
    )
    possible = np.flatnonzero(choice.probability.any(axis=1))
    item = np.full(len(leaf), -1)
    item[possible] = choice.sample(possible, generator.random(len(possible)))
    return item


def true_relevance_of(world: World, requests: Requests, item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the true relevance to the subject or query in 0..1; 0.5 on home_feed, which has neither.

    The shape is (requests, candidates).
    """
    items, leaves = world.catalogue.items, world.catalogue.leaves
    leaf, own = items.leaf[item], requests.leaf[:, None]
    closeness = np.select(
        [
            leaf == own,
            leaf == leaves.complement[own],
            leaf // LEAVES_PER_CATEGORY == own // LEAVES_PER_CATEGORY,
            leaf // LEAVES_PER_DEPARTMENT == own // LEAVES_PER_DEPARTMENT,
        ],
        [0.7, 0.45, 0.4, 0.2],
        0.0,
    )
    match = np.einsum("ncd,nd->nc", items.style[item], requests.style)
    relevance: NDArray[np.float64] = np.clip(closeness + 0.3 * match * (closeness > 0), 0, 1)
    relevance[requests.surface == HOME_FEED] = 0.5
    return relevance


def affinity_of(world: World, state: State, row: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the affinity of the user to each candidate (requests, candidates).

    Living intents, favourite leaves, lasting style and price level count.
    """
    items, population = world.catalogue.items, world.population
    person, leaf = state.person[row], items.leaf[item]
    wanted = (leaf[:, :, None] == state.leaf[row][:, None, :]).any(axis=2)
    favourite = (leaf[:, :, None] == population.favourites[person][:, None, :]).any(axis=2)
    style = np.einsum("ncd,nd->nc", items.style[item], population.style[person])
    price = (items.price_level[item] - population.price_level[person][:, None]) ** 2
    affinity: NDArray[np.float64] = 0.3 * wanted + 0.15 * favourite + 0.7 * style - 0.1 * price
    return affinity


def _run_funnel(
    surface: NDArray[np.int64],
    valid: NDArray[np.bool_],
    relevance: NDArray[np.float64],
    *,
    affinity: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the furthest stage that each valid candidate reached (requests, candidates)."""
    shape = valid.shape
    stage = np.full(shape, RETRIEVED)
    considered = valid & (generator.random(shape) >= OVER_BUDGET_SHARE)
    relevant = relevance + generator.normal(0, 0.05, shape) >= MINIMUM_RELEVANCE
    relevant |= (surface == HOME_FEED)[:, None]
    stage[considered & ~relevant] = TRIMMED
    score = relevance + affinity + generator.normal(0, 0.1, shape)
    ranked = considered & relevant
    stage[ranked] = RANKED
    auctioned = ranked & (_position(score, ranked) < AUCTION_SIZE)
    stage[auctioned] = AUCTIONED
    bid = generator.normal(0, 0.15, shape)
    impressed = auctioned & (_position(score + bid, auctioned) < SLOTS_SHOWN)
    stage[impressed] = IMPRESSED
    click_probability = 1 / (1 + np.exp(4.0 - 2.0 * relevance - 2.0 * affinity))
    clicked = impressed & (generator.random(shape) < click_probability)
    stage[clicked] = CLICKED
    stage[clicked & (generator.random(shape) < 0.05)] = CONVERTED
    return stage


def _position(score: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rank (0 is best) of each entry of a row among the marked entries; the others come last."""
    order = np.argsort(-np.where(among, score, -np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def _frame(
    world: World,
    state: State,
    requests: Requests,
    *,
    day: int,
    second: NDArray[np.float64],
    request: NDArray[np.int64],
    item: NDArray[np.int64],
) -> pl.DataFrame:
    """Return the columns up to ``item_id``, one row a candidate."""
    catalogue, population = world.catalogue, world.population
    nouns = [catalogue.leaves.noun(leaf).lower() for leaf in range(catalogue.leaves.count)]
    words = [word.lower() for pair in STYLE_WORDS for word in pair]
    queries = [
        None if surface != SEARCH else nouns[leaf] if word < 0 else f"{words[word]} {nouns[leaf]}"
        for surface, leaf, word in zip(requests.surface, requests.leaf, requests.word, strict=True)
    ]
    midnight = int(world.settings.midnight(day).timestamp() * 1_000_000)
    times = pl.Series(midnight + (second * 1e6).astype(np.int64)).cast(EVENT_TIME)
    subject = pl.Series(requests.subject)
    return (
        pl.DataFrame(
            {
                "request_id": [f"r{day:05d}-{number:06d}" for number in range(len(requests.row))],
                "request_time": times,
                "user_id": population.ids.gather(state.person[requests.row]),
                "surface": pl.Series(SURFACES).gather(requests.surface),
                "subject_item_id": catalogue.items.ids.gather(np.maximum(requests.subject, 0)),
                "query": pl.Series(queries, dtype=pl.String),
            }
        )
        .with_columns(subject_item_id=pl.when(subject >= 0).then("subject_item_id"))[request]
        .with_columns(item_id=catalogue.items.ids.gather(item))
    )
