"""The items that logged requests could not show: the service's rule of eligibility, as of the day of each request."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.as_of import ads_as_of, stock_as_of, users_as_of
from warehouse.eligibility import Eligibility
from warehouse.landing import Landing
from warehouse.tables import Tables

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Pairs [pairs] of a row of the requests and a row of the items."""


def hidden_items(tables: Tables, landing: Landing, requests: pl.DataFrame, item_ids: pl.Series) -> Pairs:
    """Return the items that each request could not show, at its instant, in the country of the user who asks.

    Items, ads and users are as of the end of the request's day, as far as they had arrived; before the first arrival
    they are as of the first arrival, because nothing older is known. The spend of the day does not count: an item whose
    only ad had no budget left is not hidden.

    Args:
        requests: user_id, request_time.
        item_ids: of the catalogue. An item that the feed lacks is hidden only where there are ads.
    """
    days = tables.days("items", "arrival_date") or tables.days("events", "arrival_date")
    local = pl.col("request_time").dt.convert_time_zone(landing.manifest.time_zone).dt.date()
    asked = requests.with_columns(known=local.clip(lower_bound=days[0])).with_row_index("row")
    request, item = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for day in asked["known"].unique().sort():
        of_day, users = asked.filter(pl.col("known") == day), users_as_of(tables, day).select("user_id", "country")
        of_day = of_day.join(users, on="user_id", how="left", maintain_order="left")
        row, hidden = hidden_pairs(_rule(tables, item_ids, day), of_day)
        request.append(of_day["row"].to_numpy()[row])
        item.append(hidden)
    return np.concatenate(request), np.concatenate(item)


def hidden_pairs(rule: Eligibility, requests: pl.DataFrame) -> Pairs:
    """Return the items of a rule that each request (request_time, country) could not show."""
    times, countries = requests["request_time"].to_list(), requests["country"].to_list()
    request, item = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row in requests["request_time"].arg_sort().to_list():  # the rule moves on with the time
        hidden = np.flatnonzero(~rule.mask(countries[row], times[row]))
        request.append(np.full(len(hidden), row))
        item.append(hidden)
    return np.concatenate(request), np.concatenate(item)


def _rule(tables: Tables, item_ids: pl.Series, day: date) -> Eligibility:
    items = item_ids.alias("item_id").to_frame()
    stock = items.join(stock_as_of(tables, day), on="item_id", how="left", maintain_order="left")
    return Eligibility.of(stock, ads_as_of(tables, day))
