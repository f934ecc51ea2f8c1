"""The content basis: the graph embedding against a dense reference, cold items, and that it stays frozen."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.content import ContentBasis, build_content_basis, category_nodes, co_engagement, ppmi_svd, unit_rows
from settings import FeatureSettings
from tests.ml.worlds import Event, event_log, item_frame

CATALOGUE = ["a", "b", "c", "d", "e"]
SETTINGS = FeatureSettings(content_dimensions=3)


def dense_ppmi_cosines(counts: NDArray[np.float64], dimensions: int, shift: float) -> NDArray[np.float64]:
    """Cosines of the rows of U S^0.5, which do not depend on the signs that an SVD may choose."""
    degree = counts.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(counts * counts.sum() / np.outer(degree, degree)) - np.log(shift)
    left, singular, _ = np.linalg.svd(np.where(np.isfinite(pmi), np.maximum(pmi, 0), 0))
    rows = left[:, :dimensions] * np.sqrt(singular[:dimensions])
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-9)
    return rows @ rows.T


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_the_graph_embedding_equals_a_dense_svd(shift: float) -> None:
    random = np.random.default_rng(0)
    half = np.triu(random.poisson(1.5, (25, 25)), 1).astype(float)
    half[3] = half[:, 3] = 0  # an item without a pair
    counts = half + half.T
    vectors = ppmi_svd(sp.csr_array(counts.astype(np.float32)), 8, shift, 0)
    np.testing.assert_allclose(vectors @ vectors.T, dense_ppmi_cosines(counts, 8, shift), atol=1e-3)
    assert not vectors[3].any()


def test_items_outside_the_leading_dimensions_get_no_vector() -> None:
    """A pair that nothing links to the rest lies in none of two dimensions; scaled noise would look like content."""
    counts = np.zeros((12, 12), np.float32)
    counts[:5, 5:10] = counts[5:10, :5] = 1 + np.eye(5) * 20
    counts[10, 11] = counts[11, 10] = 400
    vectors = ppmi_svd(sp.csr_array(counts), 2, 1.0, 0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 10 + [0] * 2, atol=1e-5)


def test_fewer_items_than_dimensions_fill_up_with_zeros() -> None:
    vectors = ppmi_svd(sp.csr_array(np.array([[0, 2.0, 0], [2, 0, 1], [0, 1, 0]], np.float32)), 6, 1.0, 0)
    assert vectors.shape == (3, 6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert not vectors[:, 2:].any()


def test_pairs_are_counted_within_a_user_and_a_window_only() -> None:
    rows: list[Event] = [("u", day, "page_visit", item) for day, item in enumerate(["a", "b", "b", None, "c", "zzz"])]
    rows += [("w", day, "page_visit", item) for day, item in enumerate(["c", "a"])]
    counts = co_engagement(event_log(rows, CATALOGUE), 5, window=3).toarray()
    # u: a-b twice (1 and 2 apart), b-c twice (3 and 2 apart), a-c is 4 apart; w: c-a once; none across users.
    expected = np.zeros((5, 5))
    expected[0, 1], expected[1, 2], expected[0, 2] = 2, 2, 1
    np.testing.assert_array_equal(counts, expected + expected.T)


def test_a_category_path_is_its_prefixes() -> None:
    nodes = category_nodes(pl.Series(["A >  B > C", None, "A"]))
    assert nodes.to_list() == [["A", "A > B", "A > B > C"], [], ["A"]]


def given_basis() -> tuple[pl.DataFrame, ContentBasis]:
    items = item_frame(
        CATALOGUE,
        advertiser_id=["x", "x", "y", "x", None],
        category=["A > B", "A > C", "A > C", None, None],
        price=[1.0, 3.0, None, None, None],
        embedding=[[2.0, 0, 0], [0, 1.0, 0], [0, 0, 5.0], None, [1.0, 1.0]],
    )
    return items, build_content_basis(items, event_log([], CATALOGUE), SETTINGS, 0)


def test_given_embeddings_are_used_where_most_items_have_one() -> None:
    items, basis = given_basis()
    content, _ = basis.content_of(items)
    assert (basis.source, basis.width) == ("given", 3)
    np.testing.assert_allclose(content[:3], np.eye(3), atol=1e-6)
    assert basis.items["item_id"].to_list() == ["a", "b", "c"]  # d has none, that of e has another width
    assert basis.price_mean == pytest.approx(np.log1p([1.0, 3.0]).mean())
    assert basis.price_deviation == pytest.approx(np.log1p([1.0, 3.0]).std())


def test_cold_items_get_the_mean_of_their_attributes() -> None:
    _, basis = given_basis()
    new = item_frame(
        ["m", "n", "o", "p", "q"],
        advertiser_id=["x", "y", "unknown", "unknown", "x"],
        category=[None, "A > C > New", "A > New", None, "A > C"],
    )
    by_x, a_c = unit_rows(np.array([[1.0, 1, 0]])), unit_rows(np.array([[0.0, 1, 1]]))
    whole_a = unit_rows(np.ones((1, 3)))
    expected = [by_x, unit_rows(a_c + np.array([[0.0, 0, 1]])), whole_a, np.zeros((1, 3)), unit_rows(by_x + a_c)]
    content, cold = basis.content_of(new)
    np.testing.assert_allclose(content, np.concatenate(expected), atol=1e-6)
    np.testing.assert_array_equal(content, cold)


def test_an_item_of_the_basis_keeps_its_vector_whatever_its_attributes_become() -> None:
    items, basis = given_basis()
    before, _ = basis.content_of(items)
    changed = items.with_columns(
        advertiser_id=pl.lit("y"), category=pl.lit("A > B"), embedding=pl.lit([9.0, 9.0, 9.0], pl.List(pl.Float32))
    )
    after, cold = basis.content_of(changed)
    np.testing.assert_array_equal(after[:3], before[:3])
    np.testing.assert_allclose(after[3], np.full(3, 3**-0.5), rtol=1e-5)  # unknown to the basis: its embedding of now
    assert not np.allclose(cold[:3], before[:3])


def test_the_graph_gives_the_basis_where_embeddings_are_missing() -> None:
    rows: list[Event] = [(f"u{user}", day, "checkout", item) for user in range(3) for day, item in enumerate("abc")]
    items = item_frame(CATALOGUE, advertiser_id=["x", "x", "y", "x", None])
    basis = build_content_basis(items, event_log(rows, CATALOGUE), SETTINGS, 0)
    content, _ = basis.content_of(items)
    assert basis.source == "co-engagement graph"
    assert basis.items["item_id"].to_list() == ["a", "b", "c"]
    np.testing.assert_allclose(content[3], unit_rows(content[:2].sum(0, keepdims=True))[0], atol=1e-5)
    assert not content[4].any()


def test_a_basis_survives_the_table() -> None:
    items, basis = given_basis()
    again = ContentBasis.from_frame(basis.to_frame())
    assert (again.source, again.width) == (basis.source, basis.width)
    assert again.price_mean == pytest.approx(basis.price_mean, rel=1e-6)
    assert again.price_deviation == pytest.approx(basis.price_deviation, rel=1e-6)
    for found, expected in zip(again.content_of(items), basis.content_of(items), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_catalogue_without_prices_leaves_prices_unscaled() -> None:
    basis = build_content_basis(item_frame(["a"]), event_log([], ["a"]), SETTINGS, 0)
    assert (basis.price_mean, basis.price_deviation) == (0.0, 1.0)
