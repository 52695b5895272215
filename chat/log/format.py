"""The form in which the viewers of an API receive a log."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Send = Callable[[bytes], Awaitable[None]]
"""Sends a viewer bytes, and returns when it can take more."""

Encode = Callable[[str, int, bytes], bytes]
"""Encodes whole records of a turn, of which the first begins at an offset."""


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """The form in which viewers of one API receive a log."""

    encode: Encode
    encode_pushed: Encode
    """The same in the form that `Push` takes."""
    encode_end: Callable[[str, int, str], bytes]
    """Encodes the end of a complete turn: its id, the log's length, the whole answer."""
    build_heartbeat: Callable[[], bytes]
    encode_waiting: Callable[[str, int, str], bytes]
    """Encodes, as JSON, why the answer waits: the turn's id, the viewer's offset, the reason."""
