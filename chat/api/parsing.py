"""What comes in: queries and bodies to values, with a clear word for what is wrong."""

import re
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from sanic import Request

from chat.errors import BadRequest, NotFound
from sessions import keys
from sessions.keys import ConversationId

Body = TypeVar("Body", bound=msgspec.Struct)


def query(request: Request) -> dict[str, str]:
    """The query's first value of each name; raises BadRequest where it is not UTF-8."""
    try:
        pairs = parse_qsl(request.query_string, keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BadRequest("The query is not UTF-8 text.") from None
    return dict(reversed(pairs))


def body(request: Request, kind: type[Body]) -> Body:
    """The JSON body; raises BadRequest in words of our own."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("The body must be JSON, with Content-Type: application/json.")
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body is wrong: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body is not valid JSON in UTF-8.") from None


def conversation_id(text: str) -> ConversationId:
    """Return `text` as the id of a conversation; raises NotFound for a form that no conversation's id has."""
    if not keys.is_id(text):
        raise NotFound("There is no such conversation.")
    return ConversationId(text)


def known_model(request: Request, model: str | None) -> str | None:
    """The model that a client asks for, or None for the default; raises BadRequest for any other."""
    models: tuple[str, ...] = request.app.ctx.models
    if model and model not in models:
        raise BadRequest(f"This server asks {', '.join(models)}, not that model.")
    return model or None


def count(text: str, most: int) -> int:
    """A number from 1 to `most`; raises BadRequest."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise BadRequest(f"The limit is a number from 1 to {most}.")
    return int(text)
