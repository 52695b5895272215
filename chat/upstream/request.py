"""The parts of a request to an upstream. Pure."""

from typing import TypedDict


class ChatMessage(TypedDict):
    """One message of the `messages` array (OpenAI chat completions)."""

    role: str
    content: str
