"""Split the body of a response into chunks: bytes in, chunks out. Pure.

The bytes decide what a body is, not its content type: an event stream (WHATWG HTML §9.2), one JSON
object, JSON lines, or a web page. Common deviations are accepted: events that are separated by a
single line end, a byte order mark before each event, a last event without its blank line.
"""

from collections.abc import Iterator
from enum import Enum

from chat.upstream.response.chunks import Chunk, read_chunk

MAX_EVENT_BYTES = 4 << 20
"""A longer event, or JSON object, is not a chat completion. It is twice the size of a turn's log,
because JSON escapes a character of three bytes in six."""

_MAX_LINES = 10_000
"""Lines of one event; a completion's object of JSON has far fewer."""

_MAX_WORDS = 2000
"""Characters kept for the error message if a body is not a chat completion."""


class BodyError(Exception):
    """The body is not a chat completion; `page` holds the bytes of a web page, if it is one."""

    def __init__(self, page: bytes = b"") -> None:
        super().__init__("web page" if page else "invalid response")
        self.page = page


class _Form(Enum):
    UNKNOWN = "unknown"
    EVENTS = "events"
    JSON = "json"
    PAGE = "page"


class BodyDecoder:
    """Decodes one body, split at any byte; buffers at most one incomplete event.

    `is_done` is set after `[DONE]`, `is_cut` if the body ended within an event, `is_whole` if it
    was one JSON object. `words` is text that is neither an event nor JSON, such as a message.
    """

    def __init__(self) -> None:
        self.is_done = False
        self.is_cut = False
        self.is_whole = False
        self.words = ""
        self._form = _Form.UNKNOWN
        self._is_one_object = False
        self._has_lines = False
        self._buffer = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, part: bytes) -> Iterator[Chunk]:
        """Yield the chunks that `part` completes. Raises BodyError."""
        if self._form is _Form.EVENTS:
            yield from self._read_lines(part)
        elif self._form is _Form.UNKNOWN:
            # Some servers send empty lines until the answer is ready.
            start = (bytes(self._buffer) + part).lstrip()
            self._form = _recognise(start)
            if self._form is _Form.UNKNOWN:
                self._buffer = bytearray(start)
            else:
                self._buffer.clear()
                yield from self.feed(start)
        elif self._form is _Form.JSON:
            yield from self._read_json_lines(part)
        else:
            self._buffer += part
            if len(self._buffer) > _MAX_WORDS:
                raise BodyError(bytes(self._buffer))
        if len(self._buffer) + self._size > MAX_EVENT_BYTES:
            raise BodyError

    def flush(self) -> Iterator[Chunk]:
        """Yield the chunks that the end of the body completes. Raises BodyError."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if self._form is _Form.PAGE:
            raise BodyError(rest)
        if self._form is _Form.JSON:
            if rest.strip():
                yield from self._read_json(rest)
                self.is_whole = not self._has_lines
        else:
            try:
                yield from self._read_line(rest.rstrip(b"\r"))
                yield from self._end_event()
            except BodyError:
                self.is_cut = True

    # Events

    def _read_lines(self, part: bytes) -> Iterator[Chunk]:
        buffer = self._buffer
        if b"\n" not in part and b"\r" not in part and not buffer.endswith(b"\r"):
            buffer += part  # an incomplete line is not searched again for each part
            return
        lines = (bytes(buffer) + part).splitlines(keepends=True)
        # The last line is incomplete unless it ends in LF: an LF may follow a CR.
        self._buffer = bytearray(lines.pop() if lines and not lines[-1].endswith(b"\n") else b"")
        for line in lines:
            line = line.rstrip(b"\r\n")
            # An upstream may send millions of comments and empty lines.
            if line.startswith(b":") or not (line or self._data or self._name):
                continue
            yield from self._read_line(line)
            if self.is_done:
                return

    def _read_line(self, line: bytes) -> Iterator[Chunk]:
        if line.startswith(b"data: {") and not self._data and not self._name:
            try:
                yield read_chunk(line[6:])
                return
            except (ValueError, RecursionError):
                pass  # one of several lines
        line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            yield from self._end_event()
            return
        field, colon, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if field == b"event":
            self._name = text
        elif field == b"data":
            yield from self._read_data(text)
        elif field and (not colon or field not in (b"id", b"retry")):
            self._keep_words(line.decode("utf-8", "replace"))

    def _read_data(self, text: str) -> Iterator[Chunk]:
        """Read one `data` line; a line that is a whole event is read before the blank line."""
        if text.strip().strip("\"'") in ("[DONE]", "DONE"):
            yield from self._end_event()
            self.is_done = True
            return
        if not self._data:
            try:
                chunk = read_chunk(text)
            except (ValueError, RecursionError):
                pass
            else:
                yield self._mark_error(chunk, text)
                return
        self._data.append(text)
        self._size += len(text) + 1
        if len(self._data) > _MAX_LINES:
            raise BodyError

    def _end_event(self) -> Iterator[Chunk]:
        """Read the `data` lines of an event that consists of several."""
        data, self._data, self._size = self._data, [], 0
        if data:
            yield from self._read_event(data)
        self._name = ""

    def _read_event(self, data: list[str]) -> Iterator[Chunk]:
        whole = "\n".join(data)
        try:
            yield self._mark_error(read_chunk(whole), whole)
            return
        except (ValueError, RecursionError):
            pass
        if self._name == "error":
            yield Chunk(error=whole)
        elif len(data) > 1:
            for line in data:
                yield from self._read_event([line])
        elif whole.lstrip()[:1] in ("{", "["):
            raise BodyError
        else:
            self._keep_words(whole)

    def _mark_error(self, chunk: Chunk, text: str) -> Chunk:
        if self._name == "error" and not chunk.error:
            return Chunk(error=chunk.words or text)
        return chunk

    # JSON

    def _read_json_lines(self, part: bytes) -> Iterator[Chunk]:
        """Read JSON lines; an object of several lines waits for the end."""
        self._buffer += part
        if self._is_one_object or b"\n" not in part:
            return
        *lines, rest = bytes(self._buffer).split(b"\n")
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    chunk = read_chunk(line)
                except (ValueError, RecursionError):
                    self._is_one_object = True
                    self._buffer = bytearray(b"\n".join([*lines[number:], rest]))
                    return
                yield chunk
                self._has_lines = True
        self._buffer = bytearray(rest)

    def _read_json(self, rest: bytes) -> Iterator[Chunk]:
        try:
            yield read_chunk(rest.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            raise BodyError from error

    def _keep_words(self, text: str) -> None:
        if len(self.words) < _MAX_WORDS:
            self.words = f"{self.words} {text[:_MAX_WORDS]}".strip()


def _recognise(start: bytes) -> _Form:
    """Return the form of a body by its first bytes."""
    start = start.removeprefix(b"\xef\xbb\xbf")
    if start.startswith(b"<"):
        return _Form.PAGE
    if start.startswith(b"{") or (start.startswith(b"[") and not b"[DONE]".startswith(start[:6])):
        return _Form.JSON
    return _Form.UNKNOWN if b"\xef\xbb\xbf[DONE]".startswith(start[:6]) else _Form.EVENTS
