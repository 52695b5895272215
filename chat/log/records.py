"""The records of a turn's log: encode, split and read them. Pure.

A record is U+0000, one character for its kind, and a payload in UTF-8 without U+0000: text, JSON or
nothing. So a record begins at every U+0000 and nowhere else, and a valid offset into a log is one
where a record begins, or the log's end. A reader skips the kinds that it does not know.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Any, NamedTuple


class Kind(IntEnum):
    """The kinds of records, by the byte that stands for each."""

    TURN = ord("T")
    """JSON: the ids of turn, conversation, question and answer, and the model. Always the first."""
    TEXT = ord("t")
    REASONING = ord("r")
    ATTEMPT = ord("a")
    """JSON: a request to an upstream (number, upstream, mode, reason). Viewers do not see it."""
    CONTINUED = ord("c")
    """JSON: a seam (at, why, and the model if it changed)."""
    USAGE = ord("u")
    END = ord("e")
    """Nothing: the answer is the joined text. The last record of an answer that is kept."""
    REFUSAL = ord("d")
    """Text of an answer with which the model declines; only in turns of /v1."""
    TOOL_CALL = ord("o")
    """JSON: a complete tool call, with its `index`."""
    EXTRA = ord("x")
    """JSON: fields that Holdline does not interpret, of the chunk, choice or delta that follows."""
    FAILED = ord("f")
    """JSON: type, message and retryable. The last record of a failed turn."""


MAX_RECORD_BYTES = 16 << 10
"""A longer piece of text is split, so that a notification can carry any record."""

_MAX_PIECE_CHARACTERS = (MAX_RECORD_BYTES - 2) // 4

_LAST = b"\0%c" % Kind.END

TEXT_KINDS = (Kind.TEXT, Kind.REASONING, Kind.REFUSAL)
"""The kinds whose payload is text; all others have JSON or nothing."""


class PartialAnswer(NamedTuple):
    """The contents of a log: text, reasoning, seams and attempts, as far as they are committed."""

    text: str
    reasoning: str
    continued: list[dict[str, Any]]
    attempts: list[dict[str, Any]]


def encode(turn: str, offset: int, kind: Kind, payload: str) -> bytes:
    """Return one record, or several if a text is long; they do not depend on turn and offset.

    The payload of `END` is left out: it is the joined text.
    """
    if kind is Kind.END:
        return _LAST
    if len(payload) <= _MAX_PIECE_CHARACTERS or kind not in TEXT_KINDS:
        return b"\0%c%b" % (kind, payload.encode())
    return b"".join(b"\0%c%b" % (kind, piece.encode()) for piece in _split_text(payload))


def split(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the kind, payload and end of each record; `data` begins and ends at a valid offset."""
    end = 0
    for record in data.split(b"\0")[1:]:
        end += 1 + len(record)
        if record:
            yield record[0], record[1:], end


def keep_whole(data: bytes) -> bytes:
    """Return `data` without its last record, which may be cut; empty if there is only one."""
    return data[: max(0, data.rfind(b"\0"))]


def is_valid_offset(before: bytes, after: bytes) -> bool:
    """Return whether an offset is valid, by the bytes around it; `after` is empty at the end."""
    return after[:1] in (b"", b"\0")


def is_complete(tail: bytes) -> bool:
    """Return whether a log that ends with these bytes ends with the whole answer."""
    return tail.endswith(_LAST)


def decode_answer(data: bytes) -> PartialAnswer:
    """Return the contents of a log."""
    payloads: dict[int, list[str]] = {kind: [] for kind in Kind}
    for kind, payload, _ in split(data):
        if kind in payloads:
            name = Kind.TEXT if kind == Kind.REFUSAL else kind
            payloads[name].append(payload.decode("utf-8", "replace"))
    return PartialAnswer(
        "".join(payloads[Kind.TEXT]),
        "".join(payloads[Kind.REASONING]),
        _parse_objects(payloads[Kind.CONTINUED], {"at": int, "why": str}),
        _parse_objects(payloads[Kind.ATTEMPT], {"mode": str}),
    )


def _parse_objects(payloads: list[str], fields: dict[str, type]) -> list[dict[str, Any]]:
    """Return the payloads that are objects with these fields; a malformed record is left out."""
    found = []
    for payload in payloads:
        with suppress(ValueError, RecursionError):
            value = json.loads(payload)
            if isinstance(value, dict) and all(
                isinstance(value.get(name), kind) for name, kind in fields.items()
            ):
                found.append(value)
    return found


def _split_text(text: str) -> Iterator[str]:
    for begin in range(0, len(text), _MAX_PIECE_CHARACTERS):
        yield text[begin : begin + _MAX_PIECE_CHARACTERS]
