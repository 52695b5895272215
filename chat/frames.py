"""The event stream (WHATWG HTML §9.2): frames to bytes, bytes to events, ids, text made fit for it. Pure.

A turn's log is nothing but these bytes. The id of a frame is `<turn>.<offset>`, where the offset is the
log's length in bytes just after that frame: whoever has seen the frame goes on reading from there.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

HEARTBEAT = b":\n\n"
"""A comment that keeps a silent connection open; it is a viewer's own and stands in no log."""

AWAY = b"retry: 5000\n: the store is away, try again\n\n"
"""All that a viewer gets while Redis does not answer: an EventSource asks again after 5,000 ms."""

_RETRY_MS = 1000
_TURN = re.compile(r"[A-Za-z0-9_-]{16,64}")
_FRAME_ID = re.compile(r"([A-Za-z0-9_-]{16,64})\.([0-9]{1,15})")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One decoded server-sent event; `name` is "message" where the frame named none."""

    name: str
    data: str
    id: str


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


def restart(turn: str) -> bytes:
    """The viewer's own frame that tells it to forget what was shown, for it comes again."""
    return f"event: restart\nid: {turn}.0\ndata: {{}}\n\n".encode()


def is_boundary(before: bytes) -> bool:
    """Whether a frame ends with the two bytes before an offset; an empty line stands nowhere else in a log.

    No bytes are before its beginning, which is a boundary too.
    """
    return before in (b"", b"\n\n")


class EventDecoder:
    """Bytes of any event stream, cut anywhere, to its events; it buffers one unfinished event at most.

    Takes LF, CRLF and CR, comments, a byte order mark and characters cut in two. Data that is not
    UTF-8 is decoded with U+FFFD, as §9.2.5 says.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._begun = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    @property
    def pending(self) -> int:
        """How many bytes, or characters, of an unfinished event wait for the rest of it."""
        return len(self._rest) + self._size

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes."""
        if self._begun and not (b"\n" in chunk or b"\r" in chunk or self._rest.endswith(b"\r")):
            self._rest += chunk  # a long line is not looked through again with every part of it
            return
        buffer = bytes(self._rest) + chunk
        if not self._begun:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._rest = bytearray(buffer)
                return
            self._begun = True
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        lines = buffer.splitlines(keepends=True)
        # A line that ends in CR may yet go on with LF; one that has no end is not whole.
        self._rest = bytearray(lines.pop() if lines and not lines[-1].endswith(b"\n") else b"")
        for line in lines:
            if not (line := line.rstrip(b"\r\n")):
                name, data = self._name, self._data
                self._name, self._data, self._size = "", [], 0
                if data:
                    yield Event(name or "message", "\n".join(data), self._id)
                continue
            field, _, value = line.partition(b":")
            text = value.removeprefix(b" ").decode("utf-8", "replace")
            if field == b"data":
                self._data.append(text)
                self._size += len(text)
            elif field == b"event":
                self._name = text
            elif field == b"id" and "\0" not in text:
                self._id = text


class Made(NamedTuple):
    """What a log holds of an answer: the data of its deltas, reasoning and seams, in order."""

    text: list[str]
    reasoning: list[str]
    continued: list[str]


def read_back(log: bytes | bytearray) -> Made:
    """What a log holds of its answer so far."""
    made = Made([], [], [])
    lists = {"message": made.text, "reasoning": made.reasoning, "continued": made.continued}
    for event in EventDecoder().feed(bytes(log)):
        if event.name in lists:
            lists[event.name].append(event.data)
    return made


class TextNormaliser:
    """Makes one text's deltas fit for an event stream, which cannot carry CR or U+0000 as they are.

    CRLF and CR become LF, also where the two come in two deltas; U+0000 is dropped; halves of a
    surrogate pair that come apart are joined, and a half that stays alone becomes U+FFFD (or nothing, where
    it is the text's very last character).
    """

    def __init__(self) -> None:
        self._after_cr = False
        self._high = ""

    def feed(self, delta: str) -> str:
        """What of the text may be shown now; may be empty."""
        if delta.isascii() and not self._high and "\r" not in delta and "\0" not in delta:
            if self._after_cr and delta:
                self._after_cr = False
                return delta.removeprefix("\n")
            return delta
        return self._clean(delta)

    def _clean(self, delta: str) -> str:
        text = (self._high + delta).replace("\0", "")
        self._high = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        if self._after_cr and text:
            text, self._after_cr = text.removeprefix("\n"), False
        self._after_cr = text.endswith("\r") or (self._after_cr and not text)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
