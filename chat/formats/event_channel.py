"""The event stream of an owner's events, as frames with or without their type as a name. Pure."""

import msgspec

from chat.formats.sse import HEARTBEAT

OPENING = b"retry: 1000\n" + HEARTBEAT
"""The beginning of each connection: an EventSource reconnects after 1,000 ms."""


def encode(event_id: str, kind: str, fields: dict[str, str], *, is_named: bool) -> bytes:
    """Return the frame of an event; its data are JSON with `type` and the fields."""
    data = msgspec.json.encode({"type": kind, **fields})
    name = f"event: {kind}\n" if is_named else ""
    return f"{name}data: ".encode() + data + f"\nid: {event_id}\n\n".encode()
