"""Choose the upstream of a turn's next request, and the mode in which it continues an answer."""

import logging
from collections.abc import Sequence
from enum import Enum

from chat.errors import UpstreamError
from chat.upstream.client import Upstream
from chat.upstream.servers import Prefill
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.model_facts import ModelFacts

logger = logging.getLogger("holdline.turn")


class Mode(Enum):
    """How a request asks for the answer."""

    NEW = "new"
    PROMPT = "prompt"
    """A message asks the model to continue its partial answer."""
    PREFILL = "prefill"
    """The partial answer is the last message, and the server continues it."""


class UpstreamChoice:
    """The upstreams of one turn, in the order in which they are tried."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = sorted(upstreams, key=lambda upstream: upstream.in_cooldown)
        self._index = 0
        self.untried = len(upstreams) - 1
        """Number of further upstreams that may get the complete question after a failure."""

    @property
    def current(self) -> Upstream:
        """Return the upstream of the next request."""
        return self._upstreams[self._index]

    @property
    def next(self) -> Upstream:
        """Return the upstream that follows the current one, which may be the only one."""
        return self._upstreams[(self._index + 1) % len(self._upstreams)]

    @property
    def has_others(self) -> bool:
        """Return whether there is more than one upstream."""
        return len(self._upstreams) > 1

    def use_next(self, error: UpstreamError) -> None:
        """Choose the next upstream, if there is another; the one that failed is tried last."""
        if not self.has_others:
            return
        failed = self.current
        failed.cool_down()
        self._index = (self._index + 1) % len(self._upstreams)
        logger.warning(
            "upstream %s failed (%s); the next is %s", failed.name, error.kind, self.current.name
        )


class ContinueMode:
    """Chooses how an answer is continued.

    `setting` is CONTINUE_MODE: `prompt`, `prefill` or `auto`, which chooses by server and model.
    """

    def __init__(self, setting: str, facts: ModelFacts) -> None:
        self._setting = setting
        self._facts = facts

    async def choose(self, upstream: Upstream, model: str, *, has_reasoning: bool) -> Mode:
        """Return the mode for a partial answer.

        After reasoning, `auto` chooses prompt: servers reject a prefilled answer in thinking mode,
        or return its continuation as reasoning. Raises UNAVAILABLE_ERRORS.
        """
        if self._setting != "auto":
            return Mode(self._setting)
        if has_reasoning or upstream.find_kind(model).prefill is Prefill.NONE:
            return Mode.PROMPT
        is_rejected = await self._facts.rejects_prefill(upstream.name, model)
        return Mode.PROMPT if is_rejected else Mode.PREFILL

    async def note_rejected_prefill(self, upstream: Upstream, model: str) -> None:
        """Record that a model does not continue a prefilled answer."""
        try:
            await self._facts.note_rejected_prefill(upstream.name, model)
        except UNAVAILABLE_ERRORS:
            logger.warning("Redis unavailable; %s will be prefilled again", model)
