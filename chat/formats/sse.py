"""Encode a turn's frames as server-sent events (WHATWG HTML §9.2), and read their ids. Pure.

A turn's log is nothing but these bytes. The id of a frame is `<turn>.<offset>`, where the offset is the
log's length in bytes just after that frame: whoever has seen the frame goes on reading from there.
"""

import re
from typing import NamedTuple

from chat.event_stream import EventDecoder

HEARTBEAT = b":\n\n"
"""A comment that keeps a silent connection open; it is a viewer's own and stands in no log."""

RETRY_LATER = b"retry: 5000\n: the store is away, try again\n\n"
"""All that a viewer gets while Redis does not answer: an EventSource asks again after 5,000 ms."""

_RETRY_MS = 1000
_TURN = re.compile(r"[A-Za-z0-9_-]{16,64}")
_FRAME_ID = re.compile(r"([A-Za-z0-9_-]{16,64})\.([0-9]{1,15})")


def is_turn_id(text: str) -> bool:
    """Whether a client may name a turn so: 16 to 64 of `[A-Za-z0-9_-]`."""
    return _TURN.fullmatch(text) is not None


def parse_id(text: str) -> tuple[str, int] | None:
    """The turn and the offset in bytes that a `Last-Event-ID` names; None if it is not one of ours."""
    found = _FRAME_ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None


def encode(turn: str, offset: int, data: str, event: str = "") -> bytes:
    """The bytes of a frame that begins at `offset` of the turn's log."""
    text = data if "\n" not in data else data.replace("\n", "\ndata: ")
    head = f"event: {event}\nid: {turn}." if event else f"id: {turn}."
    body = f"\ndata: {text}\n\n".encode()
    end = offset + len(head) + len(body)
    end += len(str(end + len(str(end))))
    return b"%b%d%b" % (head.encode(), end, body)


def encode_end(turn: str, length: int, answer: str) -> bytes:
    """The `end` frame of a log that is no more, with the id it had: `length` was that log's in bytes."""
    text = answer.replace("\n", "\ndata: ")
    return f"event: end\nid: {turn}.{length}\ndata: {text}\n\n".encode()


def encode_first(turn: str, data: str) -> bytes:
    """The log's first frame, `turn`, which also tells the client how soon to reconnect."""
    retry = b"retry: %d\n" % _RETRY_MS
    return retry + encode(turn, len(retry), data, "turn")


def encode_restart(turn: str) -> bytes:
    """The viewer's own frame that tells it to forget what was shown, for it comes again."""
    return f"event: restart\nid: {turn}.0\ndata: {{}}\n\n".encode()


def is_boundary(before: bytes) -> bool:
    """Whether a frame ends with the two bytes before an offset; an empty line stands nowhere else in a log.

    No bytes are before its beginning, which is a boundary too.
    """
    return before in (b"", b"\n\n")


class PartialAnswer(NamedTuple):
    """What a log holds of an answer: the data of its deltas, reasoning and seams, in order."""

    text: list[str]
    reasoning: list[str]
    continued: list[str]


def decode_log(log: bytes | bytearray) -> PartialAnswer:
    """What a log holds of its answer so far."""
    made = PartialAnswer([], [], [])
    lists = {"message": made.text, "reasoning": made.reasoning, "continued": made.continued}
    for event in EventDecoder().feed(bytes(log)):
        if event.name in lists:
            lists[event.name].append(event.data)
    return made
