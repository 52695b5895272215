"""Parse queries and JSON bodies, with errors that name the field and the expected value.

Text that is not UTF-8 is read as a browser reads it: U+FFFD replaces each malformed part. Half of a
surrogate pair, such as half an emoji, is one such part in each form that a client may send: in a
query, as bytes of a body, and as `\\ud83d` in JSON.
"""

import codecs
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from sanic import Request

from chat.api.state import get_state
from chat.errors import BadRequest, NotFound, UnknownModel
from sessions import keys
from sessions.keys import ConversationId, MessageId

Body = TypeVar("Body", bound=msgspec.Struct)

_HALF_PAIR = re.compile("\xed[\xa0-\xbf][\x80-\xbf]")
"""Half of a surrogate pair in generalized UTF-8 (WTF-8), which no valid UTF-8 contains.

Such bytes are matched as text in Latin-1: many replacements in a text take a fifth of the memory.
"""

_LONE_ESCAPE = re.compile(
    r"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
"""The JSON escape of half of a surrogate pair, in a text without escaped backslashes."""


def decode_text(data: bytes) -> str:
    """Return UTF-8 as text; U+FFFD replaces half of a surrogate pair, and other malformed bytes."""
    replaced = _HALF_PAIR.sub("\xef\xbf\xbd", data.decode("latin-1"))  # U+FFFD in UTF-8
    return replaced.encode("latin-1").decode(errors="replace")


def parse_query(request: Request) -> dict[str, str]:
    """Return the first value of each parameter that is not empty.

    An empty `parent` is kept: it stands for the beginning of a conversation.
    """
    pairs = parse_qsl(request.query_string, keep_blank_values=True, encoding="latin-1")
    return {
        name: decode_text(value.encode("latin-1"))
        for name, value in reversed(pairs)
        if value or name == "parent"
    }


def parse_body(request: Request, kind: type[Body]) -> Body:
    """Return the JSON body; raises BadRequest."""
    body: Body = decode_json(request, request.body, kind)
    return body


def decode_json(request: Request, body: bytes, kind: type[Body] | None = None) -> Any:
    """Return a JSON body, which has the type `kind` if it is given; raises BadRequest."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("The body must be JSON, with `Content-Type: application/json`.")
    try:
        return _decode(body.removeprefix(codecs.BOM_UTF8), kind or Any)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid body: {error}.") from None
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON in UTF-8.") from None


def _decode(body: bytes, kind: Any) -> Any:
    """Return JSON that may contain malformed text; raises ValueError and RecursionError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise
    except ValueError:
        return msgspec.json.decode(_replace_malformed(body), type=kind)


def _replace_malformed(body: bytes) -> str:
    """Return JSON in which U+FFFD replaces each malformed part of its texts, in linear time."""
    text = decode_text(body)
    if "\0" in text:
        raise ValueError("JSON has no NUL")
    text = text.replace(r"\\", "\0")
    return _LONE_ESCAPE.sub(r"\\ufffd", text).replace("\0", r"\\")


def parse_conversation_id(text: str) -> ConversationId:
    """Return `text` as the id of a conversation; raises NotFound if it cannot be an id."""
    if not keys.is_conversation_id(text):
        raise NotFound("There is no such conversation.")
    return ConversationId(text)


def parse_message_id(text: str) -> MessageId:
    """Return `text` as the id of a message; raises NotFound if it cannot be an id."""
    if not keys.is_message_id(text):
        raise NotFound("There is no such message.")
    return MessageId(text)


def parse_model(request: Request, model: str | None) -> str | None:
    """Return the requested model, or None for the default; raises UnknownModel."""
    models = get_state(request).models
    if model and model not in models:
        raise UnknownModel(f"Unknown `model`: expected one of {', '.join(models)}.")
    return model or None


def parse_flag(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return a parameter that is `true`, `1`, `false` or `0`; raises BadRequest."""
    value = query.get(name, "true" if default else "false")
    if value not in ("true", "1", "false", "0"):
        raise BadRequest(f"Invalid `{name}`: expected `true` or `false`.")
    return value in ("true", "1")


def parse_limit(text: str, max_limit: int) -> int:
    """Return a page size from 1 to `max_limit`; raises BadRequest."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= max_limit:
        raise BadRequest(f"Invalid `limit`: expected a number from 1 to {max_limit}.")
    return int(text)
