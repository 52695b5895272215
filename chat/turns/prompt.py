"""History and budget in, the messages to send out. Pure.

Tokens are estimated, for only the upstream can count them: about four ASCII characters or one other
character a token. What the upstream then reports corrects the estimate, for each model by itself.
"""

from collections.abc import Iterable
from typing import Any

from chat.upstream.request import ChatMessage

_MESSAGE_TOKENS = 4
"""What the frame around a message costs, as OpenAI's cookbook counts for its chat models."""

_PRIOR = (1000.0, 1000.0)
"""Tokens reported and estimated that stand for knowing nothing yet."""

MAX_BYTES_PER_TOKEN = 8
"""More bytes than a token of real text has; bounds what is read from the history."""


class Estimator:
    """Estimates tokens, and learns from each count that an upstream reports."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def tokens(self, model: str, content: str) -> float:
        """The estimated size of a message with this content, in tokens."""
        reported, estimated = self._sums.get(model, _PRIOR)
        # Bounded, so that absurd reports can neither starve nor flood a model.
        return _estimate(content) * min(4.0, max(0.25, reported / estimated))

    def calibrate(self, model: str, size: float, reported: int) -> None:
        """Take in the number of tokens that the upstream counted for messages of `size`."""
        before_reported, before_estimated = self._sums.get(model, _PRIOR)
        # A long prompt says much and makes what was learnt fade; a short one is mostly the template's frame.
        keep = _PRIOR[1] / (_PRIOR[1] + size)
        self._sums[model] = (before_reported * keep + reported, before_estimated * keep + size)


def size(messages: Iterable[ChatMessage]) -> float:
    """The size of messages in tokens, as estimated by one who has learnt nothing."""
    return sum(_estimate(message["content"]) for message in messages)


def fit_to_budget(
    estimator: Estimator,
    model: str,
    budget: int,
    system: str,
    newest_first: Iterable[dict[str, Any]],
    min_messages: int = 1,
) -> list[ChatMessage]:
    """The system prompt, and of the history as much as fits `budget` tokens, newest first; in order of time.

    The newest `always` messages go always. Neighbours of one role (a question that got no answer, asked anew)
    become one message, since many chat templates insist that roles alternate; what is sent begins with a
    question.
    """
    left = budget - (estimator.tokens(model, system) if system else 0)
    chosen: list[ChatMessage] = []
    for number, body in enumerate(newest_first):
        left -= estimator.tokens(model, body["content"])
        if left < 0 and number >= min_messages:
            break
        _join(chosen, {"role": body["role"], "content": body["content"]})
    if len(chosen) > 1 and chosen[-1]["role"] != "user":
        chosen.pop()
    if system:
        chosen.append({"role": "system", "content": system})
    return chosen[::-1]


def _join(newest_first: list[ChatMessage], older: ChatMessage) -> None:
    newer = newest_first[-1] if newest_first else None
    if newer is None or newer["role"] != older["role"]:
        newest_first.append(older)
    elif newer["content"] != older["content"]:
        newest_first[-1] = {
            "role": newer["role"],
            "content": f"{older['content']}\n\n{newer['content']}",
        }


def _estimate(content: str) -> float:
    length = len(content)
    wide = 0 if content.isascii() else sum(1 for character in content if character > "\x7f")
    return _MESSAGE_TOKENS + (length - wide) / 4 + wide
