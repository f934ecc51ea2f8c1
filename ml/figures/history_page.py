"""The qualitative page: for a few users, their history and the items that the model retrieves, in a form for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #22303c; margin: 2rem auto; max-width: 78rem; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .3rem; border-top: 1px solid #e4e8ec; padding-top: 1.2rem; }
h3 { font-size: .92rem; margin: 0 0 .5rem; }
p, .quiet { color: #66727f; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.6rem; margin-top: .8rem; }
ol { margin: 0; padding-left: 1.7rem; }
li { margin-bottom: .4rem; padding: .1rem .4rem; overflow-wrap: anywhere; }
li.positive { background: #e6f4ef; border-left: 3px solid #2b9a82; }
.quiet { display: block; font-size: .82rem; }
.subject { background: #fbeef0; border-left: 3px solid #d1435b; padding: .3rem .6rem; margin-bottom: .6rem; }
"""


@dataclass(frozen=True)
class ItemLine:
    """One item in a form for people. ``note``: a remark, such as "checkout, 3 days before" or a score."""

    title: str
    category: str = ""
    advertiser: str = ""
    note: str = ""
    positive: bool = False  # the user did convert on it after the cut-off


@dataclass(frozen=True)
class UserExample:
    """One user: the history (newest first), and the items retrieved with and without the context, best first."""

    user_id: str
    history: Sequence[ItemLine]
    without_context: Sequence[ItemLine]
    with_context: Sequence[ItemLine] = field(default_factory=tuple)
    subject: ItemLine | None = None  # the item looked at, where there is a context
    positives: Sequence[ItemLine] = field(default_factory=tuple)
    about: str = ""  # such as the country


def qualitative_page(users: Sequence[UserExample], title: str = "Histories and what they retrieve") -> str:
    """Return a self-contained HTML page; all text of items and users is escaped.

    >>> "&lt;b&gt;" in qualitative_page([UserExample("<b>", [], [])])
    True
    """
    sections = "\n".join(_section(user) for user in users) or "<p>No user to show.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>Green: the user did convert on this item after the cut-off. The model saw nothing after the cut-off.</p>
{sections}
</body>
</html>
"""


def without_users(page: str, user_ids: Iterable[str]) -> str:
    """Return the page without the sections of the users ``user_ids``.

    >>> page = qualitative_page([UserExample("ann", [], []), UserExample("bob", [], [])])
    >>> shown = without_users(page, ["ann"])
    >>> "ann" in shown, "bob" in shown
    (False, True)
    """
    for user_id in user_ids:
        page = re.sub(rf"{re.escape(_opening(user_id))}.*?</section>\n?", "", page, flags=re.DOTALL)
    return page


def _opening(user_id: str) -> str:
    return f'<section data-user="{escape(user_id)}">'


def _section(user: UserExample) -> str:
    about = f"<p>{escape(user.about)}</p>" if user.about else ""
    columns = [
        _column("History, newest first", user.history, "No event before the cut-off."),
        _column("Retrieved without context", user.without_context, "Nothing retrieved."),
    ]
    if user.subject is not None:
        columns.append(_column("Retrieved with context", user.with_context, "Nothing retrieved.", user.subject))
    if user.positives:
        columns.append(_column("What followed", user.positives, ""))
    heading = f"<h2>User {escape(user.user_id)}</h2>"
    return f'{_opening(user.user_id)}\n{heading}\n{about}\n<div class="columns">{"".join(columns)}</div>\n</section>'


def _column(heading: str, items: Sequence[ItemLine], empty: str, subject: ItemLine | None = None) -> str:
    looked_at = f'<div class="subject">Looking at: {_text(subject)}</div>' if subject is not None else ""
    listed = f"<ol>{''.join(_line(item) for item in items)}</ol>" if items else f"<p>{escape(empty)}</p>"
    return f"<div><h3>{escape(heading)}</h3>{looked_at}{listed}</div>\n"


def _line(item: ItemLine) -> str:
    mark = ' class="positive"' if item.positive else ""
    return f"<li{mark}>{_text(item)}</li>"


def _text(item: ItemLine) -> str:
    details = " · ".join(escape(part) for part in (item.category, item.advertiser, item.note) if part)
    return f'{escape(item.title)}<span class="quiet">{details}</span>'
