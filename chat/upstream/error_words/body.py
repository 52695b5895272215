"""Decode the body of an error response, which may be anything. Pure.

Bodies are untrusted: size, depth and the number of values are bounded.
"""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

MAX_TEXT_CHARS = 4000
"""Maximum length of a message; a dictionary inside a message may have twice this length."""
MAX_VALUES = 400
MAX_DEPTH = 8
_MAX_BODY_CHARS = 64 << 10

ECHOES = {"input", "inputvalue", "ctx", "messages", "request", "prompt", "url", "inputs"}
"""Fields that may repeat the question; they are never searched."""

_STATUSES = {"code", "status", "statuscode", "httpstatus", "httpcode", "httpstatuscode"}

_EVENT = re.compile(r"\A\s*(?:event|data|id|retry)?:")
_PAGE = re.compile(
    r"\A\s*<(?:!doctype|html|head|body|title|meta|script|center|h1|\?xml|!--)", re.IGNORECASE
)


def decode(body: object) -> object:
    """Return decoded JSON, or the text of a body that is something else."""
    if isinstance(body, (bytes, bytearray)):
        body = _decode_text(bytes(body[:_MAX_BODY_CHARS]))
    if not isinstance(body, str):
        return body
    text = body[:_MAX_BODY_CHARS].strip().lstrip("\ufeff")
    if _EVENT.match(text):
        lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
        text = "\n".join(line for line in lines if line != "[DONE]") or text
    if text[:1] in ("{", "[", '"'):
        structure = parse(text)
        return text if structure is None else structure
    return text


def walk(body: object) -> Iterator[tuple[str, object]]:
    """Yield the names and values of all fields, without those that repeat the question.

    JSON inside strings is decoded. Names are in lower case and without `_`.
    """
    pending: list[tuple[str, object, int]] = [("", decode(body), 0)]
    for _ in range(MAX_VALUES):
        if not pending:
            return
        key, value, depth = pending.pop()
        if isinstance(value, str) and value[:1] in ("{", "["):
            value = decode(value)
        yield key, value
        if depth == MAX_DEPTH:
            continue
        items: Iterable[tuple[str, object]] = ()
        if isinstance(value, Mapping):
            items = normalise(value).items()
        elif isinstance(value, (list, tuple)):
            items = ((key, item) for item in value[:MAX_VALUES])
        pending += [(name, item, depth + 1) for name, item in items if name not in ECHOES]


def find_status(body: object) -> int | None:
    """Return the HTTP error status (4xx or 5xx) that a body states, if it states one."""
    for key, value in walk(body):
        is_plain = isinstance(value, (int, str))
        if key in _STATUSES and is_plain and re.fullmatch("[45][0-9][0-9]", str(value)[:20]):
            return int(str(value))
    return None


def is_web_page(body: bytes | str) -> bool:
    """Return whether a body is HTML or XML, by its first characters."""
    return bool(_PAGE.match(_decode_text(body[:1024]).lstrip("\ufeff")))


def parse(text: str) -> object:
    """Return the value of JSON or of Python's notation; None if the text is neither.

    Further values after a first object, as in newline-delimited JSON, are ignored.
    """
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        if text.startswith(("{", "[{")):
            return json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError):
        pass
    if len(text) > 2 * MAX_TEXT_CHARS or text.startswith('"'):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes
            value: object = ast.literal_eval(text)
            return value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def find_end(text: str, start: int) -> int:
    """Return the end of the bracket at `start`, or of the text."""
    level, quote, position = 0, "", start
    while position < min(len(text), start + 2 * MAX_TEXT_CHARS):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in "{[(":
            level += 1
        elif character in "}])":
            level -= 1
            if level == 0:
                return position + 1
        position += 1
    return len(text)


def normalise(fields: Mapping[object, object]) -> dict[str, object]:
    """Return a dictionary whose names are in lower case and without `_` and `-`."""
    return {normalise_name(key): value for key, value in islice(fields.items(), MAX_VALUES)}


def normalise_name(name: object) -> str:
    return str(name)[:60].lower().replace("_", "").replace("-", "")


def _decode_text(body: bytes | str) -> str:
    if isinstance(body, str):
        return body
    return body.decode(json.detect_encoding(body), errors="replace")
