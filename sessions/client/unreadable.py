"""Find keys of the wrong type, in order to drop them: Holdline has not written their values."""

import logging
import re

logger = logging.getLogger("holdline.unreadable")

TYPES = {
    "address_bytes": "string",
    "address_key": "string",
    "address_rate": "string",
    "address_turns": "set",
    "conversation": "hash",
    "conversation_rate": "string",
    "conversations": "zset",
    "current": "string",
    "deleted": "set",
    "events": "stream",
    "expiries": "zset",
    "export": "string",
    "first_turn": "string",
    "instance": "hash",
    "log": "string",
    "messages": "hash",
    "probe": "string",
    "records": "string",
    "rejected_prefill": "string",
    "request": "string",
    "running": "zset",
    "session": "string",
    "session_rate": "string",
    "session_turns": "set",
    "turn": "hash",
    "turns": "set",
    "usage": "hash",
}
"""The type of each kind of key in sessions/keys.py, as the command TYPE returns it."""

_KIND = re.compile(r"[a-z]+:(?:\{[^}]*\}:)?([a-z_]+)")


def is_type_error(reply: object) -> bool:
    """Return whether a reply is an error for a key of the wrong type, also from within a script."""
    return isinstance(reply, Exception) and "WRONGTYPE" in str(reply)


def get_type(key: str) -> str | None:
    """Return the type that a key must have, or None if its kind is unknown."""
    found = _KIND.match(key)
    return TYPES.get(found[1]) if found else None


def find_unreadable(keys: list[str], types: list[bytes]) -> list[str]:
    """Return those of the keys whose type is wrong, and log them; `types` are replies of TYPE."""
    unreadable = []
    for key, found in zip(keys, types, strict=True):
        expected = get_type(key)
        if expected and found.decode() not in (expected, "none"):
            logger.warning("dropped %s: it is a %s instead of a %s", key, found.decode(), expected)
            unreadable.append(key)
    return unreadable
