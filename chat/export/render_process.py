"""Render messages of exports in a separate process, which ends if a message takes too long.

    python -m chat.export.render_process

Reads requests from stdin and writes replies to stdout. Each is its length in bytes (4 bytes, big
endian) and JSON in UTF-8: `[kind, message, language]`, and the piece of the file or null.
"""

import json
import resource
import signal
import struct
import sys
from contextlib import suppress
from typing import Any

from chat.export.rendering import render_message

LENGTH = struct.Struct(">I")
TIME_LIMIT_S = 2.0
"""Time for one message. The kernel ends the process, even within a regular expression."""

_MAX_MEMORY = 1 << 30
"""Maximum size of the process, in bytes."""

_MAX_EXPANSION = 50
"""Maximum number of characters of a piece for each character of its text: an address can be
repeated many times."""

_MIN_LENGTH = 10_000
"""A piece of this many characters is always accepted."""


def main() -> None:
    """Serve requests until stdin is closed."""
    with suppress(ValueError, OSError):  # macOS does not support it
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    while header := sys.stdin.buffer.read(LENGTH.size):
        request = json.loads(sys.stdin.buffer.read(*LENGTH.unpack(header)))
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)  # SIGALRM ends the process
        piece = _render(*request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply = json.dumps(piece).encode()
        sys.stdout.buffer.write(LENGTH.pack(len(reply)) + reply)
        sys.stdout.buffer.flush()


def _render(kind: Any, message: Any, language: Any) -> str | None:
    try:
        piece = render_message(kind, message, language)
    except (RecursionError, MemoryError, ValueError):
        return None
    limit = _MIN_LENGTH + _MAX_EXPANSION * len(message["content"])
    return piece if len(piece) <= limit else None


if __name__ == "__main__":
    main()
