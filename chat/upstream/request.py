"""Build the body of a request to an upstream. Pure."""

from typing import Any, NotRequired, TypedDict

from chat.upstream.servers import Prefill, ServerKind


class ChatMessage(TypedDict):
    """One message of the `messages` array (OpenAI chat completions)."""

    role: str
    content: str
    prefix: NotRequired[bool]


Messages = list[ChatMessage] | list[dict[str, Any]]
"""The messages of a request: Holdline's own, or those that a client has written."""


def build_body(
    messages: Messages,
    model: str,
    server: ServerKind,
    fields: dict[str, Any],
    *,
    prefill: bool,
) -> dict[str, Any]:
    """Return the body of a request for a stream, with `fields`, without its optional fields.

    With `prefill` the last message is the partial answer. A server of unknown kind gets the fields
    of vLLM, because most servers that can continue a message accept them.
    """
    body: dict[str, Any] = {**fields, "model": model, "messages": messages, "stream": True}
    if not prefill:
        return body
    if server.prefill is Prefill.PREFIX:
        body["messages"] = [*messages[:-1], {**messages[-1], "prefix": True}]
    elif server.prefill is not Prefill.PLAIN:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body
