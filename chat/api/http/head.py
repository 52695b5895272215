"""Check the head of a request, and of each chunk of its body, more strictly than Sanic. Pure.

A proxy that reads a message differently than this server can be made to pass on a request that it
did not see (request smuggling). So a message with two readings is rejected (RFC 9112 §2.2, §5,
§6.3, §7.1), as nginx does. `test_smuggling.py` compares the two.
"""

import re
from collections.abc import Sequence

_HEAD = re.compile(
    rb"[A-Z_-]++ [!-~\x80-\xff]++ HTTP/1\.[01]"
    rb"(?:\r\n(?!(?i:host|content-length|transfer-encoding):[\t ]*+[\x80-\xff])"
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+)*+"
)
"""The values that frame a message do not begin with UTF-8: Sanic removes all spaces of Unicode."""

_LENGTH = re.compile(r"[0-9]{1,15}[\t ]*", re.ASCII)
_HOST = re.compile(r"(?!.*\.\.)[^\x00-\x20/\x7f]+[\t ]*")
_CHUNK_HEAD = re.compile(rb"\r\n[0-9A-Fa-f]{1,16}[\t ]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n")

MAX_CHUNK_HEAD_BYTES = 64
"""Maximum size of a chunk's head, as in Sanic."""


def is_valid_head(head: bytes, hosts: Sequence[str]) -> bool:
    """Return whether a head without its empty line has one reading only.

    `hosts` are the values of Host, of which HTTP/1.1 requires one. `is_valid_length` is another
    condition for a request with a body.
    """
    if not _HEAD.fullmatch(head):
        return False
    if not hosts:
        return head.partition(b"\r\n")[0].endswith(b"/1.0")
    return len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None


def is_valid_length(version: str, lengths: Sequence[str], codings: Sequence[str]) -> bool:
    """Return whether Content-Length or Transfer-Encoding gives the length of a body.

    HTTP/1.0 has no Transfer-Encoding: a proxy may have taken the body for another request.
    """
    if codings:
        return version == "1.1" and not lengths and len(codings) == 1
    return len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) is not None


def is_valid_chunk_head(head: bytes) -> bool:
    """Return whether this is the line break before a chunk, and the line that gives its size."""
    return _CHUNK_HEAD.fullmatch(head) is not None
