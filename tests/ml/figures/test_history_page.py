"""The qualitative page shows what it is given and lets no text become markup."""

from __future__ import annotations

from html.parser import HTMLParser

from ml.figures.history_page import ItemLine, UserExample, qualitative_page


class Page(HTMLParser):
    """Tags, and the text of each list item with its class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.lines: list[tuple[str, str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "li":
            self.inside = True
            self.lines.append((dict(attrs).get("class") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "li"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.lines[-1] = (self.lines[-1][0], self.lines[-1][1] + data)


def test_no_text_becomes_markup() -> None:
    evil = '<script>alert("x")</script>'
    line = ItemLine(evil, evil, evil, evil)
    user = UserExample(evil, [line], [line], [line], subject=line, positives=[line], about=evil)
    page = qualitative_page([user], title=evil)
    assert "script" not in Page(page).tags
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;") > 10


def test_history_lists_and_positives_are_shown_in_order() -> None:
    user = UserExample(
        "u1",
        history=[ItemLine("Tent", "Outdoor", "Alpina", "checkout, 3 days before")],
        without_context=[ItemLine("Stove"), ItemLine("Lamp", positive=True)],
        with_context=[ItemLine("Boots")],
        subject=ItemLine("Socks"),
    )
    page = qualitative_page([user])
    assert Page(page).lines == [
        ("", "TentOutdoor · Alpina · checkout, 3 days before"),
        ("", "Stove"),
        ("positive", "Lamp"),
        ("", "Boots"),
    ]
    assert "Looking at: Socks" in page


def test_without_a_context_there_is_no_column_for_it() -> None:
    page = qualitative_page([UserExample("u1", [], [])])
    assert "with context" not in page
    assert "No event before the cut-off." in page


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = qualitative_page([UserExample("u1", [ItemLine("Tent")], [])])
    assert not {"link", "script", "img", "iframe"} & set(Page(page).tags)
    assert "url(" not in page
