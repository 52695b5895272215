"""Decode event streams (WHATWG HTML §9.2) and normalise text for them. Pure."""

from collections.abc import Iterator

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """A decoded server-sent event; `name` is "message" if the frame has no `event` field."""

    name: str
    data: str
    id: str


class EventDecoder:
    """Decodes an event stream that is split at any byte; buffers at most one incomplete event.

    Accepts LF, CRLF and CR, comments, a byte order mark and split characters. Bytes that are not
    UTF-8 become U+FFFD, as §9.2.5 requires.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._bom_checked = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    @property
    def pending(self) -> int:
        """The size of the incomplete event: bytes of its last line, characters of its data."""
        return len(self._buffer) + self._size

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that `chunk` completes."""
        if self._bom_checked and not (
            b"\n" in chunk or b"\r" in chunk or self._buffer.endswith(b"\r")
        ):
            self._buffer += chunk  # an incomplete line is not searched again for each chunk
            return
        buffer = bytes(self._buffer) + chunk
        if not self._bom_checked:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._buffer = bytearray(buffer)
                return
            self._bom_checked = True
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        lines = buffer.splitlines(keepends=True)
        # The last line is incomplete unless it ends in LF: an LF may follow a CR.
        self._buffer = bytearray(lines.pop() if lines and not lines[-1].endswith(b"\n") else b"")
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
    """Normalises the deltas of one text for event streams, which cannot contain CR or U+0000.

    - CRLF and CR become LF, even if a CRLF is split between two deltas.
    - U+0000 is removed.
    - Surrogates that are split between two deltas are joined. A lone surrogate becomes U+FFFD; at
      the very end of the text, it is removed.
    """

    def __init__(self) -> None:
        self._after_cr = False
        self._high = ""

    def feed(self, delta: str) -> str:
        """Return the normalised text that is complete so far; may be empty."""
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
