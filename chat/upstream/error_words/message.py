"""Find an upstream's own words in an error response, whatever its shape. Pure.

Servers and gateways agree on no shape: `error.message`, `error` as a string, `detail`, lists, JSON
inside strings, Python's notation of a dictionary, and web pages all occur.
"""

import html
import re
from collections.abc import Iterable, Mapping
from itertools import islice

from chat.upstream.error_words.body import (
    ECHOES,
    MAX_DEPTH,
    MAX_TEXT_CHARS,
    MAX_VALUES,
    decode,
    find_end,
    is_web_page,
    normalise,
    normalise_name,
    parse,
    walk,
)

_MAX_ITEMS = 3
"""Maximum number of messages that are shown from one list."""

_SPECIFIC = (
    "detail", "message", "msg", "errordescription", "errormessage", "errormsg", "statusmsg",
    "faultstring", "failurereason",
)  # fmt: skip
_GENERAL = ("error", "errors", "details", "description", "reason", "title")
_BY_FIELD = ("error", "errors", "detail", "details")
"""Fields that may hold a dictionary from the names of request fields to their messages."""
_WRAPPERS = (
    "fault", "exception", "baseresp", "response", "result", "data", "body", "output", "cause",
    "choices",
)  # fmt: skip
_CODES = {
    "code", "type", "param", "parameter", "field", "loc", "status", "errortype", "errorcode",
    "internalcode", "name", "finishreason",
}  # fmt: skip
_MESSAGES = {*_SPECIFIC, *_GENERAL, "text", "raw"}

_NOTHING = ("null", "undefined", "true", "false", "None")

_FIELD = re.compile(
    r"""["'](?:message|detail|msg|error)["']\s*:\s*"""
    r"""(?:"((?:[^"\\]|\\.){1,4000})["\\]?|'((?:[^'\\]|\\.){1,4000})['\\]?)"""
)
"""A message in a dictionary that cannot be decoded, for example because it is truncated."""
_STRUCTURE = re.compile(
    r"""\{\s*["'{\[}]|(?<![\w\])])\[\s*["'{\[\]]|(?<!\w)\(\s*["'][^"']{0,99}["']\s*,"""
)
"""The beginning of a dictionary, list or tuple inside a text."""
_TAG = re.compile(r"<[!/?|A-Za-z][^<>]*>|<\d+>")
_PYDANTIC = re.compile(r"\[type=\w+, input_value=.{0,2000}?input_type=\w+\]", re.DOTALL)
_LAST_NONE = re.compile(r"(?<=[.!?;:)])\s+None\s*$")
_NONE = re.compile(r"\bNone\b(?! (?:of|are|is|was|were)\b)")
_BYTES = re.compile(r"(?<!\w)b(['\"])(.{0,500}?)\1")
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def find_message(body: object) -> str:
    """Return the upstream's own words, in plain text on one line; "" if there are none.

    `body` is a body as bytes or text, or decoded JSON. Keys and addresses are not removed: see
    `sanitise`.
    """
    return _Search().find(decode(body), MAX_DEPTH)


def find_evidence(body: object) -> tuple[str, str]:
    """Return every message of a body, one per line, and its codes, types and field names."""
    decoded = decode(body)
    texts, codes = [find_message(decoded)], []
    for key, value in walk(decoded):
        if key in _MESSAGES and isinstance(value, str) and value[:1] not in ("{", "["):
            texts.append(clean(value))
        if key in _CODES and isinstance(value, (str, int)):
            codes.append(str(value)[:100])
    return "\n".join(dict.fromkeys(texts)), " ".join(codes)


def clean(text: str) -> str:
    """Return a text on one line, without markup, control characters and Python's notation."""
    text = html.unescape(text[: 4 * MAX_TEXT_CHARS]).encode(errors="replace").decode()
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1]
    text = _PYDANTIC.sub(" ", _TAG.sub(" ", text))
    text = re.sub(r"<(?=[!/?|A-Za-z\d])", "< ", text)
    text = _NONE.sub("…", _LAST_NONE.sub("", _BYTES.sub(r"\2", text)))
    text = " ".join(_CONTROL.sub(" ", _INVISIBLE.sub("", text)).split())[:MAX_TEXT_CHARS]
    is_empty = text in _NOTHING or not any(map(str.isalpha, text))
    return "" if is_empty else text


class _Search:
    """One search for words, over at most `MAX_VALUES` values."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def find(self, value: object, depth: int) -> str:
        """Return the words of a value; `depth` is the number of levels to search."""
        if value is None or depth <= 0 or self._left == 0:
            return ""
        self._left -= 1
        if isinstance(value, str):
            return self._read_text(value, depth - 1)
        if isinstance(value, Mapping):
            return self._read_mapping(normalise(value), depth - 1)
        if isinstance(value, (list, tuple)):
            found = (self.find(item, depth - 1) for item in value[:MAX_VALUES])
            return "; ".join(islice(dict.fromkeys(words for words in found if words), _MAX_ITEMS))
        return ""

    def _read_mapping(self, fields: dict[str, object], depth: int) -> str:
        """Return the most specific words of a dictionary."""
        metadata = fields.get("metadata")
        metadata = normalise(metadata) if isinstance(metadata, Mapping) else {}
        if raw := self.find(metadata.get("raw"), depth):
            return raw
        error = fields.get("error")
        if not isinstance(error, str) and (words := self.find(error, depth)):
            return words
        for key in (*_SPECIFIC, *_GENERAL):
            value = fields.get(key)
            words = self.find(value, depth)
            if not words and key in _BY_FIELD and isinstance(value, Mapping):
                words = self._join_fields(value, depth)
            if words:
                return f"{_locate(fields)}{words}{_list_reasons(metadata)}"
        if "errorcode" in fields and (words := self.find(fields.get("text"), depth)):
            return words
        for key in _WRAPPERS:
            value = fields.get(key)
            if isinstance(value, (Mapping, list)) and (words := self.find(value, depth)):
                return words
        return ""

    def _join_fields(self, value: Mapping[object, object], depth: int) -> str:
        """Return "field: message" for each field of a dictionary from fields to messages."""
        found = []
        for key, item in islice(value.items(), 20):
            if normalise_name(key) not in ECHOES and (words := self.find(item, depth)):
                found.append(f"{str(key)[:60]}: {words}")
        return clean("; ".join(found[:_MAX_ITEMS]))

    def _read_text(self, text: str, depth: int) -> str:
        """Return the words of a text, which may be or contain JSON, a Python value or a page."""
        decoded = decode(text)
        if not isinstance(decoded, str):
            return self.find(decoded, depth)
        text = decoded
        if is_web_page(text):
            return _read_page(text)
        for _ in range(_MAX_ITEMS):
            match = _STRUCTURE.search(text, 0, MAX_TEXT_CHARS)
            if match is None:
                return clean(text)
            start, end = match.start(), find_end(text, match.start())
            structure = parse(text[start:end])
            if words := self.find(structure, depth) if _holds_mapping(structure) else "":
                return words
            if structure is None and (field := _FIELD.search(text, start)):
                return self.find(_unescape(field[1] or field[2]), depth)
            listed = _list_words(structure) if isinstance(structure, (list, tuple, set)) else ""
            text = f"{text[:start]}{listed or '…'}{text[end:]}"
        match = _STRUCTURE.search(text)
        return clean(text[: match.start()] if match else text)


def _locate(fields: dict[str, object]) -> str:
    """Return the field that an error of pydantic names, such as "stream_options: "; else ""."""
    location = fields.get("loc")
    if not isinstance(location, (list, tuple)):
        return ""
    names = [str(part)[:60] for part in location[:5] if part != "body"]
    return f"{clean('.'.join(names))}: " if names else ""


def _list_reasons(metadata: dict[str, object]) -> str:
    """Return the reasons of a moderation, such as " (violence)"; else ""."""
    reasons = metadata.get("reasons")
    listed = _list_words(reasons) if isinstance(reasons, list) else ""
    return f" ({listed})" if listed else ""


def _holds_mapping(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(item, Mapping) for item in value[:MAX_VALUES])
    return isinstance(value, Mapping)


def _list_words(values: Iterable[object]) -> str:
    """Return the strings of a list, separated by commas."""
    texts = (clean(value) for value in islice(values, 10) if isinstance(value, str))
    return ", ".join(text.strip("{}[]()'\"") for text in texts if text)


def _unescape(text: str) -> str:
    text = text.removesuffix("\\")
    return re.sub(r"\\(.)", lambda match: " " if match[1] in "nrt" else match[1], text)


def _read_page(text: str) -> str:
    """Return the title of a web page, else its first heading, else its text."""
    lower = text.lower()
    for tag in ("title", "h1", "message"):
        start = lower.find(f"<{tag}")
        begin = lower.find(">", start) + 1
        end = lower.find(f"</{tag}", begin)
        if start >= 0 and begin and end >= 0 and (words := clean(text[begin:end])):
            return words
    for tag in ("script", "style"):
        first, *blocks = re.split(f"<{tag}", text, flags=re.IGNORECASE)
        rest = [re.split(f"</{tag}[^>]*>", block, flags=re.IGNORECASE)[1:] for block in blocks]
        text = " ".join([first, *(part for parts in rest for part in parts)])
    return clean(text)
