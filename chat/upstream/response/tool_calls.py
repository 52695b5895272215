"""Join the pieces in which servers stream tool calls. Pure."""

import json
from typing import Any

from chat.errors import UpstreamError
from chat.upstream.response.chunks import clean_strings

MAX_CHARACTERS = 1 << 20
"""Maximum size of the arguments of all calls of one answer, in characters."""

_MAX_CALLS = 128


class ToolCalls:
    """The tool calls of one response, or its single function call (OpenAI's older API)."""

    def __init__(self) -> None:
        self._function_call: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._positions: dict[object, int] = {}
        self._size = 0

    def feed(self, pieces: object) -> None:
        """Add the `tool_calls` of a delta, or its `function_call`; ignore all other pieces.

        A piece continues the call of its `index`. Servers that send none send whole calls, or
        repeat the `id` in each piece. Raises UpstreamError if the calls are too long.
        """
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            if not isinstance(piece, dict):
                continue
            if "function" in piece or "id" in piece or "index" in piece:
                self._join(self._find(piece), piece)
            elif "name" in piece or "arguments" in piece:
                self._join_function(self._function_call, piece)

    def list_complete(self) -> list[dict[str, Any]]:
        """Return the calls in their order, as a complete message has them.

        A function call of the older API is the only element: `{"function_call": …}`.
        """
        calls = [{"type": "function", **call} for call in self._calls if call.get("function")]
        if self._function_call and not calls:
            calls = [{"function_call": self._function_call}]
        cleaned: list[dict[str, Any]] = clean_strings(calls)
        return cleaned

    def _find(self, piece: dict[str, Any]) -> dict[str, Any]:
        index, call_id = piece.get("index"), piece.get("id")
        key: object = index if isinstance(index, int) else call_id
        if key is None:
            position = len(self._calls) - 1 if self._calls else 0
        else:
            position = self._positions.setdefault(str(key), len(self._calls))
        if position == len(self._calls):
            if position == _MAX_CALLS:
                raise UpstreamError("too_long", "The answer has too many tool calls.")
            self._calls.append({})
        return self._calls[position]

    def _join(self, call: dict[str, Any], piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name == "function" and isinstance(value, dict):
                self._join_function(call.setdefault("function", {}), value)
            elif name != "index" and value not in (None, ""):
                call[name] = value

    def _join_function(self, function: dict[str, Any], piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name == "arguments":
                text = value if isinstance(value, str) else json.dumps(value) if value else ""
                self._size += len(text)
                if self._size > MAX_CHARACTERS:
                    raise UpstreamError("too_long", "The answer's tool calls are too long.")
                function["arguments"] = function.get("arguments", "") + text
            elif value not in (None, ""):
                function[name] = value
