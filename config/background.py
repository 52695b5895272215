"""Run the background tasks that a worker needs."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

logger = logging.getLogger("holdline.background")

_EX_SOFTWARE = 70
"""Exit status of an internal error, as in sysexits.h."""


@asynccontextmanager
async def run_in_background(name: str, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a task while the block runs, then cancel it; exit the process if the task fails."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(exit_on_task_failure)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def exit_on_task_failure(task: asyncio.Task[None]) -> None:
    """Exit if the task failed: the supervisor replaces the worker, and its turns are taken over."""
    if not task.cancelled() and (error := task.exception()):
        logger.critical("background task %s failed; exiting", task.get_name(), exc_info=error)
        os._exit(_EX_SOFTWARE)
