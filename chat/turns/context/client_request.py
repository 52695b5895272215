"""A chat completion as a client of /v1 requests it: its messages go upstream unchanged. Pure."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """The messages and further fields of a request; `fields` go upstream as they are.

    With `continues_at_limit`, a truncated answer is continued. With `is_kept`, the answer is
    generated to its end even if the client disconnects or the worker dies.
    """

    messages: list[dict[str, Any]]
    fields: dict[str, Any] = field(default_factory=dict)
    continues_at_limit: bool = False
    is_kept: bool = False

    @property
    def is_plain(self) -> bool:
        """Return whether a partial answer may be continued: it is bare text."""
        response_format = self.fields.get("response_format")
        is_text = not response_format or response_format == {"type": "text"}
        return is_text and not any(self.fields.get(name) for name in _NOT_CONTINUED)

    def build_messages(self, partial: str, *, prefill: bool) -> list[dict[str, Any]]:
        """Return the messages, with a partial answer to continue."""
        if not partial:
            return list(self.messages)
        content = partial.rstrip() if prefill else partial
        messages = [*self.messages, {"role": "assistant", "content": content}]
        return messages if prefill else [*messages, {"role": "user", "content": CONTINUE_PROMPT}]

    def list_strings(self) -> list[str]:
        """Return each string of the request once, names included, without images and audio."""
        found: dict[str, None] = {}
        for message in self.messages:
            _find_strings({**message, "content": None}, found)
            content = message.get("content")
            parts = content if isinstance(content, list) else [content]
            _find_strings([_omit_binary(part) for part in parts], found)
        _find_strings(self.fields, found)
        return list(found)

    def list_texts(self) -> list[str]:
        """Return the texts of the messages, without images and other parts."""
        texts: list[str] = []
        for message in self.messages:
            content = message.get("content")
            if isinstance(content, str):
                texts.append(content)
            elif isinstance(content, list):
                parts = [part.get("text") for part in content if isinstance(part, dict)]
                texts += [part for part in parts if isinstance(part, str)]
        return texts

    def encode(self) -> str:
        """Return the request as JSON, for Redis."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def decode(cls, data: bytes | None) -> "ClientRequest":
        """Return the request from the bytes of `encode`, or an empty one if they are unreadable."""
        try:
            return msgspec.json.decode(data or b"", type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return cls([])


_BINARY = re.compile(r"(?:data:[\w/.+;=-]{0,99};base64,)?[A-Za-z0-9+/_=-]{2000,}")
_BINARY_FIELDS = {"image_url": "url", "input_audio": "data", "file": "file_data"}
"""The parts of a message that are no text, and the field with their bytes.

Elsewhere the model reads such a string as text, which may be words joined by `_`.
"""


def _omit_binary(part: object) -> object:
    """Return a part of a message without the bytes of its image, audio or file."""
    if not isinstance(part, dict):
        return part
    kept = dict(part)
    for name, key in _BINARY_FIELDS.items():
        holder = part.get(name)
        if not isinstance(holder, dict):
            continue
        data = holder.get(key)
        if isinstance(data, str) and _BINARY.fullmatch(data):
            kept[name] = {**holder, key: ""}
    return kept


def _find_strings(value: object, found: dict[str, None]) -> None:
    if isinstance(value, str):
        found[value] = None
    elif isinstance(value, list):
        for one in value:
            _find_strings(one, found)
    elif isinstance(value, dict):
        for name, one in value.items():
            found[name] = None
            _find_strings(one, found)


_NOT_CONTINUED = ("tools", "functions", "logprobs", "audio", "modalities", "prediction")
"""Fields with which a partial answer is not continued: the seam would be in JSON or scores."""

CONTINUE_PROMPT = (
    "Your answer broke off. Continue exactly where it stopped, in the middle of a word if need be: "
    "repeat nothing, add no introduction, and keep its language and format."
)
