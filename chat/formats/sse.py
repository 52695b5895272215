"""The event stream (WHATWG HTML §9.2) of a turn: records of its log as frames, and their ids. Pure.

Each record makes one frame, but for attempts, tool calls, extra fields and unknown kinds, which
make none, and the end of an answer (see `encode_end`). The id of a frame is `<turn>.<offset>`,
where the offset is the log's length in bytes just after the frame's record: a viewer resumes from
there.

The id is the last line of a frame. Some clients (fetch-event-source 2.0.1) resume after an id that
they have received without the rest of its frame, and would lose data that follows it.
"""

import re

from chat.log.records import Kind

HEARTBEAT = b":\n"
"""A comment that keeps an idle connection open; it is not part of the log.

No empty line follows. At an empty line, a client that follows §9.2.6 exactly sets its last event id
to that of this connection. Before the first frame there is none: the client would lose its id, and
ask the question again.
"""

RETRY_LATER = b"retry: 5000\n: Redis is unavailable, try again\n"
"""The whole stream while Redis is unavailable: an EventSource reconnects after 5,000 ms."""

ASK_AGAIN = b"retry: 500\n"
"""The whole stream for a new question to a server that is stopping: nothing has begun.

An EventSource sends the question again after 500 ms, on a new connection.
"""

_RETRY_MS = 1000
_TURN = re.compile(r"[A-Za-z0-9_-]{16,64}")
_FRAME_ID = re.compile(r"([A-Za-z0-9_-]{16,64})\.([0-9]{1,15})")

_HEADS: dict[bytes, bytes] = {
    b"%c" % Kind.TURN: b"retry: %d\nevent: turn\n" % _RETRY_MS,
    b"%c" % Kind.TEXT: b"",
    b"%c" % Kind.REFUSAL: b"",
    b"%c" % Kind.REASONING: b"event: reasoning\n",
    b"%c" % Kind.CONTINUED: b"event: continued\n",
    b"%c" % Kind.USAGE: b"event: usage\n",
    b"%c" % Kind.FAILED: b"event: failed\n",
}
"""The beginning of each kind's frame. `END` has its own function: its data is the whole answer."""


def is_turn_id(text: str) -> bool:
    """Return whether a client may choose this id for a turn: 16 to 64 of `[A-Za-z0-9_-]`."""
    return _TURN.fullmatch(text) is not None


def parse_id(text: str) -> tuple[str, int] | None:
    """Return the turn and the offset in bytes of a `Last-Event-ID`; None if it is malformed."""
    found = _FRAME_ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None


def encode(turn: str, begin: int, records: bytes) -> bytes:
    """Return the frames of whole records, of which the first begins at the offset `begin`.

    `END` makes no frame here: `encode_end` does.
    """
    name = turn.encode()
    frames = []
    end = begin
    for record in records.split(b"\0")[1:]:  # as `split` does, without a generator for each token
        end += 1 + len(record)
        head = _HEADS.get(record[:1])
        if head is not None:
            data = record[1:]
            if b"\n" in data:
                data = data.replace(b"\n", b"\ndata: ")
            frames.append(b"%bdata: %b\nid: %b.%d\n\n" % (head, data, name, end))
    return frames[0] if len(frames) == 1 else b"".join(frames)


def encode_end(turn: str, length: int, answer: str) -> bytes:
    """Return the `end` frame with the whole answer; `length` is the log's, in bytes."""
    data = answer.replace("\n", "\ndata: ")
    return f"event: end\ndata: {data}\nid: {turn}.{length}\n\n".encode()


def encode_brief_end(turn: str, length: int, answer: str) -> bytes:
    """Return the `end` frame without the answer, for clients with a maximum length of a line."""
    return encode_end(turn, length, "")


def encode_waiting(turn: str, offset: int, wait: str) -> bytes:
    """Return the frame that states why the answer waits (JSON); it is not part of the log.

    It has the id of the frame before: without one, a client may forget that id (see HEARTBEAT).
    """
    return f"event: waiting\ndata: {wait}\nid: {turn}.{offset}\n\n".encode()


def encode_restart(turn: str) -> bytes:
    """Return the frame that tells a viewer to discard what it shows; it is not part of the log."""
    return f"event: restart\ndata: {{}}\nid: {turn}.0\n\n".encode()
