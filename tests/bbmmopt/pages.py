"""HTML that a notebook would show, taken apart."""

import re
from html.parser import HTMLParser
from typing import Any

HOSTILE = "<script>alert('&')</script>"

# Nothing else may come out: no script, no style sheet, no picture from elsewhere.
TAGS = {"table", "thead", "tbody", "tr", "th", "td", "div", "span", "strong", "details"}
TAGS |= {"summary", "pre", "svg", "title", "path", "progress"}


class Page(HTMLParser):
    """The tables and the text of some HTML; refuses what is not well-formed, or more than that."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.seen: set[str] = set()
        self.paths: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        self.seen.add(tag)
        self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "href")
            assert "url(" not in (value or "") and not re.search("#[0-9a-f]{3}", value or "")
            if name == "d":
                self.paths.append(value or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def facts(self) -> dict[str, str]:
        """{name: what is said of it}, of tables of two columns."""
        return {row[0]: row[1] for row in self.rows if len(row) == 2}


def page(thing: Any) -> Page:
    return Page(thing._repr_html_())
