"""The scrape: measures by hand, strata that shrink the error, quiet A/A comparisons, a planted change that is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import polars as pl
import pytest

from ml.relevance.candidates import FEWEST_REQUESTS, HOLDOUT, PRODUCTION
from ml.relevance.judgements import PLACE
from ml.relevance.probes import allocate, draw_probes, population, spreads_of
from ml.relevance.scrape import FRACTION, MEASURED, NDCG, Difference, Scrape, scrape, within

CATEGORIES = ["Home", "Toys", "Garden"]


def requests(number: int, places: int = 300, users: int = 500, seed: int = 0) -> pl.DataFrame:
    """A log of requests, some beside an item and some of a search; places and users differ in popularity."""
    generator = np.random.default_rng(seed)
    place = (places * generator.random(number) ** 2).astype(int)
    return pl.DataFrame(
        {
            "request_id": [f"r{each}" for each in range(number)],
            "surface": pl.Series(["related_pins", "search"]).gather(place % 2),
            "subject_item_id": [f"i{each}" if each % 2 == 0 else None for each in place],
            "query": [None if each % 2 == 0 else f"q{each}" for each in place],
            "user_id": [f"u{each}" for each in generator.integers(0, users, number)],
        },
        schema_overrides={"subject_item_id": pl.String, "query": pl.String},
    )


def asked(log: pl.DataFrame) -> pl.DataFrame:
    return log.group_by(*PLACE, "user_id").agg(requests=pl.col("request_id").n_unique())


def categories(log: pl.DataFrame) -> pl.DataFrame:
    places = log.select(PLACE).unique().sort(PLACE)
    return places.with_columns(category=pl.Series(CATEGORIES * len(places)).head(len(places)))


def luck(*key: object) -> np.random.Generator:
    return np.random.default_rng(crc32(repr(key).encode()))


class SimulatedService:
    """Lists of ten items, whose names say whether they are relevant: easy and hard places, and users that differ.

    The trim of production replaces irrelevant items. ``change`` is the relative change of what production finds.
    """

    def __init__(self, trim: float = 0.15, change: float = 0.0) -> None:
        self.trim, self.change = trim, change

    def __call__(self, probes: pl.DataFrame) -> Mapping[str, Sequence[Sequence[str]]]:
        rows = probes.select(*PLACE, "user_id").rows()
        return {arm: [self.answer(*row, arm=arm) for row in rows] for arm in (PRODUCTION, HOLDOUT)}

    def answer(self, surface: str, subject: str | None, query: str | None, user: str, *, arm: str) -> list[str]:
        place = subject or query
        ease = 0.25 + 0.6 * luck(place).random() * (0.5 if surface == "search" else 1.0)
        of_user = luck(place, user)
        relevant = of_user.random(10) < np.clip(ease + of_user.normal(0, 0.05), 0, 1)
        if arm == PRODUCTION:
            relevant |= of_user.random(10) < self.trim
            relevant &= of_user.random(10) >= -self.change
        return [f"{place}-{user}-{rank}-{'good' if good else 'bad'}" for rank, good in enumerate(relevant)]


def by_name(pairs: pl.DataFrame) -> pl.DataFrame:
    good = pl.col("item_id").str.ends_with("good").cast(pl.Float64)
    return pairs.with_columns(relevant=good, gain=good, judge=pl.lit("truth"))


def scraped(number: int, *, seed: int = 0, service: SimulatedService | None = None, log: pl.DataFrame) -> Scrape:
    probes = draw_probes(population(asked(log), categories(log)), number, seed=seed)
    return scrape(probes, service or SimulatedService(), by_name)


def test_measures_by_hand() -> None:
    probes = pl.DataFrame(
        {
            "surface": ["search"] * 2, "subject_item_id": pl.Series([None] * 2, dtype=pl.String),
            "query": ["lamp", "rug"], "user_id": ["ann", "bob"],
            "stratum": ["s", "s"], "weight": [0.5, 0.5],
        }
    )  # fmt: skip
    judged = {"a": (1.0, 1.0), "b": (0.0, 0.0), "c": (0.5, 0.5), "unknown": (None, None)}

    def judging(pairs: pl.DataFrame) -> pl.DataFrame:
        relevant, gain = zip(*(judged[item] for item in pairs["item_id"]), strict=True)
        return pairs.with_columns(relevant=pl.Series(relevant), gain=pl.Series(gain), judge=pl.lit("model"))

    def lists(asked: pl.DataFrame) -> dict[str, list[list[str]]]:
        answers = {HOLDOUT: ["b", "unknown", "c"], PRODUCTION: ["a", "b"]}
        return {arm: [found if query == "lamp" else [] for query in asked["query"]] for arm, found in answers.items()}

    found = scrape(probes, lists, judging)
    ideal = 31 + 7 / np.log2(3) + 1 / np.log2(4)  # a, c, b of all lists of the place: labels 5, 3 and 1
    assert found.production[FRACTION].to_list() == [0.5, None]
    assert found.holdout[FRACTION].to_list() == [0.25, None]
    assert found.production[NDCG][0] == pytest.approx((31 + 1 / np.log2(3)) / ideal)
    assert found.holdout[NDCG][0] == pytest.approx((1 + 7 / np.log2(4)) / ideal)
    assert found.gap().relative == pytest.approx(0.5 / 0.25 - 1)
    assert found.mean(HOLDOUT) == 0.25
    assert found.holdout["judge"].to_list() == ["model", None]


def test_the_probes_are_the_same_again_and_change_little_when_the_log_grows() -> None:
    log = requests(3000)
    known = population(asked(log), categories(log))
    drawn = draw_probes(known, 500, seed=1)
    assert drawn.equals(draw_probes(known, 500, seed=1))
    assert abs(len(drawn) - 500) <= known["stratum"].n_unique()
    assert drawn["weight"].sum() == pytest.approx(1.0)
    new = requests(60, seed=9).with_columns(request_id=pl.concat_str(pl.lit("new-"), "request_id"))
    grown = pl.concat([log, new])
    later = draw_probes(population(asked(grown), categories(log)), 500, seed=1)
    key = [*PLACE, "user_id"]
    kept = drawn.join(later, on=key, how="semi", nulls_equal=True)
    assert len(kept) > 0.9 * len(drawn)
    assert len(drawn.join(draw_probes(known, 500, seed=2), on=key, how="semi", nulls_equal=True)) < 0.4 * len(drawn)


def test_more_probes_than_the_log_knows_are_all() -> None:
    log = requests(50)
    known = population(asked(log), categories(log))
    assert len(draw_probes(known, 10_000, seed=0)) == len(known)
    assert draw_probes(known.clear(), 10, seed=0).is_empty()


def test_neyman_gives_what_varies_more_probes() -> None:
    assert allocate(np.array([500.0, 500.0]), np.array([0.1, 0.4]), 100).tolist() == [20, 80]
    log = requests(3000)
    known = population(asked(log), categories(log))
    noisy = known["stratum"].unique().sort()[0]
    usual = draw_probes(known, 500, seed=0).filter(stratum=noisy).height
    spreads = dict.fromkeys(known["stratum"].unique(), 0.1) | {noisy: 0.5}
    assert draw_probes(known, 500, seed=0, spreads=spreads).filter(stratum=noisy).height > 2 * usual


def test_strata_shrink_the_error_and_its_size_is_right() -> None:
    generator = np.random.default_rng(0)
    stratum = np.arange(400) % 4
    names = [f"s{each}" for each in stratum]
    estimates, errors, shrunk = [], [], []
    for _ in range(300):
        second = 0.5 + generator.normal(0, 0.05, 400)
        first = second * (1 + 0.1 * stratum) + generator.normal(0, 0.05, 400)  # the strata differ in their change
        found = Difference.of(first, second, names, weight=np.full(400, 1 / 400))
        estimates.append(found.relative)
        errors.append(found.error)
        shrunk.append(found.smallest_detectable_change / found.smallest_without_strata)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.15)
    assert np.mean(shrunk) < 0.8


@pytest.mark.slow
def test_a_planted_change_is_found_and_no_change_is_not() -> None:
    log = requests(20_000, places=2000, users=2000)
    changed = SimulatedService(trim=0.0, change=-0.03)
    seen = 0
    for seed in range(10):
        found = scraped(1500, seed=seed, service=changed, log=log)
        seen += found.gap().interval.high < 0
        assert -0.05 < found.gap().relative < -0.01
    assert seen >= 8  # power .8
    assert found.gap().power(0.03) > 0.8
    same = scraped(500, service=SimulatedService(trim=0.0), log=log).gap()
    assert same.relative == 0.0  # each probe has its list twice
    assert np.isnan(same.smallest_detectable_change)


@pytest.mark.slow
def test_aa_differences_are_those_of_other_draws_of_probes() -> None:
    log = requests(20_000, places=2000, users=2000)
    scrapes = [scraped(800, seed=seed, service=SimulatedService(trim=0.0), log=log) for seed in range(16)]
    means = np.array([each.mean(PRODUCTION) for each in scrapes])
    redrawn = np.array([first / second - 1 for first in means for second in means if first != second])
    found = scrapes[0].aa_differences(repeats=1000, seed=0)
    assert np.std(found) == pytest.approx(np.std(redrawn), rel=0.35)
    assert within(found, 2 * float(np.std(found))) == pytest.approx(0.95, abs=0.03)


def test_the_gap_to_holdout_of_one_surface() -> None:
    found = scraped(800, log=requests(5000))
    gap = found.gap(where=pl.col("surface") == "search")
    assert gap.relative > found.gap().relative > 0  # search finds less, so that the trim adds more
    assert gap.interval.low > 0
    same = found.gap(where=pl.lit(False))
    assert np.isnan(same.relative)


def of_values(production: Sequence[float | None], holdout: Sequence[float | None], strata: Sequence[str]) -> Scrape:
    """A scrape of probes with such fractions; all weigh the same."""
    probes = pl.DataFrame({"stratum": strata, "weight": 1 / len(strata)})

    def arm(values: Sequence[float | None]) -> pl.DataFrame:
        columns = {"probe": range(len(values)), FRACTION: values, NDCG: values, "judge": "model"}
        return pl.DataFrame(columns, schema_overrides=MEASURED)

    return Scrape(probes, arm(production), arm(holdout))


@pytest.mark.filterwarnings("error")
def test_probes_of_which_most_find_nothing_have_aa_differences_where_there_are_any() -> None:
    values = [0.0, 0.0, 0.0, 0.1, None, None]
    found = of_values(values, values, ["a"] * 6).aa_differences(repeats=500, seed=0)
    assert 0 < len(found) < 500  # some sets of probes find nothing, and nothing can be compared with these
    assert np.isfinite(found).all()
    nothing = of_values([0.0] * 6, [0.0] * 6, ["a"] * 6).aa_differences(repeats=10, seed=0)
    assert len(nothing) == 0
    assert np.isnan(within(nothing, 0.01))
    assert len(of_values([None] * 6, [None] * 6, ["a"] * 6).aa_differences(repeats=10, seed=0)) == 0


def test_few_probes_and_equal_arms_say_nothing_of_what_can_be_detected() -> None:
    generator = np.random.default_rng(0)
    holdout = generator.uniform(0.2, 0.6, FEWEST_REQUESTS)
    production = holdout + generator.normal(0, 0.02, FEWEST_REQUESTS)

    def gap(probes: int, arm: np.ndarray) -> Difference:
        return of_values(arm[:probes].tolist(), holdout[:probes].tolist(), ["a"] * probes).gap()

    assert gap(FEWEST_REQUESTS, production).smallest_detectable_change > 0
    assert 0 < gap(FEWEST_REQUESTS, production).power(0.01) < 1
    for unknown in (gap(FEWEST_REQUESTS - 1, production), gap(FEWEST_REQUESTS, holdout), gap(1, production)):
        assert np.isnan(unknown.smallest_detectable_change)
        assert np.isnan(unknown.smallest_without_strata)
        assert np.isnan(unknown.power(0.03))


def test_a_stratum_in_which_the_holdout_finds_nothing_gets_its_probes_again() -> None:
    log = requests(3000)
    known = population(asked(log), categories(log))
    names = known["stratum"].unique().sort().to_list()
    hopeless, single = names[:2]
    rows: list[tuple[str, float | None, float | None]]
    rows = [(name, 0.5 + number / 10, 0.4) for name in names[2:] for number in range(3)]
    rows += [(hopeless, 0.0, 0.0)] * 3 + [(single, 0.5, 0.4), (single, None, None)]
    measured = pl.DataFrame(rows, schema=["stratum", "production", "holdout"], orient="row")
    spreads = spreads_of(measured.lazy())
    assert spreads == pytest.approx({hopeless: 0.0} | dict.fromkeys(names[2:], 0.1))
    for found in (spreads, spreads | {hopeless: float("nan")}, dict.fromkeys(names, 0.0), dict.fromkeys(names, np.inf)):
        probes = draw_probes(known, 500, seed=0, spreads=found)
        assert abs(len(probes) - 500) <= 2 * len(names)
        assert set(probes["stratum"]) == set(names)


def test_the_spread_of_a_stratum_is_not_its_relative_spread() -> None:
    """Two strata with gaps of one size get probes of one share, however much their holdouts find."""
    gaps = [0.1, -0.1, 0.05, -0.05]
    measured = pl.DataFrame(
        {
            "stratum": ["easy"] * 4 + ["hard"] * 4,
            "production": [level + gap for level in (0.8, 0.2) for gap in gaps],
            "holdout": [0.8] * 4 + [0.2] * 4,
        }
    )
    spreads = spreads_of(measured.lazy())
    assert spreads["easy"] == pytest.approx(spreads["hard"])
