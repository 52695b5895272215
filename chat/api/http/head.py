"""Check the head of a request, and of each chunk of its body, more strictly than Sanic. Pure.

A proxy that reads a message differently than this server can be made to pass on a request that it
did not see (request smuggling). So a message with two readings is rejected (RFC 9112 §2.2, §5,
§6.3, §7.1), as nginx does. `test_smuggling.py` compares the two.
"""

import re
from collections.abc import Sequence

_HEAD = re.compile(
    rb"[A-Z_-]++ [!-~]++ HTTP/1\.[01]"
    rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+)*+"
)
_LENGTH = re.compile(r"[0-9]{1,15}[\t ]*", re.ASCII)
_HOST = re.compile(r"(?!.*\.\.)[^\x00-\x20/\x7f]+[\t ]*")
_CHUNK_HEAD = re.compile(rb"\r\n[0-9A-Fa-f]{1,16}[\t ]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n")

MAX_CHUNK_HEAD_BYTES = 64
"""Maximum size of a chunk's head, as in Sanic."""


def is_valid_head(
    head: bytes, version: str, hosts: Sequence[str], lengths: Sequence[str], codings: Sequence[str]
) -> bool:
    """Return whether a head without its empty line has one reading only.

    `hosts`, `lengths` and `codings` are the values of Host, Content-Length and Transfer-Encoding.
    """
    if not _HEAD.fullmatch(head) or len(hosts) > 1 or len(lengths) + len(codings) > 1:
        return False
    if version == "1.0":
        if codings:
            return False
    elif not hosts:
        return False
    return all(map(_HOST.fullmatch, hosts)) and all(map(_LENGTH.fullmatch, lengths))


def is_valid_chunk_head(head: bytes) -> bool:
    """Return whether this is the line break before a chunk, and the line that gives its size."""
    return _CHUNK_HEAD.fullmatch(head) is not None
