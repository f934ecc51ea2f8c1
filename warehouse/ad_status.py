"""The meaning of an advertiser's word for the status of an ad.

The tables keep each word as the feed has it, and it is read here, as with ``warehouse.availability``. Sources of the
words: the statuses of the advertising interfaces of Pinterest, Meta and Google. An ad spends money, so a word that is
not known here holds the ad back, and ``adseq validate`` names the word.
"""

from __future__ import annotations

import polars as pl

_RUNS = (
    *("active", "enabled", "enable", "running", "live", "on", "started", "serving", "delivering", "eligible"),
    *("approved", "ongoing", "published", "true", "yes", "y", "1"),
)
_RESTS = (
    *("paused", "pause", "campaignpaused", "adsetpaused", "adgrouppaused", "inactive", "disabled", "off", "stopped"),
    *("suspended", "halted", "archived", "deleted", "removed", "deleteddraft", "ended", "expired", "completed"),
    *("finished", "draft", "pending", "pendingreview", "inreview", "inprocess", "pendingbillinginfo", "rejected"),
    *("disapproved", "withissues", "scheduled", "notdelivering", "false", "no", "n", "0"),
)


def runs(word: pl.Expr) -> pl.Expr:
    """Return whether an ad with each word may be shown. No word is active; an unknown word is not.

    >>> words = pl.Series(["ACTIVE", " paused ", "Campaign_Paused", "angehalten", "", None])
    >>> pl.select(runs(pl.lit(words))).to_series().to_list()
    [True, False, False, False, True, True]
    """
    return _letters(word).is_in(["", *_RUNS]).fill_null(True)


def unknown_statuses(words: pl.Series) -> dict[str, int]:
    """Return the words that are not known here, and how many rows have each word, the most frequent first."""
    counted = words.drop_nulls().value_counts()
    column = words.name
    unknown = counted.filter(~_letters(pl.col(column)).is_in(["", *_RUNS, *_RESTS]))
    return dict(unknown.sort("count", column, descending=[True, False]).iter_rows())


def _letters(word: pl.Expr) -> pl.Expr:
    return word.str.to_lowercase().str.replace_all(r"[\s\p{P}\p{S}]+", "")
