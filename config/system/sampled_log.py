"""Log events that may be frequent: the first at once, then a count each minute."""

import asyncio
import logging
from contextvars import Context

INTERVAL_S = 60


class SampledLog:
    """Logs warnings to one logger; at most one line a minute has the same words."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._counts: dict[str, int] = {}
        """Repetitions of each event that was logged in the last minute."""

    def warn(self, event: str, detail: str = "") -> None:
        """Log an event with a detail of it, or count the event.

        `event` is kept for a minute, so it must not contain text of clients. `detail` may.
        """
        if event in self._counts:
            self._counts[event] += 1
            return
        self._logger.warning("%s%s", event, detail and f": {detail}")
        self._count(event)

    def _count(self, event: str) -> None:
        self._counts[event] = 0
        # In an empty context: the current one may keep a request in memory for a minute.
        loop = asyncio.get_running_loop()
        loop.call_later(INTERVAL_S, self._report, event, context=Context())

    def _report(self, event: str) -> None:
        count = self._counts.pop(event)
        if count:
            self._logger.warning("%s: %d more in the last minute", event, count)
            self._count(event)
