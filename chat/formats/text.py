"""The bare text of an answer (`text/plain`), for clients that append what they receive. Pure.

There are no ids, no heartbeats and no reasoning: every byte is text of the answer.
"""

from chat.log.records import Kind

_TEXTS = {b"%c" % Kind.TEXT, b"%c" % Kind.REFUSAL}


def encode(turn: str, begin: int, records: bytes) -> bytes:
    """Return the text of whole records."""
    return b"".join(record[1:] for record in records.split(b"\0")[1:] if record[:1] in _TEXTS)
