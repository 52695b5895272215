"""Set up logging for the supervisor and its workers."""

import io
import logging
import re
import sys
import time
from typing import TextIO

_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_ANY_CONTROL = re.compile(f"[{_CONTROL}\t\n]")
_CONTROL_IN_LINES = re.compile(f"[{_CONTROL}]")


class Formatter(logging.Formatter):
    """Formats records with UTC times, and without characters that forge lines or alter a terminal.

    Only a traceback takes several lines; all but the first are indented.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (of the base class)
        """Return the line of a record."""
        return _ANY_CONTROL.sub(_escape, super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text, with its traceback."""
        return _CONTROL_IN_LINES.sub(_escape, super().format(record)).replace("\n", "\n  ")


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def start_logging(level: str) -> None:
    """Log to standard error.

    Other packages log warnings and errors only, because their other messages may quote the text
    of users.
    """
    if sys.stderr:  # None if it is closed
        sys.stderr = _without_buffer(sys.stderr)
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("sanic.error").addFilter(_is_no_unread_body)
    logging.getLogger("holdline").setLevel(level.upper())


def _without_buffer(stream: TextIO) -> TextIO:
    """Return the same stream without its buffer: a line that a full disk rejects is dropped.

    A buffer would keep the line. The exit would write it again, fail, and change the exit status.
    """
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", write_through=True)


def _is_no_unread_body(record: logging.LogRecord) -> bool:
    """Return False for the line, with the path, that Sanic logs for each GET with a body."""
    return not record.getMessage().endswith(" body not consumed.")
