"""Read the body of a chat completion, and the options that its query may set instead."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sanic import Request
from sanic.http import Http

from chat.api import parsing
from chat.api.state import get_state
from chat.errors import BadRequest, InvalidField, NotFound, TooLarge
from chat.turns.context.client_request import ClientRequest

MAX_BODY_BYTES = 20 << 20
"""Maximum size of a body, including its images."""

_MAX_MESSAGES = 10_000
_MAX_DEPTH = 100
"""Maximum nesting of a body: a deeper one may cause a RecursionError."""

_OWN_FIELDS = ("messages", "metadata", "model", "store", "stream", "stream_options")
"""Fields that Holdline itself acts on; all others go upstream unchanged."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request for an answer, and the form in which the client wants to receive it."""

    request: ClientRequest
    model: str | None
    conversation: str | None
    """The conversation that keeps the exchange: its id, "" for a new one, None for none."""
    is_streamed: bool
    as_lines: bool
    include_usage: bool
    digest: str
    """128 bits that identify the request."""


async def receive_body(request: Request) -> bytes:
    """Return the body; raises TooLarge beyond MAX_BODY_BYTES."""
    http = cast(Http, request.stream)
    http.request_max_size = MAX_BODY_BYTES + 1
    body = bytearray()
    async for part in http:
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"The body is larger than {MAX_BODY_BYTES >> 20} MiB.")
    return bytes(body)


def parse(request: Request, data: bytes, *, is_kept: bool) -> CompletionRequest:
    """Return the request; raises BadRequest, InvalidField, TooLarge and NotFound.

    With `is_kept`, the answer is generated to its end: its client can request it again.
    """
    query = parsing.parse_query(request)
    body = parsing.decode_json(request, data)
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    _check_depth(body, _MAX_DEPTH)
    stream = _read(body, "stream", bool, False) or parsing.parse_flag(
        query, "stream", default=False
    )
    as_lines = _read_format(query) == "ndjson"
    options = _read(body, "stream_options", dict, {})
    metadata = _read(body, "metadata", dict, {})
    conversation = metadata.get("conversation")
    if conversation is not None and not isinstance(conversation, str):
        raise InvalidField("metadata", "`metadata.conversation` must be the id of a conversation.")
    if conversation is None and _read(body, "store", bool, False):
        conversation = ""
    if conversation:
        parsing.parse_conversation_id(conversation)
    if _read(body, "n", int, 1) != 1:
        raise InvalidField("n", "`n` must be 1: Holdline generates one answer at a time.")
    messages = _read_messages(body)
    max_length = get_state(request).message_max
    if conversation is not None and len(find_question(messages)) > max_length:
        raise TooLarge(f"A question that is stored may have at most {max_length} characters.")
    client_request = ClientRequest(
        messages=messages,
        fields={name: value for name, value in body.items() if name not in _OWN_FIELDS},
        continues_at_limit=parsing.parse_flag(query, "continue", default=False),
        is_kept=is_kept or conversation is not None,
    )
    return CompletionRequest(
        request=client_request,
        model=_read_model(request, body),
        conversation=conversation,
        is_streamed=stream or as_lines,
        as_lines=as_lines,
        include_usage=_read(options, "include_usage", bool, False),
        digest=_hash(body, query),
    )


def find_question(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last question, for the conversation that keeps the exchange."""
    content = next((one.get("content") for one in reversed(messages) if one["role"] == "user"), "")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _check_depth(value: object, left: int) -> None:
    if not left:
        raise BadRequest(f"The body is nested more than {_MAX_DEPTH} levels deep.")
    if isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            _check_depth(one, left - 1)


def _read_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MAX_MESSAGES:
        raise InvalidField(
            "messages", f"`messages` must be a list of 1 to {_MAX_MESSAGES} objects."
        )
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            name = f"messages[{number}]"
            raise InvalidField(name, f"`{name}` must be an object with a `role`.")
    return messages


def _read_model(request: Request, body: dict[str, Any]) -> str | None:
    model = _read(body, "model", str, "")
    try:
        return parsing.parse_model(request, model)
    except BadRequest as error:
        raise NotFound(error.message) from None


def _read(body: dict[str, Any], name: str, kind: type[Any], default: Any) -> Any:
    """Return a field of the given type; null counts as missing. Raises InvalidField."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {bool: "true or false", dict: "an object", int: "an integer", str: "a string"}
        raise InvalidField(name, f"`{name}` must be {names[kind]}.")
    return value


def _read_format(query: Mapping[str, str]) -> str:
    value = query.get("format", "sse")
    if value not in ("sse", "ndjson"):
        raise BadRequest("Unknown `format`: expected sse or ndjson.")
    return value


def _hash(body: dict[str, Any], query: Mapping[str, str]) -> str:
    identity = json.dumps([body, dict(query)], sort_keys=True).encode()
    return hashlib.blake2b(identity, digest_size=16).hexdigest()
