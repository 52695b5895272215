"""The answer generated so far, and the message that the history stores."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chat.errors import UpstreamError
from chat.turns.context.prompt import estimate_text
from chat.turns.usage import NO_REQUEST, TurnUsage
from sessions.turns.turn_record import TurnRecord


@dataclass(slots=True)
class Answer:
    """The text and reasoning of a turn, its seams, and the figures of its requests."""

    record: TurnRecord
    model: str
    upstream: str = ""
    # Bytearrays: a list of deltas, or a StringIO, takes ten times the memory of its text.
    text: bytearray = field(default_factory=bytearray)
    reasoning: bytearray = field(default_factory=bytearray)
    continued: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    usage: TurnUsage | None = None
    finish_reason: str | None = None
    first_token_ms: int | None = None
    begun_at: float = field(default_factory=time.monotonic)

    @property
    def has_output(self) -> bool:
        """Return whether viewers have seen text or reasoning."""
        return bool(self.text or self.reasoning)

    @property
    def size(self) -> float:
        """Return the size of text and reasoning in tokens, by an uncorrected estimate."""
        return estimate_text(self.text.decode()) + estimate_text(self.reasoning.decode())

    @property
    def continuations(self) -> int:
        """Return the number of requests that continued the answer, or repeated it after a takeover.

        Reasoning is continued by a new request: its seam counts.
        """
        repeated = [
            attempt
            for attempt in self.attempts
            if attempt["mode"] != "new" or attempt.get("reason") == "interrupted"
        ]
        return max(len(repeated), len(self.continued))

    def ends_with_seam(self, model: str) -> bool:
        """Return whether the text ends with a seam, after which the same model wrote nothing."""
        last = self.continued[-1] if self.text and self.continued else None
        return last is not None and model == self.model and last["at"] == len(self.text.decode())

    def add_attempt(self, mode: str, reason: str | None, tokens: int) -> str:
        """Record a request of an estimated number of tokens to the upstream; return it as JSON.

        `reason` is the failure of the previous request, if there was one. A takeover needs the
        usage before the request, and the size of the output.
        """
        attempt: dict[str, Any] = {
            "number": len(self.attempts) + 1,
            "upstream": self.upstream,
            "mode": mode,
            "reason": reason,
            "tokens": tokens,
            "output": round(self.size),
        }
        if self.usage:
            attempt["usage"] = msgspec.to_builtins(self.usage)
        self.attempts.append(attempt)
        return json.dumps(attempt)

    def add_usage(self, usage: TurnUsage) -> None:
        """Add the tokens of one request to those of the earlier ones."""
        self.usage = self.usage.add(usage) if self.usage else usage

    def add_seam(self, why: str, model: str) -> str:
        """Record that a continuation begins here; return the seam as JSON."""
        seam: dict[str, Any] = {"at": len(self.text.decode()), "why": why}
        if model != self.model:
            seam["model"] = model
        self.continued.append(seam)
        return json.dumps(seam)

    def message_json(self, reason: str, failure: UpstreamError | None) -> str:
        """Return the assistant message as the history stores it.

        `reason` is its finish reason, and `failure` the reason of a failed turn.
        """
        body: dict[str, Any] = {
            "role": "assistant",
            "content": self.text.decode(),
            "created": time.time_ns() // 1_000_000,
            "turn": self.record.ref.turn,
            "model": self.model,
            "finish_reason": reason,
            "usage": msgspec.to_builtins(self.usage or NO_REQUEST),
        }
        if self.reasoning:
            body["reasoning"] = self.reasoning.decode()
        if self.tool_calls:
            body["tool_calls"] = self.tool_calls
        if self.continued:
            body["continued"] = self.continued
        if failure:
            body["failure"] = failure.describe()
        return json.dumps(body, ensure_ascii=False)

    def usage_json(self, reason: str) -> str:
        """Return the data of the `usage` frame."""
        body: dict[str, Any] = {
            **msgspec.to_builtins(self.usage or NO_REQUEST),
            "finish_reason": reason,
            "upstream": self.upstream,
            "model": self.model,
            "first_token_ms": self.first_token_ms,
        }
        if self.continued:
            body["continued"] = self.continued
        return json.dumps(body, ensure_ascii=False)
