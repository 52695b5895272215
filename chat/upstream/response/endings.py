"""Classify how a response ended: the finish reasons of all servers, in one table. Pure."""

from enum import Enum


class Ending(Enum):
    """The kinds of finish reasons; the value is what clients and the history receive."""

    COMPLETE = "stop"
    TRUNCATED = "length"
    """The answer reached a token limit: it can be continued."""
    INTERRUPTED = "interrupted"
    """The server stopped early: the answer is continued, or requested from another upstream."""
    WITHHELD = "content_filter"
    """A content filter withheld the answer, or cut it."""
    REFUSED = "refusal"
    """The model declined to answer; the text is its reason."""
    TOOL_CALL = "tool_calls"
    """The model calls a tool instead of answering."""


_REASONS = {
    Ending.TRUNCATED: "length max_tokens max_token max_length max_output_tokens max_new_tokens "
    "max_completion_tokens model_length token_limit incomplete error_limit "
    "model_context_window_exceeded context_length context_length_exceeded context_window_exceeded",
    Ending.INTERRUPTED: "error network_error connection_error server_error internal_error abort "
    "aborted cancel canceled cancelled user_cancel timeout timed_out failed failure overloaded "
    "engine_overloaded unavailable insufficient_system_resource interrupted",
    Ending.WITHHELD: "content_filter content_filtered sensitive safety image_safety "
    "prohibited_content blocklist blocked spii recitation language moderation error_toxic "
    "guardrail_intervened policy_violation",
    Ending.REFUSED: "refusal refused",
    Ending.TOOL_CALL: "tool_calls tool_call tool_use function_call malformed_function_call "
    "unexpected_tool_call",
}

_ENDINGS = {name: ending for ending, names in _REASONS.items() for name in names.split()}

_NO_REASONS = ("", "null", "none", "nil", "undefined", "unspecified", "unknown", "in_progress")
"""Strings that servers send in chunks before the last one."""


def classify(reason: object) -> Ending | None:
    """Return the ending for a finish reason; None if the response has not ended.

    The letters' case, and a prefix such as `finish_reason_`, do not matter. Any other reason
    (`eos`, `end_turn`, a number, an object) means that the model has finished.
    """
    if isinstance(reason, dict):  # {"type": "length"}
        reason = reason.get("type") or reason.get("reason") or "stop"
    if not isinstance(reason, str):
        return Ending.COMPLETE if reason else None
    name = reason.strip().lower().replace("-", "_").replace(" ", "_")
    name = name.rpartition(".")[2].removeprefix("finish_reason_").removeprefix("finishreason_")
    if name in _NO_REASONS:
        return None
    return _ENDINGS.get(name, Ending.COMPLETE)
