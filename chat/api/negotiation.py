"""Choose the format of a turn's stream: by `format` in the query, else by `Accept`."""

from enum import Enum

from sanic import Request

from chat.api import parsing
from chat.errors import BadRequest, NotAcceptable


class WireFormat(Enum):
    """The formats of `/api/chat_stream/`, by their names in the query."""

    SSE = "sse"
    TEXT = "text"
    NDJSON = "ndjson"
    JSON = "json"


_TYPES = {
    "text/event-stream": WireFormat.SSE,
    "text/plain": WireFormat.TEXT,
    "application/json": WireFormat.JSON,
    "application/x-ndjson": WireFormat.NDJSON,
    "application/ndjson": WireFormat.NDJSON,
    "application/jsonl": WireFormat.NDJSON,
    "text/*": WireFormat.SSE,
    "application/*": WireFormat.JSON,
}


def choose_format(request: Request) -> WireFormat:
    """Return the format that the client asks for; raises BadRequest and NotAcceptable.

    An `Accept` with `*/*` states no preference: browsers send it with every `fetch`, and get SSE.
    """
    named = parsing.parse_query(request).get("format")
    if named is not None:
        try:
            return WireFormat(named)
        except ValueError:
            names = ", ".join(one.value for one in WireFormat)
            raise BadRequest(f"Unknown `format`: expected one of {names}.") from None
    accept = request.headers.getall("accept", [])
    weights = dict(_parse_range(one) for one in ",".join(accept).split(",") if one.strip())
    if not weights or "*/*" in weights:
        return WireFormat.SSE
    found = [name for name in weights if name in _TYPES and weights[name] > 0]
    if not found:
        raise NotAcceptable(f"`Accept` allows none of {', '.join(list(_TYPES)[:4])}.")
    return _TYPES[max(found, key=lambda name: weights[name])]


def _parse_range(text: str) -> tuple[str, float]:
    """Return a media range of `Accept` and its weight (RFC 9110 §12.5.1); 1 if it is malformed."""
    name, *parameters = text.split(";")
    weight = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 1.0
    return name.strip().lower(), weight
