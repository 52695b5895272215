"""Decode any event stream (WHATWG HTML §9.2), and normalise text so that one can carry it. Pure."""

from collections.abc import Iterator

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """One decoded server-sent event; `name` is "message" where the frame named none."""

    name: str
    data: str
    id: str


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
