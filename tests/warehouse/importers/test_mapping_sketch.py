"""A first mapping, guessed from the names and values that exports have."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from warehouse.importers.mapping import Mapping
from warehouse.importers.mapping_sketch import sketch_of
from warehouse.importers.vocabulary import meaning


def sketched(path: Path) -> tuple[dict[str, dict[str, Any]], tuple[str, ...], str]:
    """The columns of each table that a sketch maps, what it has not found, and its text."""
    found = sketch_of(path)
    read = tomllib.loads(found.text)
    return {table["into"]: table["columns"] for table in read["table"]}, found.missing, found.text


LOGS = [
    ("uid,ts,action,pid,brand_name,list_price,cat_l1,cat_l2", ["uid", "ts", "pid", "brand_name"]),
    (
        "Customer ID;Order Date;Event Type;Stock-Code;Manufacturer;UnitPrice",
        ["Customer ID", "Order Date", "Stock-Code"],
    ),
    ("visitorid,timestamp,event,itemid,transactionid", ["visitorid", "timestamp", "itemid"]),
    ("userId,createdAt,eventName,productId,vendorName,amount", ["userId", "createdAt", "productId", "vendorName"]),
    ("household_key,transaction_timestamp,type,article_number,store_id", ["household_key", "article_number"]),
    ("reviewerID,unixReviewTime,asin,price", ["reviewerID", "asin", "price"]),
]


@pytest.mark.parametrize(("header", "mapped"), LOGS)
def test_the_names_of_common_logs_are_known(tmp_path: Path, header: str, mapped: list[str]) -> None:
    separator = ";" if ";" in header else ","
    path = tmp_path / "log.csv"
    row = separator.join(f"{n}x" for n in range(len(header.split(separator))))
    path.write_text(f"{header}\n{row}\n{row}\n")
    columns, missing, _ = sketched(path)
    read = {source if isinstance(source, str) else source.get("column") for source in columns["events"].values()}
    assert set(mapped) <= read
    assert "user_id" not in missing
    assert "item_id" not in missing


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["add2cart", "addToCart", "Add To Cart", "ATC", "cart", "Product Added", "add_to_basket"], "add_to_cart"),
        (["remove_from_cart", "RemoveFromBasket", "Product Removed"], "remove_from_cart"),
        (["purchase", "Order Completed", "buy", "transaction", "SALE", "checkout", "conversion"], "checkout"),
        (["view", "pv", "ViewContent", "Product Viewed", "page_view", "click", "detail", "PageVisit"], "page_visit"),
        (["view_item_list", "ViewCategory", "Product List Viewed"], "view_category"),
        (["Sign Up", "CompleteRegistration", "register"], "signup"),
        (["search", "Products Searched"], "search"),
        (["begin_checkout", "add_to_wishlist", "fav", "refund", "Order Cancelled"], "custom"),
    ],
)
def test_words_for_what_happened_are_known_however_they_are_written(words: list[str], name: str) -> None:
    assert {word: meaning(word) or "custom" for word in words} == dict.fromkeys(words, name)


def test_what_is_not_found_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("colour,shape\nred,round\n")
    _, missing, text = sketched(tmp_path / "x.csv")
    assert missing == ("user_id", "event_time", "item_id")
    assert text.count("# NOT FOUND") == 3


def test_values_decide_units_signs_and_which_of_two_columns(tmp_path: Path) -> None:
    rows = [
        "user_id;visitor;order_id;when;sku;price;event",
        ';v1;o1;17.03.2026 09:00;12.0;1.299,00 €;"Order Completed"',
        ";v2;o1;18.03.2026 10:00;13.0;12,50 €;view",
        ";v2;o2;18.03.2026 11:00;13.0;7,00 €;wishlist",
    ]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    columns, missing, text = sketched(tmp_path / "x.csv")
    assert missing == ()
    events = columns["events"]
    assert events["user_id"] == "visitor", "the other one is empty"
    assert "event_id" not in events
    assert "order_id: e.g. o1, o2 (no event id" in text
    assert events["event_time"] == {"column": "when", "format": "%d.%m.%Y %H:%M"}
    assert events["item_id"] == {"column": "sku", "whole_number": True}
    assert events["value"] == {"column": "price", "decimal": ","}
    assert events["event_name"]["values"] == {"Order Completed": "checkout", "view": "page_visit", "wishlist": "custom"}
    Mapping.model_validate(tomllib.loads(text))


def test_seconds_and_milliseconds_mixed_are_read_by_their_size(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,time,item\nu,1773964800,a\nu,1773964800000,b\n")
    assert sketched(tmp_path / "x.csv")[0]["events"]["event_time"] == {"column": "time", "unit": "auto"}


NESTED = {
    "ga4": (
        {"event_timestamp": 1773964800000000, "event_name": "purchase", "user_pseudo_id": "u",
         "items": [{"item_id": "a", "item_brand": "b", "price": 2.5}], "geo": {"country": "DE"}},
        {"user_id": "user_pseudo_id", "item_id": "items[].item_id", "advertiser_id": "items[].item_brand"},
    ),
    "segment": (
        {"messageId": "m", "timestamp": "2026-03-01T10:00:00Z", "event": "Order Completed", "userId": "u",
         "properties": {"order_id": "o", "products": [{"product_id": "a", "brand": "b", "category": "c"}]}},
        {"event_id": "messageId", "user_id": "userId", "item_id": "properties.products[].product_id"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
def test_products_within_events_are_found(tmp_path: Path, name: str) -> None:
    row, expected = NESTED[name]
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    columns, missing, _ = sketched(tmp_path / "x.jsonl")
    assert missing == ()
    assert {key: columns["events"][key] for key in expected} == expected
    assert "items" in columns


def of_rows(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns of the events that a sketch of JSON lines maps."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sketched(path)[0]["events"]


TIMES = {
    "%m/%d/%Y": [f"03/{day:02}/2026" for day in range(1, 13)],
    "%d/%m/%Y": [f"{day:02}/03/2026" for day in range(1, 13)],
    "%d-%b-%Y %H:%M": ["20-Mar-2026 10:00", "21-Mar-2026 10:00"],
    "%m/%d/%y %H:%M": ["3/20/26 0:00", "3/21/26 9:30"],
    "%d/%b/%Y:%H:%M:%S %z": ["20/Mar/2026:10:00:00 +0000"],
    "%a, %d %b %Y %H:%M:%S %z": ["Fri, 20 Mar 2026 10:00:00 +0000"],
}


@pytest.mark.parametrize(("written", "texts"), TIMES.items())
def test_a_format_is_found_by_which_the_log_is_the_shortest(tmp_path: Path, written: str, texts: list[str]) -> None:
    found = of_rows(tmp_path / "a.jsonl", [{"user": "u", "when": text} for text in texts])
    assert found["event_time"]["format"] == written


def test_times_that_no_format_reads_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,when\nu,spring\nu,autumn\n")
    assert "No known format reads these times" in sketched(tmp_path / "a.csv")[2]


def test_the_id_within_an_object_is_the_id_and_not_the_object(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"customer": {"id": n % 3, "orders": n}, "when": f"2026-03-{n + 1:02}", "product": {"id": n}} for n in range(9)
    ]
    found = of_rows(tmp_path / "a.jsonl", rows)
    assert (found["user_id"], found["item_id"]) == ("customer.id", "product.id")


def test_a_column_fills_what_another_leaves_empty(tmp_path: Path) -> None:
    when = {"timestamp": "2026-03-20T10:00:00Z"}
    rows: list[dict[str, Any]] = [
        {"anonymousId": "a", "userId": "u", "properties": {"product_id": "s1"}, **when},
        {"anonymousId": "b", "userId": None, "properties": {"products": [{"product_id": "s2"}]}, **when},
    ]
    found = of_rows(tmp_path / "a.jsonl", rows)
    assert found["user_id"] == ["userId", "anonymousId"]
    assert found["item_id"] == ["properties.product_id", "properties.products[].product_id"]


def test_words_for_nothing_and_visits_of_no_item_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"user": "u", "time": "2026-03-20", "event": "page_view", "sku": "(not set)", "price": "N/A"},
        {"user": "u", "time": "2026-03-20", "event": "page_view", "sku": "null", "price": None},
        {"user": "u", "time": "2026-03-20", "event": "view_item", "sku": "s1", "price": "1.299,00 €"},
    ]
    found = of_rows(tmp_path / "a.jsonl", rows)
    assert found["item_id"]["empty"] == ["null", "(not set)"]
    assert found["value"] == {"column": "price", "decimal": ",", "empty": ["N/A"]}
    assert found["event_name"]["values"] == {"page_view": "custom", "view_item": "page_visit"}
