"""Encode and read logs of version 0.1, which hold the bytes of their event stream. Pure.

A turn that an older worker began is finished under its old key by this encoding, so that the frame
ids that its viewers have stay valid. The next minor version removes it.
"""

import json

from chat.event_stream import EventDecoder
from chat.log.records import Kind, PartialAnswer

MAX_LOG_BYTES = 8 << 20
"""A turn whose log exceeds this fails, as in version 0.1: frames take more bytes than records."""

_EVENTS = {
    Kind.TEXT: "",
    Kind.REASONING: "reasoning",
    Kind.CONTINUED: "continued",
    Kind.USAGE: "usage",
    Kind.END: "end",
    Kind.FAILED: "failed",
}


def encode(turn: str, offset: int, kind: Kind, payload: str) -> bytes:
    """Return the frame that begins at `offset` of the turn's log; empty for a kind without one.

    The payload of `END` is the whole answer. A frame's id names the offset at which it ends.
    """
    event = _EVENTS.get(kind)
    if event is None:
        return b""
    text = payload.replace("\n", "\ndata: ")
    head = f"event: {event}\nid: {turn}." if event else f"id: {turn}."
    body = f"\ndata: {text}\n\n".encode()
    end = offset + len(head) + len(body)
    end += len(str(end + len(str(end))))
    return b"%b%d%b" % (head.encode(), end, body)


def is_valid_offset(before: bytes, after: bytes) -> bool:
    """Return whether a frame ends with the two bytes before an offset, or the log begins there."""
    return before in (b"", b"\n\n")


def is_complete(tail: bytes) -> bool:
    """Return False: the last frame is in the log, and needs no completion."""
    return False


def keep_whole(data: bytes) -> bytes:
    """Return `data`: its frames are sent as they are, cut anywhere."""
    return data


def decode_answer(data: bytes) -> PartialAnswer:
    """Return the contents of a log; each seam counts as an attempt."""
    payloads: dict[str, list[str]] = {"message": [], "reasoning": [], "continued": []}
    for event in EventDecoder().feed(data):
        if event.name in payloads:
            payloads[event.name].append(event.data)
    seams = [json.loads(seam) for seam in payloads["continued"]]
    attempts = [{"mode": "prompt", "reason": seam["why"]} for seam in seams]
    return PartialAnswer(
        "".join(payloads["message"]), "".join(payloads["reasoning"]), seams, attempts
    )
