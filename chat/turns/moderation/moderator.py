"""Decide whether questions and answers may pass: MODERATION, MODERATION_FAIL."""

import logging
import time
from collections.abc import Iterable, Sequence

from chat.errors import Moderated, ModerationFailed, ModerationUnavailable, UpstreamError
from chat.turns.moderation.windows import split_text
from chat.upstream.moderations import MAX_TEXTS, CheckFailed, ModerationEndpoint

logger = logging.getLogger("holdline.moderation")

_LOG_INTERVAL_S = 60
_RETRY_AFTER_S = 5


class Moderator:
    """Checks texts; if the endpoint gives no verdict, they pass if it `fails_open`."""

    def __init__(self, endpoint: ModerationEndpoint, *, fails_open: bool) -> None:
        self._endpoint = endpoint
        self._fails_open = fails_open
        self._failures = 0
        self._logged_at = -float(_LOG_INTERVAL_S)

    async def check_question(self, texts: Iterable[str]) -> None:
        """Return if the texts of a question pass; raises Moderated or ModerationUnavailable."""
        parts = [part for text in texts for part in split_text(text)]
        for begin in range(0, len(parts), MAX_TEXTS):
            try:
                is_flagged = await self._is_flagged(parts[begin : begin + MAX_TEXTS])
            except CheckFailed:
                raise ModerationUnavailable(
                    "The moderation endpoint could not check the question. Try again in a moment.",
                    retry_after_s=_RETRY_AFTER_S,
                ) from None
            if is_flagged:
                raise Moderated(
                    "The server's moderation flagged the question, or the system prompt of its "
                    "conversation. The question was neither stored nor sent to the model."
                )

    async def check_answer(self, texts: Sequence[str]) -> None:
        """Return if a window of an answer passes; raises UpstreamError and ends the turn."""
        try:
            is_flagged = await self._is_flagged(texts)
        except CheckFailed:
            raise ModerationFailed(
                "moderation_unavailable",
                "The moderation endpoint could not check the answer. Its text so far is kept.",
            ) from None
        if is_flagged:
            raise UpstreamError(
                "moderated",
                "The server's moderation flagged the answer. Its text so far is kept.",
            )

    async def _is_flagged(self, texts: Sequence[str]) -> bool:
        try:
            return await self._endpoint.is_flagged(texts)
        except CheckFailed as failure:
            self._log(failure)
            if not self._fails_open:
                raise
            return False

    def _log(self, failure: CheckFailed) -> None:
        """Log failed checks, once a minute."""
        self._failures += 1
        now = time.monotonic()
        if now - self._logged_at < _LOG_INTERVAL_S:
            return
        logger.warning(
            "moderation: %d checks failed, the last one with %s; the texts %s",
            self._failures,
            failure,
            "passed unchecked" if self._fails_open else "were withheld",
        )
        self._failures, self._logged_at = 0, now
