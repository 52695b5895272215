"""Compare what the web UI and an export show, whatever elements surround it."""

import json
from html import escape
from html.parser import HTMLParser

from tests.processes import ROOT

CASES: list[tuple[str, str]] = json.loads((ROOT / "tests" / "visible_text.json").read_text())
"""Markdown, and the HTML that the web UI and an export show, as `simplify` returns it."""

_FRAMES = {"div", "figure", "input", "span"}
_ATTRIBUTES = {"href", "align", "start", "value"}
_NAMES = {"s": "del"}
_EMPTY = {"br", "hr", "img"}


class _Simplifier(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.html = ""
        self.text = ""
        self._is_code = False
        self._is_caption = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "figcaption":
            self._is_caption = True
        if tag == "pre":
            self._is_code = True
        if self._is_caption or tag in _FRAMES:
            return
        shown = "".join(f' {name}="{value}"' for name, value in attrs if name in _ATTRIBUTES)
        self.html += f"<{_NAMES.get(tag, tag)}{shown}>"

    def handle_endtag(self, tag: str) -> None:
        if not self._is_caption and tag not in _FRAMES | _EMPTY:
            self.html += f"</{_NAMES.get(tag, tag)}>"
        if tag == "figcaption":
            self._is_caption = False
        if tag == "pre":
            self._is_code = False

    def handle_data(self, data: str) -> None:
        is_between = not self._is_code and not data.strip(" \n")
        if self._is_caption or (is_between and "\n" in data):
            return
        if self.html.endswith("<br>"):
            data = data.lstrip("\n")
        self.text += data
        self.html += escape(data, quote=False)


def simplify(html: str) -> str:
    """Return HTML without frames, captions, classes, the white space between elements and the line
    end of code."""
    simplifier = _Simplifier()
    simplifier.feed(html)
    return simplifier.html.replace("\n</code>", "</code>")


def read_text(html: str) -> str:
    """Return the visible text of HTML, without the captions of code."""
    simplifier = _Simplifier()
    simplifier.feed(html)
    return simplifier.text
