"""Choose the messages to send upstream, within the token budget.

Tokens are estimated, because only the upstream can count them: about four ASCII characters or one
other character a token. The counts that an upstream reports correct the estimate, per model.
"""

from collections.abc import Iterable
from typing import Any

from chat.errors import ContextExceeded
from chat.turns.context.budget import Budgets
from chat.turns.context.client_request import CONTINUE_PROMPT
from chat.upstream.client import Upstream
from chat.upstream.request import ChatMessage
from sessions.conversation_store import ConversationStore
from sessions.turns.turn_record import TurnRecord

MAX_BYTES_PER_TOKEN = 8
"""Upper bound for a token of real text; bounds the bytes read from the history."""

_MESSAGE_TOKENS = 4
"""Tokens around each message, as OpenAI's cookbook counts them for its chat models."""

_PRIOR = (1000.0, 1000.0)
"""Initial sums of reported and estimated tokens: the estimate counts as correct."""

_MIN_RATIO, _MAX_RATIO = 0.25, 4.0
"""Bounds of the tokens that an upstream counts for each token of the estimate."""

_MAX_MESSAGES = 2000
"""Maximum number of messages sent upstream; real ones exceed any budget earlier."""


class Prompt:
    """Chooses the messages for a turn; its reads do not grow with the conversation."""

    def __init__(self, store: ConversationStore, budgets: Budgets, *, system_prompt: str) -> None:
        self._store = store
        self._system_prompt = system_prompt
        self._budgets = budgets
        self._estimator = Estimator()

    async def build_messages(
        self,
        record: TurnRecord,
        upstream: Upstream,
        model: str,
        partial: str = "",
        *,
        prefill: bool = False,
    ) -> list[ChatMessage]:
        """Return the messages up to the turn's question, or up to its partial answer.

        Returns as many as probably fit the budget. Raises UNAVAILABLE_ERRORS.
        """
        ref = record.ref
        budget = self._budgets.get(upstream, model)
        system, newest_first = await self._store.read_context(
            ref.owner,
            ref.conversation,
            record.question_id,
            max_bytes=budget * MAX_BYTES_PER_TOKEN,
            max_count=_MAX_MESSAGES,
        )
        if system is None:
            system = self._system_prompt
        newest = []
        if partial:
            # Templates trim the last message, and strict servers reject white space at its end.
            newest = [{"role": "assistant", "content": partial.rstrip() if prefill else partial}]
            if not prefill:
                newest.insert(0, {"role": "user", "content": CONTINUE_PROMPT})
        bodies = newest + [message.body for message in newest_first]
        return fit_to_budget(
            self._estimator,
            f"{upstream.name} {model}",
            budget,
            system,
            bodies,
            min_messages=len(newest) + 1,
        )

    def calibrate(self, upstream: Upstream, model: str, size: float, reported: int) -> None:
        """Correct the estimate by the tokens that the upstream counted for messages of `size`."""
        self._estimator.calibrate(f"{upstream.name} {model}", size, reported)

    def count(self, upstream: Upstream, model: str, size: float) -> int:
        """Return a size as the number of tokens that the upstream probably counts."""
        return round(self._estimator.correct(f"{upstream.name} {model}", size))

    def learn(
        self, upstream: Upstream, model: str, size: float, rejection: ContextExceeded
    ) -> None:
        """Learn the window of a model from the rejection of messages of this estimated size."""
        # If the rejection states no number, assume that a request of half the size fits.
        window = rejection.window or round(size / 2)
        self._budgets.learn(upstream, model, window)
        counted = rejection.requested or rejection.window or size
        self._estimator.note_rejection(f"{upstream.name} {model}", size, counted)


class Estimator:
    """Estimates tokens, corrected by each count that an upstream reports."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._least: dict[str, float] = {}

    def estimate(self, model: str, content: str) -> float:
        """Return the estimated size of a message with this content, in tokens."""
        return self.correct(model, _estimate(content))

    def correct(self, model: str, size: float) -> float:
        """Return an uncorrected size, corrected by the reports about this model."""
        reported, estimated = self._sums.get(model, _PRIOR)
        # Bounded, so that absurd reports can neither starve nor flood a model.
        least = self._least.get(model, _MIN_RATIO)
        return size * min(_MAX_RATIO, max(least, reported / estimated))

    def note_rejection(self, model: str, size: float, counted: float) -> None:
        """Raise the minimum of the estimate to the count with which an upstream rejected messages.

        A server may report fewer tokens than it counts, because it omits those in its cache.
        """
        self._least[model] = min(_MAX_RATIO, max(_MIN_RATIO, counted / max(size, 1)))

    def calibrate(self, model: str, messages_size: float, reported: int) -> None:
        """Correct the estimate by a reported count; the size of the messages is uncorrected."""
        before_reported, before_estimated = self._sums.get(model, _PRIOR)
        # A long prompt weighs more and fades earlier counts; a short one is mostly template.
        keep = _PRIOR[1] / (_PRIOR[1] + messages_size)
        self._sums[model] = (
            before_reported * keep + reported,
            before_estimated * keep + messages_size,
        )


def estimate_size(messages: Iterable[ChatMessage]) -> float:
    """Return the size of messages in tokens, by an uncorrected estimate."""
    return sum(_estimate(message["content"]) for message in messages)


def estimate_text(text: str) -> float:
    """Return the size of a text in tokens, by an uncorrected estimate."""
    narrow = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return narrow / 4 + len(text) - narrow


def fit_to_budget(
    estimator: Estimator,
    model: str,
    budget: int,
    system: str,
    newest_first: Iterable[dict[str, Any]],
    min_messages: int = 1,
) -> list[ChatMessage]:
    """Return the system prompt and the newest messages that fit `budget` tokens, oldest first.

    The newest `min_messages` are always included. Neighbours of one role (a question without an
    answer, asked again) become one message, because many chat templates require alternating roles.
    The first message after the system prompt is a question.
    """
    left = budget - (estimator.estimate(model, system) if system else 0)
    chosen: list[ChatMessage] = []
    for number, body in enumerate(newest_first):
        if body["role"] == "assistant" and not body["content"].strip():
            continue  # strict servers reject a conversation with an empty answer
        left -= estimator.estimate(model, body["content"])
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
    return _MESSAGE_TOKENS + estimate_text(content)
