"""The meaning of a feed's word for an item's availability.

The tables keep each word as the feed has it, and it is read here: a day that is run again gives the same rows, and a
word that is learnt later counts for every day. Sources of the words: the product feed specifications of Google
Merchant Center, Meta and Pinterest, and schema.org's ItemAvailability.
"""

from __future__ import annotations

from enum import StrEnum

import polars as pl


class Availability(StrEnum):
    """Whether, and how, an item can be had."""

    in_stock = "in stock"
    limited = "limited availability"
    in_store_only = "in store only"
    preorder = "preorder"
    backorder = "backorder"
    made_to_order = "made to order"
    out_of_stock = "out of stock"
    reserved = "reserved"
    discontinued = "discontinued"
    unknown = "unknown"  # a word that is not below


SHOWN = frozenset(
    {
        Availability.in_stock,
        Availability.limited,
        Availability.in_store_only,
        Availability.preorder,
        Availability.backorder,
        Availability.made_to_order,
        Availability.unknown,
    }
)
"""What may be a candidate. An unknown word, as no word at all, says nothing against an item."""

# A word without capitals, spaces and punctuation -> its meaning.
_MEANINGS = {
    Availability.in_stock: "instock available onlineonly instoreandonline availablenow active true yes y",
    Availability.limited: "limitedavailability limited limitedstock lowstock lowinstock fewleft",
    Availability.in_store_only: "instoreonly storeonly availableinstore availableinstoreonly",
    Availability.preorder: "preorder presale availableforpreorder comingsoon",
    Availability.backorder: "backorder backordered onbackorder availablefororder availableonbackorder",
    Availability.made_to_order: "madetoorder builttoorder ondemand customorder",
    Availability.out_of_stock: "outofstock oos soldout unavailable notavailable notinstock nostock "
    "currentlyunavailable temporarilyoutofstock temporarilyunavailable inactive false no n",
    Availability.reserved: "reserved pending onhold",
    Availability.discontinued: "discontinued retired endoflife permanentlyunavailable nolongeravailable",
}
_MEANING_OF = {word: meaning.value for meaning, words in _MEANINGS.items() for word in words.split()}
_SCHEMA_ORG = r"^(https?://)?(www\.)?schema\.org/|^schema:"
_QUANTITY = r"^[+-]?\d+([.,]\d*)?$"


def meaning(word: pl.Expr) -> pl.Expr:
    """Return the ``Availability`` of each word; null where there is no word.

    Capitals, spaces, punctuation and the address of schema.org say nothing. A number is a quantity: zero or less is
    out of stock.

    >>> words = pl.Series(["https://schema.org/OutOfStock", " Pre-Order ", "0", "12", "auf Lager", "", None])
    >>> pl.select(meaning(pl.lit(words))).to_series().to_list()
    ['out of stock', 'preorder', 'out of stock', 'in stock', 'unknown', None, None]
    """
    lowered = word.str.to_lowercase().str.strip_chars()
    letters = lowered.str.replace(_SCHEMA_ORG, "").str.replace_all(r"[\s\p{P}\p{S}]+", "")
    quantity = lowered.str.replace(",", ".", literal=True).str.strip_suffix(".").cast(pl.Float64, strict=False)
    counted = pl.when(quantity > 0).then(pl.lit(Availability.in_stock)).otherwise(pl.lit(Availability.out_of_stock))
    named = letters.replace_strict(_MEANING_OF, default=Availability.unknown.value, return_dtype=pl.String)
    found = pl.when(lowered.str.contains(_QUANTITY)).then(counted).otherwise(named)
    return pl.when(letters.str.len_bytes() > 0).then(found)


def is_shown(word: pl.Expr) -> pl.Expr:
    """Return whether an item of each word may be a candidate."""
    hidden = [each.value for each in Availability if each not in SHOWN]
    return ~meaning(word).is_in(hidden).fill_null(False)


def unknown_words(words: pl.Series) -> dict[str, int]:
    """Return the words without a meaning here, and how many rows have each word."""
    counted = words.drop_nulls().value_counts()
    column = words.name
    unknown = counted.filter(meaning(pl.col(column)) == Availability.unknown.value)
    return dict(unknown.sort("count", column, descending=[True, False]).iter_rows())
