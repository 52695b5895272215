"""The events of a turn as JSON lines (`application/x-ndjson`). Pure.

A line is an object with `event`, `id` and `data`: the name, the id and the data of the frame that
`sse` makes of the same record. `data` is a string if the frame has text, else an object.
"""

import json
from typing import Any

from chat.log.records import TEXT_KINDS, Kind

HEARTBEAT = b'{"event":"heartbeat"}\n'

_EVENTS = {
    b"%c" % Kind.TURN: "turn",
    b"%c" % Kind.TEXT: "message",
    b"%c" % Kind.REFUSAL: "message",
    b"%c" % Kind.REASONING: "reasoning",
    b"%c" % Kind.CONTINUED: "continued",
    b"%c" % Kind.USAGE: "usage",
    b"%c" % Kind.FAILED: "failed",
}
"""The event of each kind. `END` has its own function: its data is the whole answer."""

_TEXTS = {b"%c" % kind for kind in TEXT_KINDS}


def encode(turn: str, begin: int, records: bytes) -> bytes:
    """Return the lines of whole records, of which the first begins at the offset `begin`."""
    lines = []
    end = begin
    for record in records.split(b"\0")[1:]:
        end += 1 + len(record)
        kind, payload = record[:1], record[1:]
        if event := _EVENTS.get(kind):
            data = payload.decode() if kind in _TEXTS else json.loads(payload)
            lines.append(_encode_line({"event": event, "id": f"{turn}.{end}", "data": data}))
    return b"".join(lines)


def encode_end(turn: str, length: int, answer: str) -> bytes:
    """Return the `end` line with the whole answer; `length` is the log's, in bytes."""
    return _encode_line({"event": "end", "id": f"{turn}.{length}", "data": answer})


def encode_brief_end(turn: str, length: int, answer: str) -> bytes:
    """Return the `end` line without the answer."""
    return encode_end(turn, length, "")


def encode_waiting(turn: str, offset: int, wait: str) -> bytes:
    """Return the line that states why the answer waits (JSON); it is not part of the log."""
    event = {"event": "waiting", "id": f"{turn}.{offset}", "data": json.loads(wait)}
    return _encode_line(event)


def encode_restart(turn: str) -> bytes:
    """Return the line that tells a viewer to discard what it shows; it is not part of the log."""
    return _encode_line({"event": "restart", "id": f"{turn}.0", "data": {}})


def _encode_line(event: dict[str, Any]) -> bytes:
    # In ASCII: many clients split lines also at U+2028 and U+0085 (Python's str.splitlines).
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
