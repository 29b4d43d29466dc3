"""Reads the HTML pages that commands write, and checks that they stand by themselves."""

import base64
import html.parser
import re

VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """A page, taken apart: its tags with their attributes, the text of its rows, and whether tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self._open, self._cell = [], [], [], None
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(path) -> Page:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    sources = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))
    assert not page.named("script") and not page.named("link")
    assert all(image["alt"].strip() for image in page.named("img"))
    assert all(clip["aria-label"].strip() and "controls" in clip for clip in page.named("audio"))
    assert {attributes.get("scope") for attributes in page.named("th")} <= {"row", "col"}
    return page


def content(uri, media_type):
    assert uri.startswith(f"data:{media_type};base64,")
    return base64.b64decode(uri.partition(",")[2])
