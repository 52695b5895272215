"""Read the chunks of one response: its texts, its usage, and how it ended. Pure."""

import json
from enum import IntEnum
from typing import Any

from chat.upstream.failures import Failures
from chat.upstream.response.chunks import (
    Choice,
    Chunk,
    ChunkDelta,
    Usage,
    is_failure,
    read_extra_fields,
    read_parts,
)
from chat.upstream.response.endings import Ending, classify
from chat.upstream.response.tool_calls import ToolCalls


class DeltaKind(IntEnum):
    """The kinds of deltas. A refusal counts as text unless extra fields are kept."""

    TEXT = 0
    REASONING = 1
    REFUSAL = 2
    EXTRA = 3
    """JSON: fields that Holdline does not interpret; they belong to the delta that follows."""


Piece = tuple[list[str], int]
"""Texts of one kind that arrived together."""


class ChunkReader:
    """The state of one response, from the chunks that have been read so far.

    With `keeps_extra`, it includes tool calls, refusals and the fields that Holdline does not
    interpret.
    """

    def __init__(self, failures: Failures, *, keeps_extra: bool) -> None:
        self.usage: Usage | None = None
        self.ending: Ending | None = None
        self.words: object = None
        """The upstream's own words about an error or an early end."""
        self.is_refused = False
        self.has_tool_call = False
        self.tool_calls = ToolCalls()
        self.ends_with_usage = False
        """Whether no text has followed the last usage."""
        self._has_deltas = False
        self._failures = failures
        self._keeps_extra = keeps_extra
        self._chunk_fields: dict[str, Any] = {}

    def read(self, chunk: Chunk, pieces: list[Piece]) -> bool:
        """Add the texts of a chunk to `pieces`; return whether it ends the response.

        Raises UpstreamError for an error that the chunk reports.
        """
        if chunk.error and self.ending is None and is_failure(chunk.error):
            raise self._failures.from_stream(chunk.error)
        if chunk.usage or chunk.x_groq:
            self._read_usage(chunk.usage)
            self._read_usage(chunk.x_groq)
        if chunk.words:
            self.words = chunk.words
        if self._keeps_extra:
            self._read_extra(chunk, pieces)
        if chunk.choices:
            choice = chunk.choices[0]
            if choice.delta is not None and self._read_delta(choice.delta, pieces):
                self._has_deltas = True
            # A last chunk may repeat the whole message, which the deltas have delivered already.
            elif choice.message is not None and not self._has_deltas:
                self._read_delta(choice.message, pieces)
            elif choice.text:
                _append(pieces, choice.text, False)
            if choice.finish_reason or choice.error or choice.usage:
                return self._read_finish(choice)
        return False

    def _read_extra(self, chunk: Chunk, pieces: list[Piece]) -> None:
        """Add the fields that Holdline does not interpret; those of the chunk when they change."""
        fields = read_extra_fields(chunk)
        if fields.get("chunk") == self._chunk_fields:
            fields.pop("chunk", None)
        self._chunk_fields = fields.get("chunk", self._chunk_fields)
        if fields:
            pieces.append(([json.dumps(fields)], DeltaKind.EXTRA))

    def _read_delta(self, delta: ChunkDelta, pieces: list[Piece]) -> bool:
        """Add the texts of a delta; return whether there were any."""
        content = delta.content
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            _append(pieces, reasoning, True)
        elif delta.reasoning_details or delta.thinking:
            for text, _ in read_parts(delta.reasoning_details or delta.thinking):
                _append(pieces, text, True)
        if isinstance(content, str):
            if content:
                _append(pieces, content, False)
        elif content:
            for text, is_reasoning in read_parts(content):
                _append(pieces, text, is_reasoning)
        if delta.refusal:
            self.is_refused = True
            kind = DeltaKind.REFUSAL if self._keeps_extra else DeltaKind.TEXT
            _append(pieces, delta.refusal, kind)
        if call := delta.tool_calls or delta.function_call:
            self.has_tool_call = True
            if self._keeps_extra:
                self.tool_calls.feed(call)
        has_text = bool(content or delta.refusal)
        if has_text:
            self.ends_with_usage = False
        return has_text or bool(reasoning)

    def _read_finish(self, choice: Choice) -> bool:
        """Note a finish reason; return whether it is the first one."""
        self._read_usage(choice.usage)
        ending = classify(choice.finish_reason)
        if choice.error and ending in (None, Ending.COMPLETE):
            ending = Ending.INTERRUPTED
        if ending is None or self.ending is not None:
            return False
        if choice.error or ending is Ending.INTERRUPTED:
            self.words = choice.error or choice.finish_reason
        self.ending = ending
        return True

    def _read_usage(self, counts: object) -> None:
        if isinstance(counts, dict):
            counts = counts.get("usage", counts)
        if usage := Usage.from_report(counts):
            self.usage = usage
            self.ends_with_usage = True


def _append(pieces: list[Piece], text: str, kind: int) -> None:
    """Add a text; it joins the last piece if that is of the same kind."""
    if pieces and pieces[-1][1] == kind:
        pieces[-1][0].append(text)
    else:
        pieces.append(([text], kind))
