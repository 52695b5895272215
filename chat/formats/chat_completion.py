"""A turn as OpenAI's chat completions: chunks of a stream, or one object. Pure."""

import json
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii
from typing import Any

from chat.log import records
from chat.log.records import Kind

_FINISH_REASONS = {"stopped": "stop", "interrupted": "length", "refusal": "content_filter"}
"""Holdline's own finish reasons, and those of OpenAI that clients receive instead."""

_DELTAS: dict[int, str] = {
    Kind.TEXT: "content",
    Kind.REASONING: "reasoning_content",
    Kind.REFUSAL: "refusal",
}
NO_CONVERSATION = "-"
"""The conversation id of a turn that belongs to no conversation."""

_TEXT = b"\0%c" % Kind.TEXT

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


class _Reader:
    """The fields of a turn, from the records that have been read so far."""

    def __init__(self) -> None:
        self.ids: dict[str, Any] = {}
        self.usage: dict[str, Any] | None = None
        self.fields: dict[str, Any] = {}
        """Fields of the upstream's chunks, such as `system_fingerprint`."""
        self.is_refused = False
        self._finish_reason = "stop"
        self._calls_function = False

    def read(self, kind: int, payload: bytes) -> None:
        if kind == Kind.TURN:
            self.ids = json.loads(payload)
        elif kind == Kind.REFUSAL:
            self.is_refused = True
        elif kind == Kind.TOOL_CALL:
            self._calls_function = "function_call" in json.loads(payload)
        elif kind == Kind.EXTRA:
            self.fields |= _get_object(json.loads(payload), "chunk")
        elif kind == Kind.USAGE:
            usage = json.loads(payload)
            self._finish_reason = usage["finish_reason"]
            has_counts = "prompt_tokens" in usage and not usage.get("estimated")
            self.usage = {name: usage[name] for name in _COUNTS if name in usage} or None
            self.usage = self.usage if has_counts else None

    @property
    def finish_reason(self) -> str:
        """Return the reason in OpenAI's terms; a refusal has ended by itself."""
        if self.is_refused and self._finish_reason == "refusal":
            return "stop"
        if self._calls_function and self._finish_reason == "tool_calls":
            return "function_call"
        return _FINISH_REASONS.get(self._finish_reason, self._finish_reason)

    def describe(self, kind: str) -> dict[str, Any]:
        """Return the fields that every object and every chunk has."""
        ids = self.ids
        body = {
            "id": f"chatcmpl-{ids['turn']}",
            "object": kind,
            "created": ids.get("created", 0),
            "model": ids["model"],
            **self.fields,
        }
        if ids["conversation"] != NO_CONVERSATION:
            body["metadata"] = {"conversation": ids["conversation"]}
        return body


class ChunkEncoder:
    """Encodes the records of one turn, from the first one on, as chunks for one viewer.

    A chunk is an event, or with `as_lines` a line of JSON. `include_usage` is OpenAI's stream
    option: the last chunk has the usage.
    """

    def __init__(self, *, include_usage: bool, as_lines: bool) -> None:
        self._include_usage = include_usage
        self._as_lines = as_lines
        self._reader = _Reader()
        self._extra: dict[str, Any] = {}
        """Fields that belong to the next delta."""
        self._extra_before: dict[str, Any] = {}
        self._end = 0
        self._head, self._tail = b"", b""

    def encode(self, turn: str, begin: int, data: bytes) -> bytes:
        """Return the chunks of whole records.

        The last ones are encoded again if they did not reach a slow viewer.
        """
        if begin == self._end:
            self._extra_before = self._extra
        else:
            self._extra = self._extra_before
        self._end = begin + len(data)
        if self._head and not self._extra and data.startswith(_TEXT) and data.count(b"\0") == 1:
            return self._encode_text(data[2:].decode())  # most commits are one text
        return b"".join(self._encode_records(data))

    def _encode_records(self, data: bytes) -> Iterator[bytes]:
        for kind, payload, _ in records.split(data):
            if kind == Kind.TEXT and not any(self._extra.values()):
                yield self._encode_text(payload.decode())
                continue
            self._reader.read(kind, payload)
            if kind == Kind.TURN:
                yield self._encode_delta({"role": "assistant", "content": ""})
            elif name := _DELTAS.get(kind):
                yield self._encode_delta({name: payload.decode()})
            elif kind == Kind.TOOL_CALL:
                yield self._encode_delta(_build_call_delta(json.loads(payload)))
            elif kind == Kind.EXTRA:
                if any(self._extra.values()):  # nothing has followed the one before
                    yield self._encode_delta({})
                extra = json.loads(payload)
                self._head = b""
                self._extra = {name: _get_object(extra, name) for name in ("choice", "delta")}
            elif kind == Kind.FAILED:
                yield self._encode({"error": describe_failure(json.loads(payload))})

    def encode_end(self, turn: str, length: int, answer: str) -> bytes:
        """Return the last chunks: the finish reason, the usage, `[DONE]`."""
        last = [self._encode_delta({}, self._reader.finish_reason)]
        if self._include_usage:
            chunk = self._reader.describe("chat.completion.chunk")
            last.append(self._encode({**chunk, "choices": [], "usage": self._reader.usage}))
        if not self._as_lines:
            last.append(b"data: [DONE]\n\n")
        return b"".join(last)

    def encode_waiting(self, turn: str, offset: int, wait: str) -> bytes:
        """Return what `encode_idle` does: OpenAI's API has no chunk for a wait."""
        return self.encode_idle()

    def encode_idle(self) -> bytes:
        """Return a chunk without content, which keeps the connection open.

        Clients that split the stream at `data: ` cannot read comments.
        """
        return self._encode_delta({})

    def _encode_text(self, text: str) -> bytes:
        """Return a chunk with only text, which most are; only the text is encoded each time."""
        if not self._head:
            self._head, _, self._tail = self._encode_delta({"content": ""}).rpartition(b'""')
        return b"%b%b%b" % (self._head, encode_basestring_ascii(text).encode(), self._tail)

    def _encode_delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        extra, self._extra = self._extra, {}
        choice = {
            "index": 0,
            "delta": {**delta, **extra.get("delta", {})},
            "logprobs": None,
            "finish_reason": finish_reason,
            **extra.get("choice", {}),
        }
        chunk = {**self._reader.describe("chat.completion.chunk"), "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return self._encode(chunk)

    def _encode(self, body: dict[str, Any]) -> bytes:
        # In ASCII: many clients split lines also at U+2028 and U+0085.
        text = json.dumps(body, separators=(",", ":")).encode()
        return text + b"\n" if self._as_lines else b"data: " + text + b"\n\n"


def build_completion(data: bytes) -> dict[str, Any]:
    """Return the `chat.completion` object of a complete log, or `{"error": …}` of a failed one."""
    reader = _Reader()
    texts: dict[int, list[str]] = {kind: [] for kind in _DELTAS}
    calls = []
    annotations: list[Any] = []
    logprobs: dict[str, list[Any]] = {}
    for kind, payload, _ in records.split(data):
        reader.read(kind, payload)
        if kind in texts:
            texts[kind].append(payload.decode())
        elif kind == Kind.TOOL_CALL:
            calls.append(json.loads(payload))
        elif kind == Kind.FAILED:
            return {"error": describe_failure(json.loads(payload))}
        elif kind == Kind.EXTRA:
            extra = json.loads(payload)
            scores = _get_object(extra, "choice").get("logprobs")
            for name, entries in scores.items() if isinstance(scores, dict) else ():
                logprobs.setdefault(name, []).extend(entries if isinstance(entries, list) else [])
            added = _get_object(extra, "delta").get("annotations")
            annotations += added if isinstance(added, list) else []
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts[Kind.TEXT]) or (None if calls or reader.is_refused else ""),
        "refusal": "".join(texts[Kind.REFUSAL]) or None,
    }
    if texts[Kind.REASONING]:
        message["reasoning_content"] = "".join(texts[Kind.REASONING])
    for call in calls:
        if "function_call" in call:
            message["function_call"] = call["function_call"]
        else:
            del call["index"]
            message.setdefault("tool_calls", []).append(call)
    if annotations:
        message["annotations"] = annotations
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs or None,
        "finish_reason": reader.finish_reason,
    }
    return {
        **reader.describe("chat.completion"), "choices": [choice], "usage": reader.usage
    }  # fmt: skip


def _get_object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    found = fields.get(name)
    return found if isinstance(found, dict) else {}


def _build_call_delta(call: dict[str, Any]) -> dict[str, Any]:
    if "function_call" in call:
        return {"function_call": call["function_call"]}
    return {"tool_calls": [call]}


def describe_failure(failure: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's error object for the data of a `failed` record."""
    kind, code = _ERRORS.get(failure["type"], ("api_error", failure["type"]))
    return {"message": failure["message"], "type": kind, "param": None, "code": code}


_ERRORS = {
    "context_length": ("invalid_request_error", "context_length_exceeded"),
    "refused": ("invalid_request_error", None),
    "withheld": ("invalid_request_error", "content_filter"),
    "moderated": ("invalid_request_error", "content_filter"),
    "rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
}
"""Type and code of OpenAI's error object, by the type of a failure; else `api_error`."""
