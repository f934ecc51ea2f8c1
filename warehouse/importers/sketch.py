"""A first ``mapping.toml`` from an export's header and a sample, for its owner to correct."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from warehouse.contracts import EVENT_NAMES, LandingTable
from warehouse.importers.tabular import scan

SAMPLE_ROWS = 5_000
# How exports call what the contracts call something else; the first that is there is taken.
NAMES: Mapping[str, Sequence[str]] = {
    "event_id": ("event_id", "id", "uuid", "transaction_id", "transactionid", "order_id", "basket_id"),
    "user_id": (
        *("user_id", "userid", "customer_id", "customer", "visitor_id", "visitorid", "client_id", "household_id"),
        *("external_id", "user", "member_id", "account_id"),
    ),
    "event_time": (
        *("event_time", "timestamp", "time", "ts", "datetime", "created_at", "date", "event_timestamp", "when"),
        *("transaction_timestamp", "click_timestamp"),
    ),
    "event_name": ("event_name", "event_type", "event", "type", "action", "behavior", "behaviour"),
    "item_id": ("item_id", "itemid", "product_id", "productid", "sku", "article_id", "click_article_id", "item"),
    "advertiser_id": ("advertiser_id", "brand", "seller_id", "merchant_id", "vendor", "manufacturer_id", "shop_id"),
    "value": ("value", "price", "amount", "sales_value", "revenue", "total"),
    "currency": ("currency", "currency_code"),
    "search_string": ("search_string", "query", "search_term", "keywords"),
    "title": ("title", "product_name", "name", "product_title", "description"),
    "category": ("category", "category_code", "category_path", "categories", "product_category", "product_type"),
    "price": ("price", "amount"),
    "age": ("age",),
    "gender": ("gender", "sex"),
    "country": ("country", "country_code", "click_country"),
}
WORDS: Mapping[str, str] = {
    "view": "page_visit",
    "pageview": "page_visit",
    "page_view": "page_visit",
    "detail": "page_visit",
    "click": "page_visit",
    "product_view": "page_visit",
    "view_item": "page_visit",
    "cart": "add_to_cart",
    "addtocart": "add_to_cart",
    "add": "add_to_cart",
    "basket": "add_to_cart",
    "remove": "remove_from_cart",
    "removefromcart": "remove_from_cart",
    "purchase": "checkout",
    "transaction": "checkout",
    "order": "checkout",
    "buy": "checkout",
    "sale": "checkout",
    "register": "signup",
    "registration": "signup",
    "sign_up": "signup",
    "search_query": "search",
    "video": "watch_video",
}
EVENTS = ("event_id", "user_id", "event_time", "event_name", "item_id", "advertiser_id", "value", "currency")
ITEMS = ("item_id", "advertiser_id", "title", "category", "price", "currency")
USERS = ("user_id", "age", "gender", "country")


@dataclass(frozen=True)
class _Export:
    """What a sample of the file shows."""

    name: str
    sample: pl.DataFrame  # every column as text

    def column(self, wanted: str) -> str | None:
        """The export's column that is most likely the wanted one."""
        there = {name.lower().replace(" ", "_").replace("-", "_"): name for name in self.sample.columns}
        return next((there[name] for name in NAMES[wanted] if name in there), None)

    def values(self, column: str) -> list[str]:
        """The commonest values, the commonest first."""
        counted = self.sample[column].drop_nulls().value_counts(sort=True)
        return list(counted[column].head(20))


def sketch(path: Path) -> str:
    """The text of a mapping for ``path``: what could be guessed, what is missing, and what is not used.

    Raises:
        SourceError: the file's format is unknown, or it cannot be read.
    """
    export = _Export(path.name, scan(path).head(SAMPLE_ROWS).collect())
    used: set[str] = set()
    tables = [_table(export, LandingTable.events, (*EVENTS, "search_string"), used)]
    if export.column("item_id") and any(export.column(name) for name in ("title", "category", "advertiser_id")):
        tables.append(_table(export, LandingTable.items, ITEMS, used))
    if export.column("user_id") and any(export.column(name) for name in ("age", "gender", "country")):
        tables.append(_table(export, LandingTable.users, USERS, used))
    spare = [name for name in export.sample.columns if name not in used]
    lines = [
        f"# A first mapping of {path.name}: correct it, then  adseq import csv {path} --mapping THIS --out LANDING",
        '# name = "column" of the export, or a table: column, columns, constant, default, values,',
        "# unit (s, ms, us, ns), format (strptime), separator (of a category path).",
        "# docs/bring-your-own-data.md explains each.",
        "",
        "[log]",
        'name = "my log"',
        'time_zone = "UTC"         # of times without a zone, and of days',
        "daily_days = 3            # the last days land one by one; what is before them is the history",
        f"positive_events = {json.dumps(_positives(export))}",
        "prediction_window_days = 28",
        "",
        *tables,
    ]
    if spare:
        lines += ["# Not used:", *(f"#   {name}: {_examples(export, name)}" for name in spare), ""]
    return "\n".join(lines)


def _table(export: _Export, table: LandingTable, columns: Sequence[str], used: set[str]) -> str:
    lines = ["[[table]]", f'into = "{table.value}"', f"files = {json.dumps([export.name])}", "[table.columns]"]
    for name in columns:
        column = export.column(name)
        if column is None:
            lines += _missing(table, name)
            continue
        used.add(column)
        lines.append(f"{name} = {_source(export, name, column)}  # {_examples(export, column)}")
    return "\n".join([*lines, ""])


def _missing(table: LandingTable, name: str) -> list[str]:
    if table is LandingTable.events and name == "event_name":
        return ['event_name = {constant = "checkout"}  # no column says what happened: what is every row?']
    if table is LandingTable.events and name in ("user_id", "event_time"):
        return [f'{name} = "?"  # needed: which column is it?']
    return []


def _source(export: _Export, name: str, column: str) -> str:
    values = export.values(column)
    if name == "event_name":
        known = {word: WORDS[word.lower()] for word in values if word.lower() in WORDS}
        strange = [word for word in values if word not in known and word not in EVENT_NAMES]
        words = ", ".join(
            f"{json.dumps(word)} = {json.dumps(known.get(word, 'custom'))}" for word in [*known, *strange]
        )
        return f"{{column = {json.dumps(column)}, values = {{{words}}}}}" if words else json.dumps(column)
    if name == "event_time":
        unit = _unit(values)
        return f"{{column = {json.dumps(column)}, unit = {json.dumps(unit)}}}" if unit else json.dumps(column)
    if name == "category":
        separator = _separator(values)
        return (
            f"{{column = {json.dumps(column)}, separator = {json.dumps(separator)}}}"
            if separator
            else json.dumps(column)
        )
    return json.dumps(column)


def _unit(values: Sequence[str]) -> str | None:
    """The unit of numbers that lie between 1990 and 2100."""
    numbers = pl.Series(values).cast(pl.Float64, strict=False)
    if not len(values) or numbers.null_count():
        return None
    newest = float(numbers.max())  # type: ignore[arg-type]
    return next(
        (unit for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)) if newest < 4.2e9 * factor), None
    )


def _separator(values: Sequence[str]) -> str | None:
    counts = {each: sum(each in value for value in values) for each in (">", "/", "|", ".", ";")}
    best = max(counts, key=lambda each: counts[each])
    return best if values and counts[best] >= 0.3 * len(values) and best != ">" else None


def _positives(export: _Export) -> list[str]:
    column = export.column("event_name")
    if column is None:
        return ["checkout"]
    found = {WORDS.get(word.lower(), word) for word in export.values(column)}
    return [name for name in ("checkout", "add_to_cart", "signup") if name in found] or ["checkout"]


def _examples(export: _Export, column: str) -> str:
    shown = ", ".join(value[:30].replace("\n", " ") for value in export.values(column)[:3])
    return f"e.g. {shown}" if shown else "empty in the first rows"
