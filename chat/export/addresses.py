"""Decide where an address in prose ends, and what counts as an address. Pure.

GFM's bare links end at the next space, so `https://a.example。然后` would swallow a Chinese
sentence. Here they end before any mark that is not ASCII, and before the characters that RFC 3986
excludes. `[a](b)` and `<b>` are links only if the address `b` can be opened; else they are text.

The web UI has the same rules in frontend/js/markdown/syntax/addresses.js;
tests/visible_text.json tests both.
"""

import re
from collections.abc import Iterator
from unicodedata import category

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, image, link
from markdown_it.token import Token

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_BARE = re.compile(
    rf"(?:https?://|www\.)(?:[a-z0-9_.%~:-]{{1,200}}@)?(?:(?![{_CJK}])[\w.-])+(?::\d+)?"
    r"(?:[/?#](?:(?!~~)[^\s<>\"`\\*\x00-\x20\x7f]){0,2000})?",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?:https?://|www\.)", re.IGNORECASE)
_PENDING_SCHEME = re.compile(r"https?\Z", re.IGNORECASE)
_IN_PROSE = re.compile(
    r"(?:(?<![^\s*_~(])(?P<www>www\.)|(?<![\w.+-])(?:mailto:)?[a-z0-9._+-]{1,64}@[a-z0-9_-]+"
    r"(?:\.[a-z0-9_-]*[a-z0-9])+(?![\w-]))",
    re.IGNORECASE | re.ASCII,
)
_TRAILING = re.compile(r"(?:&\w+;|[?!.,:;*_'\"~])\Z", re.ASCII)
_OPENING = {")": "(", "]": "["}
_LINKED = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_IN_BRACKETS = re.compile(
    r"<((?:https?://|mailto:|tel:)[^\s<>]*"
    rf"|[a-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})+)>",
    re.IGNORECASE | re.ASCII,
)
_NO_ADDRESS = re.compile(r"\([ \t\n]*\)")


def recognise_addresses(markdown: MarkdownIt) -> None:
    """Make a parser recognise addresses by these rules; a plugin for `MarkdownIt.use`."""
    markdown.inline.ruler.at("linkify", _parse_bare)
    markdown.inline.ruler.at("autolink", _parse_in_brackets)
    markdown.inline.ruler.at("link", _parse_link)
    markdown.inline.ruler.at("image", _parse_image)
    markdown.core.ruler.at("linkify", _link_prose)
    markdown.validateLink = _is_linked  # type: ignore[assignment]


def _is_linked(address: str) -> bool:
    """Return whether a link to this address can be opened."""
    return bool(_LINKED.match(address))


def _parse_bare(state: StateInline, silent: bool) -> bool:
    """Parse an address from its `:` on; the scheme is text that was read before."""
    if state.linkLevel or not state.src.startswith("://", state.pos):
        return False
    scheme = _PENDING_SCHEME.search(state.pending[-5:])
    if silent or not scheme:
        return False
    start = state.pos - len(scheme[0])
    address = _find_address(state.src, start, state.posMax)
    if not address:
        return False
    state.pending = state.pending[: -len(scheme[0])]
    _push_link(state, address, address)
    state.pos = start + len(address)
    return True


def _parse_in_brackets(state: StateInline, silent: bool) -> bool:
    found = _IN_BRACKETS.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        address = found[1]
        _push_link(state, address, address if _is_linked(address) else f"mailto:{address}")
    state.pos = found.end()
    return True


def _parse_link(state: StateInline, silent: bool) -> bool:
    return not _has_no_address(state, state.pos) and link(state, silent)


def _parse_image(state: StateInline, silent: bool) -> bool:
    return not _has_no_address(state, state.pos + 1) and image(state, silent)


def _has_no_address(state: StateInline, start: int) -> bool:
    """Return whether `[words]()` begins at `start`, which the built-in rules take as a link."""
    if not state.src.startswith("[", start, state.posMax):
        return False
    end = state.md.helpers.parseLinkLabel(state, start)
    return end >= 0 and bool(_NO_ADDRESS.match(state.src, end + 1, state.posMax))


def _link_prose(state: StateCore) -> None:
    """Turn the addresses without a scheme into links."""
    for token in state.tokens:
        if token.type == "inline":
            token.children = list(_link_children(state.md, token.children or []))


def _link_children(markdown: MarkdownIt, children: list[Token]) -> Iterator[Token]:
    level = 0
    for token in children:
        level += token.nesting if token.type in ("link_open", "link_close") else 0
        if token.type == "text" and not level:
            yield from _link_text(markdown, token)
        else:
            yield token


def _link_text(markdown: MarkdownIt, token: Token) -> Iterator[Token]:
    text = token.content
    done = 0
    for found in _IN_PROSE.finditer(text):
        is_host = bool(found["www"])
        address = _find_address(text, found.start(), len(text)) if is_host else found[0]
        if not address or found.start() < done:
            continue
        prefix = "http://" if is_host else "" if _is_linked(address) else "mailto:"
        yield _create_text(text[done : found.start()])
        yield from _create_link(markdown, address, prefix + address)
        done = found.start() + len(address)
    yield _create_text(text[done:])


def _create_text(text: str) -> Token:
    return Token("text", "", 0, content=text)


def _create_link(markdown: MarkdownIt, text: str, address: str) -> list[Token]:
    opening = Token("link_open", "a", 1, attrs={"href": markdown.normalizeLink(address)})
    return [opening, _create_text(text), Token("link_close", "a", -1)]


def _push_link(state: StateInline, text: str, address: str) -> None:
    for part in _create_link(state.md, text, address):
        token = state.push(part.type, part.tag, part.nesting)
        token.attrs, token.content = part.attrs, part.content


def _find_address(text: str, start: int, end: int) -> str:
    """Return the address that begins at `start`; empty if there is none."""
    found = _BARE.match(text, start, end)
    if not found:
        return ""
    address = found[0]
    for at, character in enumerate(address):
        is_wide = "\uff00" <= character <= "\uffef"
        if character > "\x7f" and (is_wide or category(character)[0] not in "LMN"):
            address = address[:at]
            break
    return _trim_end(address)


def _trim_end(address: str) -> str:
    """Remove the end of a sentence, and a closing bracket that was opened before the address."""
    while True:
        trailing = _TRAILING.search(address)
        last = address[-1:]
        opening = _OPENING.get(last)
        if trailing:
            address = address[: trailing.start()]
        elif opening and address.count(last) > address.count(opening):
            address = address[:-1]
        else:
            scheme = _SCHEME.match(address)
            return address if scheme and scheme.end() < len(address) else ""
