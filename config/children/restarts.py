"""Restart processes that have died: at once, or after a delay that grows while they fail."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

logger = logging.getLogger("holdline.supervisor")

SHORT_LIFE_S = 10.0
"""A process that dies sooner after its start would probably die again at once."""

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0


class Restarts:
    """The starts of a process and of those that replace it; `now` is a monotonic time in s."""

    def __init__(self) -> None:
        self.due_at = 0.0
        """When the process may be started again."""
        self._started_at = 0.0
        self._delay_s = 0.0

    def note_start(self, now: float) -> None:
        """Record a start."""
        self._started_at = now

    def note_death(self, now: float) -> float:
        """Record a death, and return the delay of the next start in seconds.

        After a short life it is FIRST_DELAY_S, and doubles up to MAX_DELAY_S; otherwise 0.
        """
        if now - self._started_at >= SHORT_LIFE_S:
            self._delay_s = 0.0
        else:
            self._delay_s = min(MAX_DELAY_S, 2 * self._delay_s or FIRST_DELAY_S)
        self.due_at = now + self._delay_s
        return self._delay_s


class Child(Protocol):
    """Another process that the server needs, restarted when it dies, such as the embedded Redis.

    `poll` returns an exit status when the process must be restarted. If `start` raises an error, it
    is tried again later. `start` returns at once, before the child is ready, when `must_return()`
    is true.
    """

    name: str

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def start(self, must_return: Callable[[], bool]) -> None: ...


class Children:
    """The children of the supervisor."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._failed: dict[Child, Restarts] = {}
        """Children that could not be started again, and when the next try is due."""

    def restart_dead(self, must_return: Callable[[], bool]) -> None:
        """Start the children that have died; return when they are ready, or have failed again.

        Return at once, before a child is ready, when `must_return()` is true.
        """
        for child in self._children:
            failed = self._failed.get(child)
            if failed and failed.due_at <= time.monotonic():
                self._restart(child, failed, must_return)
            elif not failed and (status := child.poll()) is not None:
                logger.error("%s died (%s); restarting it", child.name, describe_exit(status))
                child.stop()
                self._restart(child, Restarts(), must_return)

    def _restart(self, child: Child, restarts: Restarts, must_return: Callable[[], bool]) -> None:
        began = time.monotonic()
        try:
            child.start(must_return)
        except Exception as error:  # the workers continue: a later try may succeed
            now = time.monotonic()
            restarts.note_start(now)
            delay_s = restarts.note_death(now)
            logger.error("%s cannot start: %s (next try in %g s)", child.name, error, delay_s)
            self._failed[child] = restarts
        else:
            self._failed.pop(child, None)
            logger.warning("%s restarted in %.2f s", child.name, time.monotonic() - began)


def describe_exit(code: int | None) -> str:
    """Describe the exit code of a `Process` or `Popen`, such as "signal 9" or "exit status 1"."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
