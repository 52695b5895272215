"""Limit the tasks that run at the same time for each session, or for each address."""

import asyncio
from weakref import WeakValueDictionary


class Semaphores:
    """A semaphore for each key, which exists while it is used."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, key: str) -> asyncio.Semaphore:
        """Return the semaphore of a key, which up to `limit` tasks hold at a time."""
        return self._semaphores.setdefault(key, asyncio.Semaphore(self._limit))
