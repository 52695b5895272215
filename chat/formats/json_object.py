"""A turn as one JSON object (`application/json`), when it is over. Pure."""

import json
from typing import Any

from chat.log import records
from chat.log.records import Kind

HEARTBEAT = b"\n"
"""White space before the object, which JSON allows (RFC 8259 §2)."""


def read(data: bytes) -> dict[str, Any]:
    """Return the object of a turn, by its whole log; it has `error` if the turn failed."""
    body: dict[str, Any] = {}
    texts: dict[int, list[str]] = {Kind.TEXT: [], Kind.REASONING: []}
    for kind, payload, _ in records.split(data):
        if kind in records.TEXT_KINDS:
            texts[Kind.TEXT if kind == Kind.REFUSAL else kind].append(payload.decode())
        elif kind == Kind.TURN:
            ids = json.loads(payload)
            body = {
                "turn": ids["turn"],
                "conversation": ids["conversation"],
                "question_id": ids["message"],
                "answer_id": ids["answer"],
                "model": ids["model"],
            }
        elif kind == Kind.USAGE:
            body |= _read_usage(json.loads(payload))
        elif kind == Kind.FAILED:
            body["error"] = json.loads(payload)
    body["answer"] = "".join(texts[Kind.TEXT])
    if texts[Kind.REASONING]:
        body["reasoning"] = "".join(texts[Kind.REASONING])
    return body


def has_output(data: bytes) -> bool:
    """Return whether records contain text (also of a refusal) or reasoning."""
    return any(record[:1] in _OUTPUT for record in data.split(b"\0"))


def encode(body: dict[str, Any]) -> bytes:
    """Return the object as a line of JSON."""
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"


_OUTPUT = {b"%c" % kind for kind in records.TEXT_KINDS}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "estimated")


def _read_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a `usage` record, with the counts of tokens in their own object."""
    counts = {name: usage.pop(name) for name in _COUNTS if name in usage}
    return {**usage, "usage": counts or None}
