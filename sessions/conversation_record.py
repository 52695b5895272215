"""A conversation and its messages as Redis stores them. Pure.

A malformed field is replaced or left out. A message needs a valid id, role and content.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sessions import keys
from sessions.keys import ConversationId, MessageId, TurnId

SUMMARY_FIELDS = ("title", "created", "updated", "running", "pinned", "model")
"""The hash fields of a Summary."""

CONVERSATION_FIELDS = (*SUMMARY_FIELDS, "system")
"""The hash fields of a Conversation."""

_ROLES = ("user", "assistant", "system")

_OPTIONAL_FIELDS = {
    "created": int, "turn": str, "model": str, "finish_reason": str, "reasoning": str,
    "usage": dict, "tool_calls": list, "continued": list,
    "failure": dict,
}  # fmt: skip
"""Further fields of a message, and their types; a field of another type is left out."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation as a list shows it; times are in ms since the epoch."""

    id: ConversationId
    title: str
    created: int
    updated: int
    running: TurnId | None
    pinned: bool
    model: str


@dataclass(frozen=True, slots=True)
class Conversation(Summary):
    """A conversation without its messages."""

    system: str | None


class Message(NamedTuple):
    """A message of a history; `body` holds role, content, created and further fields."""

    id: MessageId
    parent: MessageId | None
    body: dict[str, Any]


def parse_conversation(
    conversation_id: ConversationId, values: list[bytes | None]
) -> Conversation | None:
    """Return a conversation from the values of CONVERSATION_FIELDS; None without any of them."""
    *others, system = values
    summary = parse_summary(conversation_id, others)
    if summary is None:
        return None
    text = None if system is None else system.decode(errors="replace")
    return Conversation(**asdict(summary), system=text)


def parse_summary(conversation_id: ConversationId, values: list[bytes | None]) -> Summary | None:
    """Return a conversation from the values of SUMMARY_FIELDS; None without any of them.

    A malformed time is 0, and a malformed turn None.
    """
    text = {
        name: value.decode(errors="replace")
        for name, value in zip(SUMMARY_FIELDS, values, strict=True)
        if value is not None
    }
    if "created" not in text:
        return None
    running = text.get("running", "")
    return Summary(
        id=conversation_id,
        title=text.get("title", ""),
        created=_parse_time(text["created"]),
        updated=_parse_time(text.get("updated", "")),
        running=TurnId(running) if keys.is_id(running) else None,
        pinned=text.get("pinned") == "1",
        model=text.get("model", ""),
    )


def parse_message(message_id: str, entry: bytes) -> Message:
    """Return a message from its entry; raises ValueError for a malformed one."""
    parent_id, _, encoded = entry.partition(b"\n")
    parent = parent_id.decode()
    body = json.loads(encoded)
    if not keys.is_id(message_id) or (parent and not keys.is_id(parent)):
        raise ValueError("a malformed id")
    if (
        not isinstance(body, dict)
        or body.get("role") not in _ROLES
        or not isinstance(body.setdefault("content", ""), str)
    ):
        raise ValueError("no role, or the content is not text")
    for name, kind in _OPTIONAL_FIELDS.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            del body[name]
    if body.get("continued"):
        body["continued"] = [seam for seam in body["continued"] if _is_seam(seam)]
    return Message(MessageId(message_id), MessageId(parent) or None, body)


def parse_children(value: bytes | None) -> list[MessageId]:
    """Return the ids of a message's children; malformed ones are left out."""
    ids = (value or b"").decode(errors="replace").split()
    return [MessageId(one) for one in ids if keys.is_id(one)]


def _is_seam(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("at"), int)
        and isinstance(value.get("why"), str)
    )


def _parse_time(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
