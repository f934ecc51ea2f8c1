"""Counters of spend only rise, whoever raises them, in whatever order."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from warehouse.contracts import MAXIMUM_ID_BYTES, SCHEMAS, LandingTable
from warehouse.online import OnlineStore
from warehouse.online.catalogue_ads import ads_in, with_ads
from warehouse.online.spend import MAXIMUM_AMOUNT, counter_key, put_spend, spend_day, spend_namespace, total_in

DAY = date(2026, 3, 10)
SCHEMA = pl.Schema(SCHEMAS[LandingTable.ads])


def totals(store: OnlineStore, day: date = DAY) -> dict[bytes, float]:
    return {key: total_in(counter) for key, counter in store.everything(spend_namespace(day)).items()}


def test_the_largest_total_of_a_day_stays(store: OnlineStore) -> None:
    assert totals(store) == {}
    long = "ü" * (MAXIMUM_ID_BYTES // 2)  # longer than a key of LMDB
    assert put_spend(store, DAY, {"b": 1.25, "a": 0.0, long: MAXIMUM_AMOUNT}) == 3
    assert put_spend(store, DAY, {"a": 0.3, "b": 1.0}) == 1  # sent late
    assert put_spend(store, DAY, {"b": 1.25}) == 1  # sent again
    assert put_spend(store, DAY + timedelta(days=1), {"a": 9.0}) == 1
    assert totals(store) == {counter_key("a"): 0.3, counter_key("b"): 1.25, counter_key(long): MAXIMUM_AMOUNT}
    assert totals(store, DAY + timedelta(days=1)) == {counter_key("a"): 9.0}
    assert [spend_day(name) for name in store.namespaces()] == [DAY, DAY + timedelta(days=1)]
    assert spend_day("states-1") is None


def test_a_damaged_counter_is_replaced(store: OnlineStore) -> None:
    store.put(spend_namespace(DAY), [(counter_key("a"), b"\xff" * 12)])  # looks larger than any total
    assert put_spend(store, DAY, {"a": 2.0, "b": 1.0}) == 2
    assert totals(store) == {counter_key("a"): 2.0, counter_key("b"): 1.0}


def test_everything_is_everything(store: OnlineStore) -> None:
    rows = {f"{number:05}".encode(): number.to_bytes(8, "big") for number in range(3_000)}
    store.put("many", sorted(rows.items()))
    assert store.everything("many") == rows
    store.clear("many")
    assert store.everything("many") == {}


def test_ads_come_out_of_the_catalogue_as_they_went_in() -> None:
    catalogue = pl.DataFrame({"item_id": ["a", "b", "c"]})
    rows = [{"ad_id": "2", "item_id": "b", "bid": 1.0, "countries": ["DE"]}, {"ad_id": "1", "item_id": "b"}]
    ads = pl.DataFrame([*rows, {"ad_id": "3", "item_id": "gone"}], schema=SCHEMA)
    stored = with_ads(catalogue, ads)
    assert stored["item_id"].to_list() == ["a", "b", "c"]
    found = ads_in(stored)
    assert found is not None
    assert found.sort("ad_id").equals(ads.filter(item_id="b").sort("ad_id"))
    nobody = ads_in(with_ads(catalogue, ads.filter(item_id="gone")))
    assert nobody is not None  # a log that has ads, none of these items
    assert nobody.is_empty()
    assert ads_in(with_ads(catalogue, None)) is None
