"""Join the pieces in which servers stream tool calls. Pure."""

import json
from io import StringIO
from typing import Any

from chat.errors import UpstreamError
from chat.upstream.response.chunks import clean_strings

MAX_CHARACTERS = 1 << 20
"""Maximum size of all calls of one answer, in characters: their arguments, names and ids."""

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
        calls = [
            {"type": "function", **call, "function": _complete(call["function"])}
            for call in self._calls
            if call.get("function")
        ]
        if self._function_call and not calls:
            calls = [{"function_call": _complete(self._function_call)}]
        return calls

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
            self._count(str(key))
            self._calls.append({})
        return self._calls[position]

    def _join(self, call: dict[str, Any], piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name == "function":
                if isinstance(value, dict):
                    self._join_function(call.setdefault("function", {}), value)
            elif name != "index":
                self._keep(call, name, value)

    def _join_function(self, function: dict[str, Any], piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name == "arguments":
                text = value if isinstance(value, str) else json.dumps(value) if value else ""
                self._count(text)
                function.setdefault("arguments", StringIO()).write(text)
            else:
                self._keep(function, name, value)

    def _keep(self, fields: dict[str, Any], name: str, value: Any) -> None:
        """Set a field of a call; a server may repeat it in each piece."""
        if value not in (None, "") and fields.get(name) != value:
            self._count(name + json.dumps(value))
            fields[clean_strings(name)] = clean_strings(value)

    def _count(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_CHARACTERS:
            raise UpstreamError("too_long", "The answer's tool calls are too long.")


def _complete(function: dict[str, Any]) -> dict[str, Any]:
    """Return a function whose arguments are one string; joining each piece would copy the others.

    A pair of surrogates may have come in two pieces.
    """
    if "arguments" not in function:
        return function
    return {**function, "arguments": clean_strings(function["arguments"].getvalue())}
