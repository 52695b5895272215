"""Compute the budget of a request: the tokens of the context window that its messages may take."""

from chat.upstream.client import Upstream
from chat.upstream.servers import MAX_WINDOW, MIN_WINDOW

DEFAULT_WINDOW = 16_000
"""The assumed context window, in tokens, if the server states none."""

MAX_AUTO_BUDGET = 32_000
"""Maximum budget, in tokens, unless CONTEXT_TOKENS is a number."""

_MAX_OUTPUT_SHARE, _MAX_OUTPUT_TOKENS = 4, 4096
"""A quarter of the window is left for the answer, but at most 4,096 tokens."""


class Budgets:
    """The budget of each upstream and model.

    `context_tokens` is CONTEXT_TOKENS, or None for `auto`. `max_output_tokens` is
    MAX_OUTPUT_TOKENS, or None to leave a share of the window for the answer.
    """

    def __init__(self, context_tokens: int | None, max_output_tokens: int | None) -> None:
        self._context_tokens = context_tokens
        self._max_output_tokens = max_output_tokens
        self._learned: dict[tuple[str, str], int] = {}

    def get(self, upstream: Upstream, model: str) -> int:
        """Return the maximum size of a request, in tokens."""
        learned = self._learned.get((upstream.name, model))
        if self._context_tokens is not None:
            limit = self._context_tokens
            return min(limit, self._leave_room(learned)) if learned else limit
        window = learned or upstream.find_window(model) or DEFAULT_WINDOW
        return min(self._leave_room(window), MAX_AUTO_BUDGET)

    def learn(self, upstream: Upstream, model: str, window: int) -> None:
        """Remember the window, in tokens, that an upstream named when it rejected a request."""
        self._learned[upstream.name, model] = max(MIN_WINDOW, min(window, MAX_WINDOW))

    def _leave_room(self, window: int) -> int:
        """Return a window without the tokens left for the answer, but at least half of it."""
        share = min(window // _MAX_OUTPUT_SHARE, _MAX_OUTPUT_TOKENS)
        reserved = share if self._max_output_tokens is None else self._max_output_tokens
        return max(window - reserved, window // 2)
