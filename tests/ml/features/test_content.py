"""The content basis: the graph embedding against a dense reference, cold items, and that it stays frozen."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.features.co_engagement import unit_rows
from ml.features.content import ContentBasis, build_content_basis, category_nodes, freeze
from ml.features.text import TextBasis
from settings import FeatureSettings
from tests.ml.worlds import Event, event_log, item_frame

CATALOGUE = ["a", "b", "c", "d", "e"]
SETTINGS = FeatureSettings(content_dimensions=3)


def test_a_category_path_is_its_prefixes() -> None:
    nodes = category_nodes(pl.Series(["A >  B > C", None, "A"]))
    assert nodes.to_list() == [["A", "A > B", "A > B > C"], [], ["A"]]


GRAPH = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], np.float32)


def given_basis() -> tuple[pl.DataFrame, ContentBasis]:
    items = item_frame(
        CATALOGUE,
        advertiser_id=["x", "x", "y", "x", None],
        category=["A > B", "A > C", "A > C", None, None],
        price=[1.0, 3.0, None, None, None],
        embedding=[[2.0, 0, 0], [0, 1.0, 0], [0, 0, 5.0], None, [1.0, 1.0]],
    )
    return items, freeze(items, GRAPH)


def test_content_is_that_of_the_graph_and_the_given_embedding_together() -> None:
    items, basis = given_basis()
    content, _ = basis.content_of(items)
    assert (basis.graph_width, basis.given_width, basis.width) == (3, 3, 6)
    np.testing.assert_allclose(content[:3], np.hstack([np.eye(3), np.eye(3)]) * 0.5**0.5, atol=1e-6)
    assert basis.items["item_id"].to_list() == ["a", "b", "c"]  # the others have no edge in the graph
    np.testing.assert_allclose(basis.graph_of(items["item_id"]), GRAPH, atol=1e-6)
    assert basis.price_mean == pytest.approx(np.log1p([1.0, 3.0]).mean())
    assert basis.price_deviation == pytest.approx(np.log1p([1.0, 3.0]).std())


def test_given_embeddings_that_most_items_lack_are_left_out() -> None:
    items, _ = given_basis()
    few = items.with_columns(embedding=pl.when(pl.col("item_id") < "c").then("embedding"))
    assert freeze(few, GRAPH).given_width == 0


def test_cold_items_get_the_mean_graph_content_of_their_attributes_and_their_own_embedding() -> None:
    _, basis = given_basis()
    new = item_frame(
        ["m", "n", "o", "p", "q"],
        advertiser_id=["x", "y", "unknown", "unknown", "x"],
        category=[None, "A > C > New", "A > New", None, "A > C"],
        embedding=[None, None, [0, 3.0, 0], [1.0, 1.0], None],  # that of p has another length
    )
    by_x, a_c = unit_rows(np.array([[1, 1, 0]], np.float32)), unit_rows(np.array([[0, 1, 1]], np.float32))
    whole_a = unit_rows(np.ones((1, 3), np.float32))
    along_z, nothing = np.array([[0, 0, 1]], np.float32), np.zeros((1, 3), np.float32)
    graph = [by_x, unit_rows(a_c + along_z), whole_a, nothing, unit_rows(by_x + a_c)]
    given = np.zeros((5, 3))
    given[2] = [0, 1, 0]
    content, cold = basis.content_of(new)
    np.testing.assert_allclose(content, unit_rows(np.hstack([np.concatenate(graph), given])), atol=1e-6)
    np.testing.assert_array_equal(content, cold)


def test_an_item_of_the_basis_keeps_its_vector_whatever_its_attributes_become() -> None:
    items, basis = given_basis()
    before, _ = basis.content_of(items)
    changed = items.with_columns(
        advertiser_id=pl.lit("y"), category=pl.lit("A > B"), embedding=pl.lit([9.0, 9.0, 9.0], pl.List(pl.Float32))
    )
    after, cold = basis.content_of(changed)
    np.testing.assert_array_equal(after[:3], before[:3])
    assert not np.allclose(after[3], before[3])  # unknown to the basis: what it is now
    assert not np.allclose(cold[:3], before[:3])


def test_the_graph_alone_gives_the_basis_where_embeddings_are_missing() -> None:
    rows: list[Event] = [
        (f"u{user}", day, "checkout", item) for user in range(3) for day, item in enumerate("abc"[: 3 - user])
    ]
    items = item_frame(CATALOGUE, advertiser_id=["x", "x", "y", "x", None])
    basis = build_content_basis(items, event_log(rows, CATALOGUE), SETTINGS, 0)
    content, _ = basis.content_of(items)
    assert (basis.source, basis.given_width) == ("co-engagement graph", 0)
    assert basis.items["item_id"].to_list() == ["a", "b", "c"]
    np.testing.assert_allclose(content[3], unit_rows(content[:2].sum(0, keepdims=True))[0], atol=1e-5)
    assert not content[4].any()


def test_a_basis_survives_the_table() -> None:
    items, basis = given_basis()
    again = ContentBasis.from_frame(basis.to_frame())
    assert (again.graph_width, again.given_width) == (basis.graph_width, basis.given_width)
    assert again.price_mean == pytest.approx(basis.price_mean, rel=1e-6)
    assert again.price_deviation == pytest.approx(basis.price_deviation, rel=1e-6)
    for found, expected in zip(again.content_of(items), basis.content_of(items), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_catalogue_without_prices_leaves_prices_unscaled() -> None:
    basis = build_content_basis(item_frame(["a"]), event_log([], ["a"]), SETTINGS, 0)
    assert (basis.price_mean, basis.price_deviation) == (0.0, 1.0)


def titled_basis() -> tuple[pl.DataFrame, ContentBasis]:
    items, _ = given_basis()
    items = items.with_columns(title=pl.Series(["Oak Chair", "Red Chair", "Desk Lamp", None, "Oak Table"]))
    return items, freeze(items, GRAPH, TextBasis.of(items["title"], 8, seed=0))


def test_titles_are_a_part_of_the_content_of_every_item_that_has_one() -> None:
    items, basis = titled_basis()
    content, cold = basis.content_of(items)
    assert basis.width == 6 + basis.text.width
    assert basis.source == "co-engagement graph and given embeddings and titles"
    text = basis.text.vectors_of(items["title"])
    np.testing.assert_allclose(unit_rows(content[:, 6:]), text, atol=1e-6)
    np.testing.assert_allclose(unit_rows(cold[:, 6:]), text, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(content, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(content[0, :3]), 3**-0.5, atol=1e-6)
    assert not content[3, 6:].any()


@pytest.mark.parametrize("given", [True, False])
def test_a_basis_with_titles_survives_the_table(given: bool) -> None:
    items, basis = titled_basis()
    if not given:
        basis = freeze(items.with_columns(embedding=pl.lit(None, pl.List(pl.Float32))), GRAPH, basis.text)
    again = ContentBasis.from_frame(basis.to_frame())
    for found, expected in zip(again.content_of(items), basis.content_of(items), strict=True):
        np.testing.assert_array_equal(found, expected)
    queries = pl.Series(["oak", "lamp"])
    content = basis.content_of(items)[0][:2]
    np.testing.assert_array_equal(again.with_texts(content, queries), basis.with_texts(content, queries))


def test_a_table_from_before_titles_counted_gives_a_basis_without_them() -> None:
    items, basis = given_basis()
    frame = basis.to_frame()
    before = frame.with_columns(
        vector=pl.when(pl.col("kind") == "width").then(pl.col("vector").list.head(2)).otherwise("vector")
    )
    again = ContentBasis.from_frame(before)
    assert again.width == basis.width
    np.testing.assert_array_equal(again.content_of(items)[0], basis.content_of(items)[0])


def test_another_text_takes_the_place_of_a_title_and_predicts_a_given_embedding() -> None:
    items, basis = titled_basis()
    content, _ = basis.content_of(items)
    changed = basis.with_texts(content[:3], pl.Series(["desk lamp", None, "0000"]))
    np.testing.assert_allclose(changed[0, :3], content[0, :3], atol=1e-6)
    np.testing.assert_allclose(changed[0, 6:], content[2, 6:], atol=1e-6)
    assert changed[0, 3:6] @ content[2, 3:6] > 0.99 / 3  # the lamp is the only item with these words
    np.testing.assert_array_equal(changed[1:], content[1:3])


def test_a_title_predicts_the_embedding_of_an_item_that_has_none() -> None:
    """Two words decide about the embeddings of fifty items, and a new item has both words in a new order."""
    words = np.array([[1.0, 0], [0, 1]])
    titles = [f"{first} {second}" for first in ("azure", "crimson") for second in ("lamp", "rug")]
    embeddings = [[*words[number // 2], *words[number % 2]] for number in range(4)]
    ids = [f"i{number:02d}" for number in range(100)]
    items = item_frame(ids, title=titles * 25, embedding=embeddings * 25)
    basis = freeze(items, np.zeros((100, 2), np.float32), TextBasis.of(items["title"], 8, seed=0))
    new = item_frame(["x", "y", "z"], title=["rug crimson", None, None], embedding=[None, [0.0, 0, 3, 0], None])
    content, _ = basis.content_of(new)
    given = unit_rows(content[:, 2:6])
    np.testing.assert_allclose(given[0], np.array([0, 1, 0, 1]) / np.sqrt(2), atol=0.15)
    np.testing.assert_allclose(given[1], [0, 0, 1, 0], atol=1e-6)  # its own
    assert not given[2].any()
