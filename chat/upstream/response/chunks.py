"""Read one chunk of a chat completion, whose fields may have any type. Pure.

Chunks that match OpenAI's types are decoded by msgspec, which is fast. All others are read field by
field, and fields of unexpected types are ignored.
"""

import json
from typing import Any

import msgspec


class ChunkDelta(msgspec.Struct, gc=False):
    """The text of one chunk. Servers name the reasoning differently; some send lists of parts."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Any = None
    thinking: Any = None
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None
    annotations: Any = None


class Choice(msgspec.Struct, gc=False):
    """One choice; a whole completion has `message` instead of `delta`, an older API `text`."""

    delta: ChunkDelta | None = None
    message: ChunkDelta | None = None
    text: str | None = None
    finish_reason: str | None = None
    usage: Any = None
    error: Any = None
    logprobs: Any = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk, or a whole completion; `words` is an object without choices, such as a message."""

    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    x_groq: Any = None
    error: Any = None
    words: Any = None
    system_fingerprint: Any = None
    service_tier: Any = None


class Usage(msgspec.Struct):
    """Tokens as the upstream reported them; None if it did not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    @classmethod
    def from_report(cls, counts: object) -> "Usage | None":
        """Return an upstream's counts; None if it has reported no number."""
        if not isinstance(counts, dict):
            return None
        found = {name: _read_count(counts.get(name)) for name in cls.__struct_fields__}
        return cls(**found) if any(count is not None for count in found.values()) else None


_MAX_COUNT = 10**12


def _read_count(value: object) -> int | None:
    """Return a number of tokens, which may come as a float or as a string."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < _MAX_COUNT else None


_decoder = msgspec.json.Decoder(Chunk)


def read_chunk(data: str | bytes) -> Chunk:
    """Return a chunk; raises ValueError or RecursionError if the data is not JSON."""
    try:
        chunk = _decoder.decode(data)
    except msgspec.MsgspecError:
        # A field of another type, or half a surrogate pair. Servers that split text into UTF-16
        # units send such halves, and only the standard library decodes them.
        return _read_loosely(json.loads(data))
    if chunk.choices or chunk.error or chunk.usage:
        return chunk
    return _read_loosely(json.loads(data))


def _read_loosely(value: object) -> Chunk:
    """Return a chunk from JSON of any shape."""
    if isinstance(value, list):  # Gemini sends its errors in a list
        return next((chunk for chunk in map(_read_loosely, value[:1]) if chunk.error), Chunk())
    if not isinstance(value, dict):
        return Chunk()
    choices = value.get("choices")
    if isinstance(choices, dict):
        choices = [choices]
    found = [_read_choice(one) for one in choices[:1]] if isinstance(choices, list) else []
    usage = value.get("usage")
    return Chunk(
        choices=[choice for choice in found if choice],
        usage=usage if isinstance(usage, dict) else None,
        x_groq=value.get("x_groq"),
        error=_find_error(value),
        words=None if choices else value,
        system_fingerprint=value.get("system_fingerprint"),
        service_tier=value.get("service_tier"),
    )


def _find_error(value: dict[str, Any]) -> Any:
    """Return the error that a chunk reports; None if it reports none."""
    if value.get("error"):
        return value["error"] if isinstance(value["error"], dict) else value
    is_error = "error" in (value.get("object"), value.get("type"))
    return value if is_error or value.get("error_code") or value.get("error_message") else None


def is_failure(error: object) -> bool:
    """Return whether an `error` field reports an error: some servers always send one."""
    if not isinstance(error, dict):
        return True
    code = error.get("code")
    return code not in (0, 200, "0", "200", "OK") if code is not None else any(error.values())


def _read_choice(value: object) -> Choice | None:
    if not isinstance(value, dict):
        return None
    return Choice(
        delta=_read_delta(value.get("delta")),
        message=_read_delta(value.get("message")),
        text=_read_text(value.get("text")),
        finish_reason=value.get("finish_reason"),
        usage=value.get("usage"),
        error=value.get("error"),
        logprobs=value.get("logprobs"),
    )


def _read_delta(value: object) -> ChunkDelta | None:
    if isinstance(value, str):
        return ChunkDelta(content=value)
    if not isinstance(value, dict) or not value:
        return None
    content = value.get("content")
    reasoning = next(
        (
            text
            for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details")
            if (text := _read_text(value.get(name)))
        ),
        None,
    )
    refusal = _read_text(value.get("refusal"))
    return ChunkDelta(
        content=content if isinstance(content, list) else _read_text(content),
        reasoning_content=reasoning,
        refusal=refusal,
        tool_calls=value.get("tool_calls"),
        function_call=value.get("function_call"),
        annotations=value.get("annotations"),
    )


def read_extra_fields(chunk: Chunk) -> dict[str, dict[str, Any]]:
    """Return the fields that Holdline does not interpret, by the object that they belong to."""
    choice = chunk.choices[0] if chunk.choices else Choice()
    delta = choice.delta or choice.message or ChunkDelta()
    groups = {
        "choice": {"logprobs": choice.logprobs},
        "delta": {"annotations": delta.annotations},
        "chunk": {
            "system_fingerprint": chunk.system_fingerprint, "service_tier": chunk.service_tier
        },
    }  # fmt: skip
    return {
        group: clean_strings(present)
        for group, fields in groups.items()
        if (present := {name: value for name, value in fields.items() if value})
    }


def clean_strings(value: Any) -> Any:
    """Return JSON with the surrogates of its strings joined; a lone one becomes U+FFFD.

    Servers that split text into UTF-16 units send halves, which nothing can encode.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [clean_strings(one) for one in value]
    if isinstance(value, dict):
        return {clean_strings(name): clean_strings(one) for name, one in value.items()}
    return value


_TEXT_NAMES = ("text", "content", "thinking", "reasoning", "summary")


def _read_text(value: object, depth: int = 4) -> str | None:
    """Return the text of a string, a number, an object, or a list of parts; None if it has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if depth and isinstance(value, list):
        return "".join(_read_text(part, depth - 1) or "" for part in value) or None
    if depth and isinstance(value, dict):
        texts = (_read_text(value.get(name), depth - 1) for name in _TEXT_NAMES)
        return next((text for text in texts if text), None)
    return None


def read_parts(parts: object) -> list[tuple[str, bool]]:
    """Return the texts of a content that is a list of parts, and whether each is reasoning."""
    found = []
    for part in parts if isinstance(parts, list) else [parts]:
        kind = part.get("type") if isinstance(part, dict) else None
        is_reasoning = isinstance(kind, str) and ("think" in kind or "reason" in kind)
        if isinstance(part, (str, dict)) and (text := _read_text(part)):
            found.append((text, is_reasoning))
    return found
