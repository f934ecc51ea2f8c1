"""The vocabulary of exports: their names of the contracts' columns, and their words for events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

# Names are compared without case and without what is no letter or digit: userId, User ID and user_id are one.
_ID = ("id", "uid", "key", "number", "no", "nr", "code", "hash", "")


def _each(subjects: Iterable[str], endings: Iterable[str] = _ID, beginnings: Iterable[str] = ("",)) -> list[str]:
    """Return every combination of beginning, subject and ending, ordered by ending first."""
    return [f"{start}{subject}{end}" for end, start, subject in product(endings, beginnings, subjects)]


_USERS = ("user", "customer", "client", "visitor", "member", "account", "shopper", "buyer", "household", "person")
_MORE_USERS = ("profile", "contact", "subscriber", "consumer", "reviewer", "reader", "viewer", "patron", "cust", "usr")
_ITEMS = ("item", "product", "sku", "article", "asin", "variant", "prod", "listing", "offer", "good", "book", "movie")
_ADVERTISERS = ("advertiser", "brand", "seller", "merchant", "vendor", "manufacturer", "shop", "store", "publisher")
_TIMES = (
    "event",
    "click",
    "transaction",
    "order",
    "purchase",
    "action",
    "session",
    "view",
    "visit",
    "review",
    "request",
)

NAMES: Mapping[str, Sequence[str]] = {
    "event_id": [
        *("eventid", "id", "uuid", "eventuuid", "messageid", "guid", "insertid", "hitid", "rowid", "logid"),
        *("transactionid", "orderid", "basketid"),
    ],
    "user_id": [
        *_each(_USERS),
        *("externalid", "uid", "userpseudoid", "anonymousid", "distinctid", "fullvisitorid", "customerref"),
        *_each(_MORE_USERS),
        *("cid", "cookieid", "deviceid", "emailhash", "hashedemail", "em", "email", "sessionid", "session"),
    ],
    "event_time": [
        *("eventtime", "eventtimestamp", "timestamp", "time", "ts", "datetime", "when", "createdat", "occurredat"),
        *_each((*_TIMES, "invoice"), ("timestamp", "time", "datetime", "at", "ts", "date", "on")),
        *("created", "createdtime", "createdon", "unixtime", "unixtimestamp", "epoch", "servertime", "clienttime"),
        *("receivedat", "sentat", "loggedat", "t", "dt", "date", "day", "eventday", "tdat"),
    ],
    "event_name": [
        *("eventname", "eventtype", "event", "action", "actiontype", "activity", "activitytype", "behavior"),
        *(
            "behaviour",
            "behaviortype",
            "behaviourtype",
            "interaction",
            "interactiontype",
            "eventaction",
            "verb",
            "type",
        ),
        *("eventcategory", "hittype", "operation", "op"),
    ],
    "item_id": [
        *_each(_ITEMS, ("id", "key", "number", "no", "nr", "code", "")),
        *("parentasin", "clickarticleid", "contentid", "stockcode", "ean", "gtin", "upc", "iid", "pid", "mpn"),
    ],
    "advertiser_id": [
        *_each(_ADVERTISERS, ("id", "")),
        *_each(_ADVERTISERS, ("name", "code", "key"), ("", "item", "product")),
        *("itembrand", "productbrand", "brandattr", "manufacturer", "supplier", "supplierid", "maker", "company"),
        *("partner", "partnerid", "retailer", "retailerid", "designer", "label"),
    ],
    "value": [
        *(
            "value",
            "revenue",
            "amount",
            "salesvalue",
            "total",
            "eventvalue",
            "ordervalue",
            "purchasevalue",
            "totalprice",
        ),
        *("price", "unitprice", "itemprice", "productprice", "saleprice", "grandtotal", "subtotal", "spend", "paid"),
    ],
    "currency": ["currency", "currencycode", "curr", "eventcurrency", "pricecurrency"],
    "search_string": [
        *("searchstring", "query", "searchterm", "searchquery", "searchkeyword", "keywords", "keyword", "searchtext"),
        *("searchphrase", "q", "searchterms"),
    ],
    "title": [
        *("title", "producttitle", "itemtitle", "productname", "itemname", "articlename", "name", "description"),
        *("productdescription", "itemdescription", "label", "headline"),
    ],
    "category": [
        *("category", "categorypath", "categorycode", "categoryname", "categories", "productcategory", "itemcategory"),
        *("productcategory1", "itemcategory1"),
        *("producttype", "googleproductcategory", "taxonomy", "breadcrumb", "categoryid", "department", "genre"),
        *("catl1", "cat1", "categoryl1", "category1", "categorylevel1", "maincategory", "cat", "section", "topic"),
    ],
    "price": [
        *("price", "listprice", "unitprice", "itemprice", "productprice", "saleprice", "currentprice", "retailprice"),
        *("regularprice", "msrp", "amount", "cost"),
    ],
    "age": ["age", "userage", "customerage", "ageyears"],
    "gender": ["gender", "sex", "usergender"],
    "country": [
        "country",
        "countrycode",
        "usercountry",
        "geocountry",
        "clickcountry",
        "countryname",
        "nation",
        "market",
    ],
}
_LEVEL = re.compile(r"(.*?(?:cat|category|categorylevel|categoryl|catl|level|department|hierarchy))(\d)(?:attr|name)?")

# The first pattern that a word matches says what it means, written without case and separators ("add2cart": addtocart).
_MEANINGS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(remove|delete|drop).*(cart|basket|bag)|(cart|basket|bag).*(remove|delete)|productremoved",
         "remove_from_cart"),
        (r"add.*(cart|basket|bag)|(cart|basket|bag).*add|^(cart|basket|bag|atc|add)$|productadded", "add_to_cart"),
        (r"wish|fav|like|refund|return|cancel|abandon|begin|start|initiate|fail|viewcart|cartview", "custom"),
        (r"sign(ed)?up|regist|accountcreated|createaccount|subscri", "signup"),
        (r"^lead|lead$|leadform|contactform|quoterequest", "lead"),
        (r"search|quer(y|ied)", "search"),
        (r"(view|browse|visit).*(categ|list|collection|catalog)|(categ|list|collection|catalog).*(view|browse|visit)",
         "view_category"),
        (r"purchase|buy|bought|order|transaction|sale|sold|checkout|conver(sion|t)|paid|paymentsuccess", "checkout"),
        (r"video|watch|play", "watch_video"),
        (r"view|visit|click|detail|impression|browse|^pv$|^page|^see", "page_visit"),
    )
)  # fmt: skip


def plain(name: str) -> str:
    """Return a name in lower case, its letters and digits only; for a path its last name."""
    last = re.split(r"[.\]]", name)[-1] or name
    return re.sub(r"[\W_]+", "", last.lower())


def forms(name: str) -> tuple[str, ...]:
    """Return the possible names of a column, in lower case without separators: for ``customer.id``, ``customerid``."""
    steps = [step for step in re.split(r"[.\[\]]+", name) if step]
    return tuple(dict.fromkeys((plain("".join(steps[-2:])), plain(name))))


def category_level(name: str) -> tuple[str, int] | None:
    """Return the name of a column of category levels, and the level; None for another column."""
    found = _LEVEL.fullmatch(plain(name))
    return (found[1], int(found[2])) if found else None


def meaning(word: str) -> str | None:
    """Return the contract's event name for an export's word; None where no pattern fits the word."""
    written = re.sub(r"(?<=[a-z])2(?=[a-z])", "to", re.sub(r"[\W_]+", "", word.lower()))
    return next((name for pattern, name in _MEANINGS if pattern.search(written)), None)
